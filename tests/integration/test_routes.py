"""The same photo by every route: one score and one label, in prediction, on the page, and in exported files."""

import json
from pathlib import Path

import numpy as np
import pytest
from anomalib.data import PredictDataset
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from PIL import Image
from tests.arguments import grouped
from tests.data.golden.make_golden import GOLDEN
from tests.integration.exported import KINDS, numbers_in, run_file, upright
from tests.integration.exported import predicted as outputs_of
from torchvision.transforms import v2

from anomalib_dpclip import DPCLIPPostProcessor, Photos
from anomalib_dpclip.app.predictor import Predictor
from anomalib_dpclip.cli import main
from anomalib_dpclip.clip.pretraining import OPENAI
from anomalib_dpclip.data.results import RESULTS_JSON
from anomalib_dpclip.deploy.threshold_command import read_exported, threshold
from anomalib_dpclip.model.from_file import model_from_file

CHECKPOINT = GOLDEN / "checkpoint-v1.ckpt"
ADAPTERS = GOLDEN / "adapters-v1.safetensors"
TOLERANCE = 1e-3
SIZES = [
    *((140, 140), (141, 139), (1, 1), (7, 300), (300, 7), (97, 211), (211, 97), (200, 300), (300, 200), (280, 280), (279, 281)),
    *((333, 500), (500, 333), (64, 64), (48, 640), (640, 48), (480, 640), (640, 480), (517, 519), (129, 1031), (1031, 129)),
]


@pytest.fixture(scope="module")
def folder(surfaces_root, tmp_path_factory):
    """Photos of weaves, stretched to odd sizes, with noise on some."""
    root = tmp_path_factory.mktemp("photos")
    for (height, width), path in zip(SIZES, sorted((surfaces_root / "weave/test/good").iterdir()), strict=False):
        pixels = np.asarray(Image.open(path).convert("RGB").resize((width, height)), dtype=float)
        noise = np.random.default_rng(height * width).normal(0, 20 if height > width else 0, pixels.shape)
        Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(root / f"{height}x{width}.png")
    return root


def predicted(model, **source):
    """Score and label of each photo by its name, as anomalib's engine predicts."""
    engine = Engine(accelerator="cpu", logger=False, enable_progress_bar=False)
    return {
        Path(path).name: (score.item(), label.item())
        for batch in engine.predict(model=model, **source)
        for path, score, label in zip(batch.image_path, batch.pred_score, batch.pred_label, strict=True)
    }


def quiet(path=CHECKPOINT, **arguments):
    return model_from_file(path, visualizer=False, **grouped(**arguments))


def with_photos(folder, batch_size=1, **arguments):
    return predicted(quiet(**arguments), datamodule=Photos(folder, batch_size=batch_size, num_workers=0, fresh=True))


@pytest.fixture(scope="module")
def expected(folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("work"))  # runs write where they are started
        found = with_photos(folder)
        assert len(found) == len(SIZES)
        assert {label for _, label in found.values()} == {False, True}  # else agreement on them means nothing
        yield found


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, (score, label) in expected.items():
        assert found[name][0] == pytest.approx(score, abs=TOLERANCE), name
        if abs(score - 0.5) > TOLERANCE:
            assert bool(found[name][1]) == label, name


ENGINE = {
    "photos, batches of 3": lambda folder: with_photos(folder, batch_size=3),
    "photos, batches of 8": lambda folder: with_photos(folder, batch_size=8),
    "data_path": lambda folder: predicted(quiet(), data_path=folder),
    "PredictDataset": lambda folder: predicted(quiet(), dataset=PredictDataset(folder)),
    "ckpt_path": lambda folder: predicted(
        quiet(path=ADAPTERS), ckpt_path=CHECKPOINT, datamodule=Photos(folder, num_workers=0, fresh=True)
    ),
}


@pytest.mark.parametrize("route", ENGINE)
def test_the_engine(route, folder, expected):
    assert_same(ENGINE[route](folder), expected)


def test_dpclip_predict(folder, expected, tmp_path):
    options = {"weights": CHECKPOINT, "output": tmp_path, "num_workers": 0, "pictures": "false", "accelerator": "cpu"}
    main(["predict", str(folder), *(str(word) for name, value in options.items() for word in (f"--{name}", value))])
    rows = json.loads((tmp_path / RESULTS_JSON).read_text())
    assert_same({Path(row["path"]).name: (row["score"], row["label"] == "anomalous") for row in rows}, expected)


def test_the_page(folder, expected):
    page = Predictor(quiet())
    assert_same({name: (page.predict(folder / name, "weave").score, expected[name][1]) for name in expected}, expected)


NAMES = [f"{height}x{width}.png" for height, width in SIZES[5:9]]
CLASSES = ["weave", "metal plate"]


@pytest.fixture(scope="module")
def set_up(folder, tmp_path_factory):
    """Photos of one size, and all that can be set for them: what is ignored, regions' size, tiles, and sensitivities."""
    root = tmp_path_factory.mktemp("set_up")
    (root / "photos").mkdir()
    for name in NAMES:
        Image.open(folder / name).resize((200, 300)).save(root / "photos" / name)
    Image.fromarray(np.uint8([[255] * 200] * 90 + [[0] * 200] * 210)).save(root / "ignored.png")

    def arguments(**others):
        post_processor = DPCLIPPostProcessor(image_sensitivity=0.4, pixel_sensitivity=0.9)
        ignored = {"ignore": root / "ignored.png", "min_area": 50}
        return {"path": ADAPTERS, "tiles": 2, "post_processor": post_processor} | ignored | others

    return root / "photos", arguments


