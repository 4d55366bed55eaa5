"""What corrections explain: what looks like them as a whole, in their place, and nothing else."""

import pytest
import torch

from anomalib_dpclip.method.corrections import ALIKE, CORE, LEAST, Corrections, Nuisance, core

GRID = (5, 5)
STANDING, THRESHOLDS = torch.tensor([0.2, 0.8]), torch.tensor([0.5, 0.1])
LABEL = [11, 12]
"""Places of a label: the second and third token of the third row."""


def blamed(*places, share=1.0):
    return torch.zeros(1, 25).index_fill(1, torch.tensor(places), share)


def images(count=2, seed=0):
    """Centred tokens ``(B, T, L, C)``, what they lack, and distances to a memory: everything is normal."""
    generator = torch.Generator().manual_seed(seed)
    tokens = 0.1 * torch.randn(count, 3, 25, 8, generator=generator)
    return tokens, torch.zeros(count, 3, 8), torch.full((count, 25), 0.1)


def put(image, index, places, look, distance=1.0):
    """Put something of a look into one of the images."""
    tokens, _, distances = image
    tokens[index, :, places] = look
    distances[index, places] = distance
    return image


def direction(axis):
    return torch.eye(8)[axis]


def labels(*looks, places=LABEL, shift=0.05):
    """Corrections of photos that have labels of these looks, the same in each view but for a little."""
    parts = [
        Corrections(
            blamed(*places),
            torch.full((1, 25), 0.1).index_fill(1, torch.tensor(places), 1.0),
            torch.stack([(look + view * shift * direction(7)).expand(3, 8) for view in range(2)])[None],
            STANDING,
            THRESHOLDS,
            GRID,
        )
        for look in looks
    ]
    return parts[0] if len(parts) == 1 else parts[0].joined(parts[1])


def rows_of(explained):
    return explained.flatten(1).nonzero()[:, 1].tolist()


def test_what_comes_again_is_explained_with_those_beside_it():
    known = labels(direction(0), direction(0) + 0.3 * direction(1))
    explained = known(*put(images(), 0, LABEL, direction(0)))
    expected = torch.zeros(2, 5, 5, dtype=torch.bool)
    expected[0, 1:4, 0:4] = True
    assert torch.equal(explained, expected)


@pytest.mark.parametrize(
    ("places", "look", "distance"),
    [
        ([1, 2], direction(0), 1.0),  # elsewhere
        (LABEL, direction(5), 1.0),  # of another look
        (LABEL, direction(0), 0.1),  # as the good photos are
        ([11], direction(0), 1.0),  # a part of it
        ([12, 13], direction(0), 1.0),
    ],
)
def test_what_is_not_the_same_is_not_explained(places, look, distance):
    known = labels(direction(0), direction(0) + 0.3 * direction(1))
    assert not known(*put(images(), 0, places, look, distance)).any()


def test_what_belongs_to_the_image_as_a_whole_counts_in_its_look():
    known = labels(direction(0))
    tokens, _, distance = put(images(), 0, LABEL, direction(0) - direction(6))
    assert not known(tokens, torch.zeros(2, 3, 8), distance).any()
    assert known(tokens, direction(6).expand(2, 3, 8), distance)[0].any()


def test_it_reaches_as_far_as_corrections_are_from_one_another():
    apart = 0.4
    known = labels(direction(0), direction(0) + apart * direction(1), shift=0.0)
    for factor, expected in ((ALIKE - 0.02, True), (ALIKE + 0.02, False)):
        look = direction(0) - factor * apart * direction(2)
        assert known(*put(images(), 0, LABEL, look))[0].any() == expected


def test_it_is_as_unlike_the_good_photos_as_corrections_were():
    known = labels(direction(0))
    for distance, expected in ((LEAST + 0.01, True), (LEAST - 0.01, False)):
        assert known(*put(images(), 0, LABEL, direction(0), distance))[0].any() == expected


def test_places_are_those_of_most_views():
    blame = torch.stack([blamed(1, 2, 3)[0], blamed(2, 3)[0], blamed(3, 4)[0]])
    assert core(blame).nonzero().flatten().tolist() == [2, 3]
    assert CORE < 2 / 3
    assert core(blamed(7, share=0.2)).nonzero().flatten().tolist() == [7]  # the most there is


def test_two_nuisances_are_two():
    known = labels(direction(0)).joined(labels(direction(3), places=[24]))
    assert [nuisance.core.tolist() for nuisance in known.nuisances] == [LABEL, [24]]
    explained = known(*put(put(images(), 0, LABEL, direction(0)), 1, [24], direction(3)))
    assert rows_of(explained[:1]) == [5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18]
    assert rows_of(explained[1:]) == [18, 19, 23, 24]


def test_it_is_whole_again_from_its_own_state():
    known = labels(direction(0), direction(0) + 0.3 * direction(1)).joined(labels(direction(3), places=[24]))
    state = known.state_dict()
    assert set(state) == {"blame", "distance", "looks", "standing", "thresholds"}
    again = Corrections(*(state[name] for name in ("blame", "distance", "looks", "standing", "thresholds")), GRID)
    again.load_state_dict(state)
    image = put(images(), 0, LABEL, direction(0))
    assert torch.equal(again(*image), known(*image))


def test_the_class_token_has_seen_what_is_explained():
    scores = labels(direction(0)).without_explained(torch.tensor([0.7, 0.3]), torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(scores, torch.tensor([0.5, 0.3]))  # 0.2 and 0.8 stand for peaks of 0 and 1


def test_one_photo_reaches_as_far_as_its_own_views():
    looks = torch.stack([direction(0), direction(0) + 0.2 * direction(1)])[None, :, None].expand(1, 2, 3, 8)
    nuisance = Nuisance(blamed(*LABEL), torch.ones(1, 25), looks, GRID)
    assert nuisance.reach.item() == pytest.approx(ALIKE * 0.2)
