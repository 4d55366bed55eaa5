"""The command `dpclip bench`."""

from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from anomalib_dpclip.files.atomic_write import atomic_write

Measurement = Literal["inference", "training", "evaluation", "startup", "scaling", "export"]


def bench(
    what: Measurement,
    backbone: str | None = None,
    batch_size: int | None = None,
    repeats: int | None = None,
    bf16: bool = False,
    compiled: bool = False,
    out: Path = Path("benchmark_results"),
) -> None:
    """Measure speed or memory and write a CSV and a Markdown table (and a plot of ``scaling``).

    Args:
        what: ``inference``: the model against its bare tower; ``training``: a step against the published implementation's work;
            ``evaluation``: metrics of 1,700 maps; ``startup``: imports; ``scaling``: image size, batch, taps and classes;
            ``export``: exported files against torch.
        backbone: Default ViT-L-14-336 (untrained: it costs the same); ``mini`` is quick.
        batch_size: Images a batch. Default: 1 for inference, 3 for training.
        repeats: Timed rounds.
        bf16: Inference in bf16 too.
        compiled: Inference under `torch.compile` too.
        out: Folder of the results.
    """
    if what not in get_args(Measurement):
        raise ValueError(f"what must be one of {', '.join(get_args(Measurement))}, not {what!r}")
    from importlib import import_module

    from benchmarks.results import markdown_table, write_results

    given: dict[str, Any] = {"backbone": backbone, "batch_size": batch_size, "repeats": repeats}
    arguments = {name: value for name, value in given.items() if value is not None}
    if what == "inference":
        arguments |= {"bf16": bf16, "compiled": compiled}
    measure = getattr(import_module(f"benchmarks.{what}"), what)
    table: pd.DataFrame = measure(**arguments)
    words = [f"--{name} {value if value is not True else 'true'}" for name, value in arguments.items() if value]
    name = "-".join([what, *([backbone] if backbone else [])])
    write_results(table, out, name, " ".join(["dpclip bench", what, *words]))
    if what == "scaling":
        from benchmarks.scaling import scaling_chart

        with atomic_write(out / f"{name}.png") as unfinished:
            scaling_chart(table).savefig(unfinished)
    print(markdown_table(table))  # noqa: T201  (the command's answer)
