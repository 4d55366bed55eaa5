"""Each data set of the method end to end, from the folders it is distributed in: learned from, and tested on."""

from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from anomalib.data import BMAD, MPDD, AnomalibDataModule, BTech, Folder, Visa

from anomalib_dpclip import DPCLIP, JSONLines, MVTec
from anomalib_dpclip.cli import main
from tests.integration import miniature_sets as miniature

IMAGE_FIGURES = {"image_AUROC", "image_AP", "image_F1Max"}
PIXEL_FIGURES = {"pixel_AUROC", "pixel_AP", "pixel_AUPRO", "pixel_F1Max"}
LOADERS = {"eval_batch_size": 4, "num_workers": 0}


class DataSet(NamedTuple):
    """A data set as it is distributed, both of its uses, and what is to come out.

    Attributes:
        build: Writes its folders.
        auxiliary: Value of ``auxiliary``; a metadata file if the set is used through one.
        classes: How many classes are learned from there, and one of them.
        target: Data module and category it is tested with; ``None`` for JSON lines.
        category: Category that is tested.
        description: What prompts call that category.
        medical: Whether it is one of the medical sets.
        normal: Whether there are normal images to test on.
    """

    build: Callable[[Path], None]
    auxiliary: str
    classes: tuple[int, str]
    target: type[AnomalibDataModule] | None
    category: str | None
    description: str
    medical: bool = False
    normal: bool = True


def brain(root):
    miniature.bmad(root, ("Brain",))


def liver(root):
    miniature.bmad(root, ("Liver",))


def retina(root):
    miniature.bmad(root, ("Retina_RESC",))


POLYP = "colon endoscopy image"
DATA_SETS = {
    "MVTecAD": DataSet(
        *(miniature.mvtec, "MVTecAD", (15, "MVTecAD/metal nut which has four notched edges"), MVTec, "bottle"), "dark bottle"
    ),
    "VisA": DataSet(miniature.visa, "VisA", (12, "Visa/cashew nut"), Visa, "pcb2", "integrated circuits board"),
    "MPDD": DataSet(
        *(miniature.mpdd, "MPDD", (6, "MPDD/scattered metal objects"), MPDD, "connector"),
        "metal clamps with black adjustment knobs",
    ),
    "BTech": DataSet(
        *(miniature.btad, "BTech", (3, "BTech/vertical fabric lines in warm, dusty pink and beige tones"), BTech, "03"),
        "oval concentric circular rings in gradient shades of blue and white",
    ),
    "BMAD_Brain": DataSet(miniature.bmad, "BMAD/Brain", (1, "BMAD/scan"), BMAD, "Brain", "scan", medical=True),
    "BMAD_Liver": DataSet(miniature.bmad, "BMAD/Liver", (1, "BMAD/scan"), BMAD, "Liver", "scan", medical=True),
    "BMAD_Retina": DataSet(miniature.bmad, "BMAD", (1, "BMAD/scan"), BMAD, "Retina_RESC", "scan", medical=True),
    "Brain": DataSet(brain, "metadata", (1, "Brain/scan"), None, "Brain", "scan", medical=True),
    "Liver": DataSet(liver, "metadata", (1, "Liver/scan"), None, "Liver", "scan", medical=True),
    "Retina": DataSet(retina, "metadata", (1, "Retina/scan"), None, "Retina_RESC", "scan", medical=True),
    **{
        name: DataSet(miniature.polyps, "metadata", (1, f"{name}/{POLYP}"), None, None, POLYP, medical=True, normal=False)
        for name in ("CVC-ColonDB", "CVC-ClinicDB", "Kvasir", "CVC-300")
    },
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
            if data_set.target is None:
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
    return {"auxiliary": str(metadata or DATA_SETS[name].auxiliary), "auxiliary_root": str(root)}


def dpclip(**arguments):
    return DPCLIP(backbone="mini", batch_size=4, visualizer=False, **arguments)


def available(figures):
    """Names of the figures that are there, the others being not available rather than 0 or 1."""
    assert figures.keys() == IMAGE_FIGURES | PIXEL_FIGURES
    assert all(isnan(value) or 0 <= value <= 1 for value in figures.values())
    return {name for name, value in figures.items() if not isnan(value)}


NAMES = list(DATA_SETS)


@pytest.mark.parametrize(("learned", "tested"), zip(NAMES, NAMES[1:] + NAMES[:1], strict=True), ids=lambda name: name)
def test_learn_from_one_and_test_on_the_next(learned, tested, roots, make_engine):
    model, auxiliary, target = dpclip(**auxiliary_of(learned, roots)), DATA_SETS[learned], DATA_SETS[tested]
    engine = make_engine(max_epochs=1, limit_train_batches=1)
    (figures,) = engine.train(model=model, datamodule=target_of(tested, roots))

    assert engine.trainer.global_step == 1
    number, one = auxiliary.classes
    assert len(model.provenance.learned_from) == number
    assert one in model.provenance.learned_from
    assert model.model.domain == model.post_processor.domain == ("medical" if target.medical else "industrial")
    assert torch.equal(model.model.anchors, model.anchors_for(target.description))
    assert available(figures) == (IMAGE_FIGURES | PIXEL_FIGURES if target.normal else PIXEL_FIGURES)
