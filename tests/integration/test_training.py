"""Learning, testing and predicting through anomalib's engine."""

import csv
import math
import shutil
from types import SimpleNamespace

import pytest
import torch
from anomalib import LearningType
from lightning.pytorch.loggers import CSVLogger
from tests.arguments import make_dpclip

from anomalib_dpclip import DPCLIP, Surfaces
from anomalib_dpclip.adapter_files.save_and_load import adapter_tensors


@pytest.fixture(scope="module")
def trained(make_model, make_target, engine_in, tmp_path_factory):
    """A training that is over, what it began with, and what its test found: nothing may change its model."""
    folder = tmp_path_factory.mktemp("trained")
    model, engine, target = make_model(), engine_in(folder, logger=CSVLogger(folder, name="log")), make_target()
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    (metrics,) = engine.train(model=model, datamodule=target)
    log = folder / "log" / "version_0" / "metrics.csv"
    return SimpleNamespace(model=model.eval(), engine=engine, target=target, before=before, metrics=metrics, log=log)


def test_train_learns_from_the_auxiliary_set_and_tests_on_the_target(trained):
    model, adapters = trained.model, adapter_tensors(trained.model.model)
    assert all(not torch.equal(value, trained.before[name]) for name, value in adapters.items())
    backbone = {name: value for name, value in model.model.state_dict().items() if name.startswith("backbone.")}
    assert all(torch.equal(value, trained.before[name]) for name, value in backbone.items())
    assert not any(parameter.requires_grad for parameter in model.model.backbone.parameters())
    assert not any(module.training for module in model.model.backbone.modules())
    shared = {f"{kind}_{name}" for kind in ("image", "pixel") for name in ("AUROC", "AP", "F1Max")}
    assert set(trained.metrics) == shared | {"pixel_AUPRO"}
    assert all(0 <= value <= 1 for value in trained.metrics.values())
    assert trained.engine.trainer.global_step == 2 * 2  # epochs x batches of the eight auxiliary images
    assert model.prototypes.initialised
    assert model.provenance.learned_from == ["Surfaces/brick"]
    assert model.provenance.epochs == 2
    assert model.post_processor.calibration.is_set
    assert model.post_processor.auxiliary_calibration.is_set
    assert "train_dataloader" not in vars(trained.target), "the user's data module is left as it was"


def test_what_is_logged(trained):
    with trained.log.open() as file:
        written = {name for row in csv.DictReader(file) for name, value in row.items() if value}
    parts = {"train_loss_step", "train_loss_epoch", "train_loss_cls", "train_loss_seg", "train_loss_dec", "prototype_cosine"}
    assert parts | {"image_AUROC", "pixel_AUROC"} <= written


def test_its_checkpoint_has_no_backbone_and_nothing_of_this_machine(trained):
    checkpoint = torch.load(trained.engine.best_model_path, weights_only=False)
    assert not [name for name in checkpoint["state_dict"] if "backbone" in name]
    assert not {"weights", "auxiliary"} & checkpoint["hyper_parameters"].keys()
    assert "auxiliary_root" not in checkpoint["hyper_parameters"]["training"]


def test_adapters_that_are_loaded_are_tested_and_not_trained(trained, target, make_engine):
    model = make_dpclip(backbone="mini", weights=trained.engine.best_model_path, visualizer=False)
    assert model.learning_type == LearningType.ZERO_SHOT
    (again,) = make_engine().train(model=model, datamodule=target)
    assert again == pytest.approx(trained.metrics), "calibrated on the same validation images, it gives the same metrics"


def test_an_image_learned_from_and_tested_on_is_an_error(make_model, make_engine, surfaces_root):
    with pytest.raises(ValueError, match=r"brick.*is to be tested on and, as .*brick.*, learned from"):
        make_engine().fit(model=make_model(), datamodule=Surfaces(root=surfaces_root, category="brick"))


def test_non_finite_loss_stops_and_names_the_images(make_model, make_engine, target):
    model = make_model()
    with torch.no_grad():
        model.model.det_proj.fc.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"batch 0 is not finite; its images are .*brick.*png"):
        make_engine().fit(model=model, datamodule=target)


FLAGS = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1, "precision": "bf16-mixed"}


@pytest.mark.parametrize("flags", [{"fast_dev_run": True}, FLAGS], ids=str)
def test_lightning_s_own_flags(make_model, make_engine, target, flags):
    engine, model = make_engine(**{"max_epochs": 1} | flags), make_model()
    before = {name: value.clone() for name, value in adapter_tensors(model.model).items()}
    (metrics,) = engine.train(model=model, datamodule=target)
    learned = adapter_tensors(model.model)
    changed = [name for name, value in learned.items() if not torch.equal(value.float(), before[name])]
    assert {name.partition(".")[0] for name in changed} == {"layer_adapters", "seg_proj", "det_proj"}
    assert all(value.isfinite().all() for value in learned.values())
    assert all(0 <= value <= 1 for value in metrics.values() if not math.isnan(value))


def test_half_weights_test_like_full_ones(trained, make_engine, target):
    model = DPCLIP.load_from_checkpoint(trained.engine.best_model_path, visualizer=False)
    (half,) = make_engine(precision="16-true").test(model=model, datamodule=target)
    for name in ("pixel_AUROC", "image_AUROC"):
        assert half[name] == pytest.approx(trained.metrics[name], abs=0.01)


def test_a_checkpoint_keeps_its_good_photos_and_says_so(make_model, make_engine, target, tmp_path, caplog):
    for path in sorted((target.root / "weave" / "train" / "good").iterdir())[:4]:
        shutil.copy(path, tmp_path)
    engine = make_engine(max_epochs=1)
    engine.fit(model=make_model(k_shot=2), datamodule=target)
    checkpoint = engine.best_model_path
    given = {"backbone": "mini", "few_shot_source": tmp_path, "visualizer": False}
    folder = target.root / "weave" / "test" / "hole"
    model = make_dpclip(**given, class_name="weave")
    make_engine().predict(model=model, ckpt_path=checkpoint, data_path=folder)
    assert model.scorer.state.memory.photos == 2
    assert "scoring by the photos that the checkpoint keeps, not by those of --model.few_shot_source" in caplog.text
    model = make_dpclip(**given, class_name="weave", weights=checkpoint)  # as the message says
    make_engine().predict(model=model, data_path=folder)
    assert model.scorer.state.memory.photos == 4
    assert "few_shot_source" not in model.hparams
