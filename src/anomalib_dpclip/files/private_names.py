"""Private names of other packages that there is no public way around: each with its reason, imported where it is used.

Methods that anomalib's data modules ask a subclass for (`_setup`, `_create_test_split`) are written where they belong.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

Module = TypeVar("Module", bound=type)


def torch_scan(step: Callable[[Tensor, Tensor], Any], start: Tensor, steps: Tensor) -> Any:
    """Torch's loop operator: the exporter would write a Python loop out, a copy of the model for each round."""
    from torch._higher_order_ops import scan

    return scan(step, start, steps)


def keeps_precision(kind: Module) -> Module:
    """Class decorator of a module that follows a model to its device, but not to half precision.

    Torch puts ``to``, ``cuda`` and ``half`` all through one method, and gives a buffer no way to refuse a type.
    """
    move: Any = kind._apply  # type: ignore[attr-defined]  # noqa: SLF001

    def follow(module: Any, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        return move(module, lambda tensor: tensor.to(fn(tensor.new_empty(0)).device), recurse)

    kind._apply = follow  # type: ignore[attr-defined]  # noqa: SLF001
    return kind


def timm_tokens(trunk: Any, patches: Tensor) -> Tensor:
    """Tokens of a timm vision transformer's ``patch_embed`` before its first layer: its loop has no other beginning."""
    tokens = trunk._pos_embed(patches)  # noqa: SLF001
    return tokens[0] if isinstance(tokens, tuple) else tokens  # Eva's come with the rotary positions


def replace_checkpoints(checkpoint_callback: Any) -> None:
    """Have Lightning write over a checkpoint of the same name: this is no argument where anomalib builds the callback."""
    checkpoint_callback._enable_version_counter = False  # noqa: SLF001


def set_results_folder(trainer: Any, folder: Path) -> None:
    """Have whatever asks a trainer for its folder write to another: Lightning takes it in its constructor alone."""
    trainer._default_root_dir = os.fspath(folder)  # noqa: SLF001
