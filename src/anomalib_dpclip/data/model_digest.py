"""What tells the results of one model from those of another."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule

_NO_PREDICTION = ("num_workers",)
"""Settings of a model that change no prediction."""


def model_digest(model: LightningModule, data: Mapping[str, Any]) -> str:
    """Digest of everything predictions depend on: weights, text anchors, calibration and settings.

    Args:
        model: The model.
        data: Settings of the data module that change predictions.
    """
    post_processor = getattr(model, "post_processor", None)
    settings = [
        {name: value for name, value in model.hparams.items() if name not in _NO_PREDICTION},
        getattr(post_processor, "checkpoint_config", dict)(),
        dict(data),
    ]
    # What the model judges by beside its weights may only be fetched when the run starts.
    references = getattr(model, "reference_digest", lambda: None)()
    if references is not None:
        settings.append({"references": references})
    # Objects count by their class: their addresses differ from run to run.
    plain = json.dumps(settings, sort_keys=True, default=lambda value: type(value).__name__)
    digest = hashlib.sha256(plain.encode())
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor):
            digest.update(name.encode())
            digest.update(value.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
