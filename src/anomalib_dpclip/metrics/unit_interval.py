"""The one check that every score passes before it is counted."""

import torch


def check_unit_interval(scores: torch.Tensor, name: str) -> None:
    """Refuse scores that leave [0, 1].

    A histogram over [0, 1] would pile them up at its ends, and torchmetrics' curves would squash the batches that hold
    them, and only those, through a sigmoid: both change the metrics without a word.

    Args:
        scores: Any shape.
        name: What the scores are, for the message.

    Raises:
        ValueError: A score is below 0, above 1 or not a number.
    """
    if scores.numel() == 0:
        return
    low, high = torch.stack(torch.aminmax(scores)).tolist()
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        raise ValueError(
            f"{name} must lie in [0, 1], but span [{low:g}, {high:g}]: keep the model's post-processor (it normalises "
            "scores once a validation run has shown it their range), or scale them before they are measured."
        )
