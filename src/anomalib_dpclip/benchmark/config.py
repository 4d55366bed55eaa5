"""Benchmark configs: anomalib's schema, taken apart into one plain description a job."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anomalib_dpclip.benchmark.draws import Draws
from anomalib_dpclip.benchmark.rows import ALL, FAILED, IDENTITY, Result

SECTION = "benchmark"

ACCELERATORS = ("cpu", "cuda")
"""That anomalib's runners know."""

# Parts of a config that tables show without a label.
_SHOWN_ANYWAY = {
    *("model.class_path", "model.label", "data.class_path", "data.label"),
    *("data.init_args.category", "data.init_args.name", "data.init_args.metadata"),
}

_SCORING_ARGUMENTS = {"tiles", "k_shot", "few_shot_source", "memory_backbone", "memory", "lot", "false_alarm_rate", "export"}
"""Arguments of DP-CLIP that training does not depend on: models that differ in these share a training."""

HIGHEST_SEED = 2**32 - 1
"""That `lightning.seed_everything` takes."""


@dataclass(frozen=True)
class Job:
    """What one job runs, as plain data that can be sent to another process.

    Attributes:
        label: The model's name in tables; ``data_set`` likewise.
        category: The category, or `ALL` for a data set that is tested as a whole.
        model: As `anomalib.models.get_model` takes it, and for anomalib's own models ``k_shot`` and ``network``.
        data: As `anomalib.data.get_datamodule` takes it.
        draw: Number of the draw of good images; ``None`` where none are drawn.
        references: Names of the images of this draw; this and what follows is known once the files have been read.
        contents: Digest of the files that the job reads.
        training: Name of the training that its adapters come from; empty if none is needed.
        reason: Why it cannot run; empty if it can.
    """

    label: str
    data_set: str
    category: str
    accelerator: str
    seed: int
    model: dict[str, Any]
    data: dict[str, Any]
    trainer: dict[str, Any]
    shift: tuple[str, ...] = ()
    draw: int | None = None
    references: tuple[str, ...] = ()
    contents: str = ""
    training: str = ""
    reason: str = ""

    @property
    def key(self) -> str:
        """Short hash of what the job runs and reads; corruptions are measured beside the row, which is the same without."""
        names = ("accelerator", "seed", "model", "data", "trainer", "draw", "references", "contents")
        return _hash({name: getattr(self, name) for name in names})

    @property
    def identity(self) -> dict[str, str]:
        """What the job's row is of, whatever its settings: cells by their columns."""
        return {name: "" if (value := getattr(self, name)) is None else str(value) for name in IDENTITY}

    def failed(self, reason: str, log: str = "") -> Result:
        """The result of a job that could not be measured."""
        cells = {"model": _class_name(self.model), "key": self.key, "status": FAILED, "reason": reason}
        return Result({**self.identity, **cells}, log=log)

    @property
    def is_ours(self) -> bool:
        """Whether it measures DP-CLIP."""
        return _class_name(self.model) == "DPCLIP"

    @property
    def init_args(self) -> dict[str, Any]:
        """The model's arguments."""
        return self.model.get("init_args", {})

    @property
    def k_shot(self) -> int | str:
        """How many good images the model is shown (anomalib's own learn from these alone), ``"all"``, or 0 for none said."""
        return self.model.get("k_shot") or self.init_args.get("k_shot") or 0

    @property
    def target(self) -> str:
        """``"data set/category"``."""
        return f"{self.data_set}/{self.category}"

    @property
    def auxiliary(self) -> tuple[Any, Any]:
        """``auxiliary`` and ``training.auxiliary_root`` that DP-CLIP would choose for this target."""
        from anomalib_dpclip.auxiliary.auxiliary_set import default_auxiliary

        auxiliary, root = self.init_args.get("auxiliary"), (self.init_args.get("training") or {}).get("auxiliary_root")
        if auxiliary is None:
            auxiliary = default_auxiliary(_name_of(self.data))
            if auxiliary == _class_name(self.data):  # Surfaces: what is learned lies beside what is tested
                root = root or self.data.get("init_args", {}).get("root")
        return auxiliary, root

    @property
    def training_key(self) -> str | None:
        """Identity of the training that DP-CLIP's adapters come from, the same for all targets that share it.

        ``None`` if nothing is to be trained, or the model trains by itself for this target alone.
        """
        if not self.is_ours or self.init_args.get("weights") or self.auxiliary[0] == "synthetic":  # the target's own images
            return None
        return _hash([self.accelerator, self.seed, self.trainer, self.learner().init_args, self.auxiliary])

    def learner(self) -> "Job":
        """The same model as far as learning sees it."""
        learned = {name: value for name, value in self.init_args.items() if name not in _SCORING_ARGUMENTS}
        return replace(self, model=self.model | {"init_args": learned})


def _class_name(entry: dict[str, Any]) -> str:
    return entry["class_path"].rpartition(".")[2]


def _name_of(data: dict[str, Any]) -> str:
    """The data set's name as its data module gives it, by which the default auxiliary set is chosen."""
    init_args = data.get("init_args", {})
    folder = Path(str(init_args["metadata"])).resolve().parent.name if init_args.get("metadata") else None
    return str(init_args.get("name") or folder or _class_name(data))


