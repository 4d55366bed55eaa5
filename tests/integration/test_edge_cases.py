"""The ends of the method's range: each has a defined result."""

import math

import pytest
import torch
from tests.arguments import make_dpclip
from tests.data.golden.make_golden import GOLDEN
from tests.metadata_lines import write_lines

from anomalib_dpclip import JSONLines
from anomalib_dpclip.method.objective import tokens_of


@pytest.fixture
def write_set(tmp_path):
    """A JSON-lines file of so many normal and anomalous images of drawn weave, or of another material."""

    def row(material, kind, index):
        row = {"image_path": f"{material}/test/{kind}/{index:03}.png", "label": int(kind != "good"), "class_name": material}
        return row | ({"mask_path": f"{material}/ground_truth/{kind}/{index:03}_mask.png"} if kind == "hole" else {})

    def write(normal, anomalous, material="weave"):
        kinds = {"good": normal, "hole": anomalous}
        rows = [row(material, kind, index) for kind, count in kinds.items() for index in range(count)]
        return write_lines(tmp_path / f"{material}.jsonl", rows)

    return write


@pytest.mark.parametrize(("normal", "anomalous"), [(1, 0), (0, 1)])
def test_a_target_of_one_image(make_engine, write_set, surfaces_root, normal, anomalous):
    """What needs both kinds is not available rather than 0 or 1; labels and masks are there all the same."""
    learned = make_dpclip(weights=GOLDEN / "adapters-v1.safetensors", visualizer=False)
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
    between, on_it = torch.zeros(2, 1, 24, 24, dtype=torch.bool)
    between[0, 9:12, 9:12] = True
    on_it[0, 8, 8] = True
    assert not tokens_of(between, (6, 6)).any()
    assert tokens_of(on_it, (6, 6)).nonzero().tolist() == [[0, 2 * 6 + 2]]
