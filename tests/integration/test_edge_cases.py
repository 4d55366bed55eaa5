"""The ends of the method's range: each has a defined result."""

import json
import math

import numpy as np
import pytest
import torch
from anomalib.data import Folder, ImageBatch
from PIL import Image
from tests.arguments import make_dpclip
from tests.data.golden.make_golden import GOLDEN
from tests.tiny_clip import tiny_clip, tiny_model

from anomalib_dpclip import JSONLines
from anomalib_dpclip.clip.text_tower import TextTower
from anomalib_dpclip.method.objective import tokens_of, training_objective
from anomalib_dpclip.method.prompting import text_anchors
from anomalib_dpclip.method.prototypes import Prototypes

NORMAL = {"image_path": "weave/test/good/{:03}.png", "label": 0, "class_name": "weave"}
ANOMALOUS = {
    "image_path": "weave/test/hole/{:03}.png",
    "label": 1,
    "class_name": "weave",
    "mask_path": "weave/ground_truth/hole/{:03}_mask.png",
}


ARCHITECTURE = {"backbone": "mini", "adapter_layers": [0], "tap_layers": [3, 6]}


@pytest.fixture
def write_set(tmp_path):
    """A JSON-lines file of so many normal and anomalous images of drawn weave, or of another material."""

    def write(normal, anomalous, material="weave"):
        rows = [(NORMAL, index) for index in range(normal)] + [(ANOMALOUS, index) for index in range(anomalous)]
        lines = [json.dumps(row).replace("{:03}", f"{index:03}").replace("weave", material) for row, index in rows]
        path = tmp_path / f"{material}.jsonl"
        path.write_text("\n".join(lines))
        return path

    return write


@pytest.fixture
def learned():
    """A model with trained adapters."""
    return make_dpclip(weights=GOLDEN / "adapters-v1.safetensors", visualizer=False, **ARCHITECTURE)


@pytest.mark.parametrize(("normal", "anomalous"), [(1, 0), (0, 1), (3, 0), (0, 3)])
def test_a_target_of_one_kind_or_one_image(learned, make_engine, write_set, surfaces_root, normal, anomalous):
    """What needs both kinds is not available rather than 0 or 1; labels and masks are there all the same."""
    target = JSONLines(metadata=write_set(normal, anomalous), root=surfaces_root, num_workers=0)
    (metrics,) = make_engine().train(model=learned, datamodule=target)
    assert math.isnan(metrics["image_AUROC"])
    # Anomalous images have normal pixels too.
    assert math.isnan(metrics["pixel_AUROC"]) is (anomalous == 0)
    calibration = learned.post_processor.calibration
    assert calibration.is_set
    assert (calibration.map_knots.diff() > 0).all()
    assert (calibration.score_knots.diff() > 0).all()
    (batch,) = make_engine().predict(model=learned, data_path=surfaces_root / "weave" / "test" / "hole" / "004.png")
    assert 0 <= batch.pred_score.item() <= 1
    assert batch.anomaly_map.isfinite().all()
    assert batch.pred_label.dtype == batch.pred_mask.dtype == torch.bool


def test_masks_of_one_kind_of_defect_alone(learned, make_engine, write_set, surfaces_root):
    """Scratches without masks count as images; pixel metrics and the pixel threshold are those of the others."""
    plain = write_set(6, 4)
    scratches = [ANOMALOUS | {"image_path": "weave/test/scratch/{:03}.png", "mask_path": None}] * 3
    lines = [json.dumps(row).replace("{:03}", f"{index:03}") for index, row in enumerate(scratches)]
    mixed = plain.with_name("mixed.jsonl")
    mixed.write_text("\n".join([plain.read_text(), *lines]))
    found = []
    for metadata in (plain, mixed):
        target = JSONLines(metadata=metadata, root=surfaces_root, num_workers=0)
        found += make_engine().train(model=learned, datamodule=target)
    without, with_scratches = found
    for name in ("pixel_AUROC", "pixel_AP", "pixel_AUPRO", "pixel_F1Max"):
        assert with_scratches[name] == pytest.approx(without[name], abs=1e-3), name
    assert not math.isnan(with_scratches["image_AUROC"])
    assert with_scratches["image_AUROC"] != without["image_AUROC"]


@pytest.mark.parametrize(
    ("mode", "images", "message"),
    [
        ("from_dir", 5, "has more than 8 bits"),
        ("from_dir", 4, "has no image to validate: "),  # a fifth of them, rounded down
        ("none", 4, "has good photos only"),
    ],
)
def test_a_folder_that_cannot_be_calibrated_on(learned, make_engine, surfaces_root, tmp_path, mode, images, message):
    """Of photos that anomalib would read otherwise than predictions do, or of which none is to be tested."""
    (tmp_path / "good").mkdir()
    for path in sorted((surfaces_root / "weave" / "train" / "good").iterdir())[:images]:
        grey = np.asarray(Image.open(path).convert("L"), np.uint16)
        Image.fromarray(grey * 257).save(tmp_path / "good" / path.name)
    target = Folder("parts", "good", tmp_path, test_split_mode=mode, val_split_mode="same_as_test", num_workers=0)
    with pytest.raises(ValueError, match=message):
        make_engine().validate(model=learned, datamodule=target)


