"""What is settled before the first job runs: which files each reads, which good images it is shown, and what cannot run."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from anomalib_dpclip.benchmark.config import JobConfig
from anomalib_dpclip.benchmark.contents import Target, auxiliary_files, digest_of_all, model_files, target_of
from anomalib_dpclip.benchmark.draws import Draws

logger = logging.getLogger(__name__)


class Job(NamedTuple):
    """A job that is ready to run, or cannot.

    Attributes:
        config: What it runs, with its good images and the digest of its files.
        training: Name of the training that its adapters come from; empty if none is needed.
        reason: Why it cannot run; empty if it can.
    """

    config: JobConfig
    training: str = ""
    reason: str = ""


def check_weights(configs: Iterable[JobConfig]) -> None:
    """Make sure that the adapters named in a config, or by ``DPCLIP_WEIGHTS`` there, can be read.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no adapters.
    """
    from anomalib_dpclip.adapter_files.read_and_write import read_adapters
    from anomalib_dpclip.method.unadapted import UNADAPTED

    named = [config.model.get("init_args", {}).get("weights") for config in configs if config.model_name == "DPCLIP"]
    for weights in dict.fromkeys(each for each in named if each and each != UNADAPTED):
        try:
            read_adapters(weights)
        except (OSError, ValueError) as error:
            msg = f"weights {weights}, of the config or of DPCLIP_WEIGHTS: {error}"
            raise type(error)(msg) from error


def plan(configs: Iterable[JobConfig], draws: Draws) -> list[Job]:
    """Read the files of all jobs: data sets are prepared (downloaded or drawn) where they are not there.

    Args:
        configs: The jobs.
        draws: Of good images; keeps those that are used.
    """
    files = _Files()
    return [_planned(config, draws, files) for config in configs]


def _planned(config: JobConfig, draws: Draws, files: "_Files") -> Job:
    training, reason = "", ""
    try:
        target = files.target(_Arguments(config.data))
        contents = [target.digest, files.model(_Arguments(config.model.get("init_args", {})))]
        if config.training_key:
            contents.append(files.auxiliary(*config.auxiliary.values()))
            training = f"{config.training_key}-{contents[-1]}"
        references = _references(config, target, draws)
        config = replace(config, contents=" ".join(contents), references=references)
    except Exception as error:  # noqa: BLE001  of any data module: the other jobs go on
        reason = reason_of(error)
    return Job(config, training, reason)


def _references(config: JobConfig, target: Target, draws: Draws) -> tuple[str, ...]:
    if config.draw is None:
        return ()
    k = config.k_shot
    return draws.choose(config.target, target.normal, config.draw, k) if isinstance(k, int) else tuple(sorted(target.normal))


def reason_of(error: BaseException) -> str:
    """An error in a line."""
    return " ".join(f"{type(error).__name__}: {str(error) or error.__cause__}".split())


class _Arguments(dict):  # type: ignore[type-arg]
    """Arguments as a key."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(repr(sorted(self.items())))


class _Files:
    """Contents of files, each set read once; so is the error of one that cannot be had."""

    def __init__(self) -> None:
        self.target: Callable[[_Arguments], Target] = _once(target_of)
        self.model: Callable[[_Arguments], str] = _once(lambda arguments: digest_of_all(model_files(arguments)))
        self.auxiliary: Callable[..., str] = _once(lambda *source: digest_of_all(auxiliary_files(*source)))


def _once(read: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is called once for the same arguments, also where it fails."""

    @cache
    def outcome(*arguments: Any) -> tuple[Any, Exception | None]:
        try:
            return read(*arguments), None
        except Exception as error:  # noqa: BLE001  kept, and raised for each that needs it
            return None, error

    def wrapped(*arguments: Any) -> Any:
        value, error = outcome(*arguments)
        if error is not None:
            raise error
        return value

    return wrapped
