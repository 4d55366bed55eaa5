"""Pre-training of the mini CLIP on captions of procedural surfaces: `python -m scripts.pretrain_mini mini_clip.safetensors`.

The split is honest: the four target materials are seen undamaged only, and no mask of any material is ever seen.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jsonargparse import auto_cli
from numpy.typing import NDArray
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm, trange

from anomalib_dpclip.clip.mini_clip import MINI_IMAGE_SIZE, VOCABULARY, MiniTokenizer, build_mini_clip
from anomalib_dpclip.data.surfaces.data_module import AUXILIARY_MATERIALS, TARGET_MATERIALS
from anomalib_dpclip.data.surfaces.defects import DEFECTS, damage_surface
from anomalib_dpclip.data.surfaces.textures import COLORS, MATERIALS, render_surface
from anomalib_dpclip.files.atomic_write import atomic_write
from anomalib_dpclip.files.seeded import seeded
from anomalib_dpclip.method.prompting import ABNORMAL_STATES, NORMAL_STATES, TEMPLATES

if TYPE_CHECKING:
    from open_clip import CLIP

DEFECT_SIZE = 48.0
TARGET_SHARE = 0.2
_COLOR_NAMES = tuple(COLORS)
_GENERIC_NAMES = ("object", "surface", "texture")
_UNSAID = -1


class Scene(NamedTuple):
    """What an image shows, or what a caption says; `_UNSAID` where the caption leaves it open."""

    material: int
    color: int
    damaged: int
    defect: int


def draw_scenes(count: int, rng: np.random.Generator) -> list[Scene]:
    """Choose what the images show: half of the auxiliary materials' surfaces damaged, none of the target materials'."""
    scenes = []
    for _ in range(count):
        is_target = rng.random() < TARGET_SHARE
        material = rng.choice(TARGET_MATERIALS if is_target else AUXILIARY_MATERIALS)
        damaged = 0 if is_target else int(rng.integers(2))
        defect = int(rng.integers(len(DEFECTS))) if damaged else _UNSAID
        scenes.append(Scene(MATERIALS.index(material), int(rng.integers(len(COLORS))), damaged, defect))
    return scenes


def render_image(scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Render a scene as an RGB image, (H, W, 3)."""
    image = render_surface(MATERIALS[scene.material], _COLOR_NAMES[scene.color], MINI_IMAGE_SIZE, rng)
    if scene.damaged:
        image, _ = damage_surface(image, DEFECTS[scene.defect], DEFECT_SIZE, rng)
    return (image * 255).round().astype(np.uint8)


def draw_caption(scene: Scene, rng: np.random.Generator) -> tuple[str, str, Scene]:
    """Describe a scene in the method's prompts, leaving out material, colour or kind of defect at random.

    Returns:
        The caption, the same sentence with the other state (normal for damaged and the reverse), and what the caption
        says.
    """
    says_material, says_color, says_defect = rng.random(3) < (0.75, 0.5, 0.4 * scene.damaged)
    name = MATERIALS[scene.material] if says_material else str(rng.choice(_GENERIC_NAMES))
    if says_color:
        name = f"{_COLOR_NAMES[scene.color]} {name}"
    abnormal_state = f"a {{}} with {DEFECTS[scene.defect]}" if says_defect else str(rng.choice(ABNORMAL_STATES))
    template = str(rng.choice(TEMPLATES))
    captions = [template.format(state.format(name)) for state in (str(rng.choice(NORMAL_STATES)), abnormal_state)]
    said = Scene(
        scene.material if says_material else _UNSAID,
        scene.color if says_color else _UNSAID,
        scene.damaged,
        scene.defect if says_defect else _UNSAID,
    )
    return captions[scene.damaged], captions[1 - scene.damaged], said


