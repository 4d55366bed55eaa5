"""Compare anomalib models on any data sets: jobs that fail alone, rows that last, and a run that goes on where it stopped.

The config is that of `anomalib benchmark`. Beyond it, models may differ in their arguments, zero-shot models run, DP-CLIP is
trained once for all categories, and each job has a process, and its peak memory, of its own.
"""

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any, NamedTuple

import pandas as pd
from tqdm import tqdm

from anomalib_dpclip.benchmark.config import SECTION, accelerators_of, job_configs, read_config, use_folders
from anomalib_dpclip.benchmark.draws import Draws
from anomalib_dpclip.benchmark.own_process import in_own_process
from anomalib_dpclip.benchmark.plan import Job, check_weights, plan, reason_of
from anomalib_dpclip.benchmark.rows import (
    DONE,
    FAILED,
    Result,
    identity_of,
    jobs_folder,
    read_beside,
    read_provenance,
    set_aside,
    write_result,
    write_tables,
)
from anomalib_dpclip.files.measured_by import measured_by

DRAWS = 3
"""Of good images, where a config does not say."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def benchmark(
    config: Path,
    out: Path | None = None,
    folders: str | None = None,
    fresh: bool = False,
    shift: str | None = None,
    image_scores: bool = True,
) -> int:
    """Run every job of a benchmark config that has not been done yet, and write its row to a CSV.

    Args:
        config: YAML in the schema of `anomalib benchmark`. A model or data entry may have a ``label`` for the tables, and
            ``benchmark`` has ``trainer`` (arguments of Lightning's Trainer), ``draws`` (of good images where a model is shown
            some of them: a number, by default 3, or a JSON file) and ``shift``.
        out: The CSV. By default runs/benchmark/ and the config's name; what belongs to it lies beside.
        folders: Folders to test on, with commas between, each in place of the config's own data set.
        fresh: Start over: set the CSV, and all that lies beside it, aside under another name.
        shift: Corruptions of the test images to measure as well, with commas between: light, jpeg, blur, noise, move.
        image_scores: Keep the score of each image, for intervals, tests and pictures.

    Returns:
        Exit status: 0 if every job of the config has succeeded, in this run or an earlier one, else 1.

    Raises:
        FileNotFoundError: The config, a folder, or adapters or draws that it names are not there.
        ValueError: The config is not one of benchmarks, its adapters are none, or the CSV is not one of results.
    """
    results = out or Path("runs") / "benchmark" / f"{config.stem}.csv"
    settings = read_config(config)
    check_weights(settings)
    if shift is not None:
        settings[SECTION]["shift"] = shift.split(",")
    if folders is not None:
        use_folders(settings, [Path(folder.strip()) for folder in folders.split(",")])
    draws = Draws(settings[SECTION].get("draws", DRAWS))
    configs = [job for accelerator in accelerators_of(settings) for job in job_configs(settings, accelerator, draws)]
    if fresh:
        set_aside(results)
    jobs = plan(configs, draws)
    given = {"config": config, "out": results, "folders": folders, "shift": shift}
    command = ["dpclip", "benchmark", *(word for name, value in given.items() if value for word in (f"--{name}", str(value)))]
    run = _Run(results, jobs, measured_by(shlex.join(command)), image_scores)
    draws.write(results.with_suffix(".draws.json"))
    print(run.what_comes(), flush=True)  # noqa: T201
    try:
        run.all()
    except KeyboardInterrupt:
        print(f"Interrupted; what is done is in {results}, and the same command goes on from there")  # noqa: T201
        return INTERRUPTED
    from anomalib_dpclip.benchmark.report.short_table import short_table

    rows = run.rows[run.rows["key"].isin([job.config.key for job in jobs])]
    done = int((rows["status"] == DONE).sum())
    print(f"{done} of {len(jobs)} jobs done: {results}\n\n{short_table(rows)}")  # noqa: T201  the answer
    return 0 if done == len(jobs) else 1


class _Training(NamedTuple):
    """Outcome of a training: its file, how long it took, and why there is none."""

    path: Path
    minutes: float
    reason: str = ""


class _Run:
    """A run of jobs.

    Args:
        results: The CSV.
        jobs: All jobs of the config.
        provenance: Comments of a new CSV.
        image_scores: Whether scores of images are kept.
    """

    def __init__(self, results: Path, jobs: list[Job], provenance: Mapping[str, str], image_scores: bool) -> None:
        self._results, self._jobs, self._image_scores = results, jobs, image_scores
        # What cannot be read now says nothing of what was measured of it before.
        current = {identity_of(job.config.identity): job.config.key for job in jobs if not job.reason}
        self._write = partial(write_tables, results, provenance, current)
        self._lock = Lock()
        self.rows: pd.DataFrame = self._write()

    def _pending(self) -> list[Job]:
        done = set(self.rows["key"][self.rows["status"] == DONE])
        shift = read_beside(self._results, "shift")
        corrupted = set(zip(shift["key"], shift["corruption"], strict=True)) if len(shift) else set()
        return [
            job
            for job in self._jobs
            if job.config.key not in done or not {(job.config.key, name) for name in job.config.shift} <= corrupted
        ]

    def what_comes(self) -> str:
        """How much there is to run, before minutes without a word; and where the rows come from that are there already."""
        jobs, pending = self._jobs, self._pending()
        source = "; ".join(line for line in read_provenance(self._results) if line.startswith(("commit", "machine")))
        before = f" ({len(jobs) - len(pending)} were done before and stay as they are; the file's head: {source})"
        if not pending:
            return (
                f"Nothing is measured: all {len(jobs)} jobs are in {self._results} already, made by {source}. Measure anew "
                f"with another --out, or with --fresh, which sets this file aside"
            )
        trainings, before = len({job.training for job in pending} - {""}), before if len(pending) < len(jobs) else ""
        return f"{len(pending)} of {len(jobs)} jobs to run{before}, {trainings} trainings first"

    def all(self) -> None:
        """Tell what cannot run, train, and measure, on each device one job at a time."""
        import torch

        pending = self._pending()
        self._refuse([(job, job.reason) for job in pending if job.reason])
        ready = [job for job in pending if not job.reason]
        for accelerator in dict.fromkeys(job.config.accelerator for job in ready):
            here = self._buildable([job for job in ready if job.config.accelerator == accelerator], accelerator)
            devices = range(torch.cuda.device_count()) if accelerator == "cuda" else [None]
            first = {job.training: job for job in here if job.training}
            trained = dict(zip(first, _on(devices, self._train, first.values(), "trainings"), strict=True))
            _on(devices, partial(self._measure, trained=trained), here, "jobs")

    def _buildable(self, jobs: list[Job], accelerator: str) -> list[Job]:
        """Jobs whose models can be built here; the others fail at once."""
        import torch

        from anomalib_dpclip.benchmark.measure import check_model

        if accelerator == "cuda" and not torch.cuda.is_available():
            reasons = dict.fromkeys(map(_model_of, jobs), "there is no GPU here: set `accelerator: cpu` in the config")
        else:
            models = {_model_of(job): job for job in jobs}
            reasons = {model: _error_of(check_model, job.config) for model, job in models.items()}
        self._refuse([(job, reasons[_model_of(job)]) for job in jobs if reasons[_model_of(job)]])
        return [job for job in jobs if not reasons[_model_of(job)]]

    def _train(self, job: Job, device: int | None) -> _Training:
        """Train, unless done before."""
        from anomalib_dpclip.benchmark.measure import train_adapters

        path = jobs_folder(self._results) / f"{job.training}.safetensors"
        reason = "" if path.exists() else _error_of(train_adapters, job.config, device, path)
        if reason:
            return _Training(path, 0.0, f"training of the adapters: {reason}")
        return _Training(path, json.loads(path.with_suffix(".minutes").read_text(encoding="utf-8")))

    def _measure(self, job: Job, device: int | None, trained: Mapping[str, _Training]) -> None:
        from anomalib_dpclip.benchmark.measure import measure

        training = trained.get(job.training)
        if training is not None and training.reason:
            self._keep(_failure(job, training.reason))
            return
        adapters = (training.path, training.minutes) if training else (None, 0.0)
        try:
            self._keep(in_own_process(measure, job.config, device, *adapters))
        except RuntimeError as error:
            self._keep(_failure(job, reason_of(error)))

    def _refuse(self, jobs: list[tuple[Job, str]]) -> None:
        """Keep that jobs cannot run, and say each reason once."""
        if not jobs:
            return
        refused = [_failure(*each) for each in jobs]
        for result in refused:
            write_result(self._results, result)
        self.rows = self._write()
        for reason in dict.fromkeys(reason for _, reason in jobs):
            first, *others = (result.row for result in refused if result.row["reason"] == reason)
            same = f" (and so {len(others)} more)" if others else ""
            tqdm.write(f"{_title(first)}: {_outcome(first)}{same}")

    def _keep(self, result: Result) -> None:
        """Write a job's file and the tables, and say what came out."""
        with self._lock:
            write_result(self._results, result if self._image_scores else result._replace(images=()))
            self.rows = self._write()
        tqdm.write(f"{_title(result.row)}: {_outcome(result.row)}")


