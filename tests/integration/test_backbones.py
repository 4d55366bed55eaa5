"""Everything DPCLIP does, on a small backbone of each family: SigLIP, PE-Core, EVA, CLIPA."""

from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data.utils import read_image
from anomalib.engine import Engine
from safetensors.torch import save_file
from tests.arguments import make_dpclip
from tests.tiny_towers import register, tiny_backbone

from anomalib_dpclip import DPCLIP, Surfaces, save_adapters
from anomalib_dpclip.adapter_files.read_and_write import read_adapters
from anomalib_dpclip.clip.pretraining import OPENAI, Preprocessing

STATISTICS = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
TRAINED_WITH = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))

needs_openvino = pytest.mark.skipif(
    not all(map(find_spec, ("openvino", "onnx", "onnxscript", "onnxruntime"))), reason="needs the extras 'onnx' and 'openvino'"
)


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
def trained(request, backbones, surfaces_root, tmp_path_factory):
    """A briefly trained model, its engine, and what it was built with."""
    arguments = {"backbone": f"dpclip-test-{request.param}", "pretrained": backbones[request.param], "image_size": 96}
    model = make_dpclip(
        **arguments,
        **STATISTICS,
        auxiliary="Surfaces/brick",
        auxiliary_root=str(surfaces_root),
        shots=8,
        batch_size=4,
        learning_rate=2e-3,
        visualizer=False,
    )
    root = tmp_path_factory.mktemp(request.param)
    data = Surfaces(root=surfaces_root, category="weave", eval_batch_size=16)
    engine = Engine(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, default_root_dir=root, limit_val_batches=2
    )
    engine.fit(model, datamodule=data)
    return SimpleNamespace(name=request.param, model=model, engine=engine, data=data, arguments=arguments, root=root)


@pytest.fixture(scope="module")
def images(surfaces_root):
    """Four weaves, in [0, 1]."""
    paths = [path for kind in ("good", "hole") for path in sorted((surfaces_root / "weave" / "test" / kind).glob("*.png"))[:2]]
    return torch.stack([read_image(path, as_tensor=True) for path in paths])


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


def test_testing_and_predicting(trained, surfaces_root):
    (metrics,) = trained.engine.test(trained.model, datamodule=trained.data)
    assert 0 <= metrics["image_AUROC"] <= 1
    predictions = trained.engine.predict(trained.model, data_path=surfaces_root / "weave" / "test" / "hole")
    maps = torch.cat([batch.anomaly_map for batch in predictions])
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


def test_adapters_from_before_statistics_were_kept_mean_openai_s(trained):
    from dataclasses import replace

    from anomalib_dpclip.adapter_files.read_and_write import write_adapters

    path = save_adapters(trained.model, trained.root / "new.safetensors")
    content = read_adapters(path)
    write_adapters(replace(content, provenance=replace(content.provenance, preprocessing={})), path)
    assert make_dpclip(**trained.arguments, **STATISTICS, weights=path).pre_processor.preprocessing == OPENAI


@needs_openvino
@pytest.mark.parametrize("trained", ["pe", "eva"], indirect=True)  # attention that pools, and rotary positions
def test_an_exported_file_answers_alike(trained, images):
    """In both runtimes: what anomalib writes for OpenVINO is this file, converted."""
    model = DPCLIP.load_from_checkpoint(checkpoint_of(trained), weights_only=True)
    model.target.set_class("weave")
    path = model.to_onnx(trained.root)
    maps, scores = answers(model, images)
    for run in (run_onnx, run_openvino):
        found = run(path, images.numpy())
        np.testing.assert_allclose(found["anomaly_map"].reshape(maps.shape), maps.numpy(), atol=2e-3)
        np.testing.assert_allclose(found["pred_score"].reshape(scores.shape), scores.numpy(), atol=2e-3)


def checkpoint_of(trained):
    path = trained.root / "exported.ckpt"
    trained.engine.trainer.save_checkpoint(path)
    return path


def run_onnx(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: images}), strict=True))


def run_openvino(path, images):
    import openvino

    results = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)
    return {output.get_any_name(): results[output] for output in results}


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
    with pytest.raises(ValueError, match="temperature must be positive, not 0"):
        make_dpclip(**trained.arguments, temperature=0)