def contrastive_loss(logits: Tensor, scenes: Tensor, said: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy with soft targets: a caption belongs to every image that it is true of.

    Args:
        logits: Scaled similarities of images and captions, (N, N).
        scenes: What each image shows, (N, 4).
        said: What each caption says, (N, 4).

    Returns:
        The loss, a scalar.
    """
    is_true = ((scenes[:, None] == said[None]) | (said[None] == _UNSAID)).all(dim=-1).float()
    of_image = functional.cross_entropy(logits, is_true / is_true.sum(dim=1, keepdim=True))
    of_caption = functional.cross_entropy(logits.T, (is_true / is_true.sum(dim=0)).T)
    return (of_image + of_caption) / 2


def state_loss(image_features: Tensor, own: Tensor, opposite: Tensor, scale: Tensor, is_auxiliary: Tensor) -> Tensor:
    """Cross-entropy between an image's caption and the same sentence with the other state.

    Target materials are left out: always undamaged, they would teach that their name alone means normal.

    Args:
        image_features: Unit image features, (N, E).
        own: Unit features of the images' captions, (N, E).
        opposite: Unit features of the opposite captions, (N, E).
        scale: CLIP's logit scale.
        is_auxiliary: Which images show an auxiliary material, (N,).

    Returns:
        The loss, a scalar; 0 for a batch without auxiliary materials.
    """
    margin = scale * (image_features * (own - opposite)).sum(dim=-1)
    loss = functional.softplus(-margin) * is_auxiliary
    return loss.sum() / is_auxiliary.sum().clamp(min=1)


def pretrain_mini(
    output: Path,
    steps: int = 400,
    images: int = 8000,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> None:
    """Pre-train the mini CLIP and write its weights.

    Args:
        output: File to write, ``.safetensors``.
        steps: Optimiser steps.
        images: Number of surfaces to render and learn from.
        batch_size: Images a step.
        learning_rate: Peak of the one-cycle schedule.
        seed: Seed of rendering, initialisation and order.

    Raises:
        ValueError: If ``output`` is no ``.safetensors`` file or a number is not positive.
    """
    if output.suffix != ".safetensors":
        raise ValueError(f"output must end in .safetensors, not {output.name!r}")
    if min(steps, images, batch_size) <= 0:
        raise ValueError(f"steps, images and batch_size must be positive: {steps}, {images}, {batch_size}")

    # The data set's streams are seeded with the places of its materials; this one is another, so no image is in both.
    rng = np.random.default_rng([seed, len(MATERIALS)])
    scenes = draw_scenes(images, rng)
    pixels = torch.empty(images, 3, MINI_IMAGE_SIZE, MINI_IMAGE_SIZE, dtype=torch.uint8)
    for image, scene in zip(pixels, tqdm(scenes, desc="rendering", unit="image"), strict=True):
        image.copy_(torch.from_numpy(render_image(scene, rng)).permute(2, 0, 1))
    with seeded(seed):
        clip = build_mini_clip().train()
    optimizer = torch.optim.AdamW(clip.parameters(), lr=learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    progress = trange(steps, desc="pre-training", unit="step")
    for _ in progress:
        chosen = rng.choice(images, batch_size, replace=images < batch_size)
        contrastive, state = _losses(clip, pixels[torch.from_numpy(chosen)], [scenes[index] for index in chosen], rng)
        optimizer.zero_grad()
        (contrastive + state).backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(contrastive=f"{contrastive.item():.3f}", state=f"{state.item():.3f}", refresh=False)

    arguments = {"steps": steps, "images": images, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    _save(clip, output, arguments)


def _losses(clip: "CLIP", pixels: Tensor, scenes: list[Scene], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Contrastive and state loss of a batch (N, 3, H, W) of 8-bit images, rotated and mirrored at random, and their scenes."""
    own, opposite, said = zip(*(draw_caption(scene, rng) for scene in scenes), strict=True)
    mean, std = (255 * torch.tensor(value).view(3, 1, 1) for value in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    batch = torch.rot90((pixels - mean) / std, int(rng.integers(4)), (2, 3))
    batch = batch.flip(3) if rng.integers(2) else batch
    with torch.autocast("cpu", torch.bfloat16):
        image_features = clip.encode_image(batch)
        text_features = clip.encode_text(MiniTokenizer()([*own, *opposite]))
    image_features = functional.normalize(image_features.float(), dim=-1)
    own_features, opposite_features = functional.normalize(text_features.float(), dim=-1).chunk(2)
    scale = clip.logit_scale.exp().clamp(max=100)
    is_auxiliary = torch.tensor([MATERIALS[scene.material] in AUXILIARY_MATERIALS for scene in scenes])
    return (
        contrastive_loss(scale * image_features @ own_features.T, torch.tensor(scenes), torch.tensor(said)),
        state_loss(image_features, own_features, opposite_features, scale, is_auxiliary),
    )


def _save(clip: nn.Module, output: Path, arguments: dict[str, float]) -> None:
    """Write half-precision weights, and in their header what made them."""
    from safetensors.torch import save

    header = {
        **arguments,
        "seen damaged": list(AUXILIARY_MATERIALS),
        "seen undamaged only": list(TARGET_MATERIALS),
        "masks seen": "none",
        "vocabulary": list(VOCABULARY),
        "versions": {name: version(name) for name in ("anomalib-dpclip", "torch", "open_clip_torch", "numpy")},
    }
    weights = {name: weight.half().contiguous() for name, weight in clip.state_dict().items()}
    with atomic_write(output) as unfinished:
        # One entry: safetensors writes several in any order, and the same run should give the same bytes.
        unfinished.write_bytes(save(weights, {"pretraining": json.dumps(header)}))


if __name__ == "__main__":
    auto_cli(pretrain_mini, as_positional=True)
