"""The two kinds of benchmark jobs: train adapters, and measure one model on one category. Neither ever raises."""

import copy
import io
import json
import logging
import math
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pandas as pd
from anomalib import LearningType
from anomalib.data import AnomalibDataModule, get_datamodule
from anomalib.engine import Engine
from anomalib.metrics import Evaluator
from anomalib.models import AnomalibModule, get_model
from anomalib.pipelines.benchmark.job import BenchmarkJob
from lightning import seed_everything
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from tqdm import tqdm

from anomalib_dpclip.benchmark.config import JobConfig
from anomalib_dpclip.benchmark.knowledge import knowledge_of
from anomalib_dpclip.benchmark.peak_memory import PeakMemory
from anomalib_dpclip.benchmark.rows import DONE, FAILED, LEAK, LINE_METRICS, METRICS, append_row
from anomalib_dpclip.metrics import field_metrics, line_metrics

if TYPE_CHECKING:
    from anomalib_dpclip.model.lightning_model import DPCLIP

logger = logging.getLogger(__name__)


class TrainedAdapters(NamedTuple):
    """Outcome of a training: its file, or why there is none."""

    path: str
    training_minutes: float
    reason: str = ""


class AdaptersJob(BenchmarkJob):
    """Trains DP-CLIP once, for all categories to be tested with it.

    Args:
        config: The model, its seed, and any of the targets (which it is not trained on).
        key: Identity of the training.
        folder: Where the adapters go; those of an earlier run are used again.
    """

    name = "adapters"

    def __init__(self, config: JobConfig, key: str, folder: Path) -> None:
        self.config = config
        self.key = key
        self.path = folder / f"{key}.safetensors"
        self.record = self.path.with_suffix(".json")

    def run(self, task_id: int | None = None) -> dict[str, TrainedAdapters]:
        """Train, unless done before."""
        error = "" if self.path.exists() else _quietly(lambda: self._train(task_id))
        if error:
            return {self.key: TrainedAdapters("", math.nan, f"training of the adapters: {error}")}
        return {self.key: TrainedAdapters(str(self.path), **json.loads(self.record.read_text(encoding="utf-8")))}

    def _train(self, task_id: int | None) -> None:
        from anomalib_dpclip.adapter_files.save_and_load import save_adapters

        timer = Timer()
        with TemporaryDirectory() as folder:
            seed_everything(self.config.seed)
            model = _build_model(self.config.training)
            model.visualizer = None
            # Without a target: adapters do not depend on any, and each of those that share them is looked at when tested.
            engine = _engine(self.config, task_id, folder, callbacks=[timer], limit_val_batches=0)
            engine.fit(model=model)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            minutes = {"training_minutes": timer.time_elapsed("train") / 60}
            self.record.write_text(json.dumps(minutes), encoding="utf-8")
            save_adapters(cast("DPCLIP", model), self.path)  # last and whole or not at all: where it is, the training is done

    @staticmethod
    def collect(results: list[dict[str, TrainedAdapters]]) -> dict[str, TrainedAdapters]:
        """All trainings by their keys, for the next stage."""
        return {key: adapters for result in results for key, adapters in result.items()}

    @staticmethod
    def save(result: dict[str, TrainedAdapters]) -> None:
        """Nothing left to do: each job has written its file."""


