"""The frozen text tower, which only ever encodes prompts."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class TextTower:
    """The frozen text tower on the CPU. Not a module: it is never trained, moved, saved or exported.

    Args:
        clip: The open_clip model it comes from, ``CLIP`` or ``CustomTextCLIP``.
        tokenizer: Sentences to token ids ``(N, context_length)``.
    """

    def __init__(self, clip: Any, tokenizer: Callable[[list[str]], Tensor]) -> None:
        self.clip = clip.requires_grad_(False).eval()
        self.tokenizer = tokenizer

    @torch.no_grad()
    def __call__(self, sentences: list[str]) -> Tensor:
        """Embed sentences as ``(N, E)``."""
        return self.clip.encode_text(self.tokenizer(sentences)).float()
