import shutil
import subprocess
from pathlib import Path

from anomalib_dpclip.files import measured_by


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
