"""The pages of `docs/`, whose commands are run as they are written."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from anomalib_dpclip.auxiliary.leakage import file_digest
from anomalib_dpclip.callbacks.checkpoint_io import holds_training_state
from anomalib_dpclip.callbacks.results_folder import EVALUATION
from tests.paths import CONFIGS, ROOT
from tests.preloaded import command_folder

README = ROOT / "README.md"
OWN_DATA = "Learning for your own data, in three commands"
PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(page: str, language: str, heading: str | None = None) -> str:
    """The code blocks in a language of a page in `docs/`, or of one of its sections, in their order."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    if heading:
        text = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = blocks_of(text, language)
    assert found, f"docs/{page}.md has no {language} in {heading or 'any section'}"
    return "\n".join(found)


def blocks_of(text: str, language: str) -> list[str]:
    """Each code block of a text that is marked as a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def readme_section(heading: str) -> str:
    """A section of the README, without its heading."""
    text = README.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert text, f"the README has no section {heading!r}"
    return text


def readme_commands() -> str:
    """The README's commands, but for those that make an environment, and those that are on the page on own data, too."""
    text = README.read_text(encoding="utf-8").replace(readme_section(OWN_DATA), "")
    return re.sub(r"^make .*\n", "", "\n".join(blocks_of(text, "bash")), flags=re.MULTILINE)


def own_data_commands() -> str:
    """Those of the page on own data, once photos are sorted and but for what needs a download; learning is cut short."""
    sections = ("List and check them", "Train and test", "Test again", "Predict", "Without any labelled set")
    commands = "\n".join(blocks("own-data", "bash", section) for section in sections)
    return commands.replace("--trainer.max_epochs 5", "--trainer.max_epochs 1").replace("--model.shots 20", "--model.shots 4")


# Images of a kind that pages name; of other kinds, five.
NAMED = {"good": 32, "hole": 15}


def short_checkout(folder: Path, drawn: Path) -> Path:
    """Configs as in a checkout in an empty folder, with less of the drawn surfaces to learn from and to test on, and eight
    good photos for the README.
    """
    from anomalib_dpclip import Surfaces

    shutil.copytree(CONFIGS, folder / "configs")
    quickstart = folder / "configs" / "quickstart.yaml"
    text = quickstart.read_text()
    quickstart.write_text(
        text.replace("max_epochs: 6", "max_epochs: 1").replace("backbone: mini", "backbone: mini\n    shots: 8")
    )
    assert quickstart.read_text().count("shots: 8") == quickstart.read_text().count("max_epochs: 1") == 1

    root = folder / "datasets" / "Surfaces"
    root.mkdir(parents=True)
    for category in Surfaces.auxiliary_categories:
        (root / category).symlink_to(drawn / category)
    shutil.copytree(drawn / "weave", root / "weave")
    for part in ("test", "ground_truth"):
        for path in (root / "weave" / part).glob("*/*.png"):
            if int(path.name[:3]) >= NAMED.get(path.parent.name, 5):
                path.unlink()
    (folder / "good").mkdir()
    for path in sorted((root / "weave" / "test" / "good").iterdir())[:8]:
        shutil.copy(path, folder / "good" / path.name)
    return folder


def run_shell(commands: str, folder: Path) -> subprocess.CompletedProcess:
    """Run commands in a folder, up to the first that fails; installing is left out, the test environment has everything.

    What a training has written must stay as it is until the next training.
    """
    commands = re.sub(r"^pip install .*\n", "", commands, flags=re.MULTILINE)
    variables, printed, errors = "", "", ""
    for part in re.split(r"^(anomalib (?:train|fit) (?:.*\\\n)*.*\n)", commands, flags=re.MULTILINE):
        before = trained_files(folder)
        done = _run(variables + part, folder)
        printed, errors = printed + done.stdout, errors + done.stderr
        variables += "".join(re.findall(r"^\w+=\S+\n", part, flags=re.MULTILINE))
        if not part.startswith(("anomalib train", "anomalib fit")):
            after = trained_files(folder)
            changed = [str(path) for path, digest in before.items() if after.get(path) != digest]
            assert not changed, f"{changed} are of a training, and have been changed by\n{part}"
    return subprocess.CompletedProcess(commands, 0, printed, errors)


def trained_files(folder: Path) -> dict[Path, bytes]:
    """Digests of all files that trainings have left in a folder; results of later runs are no part of them."""
    checkpoints = [path for path in folder.rglob("weights/lightning/*.ckpt") if holds_training_state(path)]
    runs = {path.resolve().parents[2] for path in checkpoints}
    files = [path for run in runs for path in run.rglob("*") if path.is_file() and run / EVALUATION not in path.parents]
    return {path: file_digest(path) for path in files}


def _run(commands: str, folder: Path) -> subprocess.CompletedProcess:
    folders = [str(command_folder()), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(folders)}
    script = ["bash", "-c", f"set -e\n{commands}"]
    done = subprocess.run(script, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done
