"""Compare anomalib models on any data sets: anomalib's benchmark, with jobs that fail alone and rows that last.

The config is that of `anomalib benchmark`, whose grid and runners (serial, or one process a GPU) do the work. Beyond
it, models may differ in their arguments, zero-shot models run, DP-CLIP is trained once for all categories, and a run
that was interrupted goes on where it stopped.
"""

import shlex
import shutil
from pathlib import Path
from typing import Any

from anomalib.pipelines import Benchmark
from anomalib.pipelines.benchmark.generator import BenchmarkJobGenerator
from anomalib.pipelines.components.base import Runner
from jsonargparse import Namespace

from anomalib_dpclip.benchmark.config import SECTION, JobConfig, accelerators_of, job_configs, read_config
from anomalib_dpclip.benchmark.jobs import AdaptersJob, RowJob, TrainedAdapters
from anomalib_dpclip.benchmark.rows import DONE, open_rows, read_provenance, read_rows, set_aside
from anomalib_dpclip.benchmark.short_table import short_table
from anomalib_dpclip.files.measured_by import measured_by


def benchmark(config: Path, out: Path | None = None, fresh: bool = False) -> int:
    """Run every job of a benchmark config that has not been done yet, and append its row to a CSV.

    Args:
        config: YAML in the schema of `anomalib benchmark`. A model or data entry may have a ``label`` for the tables,
            and ``benchmark.trainer`` arguments for Lightning's Trainer; `anomalib benchmark` passes over both.
        out: The CSV. By default runs/benchmark/ and the config's name; trained adapters go beside it.
        fresh: Start over: set the CSV aside under another name, and delete its adapters.

    Returns:
        Exit status: 0 if every job of the config has succeeded, in this run or an earlier one, else 1.

    Raises:
        FileNotFoundError: The config is not there.
        ValueError: The config is not one of benchmarks, or the CSV has other columns.
    """
    results = out or Path("runs") / "benchmark" / f"{config.stem}.csv"
    pipeline = FieldBenchmark(read_config(config), results)
    jobs = [job for accelerator in pipeline.accelerators for job in pipeline.jobs(accelerator)]
    if fresh:
        set_aside(results)
        shutil.rmtree(pipeline.adapters_folder, ignore_errors=True)
    open_rows(results, measured_by(shlex.join(["dpclip", "benchmark", "--config", str(config), "--out", str(results)])))
    print(_what_comes(jobs, pipeline), flush=True)  # noqa: T201
    keys = {job.key for job in jobs}
    if not pipeline.done() >= keys:
        pipeline.run()
    done = len(pipeline.done() & keys)
    rows = read_rows(results)
    print(f"{done} of {len(keys)} jobs done: {results}\n\n{short_table(rows[rows['key'].isin(keys)])}")  # noqa: T201  the answer
    return 0 if done == len(keys) else 1


def _what_comes(jobs: list[JobConfig], pipeline: "FieldBenchmark") -> str:
    """How much there is to run, before minutes without a word; and where the rows come from that are there already."""
    done = pipeline.done()
    pending = [job for job in jobs if job.key not in done]
    source = "; ".join(line for line in read_provenance(pipeline.out) if line.startswith(("commit", "machine")))
    before = f" ({len(jobs) - len(pending)} were done before and stay as they are; the file's head: {source})"
    if not pending:
        return (
            f"Nothing is measured: all {len(jobs)} jobs are in {pipeline.out} already, made by {source}. Measure anew with "
            f"another --out, or with --fresh, which sets this file aside"
        )
    trainings = len({job.training_key for job in pending} - {None})
    return f"{len(pending)} of {len(jobs)} jobs to run{before if len(pending) < len(jobs) else ''}, {trainings} trainings first"


class FieldBenchmark(Benchmark):
    """anomalib's benchmark in two stages: train what is trained once, then measure row by row.

    Args:
        config: As `read_config` gives it.
        out: CSV to append to; see `open_rows`.
    """

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        self.config = config
        self.out = out
        self.accelerators: list[str] = accelerators_of(config)

    @property
    def adapters_folder(self) -> Path:
        """Where trained adapters are kept."""
        return self.out.with_suffix(".adapters")

    def jobs(self, accelerator: str) -> list[JobConfig]:
        """The whole grid."""
        return job_configs(self.config, accelerator)

    def done(self) -> set[str]:
        """Keys of the jobs that have succeeded."""
        rows = read_rows(self.out)
        return set(rows["key"][rows["status"] == DONE])

    def _get_args(self, args: Namespace | None) -> dict[str, Any]:
        del args
        return {**self.config, AdaptersJob.name: self.config[SECTION]}  # both stages read the one section

    def _setup_runners(self, args: dict[str, Any]) -> list[Runner]:  # type: ignore[override]  # static in anomalib
        """The runner that anomalib chooses for an accelerator, once for the trainings and once for the rows."""
        del args
        runners: list[Runner] = []
        for accelerator in self.accelerators:
            for generator in (AdaptersGenerator(accelerator, self), RowGenerator(accelerator, self)):
                (runner,) = super()._setup_runners({"accelerator": accelerator})
                runner.generator = generator
                runners.append(runner)
        return runners


class _PendingJobs(BenchmarkJobGenerator):
    """Jobs of the rows left to do. They are given as a list, so that the runner's progress bar knows their number."""

    def __init__(self, accelerator: str, pipeline: FieldBenchmark) -> None:
        super().__init__(accelerator)
        self.pipeline = pipeline

    def pending(self) -> list[JobConfig]:
        """Rows left to do."""
        done = self.pipeline.done()
        return [config for config in self.pipeline.jobs(self.accelerator) if config.key not in done]


class AdaptersGenerator(_PendingJobs):
    """One training for each distinct DP-CLIP, auxiliary set and seed among the rows left to do."""

    job_class = AdaptersJob

    def generate_jobs(  # type: ignore[override]  # a generator in anomalib, which hides how many there are
        self,
        args: dict,
        previous_stage_result: Any,
    ) -> list[AdaptersJob]:
        """The trainings."""
        del args, previous_stage_result
        first: dict[str, JobConfig] = {}
        for config in self.pending():
            if config.training_key:
                first.setdefault(config.training_key, config)
        return [AdaptersJob(config, key, self.pipeline.adapters_folder) for key, config in first.items()]


class RowGenerator(_PendingJobs):
    """One job for each row left to do, with the adapters of the stage before."""

    job_class = RowJob

    def generate_jobs(  # type: ignore[override]  # as above
        self,
        args: dict,
        previous_stage_result: dict[str, TrainedAdapters] | None,
    ) -> list[RowJob]:
        """The measurements."""
        del args
        trained = previous_stage_result or {}
        lost = TrainedAdapters("", float("nan"), "the training of its adapters ended early; see runs/pipeline.log")
        return [
            RowJob(config, self.pipeline.out, trained.get(config.training_key, lost) if config.training_key else None)
            for config in self.pending()
        ]
