"""Errors on anomalib's command line: what the user can mend is a sentence, and stands last.

anomalib shows tracebacks, and jsonargparse all arguments of a model that could not be built: hundreds of lines.
"""

import atexit
import logging
import os
import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType, TracebackType

DEBUG, MODEL = "ANOMALIB_DPCLIP_DEBUG", "DPCLIP"
"""Environment variable that leaves tracebacks as they are, and the model's name."""

_GROUPED = {
    "training": "learning_rate milestones temperature checkpointing num_workers decoupling_weight prototype_momentum "
    "auxiliary_root auxiliary_unmasked",
    "architecture": "adapter_layers tap_layers adapter_weight projector_activation grn_pooling detection",
    "clip": "quick_gelu pretrained_tag image_mean image_std tokenizer",
    "prompts": "normal_states abnormal_states templates",
    "region": "ignore min_area",
}
MOVED = {name: f"{group}.{name}" for group, names in _GROUPED.items() for name in names.split()}
MOVED |= {"memory_tokens": "memory.tokens", "export_classes": "export.classes"}
"""Arguments of the model that once stood alone: where they are now, by their names of then."""

_USER_ERRORS = (ValueError, OSError, ModuleNotFoundError, FloatingPointError)
_PACKAGE = __name__.partition(".")[0]

# Of `anomalib benchmark`, which logs what a job raises, job by job, and goes on.
_PIPELINE = ("base.pipeline", "runners.serial", "runners.parallel")
_PIPELINE_LOGGERS = [f"anomalib.pipelines.components.{name}" for name in _PIPELINE]

# Our classes by their own names, and by those that anomalib knows them under.
_OURS = re.compile(rf"class_path='({_PACKAGE}\.|anomalib\.(models\.DPCLIP|data\.(MVTec|Surfaces|JSONLines|Photos))')")
# What jsonargparse says of a class that it could not instantiate: the reason is among why each type did not fit.
_REASONS = re.compile(r"^Errors:\n(.*)^Given value type:", re.MULTILINE | re.DOTALL)
_REASON = re.compile(r"^  - (?!Expected a )(.*?)(?=^  - |\Z)", re.MULTILINE | re.DOTALL)


@cache  # the import of a module may be told more than once
def say_last(module: ModuleType) -> None:
    """Show errors as sentences if this process is anomalib's command line; never raises.

    To be called as a module has been imported that anomalib imports after it has arranged for its own tracebacks.
    """
    del module
    if Path(sys.argv[0]).stem != "anomalib" or os.environ.get(DEBUG):
        return
    show = sys.excepthook

    def show_sentence(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        from anomalib_dpclip.callbacks.results_folder import restore_latest

        restore_latest(Path([*_values_of("--default_root_dir", sys.argv), "results"][0]) / MODEL)
        sentence = user_error(error)
        if sentence is None:
            show(kind, error, traceback)
        else:
            print(f"{DEBUG}=1 shows where.", file=sys.stderr)  # noqa: T201
            _say(filter(None, (sentence, unnamed_backbone(sys.argv))))

    sys.excepthook = show_sentence
    wrong = misspelt(sys.argv)
    said = dict.fromkeys([f"there is no model {wrong}: did you mean {MODEL}?"] if wrong else renamed(sys.argv))

    def is_another_s(record: logging.LogRecord) -> bool:
        """Whether a logged error keeps its traceback; of one that the user can mend the sentence is kept, to be said once."""
        sentence = user_error(record.exc_info[1]) if record.exc_info and record.exc_info[1] else None
        if sentence is not None:
            said[sentence] = None
        return sentence is None

    for name in _PIPELINE_LOGGERS:
        logging.getLogger(name).addFilter(is_another_s)
    atexit.register(_say, said)


def _say(errors: Iterable[str]) -> None:
    for each in errors:
        print(f"anomalib: error: {each}", file=sys.stderr)  # noqa: T201


def user_error(error: BaseException) -> str | None:
    """What an error says that the user can mend: one of this package, or a file that anomalib's data misses; else ``None``."""
    text = str(error)
    if _OURS.search(text) and (reasons := _REASONS.search(text)):
        return " ".join(" ".join(reason.split()) for reason in _REASON.findall(reasons[1])) or None
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_by = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    is_ours = raised_by.startswith(f"{_PACKAGE}.") and isinstance(error, _USER_ERRORS)
    is_missing = raised_by.startswith("anomalib.data.") and isinstance(error, FileNotFoundError)
    return text if is_ours or is_missing else None


def unnamed_backbone(arguments: Sequence[str]) -> str | None:
    """What to add where ``--ckpt_path`` is given without the backbone, which no hook of anomalib can take from the file."""
    checkpoint = next(map(Path, _values_of("--ckpt_path", arguments)), None)
    if checkpoint is None or {"--model.backbone", "--config", "-c"} & set(_words(arguments)) or not checkpoint.is_file():
        return None
    from anomalib_dpclip.adapter_files.read_and_write import read_adapters
    from anomalib_dpclip.clip.pretraining import MINI

    try:
        backbone = read_adapters(checkpoint).provenance.backbone
    except ValueError:
        return None
    return f"{checkpoint} is of the backbone {backbone}: say --model.backbone {backbone}" if backbone == MINI else None


def misspelt(arguments: Sequence[str]) -> str | None:
    """The name given as ``--model``, if it is ours but for capitals and dashes.

    Example:
        >>> misspelt(["anomalib", "train", "--model", "DP-Clip"])
        'DP-Clip'
        >>> misspelt(["anomalib", "train", "--model=DPCLIP"])
    """
    names = _values_of("--model", arguments)
    return next((name for name in names if name != MODEL and re.sub(r"[-_]", "", name).upper() == MODEL), None)


def renamed(arguments: Sequence[str]) -> list[str]:
    """What the model's arguments are called now of which a command line or its config has the former names.

    Example:
        >>> renamed(["anomalib", "train", "--model", "DPCLIP", "--model.learning_rate=0.1"])
        ['--model.learning_rate is called --model.training.learning_rate now']
    """
    import yaml

    names = [word.removeprefix("--model.") for word in _words(arguments) if word.startswith("--model.")]
    for config in [*_values_of("--config", arguments), *_values_of("-c", arguments)]:
        try:
            model = yaml.safe_load(Path(config).read_text(encoding="utf-8")).get("model")
            names += (model.get("init_args") or {}) if str(model["class_path"]).rpartition(".")[2] == MODEL else ()
        except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError):
            continue  # it is not ours, or cannot be read: anomalib says why
    return [f"--model.{name} is called --model.{MOVED[name]} now" for name in dict.fromkeys(names) if name in MOVED]


def _words(arguments: Sequence[str]) -> list[str]:
    return [part for each in arguments for part in (each.split("=", 1) if each.startswith("--") else [each])]


def _values_of(option: str, arguments: Sequence[str]) -> list[str]:
    """What an option of a command line is followed by, the last one first."""
    return [value for word, value in pairwise(_words(arguments)) if word == option][::-1]