def _hash(value: Any) -> str:
    """Short hash of JSON-like values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def read_config(path: Path) -> dict[str, Any]:
    """A benchmark config with its references (``${oc.env:NAME,default}``) resolved, its ``accelerator`` a list."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such benchmark config; configs/benchmark/ has some to start from")
    try:
        sections: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, OSError) as error:
        raise ValueError(f"{path}: {error}") from error
    section = sections.get(SECTION) if isinstance(sections, dict) else None
    missing = {"seed", "model", "data"} - set(section if isinstance(section, dict) else ())
    if missing:
        raise ValueError(
            f"{path}: its section `{SECTION}` must have seed, model and data; missing: {', '.join(sorted(missing))}"
        )
    given = sections.get("accelerator", "cpu")
    accelerators = given if isinstance(given, list) else [given]
    if not accelerators or any(each not in ACCELERATORS for each in accelerators):
        raise ValueError(f"{path}: accelerator must be one of {', '.join(ACCELERATORS)}, or a list of these, not {given!r}")
    return sections | {"accelerator": accelerators}


def use_folders(config: dict[str, Any], folders: Sequence[Path]) -> None:
    """Test on folders of one layout, each in place of the ``root`` of the config's data set, and called as the folder is."""
    data = config[SECTION]["data"]
    if not isinstance(data, dict) or "root" not in (data.get("init_args") or {}):
        raise ValueError(f"folders take the place of `{SECTION}.data.init_args.root`, which this config does not have")
    entries = []
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"folders: there is no folder {folder}")
        names = {"name": folder.name or folder.resolve().name} if "name" in data["init_args"] else {}
        entries.append(data | {"init_args": data["init_args"] | {"root": str(folder)} | names})
    config[SECTION]["data"] = {"grid": entries}


def jobs_of(config: dict[str, Any], draws: Draws | None = None) -> list[Job]:
    """Every combination of a config's grids, models that are shown some good images once for each draw (by default one).

    A ValueError names what is of another kind than it must be, or could not be told apart in tables.
    """
    from anomalib.pipelines.components.utils import get_iterator_from_grid_dict
    from anomalib.utils.config import flatten_dict

    section = config[SECTION]
    grids = {name.removesuffix(".grid"): values for name, values in flatten_dict(section).items() if name.endswith(".grid")}
    for name, values in grids.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"`{SECTION}.{name}.grid` must be a list of at least one value, got {values!r}")
    jobs = [
        _job(combination, accelerator, tuple(grids))
        for accelerator in config.get("accelerator", ["cpu"])
        for combination in get_iterator_from_grid_dict(section)
    ]
    models: dict[str, Any] = {}
    targets: dict[str, Any] = {}
    for job in jobs:
        if models.setdefault(job.label, (job.model, job.trainer)) != (job.model, job.trainer):
            raise ValueError(f"two different models are called {job.label!r}: give each its own `label`, beside its class_path")
        if targets.setdefault(job.target, job.data) != job.data:
            raise ValueError(
                f"two different data sets are called {job.data_set!r}, category {job.category!r}: give each its own `label`, "
                f"beside its class_path"
            )
    return [drawn for job in jobs for drawn in _drawn(job, draws or Draws(1))]


def _drawn(job: Job, draws: Draws) -> list[Job]:
    """A job for each draw of the good images that its model is shown."""
    if not job.k_shot or job.init_args.get("few_shot_source"):
        return [job]
    return [replace(job, draw=draw) for draw in range(draws.count(job.target) if isinstance(job.k_shot, int) else 1)]


def _job(combination: dict[str, Any], accelerator: str, grids: tuple[str, ...]) -> Job:
    """A job of one combination, whose arguments that stand in a grid become part of the labels."""
    from anomalib.utils.config import flatten_dict

    from anomalib_dpclip.benchmark.corruptions import chosen_corruptions

    seed, trainer = combination.get("seed"), combination.get("trainer") or {}
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= HIGHEST_SEED:
        raise ValueError(f"`{SECTION}.seed` must be a whole number in 0..{HIGHEST_SEED}, got {seed!r}")
    if not isinstance(trainer, dict):
        raise ValueError(f"`{SECTION}.trainer` must be arguments of Lightning's Trainer by their names, got {trainer!r}")
    model, data = _entry(combination, "model"), _entry(combination, "data")
    varied = {
        name: f"{name.rpartition('.')[2]}={value}"
        for name, value in flatten_dict({"model": model, "data": data, "trainer": trainer}).items()
        if name in grids and name not in _SHOWN_ANYWAY
    }
    label, data_set = model.get("label", _class_name(model)), data.get("label") or _name_of(data)
    category, shift = str(data.get("init_args", {}).get("category") or ALL), chosen_corruptions(combination.get("shift"))
    job = Job(label, data_set, category, accelerator, seed, model, data, trainer, shift)
    if job.init_args.get("lot"):  # it is compared with itself, corrupted like it, and sets its thresholds there
        job = replace(job, shift=())
    if job.k_shot != "all" and (not isinstance(job.k_shot, int) or isinstance(job.k_shot, bool) or job.k_shot < 0):
        raise ValueError(f"`{SECTION}.model` {label}: k_shot must be a number of images from 0, or all, got {job.k_shot!r}")
    of_data = [text for name, text in varied.items() if name.startswith("data.")]
    of_model = [text for name, text in varied.items() if not name.startswith("data.")]
    return replace(job, label=", ".join([label, *of_model]), data_set=", ".join([data_set, *of_data]))


def _entry(combination: dict[str, Any], name: str) -> dict[str, Any]:
    """A model or data entry, without what is empty in it."""
    entry = combination.get(name)
    if not isinstance(entry, dict) or not isinstance(entry.get("class_path"), str):
        raise ValueError(f"`{SECTION}.{name}` must have a class_path, the name of a class, got {entry!r}")
    for part, kind, what in (("label", str, "text"), ("init_args", dict, "arguments by their names")):
        if not isinstance(entry.get(part), kind | None):
            raise ValueError(f"`{SECTION}.{name}.{part}` of {entry['class_path']} must be {what}, got {entry[part]!r}")
    return {part: value for part, value in entry.items() if value is not None}
