"""Metadata lists, right ones and bad ones."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_lines(path: Path, lines: Iterable[str | dict[str, Any]]) -> Path:
    """Write a list: text as it stands, line feeds included, anything else as JSON, a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path
