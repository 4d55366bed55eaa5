import socket

import pytest
from anomalib.data import MVTec, MVTecAD
from tests.metadata_lines import write_lines
from tests.pictures import mask, picture

from anomalib_dpclip.data.labelled_sets import (
    auxiliary_categories_of,
    categories_of,
    data_module_class,
    prepare_labelled_set,
    read_labelled_set,
)
from anomalib_dpclip.files.downloads import network_timeout


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("MVTecAD")
    for category in categories_of(data_module_class("MVTecAD")):
        for name in ("train/good/000", "test/good/000", "test/hole/000", "test/hole/001"):
            picture(root / category / f"{name}.png")
        for index in ("000", "001"):
            mask(root / category / "ground_truth" / "hole" / f"{index}_mask.png")
    return root


@pytest.mark.parametrize("name", ["MVTecAD", "mvtecad", "VisA", "MVTec", "Surfaces"])
def test_names_in_any_case(name):
    assert data_module_class(name).__name__.lower() == name.lower()


@pytest.mark.parametrize(
    "name", ["MVTecADD", "", "Folder", "no/such/folder", "AnomalibDataModule", "JSONLines", "MVTec3D", "UCSDped"]
)
def test_an_unknown_name(name):
    with pytest.raises(ValueError, match=r"unknown data set .*path of a .jsonl file that exists, or one of .*MVTecAD.*Visa"):
        read_labelled_set(name)


@pytest.mark.parametrize(
    ("name", "count"), [("MVTecAD", 15), ("Visa", 12), ("BTech", 3), ("MPDD", 6), ("BMAD", 3), ("Surfaces", 6)]
)
def test_categories_to_learn_from(name, count):
    cls = data_module_class(name)
    assert len(auxiliary_categories_of(cls)) == count
    assert set(auxiliary_categories_of(cls)) <= set(categories_of(cls))


@pytest.mark.parametrize("name", ["AutoVI", "MVTecAD2", "MVTecLOCO", "RealIAD", "VAD"])
def test_other_image_sets_of_the_host_can_be_asked_for(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"auxiliary set '{name}'.*{tmp_path}"):
        read_labelled_set(name, tmp_path)


def test_all_labelled_test_images_of_all_categories_or_of_one(root):
    samples = read_labelled_set("MVTecAD", root)
    assert len(samples) == 15 * 3
    assert samples.label_index.sum() == 15 * 2
    assert set(samples.class_name) == set(categories_of(data_module_class("MVTecAD")))
    assert not samples.image_path.str.contains("train").any()
    assert samples[samples.label_index == 1].mask_path.str.endswith("_mask.png").all()
    assert (samples.data_set == "MVTecAD").all()
    assert read_labelled_set("mvtecad/bottle", root).class_name.tolist() == ["bottle"] * 3
    with pytest.raises(ValueError, match=r"MVTecAD has no category 'bottel': it has bottle, cable"):
        read_labelled_set("MVTecAD/bottel", root)


def test_a_category_that_is_not_there(tmp_path):
    picture(tmp_path / "cable" / "test" / "good" / "000.png")
    message = rf"auxiliary set 'MVTecAD/bottle'.*{tmp_path}.*--model.training.auxiliary_root.*--model.weights"
    with pytest.raises(FileNotFoundError, match=message):
        read_labelled_set("MVTecAD/bottle", tmp_path)


def test_a_set_that_cannot_be_downloaded(tmp_path, monkeypatch):
    def no_network(self):
        raise OSError("no route to host")

    monkeypatch.setattr(data_module_class("Visa"), "prepare_data", no_network)
    message = rf"auxiliary set 'VisA' is not in {tmp_path} and could not be downloaded \(no route to host\).*--model.weights"
    with pytest.raises(FileNotFoundError, match=message):
        prepare_labelled_set("VisA", tmp_path)


def test_a_set_that_is_there_is_not_downloaded(root, monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "socket", no_network)
    prepare_labelled_set("MVTecAD", root)


def test_a_metadata_file(folder):
    lines = [
        {"image_path": "a.png", "label": 1.0, "class_name": "gear", "mask_path": "m.png"},
        {"image_path": "b.png", "label": 0, "class_name": "nut"},
        {"image_path": "b.png", "label": 0, "class_name": "nut", "split": "train"},
    ]
    path = str(write_lines(folder / "parts.jsonl", lines))
    prepare_labelled_set(path)
    samples = read_labelled_set(path)
    assert samples.class_name.tolist() == ["gear", "nut"]
    assert samples.label_index.tolist() == [1, 0]
    assert (samples.data_set == folder.name).all()
    with pytest.raises(FileNotFoundError, match=r"gone\.jsonl"):
        read_labelled_set(str(folder / "gone.jsonl"))


def test_the_timeout_is_put_back():
    before = socket.getdefaulttimeout()

    def stopped():
        with network_timeout():
            raise OSError(f"stopped with {socket.getdefaulttimeout():g}")

    with pytest.raises(OSError, match="stopped with 30"):
        stopped()
    assert socket.getdefaulttimeout() == before


def test_mvtec_is_the_hosts_data_module_under_its_usual_name():
    datamodule = MVTec()
    assert isinstance(datamodule, MVTecAD)
    assert (datamodule.name, str(datamodule.root), datamodule.category) == ("MVTec", "datasets/MVTecAD", "bottle")
