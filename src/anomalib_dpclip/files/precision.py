"""Where mixed precision must not reach: similarities are differences of nearly equal numbers."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> AbstractContextManager:
    """Context in which autocast leaves operations on a tensor's device alone.

    Autocast computes products and convolutions in half precision, even of single-precision operands: of a whole anomaly
    map some twenty different values would be left. Outside autocast nothing is entered, so nothing is exported.
    """
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
