"""What is settled before the first job runs: which files each reads, which good images it is shown, and what cannot run."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from anomalib_dpclip.adapter_files.adapter_file import UNADAPTED
from anomalib_dpclip.adapter_files.read_and_write import read_adapters
from anomalib_dpclip.benchmark.config import JobConfig
from anomalib_dpclip.benchmark.draws import Draws

if TYPE_CHECKING:  # imported by what needs it, after everything that can be wrong with the config
    from anomalib_dpclip.benchmark.contents import Target

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


def check_weights(config: Any) -> None:
    """Make sure that the adapters named in a config, or by ``DPCLIP_WEIGHTS`` there, can be read.

    Args:
        config: As `read_config` gives it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no adapters.
    """
    for weights in dict.fromkeys(each for each in _named_weights(config) if each and each != UNADAPTED):
        try:
            read_adapters(weights)
        except (OSError, ValueError) as error:
            kind = FileNotFoundError if isinstance(error, OSError) else ValueError
            raise kind(f"weights {weights}, of the config or of DPCLIP_WEIGHTS: {error}") from error


def _named_weights(part: Any) -> Iterator[Any]:
    """Weights of all models of ours in a part of a config, grids included."""
    if isinstance(part, list):
        for each in part:
            yield from _named_weights(each)
    elif isinstance(part, dict):
        if str(part.get("class_path")).rpartition(".")[2] == "DPCLIP":
            weights = (part.get("init_args") or {}).get("weights")
            yield from weights["grid"] if isinstance(weights, dict) else [weights]
        else:
            yield from _named_weights(list(part.values()))


def plan(configs: Iterable[JobConfig], draws: Draws) -> list[Job]:
    """Read the files of all jobs: data sets are prepared (downloaded or drawn) where they are not there.

    Args:
        configs: The jobs.
        draws: Of good images; keeps those that are used.
    """
    read: dict[str, Any] = {}
    return [_planned(config, draws, read) for config in configs]


def _planned(config: JobConfig, draws: Draws, read: dict[str, Any]) -> Job:
    from anomalib_dpclip.benchmark.contents import target_of

    training = ""
    try:
        target = _once(read, target_of, config.data)
        contents = [target.digest, _once(read, _model_digest, config.model.get("init_args", {}))]
        if config.training_key:
            contents.append(_once(read, _auxiliary_digest, config.auxiliary))
            training = f"{config.training_key}-{contents[-1]}"
        references = _references(config, target, draws)
    except Exception as error:  # noqa: BLE001  of any data module: the other jobs go on
        return Job(config, training, reason_of(error))
    return Job(replace(config, contents=" ".join(contents), references=references), training)


def _once(outcomes: dict[str, Any], read: Callable[[Any], Any], arguments: Any) -> Any:
    """What a function of the same arguments has given before, the error that it raised included."""
    key = f"{read.__name__} {arguments}"
    if key not in outcomes:
        try:
            outcomes[key] = read(arguments)
        except Exception as error:  # noqa: BLE001  raised again for each job that needs it
            outcomes[key] = error
    if isinstance(outcomes[key], Exception):
        raise outcomes[key]
    return outcomes[key]


def _model_digest(init_args: dict[str, Any]) -> str:
    from anomalib_dpclip.benchmark.contents import digest_of_all, model_files

    return digest_of_all(model_files(init_args))


def _auxiliary_digest(auxiliary: tuple[Any, Any]) -> str:
    from anomalib_dpclip.benchmark.contents import auxiliary_files, digest_of_all

    return digest_of_all(auxiliary_files(*auxiliary))


def _references(config: JobConfig, target: "Target", draws: Draws) -> tuple[str, ...]:
    if config.draw is None:
        return ()
    k = config.k_shot
    return draws.choose(config.target, target.normal, config.draw, k) if isinstance(k, int) else tuple(sorted(target.normal))


def reason_of(error: BaseException) -> str:
    """An error in a line."""
    return " ".join(f"{type(error).__name__}: {str(error) or error.__cause__}".split())
