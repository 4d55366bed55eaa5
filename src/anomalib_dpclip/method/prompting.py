"""Text anchors: the states and templates of the method, and their averaged embeddings.

DP-CLIP (Feature Decoupling and Channel Purification), text anchors: T_N and T_A.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

NORMAL_STATES = ("{}", "a {}", "the {}")
ABNORMAL_STATES = ("a damaged {}", "a broken {}", "a {} with flaw", "a {} with defect", "a {} with damage")
TEMPLATES = ("{}.", "a photo of {}.")


def prompts(class_name: str, states: Sequence[str], templates: Sequence[str] = TEMPLATES) -> list[str]:
    """All sentences about a class: each state of it in each template.

    Args:
        class_name: Readable name of what the images show.
        states: Phrases with one ``{}`` for the class name.
        templates: Sentences with one ``{}`` for the phrase.

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
        normal_states: Phrases for a normal object.
        abnormal_states: Phrases for an anomalous object.
        templates: Sentences around the phrases.

    Returns:
        Anchors ``(E, 2)``, unit columns, index 0 normal and 1 abnormal.
    """
    columns = []
    for states in (normal_states, abnormal_states):
        sentences = functional.normalize(encode(prompts(class_name, states, templates)).float(), dim=-1)
        columns.append(functional.normalize(sentences.mean(0), dim=-1))
    return torch.stack(columns, dim=-1)
