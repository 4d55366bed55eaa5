"""What is counted from each image's result, by hand; and corrupted images against numpy, Pillow and by hand."""

import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.data import ImageBatch
from PIL import Image as Picture
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, Mask

from anomalib_dpclip.benchmark.corruptions import CORRUPTIONS, corrupted
from anomalib_dpclip.benchmark.image_results import PIXELS, ImageResults, at_thresholds, by_defect, undefined

NONE = dict.fromkeys(PIXELS)


def records(*images, pixels=NONE):
    return pd.DataFrame([{"label": label, "score": score, "called": called, **pixels} for label, score, called in images])


def batch(**fields):
    values = {
        "image": torch.zeros(2, 3, 2, 2),
        "image_path": ["set/test/good/a.png", "set/test/crack/b.png"],
        "gt_label": torch.tensor([0, 1]),
        "pred_score": torch.tensor([0.25, 0.75]),
        "pred_label": torch.tensor([False, True]),
        "anomaly_map": torch.zeros(2, 2, 2),
        "gt_mask": torch.tensor([[[0, 0], [0, 0]], [[1, 1], [1, 0]]]),
        "pred_mask": torch.tensor([[[True, False], [False, False]], [[True, True], [False, True]]]),
    }
    return ImageBatch(**values | fields)


def results(*batches, threshold=0.5):
    thresholds = {f"{kind}_threshold": torch.tensor(threshold) for kind in ("image", "pixel")}
    model, evaluator = SimpleNamespace(post_processor=SimpleNamespace(**thresholds)), ImageResults()
    for each in batches:
        evaluator.on_test_batch_end(None, model, None, each, 0)
    return evaluator


def test_records_of_a_batch():
    evaluator = results(batch())
    assert list(evaluator.records[0]) == ["image", "label", "score", "called", *PIXELS]
    assert [list(record.values()) for record in evaluator.records] == [
        ["set/test/good/a.png", 0, 0.25, 0, 0, 1, 0],
        ["set/test/crack/b.png", 1, 0.75, 1, 2, 1, 1],
    ]
    assert evaluator.resolution == (2, 2)


def test_without_masks_labels_or_thresholds():
    evaluator = results(batch(gt_mask=None), batch(gt_label=None, pred_mask=None))
    assert [record["true_pixels"] for record in evaluator.records] == [None] * 4
    assert [record["label"] for record in evaluator.records] == [0, 1, None, None]
    evaluator = results(batch(), threshold=math.nan)
    assert [(record["called"], record["true_pixels"]) for record in evaluator.records] == [(None, None)] * 2


def test_metrics_at_thresholds_by_hand():
    images = records((0, 0.1, 0), (0, 0.2, 0), (0, 0.9, 1), (1, 0.8, 1), (1, 0.3, 0))
    images[["true_pixels", "false_pixels", "missed_pixels"]] = [[0, 0, 0], [0, 0, 0], [0, 4, 0], [6, 1, 2], [0, 0, 3]]
    # Of images one true, one false and one missed; of pixels 6, 5 and 5.
    assert at_thresholds(images) == pytest.approx({"class_F1": 2 / 4, "seg_F1": 12 / 22, "false_alarm_rate": 1 / 3})


def test_undefined_metrics_are_nan_and_the_reason_is_said():
    normal = records((0, 0.1, 0), (0, 0.2, 1))
    expected = {"class_F1": math.nan, "seg_F1": math.nan, "false_alarm_rate": 0.5}
    assert at_thresholds(normal) == pytest.approx(expected, nan_ok=True)
    assert undefined(normal) == ["image metrics are undefined: no anomalous image", "pixel metrics are undefined: no masks"]
    some = dict.fromkeys(PIXELS, 1)
    assert undefined(records((1, 0.5, 1), pixels=some)) == ["image metrics are undefined: no normal image"]
    assert undefined(records((1, 0.5, None), (0, 0.5, None))) == ["metrics at thresholds are undefined: the model has set none"]
    both = (1, 0.5, 1), (0, 0.5, 0)
    assert undefined(records(*both, pixels=dict.fromkeys(PIXELS, 0))) == ["pixel metrics are undefined: no anomalous pixel"]
    assert undefined(records(*both, pixels=some)) == []


def test_kinds_of_defect_against_all_normal_images():
    images = records((0, 0.1, 0), (0, 0.5, 0), (1, 0.9, 1), (1, 0.3, 0))
    images["defect"] = ["", "", "hole", "crack"]
    # The crack outscores one of two; its precision is 1 of 2, the two normal ones lying at 0.5 and 0.1.
    assert json.loads(by_defect(images)) == {
        "crack": {"images": 1, "AUROC": 0.5, "AP": 0.5},
        "hole": {"images": 1, "AUROC": 1.0, "AP": 1.0},
    }
    assert by_defect(images[images["label"] == 1]) == by_defect(images[images["label"] == 0]) == ""


PHOTO = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0))


def pair():
    mask = torch.zeros(40, 60, dtype=torch.uint8)
    mask[10:20, 10:30] = 1
    return Image(PHOTO), Mask(mask)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_strength_changes_images_more_and_keeps_their_kind(name):
    distances = []
    for strength in CORRUPTIONS[name][1]:
        torch.manual_seed(0)
        image, mask = corrupted(name, strength, None)(*pair())
        assert (image.shape, image.dtype, mask.shape, mask.dtype) == (PHOTO.shape, torch.float32, (40, 60), torch.uint8)
        assert image.min() >= 0
        assert image.max() <= 1
        assert (mask == pair()[1]).all() == (name != "move")
        distances.append((image - PHOTO).abs().mean().item())
    assert distances[0] > 0
    if name != "move":  # noise is as far from itself at any distance
        assert distances == sorted(distances)


def test_jpeg_is_that_of_its_quality():
    encoded = io.BytesIO()
    Picture.fromarray((PHOTO * 255).round().byte().permute(1, 2, 0).numpy()).save(encoded, "JPEG", quality=10)
    expected = np.asarray(Picture.open(encoded)).astype(np.float32).transpose(2, 0, 1) / 255
    assert np.abs(corrupted("jpeg", 10, None)(pair()[0]).numpy() - expected).mean() < 0.02  # decoders differ by a little


def test_less_light_is_darker_by_its_factor_and_the_data_s_own_augmentation_follows():
    image, mask = corrupted("light", 0.5, v2.Pad(1))(*pair())
    assert image[:, 1:-1, 1:-1] == pytest.approx(PHOTO * 0.5)
    assert mask.shape == (42, 62)


def test_what_moves_takes_its_mask_along_and_is_mirrored_at_the_edge():
    image, mask = corrupted("move", 0.05, None)(*pair())
    assert (image[:, 2:, 2:] == PHOTO[:, :-2, :-2]).all()
    assert (image[:, 2:, 0] == PHOTO[:, :-2, 2]).all()
    assert (mask[2:, 2:] == pair()[1][:-2, :-2]).all()
