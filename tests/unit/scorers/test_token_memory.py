import numpy as np
import pytest
import torch
from anomalib_dpclip.scorers.evidence_fusion import MIN_MEMORY_WEIGHT, memory_weight
from anomalib_dpclip.scorers.token_memory import TokenMemory, centred_tokens, fuse, nearest_distance, tap_mean_distance

from anomalib_dpclip.method import memory


def brute_force(tokens: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.sqrt(((tokens[:, None] - known[None]) ** 2).sum(-1)).min(1)


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_distances_are_those_of_brute_force(monkeypatch, chunk):
    monkeypatch.setattr(memory, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    tokens, known = rng.normal(size=(50, 16)) / 4, rng.normal(size=(40, 16)) / 4
    tokens[:5] = known[:5] + 1e-6  # where the expanded square would cancel
    actual = nearest_distance(torch.tensor(tokens).float(), torch.tensor(known).float())
    assert np.abs(actual.numpy() - brute_force(tokens, known)).max() < 1e-5


def test_what_all_tokens_of_an_image_share_is_no_distance():
    tokens = torch.nn.functional.normalize(torch.randn(1, 9, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    centred, means = centred_tokens([tokens])
    torch.testing.assert_close(centred + means.unsqueeze(2), tokens[None].transpose(0, 1))
    assert centred.shape == (1, 1, 9, 8)
    assert centred.mean(2).abs().max() < 1e-6
    assert torch.allclose(centred[0, 0], tokens[0] - tokens[0].mean(0), atol=1e-6)


def test_taps_are_averaged_and_images_independent():
    generator = torch.Generator().manual_seed(1)
    tokens, known = torch.randn(3, 2, 5, 4, generator=generator), torch.randn(2, 11, 4, generator=generator)
    actual = tap_mean_distance(tokens, known)
    for image in range(3):
        by_tap = [brute_force(tokens[image, tap].numpy(), known[tap].numpy()) for tap in range(2)]
        assert np.allclose(actual[image].numpy(), np.mean(by_tap, 0), atol=1e-5)
        assert torch.equal(tap_mean_distance(tokens[image : image + 1], known)[0], actual[image])


def test_a_memory_is_stored_in_half_precision():
    stored = TokenMemory(torch.randn(2, 3, 4), share=0.25, photos=7)
    assert stored.tokens.dtype == torch.float16
    assert set(stored.state_dict()) == {"tokens", "share", "photos"}


def test_fusion_is_a_convex_combination_that_never_leaves_its_range():
    difference, distance = torch.tensor([-2.0, 0.0, 2.0]), torch.tensor([0.0, 2.0, 4.0])
    assert fuse(difference, distance, 0.3).tolist() == pytest.approx([-2, 0, 2])
    assert torch.equal(fuse(difference, distance, 0.0), difference)


def share_of(text_gap: float, memory_gap: float, memory_scale: float = 1.0) -> float:
    rng = torch.Generator().manual_seed(0)
    normal, anomalous = (torch.randn(4000, 2, generator=rng) for _ in range(2))
    anomalous += torch.tensor([text_gap, memory_gap])
    scale = torch.tensor([1.0, memory_scale])
    return memory_weight(normal * scale, anomalous * scale)


def test_evidence_that_tells_nothing_counts_nothing():
    assert share_of(-1, 2) == 1
    # Independent, equally wide: the discriminant's weights are the gaps.
    assert share_of(1, 49) == pytest.approx(0.98, abs=0.005)


def test_the_memory_never_counts_less_than_its_least_share():
    assert share_of(5, 1) == pytest.approx(MIN_MEMORY_WEIGHT, abs=0.02)
    assert memory_weight(torch.randn(100, 2), torch.empty(0, 2)) > 0


def test_the_share_follows_the_scales():
    share = share_of(1, 49, memory_scale=0.5)
    assert share / (1 - share) == pytest.approx(2 * 49, rel=0.2)
