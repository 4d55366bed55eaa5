"""The configuration of a training stays, whatever commands follow it."""

from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.cli import SaveConfigCallback
from PIL import Image

from anomalib_dpclip import DPCLIP, Photos


class Parser:
    """jsonargparse's, as far as the callback needs it."""

    def save(self, config, path, **_):
        Path(path).write_text(config)


@pytest.mark.parametrize("earlier", ["of the training", None])
def test_a_prediction_leaves_the_configuration_of_the_training_alone(tmp_path, earlier):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "photos" / "0.png")
    out = tmp_path / "out"
    out.mkdir()
    if earlier:
        (out / "config.yaml").write_text(earlier)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=out,
        callbacks=[SaveConfigCallback(Parser(), "of the prediction", overwrite=True)],
    )
    model = DPCLIP(backbone="mini", weights="clip", class_name="brick", visualizer=False)
    trainer.predict(model, datamodule=Photos(tmp_path / "photos", num_workers=0), return_predictions=False)
    found = {path.name: path.read_text() for path in out.glob("config*.yaml")}
    assert found.pop("config-predict.yaml") == "of the prediction"
    assert found == ({"config.yaml": earlier} if earlier else {})
