"""The mini backbone: a small real CLIP that comes with the package and knows procedural surfaces (see ``mini/README.md``)."""

import re
import reprlib
import warnings
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anomalib_dpclip.clip.weights import load_weights, read_file

if TYPE_CHECKING:
    from open_clip import CLIP

MINI_IMAGE_SIZE = 140
MINI_PATCH_SIZE = 14
CONTEXT_LENGTH = 24

# A word's place is its token id, so the order is part of the weights. The end comes last: CLIP pools at the highest id.
VOCABULARY = (
    "<pad>",
    "<start>",
    *("a", "the", "photo", "of", "with", "object", "surface", "texture"),
    *("damaged", "broken", "flaw", "defect", "damage", "scratch", "hole", "stain", "crack", "smear"),
    *("stripes", "checkerboard", "dots", "weave", "mesh", "concrete", "wood", "leather", "brushed", "metal", "brick"),
    *("red", "orange", "yellow", "green", "blue", "purple", "brown", "grey", "white", "black"),
    "<end>",
)


UNKNOWN_WORDS_NAMED = 20
"""Unknown words that a tokenizer warns of, each once; whoever types more than that need not be told of every one."""


def unknown_words(text: str) -> list[str]:
    """Words of a text that the mini backbone does not know, each once, in lower case."""
    return [word for word in dict.fromkeys(re.findall(r"\w+", text.lower())) if word not in VOCABULARY]


class MiniTokenizer:
    """Words to token ids, in the shape of an open_clip tokenizer. Case and punctuation do not count.

    Example:
        >>> MiniTokenizer()(["A photo of a brick."])[0, :7].tolist()
        [1, 2, 4, 5, 2, 30, 41]
    """

    def __init__(self) -> None:
        self._ids = {word: index for index, word in enumerate(VOCABULARY)}
        self._named: set[str] = set()

    def __call__(self, texts: str | list[str], context_length: int = CONTEXT_LENGTH) -> Tensor:
        """Token ids ``(N, context_length)``, int64: start, words, end, then zeros; a longer sentence is cut, its end kept.

        Warns:
            UserWarning: For each word that is not in `VOCABULARY`, once; it counts as ``"object"``.
        """
        sentences = [texts] if isinstance(texts, str) else texts
        for word in unknown_words(" ".join(sentences)):
            if word not in self._named and len(self._named) < UNKNOWN_WORDS_NAMED:
                self._named.add(word)
                message = f"the mini backbone does not know the word {reprlib.repr(word)}: it counts as 'object'"
                warnings.warn(message, stacklevel=2)
        tokens = torch.zeros(len(sentences), context_length, dtype=torch.long)
        for row, sentence in zip(tokens, sentences, strict=True):
            found = re.findall(r"\w+", sentence.lower())
            words = [self._ids.get(word, self._ids["object"]) for word in found][: context_length - 2]
            row[: len(words) + 2] = torch.tensor([self._ids["<start>"], *words, self._ids["<end>"]])
        return tokens


def build_mini_clip(image_size: int = MINI_IMAGE_SIZE) -> "CLIP":
    """Build the architecture, randomly initialised, for images of a side in pixels that is a multiple of the patch size."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    return CLIP(
        embed_dim=64,
        vision_cfg=CLIPVisionCfg(layers=6, width=128, head_width=32, patch_size=MINI_PATCH_SIZE, image_size=image_size),
        text_cfg=CLIPTextCfg(context_length=CONTEXT_LENGTH, vocab_size=len(VOCABULARY), width=64, heads=2, layers=2),
    )


def load_mini_clip(path: Path | None = None, image_size: int = MINI_IMAGE_SIZE) -> "CLIP":
    """The mini CLIP with the weights of a file, by default the package's, in evaluation mode; raises as `read_file`."""
    if path is None:
        with as_file(files("anomalib_dpclip.clip") / "mini" / "mini_clip.safetensors") as packaged:
            return load_mini_clip(packaged, image_size)
    clip = build_mini_clip(image_size)
    load_weights(clip, read_file(path), "mini", str(path))
    return clip.eval()