class RowJob(BenchmarkJob):
    """Measures one model on one category and appends its row.

    Args:
        config: What to run.
        results: CSV to append to.
        adapters: DP-CLIP's, trained by an `AdaptersJob`; ``None`` for a model that trains itself, or needs no training.
    """

    def __init__(self, config: JobConfig, results: Path, adapters: TrainedAdapters | None = None) -> None:
        self.config = config
        self.results = results
        self.adapters = adapters

    def run(self, task_id: int | None = None) -> dict[str, Any]:
        """Run the job; a failure is a row too, with its reason."""
        config = self.config
        row: dict[str, Any] = {
            "label": config.label,
            "model": config.model_name,
            "data_set": config.data_set,
            "category": config.category,
            "seed": config.seed,
            "accelerator": config.accelerator,
            "key": config.key,
            "status": DONE,
        }
        reason = self.adapters.reason if self.adapters else ""
        reason = reason or _quietly(lambda: row.update(self._measure(task_id)))
        if reason:
            row |= {"status": FAILED, "reason": reason}
        append_row(self.results, row)
        outcome = f"image AUROC {row.get('image_AUROC', math.nan):.3f}, pixel AUROC {row.get('pixel_AUROC', math.nan):.3f}"
        if row["status"] != DONE:
            outcome = f"{row['status']}: {row['reason']}"
        tqdm.write(f"{config.label} / {config.data_set} / {config.category} / seed {config.seed}: {outcome}")
        return row

    def _measure(self, task_id: int | None) -> dict[str, Any]:
        """Metrics and costs; and `LEAK` as the status, with its reason, where they are of images learned from."""
        memory = PeakMemory((task_id or 0) if self.config.accelerator == "cuda" else None)
        timer = Timer()
        with TemporaryDirectory() as folder:
            seed_everything(self.config.seed)
            model = _build_model(self.config, self.adapters.path if self.adapters else None)
            datamodule = get_datamodule(self.config.data)
            val_metrics = list(getattr(model.evaluator, "val_metrics", ()))  # some models stop early by them
            model.evaluator = Evaluator(val_metrics=val_metrics, test_metrics=[*field_metrics(), *line_metrics()])
            model.visualizer = None  # one picture an image would be most of the time measured
            engine = _engine(self.config, task_id, folder, callbacks=[timer])
            if model.learning_type == LearningType.ONE_CLASS:  # others are only validated, which testing does too
                engine.fit(model=model, datamodule=datamodule)
            (metrics,) = engine.test(model=model, datamodule=datamodule)
        return {
            **self._leak(model, datamodule),
            "knows": knowledge_of(model),
            **{name: metrics[name] for name in (*METRICS, *LINE_METRICS)},
            "images_per_second": _tested_images(engine.trainer, datamodule) / timer.time_elapsed("test"),
            "training_minutes": self.adapters.training_minutes if self.adapters else timer.time_elapsed("train") / 60,
            "peak_memory_mb": memory.mebibytes(),
        }

    def _leak(self, model: AnomalibModule, datamodule: AnomalibDataModule) -> dict[str, str]:
        """Status and reason of a row that tested what its adapters have learned from; nothing for a sound one."""
        from anomalib_dpclip.auxiliary.leakage import find_test_duplicate, learned_and_tested

        if self.config.model_name != "DPCLIP" or model.learning_type == LearningType.ONE_CLASS:
            return {}  # the latter has made sure of it before it learned
        adapted = cast("DPCLIP", model)
        source = learned_and_tested(adapted.provenance.learned_from, datamodule)
        if source is None and self.adapters:  # of other adapters the images that they learned from are not known
            learned = list(adapted.auxiliary.samples(datamodule).image_path)
            _, source = find_test_duplicate(learned, datamodule) or (None, None)
        return {} if source is None else {"status": LEAK, "reason": f"it has learned from {source}, which it was tested on"}

    @staticmethod
    def collect(results: list[dict[str, Any]]) -> pd.DataFrame:
        """All rows of this run; none where all were done before."""
        return pd.DataFrame(results)

    @staticmethod
    def save(result: pd.DataFrame) -> None:
        """Nothing left to do: each job has appended its row."""


def _build_model(config: JobConfig, weights: str | None = None) -> AnomalibModule:
    """The config's model; DP-CLIP with the adapters, if given, and the job's seed, unless the config has one for it."""
    model = copy.deepcopy(config.model)
    if config.model_name == "DPCLIP":
        init_args = model.setdefault("init_args", {})
        init_args.setdefault("seed", config.seed)
        if config.training_key:  # which is shared by targets that choose the same set, and is learned without any of them
            init_args |= config.auxiliary
        if weights is not None:
            init_args["weights"] = weights
    return get_model(model)


def _engine(config: JobConfig, task_id: int | None, folder: str, **arguments: Any) -> Engine:
    devices = "auto" if task_id is None else [task_id]
    return Engine(accelerator=config.accelerator, devices=devices, default_root_dir=folder, **{**config.trainer, **arguments})


def _tested_images(trainer: Trainer, datamodule: AnomalibDataModule) -> float:
    """Images of a test run, which the trainer may have cut short."""
    return min(len(datamodule.test_data), sum(trainer.num_test_batches) * datamodule.eval_batch_size)


def _quietly(work: Callable[[], None]) -> str:
    """Do something without its output, as anomalib does; return what went wrong, or nothing."""
    output = io.StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(output):
            work()
    except Exception as error:
        # Whatever goes wrong inside some model must not end the others' jobs; the traceback is in the pipeline's log.
        logger.exception("A benchmark job failed.")
        return " ".join(f"{type(error).__name__}: {str(error) or error.__cause__}".split())
    return ""
