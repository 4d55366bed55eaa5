import pytest
import torch

from anomalib_dpclip.files.seeded import seeded


def test_draws_follow_the_seed_and_the_generator_goes_on_as_before():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with seeded(7):
        found = torch.rand(4)
    assert torch.equal(found, torch.rand(4, generator=torch.Generator().manual_seed(7)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("are_in_use", "inside"), [(True, [7, 7]), (False, [1, 2])])
def test_gpus_in_use_alone_are_seeded_and_restored(monkeypatch, are_in_use, inside):
    """Stand-ins of two GPUs. `torch.manual_seed` would seed those that nobody uses, as soon as they are used."""
    states = [torch.tensor([1]), torch.tensor([2])]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: are_in_use)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda index: states[index].clone())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, index: states[index].copy_(state))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: [state.fill_(seed) for state in states])
    with seeded(7):
        assert torch.cat(states).tolist() == inside
    assert torch.cat(states).tolist() == [1, 2]
