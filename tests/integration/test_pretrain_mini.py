"""Pre-training of the mini CLIP: it can be repeated, it writes whole files, and what came of it knows its surfaces."""

import json
import runpy
import sys

import numpy as np
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors import safe_open
from safetensors.torch import load_file
from scripts.pretrain_mini import Scene, pretrain_mini, render_image
from torchmetrics.functional.classification import binary_auroc

from anomalib_dpclip.clip.mini_clip import MiniTokenizer, load_mini_clip
from anomalib_dpclip.data.surfaces.data_module import TARGET_MATERIALS
from anomalib_dpclip.data.surfaces.defects import DEFECTS
from anomalib_dpclip.data.surfaces.textures import COLORS, MATERIALS
from anomalib_dpclip.method.prompting import text_anchors


def normalised(images):
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    return (pixels - torch.tensor(OPENAI_DATASET_MEAN).view(3, 1, 1)) / torch.tensor(OPENAI_DATASET_STD).view(3, 1, 1)


@torch.no_grad()
def test_the_packaged_weights_tell_damage_and_color_of_unseen_images():
    clip, rng = load_mini_clip(), np.random.default_rng(123)
    colors = tuple(COLORS)
    labels, scores, color_is_right = [], [], []
    tokenizer = MiniTokenizer()
    for material in TARGET_MATERIALS:
        index = MATERIALS.index(material)
        scenes = [Scene(index, i % len(colors), int(i >= 10), i % len(DEFECTS)) for i in range(20)]
        features = clip.encode_image(normalised([render_image(scene, rng) for scene in scenes]), normalize=True)
        anchors = text_anchors(lambda sentences: clip.encode_text(tokenizer(sentences)), material)
        scores.append(features @ (anchors[:, 1] - anchors[:, 0]))
        labels.append(torch.tensor([scene.damaged for scene in scenes]))
        captions = tokenizer([f"a photo of a {color} {material}." for color in colors])
        similarity = features[:10] @ clip.encode_text(captions, normalize=True).T
        color_is_right += (similarity.argmax(dim=1) == torch.arange(10)).tolist()
    aurocs = [binary_auroc(s, y).item() for s, y in zip(scores, labels, strict=True)]
    assert np.mean(aurocs) > 0.9
    assert np.mean(color_is_right) > 0.8


def test_pretraining_can_be_repeated_and_its_file_loads(tmp_path, monkeypatch):
    state, options = torch.get_rng_state(), {"steps": 2, "images": 6, "batch_size": 4, "seed": 5}
    pretrain_mini(tmp_path / "a" / "w.safetensors", **options)
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setattr(sys, "argv", ["pretrain_mini", str(tmp_path / "b" / "w.safetensors")])
    for name, value in options.items():
        sys.argv += [f"--{name}", str(value)]
    runpy.run_module("scripts.pretrain_mini", run_name="__main__")
    assert (tmp_path / "a/w.safetensors").read_bytes() == (tmp_path / "b/w.safetensors").read_bytes()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["w.safetensors"]
    clip = load_mini_clip(tmp_path / "a/w.safetensors")
    stored = load_file(tmp_path / "a/w.safetensors")["visual.proj"]
    assert stored.dtype == torch.float16
    assert torch.equal(clip.visual.proj.half(), stored)
    with safe_open(tmp_path / "a/w.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["pretraining"])["steps"] == 2
