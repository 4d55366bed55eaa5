from types import SimpleNamespace

import pytest
import torch
from anomalib.data import ImageBatch, ImageItem
from tests.tiny_scorers import soft_images, tiny_comparison, tiny_fit
from torch.utils.data import DataLoader

from anomalib_dpclip import DPCLIPPostProcessor
from anomalib_dpclip.model.settled_thresholds import restore_adapters_calibration, settle_thresholds
from anomalib_dpclip.model.target import Target
from anomalib_dpclip.post_processing.calibration_statistics import ImageStatistics
from anomalib_dpclip.post_processing.thresholds import Thresholds
from anomalib_dpclip.scorers.batch_scorer import BatchScorer

SEEN = ImageStatistics(*torch.tensor([[0.1, 0.6, 0.3, 0], [0.2, 0.9, 0.8, 1]]).T)


def set_by_hand(calibration, scorer, *, is_default=False, image=0.7):
    calibration.set_ranges(SEEN, 0.5)
    calibration.set_thresholds(Thresholds(image, 0.5, "by hand"), SEEN)
    calibration.belongs_to(scorer, is_default=is_default)


@pytest.fixture(scope="module")
def scorers():
    comparison = tiny_comparison()
    anchors = comparison.text.model.anchors
    items = [ImageItem(image=each, image_path=f"{i}.png") for i, each in enumerate(soft_images(5).float() / 255)]
    batch = BatchScorer(comparison, None, text_weight=0, ready=lambda batch: (batch.image, anchors), seed=1)
    batch.prepare(DataLoader(items, 2, collate_fn=ImageBatch.collate))
    return {"batch": batch, "memory": tiny_fit(comparison).fit(soft_images(4), 0), "text": comparison.text}


@pytest.fixture
def module(scorers):
    """Stands in for DPCLIP: what thresholds depend on."""

    def make(scorer, **post_processor):
        processor = DPCLIPPostProcessor(**post_processor)
        return SimpleNamespace(scorer=scorers[scorer], model=scorers["text"].model, post_processor=processor)

    return make


@pytest.mark.parametrize("name", ["text", "batch", "memory"])
def test_thresholds_of_a_validation_of_the_same_scores_stay(module, name, caplog):
    """Also a rate's, which no lot or memory may overwrite with thresholds that guarantee nothing."""
    model = module(name)
    set_by_hand(model.post_processor.calibration, name)
    before = model.post_processor.calibration.thresholds
    settle_thresholds(model)
    assert model.post_processor.calibration.thresholds == before
    assert not caplog.text


@pytest.mark.parametrize("name", ["batch", "memory"])
def test_other_images_set_thresholds_unless_there_are_such_and_say_what_they_replace(module, name, caplog):
    for before in (None, "text"):
        model = module(name)
        calibration = model.post_processor.calibration
        assert not caplog.text
        if before:
            set_by_hand(calibration, before)
        settle_thresholds(model)
        assert calibration.is_set
        assert (calibration.scorer, calibration.is_default) == (name, True)
        assert "no guarantee for new images" in calibration.threshold_basis
    assert f"(by hand) are of scores by the text, and images are scored by the {name} now: others are set" in caplog.text


def test_the_text_falls_back_on_what_the_adapters_carry_and_a_rate_is_kept_in_words(module, caplog):
    model = module("text")
    set_by_hand(model.post_processor.auxiliary_calibration, "text", is_default=True, image=0.6)
    set_by_hand(model.post_processor.calibration, "memory", is_default=True)
    settle_thresholds(model)
    assert model.post_processor.calibration.thresholds.image == pytest.approx(0.6)
    by_rate = module("memory", false_alarm_rate=0.2)
    settle_thresholds(by_rate)
    assert "with a probability of at most 20 %" in by_rate.post_processor.calibration.threshold_basis
    assert by_rate.post_processor.calibration.false_alarm_rate == 0.2
    assert not caplog.text
    settle_thresholds(module("text"))
    assert "nothing has been calibrated, neither the adapters nor on this target" in caplog.text


@pytest.mark.parametrize(("chosen", "is_taken"), [(None, True), ("industrial", True), ("medical", False)])
def test_carried_thresholds_hold_in_their_domain_alone(module, caplog, chosen, is_taken):
    model = module("text")
    model.provenance = SimpleNamespace(calibration_domain="industrial")
    model.target = Target(model.model, None, domain=chosen)
    model.set_domain = lambda domain: setattr(model, "model", SimpleNamespace(domain=domain))
    set_by_hand(model.post_processor.auxiliary_calibration, "text", is_default=True)
    restore_adapters_calibration(model, "a.safetensors")
    assert bool(model.post_processor.calibration.is_set) == is_taken
    assert ("a.safetensors has thresholds of industrial images, which do not hold" in caplog.text) != is_taken
