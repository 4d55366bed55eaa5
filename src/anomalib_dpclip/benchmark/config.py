"""Benchmark configs: anomalib's schema, taken apart into one plain description a job."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from anomalib.pipelines.components.utils import get_iterator_from_grid_dict
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anomalib_dpclip.benchmark.rows import ALL, row_key

SECTION = "benchmark"


@dataclass(frozen=True)
class JobConfig:
    """What one job runs, as plain data that can be sent to another process.

    Attributes:
        accelerator: ``"cpu"`` or ``"cuda"``.
        seed: Of everything random.
        model: As `anomalib.models.get_model` takes it, and an optional ``label`` for the tables.
        data: As `anomalib.data.get_datamodule` takes it, and an optional ``label`` for the tables.
        trainer: Arguments of Lightning's Trainer.
    """

    accelerator: str
    seed: int
    model: dict[str, Any]
    data: dict[str, Any]
    trainer: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Identity of the job's row."""
        return row_key(asdict(self))

    @property
    def label(self) -> str:
        """The model's name in tables."""
        return self.model.get("label", self.model_name)

    @property
    def model_name(self) -> str:
        """The model's class."""
        return _class_name(self.model)

    @property
    def data_set(self) -> str:
        """The data set's name in tables."""
        init_args = self.data.get("init_args", {})
        return self.data.get("label") or init_args.get("name") or _class_name(self.data)

    @property
    def category(self) -> str:
        """The category, or `ALL` for a data set that is tested as a whole."""
        return str(self.data.get("init_args", {}).get("category") or ALL)

    @property
    def training_key(self) -> str | None:
        """Identity of the training that DP-CLIP's adapters come from, the same for all targets that share it.

        ``None`` if nothing is to be trained, or the model trains by itself for this target alone.
        """
        init_args = self.model.get("init_args", {})
        if self.model_name != "DPCLIP" or init_args.get("weights"):
            return None
        from anomalib_dpclip.auxiliary.samples import default_auxiliary

        auxiliary = init_args.get("auxiliary") or default_auxiliary(_class_name(self.data))
        if auxiliary == "synthetic":  # made from the target's own images
            return None
        learned = {name: value for name, value in init_args.items() if name != "tiles"}  # which learning does not see
        return row_key(self.accelerator, self.seed, self.trainer, learned, auxiliary)


def read_config(path: Path) -> dict[str, Any]:
    """A benchmark config with its references (``${oc.env:NAME,default}``) resolved.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It is not one of benchmarks.
    """
    if not path.is_file():
        msg = f"{path}: no such benchmark config; configs/benchmark/ has some to start from"
        raise FileNotFoundError(msg)
    try:
        sections = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, OSError) as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from error
    section = sections.get(SECTION) if isinstance(sections, dict) else None
    missing = {"seed", "model", "data"} - set(section if isinstance(section, dict) else ())
    if not isinstance(sections, dict) or missing:
        msg = f"{path}: its section `{SECTION}` must have seed, model and data; missing: {', '.join(sorted(missing))}"
        raise ValueError(msg)
    return {str(name): value for name, value in sections.items()}


def job_configs(config: dict[str, Any], accelerator: str) -> list[JobConfig]:
    """Every combination of a config's grid.

    Raises:
        ValueError: A model or data set has no class, or two different models share a label.
    """
    jobs = []
    models: dict[str, dict] = {}
    for combination in get_iterator_from_grid_dict(config[SECTION]):
        for name in ("model", "data"):
            if "class_path" not in combination[name]:
                msg = f"`{SECTION}.{name}` must have a class_path, got {combination[name]}"
                raise ValueError(msg)
        job = JobConfig(
            accelerator=accelerator,
            seed=combination["seed"],
            model=combination["model"],
            data=combination["data"],
            trainer=combination.get("trainer") or {},
        )
        if models.setdefault(job.label, job.model) != job.model:
            msg = f"two different models are called {job.label!r}: give each its own `label`, beside its class_path"
            raise ValueError(msg)
        jobs.append(job)
    return jobs


def _class_name(entry: dict[str, Any]) -> str:
    return entry["class_path"].rpartition(".")[2]
