"""The console script `dpclip`: what anomalib's own command line has no place for."""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from inspect import Parameter, signature
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from anomalib_dpclip import __version__


class Command(NamedTuple):
    """A subcommand.

    Attributes:
        function: The function behind it, ``module:name``, imported only when asked for. A required argument that is a list of
            paths takes one or more; a folder's option that is a keyword in Python ends in an underscore there.
        purpose: What it is for, in a line.
        positional: Whether required arguments are positional, not options.
    """

    function: str
    purpose: str
    positional: bool = True


COMMANDS = {
    "predict": Command("app.predict_command:predict", "scores, decisions and pictures of photos"),
    "correct": Command("app.correct_command:correct", "take photos for normal that were called anomalous", False),
    "metadata": Command("data.listing.command:metadata", "list a labelled set in a JSON-lines file, or check such a file"),
    "adapters": Command("adapter_files.command:adapters", "show what an adapter file holds, convert it, or share it"),
    "backbones": Command("clip.command:backbones", "list the backbones that fit, their weights, size and licence", False),
    "threshold": Command("deploy.threshold_command:threshold", "show an exported file and move its thresholds"),
    "benchmark": Command(
        "benchmark.command:benchmark", "compare models over categories and seeds, resuming where it stopped", False
    ),
    "report": Command("benchmark.report.command:report", "turn benchmark rows into tables and charts"),
    "app": Command("app.app_command:app", "try the model on photos in a browser"),
}

PATHS = (list[Path], Sequence[Path])

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
    parameters = signature(function).parameters.values()
    several = {each.name for each in parameters if each.annotation in PATHS and each.default is Parameter.empty}
    keywords = {each.name for each in parameters if each.name.endswith("_")}
    parser.add_function_arguments(function, as_positional=command.positional, skip={*several, *keywords})
    for each in several:
        parser.add_argument(each, nargs="+", type=Path)
    for each in keywords:
        option = each.removesuffix("_")
        parser.add_argument(f"--{option}", dest=each, metavar=option.upper(), type=Path)
    values = parser.instantiate_classes(parser.parse_args(_flags_set(function, rest))).as_dict()
    try:
        status = function(**values)
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