@pytest.fixture(scope="module")
def of_each_class(set_up, expected):
    """What the engine predicts for each class."""
    photos, arguments = set_up
    found = [with_photos(photos, batch_size=3, **arguments(class_name=name)) for name in CLASSES]
    for others in (expected, found[1]):  # else nothing is shown
        assert any(found[0][name] != pytest.approx(others[name], abs=0.01) for name in NAMES)
    return found


@pytest.fixture(scope="module", params=KINDS)
def two_classes(request, set_up, tmp_path_factory):
    """One file of both classes, and its model."""
    model = quiet(**set_up[1](export_classes=CLASSES))
    return getattr(model, f"to_{request.param}")(tmp_path_factory.mktemp(request.param)), model


def by_hand(file, photos, **chosen):
    found = {name: run_file(file, upright(photos / name), **chosen) for name in NAMES}
    return {name: (outputs["pred_score"].item(), outputs["pred_label"].item()) for name, outputs in found.items()}


@pytest.mark.filterwarnings("ignore:the mini backbone does not know the word")
def test_one_file_of_several_classes(set_up, of_each_class, two_classes):
    (photos, _), (file, model) = set_up, two_classes
    for number, scores in enumerate(of_each_class):
        assert_same(by_hand(file, photos, **{"class": np.array([number])}), scores)
    assert_same(by_hand(file, photos), of_each_class[0])  # by default the first
    assert numbers_in(file) < 2 * sum(tensor.numel() for tensor in model.model.state_dict().values())  # the tower is there once


@pytest.mark.filterwarnings("ignore:the mini backbone does not know the word")
def test_the_page_of_each_class(set_up, of_each_class):
    photos, arguments = set_up
    for class_name, scores in zip(CLASSES, of_each_class, strict=True):
        page = Predictor(quiet(**arguments(class_name=class_name)))
        assert_same({name: (page.predict(photos / name).score, scores[name][1]) for name in NAMES}, scores)


def test_each_class_of_a_file_has_thresholds_of_its_own(two_classes, set_up, of_each_class, capsys):
    file, _ = two_classes
    before = read_exported(file).scales
    with pytest.raises(ValueError, match=r"has several classes: choose one with --class_name: 'weave', 'metal plate'"):
        threshold(file, image=0.4)
    threshold(file, image=0.9, class_name="metal plate")
    after = read_exported(file).scales
    np.testing.assert_array_equal(after[0], before[0])
    assert after[1][11] == pytest.approx(0.9)
    said = capsys.readouterr().out
    for number, name in enumerate(CLASSES):
        assert f"class {number}          {name}" in said
    assert_same(by_hand(file, set_up[0]), of_each_class[0])


@pytest.mark.parametrize("value", [0.05, 0.95])
def test_sensitivities_count_by_every_route(folder, expected, value):
    """Given, or assigned before the checkpoint is loaded: more of them call more photos anomalous."""
    assigned = quiet(path=ADAPTERS)
    assigned.post_processor.image_sensitivity = value
    found = [
        with_photos(folder, post_processor=DPCLIPPostProcessor(image_sensitivity=value)),
        predicted(assigned, ckpt_path=CHECKPOINT, datamodule=Photos(folder, num_workers=0, fresh=True)),
    ]
    for scores in found:
        assert {name: label for name, (_, label) in scores.items()} == {
            name: score > 1 - value for name, (score, _) in expected.items()
        }
    assert sum(label for _, label in expected.values()) not in {0, len(SIZES)}


def test_turned_photos_are_upright_on_our_own_routes(folder, expected, tmp_path):
    name = "200x300.png"
    turned = Image.open(folder / name).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    found = with_photos(tmp_path)
    assert found["turned.png"] == pytest.approx(expected[name])
    assert Predictor(quiet()).predict(tmp_path / "turned.png", "weave").score == pytest.approx(expected[name][0], abs=1e-5)


def own_pre_processor(*before):
    return PreProcessor(v2.Compose([*before, v2.Normalize(OPENAI.mean, OPENAI.std)]))


def test_a_pre_processor_of_one_s_own_comes_back_from_its_checkpoint(folder, tmp_path):
    own = own_pre_processor(v2.Resize((140, 140)))
    engine = Engine(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    model = quiet(path=ADAPTERS, pre_processor=own)
    engine.predict(model=model, data_path=folder / "280x280.png")
    engine.trainer.save_checkpoint(tmp_path / "own.ckpt")
    image = upright(folder / "280x280.png")
    image[..., 40:120, 180:240] = 1  # a defect that is plain to see
    first, loaded = (outputs_of(each, image) for each in (model.eval(), quiet(path=tmp_path / "own.ckpt").eval()))
    np.testing.assert_allclose(loaded["anomaly_map"], first["anomaly_map"], atol=1e-6)
    row, column = np.unravel_index(first["anomaly_map"][0].argmax(), (140, 140))
    assert 20 <= row <= 60
    assert 90 <= column <= 120
    with pytest.raises(ValueError, match="calibrated with DPCLIP's own pre-processor: leave pre_processor out"):
        quiet(pre_processor=own)
    with pytest.raises(ValueError, match="something else than the whole image"):
        quiet(path=ADAPTERS, pre_processor=own_pre_processor(v2.Resize(160), v2.CenterCrop(140)))