def test_identical_scores_everywhere(learned, make_engine, write_set, surfaces_root):
    """Projectors of zero give tokens of no direction: every pixel and image is at the point of indifference."""
    for projector in (learned.model.det_proj, *learned.model.seg_proj):
        projector.requires_grad_(False)
        for parameter in projector.parameters():
            parameter.zero_()
    target = JSONLines(metadata=write_set(3, 3), root=surfaces_root, num_workers=0)
    (metrics,) = make_engine().train(model=learned, datamodule=target)
    assert metrics["image_AUROC"] == metrics["pixel_AUROC"] == 0.5
    assert metrics["image_AP"] == 0.5  # the share of anomalous images
    (batch,) = make_engine().predict(model=learned, data_path=surfaces_root / "weave" / "test" / "hole" / "000.png")
    assert (batch.anomaly_map == batch.anomaly_map[0, 0, 0]).all()
    # The best F1 score with nothing to tell apart by is that of calling everything anomalous.
    assert batch.pred_label.all()


@pytest.mark.parametrize(("normal", "anomalous"), [(4, 1), (0, 4)])
def test_learning_from_single_images(make_model, make_engine, write_set, surfaces_root, target, normal, anomalous):
    """Batches of one image have one kind of label, normal ones one kind of token; a set may be all anomalous."""
    metadata = write_set(normal, anomalous, "brick")
    model = make_model(auxiliary=str(metadata), auxiliary_root=str(surfaces_root), shots=None, batch_size=1)
    before = [parameter.clone() for parameter in model.parameters() if parameter.requires_grad]
    make_engine(max_epochs=1, limit_val_batches=0).fit(model=model, datamodule=target)
    after = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.isfinite().all() for parameter in after)
    assert not any(map(torch.equal, after, before))
    assert model.prototypes.initialised
    assert model.prototypes.normal.norm().item() == pytest.approx(1, abs=1e-6)
    assert model.post_processor.calibration.is_set


def test_a_defect_smaller_than_a_patch_vanishes_in_the_token_grid():
    """Each token takes the first of its 4 x 4 pixels: a 3 x 3 defect besides those is learned as pixels, not as tokens."""
    model, prototypes = tiny_model().train(), Prototypes(8)
    between, on_it = torch.zeros(2, 1, 24, 24, dtype=torch.bool)
    between[0, 9:12, 9:12] = True
    on_it[0, 8, 8] = True
    assert not tokens_of(between, (6, 6)).any()
    assert tokens_of(on_it, (6, 6)).nonzero().tolist() == [[0, 2 * 6 + 2]]

    images, label = torch.rand(1, 3, 24, 24), torch.ones(1, dtype=torch.long)
    anchors = model.anchors[None]
    vanished = training_objective(model, prototypes, images, between, label, anchors)
    assert vanished.decoupling == 0
    assert not vanished.directions.valid
    assert not prototypes.initialised
    empty = training_objective(model, prototypes, images, torch.zeros_like(between), label, anchors)
    assert vanished.segmentation != empty.segmentation
    assert vanished.total.isfinite()


def test_gradient_accumulation_moves_the_prototypes_once_a_batch(make_model, make_engine, target, monkeypatch):
    model, moves, update = make_model(batch_size=2, prototype_momentum=0.5), [], Prototypes.update

    def watched(prototypes, directions):
        before = prototypes.normal.clone()
        update(prototypes, directions)
        moves.append((bool(directions.valid), not torch.equal(prototypes.normal, before)))

    monkeypatch.setattr(Prototypes, "update", watched)
    engine = make_engine(max_epochs=1, limit_val_batches=0, accumulate_grad_batches=2)
    engine.fit(model=model, datamodule=target)
    assert engine.trainer.global_step == 2, "eight images, two a batch, two batches a step"
    assert len(moves) == 4
    assert (True, True) in moves
    assert all(valid == moved for valid, moved in moves), "a batch with both kinds of tokens moves them, and no other"


LONG = "a very long name of " * 15


@pytest.mark.filterwarnings("ignore:the mini backbone does not know the word")
def test_a_class_name_of_300_characters_on_the_mini_backbone(make_engine, write_set, surfaces_root):
    model = make_dpclip(backbone="mini", weights="clip", class_name=LONG, visualizer=False)
    assert len(LONG) == 300
    assert_anchors(model.model.anchors)
    target = JSONLines(metadata=write_set(2, 2), root=surfaces_root, num_workers=0)
    (metrics,) = make_engine().train(model=model, datamodule=target)
    assert 0 <= metrics["image_AUROC"] <= 1


def test_a_class_name_of_300_characters_in_open_clip_s_tokens():
    """A sentence is cut at 77 tokens: 'with damage' behind the name is lost, 'damaged' before it is not."""
    import open_clip

    tower = TextTower(tiny_clip(), open_clip.get_tokenizer("ViT-L-14-336"))
    for name in (LONG, "x1" * 150):
        assert_anchors(text_anchors(tower, name))
    assert not torch.equal(tower([f"a damaged {LONG}."]), tower([f"a {LONG}."]))


def assert_anchors(anchors):
    torch.testing.assert_close(anchors.norm(dim=0), torch.ones(2))
    assert not torch.equal(anchors[:, 0], anchors[:, 1])


def test_float16_overflow_names_the_image_and_the_way_out(learned):
    """Values beyond 65504 become infinite in half precision and the score is not a number: that image is not called normal."""
    with torch.no_grad():
        learned.model.seg_proj[0].fc.weight.mul_(1e6)

    def predicted():
        batch = ImageBatch(image=torch.rand(1, 3, 140, 140), image_path=["hole/000.png"])
        return learned.eval().predict_step(batch, 0)

    with torch.no_grad():
        learned.post_processor.post_process_batch(predicted())
        with torch.autocast("cpu", torch.float16):
            overflown = predicted()
        with pytest.raises(FloatingPointError, match=r"hole/000\.png is not finite: half precision overflows.*bf16-mixed"):
            learned.post_processor.post_process_batch(overflown)
