"""Three sources of thresholds: labelled validation images, normal images alone, and what the adapters carry."""

import gc
import shutil

import pytest
import torch
from anomalib.cli.cli import AnomalibCLI
from anomalib.data import Folder
from sklearn.metrics import f1_score
from tests.arguments import make_dpclip

from anomalib_dpclip import DPCLIP

RATE = 0.1


@pytest.fixture(scope="module")
def normal_photos(surfaces_root, tmp_path_factory):
    """Forty normal weaves, and nothing else."""
    root = tmp_path_factory.mktemp("photos")
    (root / "good").mkdir()
    for index in range(40):
        shutil.copy(surfaces_root / "weave" / "test" / "good" / f"{index:03}.png", root / "good")
    return root


@pytest.fixture
def recalibrate(learned_bricks, normal_photos, tmp_path):
    """``anomalib validate`` on normal photos alone, with arguments for the post-processor; the checkpoint it writes."""

    def run(*post_processor: str):
        gc.collect()  # torch's exporter, in other tests, leaves a subclass of the same name behind
        AnomalibCLI(
            args=[
                *("validate", "--model", "DPCLIP", "--model.backbone", "mini", "--model.weights", str(learned_bricks)),
                *("--model.class_name", "weave", "--model.visualizer", "false", *post_processor),
                *("--data", "Folder", "--data.name", "photos", "--data.root", str(normal_photos)),
                *("--data.normal_dir", "good", "--data.normal_test_dir", "good", "--data.val_split_mode", "same_as_test"),
                *("--data.num_workers", "0", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
                *("--default_root_dir", str(tmp_path / "results")),
            ]
        )
        return tmp_path / "results" / "weights" / "lightning" / "model.ckpt"

    return run


def labels_of(model, make_engine, normal_photos):
    """Label of each normal photo."""
    target = Folder(
        name="photos", root=normal_photos, normal_dir="good", normal_test_dir="good", val_split_mode="none", num_workers=0
    )
    batches = make_engine().predict(model=model, datamodule=target)
    return torch.cat([batch.pred_label for batch in batches])


def thresholds_of(model):
    return model.post_processor.image_threshold.item(), model.post_processor.pixel_threshold.item()


def test_from_labelled_validation_images_it_has_the_best_f1_score(learned_bricks, make_engine, target):
    model, engine = make_dpclip(backbone="mini", weights=learned_bricks, visualizer=False), make_engine()
    before = thresholds_of(model)
    engine.validate(model=model, datamodule=target)
    assert thresholds_of(model) != before
    batches = engine.predict(model=model, dataloaders=target.test_dataloader())
    scores, labels, found = (
        torch.cat([getattr(batch, field) for batch in batches]) for field in ("pred_score", "gt_label", "pred_label")
    )
    best = max(f1_score(labels, scores >= threshold) for threshold in scores)
    assert f1_score(labels, found) == pytest.approx(best)


def test_from_normal_images_alone_at_a_false_alarm_rate(recalibrate, make_engine, normal_photos, tmp_path):
    file = tmp_path / "post_processor.yaml"
    file.write_text(f"class_path: anomalib_dpclip.DPCLIPPostProcessor\ninit_args:\n  false_alarm_rate: {RATE}\n")
    model = DPCLIP.load_from_checkpoint(recalibrate("--model.post_processor", str(file)), visualizer=False)
    # The 37th of 40: of 41 images four may exceed it, and the 41st is the new one.
    assert labels_of(model, make_engine, normal_photos).sum() == 3
    assert "with a probability of at most 10 %" in model.post_processor.calibration.threshold_basis
    assert model.post_processor.calibration.threshold_basis.endswith("; from 40 normal images of photos")


def test_from_normal_images_alone_no_false_alarm_by_default(recalibrate, make_engine, normal_photos, learned_bricks, caplog):
    recalibrated = recalibrate()
    model = DPCLIP.load_from_checkpoint(recalibrated, visualizer=False)
    assert "no anomalous validation image: the thresholds are set so that no normal validation image" in caplog.text
    assert labels_of(model, make_engine, normal_photos).sum() == 0
    # The calibration has changed and nothing else.
    before, after = make_dpclip(backbone="mini", weights=learned_bricks), DPCLIP.load_from_checkpoint(recalibrated)
    states = [{name: value.nan_to_num() for name, value in each.state_dict().items()} for each in (before, after)]
    changed = {name for name, value in states[0].items() if not torch.equal(value, states[1][name])}
    assert {"post_processor.calibration.map_knots", "post_processor.calibration.score_knots", "model.anchors"} <= changed
    assert not [name for name in changed if not name.startswith(("post_processor.calibration.", "model.anchors"))]


def test_without_validation_images_it_is_the_adapters_own(learned_bricks, make_engine, normal_photos):
    model = make_dpclip(backbone="mini", weights=learned_bricks, class_name="weave", visualizer=False)
    labels_of(model, make_engine, normal_photos)
    assert model.post_processor.auxiliary_calibration.is_set
    assert thresholds_of(model) == pytest.approx(model.post_processor.auxiliary_calibration.thresholds[:2])
