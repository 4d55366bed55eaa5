"""What a memory of good images is made with: synthetic defects, and fewer tokens."""

import pytest
import torch
from tests.tiny_scorers import soft_images, tiny_comparison, tiny_fit

from anomalib_dpclip.scorers.memory_fit import DEFECTS, damage, thinned


def test_synthetic_defects_change_what_their_masks_show_alone():
    images = soft_images(3)
    damaged, masks = damage(images, seed=5)
    assert (damaged.shape, damaged.dtype) == ((DEFECTS * 3, 3, 24, 24), torch.uint8)
    assert masks.any(dim=(1, 2)).all()
    untouched = ~masks[3:].unsqueeze(1).expand_as(images)
    assert torch.equal(damaged[3:][untouched], images[untouched])
    assert torch.equal(damage(images, seed=5)[0], damaged)
    assert not torch.equal(damage(images, seed=6)[0], damaged)


def test_thinned_tokens_are_some_of_them():
    tokens = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    chosen = thinned(tokens, 20, seed=1)
    assert chosen.shape == (20, 8)
    assert (chosen[:, None] == tokens).all(-1).any(1).all()
    assert torch.equal(thinned(tokens, 20, seed=1), chosen)
    assert thinned(tokens, 300, seed=1) is tokens


@pytest.mark.parametrize("count", [1, 4])
@torch.no_grad()
def test_scores_are_kept_of_good_images_by_the_others_and_of_damaged_ones(count):
    scores = tiny_fit(tiny_comparison()).fit(soft_images(count), 0).state.scores
    good, damaged = (scores[scores[:, 3] == label] for label in (0, 1))
    assert len(good) == count
    assert 0 < len(damaged) <= DEFECTS * count
    assert damaged[:, 1].mean() > good[:, 1].mean()
    assert (scores[:, 0] <= scores[:, 1]).all()


@torch.no_grad()
def test_a_fit_is_repeatable_and_leaves_the_global_random_state_alone():
    before, maker = torch.get_rng_state(), tiny_fit(tiny_comparison(), limit=20)
    first, second = (maker.fit(soft_images(3), 1).state.state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
