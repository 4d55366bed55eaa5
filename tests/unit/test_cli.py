import subprocess
import sys
import warnings

import pytest

from anomalib_dpclip import cli


@pytest.fixture
def run(monkeypatch):
    """Run a function as the only command, called ``try``."""
    monkeypatch.setattr(sys, "argv", ["dpclip"])

    def run(function, *arguments):
        monkeypatch.setattr(cli, "COMMANDS", {"try": cli.Command("benchmark.report.published:tried", "try it")})
        monkeypatch.setattr("anomalib_dpclip.benchmark.report.published.tried", function, raising=False)  # any light module
        cli.main(["try", *arguments])

    return run


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_leads_to_a_documented_function(name):
    assert "Args:" in cli.function_of(cli.COMMANDS[name]).__doc__


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_overview_lists_all(capsys, arguments):
    cli.main(arguments)
    output = capsys.readouterr().out
    assert output.startswith("usage: dpclip COMMAND")
    assert all(f"  {name} " in output and each.purpose in output for name, each in cli.COMMANDS.items())


def test_an_unknown_command():
    with pytest.raises(SystemExit, match=r"dpclip: unknown command 'metdata'\n\nusage: dpclip COMMAND"):
        cli.main(["metdata"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a file.txt", "--count", "3"], ("a file.txt", False, 3)),
        (["a", "--loud"], ("a", True, 1)),
        (["a", "--loud", "--count", "2"], ("a", True, 2)),
        (["a", "--loud", "false"], ("a", False, 1)),
    ],
)
def test_arguments_reach_the_function_and_an_option_that_is_on_or_off_may_stand_alone(run, arguments, expected):
    received = []

    def function(path: str, loud: bool = False, count: int = 1) -> None:
        received.append((path, loud, count))

    run(function, *arguments)
    assert received == [expected]


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, ModuleNotFoundError])
def test_a_user_s_mistake_is_a_message_and_one_of_ours_keeps_its_stack_trace(run, error):
    def fails(user: bool = True) -> None:
        raise error("there is no such thing: fetch one") if user else KeyError("bug")

    with pytest.raises(SystemExit, match=r"^dpclip try: there is no such thing: fetch one$"):
        run(fails)
    with pytest.raises(KeyError):
        run(fails, "--user", "false")


def test_warnings_of_other_packages_future_are_not_the_user_s(run):
    def function() -> None:
        for module in ("timm.models.layers", "anomalib_dpclip.clip"):
            warnings.warn_explicit(f"from {module}", FutureWarning, "file.py", 1, module)

    with pytest.warns(FutureWarning) as caught:
        run(function)
    assert [str(each.message) for each in caught] == ["from anomalib_dpclip.clip"]


def test_help_what_is_missing_and_backbones_are_said_without_imports_that_take_seconds(tmp_path):
    (tmp_path / "photo.png").touch()
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
    "correct --ckpt_path gone photo.png": "there is no adapter file gone",
}
for arguments, said in [*missing.items(), ("backbones", ""), *((f"{name} --help", "0") for name in COMMANDS)]:
    try:
        main(arguments.split())
    except SystemExit as error:
        assert said in str(error), (arguments, str(error))
print({"torch", "open_clip", "anomalib"} & set(sys.modules))
"""
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert process.stdout.splitlines()[-1:] == ["set()"], process.stderr


def test_exit_status_and_usage(run, capsys):
    def answers(status: int) -> int:
        return status

    run(answers, "0")
    with pytest.raises(SystemExit) as stopped:
        run(answers, "3")
    assert stopped.value.code == 3
    with pytest.raises(SystemExit) as stopped:
        run(answers)
    assert stopped.value.code == 2
    assert "usage: dpclip try " in capsys.readouterr().err


def test_as_a_module_for_a_reader_that_has_seen_enough():
    pipeline = f"{sys.executable} -m anomalib_dpclip backbones --all | head -n 1"
    process = subprocess.run(["bash", "-c", pipeline], capture_output=True, text=True, timeout=120, check=False)
    assert len(process.stdout.splitlines()) == 1
    assert process.stderr == ""
