"""Compare anomalib models on any data sets: jobs that fail alone, rows that last, and a run that goes on where it stopped.

The config is that of `anomalib benchmark`. Beyond it, models may differ in their arguments, zero-shot models run, DP-CLIP is
trained once for all categories, and each job has a process, and its peak memory, of its own.
"""

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

import pandas as pd
from tqdm import tqdm

from anomalib_dpclip.benchmark.config import SECTION, Job, jobs_of, read_config, use_folders
from anomalib_dpclip.benchmark.draws import Draws
from anomalib_dpclip.benchmark.own_process import Outcome, in_own_process
from anomalib_dpclip.benchmark.plan import check_weights, plan
from anomalib_dpclip.benchmark.rows import (
    DONE,
    Result,
    identity_of,
    jobs_folder,
    read_provenance,
    read_results,
    set_aside,
    take_up,
    title_of,
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
    check_weights(settings)  # before imports that take seconds
    if shift is not None:
        settings[SECTION]["shift"] = shift.split(",")
    if folders is not None:
        use_folders(settings, [Path(folder.strip()) for folder in folders.split(",")])
    draws = Draws(settings[SECTION].get("draws", DRAWS))
    configured = jobs_of(settings, draws)
    if fresh:
        set_aside(results)
    jobs = plan(configured, draws)
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
    from anomalib_dpclip.benchmark.report.summary import short_table

    rows = run.rows[run.rows["key"].isin([job.key for job in jobs])]
    done = int((rows["status"] == DONE).sum())
    print(f"{done} of {len(jobs)} jobs done: {results}\n\n{short_table(rows)}")  # noqa: T201  the answer
    return 0 if done == len(jobs) else 1


class _Run:
    """A run of all jobs of a config, whose rows go to a CSV under comments of how they are made."""

    def __init__(self, results: Path, jobs: list[Job], provenance: Mapping[str, str], image_scores: bool) -> None:
        self._results, self._jobs, self._image_scores = results, jobs, image_scores
        # What cannot be read now says nothing of what was measured of it before.
        current = {identity_of(job.identity): job.key for job in jobs if not job.reason}
        take_up(results, current)
        self._write = partial(write_tables, results, provenance, list(current.values()))
        self._lock = Lock()
        self.rows: pd.DataFrame = self._write()

    def _pending(self) -> list[Job]:
        done = {each.row["key"]: each for each in read_results(self._results) if each.row["status"] == DONE}
        return [
            job
            for job in self._jobs
            if job.key not in done or not {*job.shift} <= {each["corruption"] for each in done[job.key].shift}
        ]

    def what_comes(self) -> str:
        """How much there is to run, before minutes without a word; and where the rows come from that are there already."""
        count, pending = len(self._jobs), self._pending()
        source = "; ".join(line for line in read_provenance(self._results) if line.startswith(("commit", "machine")))
        if not pending:
            return (
                f"Nothing is measured: all {count} jobs are in {self._results} already, made by {source}. Measure anew "
                f"with another --out, or with --fresh, which sets this file aside"
            )
        done, trainings = count - len(pending), len({job.training for job in pending} - {""})
        before = f" ({done} were done before and stay as they are; the file's head: {source})" if done else ""
        return f"{len(pending)} of {count} jobs to run{before}, {trainings} trainings first"

    def all(self) -> None:
        """Tell what cannot run, train, and measure, on each device one job at a time."""
        import torch

        built: dict[str, str] = {}
        pending = [replace(job, reason=_reason_against(job, built)) for job in self._pending()]
        self._refuse([job for job in pending if job.reason])
        for accelerator in dict.fromkeys(job.accelerator for job in pending):
            here = [job for job in pending if job.accelerator == accelerator and not job.reason]
            devices = range(torch.cuda.device_count()) if accelerator == "cuda" else [None]
            first = {job.training: job for job in here if job.training}
            reasons = dict(zip(first, _on(devices, self._train, first.values(), "trainings"), strict=True))
            _on(devices, partial(self._measure, untrained=reasons), here, "jobs")

    def _refuse(self, jobs: list[Job]) -> None:
        """Keep that jobs cannot run, and say each reason once."""
        for job in jobs:
            write_result(self._results, job.failed(job.reason))
        self.rows = self._write()
        for reason in dict.fromkeys(job.reason for job in jobs):
            first, *others = (job for job in jobs if job.reason == reason)
            tqdm.write(f"{_outcome(first.failed(reason).row)}{f' (and so {len(others)} more)' if others else ''}")

    def _adapters(self, job: Job) -> Path:
        return jobs_folder(self._results) / f"{job.training}.safetensors"

    def _train(self, job: Job, device: int | None) -> str:
        """Train, unless done before, and return why it failed, or nothing."""
        from anomalib_dpclip.benchmark.measure import train_adapters

        path = self._adapters(job)
        return "" if path.exists() else in_own_process(train_adapters, job, device, path).reason

    def _measure(self, job: Job, device: int | None, untrained: Mapping[str, str]) -> None:
        """Measure a job, write its file and the tables, and say what came out."""
        from anomalib_dpclip.benchmark.measure import measure

        if reason := untrained.get(job.training):
            outcome = Outcome(reason=f"training of the adapters: {reason}")
        else:
            outcome = in_own_process(measure, job, device, self._adapters(job) if job.training else None)
        result: Result = outcome.result or job.failed(outcome.reason, outcome.log)
        with self._lock:
            write_result(self._results, result if self._image_scores else result._replace(images=()))
            self.rows = self._write()
        tqdm.write(_outcome(result.row))


def _outcome(row: Mapping[str, Any]) -> str:
    if row["status"] != DONE:
        return f"{title_of(row)}: {row['status']}: {row['reason']}"
    shown = (("image_AUROC", "image AUROC"), ("pixel_AUROC", "pixel AUROC"))
    known = [f"{what} {row[name]:.3f}" for name, what in shown if row[name] is not None]
    return f"{title_of(row)}: {', '.join([*known, *([row['reason']] if row['reason'] else [])])}"


def _reason_against(job: Job, built: dict[str, str]) -> str:
    """Why a job cannot run here, as far as that can be told beforehand; its model is built once for all jobs of it."""
    import torch

    from anomalib_dpclip.benchmark.measure import check_model

    if job.reason:
        return job.reason
    if job.accelerator == "cuda" and not torch.cuda.is_available():
        return "there is no GPU here: set `accelerator: cpu` in the config"
    model = json.dumps([job.model, job.accelerator, len(job.references)], sort_keys=True)
    if model not in built:
        built[model] = in_own_process(check_model, job).reason
    return built[model]


def _on(devices: Iterable[int | None], work: Callable[[Job, int | None], Any], jobs: Iterable[Job], what: str) -> list[Any]:
    """Results of jobs in their order, on each device one at a time."""
    waiting, free = list(jobs), SimpleQueue[int | None]()
    for device in devices:
        free.put(device)

    def on_a_free_one(job: Job) -> Any:
        device = free.get()
        try:
            return work(job, device)
        finally:
            free.put(device)

    with ThreadPoolExecutor(free.qsize() or 1) as pool:
        try:
            return list(tqdm(pool.map(on_a_free_one, waiting), desc=what, total=len(waiting), disable=not waiting))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
