"""The console script: every command leads somewhere, and a user's mistake is a message, not a stack trace."""

import subprocess
import sys
import warnings
from importlib import import_module

import pytest

from anomalib_dpclip import cli


@pytest.fixture(autouse=True)
def _restore_the_program_s_name(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dpclip"])


def command(monkeypatch, function):
    """Make `function` the only command, called ``try``."""
    import anomalib_dpclip.benchmark.report.published as module  # any light module

    monkeypatch.setattr(module, "tried", function, raising=False)
    monkeypatch.setattr(cli, "COMMANDS", {"try": cli.Command("benchmark.report.published:tried", "try it")})


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_leads_to_a_documented_function(name):
    module, _, function = cli.COMMANDS[name].function.partition(":")
    documentation = getattr(import_module(f"anomalib_dpclip.{module}"), function).__doc__
    assert documentation
    assert "Args:" in documentation


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_overview_lists_all(capsys, arguments):
    cli.main(arguments)
    output = capsys.readouterr().out
    assert output.startswith("usage: dpclip COMMAND")
    assert all(f"  {name} " in output and each.purpose in output for name, each in cli.COMMANDS.items())


def test_an_unknown_command():
    with pytest.raises(SystemExit, match=r"dpclip: unknown command 'metdata'\n\nusage: dpclip COMMAND"):
        cli.main(["metdata"])


def test_arguments_reach_the_function(monkeypatch):
    received = []

    def function(path: str, count: int = 1) -> None:
        """Try."""
        received.append((path, count))

    command(monkeypatch, function)
    cli.main(["try", "a file.txt", "--count", "3"])
    assert received == [("a file.txt", 3)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], (False, 1)), (["--loud"], (True, 1)), (["--loud", "--count", "2"], (True, 2)), (["--loud", "false"], (False, 1))],
)
def test_an_option_that_is_on_or_off_may_stand_alone(monkeypatch, arguments, expected):
    received = []

    def function(loud: bool = False, count: int = 1) -> None:
        """Try."""
        received.append((loud, count))

    command(monkeypatch, function)
    cli.main(["try", *arguments])
    assert received == [expected]


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, ModuleNotFoundError])
def test_a_user_s_mistake_is_a_message(monkeypatch, error):
    def function() -> None:
        """Try."""
        raise error("there is no such thing: fetch one")

    command(monkeypatch, function)
    with pytest.raises(SystemExit, match=r"^dpclip try: there is no such thing: fetch one$"):
        cli.main(["try"])


def test_a_mistake_of_ours_keeps_its_stack_trace(monkeypatch):
    def function() -> None:
        """Try."""
        raise KeyError("bug")

    command(monkeypatch, function)
    with pytest.raises(KeyError):
        cli.main(["try"])


def test_warnings_of_other_packages_future_are_not_the_user_s(monkeypatch):
    def function() -> None:
        """Try."""
        for module in ("timm.models.layers", "anomalib_dpclip.clip"):
            warnings.warn_explicit(f"from {module}", FutureWarning, "file.py", 1, module)

    command(monkeypatch, function)
    with pytest.warns(FutureWarning) as caught:
        cli.main(["try"])
    assert [str(each.message) for each in caught] == ["from anomalib_dpclip.clip"]


def test_help_and_what_is_missing_are_said_without_torch_s_import(tmp_path):
    """Its import, and anomalib's, take seconds."""
    (tmp_path / "photo.png").touch()
    (tmp_path / "wrong.yaml").write_text(
        "benchmark: {seed: 1, data: {class_path: X}, model: {class_path: DPCLIP, init_args: {weights: gone}}}"
    )
    code = """
import sys
from anomalib_dpclip.app import app_command
from anomalib_dpclip.cli import COMMANDS, main
app_command.find_spec = lambda name: name  # gradio is there
missing = {
    "adapters gone": "there is no adapter file gone",
    "predict . --weights gone": "there is no adapter file gone",
    "predict gone": "no photo or folder gone",
    "predict --good gone .": "no folder gone: --good must be the folder of the good photos",
    "metadata gone": "no folder gone",
    "threshold gone.onnx": "there is no exported file gone.onnx",
    "app --weights gone": "there is no adapter file gone",
    "report gone.csv": "gone.csv: no such results file",
    "benchmark --config gone.yaml": "gone.yaml: no such benchmark config",
    "benchmark --config wrong.yaml": "weights gone, of the config or of DPCLIP_WEIGHTS: there is no adapter file gone",
    "correct --ckpt_path gone photo.png": "there is no adapter file gone",
}
for arguments, said in [*missing.items(), *((f"{name} --help", "0") for name in COMMANDS)]:
    try:
        main(arguments.split())
    except SystemExit as error:
        assert said in str(error), (arguments, str(error))
print({"torch", "anomalib"} & set(sys.modules))
"""
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert process.stdout.splitlines()[-1:] == ["set()"], process.stderr


def test_exit_status(monkeypatch):
    def fails() -> int:
        """Try."""
        return 3

    def succeeds() -> int:
        """Try."""
        return 0

    command(monkeypatch, fails)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["try"])
    assert stopped.value.code == 3
    command(monkeypatch, succeeds)
    cli.main(["try"])


def test_usage_names_the_command(monkeypatch, capsys):
    def function(path: str) -> None:
        """Try."""
        del path

    command(monkeypatch, function)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["try"])
    assert stopped.value.code == 2
    assert "usage: dpclip try " in capsys.readouterr().err


def test_as_a_module():
    process = subprocess.run(
        [sys.executable, "-m", "anomalib_dpclip", "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("usage: dpclip COMMAND")


def test_a_reader_that_has_seen_enough_is_no_error():
    pipeline = f"{sys.executable} -m anomalib_dpclip backbones --all | head -n 1"
    process = subprocess.run(["bash", "-c", pipeline], capture_output=True, text=True, timeout=120, check=False)
    assert len(process.stdout.splitlines()) == 1
    assert process.stderr == ""
