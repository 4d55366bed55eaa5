"""Photos of the target from end to end: chosen, remembered, kept, exported."""

import shutil
from pathlib import Path

import pytest
import torch
from anomalib import LearningType
from tests.arguments import make_dpclip
from tests.integration.exported import needs_onnx, needs_openvino, run_onnx, run_openvino

from anomalib_dpclip import DPCLIP
from anomalib_dpclip.adapter_files.command import adapters
from anomalib_dpclip.adapter_files.save_and_load import save_adapters
from anomalib_dpclip.data.images import read_image
from anomalib_dpclip.scorers.references import image_tensor


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Adapters that have learned nothing: what is tested here does not depend on it."""
    return save_adapters(make_dpclip(backbone="mini", class_name="weave"), tmp_path_factory.mktemp("w") / "a.safetensors")


@pytest.fixture(scope="module")
def good_photos(surfaces_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    for path in sorted((surfaces_root / "weave" / "train" / "good").iterdir())[:4]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def images(surfaces_root):
    paths = sorted((surfaces_root / "weave" / "test" / "hole").iterdir())[:3]
    return torch.stack([image_tensor(read_image(path)) for path in paths])


@pytest.fixture
def known(weights, good_photos):
    model = make_dpclip(backbone="mini", weights=weights, class_name="weave").eval()
    model.set_references(sorted(good_photos.iterdir()))
    return model


def predicted(model, images):
    with torch.no_grad():
        return model(images)


def test_without_photos_nothing_changes(weights, known, images):
    before = predicted(make_dpclip(backbone="mini", weights=weights, class_name="weave").eval(), images)
    assert not torch.equal(predicted(known, images).anomaly_map, before.anomaly_map)
    known.set_references([])
    after = predicted(known, images)
    assert known.learning_type == LearningType.ZERO_SHOT
    assert not any("memory" in name for name in known.state_dict())
    assert torch.equal(after.anomaly_map, before.anomaly_map)
    assert torch.equal(after.pred_score, before.pred_score), "thresholds of the photos went with them"
    known.set_references(images)
    known.set_references(images[:2])
    known.set_references([])
    assert torch.equal(predicted(known, images).pred_score, before.pred_score)


def test_an_image_is_judged_alike_in_any_batch_and_order(known, images):
    together = predicted(known, images)
    for index in range(len(images)):
        alone = predicted(known, images[index : index + 1])
        assert torch.allclose(alone.anomaly_map[0], together.anomaly_map[index], atol=1e-6)
        assert torch.allclose(alone.pred_score[0], together.pred_score[index], atol=1e-6)
    assert torch.allclose(predicted(known, images.flip(0)).anomaly_map.flip(0), together.anomaly_map, atol=1e-6)


def test_photos_without_validation_images_calibrate(known, images, surfaces_root):
    assert known.learning_type == LearningType.FEW_SHOT
    assert known.post_processor.calibration.is_set
    assert predicted(known, images).pred_label.all()  # holes
    normal = [image_tensor(read_image(path)) for path in sorted((surfaces_root / "weave" / "test" / "good").iterdir())[:10]]
    assert predicted(known, torch.stack(normal)).pred_label.float().mean() < 0.5


def test_k_shot_of_the_training_split(weights, make_engine, target, caplog):
    model = make_dpclip(backbone="mini", weights=weights, k_shot=4, visualizer=False)
    assert model.learning_type == LearningType.FEW_SHOT
    (results,) = make_engine().test(model=model, datamodule=target)
    assert model.scorer.state.memory.tokens.shape == (4, 400, 128)
    assert results["pixel_AUROC"] > 0.9


def test_a_checkpoint_keeps_the_photos(make_model, make_engine, target, tmp_path, images, capsys):
    model = make_model(k_shot=2)
    engine = make_engine(max_epochs=1)
    engine.fit(model=model, datamodule=target)
    checkpoint = engine.best_model_path
    loaded = DPCLIP.load_from_checkpoint(checkpoint).eval()
    assert torch.equal(loaded.scorer.state.memory.tokens, model.scorer.state.memory.tokens)
    assert torch.equal(predicted(loaded, images).anomaly_map, predicted(model.eval(), images).anomaly_map)
    loaded.set_references(images)
    assert not torch.equal(predicted(loaded, images).anomaly_map, predicted(model.eval(), images).anomaly_map)
    loaded.set_references([])  # of the images, not of the checkpoint's own
    assert torch.equal(predicted(loaded, images).anomaly_map, predicted(model.eval(), images).anomaly_map)
    plain = make_model()
    plain.load_state_dict(model.state_dict())  # of whatever size
    assert plain.scorer.state.memory.photos == 2
    adapters(Path(checkpoint))
    assert "2 of a target: 200 tokens of 128 values at each of 4 taps" in capsys.readouterr().out
    # Predictions by the stored photos, on a folder that has no training split.
    predictions = make_engine().predict(model=loaded, ckpt_path=checkpoint, data_path=target.root / "weave" / "test" / "hole")
    assert len(predictions) == 16


def test_a_checkpoint_keeps_its_photos_and_says_so(make_model, make_engine, target, good_photos, caplog):
    engine = make_engine(max_epochs=1)
    engine.fit(model=make_model(k_shot=2), datamodule=target)
    checkpoint, folder = engine.best_model_path, target.root / "weave" / "test" / "hole"
    given = {"backbone": "mini", "few_shot_source": good_photos, "visualizer": False}
    model = make_dpclip(**given, class_name="weave")
    make_engine().predict(model=model, ckpt_path=checkpoint, data_path=folder)
    assert model.scorer.state.memory.photos == 2
    assert "judging by the photos that the checkpoint keeps, not by those of --model.few_shot_source" in caplog.text
    model = make_dpclip(**given, class_name="weave", weights=checkpoint)  # as the message says
    make_engine().predict(model=model, data_path=folder)
    assert model.scorer.state.memory.photos == 4


def test_photos_set_before_a_training_are_forgotten_after_it(make_model, make_engine, target, good_photos):
    model = make_model()
    model.set_references(sorted(good_photos.iterdir()))
    make_engine(max_epochs=1).fit(model=model, datamodule=target)
    assert model.scorer.state.memory.photos == 4
    trained = model.post_processor.calibration.thresholds
    model.set_references([])
    assert model.scorer.state is None
    assert model.post_processor.calibration.thresholds == trained, "those before the training were of other adapters"


def test_a_bare_folder_with_good_photos(weights, make_engine, good_photos, surfaces_root):
    model = make_dpclip(backbone="mini", weights=weights, few_shot_source=good_photos, class_name="weave", visualizer=False)
    make_engine().predict(model=model, data_path=surfaces_root / "weave" / "test" / "hole")
    assert model.scorer.state.memory.photos == 4
    assert model.post_processor.calibration.is_set
    assert "few_shot_source" not in model.hparams


def test_a_reference_that_is_tested_on_is_an_error(weights, make_engine, target, surfaces_root):
    source = surfaces_root / "weave" / "test" / "good"
    model = make_dpclip(backbone="mini", weights=weights, few_shot_source=source, visualizer=False)
    with pytest.raises(ValueError, match="is to be tested on and, as"):
        make_engine().test(model=model, datamodule=target)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k_shot": -1}, "k_shot must be at least 0"),
        ({"memory_tokens": 0}, "memory_tokens must be positive"),
        ({"k_shot": 1, "tiles": 2}, "set --model.tiles 1"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_dpclip(backbone="mini", **arguments)


def test_a_large_memory_is_thinned_repeatably(weights, good_photos):
    models = [make_dpclip(backbone="mini", weights=weights, class_name="weave", memory_tokens=150) for _ in range(2)]
    for model in models:
        model.set_references(sorted(good_photos.iterdir()))
    first, second = (model.scorer.state.memory.tokens for model in models)
    assert first.shape == (4, 150, 128)
    assert torch.equal(first, second)


def test_one_photo_is_judged_by_its_mirror_images(weights, good_photos):
    model = make_dpclip(backbone="mini", weights=weights, class_name="weave")
    model.set_references(sorted(good_photos.iterdir())[:1])
    assert model.scorer.state.memory.photos == 1
    assert 0 < model.scorer.state.memory.share <= 1


def test_an_export_needs_photos_it_can_have(weights, tmp_path, good_photos):
    model = make_dpclip(backbone="mini", weights=weights, class_name="weave", k_shot=2)
    with pytest.raises(ValueError, match="a training split, which an export does not have"):
        model.to_onnx(tmp_path)
    model.few_shot_source = good_photos
    model.to_torch(tmp_path)
    assert model.scorer.state.memory.photos == 2


EXPORTS = [pytest.param("to_onnx", run_onnx, marks=needs_onnx), pytest.param("to_openvino", run_openvino, marks=needs_openvino)]


def assert_exported_files_equal(model, images, path, export, run):
    expected = predicted(model, images)
    outputs = run(getattr(model, export)(path), images)
    for name in ("anomaly_map", "pred_score"):
        actual = torch.from_numpy(outputs[name]).reshape(getattr(expected, name).shape)
        assert (actual - getattr(expected, name)).abs().max() < 1e-3


@pytest.mark.parametrize(("export", "run"), EXPORTS)
def test_exported_files_judge_by_the_photos(known, images, tmp_path, export, run):
    assert_exported_files_equal(known, images, tmp_path, export, run)


@pytest.mark.parametrize(("export", "run"), EXPORTS)
@pytest.mark.parametrize("detection", ["projector", "class_token"])
def test_exported_files_judge_by_the_corrections(good_photos, images, tmp_path, export, run, detection):
    learned = make_dpclip(backbone="mini", class_name="weave", detection=detection)
    adapters_file = save_adapters(learned, tmp_path / "a.safetensors")
    model = make_dpclip(backbone="mini", weights=adapters_file, class_name="weave", detection=detection).eval()
    model.set_references(sorted(good_photos.iterdir()))
    before = predicted(model, images)
    model.add_good_images(images[:1])
    after = predicted(model, images)
    assert after.pred_score[0] < before.pred_score[0] - 0.1
    assert (after.anomaly_map[0] < before.anomaly_map[0] - 0.1).any()
    assert_exported_files_equal(model, images, tmp_path, export, run)
