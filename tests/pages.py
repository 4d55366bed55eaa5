"""The pages of `docs/`, whose commands are run as they are written."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.paths import ROOT
from tests.preloaded import command_folder

README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(page: str, language: str, heading: str | None = None) -> str:
    """The code blocks of a page, or of one of its sections, in their order.

    Args:
        page: Name of the file in `docs/`, without its suffix.
        language: What the blocks are marked as.
        heading: Second-level heading of the section.

    Raises:
        LookupError: There is none.
    """
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    if heading:
        text = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = blocks_of(text, language)
    if not found:
        raise LookupError(f"docs/{page}.md has no {language} in {heading or 'any section'}")
    return "\n".join(found)


def blocks_of(text: str, language: str) -> list[str]:
    """Each code block of a text that is marked as a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_shell(commands: str, folder: Path) -> subprocess.CompletedProcess:
    """Run commands in a folder, up to the first that fails; installing is left out, the test environment has everything."""
    commands = re.sub(r"^pip install .*\n", "", commands, flags=re.MULTILINE)
    folders = [str(command_folder()), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(folders)}
    script = ["bash", "-c", f"set -e\n{commands}"]
    done = subprocess.run(script, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done
