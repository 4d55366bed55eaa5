"""A CLIP of open_clip's architecture that is built in milliseconds: 4 layers of width 16, 6 x 6 patches of 4 pixels."""

import torch

CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 24, "patch_size": 4, "width": 16, "head_width": 8, "layers": 4},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


def tiny_clip(seed=0, *, quick_gelu=False, **vision):
    """Randomly initialised; `vision` replaces parts of the vision tower's configuration."""
    from open_clip.model import CLIP

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | vision}
        return CLIP(**config, quick_gelu=quick_gelu).eval()


def tiny_model(seed=0, clip=None, **arguments):
    """DP-CLIP on a tiny CLIP, its adapters and anchors random."""
    from anomalib_dpclip.method.torch_model import DPCLIPModel

    clip = tiny_clip() if clip is None else clip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DPCLIPModel(clip, **arguments)
        model.anchors.copy_(torch.nn.functional.normalize(torch.randn(8, 2), dim=0))
        for name, parameter in model.named_parameters():
            if "grn" in name:
                torch.nn.init.normal_(parameter)
    return model.eval()
