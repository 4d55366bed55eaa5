"""Text anchors by class name, each encoded once.

DP-CLIP (Feature Decoupling and Channel Purification), text anchors: T_N and T_A of a class are fixed, since the text
tower is frozen.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from anomalib_dpclip.clip.text_tower import TextTower
from anomalib_dpclip.method.prompting import text_anchors


class AnchorCache:
    """Encodes a class's anchors on the CPU when they are first asked for, and remembers them.

    Args:
        text: The text tower.
        reload: Loads it again. Pickles leave the tower out, and an exported model never needs it.
        normal_states: As in `text_anchors`.
        abnormal_states: As in `text_anchors`.
        templates: As in `text_anchors`.
    """

    def __init__(
        self,
        text: TextTower,
        reload: Callable[[], TextTower],
        normal_states: Sequence[str],
        abnormal_states: Sequence[str],
        templates: Sequence[str],
    ) -> None:
        self._text: TextTower | None = text
        self._reload = reload
        self._prompts = (tuple(normal_states), tuple(abnormal_states), tuple(templates))
        self._anchors: dict[str, Tensor] = {}

    def __call__(self, class_name: str) -> Tensor:
        """Anchors ``(E, 2)`` of a class.

        Args:
            class_name: Readable name.
        """
        if class_name not in self._anchors:
            if self._text is None:
                self._text = self._reload()
            self._anchors[class_name] = text_anchors(self._text, class_name, *self._prompts)
        return self._anchors[class_name]

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the text tower."""
        return {**vars(self), "_text": None}
