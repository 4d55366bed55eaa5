import math
import re

import numpy as np
import pytest
import torch
from scripts.pretrain_mini import contrastive_loss, draw_caption, draw_scenes, pretrain_mini, state_loss

from anomalib_dpclip.data.surfaces.data_module import TARGET_MATERIALS
from anomalib_dpclip.data.surfaces.defects import DEFECTS
from anomalib_dpclip.data.surfaces.textures import COLORS, MATERIALS


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
    loss = state_loss(image, own, opposite, torch.tensor(10.0), is_auxiliary)
    expected = (math.log(1 + math.exp(-10)) + math.log(1 + math.exp(-2))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert state_loss(image, own, opposite, torch.tensor(10.0), ~is_auxiliary & False).item() == 0


def test_bad_arguments_are_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match=r"\.safetensors, not 'w\.bin'"):
        pretrain_mini(tmp_path / "w.bin")
    with pytest.raises(ValueError, match="positive: 0"):
        pretrain_mini(tmp_path / "w.safetensors", steps=0)
