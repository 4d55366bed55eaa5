"""The README's sections, run as they are written."""

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def blocks(heading: str, language: str) -> str:
    """The code blocks of a section, in their order."""
    section = README.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    if not found:
        raise LookupError(f"README.md has no {language} in a section {heading!r}")
    return "\n".join(found)


def run_shell(commands: str, folder: Path) -> subprocess.CompletedProcess:
    """Run commands in a folder, up to the first that fails; installing is left out, the test environment has everything."""
    commands = re.sub(r"^pip install .*\n", "", commands, flags=re.MULTILINE)
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    script = ["bash", "-c", f"set -e\n{commands}"]
    done = subprocess.run(script, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done
