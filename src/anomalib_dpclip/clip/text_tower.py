"""The frozen text tower, which only ever encodes prompts, and a backbone's tokenizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from anomalib_dpclip.files.downloads import network_timeout

Tokenizer: TypeAlias = Callable[[list[str]], Tensor]
"""Sentences to token ids ``(N, context_length)``."""


class TextTower:
    """The text tower of an open_clip CLIP, on the CPU. Not a module: it is never trained, moved, saved or exported."""

    def __init__(self, clip: Any, tokenizer: Tokenizer) -> None:
        self.clip = clip.requires_grad_(False).eval()
        self.tokenizer = tokenizer

    @torch.no_grad()
    def __call__(self, sentences: list[str]) -> Tensor:
        """Embed sentences as ``(N, E)``."""
        return self.clip.encode_text(self.tokenizer(sentences)).float()


def load_tokenizer(backbone: str, config: dict[str, Any], folder: str | None = None) -> Tokenizer:
    """The tokenizer that open_clip uses for a backbone, from its package, or from Hugging Face: on disk or downloaded.

    `folder` has the tokenizer's files (``tokenizer.json``, ``tokenizer_config.json``), else they are the hub's. What is missing
    (transformers, or the files) is a ModuleNotFoundError or FileNotFoundError, a folder that is not asked for a ValueError.
    """
    import open_clip
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer

    text = config["text_cfg"]
    repository = text.get("hf_tokenizer_name")
    if not repository:
        if folder is not None:
            raise ValueError(f"tokenizer={folder!r} does not fit backbone={backbone!r}, whose tokenizer is part of open_clip")
        return open_clip.get_tokenizer(backbone)
    path = None if folder is None else Path(folder).expanduser()
    if path is not None and not path.is_dir():
        raise FileNotFoundError(f"tokenizer={folder!r}: there is no such folder")
    try:
        if path is None:
            with network_timeout():
                return open_clip.get_tokenizer(backbone)
        mode = {"tokenizer_mode": text["tokenizer_mode"]} if text.get("tokenizer_mode") else {}  # unknown to older open_clip
        arguments = text.get("tokenizer_kwargs", {}) | mode
        return HFTokenizer(str(path), context_length=text.get("context_length", DEFAULT_CONTEXT_LENGTH), **arguments)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"the tokenizer of {backbone} needs the package transformers ({error}): pip install 'anomalib-dpclip[transformers]'"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        cause = str(error).partition("\n")[0]
        if folder is not None:
            raise ValueError(f"tokenizer={folder!r} holds no tokenizer that can be read: {cause}") from error
        raise FileNotFoundError(
            f"the tokenizer of {backbone} is not on this machine and could not be downloaded ({cause}). Fetch the folder "
            f"{repository} from Hugging Face elsewhere and pass it: --model.clip.tokenizer /path/to/folder"
        ) from error
