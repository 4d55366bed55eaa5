"""What corrections explain: tokens like theirs, in their place, and no others."""

import torch

from anomalib_dpclip.method.corrections import NEARER, Corrections

GRID = (5, 5)


def some(generator_seed=0, length=25):
    generator = torch.Generator().manual_seed(generator_seed)
    return torch.randn(2, 3, length, 8, generator=generator)  # B, T, L, C


def corrections():
    """Tokens 12 (twice) and 24 of two photos."""
    tokens = some()
    seen = torch.stack([tokens[0, :, 12], tokens[1, :, 12], tokens[0, :, 24]], dim=1)
    return tokens, Corrections(torch.tensor([12, 12, 24]), seen, 2)


def test_places_have_as_many_tokens_as_were_seen_there():
    tokens, found = corrections()
    assert found.places.tolist() == [12, 24]
    assert found.seen.tolist() == [[True, True], [True, False]]
    torch.testing.assert_close(found.tokens[:, 0, 1], tokens[1, :, 12].half())


def test_the_same_tokens_are_explained_and_their_neighbours():
    tokens, found = corrections()
    explained = found(tokens, torch.ones(2, 25), GRID)
    expected = torch.zeros(2, 5, 5, dtype=torch.bool)
    expected[:, 1:4, 1:4] = True
    expected[0, 3:, 3:] = True  # the second image has another token there
    assert torch.equal(explained, expected)


def test_the_same_look_elsewhere_is_not_explained():
    tokens, found = corrections()
    moved = some(1)
    moved[0, :, 0] = tokens[0, :, 12]
    assert not found(moved, torch.ones(2, 25), GRID).any()


def test_nearer_than_the_memory_is_what_counts():
    tokens, found = corrections()
    other = tokens.clone()
    other[:, :, 12, 0] += 1.0  # at this distance from them at each tap
    just, not_quite = 1 / NEARER + 0.01, 1 / NEARER - 0.01
    for distance, expected in ((just, True), (not_quite, False)):
        assert bool(found(other, torch.full((2, 25), distance), GRID)[1, 2, 2]) == expected


def test_joined_with_others():
    tokens, found = corrections()
    both = found.joined(Corrections(torch.tensor([3, 24]), torch.stack([tokens[1, :, 3], tokens[1, :, 24]], dim=1), 1))
    assert both.places.tolist() == [3, 12, 24]
    assert both.seen.sum(1).tolist() == [1, 2, 2]
    assert int(both.photos) == 3
    torch.testing.assert_close(both.tokens[:, 2, 1], tokens[1, :, 24].half())
