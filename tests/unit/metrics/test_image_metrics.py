"""Image metrics against scikit-learn, the published evaluation, and where they are undefined."""

import json
import math

import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from lightning.pytorch import LightningModule, Trainer
from safetensors import safe_open
from sklearn.metrics import average_precision_score, roc_auc_score
from tests.paths import DATA
from torch.utils.data import DataLoader

from anomalib_dpclip.metrics import field_metrics

PARITY = DATA / "parity.safetensors"
NAMES = ["image_AUROC", "image_AP", "image_F1Max", "pixel_AUROC", "pixel_AP", "pixel_AUPRO", "pixel_F1Max"]


def _batch(scores, labels, **fields):
    return ImageBatch(
        image=torch.zeros(len(scores), 3, 2, 2),
        pred_score=torch.as_tensor(scores),
        gt_label=torch.as_tensor(labels),
        **fields,
    )


def _image_figures(*batches):
    metrics = field_metrics()[:3]
    for metric in metrics:
        for batch in batches:
            metric.update(batch)
    return [float(metric.compute()) for metric in metrics]


def test_field_metrics_come_in_the_order_of_the_tables():
    assert [metric.name for metric in field_metrics()] == NAMES


def test_worked_by_hand():
    # Anomalous 0.9 and 0.4, normal 0.6 and 0.1: 3 of 4 pairs in order; precision 1 and 2/3; best F1 is 2*2/(3+2).
    metrics = _image_figures(_batch([0.9, 0.6], [1, 0]), _batch([0.4, 0.1], [1, 0]))
    assert metrics == pytest.approx([3 / 4, (1 + 2 / 3) / 2, 4 / 5])


def test_matches_scikit_learn_with_ties():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 20, (200,), generator=generator) / 20
    labels = torch.randint(0, 2, (200,), generator=generator)
    metrics = _image_figures(*map(_batch, scores.split(32), labels.split(32)))
    assert metrics[0] == pytest.approx(roc_auc_score(labels, scores), abs=1e-5)
    assert metrics[1] == pytest.approx(average_precision_score(labels, scores), abs=1e-5)


@pytest.mark.parametrize("label", [0, 1])
def test_one_kind_of_image_leaves_the_figures_undefined(label):
    assert all(math.isnan(metric) for metric in _image_figures(_batch([0.1, 0.9], [label, label])))


def test_nothing_measured_is_undefined():
    batch = ImageBatch(image=torch.zeros(2, 3, 2, 2), pred_score=torch.tensor([0.1, 0.9]))
    assert all(math.isnan(metric) for metric in _image_figures(batch))


@pytest.mark.parametrize("bad", [-0.5, 1.5, math.nan])
def test_scores_outside_the_unit_interval_are_refused(bad):
    with pytest.raises(ValueError, match=r"image scores must lie in \[0, 1\]"):
        _image_figures(_batch([0.5, bad], [0, 1]))


class _Scored(LightningModule):
    """Passes batches of given scores to an evaluator, as an anomalib model does."""

    def __init__(self):
        super().__init__()
        self.evaluator = Evaluator(test_metrics=field_metrics())

    def configure_callbacks(self):
        return [self.evaluator]

    def test_step(self, batch):
        del batch


def test_lightning_logs_all_seven_and_undefined_ones_as_nan(tmp_path):
    batches = [_batch([0.9, 0.6], [1, 0]), _batch([0.4, 0.1], [1, 0])]  # no masks: pixel metrics are undefined
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    loader = DataLoader(batches, batch_size=None)
    for _ in range(2):  # the second run starts from zero
        (metrics,) = trainer.test(_Scored(), loader, verbose=False)
        assert list(metrics) == NAMES
        assert metrics["image_AUROC"] == pytest.approx(3 / 4)
        assert all(math.isnan(metrics[name]) for name in NAMES[3:])


@pytest.mark.parametrize("pooling", ["batch", "tokens"])
@pytest.mark.parametrize("domain", ["industrial", "medical"])
def test_published_evaluation_is_met(pooling, domain):
    with safe_open(PARITY, "pt") as file:
        published = json.loads(file.metadata()["meta"])[f"metrics/{pooling}/{domain}"]
        maps = file.get_tensor(f"predict/{pooling}/{domain}/map")
        detection = file.get_tensor(f"predict/{pooling}/{domain}/det")
        labels = file.get_tensor("in/labels")
    scores = ((maps - maps.min()) / (maps.max() - maps.min())).amax(dim=(1, 2))
    if domain == "industrial":
        scores = 0.5 * scores + 0.5 * (detection - detection.min()) / (detection.max() - detection.min())
    expected = [published["image AUC"], published["image AP"], published["image F1 max"]]
    assert [100 * metric for metric in _image_figures(_batch(scores, labels))] == pytest.approx(expected, abs=0.0051)
