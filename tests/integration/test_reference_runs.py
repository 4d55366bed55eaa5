"""Good photos of the target in runs of a trained model: kept in its checkpoint."""

import shutil

import torch
from tests.arguments import make_dpclip

from anomalib_dpclip import DPCLIP


def test_a_checkpoint_keeps_its_photos_and_says_so(make_model, make_engine, target, tmp_path, caplog):
    for path in sorted((target.root / "weave" / "train" / "good").iterdir())[:4]:
        shutil.copy(path, tmp_path)
    engine, trained = make_engine(max_epochs=1), make_model(k_shot=2)
    engine.fit(model=trained, datamodule=target)
    checkpoint = engine.best_model_path
    loaded, images = DPCLIP.load_from_checkpoint(checkpoint).eval(), torch.rand(2, 3, 140, 140)
    with torch.no_grad():
        assert torch.equal(loaded(images).anomaly_map, trained.eval()(images).anomaly_map)
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
