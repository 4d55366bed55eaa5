"""Everything DPCLIP does, on a small backbone of each family: SigLIP, PE-Core, EVA, CLIPA."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.arguments import make_dpclip
from tests.integration.exported import needs_onnx, needs_openvino, run_onnx, run_openvino, weaves
from tests.tiny_towers import register, tiny_backbone

from anomalib_dpclip import DPCLIP, save_adapters
from anomalib_dpclip.adapter_files.read_and_write import read_adapters
from anomalib_dpclip.clip.pretraining import Preprocessing

STATISTICS = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
TRAINED_WITH = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    """Files of random weights by name, with their configurations known to open_clip."""
    folder = tmp_path_factory.mktemp("backbones")
    with pytest.MonkeyPatch.context() as patch:
        register(folder, patch)
        files = {}
        for name in ("sig", "pe", "eva", "clipa"):
            clip, _ = tiny_backbone(name)
            files[name] = str(folder / f"{name}.safetensors")
            save_file({key: value.contiguous() for key, value in clip.state_dict().items()}, files[name])
        yield files


@pytest.fixture(scope="module", params=["sig", "pe", "eva", "clipa"])
def trained(request, backbones, make_model, make_target, engine_in, tmp_path_factory):
    """A briefly trained model, its engine, and what it was built with."""
    arguments = {"backbone": f"dpclip-test-{request.param}", "pretrained": backbones[request.param], "image_size": 96}
    model = make_model(**arguments, **STATISTICS)
    root, data = tmp_path_factory.mktemp(request.param), make_target()
    engine = engine_in(root, max_epochs=1)
    engine.fit(model, datamodule=data)
    return SimpleNamespace(name=request.param, model=model, engine=engine, data=data, arguments=arguments, root=root)


@pytest.fixture(scope="module")
def images(surfaces_root):
    return weaves(surfaces_root, 2)


@torch.no_grad()
def answers(model, images):
    prediction = model.eval()(images)
    return prediction.anomaly_map, prediction.pred_score


def test_training_moves_the_adapters_and_nothing_else(trained, backbones):
    fresh = make_dpclip(**trained.arguments, class_name="weave", visualizer=False)
    before, after = fresh.model.state_dict(), trained.model.model.state_dict()
    for name, value in after.items():
        if name.startswith("backbone."):
            assert torch.equal(before[name], value), name
        elif name.endswith("fc.weight"):
            assert not torch.equal(before[name], value), name


def test_testing_and_predicting(trained, images):
    (metrics,) = trained.engine.test(trained.model, datamodule=trained.data)
    assert 0 <= metrics["image_AUROC"] <= 1
    maps, _ = answers(trained.model, images)
    assert maps.shape[-2:] == (96, 96)
    assert maps.std() > 1e-4


def test_a_checkpoint_is_the_whole_model(trained, images):
    path = trained.root / "model.ckpt"
    trained.engine.trainer.save_checkpoint(path)
    loaded = DPCLIP.load_from_checkpoint(path, weights_only=True)
    assert loaded.pre_processor.preprocessing == TRAINED_WITH
    for found, expected in zip(answers(loaded, images), answers(trained.model, images), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_an_adapter_file_carries_the_statistics(trained, images):
    path = save_adapters(trained.model, trained.root / "adapters.safetensors")
    assert Preprocessing.from_dict(read_adapters(path).provenance.preprocessing, "file") == TRAINED_WITH
    model = make_dpclip(**trained.arguments, weights=path, class_name="weave", visualizer=False)
    assert model.pre_processor.preprocessing == TRAINED_WITH
    # Calibrations differ, the target's and the auxiliary set's: compare what they calibrate.
    prepared = model.pre_processor.transform(images)
    torch.testing.assert_close(prepared, trained.model.pre_processor.transform(images))
    for found, expected in zip(model.model.features(prepared)[0], trained.model.model.features(prepared)[0], strict=True):
        torch.testing.assert_close(found, expected)
    other = {"pe": "eva", "eva": "pe", "sig": "clipa", "clipa": "sig"}[trained.name]
    arguments = {"backbone": f"dpclip-test-{other}", "image_size": 96, "pretrained": "random"}
    with pytest.raises(ValueError, match=r"holds adapters of another backbone: dpclip-test-"):
        make_dpclip(**arguments, weights=path, visualizer=False)


@needs_onnx
@needs_openvino
@pytest.mark.parametrize("trained", ["pe", "eva"], indirect=True)  # attention that pools, and rotary positions
def test_an_exported_file_answers_alike(trained, images):
    """In both runtimes: what anomalib writes for OpenVINO is this file, converted."""
    path = trained.root / "exported.ckpt"
    trained.engine.trainer.save_checkpoint(path)
    model = DPCLIP.load_from_checkpoint(path, weights_only=True)
    model.target.set_class("weave")
    expected, path = answers(model, images), model.to_onnx(trained.root)
    for run in (run_onnx, run_openvino):
        found = run(path, images)
        for name, values in zip(("anomaly_map", "pred_score"), expected, strict=True):
            np.testing.assert_allclose(found[name].reshape(values.shape), values.numpy(), atol=2e-3)


def test_unadapted_towers_are_tested_too(trained, make_engine, target):
    """Without a map of its own (SigLIP, PE-Core), the image score alone says something."""
    model = make_dpclip(**trained.arguments, weights="clip", visualizer=False)
    (metrics,) = make_engine().train(model, datamodule=target)
    assert 0 <= metrics["image_AUROC"] <= 1
    if trained.name in {"sig", "pe"}:
        assert metrics["pixel_AUROC"] == pytest.approx(0.5)


def test_the_objective_may_take_the_backbone_s_own_scale(trained):
    own = make_dpclip(**trained.arguments, temperature="backbone").temperature
    clip, _ = tiny_backbone(trained.name)
    assert own == pytest.approx(clip.logit_scale.exp().item(), rel=1e-5)
