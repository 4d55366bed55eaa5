import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from anomalib_dpclip.files import measured_by
from anomalib_dpclip.files.atomic_write import atomic_write
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


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "new" / "a.txt"

    def write(text, error=None):
        with atomic_write(path) as unfinished:
            unfinished.write_text(text)
            if error:
                raise error

    write("whole")
    with pytest.raises(OSError, match="no space left"):
        write("half", OSError("no space left on device"))
    assert [each.read_text() for each in path.parent.iterdir()] == ["whole"]


def git(folder, *arguments):
    names = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", "-C", folder, *names, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit_named_in(folder, monkeypatch):
    monkeypatch.setattr(measured_by, "__file__", str(folder / "measured_by.py"))
    return measured_by.measured_by("a command")["commit"]


def test_the_commit_of_a_checkout(tmp_path, monkeypatch):
    shutil.copy(Path(measured_by.__file__), tmp_path / "measured_by.py")
    git(tmp_path, "init")
    git(tmp_path, "add", "measured_by.py")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    assert commit_named_in(tmp_path, monkeypatch) == commit
    (tmp_path / "measured_by.py").write_text("changed")
    assert commit_named_in(tmp_path, monkeypatch) == f"{commit}-dirty"
    packages = tmp_path / ".venv" / "site-packages"
    packages.mkdir(parents=True)  # a wheel inside an unrelated repository
    shutil.copy(Path(measured_by.__file__), packages / "measured_by.py")
    assert commit_named_in(packages, monkeypatch) == "not a git checkout"
    assert commit_named_in(tmp_path / "nowhere", monkeypatch) == "not a git checkout"
