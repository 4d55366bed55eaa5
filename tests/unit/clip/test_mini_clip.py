import json
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scripts import pretrain_mini as pretraining
from scripts.pretrain_mini import Scene, contrastive_loss, draw_caption, draw_image, draw_scenes, pretrain_mini
from torchmetrics.functional.classification import binary_auroc

from anomalib_dpclip.clip import mini_clip
from anomalib_dpclip.clip.mini_clip import CONTEXT_LENGTH, UNKNOWN_WORDS_NAMED, VOCABULARY, MiniTokenizer, load_mini_clip
from anomalib_dpclip.data.surfaces.data_module import TARGET_MATERIALS
from anomalib_dpclip.data.surfaces.defects import DEFECTS
from anomalib_dpclip.data.surfaces.textures import COLORS, MATERIALS
from anomalib_dpclip.method.prompting import ABNORMAL_STATES, NORMAL_STATES, prompts, text_anchors

WEIGHTS = Path(mini_clip.__file__).parent / "mini" / "mini_clip.safetensors"


@pytest.fixture(scope="module")
def clip():
    return load_mini_clip()


def normalised(images):
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    return (pixels - torch.tensor(OPENAI_DATASET_MEAN).view(3, 1, 1)) / torch.tensor(OPENAI_DATASET_STD).view(3, 1, 1)


def metadata(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["pretraining"])


# Tokenizer


def test_tokens_are_start_words_end_and_padding():
    tokens = MiniTokenizer()(["A photo of a damaged Brick.", "dots"])
    assert tokens.shape == (2, CONTEXT_LENGTH)
    assert tokens.dtype == torch.long
    words = [[VOCABULARY[token] for token in row] for row in tokens]
    assert words[0][:8] == ["<start>", "a", "photo", "of", "a", "damaged", "brick", "<end>"]
    assert words[1][:3] == ["<start>", "dots", "<end>"]
    assert set(words[0][8:]) == set(words[1][3:]) == {"<pad>"}
    # CLIP reads a sentence out at its highest token id.
    assert tokens.argmax(dim=1).tolist() == [7, 2]


def test_a_long_sentence_keeps_its_end():
    tokens = MiniTokenizer()("brick " * 100)
    assert tokens.shape == (1, CONTEXT_LENGTH)
    assert VOCABULARY[tokens[0, -1]] == "<end>"


def test_an_unknown_word_warns_once_and_counts_as_object():
    with pytest.warns(UserWarning, match="'zeppelin'") as caught:
        unknown = MiniTokenizer()(["a zeppelin", "the broken zeppelin"])
    assert len(caught) == 1
    assert torch.equal(unknown, MiniTokenizer()(["a object", "the broken object"]))


