"""What is settled before the first job runs: which files each reads, which good images it is shown, and what cannot run.

A job whose files have changed is another job: the digest of their contents is part of its key.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_dpclip.adapter_files.adapter_file import UNADAPTED
from anomalib_dpclip.adapter_files.read_and_write import read_adapters
from anomalib_dpclip.benchmark.config import Job
from anomalib_dpclip.benchmark.draws import Draws
from anomalib_dpclip.benchmark.own_process import reason_of

if TYPE_CHECKING:  # imported by what needs it, after everything that can be wrong with the config
    import pandas as pd
    from anomalib.data import AnomalibDataModule


def check_weights(config: Any) -> None:
    """Make sure that the adapters named in a config, or by ``DPCLIP_WEIGHTS`` there, can be read; else raise what is wrong."""
    for weights in dict.fromkeys(each for each in _named_weights(config) if each and each != UNADAPTED):
        try:
            read_adapters(weights)
        except (OSError, ValueError) as error:
            kind = FileNotFoundError if isinstance(error, OSError) else ValueError
            raise kind(f"weights {weights}, of the config or of DPCLIP_WEIGHTS: {error}") from error


def _named_weights(part: Any) -> Iterator[Any]:
    """Weights of all models of ours in a part of a config, grids included, whatever else may be wrong with it."""
    if isinstance(part, list):
        for each in part:
            yield from _named_weights(each)
    elif isinstance(part, dict) and str(part.get("class_path")).rpartition(".")[2] == "DPCLIP":
        weights = (part.get("init_args") or {}).get("weights")
        yield from weights["grid"] if isinstance(weights, dict) else [weights]
    elif isinstance(part, dict):
        yield from _named_weights(list(part.values()))


def plan(jobs: Iterable[Job], draws: Draws) -> list[Job]:
    """The same jobs, once their files have been read: data sets are prepared (downloaded or drawn) where they are not there."""
    read: dict[str, Any] = {}
    return [_planned(job, draws, read) for job in jobs]


def _planned(job: Job, draws: Draws, read: dict[str, Any]) -> Job:
    training, references = "", tuple[str, ...]()
    try:
        normal, digest = _once(read, files_of_target, job.data)
        contents = [digest, _once(read, _model_digest, job.init_args)]
        if job.training_key:
            contents.append(_once(read, _auxiliary_digest, job.auxiliary))
            training = f"{job.training_key}-{contents[-1]}"
        if job.draw is not None:
            k = job.k_shot
            references = draws.choose(job.target, normal, job.draw, k) if isinstance(k, int) else tuple(sorted(normal))
    except Exception as error:  # noqa: BLE001  of any data module: the other jobs go on
        return replace(job, training=training, reason=reason_of(error))
    return replace(job, contents=" ".join(contents), references=references, training=training)


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


def files_of_target(data: dict[str, Any]) -> tuple[dict[str, str], str]:
    """Prepare a data set (downloaded or drawn where it is not there) and read its files.

    Returns:
        Digest of each normal training image, by its name, and of all files.
    """
    from urllib.error import URLError

    from anomalib.data import get_datamodule

    from anomalib_dpclip.files.downloads import network_timeout

    datamodule = get_datamodule(data)
    root = root_of(datamodule)
    try:
        with network_timeout():
            datamodule.prepare_data()
    except URLError as error:
        raise FileNotFoundError(
            f"{datamodule.name} is not in {root}, and cannot be downloaded ({error.reason}): fetch it elsewhere, and name its "
            f"folder with `root`"
        ) from error
    datamodule.setup()
    train, *others = (getattr(datamodule, f"{split}_data", None) for split in ("train", "val", "test"))
    files = [path for split in (train, *others) if split is not None for path in _paths_in(split.samples)]
    normal = [] if train is None else train.samples.image_path[train.samples.label_index == 0]
    return {name_of(path, root): digest_of(path) for path in normal}, digest_of_all(files, root)


def _paths_in(samples: "pd.DataFrame") -> list[str]:
    """Images and masks."""
    from anomalib_dpclip.data.labelled_sets import is_path

    return [path for column in ("image_path", "mask_path") for path in samples[column] if is_path(path)]


def root_of(datamodule: "AnomalibDataModule") -> Path:
    """Folder that images of a data module are named in: its root."""
    return Path(getattr(datamodule, "root", None) or ".").resolve()


def name_of(path: str | Path, root: Path) -> str:
    """An image's path relative to a folder, the same on every machine; the whole path where it lies elsewhere."""
    absolute = Path(path).resolve()
    return (absolute.relative_to(root) if absolute.is_relative_to(root) else absolute).as_posix()


def _model_digest(init_args: dict[str, Any]) -> str:
    """Of the files that a model's arguments name: weights, lists, pictures, and all photos of a folder."""
    from anomalib.utils.config import flatten_dict

    from anomalib_dpclip.data.photo_files import photo_files

    arguments = flatten_dict(init_args).items()
    # A job may read a part only of the folder of auxiliary sets.
    named = [Path(value) for name, value in arguments if isinstance(value, str) and not name.endswith("auxiliary_root")]
    files = [path for path in named if path.is_file()]
    return digest_of_all([*files, *(photo for path in named if path.is_dir() for photo in photo_files(path))])


def _auxiliary_digest(auxiliary: tuple[Any, Any]) -> str:
    return digest_of_all(auxiliary_files(*auxiliary))


def auxiliary_files(auxiliary: str | list[str], root: str | list[str] | None) -> list[str]:
    """Images and masks of labelled sets to learn from, named as in `DPCLIP`, which are prepared first."""
    from anomalib_dpclip.auxiliary.auxiliary_set import AuxiliarySet

    learned = AuxiliarySet(auxiliary, root, shots=None, unmasked=True, seed=0)
    learned.prepare(None)
    return _paths_in(learned.samples(None))


def digest_of_all(paths: Iterable[str | Path], root: Path | None = None) -> str:
    """One digest of the contents of files, and of their names relative to a folder if one is given, whatever their order."""
    parts = sorted({("" if root is None else name_of(path, root)) + digest_of(path) for path in paths})
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@cache
def digest_of(path: str | Path) -> str:
    """SHA-256 of a file, read once a process."""
    with Path(path).open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()
