"""Small backbones of each family that open_clip knows: real architectures, 4 layers of width 48, random weights."""

import json
from functools import partial

import open_clip
import timm
import torch

from tests.tiny_clip import CONFIG

TEXT = {"context_length": 32, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
SIGLIP_TEXT = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}

OWN = CONFIG["vision_cfg"] | {"patch_size": 16, "image_size": 80}
VISION = {
    # open_clip's own: pooled by class token, and by the average of the patches with the norm after it (CLIPA)
    "clip": OWN,
    "clipa": OWN | {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
    # timm's
    "sig": {"timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "timm_proj": "none"},
    "pe": {"timm_model_name": "vit_pe_core_base_patch16_224", "timm_pool": "map", "timm_proj": None},
    "eva": {"timm_model_name": "eva02_base_patch16_clip_224", "timm_pool": "token", "timm_proj": None},
    "gap": {"timm_model_name": "vit_medium_patch16_gap_256", "timm_pool": "", "timm_proj": "linear"},
    "mobile": {"timm_model_name": "vit_large_patch14_clip_224", "timm_pool": "token", "timm_proj": None},
    "stem": {"timm_model_name": "vit_base_mci_224", "timm_pool": "token", "timm_proj": None},
}
TIMM = tuple(name for name, vision in VISION.items() if "timm_model_name" in vision)


def register(folder, monkeypatch):
    """Make the backbones known to open_clip as ``dpclip-test-...``, and timm's models small."""
    for name, vision in VISION.items():
        config = {"embed_dim": 24, "vision_cfg": {"image_size": 80} | vision, "text_cfg": TEXT}
        if name in TIMM:
            config["custom_text"] = True
        if name == "sig":
            # The pooled tokens are the image feature: the joint space has their width.
            config |= {"embed_dim": 48, "text_cfg": TEXT | SIGLIP_TEXT, "init_logit_bias": -10}
        path = folder / f"dpclip-test-{name}.json"
        path.write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    monkeypatch.setattr("timm.create_model", partial(_small, timm.create_model))


def _small(create, name, **arguments):
    size = {"img_size": 80, "depth": 4}
    if name != "vit_base_mci_224":  # whose width follows from its stem
        size |= {"embed_dim": 48, "num_heads": 3, "patch_size": 16}
    return create(name, **size | arguments)


def tiny_backbone(name, image_size=None, seed=0):
    """Model and text tower with random weights, none of them at a value that hides what it does (0, or 1 in a norm)."""
    from anomalib_dpclip.clip.loading import load_clip

    clip, text = load_clip(f"dpclip-test-{name}", "random", image_size or 80)
    stir(clip, seed)
    return clip, text


@torch.no_grad()
def stir(clip, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in clip.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
