"""The same answers on a GPU as on the CPU, whatever is known of the target."""

import shutil

import pytest
import torch
from PIL import Image
from tests.arguments import make_dpclip

from anomalib_dpclip import Photos
from anomalib_dpclip.adapter_files.save_and_load import save_adapters

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, to compare its answers with the CPU's")


@pytest.fixture(autouse=True)
def _exact_products():
    """Matrix products of single precision, not of TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    model = make_dpclip(backbone="mini", class_name="weave", seed=1)
    return save_adapters(model, tmp_path_factory.mktemp("w") / "a.safetensors")


@pytest.fixture(scope="module")
def folders(surfaces_root, tmp_path_factory):
    """Good photos, photos to judge, and a picture of what to ignore."""
    folder = tmp_path_factory.mktemp("photos")
    weave = surfaces_root / "weave"
    for name, source in (("good", weave / "train" / "good"), ("lot", weave / "test" / "hole")):
        (folder / name).mkdir()
        for path in sorted(source.iterdir())[:6]:
            shutil.copy(path, folder / name)
    picture = Image.new("L", Image.open(next((folder / "lot").iterdir())).size)
    picture.paste(255, (10, 10, 70, 50))
    picture.save(folder / "ignore.png")
    return folder


KNOWN = {
    "text": {},
    "class token": {"detection": "class_token"},
    "photos": {"few_shot_source": "good", "k_shot": 4},
    "lot": {"lot": True},
    "photos and lot": {"few_shot_source": "good", "k_shot": 4, "lot": True},
    "ignored": {"ignore": "ignore.png"},
    "ignored, photos": {"ignore": "ignore.png", "few_shot_source": "good", "k_shot": 4},
    "tiles": {"tiles": 2},
    "batch statistics": {"grn_pooling": "batch"},
}


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN.keys())
def test_predictions_are_those_of_the_cpu(known, weights, folders, make_engine, tmp_path):
    arguments = {name: folders / value if name in {"few_shot_source", "ignore"} else value for name, value in known.items()}
    if known.keys() & {"detection", "grn_pooling"}:  # what adapters are made for
        weights = save_adapters(make_dpclip(backbone="mini", class_name="weave", **known), tmp_path / "a.safetensors")
    answers = []
    for accelerator in ("cpu", "gpu"):
        model = make_dpclip(backbone="mini", weights=weights, class_name="weave", visualizer=False, **arguments)
        engine = make_engine(accelerator=accelerator, default_root_dir=tmp_path / accelerator)
        answers.append(engine.predict(model=model, datamodule=Photos(folders / "lot", batch_size=4, num_workers=0)))
    for name in ("pred_score", "anomaly_map"):
        on_cpu, on_gpu = (torch.cat([getattr(batch, name).cpu() for batch in batches]) for batches in answers)
        assert torch.allclose(on_gpu, on_cpu, atol=1e-3)


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed", "bf16-true"])
def test_what_is_learned_there_is_tested_there(precision, make_model, make_engine, target):
    engine = make_engine(accelerator="gpu", precision=precision, max_epochs=2)
    model = make_model()
    engine.fit(model=model, datamodule=target)
    (results,) = engine.test(model=model, datamodule=target)
    assert results["pixel_AUROC"] > 0.6


def test_a_checkpoint_of_a_gpu_answers_on_the_cpu(make_model, make_engine, target, tmp_path):
    engine = make_engine(accelerator="gpu", max_epochs=1)
    model = make_model()
    engine.fit(model=model, datamodule=target)
    path = tmp_path / "model.ckpt"
    engine.trainer.save_checkpoint(path)
    on_gpu = engine.test(model=model, datamodule=target)[0]
    on_cpu = make_engine().test(model=make_dpclip(backbone="mini", visualizer=False), datamodule=target, ckpt_path=path)[0]
    assert on_cpu == pytest.approx(on_gpu, abs=0.01)
