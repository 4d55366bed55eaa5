"""Each data set of the method end to end, from the folders it is distributed in: learned from, and tested on."""

from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from anomalib.data import BMAD, MPDD, AnomalibDataModule, BTech, Visa
from tests.arguments import make_dpclip
from tests.integration import miniature_sets as miniature

from anomalib_dpclip import JSONLines, MVTec
from anomalib_dpclip.cli import main
from anomalib_dpclip.post_processing.scale import DETECTION_WEIGHT

IMAGE_FIGURES = {"image_AUROC", "image_AP", "image_F1Max"}
PIXEL_FIGURES = {"pixel_AUROC", "pixel_AP", "pixel_AUPRO", "pixel_F1Max"}
LOADERS = {"eval_batch_size": 4, "num_workers": 0}
METADATA = "its metadata file"


class DataSet(NamedTuple):
    """A data set as it is distributed, both of its uses, and what is to come out."""

    build: Callable[[Path], None]
    auxiliary: str
    classes: tuple[int, str]  # how many are learned from there, and one of them
    target: type[AnomalibDataModule]
    category: str | None  # that is tested; all if None
    description: str  # of that category in prompts
    medical: bool = False
    normal: bool = True  # whether there are normal images to test on


def retina(root):
    miniature.bmad(root, ("Retina_RESC",))


COLON = "colon endoscopy image"
METAL_NUT = "MVTecAD/metal nut which has four notched edges"
FABRIC = "BTech/vertical fabric lines in warm, dusty pink and beige tones"
CLAMPS = "metal clamps with black adjustment knobs"
RINGS = "oval concentric circular rings in gradient shades of blue and white"

DATA_SETS = {
    "MVTecAD": DataSet(miniature.mvtec, "MVTecAD", (15, METAL_NUT), MVTec, "bottle", "dark bottle"),
    "VisA": DataSet(miniature.visa, "VisA", (12, "Visa/cashew nut"), Visa, "pcb2", "integrated circuits board"),
    "MPDD": DataSet(miniature.mpdd, "MPDD", (6, "MPDD/scattered metal objects"), MPDD, "connector", CLAMPS),
    "BTech": DataSet(miniature.btad, "BTech", (3, FABRIC), BTech, "03", RINGS),
    "BMAD_Retina": DataSet(miniature.bmad, "BMAD", (1, "BMAD/scan"), BMAD, "Retina_RESC", "scan", medical=True),
    "Retina": DataSet(retina, METADATA, (1, "Retina/scan"), JSONLines, "Retina_RESC", "scan", medical=True),
    "CVC-300": DataSet(miniature.polyps, METADATA, (1, f"CVC-300/{COLON}"), JSONLines, None, COLON, medical=True, normal=False),
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Builds a data set on first use, and for JSON lines lists it with `dpclip metadata`."""
    built: dict[str, tuple[Path, Path | None]] = {}

    def root_and_metadata(name: str) -> tuple[Path, Path | None]:
        if name not in built:
            data_set, base = DATA_SETS[name], tmp_path_factory.mktemp(name)
            root, metadata = base / "data" / name, None
            data_set.build(root)
            if data_set.target is JSONLines:
                metadata = base / "metadata" / name / "full-shot.jsonl"
                source = ["--source", "BMAD"] if data_set.normal else []
                main(["metadata", str(root), *source, "--output", str(metadata)])
            built[name] = root, metadata
        return built[name]

    return root_and_metadata


def target_of(name, roots):
    data_set, (root, metadata) = DATA_SETS[name], roots(name)
    if metadata is not None:
        return JSONLines(metadata=metadata, root=root, category=data_set.category, **LOADERS)
    return data_set.target(root=root, category=data_set.category, **LOADERS)


def auxiliary_of(name, roots):
    root, metadata = roots(name)
    return {"auxiliary": str(metadata) if metadata else DATA_SETS[name].auxiliary, "auxiliary_root": str(root)}


def dpclip(**arguments):
    return make_dpclip(backbone="mini", batch_size=4, visualizer=False, **arguments)


def available(metrics):
    """Names of the metrics that are there, the others being not available rather than 0 or 1."""
    assert metrics.keys() == IMAGE_FIGURES | PIXEL_FIGURES
    assert all(isnan(value) or 0 <= value <= 1 for value in metrics.values())
    return {name for name, value in metrics.items() if not isnan(value)}


NAMES = list(DATA_SETS)


@pytest.mark.parametrize(("learned", "tested"), zip(NAMES, NAMES[1:] + NAMES[:1], strict=True), ids=lambda name: name)
def test_learn_from_one_and_test_on_the_next(learned, tested, roots, make_engine):
    model, auxiliary, target = dpclip(**auxiliary_of(learned, roots)), DATA_SETS[learned], DATA_SETS[tested]
    engine = make_engine(max_epochs=1, limit_train_batches=1)
    (metrics,) = engine.train(model=model, datamodule=target_of(tested, roots))

    assert engine.trainer.global_step == 1
    number, one = auxiliary.classes
    assert len(model.provenance.learned_from) == number
    assert one in model.provenance.learned_from
    assert model.model.domain == ("medical" if target.medical else "industrial")
    assert model.post_processor.calibration.detection_weight == DETECTION_WEIGHT[model.model.domain]
    assert torch.equal(model.model.anchors, model.target.anchors_for(target.description))
    assert available(metrics) == (IMAGE_FIGURES | PIXEL_FIGURES if target.normal else PIXEL_FIGURES)


def test_labels_of_images_only_give_image_figures_only(roots, make_engine, tmp_path):
    """As JSON lines: anomalib's data module stops at the first anomalous image that has no mask."""
    root, metadata = tmp_path / "BMAD", tmp_path / "metadata" / "BMAD" / "full-shot.jsonl"
    miniature.bmad(root, ("Chest",), masked=False)
    main(["metadata", str(root), "--source", "BMAD", "--output", str(metadata)])
    chest = JSONLines(metadata=metadata, root=root, **LOADERS)
    model = dpclip(**auxiliary_of("CVC-300", roots))
    (metrics,) = make_engine(max_epochs=1).train(model=model, datamodule=chest)
    assert available(metrics) == IMAGE_FIGURES
    assert model.model.domain == "medical"


def test_all_classes_of_a_file_at_once_each_with_its_own_prompts(roots, make_engine, tmp_path, monkeypatch, caplog):
    root, _ = roots("BTech")
    monkeypatch.chdir(tmp_path)
    main(["metadata", str(root), "--source", "BTech"])
    everything = JSONLines(metadata="metadata/BTech/full-shot.jsonl", root=root, **LOADERS)
    model, anchors_by_path = dpclip(weights="clip"), {}
    anchors_of = model.target.anchors_of

    def remembering(batch, *args, **kwargs):
        found = anchors_of(batch, *args, **kwargs)
        anchors_by_path.update(zip(batch.image_path, found, strict=True))
        return found

    monkeypatch.setattr(model.target, "anchors_of", remembering)
    (metrics,) = make_engine().test(model=model, datamodule=everything)
    assert available(metrics) == IMAGE_FIGURES | PIXEL_FIGURES
    of_category = {Path(path).parts[-4]: anchors_by_path[path] for path in everything.test_data.samples.image_path}
    assert torch.equal(of_category["03"], model.target.anchors_for(RINGS))
    assert len(of_category) == 3
    assert "no class name is known" not in caplog.text
