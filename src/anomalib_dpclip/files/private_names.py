"""Private names of other packages that there is no public way around: each with its reason, imported where it is used."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def torch_scan(step: Callable[[Tensor, Tensor], Any], start: Tensor, steps: Tensor) -> Any:
    """Torch's loop operator: the exporter would write a Python loop out, a copy of the model for each round."""
    from torch._higher_order_ops import scan

    return scan(step, start, steps)