def _title(row: Mapping[str, Any]) -> str:
    name = " / ".join(str(row[each]) for each in ("label", "data_set", "category"))
    draw = f" / draw {row['draw']}" if row["draw"] else ""
    return f"{name} / seed {row['seed']}{draw}"


def _outcome(row: Mapping[str, Any]) -> str:
    if row["status"] != DONE:
        return f"{row['status']}: {row['reason']}"
    known = [
        f"{what} {row[name]:.3f}"
        for name, what in (("image_AUROC", "image AUROC"), ("pixel_AUROC", "pixel AUROC"))
        if row[name] is not None
    ]
    return ", ".join([*known, *([row["reason"]] if row["reason"] else [])])


def _failure(job: Job, reason: str) -> Result:
    config = job.config
    return Result({**config.identity, "model": config.model_name, "key": config.key, "status": FAILED, "reason": reason})


def _model_of(job: Job) -> str:
    return json.dumps([job.config.model, job.config.accelerator, len(job.config.references)], sort_keys=True)


def _error_of(check: Callable[..., str], *arguments: Any) -> str:
    try:
        return in_own_process(check, *arguments)
    except RuntimeError as error:
        return reason_of(error)


def _on(devices: Iterable[int | None], work: Callable[[Job, int | None], Any], jobs: Iterable[Job], what: str) -> list[Any]:
    """Results of jobs in their order, on each device one at a time."""
    free: SimpleQueue[int | None] = SimpleQueue()
    chosen = list(devices)
    for device in chosen:
        free.put(device)

    def on_a_free_one(job: Job) -> Any:
        device = free.get()
        try:
            return work(job, device)
        finally:
            free.put(device)

    waiting = list(jobs)
    with ThreadPoolExecutor(len(chosen)) as pool:
        try:
            return list(tqdm(pool.map(on_a_free_one, waiting), desc=what, total=len(waiting), disable=not waiting))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
