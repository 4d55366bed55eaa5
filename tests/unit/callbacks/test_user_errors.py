import logging
import sys
from dataclasses import fields
from inspect import signature

import pytest
import torch
from anomalib.data.utils.path import validate_path
from anomalib.models import AnomalibModule
from jsonargparse import ArgumentParser

from anomalib_dpclip.callbacks import user_errors
from anomalib_dpclip.callbacks.checkpoint_io import AtomicCheckpointIO
from anomalib_dpclip.callbacks.user_errors import MOVED, renamed, say_last, unnamed_backbone, user_error
from anomalib_dpclip.model.arguments import GROUPS
from anomalib_dpclip.model.lightning_model import DPCLIP


def raised(function, *arguments):
    with pytest.raises(Exception) as caught:
        function(*arguments)
    return caught.value


def build(name, *arguments):
    parser = ArgumentParser()
    parser.add_subclass_arguments(AnomalibModule, "model", required=True)
    parser.instantiate_classes(parser.parse_args(["--model", name, *arguments]))


def no_checkpoint(tmp_path):
    return raised(AtomicCheckpointIO().load_checkpoint, tmp_path / "gone")


def test_what_the_user_can_mend_is_a_sentence_and_other_errors_keep_their_tracebacks(tmp_path):
    for name in ("DPCLIP", "anomalib.models.DPCLIP"):
        error = raised(build, name, "--model.weights", "gone.safetensors")
        assert len(str(error).splitlines()) > 5
        assert user_error(error) == "there is no adapter file gone.safetensors"
    assert user_error(no_checkpoint(tmp_path)) == f"there is no checkpoint {tmp_path / 'gone'}"
    assert user_error(raised(validate_path, tmp_path / "gone")).startswith("Path does not exist")
    assert user_error(raised(int, "x")) is None
    assert user_error(raised(AtomicCheckpointIO().load_checkpoint, None)) is None  # a mistake of ours: a TypeError
    assert user_error(ValueError("never raised")) is None


@pytest.mark.parametrize(
    ("program", "debug", "shown"),
    [("/bin/anomalib", "", "there is no checkpoint"), ("/bin/anomalib", "1", "as before"), ("script.py", "", "as before")],
)
def test_what_is_shown(monkeypatch, capsys, tmp_path, program, debug, shown):
    monkeypatch.setattr(sys, "argv", [program, "test"])
    monkeypatch.setenv(user_errors.DEBUG, debug)
    monkeypatch.setattr(sys, "excepthook", lambda *_: sys.stderr.write("as before\n"))
    say_last.__wrapped__(sys)
    error = no_checkpoint(tmp_path)
    sys.excepthook(type(error), error, error.__traceback__)
    last = capsys.readouterr().err.splitlines()[-1]
    assert shown in last
    sys.excepthook(KeyError, KeyError("bug"), None)
    assert capsys.readouterr().err == "as before\n"


def test_what_jobs_of_a_pipeline_raise_is_said_once_and_last(monkeypatch, capsys, tmp_path, caplog):
    last = []
    monkeypatch.setattr(sys, "argv", ["/bin/anomalib", "benchmark"])
    monkeypatch.setattr(sys, "excepthook", print)
    monkeypatch.setattr(user_errors.atexit, "register", lambda *call: last.append(call))
    logger = logging.getLogger(user_errors._PIPELINE_LOGGERS[0])
    monkeypatch.setattr(logger, "filters", [])
    say_last.__wrapped__(sys)
    for error in [no_checkpoint(tmp_path)] * 3 + [KeyError("bug")]:
        logger.error("An error occurred", exc_info=error)
    assert len(caplog.records) == 1, "of the mistake of others"
    for function, *arguments in last:
        function(*arguments)
    assert capsys.readouterr().err == f"anomalib: error: there is no checkpoint {tmp_path / 'gone'}\n"


@pytest.mark.parametrize(("given", "hint"), [([], True), (["--model.backbone=mini"], False)])
def test_a_checkpoint_knows_its_backbone(tmp_path, given, hint):
    checkpoint = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"model.seg_proj.0.weight": torch.zeros(2)}, "dpclip": {"backbone": "mini"}}, checkpoint)
    said = unnamed_backbone(["anomalib", "test", f"--ckpt_path={checkpoint}", *given])
    assert said == (f"{checkpoint} is of the backbone mini: say --model.backbone mini" if hint else None)
    checkpoint.write_text("damaged")
    assert unnamed_backbone(["anomalib", "test", f"--ckpt_path={checkpoint}"]) is None


def test_arguments_by_their_former_names(tmp_path):
    config = tmp_path / "old.yaml"
    config.write_text("model: {class_path: anomalib.models.DPCLIP, init_args: {backbone: mini, memory_tokens: 5}}")
    expected = [
        "--model.ignore is called --model.region.ignore now",
        "--model.memory_tokens is called --model.memory.tokens now",
    ]
    assert renamed(["anomalib", "train", "--model.ignore=a.png", "--config", str(config)]) == expected
    for text in ("model: {class_path: Padim, init_args: {ignore: 1}}", "{", "- 1", "model: DPCLIP", ""):
        config.write_text(text)
        assert renamed(["anomalib", "train", "-c", str(config)]) == []


def test_where_arguments_are_now_is_where_they_are():
    for group, name in (each.split(".") for each in MOVED.values()):
        assert name in {item.name for item in fields(GROUPS[group])}
    assert not MOVED.keys() & signature(DPCLIP).parameters.keys()
