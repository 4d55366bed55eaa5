"""The console script `dpclip`: what anomalib's own command line has no place for."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple


class Command(NamedTuple):
    """A subcommand: the function behind it, ``module:name``, imported only when asked for, and what it is for."""

    function: str
    purpose: str


COMMANDS = {
    "metadata": Command(
        "data.metadata_command:metadata", "list a labelled set in a JSON-lines file, or check such a file"
    ),
    "elpv": Command("data.elpv:convert_elpv", "list the solar cells of the package elpv-dataset in a JSON-lines file"),
    "adapters": Command("adapters_command:adapters", "show what an adapter file holds, or convert it"),
    "benchmark": Command("benchmark:benchmark", "compare models over categories and seeds, resuming where it stopped"),
    "report": Command("report:report", "turn benchmark rows into tables and charts"),
    "bench": Command("bench.command:bench", "measure speed and memory"),
    "app": Command("app:app", "try the model on photos in a browser"),
    "pretrain-mini": Command("pretrain_mini:pretrain_mini", "pre-train the mini backbone anew"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand.

    Args:
        arguments: Instead of those of the command line.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name, *rest = arguments or ["--help"]
    if name in {"-h", "--help"}:
        print(_overview())  # noqa: T201
        return
    if name not in COMMANDS:
        sys.exit(f"dpclip: unknown command {name!r}\n\n{_overview()}")

    from jsonargparse import auto_cli

    module, _, function = COMMANDS[name].function.partition(":")
    command = getattr(import_module(f"anomalib_dpclip.{module}"), function)
    sys.argv[0] = f"dpclip {name}"  # the program's name in jsonargparse's usage
    try:
        status = auto_cli(command, args=rest, as_positional=True)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        # The user's to mend: the message says what and how, a stack trace would bury it.
        sys.exit(f"dpclip {name}: {error}")
    if isinstance(status, int) and status:
        sys.exit(status)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.purpose}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: dpclip COMMAND [--help] ...", "", "commands:", *lines])
