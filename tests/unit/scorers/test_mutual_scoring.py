import numpy as np
import pytest
import torch
from anomalib_dpclip.scorers.mutual_scoring import choose_panel, mutual_distances, random_projection

from anomalib_dpclip.scorers.batch_scorer import mostly_anomalous


def brute_force(tokens: np.ndarray) -> np.ndarray:
    images, taps, length, _ = tokens.shape
    result = np.zeros((images, length))
    counted = max(1, round(0.3 * (images - 1)))
    for i in range(images):
        for t in range(taps):
            distances = np.linalg.norm(tokens[:, t, None, :, :] - tokens[None, i, t, :, None, :], axis=-1).min(-1)
            result[i] += np.sort(np.delete(distances, i, 0), 0)[:counted].mean(0) / taps
    return result


@pytest.mark.parametrize("images", [2, 5, 12])
def test_distances_are_those_of_brute_force(images):
    tokens = np.random.default_rng(0).normal(size=(images, 2, 6, 8))
    lot = torch.tensor(tokens).float()
    actual = mutual_distances(lot, lot, range(images))
    assert np.abs(actual.numpy() - brute_force(tokens)).max() < 1e-5


def test_a_defect_that_a_few_images_share_is_found():
    generator = torch.Generator().manual_seed(0)
    tokens = 0.1 * torch.randn(20, 1, 9, 8, generator=generator)
    tokens[:4, 0, 5] += 3
    distances = mutual_distances(tokens, tokens, range(20))
    assert distances[:4, 5].min() > 2 * distances[4:].max()


def test_an_image_outside_the_panel_is_judged_by_all_of_it():
    lot = torch.randn(9, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    inside, outside = lot[:8], lot[8:]
    judged = mutual_distances(outside, inside, [None])
    nearest = torch.cdist(outside, inside).amin(-1)  # (N, T, L)
    expected = nearest.sort(dim=0).values[: round(0.3 * 8)].mean((0, 1))
    torch.testing.assert_close(judged[0], expected, rtol=1e-4, atol=1e-5)


def test_the_panel_is_repeatable_and_bounded():
    panel = choose_panel(401, seed=1, size=200)
    assert len(set(panel)) == 200
    assert panel == sorted(panel) == choose_panel(401, seed=1, size=200)
    assert panel != choose_panel(401, seed=2, size=200)
    assert 150 < sum(panel) / 200 < 250, "from everywhere in the lot"
    assert choose_panel(3, seed=1) == [0, 1, 2]


def test_a_random_projection_keeps_distances():
    assert random_projection(128, 0) is None
    tokens = torch.randn(100, 1024, generator=torch.Generator().manual_seed(0))
    ratio = (tokens @ random_projection(1024, 0)).norm(dim=1) / tokens.norm(dim=1)
    assert ratio.mean() == pytest.approx(1, abs=0.02)
    assert ratio.std() < 0.1


def test_a_mostly_damaged_lot_is_noticed():
    normal, damaged = torch.linspace(0.1, 0.12, 30), torch.linspace(0.3, 0.33, 50)
    assert mostly_anomalous(torch.cat([normal, damaged]))
    assert not mostly_anomalous(torch.cat([normal, damaged[:20]]))
    assert not mostly_anomalous(torch.linspace(0, 1, 50).square())
    assert not mostly_anomalous(torch.ones(10))
