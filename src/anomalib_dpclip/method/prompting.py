"""Text anchors T_N and T_A: the states and templates of the method, and their averaged embeddings of each class."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from anomalib_dpclip.clip.text_tower import TextTower

NORMAL_STATES = ("{}", "a {}", "the {}")
ABNORMAL_STATES = ("a damaged {}", "a broken {}", "a {} with flaw", "a {} with defect", "a {} with damage")
TEMPLATES = ("{}.", "a photo of {}.")

CLASSES_KEPT = 4096
"""Classes whose anchors are remembered, more than a data set has; those of ViT-L take 25 MB."""


def prompts(class_name: str, states: Sequence[str], templates: Sequence[str] = TEMPLATES) -> list[str]:
    """All sentences about a class: each state of it in each template.

    Raises:
        ValueError: If there is no state or template, or one lacks its ``{}``.

    Example:
        >>> prompts("screw", ["a broken {}"])
        ['a broken screw.', 'a photo of a broken screw.']
    """
    for pattern in (*states, *templates):
        if pattern.count("{}") != 1:
            raise ValueError(f"prompt {pattern!r} must contain {{}} exactly once, where the class name goes")
    if not states or not templates:
        raise ValueError("prompts need at least one state and one template")
    return [template.replace("{}", state.replace("{}", class_name)) for template in templates for state in states]


@torch.no_grad()
def text_anchors(
    encode: Callable[[list[str]], Tensor],
    class_name: str,
    normal_states: Sequence[str] = NORMAL_STATES,
    abnormal_states: Sequence[str] = ABNORMAL_STATES,
    templates: Sequence[str] = TEMPLATES,
) -> Tensor:
    """Text anchors ``T_N``, ``T_A`` of a class: the normalised mean of its normalised sentence embeddings.

    Args:
        encode: Text tower; sentences to embeddings ``(N, E)``.
        class_name: Readable name of what the images show.
        normal_states: Phrases for a normal object, with one ``{}`` for its name.
        abnormal_states: Phrases for an anomalous one.
        templates: Sentences with one ``{}`` for a phrase.

    Returns:
        Anchors ``(E, 2)``, unit columns, index 0 normal and 1 abnormal.
    """
    columns = []
    for states in (normal_states, abnormal_states):
        sentences = functional.normalize(encode(prompts(class_name, states, templates)).float(), dim=-1)
        columns.append(functional.normalize(sentences.mean(0), dim=-1))
    return torch.stack(columns, dim=-1)


class AnchorCache:
    """Encodes a class's anchors on the CPU when they are first asked for, and remembers those of the last `CLASSES_KEPT`.

    Pickles leave the text tower out, and an exported model never needs it; `reload` loads it again.
    """

    def __init__(self, text: TextTower, reload: Callable[[], TextTower], *states_and_templates: Sequence[str]) -> None:
        self._text: TextTower | None = text
        self._reload = reload
        self._prompts = states_and_templates
        self._anchors: dict[str, Tensor] = {}

    def __call__(self, class_name: str) -> Tensor:
        """Anchors ``(E, 2)`` of a class of a readable name."""
        if class_name not in self._anchors:
            if self._text is None:
                self._text = self._reload()
            if len(self._anchors) >= CLASSES_KEPT:  # names that visitors type have no end
                del self._anchors[next(iter(self._anchors))]
            self._anchors[class_name] = text_anchors(self._text, class_name, *self._prompts)
        return self._anchors[class_name]

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the text tower."""
        return {**vars(self), "_text": None}