def test_unknown_words_are_named_once_and_not_without_end():
    tokenizer = MiniTokenizer()
    with pytest.warns(UserWarning, match="zeppelin"):
        tokenizer(["a zeppelin"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tokenizer(["a zeppelin"])
        for request in range(10):
            tokenizer([" ".join(f"word{request}x{number}{'y' * 1000}" for number in range(100))])
    assert len(caught) == UNKNOWN_WORDS_NAMED - 1
    assert all(len(str(each.message)) < 200 for each in caught)
    assert "further unknown words are not named" in str(caught[-1].message)


def test_the_words_of_the_method_and_of_surfaces_are_known():
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    names = [*MATERIALS, *COLORS, *DEFECTS, "object", "surface", "texture"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokens = MiniTokenizer()([p for name in names for p in prompts(name, [*NORMAL_STATES, *ABNORMAL_STATES])])
    assert len(tokens.unique(dim=0)) == len(tokens)


# Weights


def test_the_packaged_weights_are_small_and_say_what_they_saw(clip):
    assert WEIGHTS.stat().st_size < 8e6
    assert {parameter.dtype for parameter in clip.parameters()} == {torch.float32}
    assert not clip.training
    header = metadata(WEIGHTS)
    assert tuple(header["vocabulary"]) == VOCABULARY
    assert header["masks seen"] == "none"
    assert set(header["seen damaged"]).isdisjoint(TARGET_MATERIALS)
    assert {"steps", "images", "batch_size", "learning_rate", "seed", "versions"} <= header.keys()


@torch.no_grad()
def test_the_packaged_weights_tell_damage_and_color_of_unseen_images(clip):
    rng = np.random.default_rng(123)
    colors = tuple(COLORS)
    labels, scores, color_is_right = [], [], []
    tokenizer = MiniTokenizer()
    for material in TARGET_MATERIALS:
        index = MATERIALS.index(material)
        scenes = [Scene(index, i % len(colors), int(i >= 10), i % len(DEFECTS)) for i in range(20)]
        features = clip.encode_image(normalised([draw_image(scene, rng) for scene in scenes]), normalize=True)
        anchors = text_anchors(lambda sentences: clip.encode_text(tokenizer(sentences)), material)
        scores.append(features @ (anchors[:, 1] - anchors[:, 0]))
        labels.append(torch.tensor([scene.damaged for scene in scenes]))
        captions = tokenizer([f"a photo of a {color} {material}." for color in colors])
        similarity = features[:10] @ clip.encode_text(captions, normalize=True).T
        color_is_right += (similarity.argmax(dim=1) == torch.arange(10)).tolist()
    aurocs = [binary_auroc(s, y).item() for s, y in zip(scores, labels, strict=True)]
    assert np.mean(aurocs) > 0.9
    assert np.mean(color_is_right) > 0.8


def test_weights_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors.*pretrain_mini"):
        load_mini_clip(tmp_path / "absent.safetensors")
    (tmp_path / "short.safetensors").write_bytes(WEIGHTS.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"short\.safetensors.*cut short"):
        load_mini_clip(tmp_path / "short.safetensors")
    save_file({"visual.proj": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors holds weights of another model"):
        load_mini_clip(tmp_path / "other.safetensors")


# Pre-training


def test_no_target_material_is_ever_damaged():
    scenes = draw_scenes(2000, np.random.default_rng(0))
    damaged = {MATERIALS[scene.material] for scene in scenes if scene.damaged}
    undamaged = {MATERIALS[scene.material] for scene in scenes if not scene.damaged}
    assert len(damaged) == 6
    assert damaged.isdisjoint(TARGET_MATERIALS)
    assert undamaged == set(MATERIALS)


def test_captions_are_true_and_their_opposites_differ_in_the_state_alone():
    rng = np.random.default_rng(0)
    damage_words = {"damaged", "broken", "flaw", "defect", "damage", *DEFECTS}
    for scene in draw_scenes(300, rng):
        caption, opposite, said = draw_caption(scene, rng)
        words, opposite_words = (set(re.findall(r"\w+", text)) for text in (caption, opposite))
        assert bool(words & damage_words) == scene.damaged == said.damaged
        assert bool(opposite_words & damage_words) != scene.damaged
        # What is said is what the sentence says, and it is what the image shows.
        for position, names in ((0, MATERIALS), (1, tuple(COLORS)), (3, DEFECTS)):
            named = {name for name in names if name in caption}
            assert named == (set() if said[position] == -1 else {names[scene[position]]})
        named_by_opposite = {name for name in (*MATERIALS, *COLORS) if name in opposite}
        assert named_by_opposite == {name for name in (*MATERIALS, *COLORS) if name in caption}


def test_a_caption_belongs_to_every_image_it_is_true_of():
    # Two red bricks; the first caption says "red brick", the second "a brick with a crack".
    scenes = torch.tensor([[9, 0, 0, -1], [9, 0, 1, 3]])
    said = torch.tensor([[9, 0, -1, -1], [9, -1, 1, 3]])
    logits = torch.tensor([[1.0, 2.0], [0.5, 3.0]])

    def surprise(chosen, other):
        return math.log(1 + math.exp(other - chosen))

    # True of the first image: the first caption. True of the second: both, half each. And the same by column.
    of_image = (surprise(1, 2) + (surprise(0.5, 3) + surprise(3, 0.5)) / 2) / 2
    of_caption = ((surprise(1, 0.5) + surprise(0.5, 1)) / 2 + surprise(3, 2)) / 2
    expected = (of_image + of_caption) / 2
    assert contrastive_loss(logits, scenes, said).item() == pytest.approx(expected, rel=1e-6)


def test_the_state_is_learned_from_auxiliary_materials_alone():
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    own = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    opposite = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    is_auxiliary = torch.tensor([True, False, True])
    loss = pretraining.state_loss(image, own, opposite, torch.tensor(10.0), is_auxiliary)
    expected = (math.log(1 + math.exp(-10)) + math.log(1 + math.exp(-2))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert pretraining.state_loss(image, own, opposite, torch.tensor(10.0), ~is_auxiliary & False).item() == 0


def test_pretraining_can_be_repeated_and_its_file_loads(tmp_path):
    state = torch.get_rng_state()
    for name in ("a", "b"):
        pretrain_mini(tmp_path / name / "w.safetensors", steps=2, images=6, batch_size=4, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert (tmp_path / "a/w.safetensors").read_bytes() == (tmp_path / "b/w.safetensors").read_bytes()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["w.safetensors"]
    clip = load_mini_clip(tmp_path / "a/w.safetensors")
    stored = load_file(tmp_path / "a/w.safetensors")["visual.proj"]
    assert stored.dtype == torch.float16
    assert torch.equal(clip.visual.proj.half(), stored)
    assert metadata(tmp_path / "a/w.safetensors")["steps"] == 2


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    output = tmp_path / "w.safetensors"
    output.write_bytes(b"old")

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="disk full"):
        pretrain_mini(output, steps=1, images=2, batch_size=2)
    assert output.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_bad_arguments_are_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match=r"\.safetensors, not 'w\.bin'"):
        pretrain_mini(tmp_path / "w.bin")
    with pytest.raises(ValueError, match="positive: 0"):
        pretrain_mini(tmp_path / "w.safetensors", steps=0)
