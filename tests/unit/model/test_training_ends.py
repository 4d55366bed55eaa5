"""Thresholds after a training are of plain auxiliary images, scored as predictions are; and which hold for which scores."""

from types import SimpleNamespace

import pytest
import torch
from anomalib.data import ImageItem
from tests.arguments import make_dpclip
from tests.metadata_lines import write_lines
from tests.tiny_scorers import soft_images, tiny_batch_scorer, tiny_comparison, tiny_fit

from anomalib_dpclip import DPCLIPPostProcessor
from anomalib_dpclip.clip.pretraining import OPENAI
from anomalib_dpclip.model.settled_thresholds import restore_adapters_calibration, settle_thresholds
from anomalib_dpclip.model.target import Target
from anomalib_dpclip.model.training import carried
from anomalib_dpclip.model.training.carried import auxiliary_statistics
from anomalib_dpclip.model.training.learning import prepare_training
from anomalib_dpclip.post_processing.calibration_statistics import ImageStatistics
from anomalib_dpclip.post_processing.thresholds import Thresholds


@pytest.fixture
def model_of(surfaces_root, target):
    target.setup()

    def make(auxiliary="Surfaces/brick", **arguments):
        own = {"auxiliary": auxiliary, "auxiliary_root": str(surfaces_root)}
        model = make_dpclip(backbone="mini", shots=8, visualizer=False, **own | arguments)
        model.auxiliary_dataset = model.auxiliary.dataset(target, None, model.model.backbone.image_size, OPENAI)
        return model

    return make


@pytest.mark.parametrize("arguments", [{"detection": "class_token"}, {"tiles": 2}, {"domain": "medical"}], ids=str)
@torch.no_grad()
def test_they_are_of_the_scores_that_predictions_have(model_of, arguments):
    model = model_of(**arguments).eval()
    images = model.auxiliary_dataset.plain(model.image_size)
    seen = auxiliary_statistics(model, images).images()
    items = [images[index] for index in range(len(images))][: len(seen.detection)]
    assert len(items) == 8
    for index, item in enumerate(items):
        image = model.pre_processor.transform(item.image.unsqueeze(0))
        raw = model.scorer.score(image, model.target.anchors_for(item.class_name))
        assert seen.detection[index].item() == pytest.approx(raw.pred_score.item(), abs=1e-4)
        assert seen.map_max[index].item() == pytest.approx(raw.anomaly_map.max().item(), abs=1e-4)
    assert torch.equal(seen.label, torch.tensor([int(item.gt_label) for item in items]))


def test_they_are_bounded_and_of_images_from_everywhere(model_of, monkeypatch):
    monkeypatch.setattr(carried, "CALIBRATION_IMAGES", 4)
    model = model_of().eval()
    images = model.auxiliary_dataset.plain(model.image_size)
    seen = auxiliary_statistics(model, images).images()
    assert len(seen.label) == 4
    assert 0 < seen.label.sum() < 4
    shares = [auxiliary_statistics(model, images, rank, 2).images() for rank in (0, 1)]
    both = torch.cat([share.map_max for share in shares])
    torch.testing.assert_close(both.sort().values, seen.map_max.sort().values, atol=1e-5, rtol=0)


def test_pixels_of_anomalous_images_without_a_mask_are_not_normal(model_of, tmp_path):
    kinds = [(kind, index) for index in range(4) for kind in ("good", "hole")]
    lines = [{"image_path": f"brick/test/{k}/{i:03}.png", "label": k == "hole", "class_name": "brick"} for k, i in kinds]
    lines[1]["mask_path"] = "brick/ground_truth/hole/000_mask.png"
    path = write_lines(tmp_path / "partly.jsonl", lines)
    model = model_of(auxiliary=str(path), auxiliary_unmasked=True).eval()
    counts = auxiliary_statistics(model, model.auxiliary_dataset.plain(model.image_size)).pixels.compute()
    assert int(counts.normal.sum() + counts.anomalous.sum()) == 5 * 140 * 140


def test_they_are_set_once_at_the_end_of_a_training(make_model, make_engine, target, monkeypatch):
    calls = []

    def watched(name, function):
        return lambda module, *rest: calls.append((name, module.trainer.global_step)) or function(module, *rest)

    for name in ("auxiliary_statistics", "learn_text_weights"):
        monkeypatch.setattr(carried, name, watched(name, getattr(carried, name)))
    model = make_model()
    make_engine(max_epochs=3, limit_val_batches=1).fit(model=model, datamodule=target)
    assert calls == [("auxiliary_statistics", 6), ("learn_text_weights", 6)]
    assert model.post_processor.auxiliary_calibration.is_set


def test_epochs_are_the_published_ones_where_nobody_asks_and_precision_suffices():
    for asked, expected in ((1000, 20), (3, 3)):
        trainer = SimpleNamespace(precision="32-true", max_epochs=asked, fit_loop=SimpleNamespace(max_epochs=asked))
        prepare_training(trainer, SimpleNamespace(chosen_seed=1, seed=1))
        assert trainer.fit_loop.max_epochs == expected
    for precision in ("16-true", "64-true"):
        with pytest.raises(ValueError, match=rf"--trainer\.precision {precision} cannot train: use bf16-mixed or 32-true"):
            prepare_training(SimpleNamespace(precision=precision), None)


SEEN = ImageStatistics(*torch.tensor([[0.1, 0.6, 0.3, 0], [0.2, 0.9, 0.8, 1]]).T)


def set_by_hand(calibration, scorer, *, is_default=False, image=0.7):
    calibration.set_ranges(SEEN, 0.5)
    calibration.set_thresholds(Thresholds(image, 0.5, "by hand"), SEEN)
    calibration.belongs_to(scorer, is_default=is_default)


@pytest.fixture(scope="module")
def scorers():
    comparison = tiny_comparison()
    items = [ImageItem(image=each, image_path=f"{i}.png") for i, each in enumerate(soft_images(5).float() / 255)]
    return {"batch": tiny_batch_scorer(items), "memory": tiny_fit(comparison).fit(soft_images(4), 0), "text": comparison.text}


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
