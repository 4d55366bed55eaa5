"""Post-processing: labels and masks follow the thresholds, and nothing but sensible predictions gets through."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_dpclip.post_processing.post_processor import DPCLIPPostProcessor

LABELS = torch.tensor([0, 0, 0, 1, 1, 1]).bool()


def predictions(seed=0, low=0.45, high=0.55):
    """Raw predictions of six images, apart by at least 2^-12."""
    rng = np.random.default_rng(seed)
    maps, detection = (np.round(rng.uniform(low, high, shape) * 4096) / 4096 for shape in ((6, 4, 4), 6))
    return torch.from_numpy(maps).float(), torch.from_numpy(detection).float()


def batch(maps, detection, paths=None):
    return ImageBatch(
        image=torch.zeros(len(maps), 3, 4, 4),
        gt_label=LABELS[: len(maps)],
        gt_mask=maps > 0.53,
        anomaly_map=maps,
        pred_score=detection,
        image_path=paths,
    )


def validated(post_processor, *batches, sanity_checking=False, weight=0.5):
    trainer = SimpleNamespace(sanity_checking=sanity_checking)
    model = SimpleNamespace(device="cpu", scorer=SimpleNamespace(name="text", detection_weight=weight))
    post_processor.on_validation_epoch_start(trainer, model)
    for each in batches:
        post_processor.on_validation_batch_end(trainer, model, each)
    post_processor.on_validation_epoch_end(trainer, model)
    return post_processor


def test_another_model_is_calibrated_as_one_that_scores_by_the_text():
    trainer, processors = SimpleNamespace(sanity_checking=False), [DPCLIPPostProcessor() for _ in range(2)]
    other = SimpleNamespace(device="cpu")  # no scorer
    processors[0].on_validation_epoch_start(trainer, other)
    processors[0].on_validation_batch_end(trainer, other, batch(*predictions()))
    processors[0].on_validation_epoch_end(trainer, other)
    validated(processors[1], batch(*predictions()))
    assert torch.equal(*(each.calibration.scale.packed() for each in processors))


def test_labels_and_masks_follow_the_thresholds():
    post_processor = validated(DPCLIPPostProcessor(), batch(*predictions(seed=3)))
    validated(post_processor, batch(*predictions()))  # starts anew
    once = validated(DPCLIPPostProcessor(), batch(*predictions()))
    assert torch.equal(post_processor.calibration.scale.packed(), once.calibration.scale.packed())
    maps, detection = predictions(seed=1, low=0.4, high=0.6)
    result = post_processor(InferenceBatch(anomaly_map=maps, pred_score=detection))
    fused = post_processor.calibration.scale.fuse(maps.amax((1, 2)), detection)
    assert torch.equal(result.pred_label, fused > post_processor.image_threshold)
    assert torch.equal(result.pred_mask, maps > post_processor.pixel_threshold)
    assert 0 < result.pred_mask.sum() < maps.numel()
    for values in (result.anomaly_map, result.pred_score):
        assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_ranking_figures_before_and_after(weight):
    post_processor = validated(DPCLIPPostProcessor(), batch(*predictions()), weight=weight)
    maps, detection = predictions(seed=2, low=0.2, high=0.8)  # three times as wide as the validation images
    result = post_processor(InferenceBatch(anomaly_map=maps, pred_score=detection))
    before, labels = post_processor.calibration.scale.fuse(maps.amax((1, 2)), detection), LABELS.numpy()
    mask = np.random.default_rng(0).random(maps.shape) < 0.3
    for metric in (roc_auc_score, average_precision_score):
        assert metric(labels, result.pred_score) == metric(labels, before)
        assert metric(mask.ravel(), result.anomaly_map.ravel()) == metric(mask.ravel(), maps.ravel())


def test_without_validation_everything_stays_as_it_is():
    maps, detection = predictions()
    checked = validated(DPCLIPPostProcessor(), batch(maps, detection), sanity_checking=True)
    result = checked(InferenceBatch(anomaly_map=maps, pred_score=detection))
    torch.testing.assert_close(result.anomaly_map, maps)
    torch.testing.assert_close(result.pred_score, (maps.amax((1, 2)) + detection) / 2)
    assert torch.equal(result.pred_mask, maps > 0.5)


def test_switches():
    maps, detection = predictions()
    raw = validated(DPCLIPPostProcessor(enable_normalization=False, enable_thresholding=False), batch(maps, detection))
    result = raw(InferenceBatch(anomaly_map=maps, pred_score=detection))
    assert torch.equal(result.anomaly_map, maps)
    assert result.pred_label is result.pred_mask is None
    assert 0 <= result.pred_score.min() <= result.pred_score.max() <= 1


def test_sensitivity():
    maps, detection = predictions()
    called = []
    for sensitivity in (0.0, 0.3, 0.5, 0.7, 1.0):
        post_processor = DPCLIPPostProcessor(image_sensitivity=sensitivity, pixel_sensitivity=sensitivity)
        result = validated(post_processor, batch(maps, detection))(InferenceBatch(anomaly_map=maps, pred_score=detection))
        called.append((int(result.pred_label.sum()), int(result.pred_mask.sum())))
    assert called == sorted(called)
    assert called[0] == (0, 0)
    assert called[-1] == (6, maps.numel())


@pytest.mark.parametrize(
    ("argument", "value"),
    [("false_alarm_rate", 1.0), ("false_alarm_rate", -0.1), ("image_sensitivity", 1.5), ("pixel_sensitivity", math.nan)],
)
def test_arguments_out_of_range(argument, value):
    with pytest.raises(ValueError, match=rf"{argument} must lie in \[0, 1[)\]], not "):
        DPCLIPPostProcessor(**{argument: value})


@pytest.mark.parametrize("bad", ["map", "score"])
@pytest.mark.parametrize("path", ["photo.png", None])
def test_a_prediction_that_is_not_finite_is_an_error(bad, path):
    maps, detection = predictions()
    (maps[2, 1] if bad == "map" else detection[2:3]).fill_(torch.nan)
    outputs = batch(maps, detection, [path] * 6 if path else None)
    message = rf"the prediction of {path or 'image 2 of the batch'} is not finite.*bf16-mixed"
    with pytest.raises(FloatingPointError, match=message):
        DPCLIPPostProcessor().post_process_batch(outputs)
    with pytest.raises(FloatingPointError, match=message):
        validated(DPCLIPPostProcessor(), outputs)


def test_configuration_and_state_survive_a_checkpoint():
    saved = validated(DPCLIPPostProcessor(false_alarm_rate=0.5), batch(*predictions()))
    loaded = DPCLIPPostProcessor()
    loaded.load_checkpoint_config(saved.checkpoint_config())
    loaded.load_state_dict(saved.state_dict())
    assert (loaded.false_alarm_rate, loaded.version) == (0.5, DPCLIPPostProcessor.version)
    maps, detection = predictions(seed=1)
    raw = InferenceBatch(anomaly_map=maps, pred_score=detection)
    assert torch.equal(loaded(raw).pred_score, saved(raw).pred_score)
    assert torch.equal(loaded(raw).pred_mask, saved(raw).pred_mask)


def test_a_newer_configuration_is_refused():
    with pytest.raises(ValueError, match=r"post-processor has version 99, this package knows up to 1: upgrade"):
        DPCLIPPostProcessor().load_checkpoint_config({"version": 99})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_score_at_the_threshold_is_normal_in_every_precision(dtype):
    """Of normal images alone the highest score is the threshold, which its own image must not exceed."""
    for seed in range(20):
        maps, detection = (torch.from_numpy(np.random.default_rng(seed).uniform(0.4, 0.6, size)) for size in ((6, 4, 4), 6))
        normal = batch(maps.to(dtype), detection.to(dtype))
        normal.gt_label = torch.zeros(6, dtype=torch.bool)
        post_processor = DPCLIPPostProcessor()
        post_processor.auxiliary_calibration = validated(DPCLIPPostProcessor(), batch(*predictions(seed))).calibration
        result = validated(post_processor, normal)(InferenceBatch(anomaly_map=normal.anomaly_map, pred_score=normal.pred_score))
        assert not result.pred_label.any()
        assert not result.pred_mask.any()
        assert result.pred_score.max() == 0.5
        assert result.anomaly_map.max() == 0.5


SAVED = DPCLIPPostProcessor(image_sensitivity=0.2, pixel_sensitivity=0.3, enable_thresholding=False).checkpoint_config()


@pytest.mark.parametrize("value", [0.9, 0.5])
def test_what_was_chosen_comes_before_the_checkpoint_and_the_rest_from_it(value):
    loaded = DPCLIPPostProcessor(image_sensitivity=value, enable_thresholding=True)
    loaded.load_checkpoint_config(SAVED)
    assert (loaded.image_sensitivity, loaded.pixel_sensitivity, loaded.enable_thresholding) == (value, 0.3, True)
    assigned = DPCLIPPostProcessor()
    assigned.pixel_sensitivity = 0.7
    assigned.load_checkpoint_config(SAVED)
    assert (assigned.image_sensitivity, assigned.pixel_sensitivity) == (0.2, 0.7)
    assigned.load_checkpoint_config(DPCLIPPostProcessor().checkpoint_config())  # of another one, later
    assert (assigned.image_sensitivity, assigned.pixel_sensitivity) == (0.5, 0.7)


def test_a_rate_that_the_thresholds_in_force_were_not_set_for_is_refused():
    rated = validated(DPCLIPPostProcessor(false_alarm_rate=0.5), batch(*predictions()))
    for start in (rated.on_test_epoch_start, rated.on_predict_epoch_start):
        start(None, None)
    loaded = DPCLIPPostProcessor(false_alarm_rate=0.1)
    loaded.load_checkpoint_config(rated.checkpoint_config())
    loaded.load_state_dict(rated.state_dict())
    message = r"false_alarm_rate=0\.1 .* `anomalib validate`.* or leave it out"
    for start in (loaded.on_test_epoch_start, loaded.on_predict_epoch_start):
        with pytest.raises(ValueError, match=message):
            start(None, None)
    validated(loaded, batch(*predictions())).on_test_epoch_start(None, None)
    unasked = DPCLIPPostProcessor()
    unasked.load_checkpoint_config(rated.checkpoint_config())
    unasked.on_predict_epoch_start(None, None)
    assert unasked.false_alarm_rate == 0.5
