"""The console script `dpclip`: what anomalib's own command line has no place for."""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from anomalib_dpclip import __version__


class Command(NamedTuple):
    """A subcommand.

    Attributes:
        function: The function behind it, ``module:name``, imported only when asked for.
        purpose: What it is for, in a line.
        positional: Whether required arguments are positional, not options.
        several: Name of a positional argument that takes one value or more.
        folder: Name of an option, the path of a folder, that is a keyword in Python, where it ends in an underscore.
    """

    function: str
    purpose: str
    positional: bool = True
    several: str | None = None
    folder: str | None = None


COMMANDS = {
    "predict": Command("app.predict_command:predict", "scores, decisions and pictures of photos", False, several="photos"),
    "correct": Command(
        "app.correct_command:correct", "take photos for normal that were called anomalous", False, several="photos"
    ),
    "metadata": Command("data.listing.command:metadata", "list a labelled set in a JSON-lines file, or check such a file"),
    "adapters": Command("adapter_files.command:adapters", "show what an adapter file holds, convert it, or share it"),
    "backbones": Command("clip.command:backbones", "list the backbones that fit, their weights, size and licence", False),
    "threshold": Command("deploy.threshold_command:threshold", "show an exported file and move its thresholds", folder="from"),
    "benchmark": Command(
        "benchmark.command:benchmark", "compare models over categories and seeds, resuming where it stopped", False
    ),
    "report": Command("benchmark.report.command:report", "turn benchmark rows into tables and charts", several="files"),
    "app": Command("app.app_command:app", "try the model on photos in a browser"),
}


FOREIGN = r"(anomalib|lightning|timm|torch)(\.|$)"
"""Modules whose warnings of their own future no user of these commands can do anything about."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand with these arguments, by default those of the command line."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in {"-h", "--help"}:
        print(_overview())  # noqa: T201
        return
    if name == "--version":
        print(f"dpclip {__version__}")  # noqa: T201
        return
    if name not in COMMANDS:
        sys.exit(f"dpclip: unknown command {name!r}\n\n{_overview()}")

    from jsonargparse import ArgumentParser

    warnings.filterwarnings("ignore", category=FutureWarning, module=FOREIGN)
    command = COMMANDS[name]
    function = function_of(command)
    parser = ArgumentParser(prog=f"dpclip {name}", description=(function.__doc__ or "").partition("\n")[0])
    skip: set[str | int] = {name for name in (command.several, f"{command.folder}_") if name}
    parser.add_function_arguments(function, as_positional=command.positional, skip=skip)
    if command.several:
        parser.add_argument(command.several, nargs="+", type=Path)
    if command.folder:
        parser.add_argument(f"--{command.folder}", type=Path)
    values = parser.instantiate_classes(parser.parse_args(_flags_set(function, rest))).as_dict()
    try:
        status = function(**{f"{name}_" if name == command.folder else name: value for name, value in values.items()})
    except BrokenPipeError:  # whoever reads, such as head, has seen enough; Python would complain of it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        # The user's to mend: the message says what and how, a stack trace would bury it.
        sys.exit(f"dpclip {name}: {error}")
    if isinstance(status, int) and status:
        sys.exit(status)


def function_of(command: Command) -> Callable[..., object]:
    """Import the function behind a command."""
    module, _, name = command.function.partition(":")
    function: Callable[..., object] = getattr(import_module(f"anomalib_dpclip.{module}"), name)
    return function


def _flags_set(function: Callable[..., object], arguments: Sequence[str]) -> list[str]:
    """Arguments with ``true`` after each option that is either on or off and stands alone, such as ``--json``."""
    flags = {f"--{name}" for name, parameter in signature(function).parameters.items() if parameter.annotation is bool}
    found: list[str] = []
    for argument, after in pairwise([*arguments, ""]):
        found += [argument, "true"] if argument in flags and after not in {"true", "false"} else [argument]
    return found


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.purpose}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: dpclip COMMAND [--help] ...", "       dpclip --version", "", "commands:", *lines])
