"""Documents and configurations say what the code and the results say."""

import inspect
import re
from pathlib import Path

import pytest
import yaml
from anomalib.data import get_datamodule

from anomalib_dpclip import DPCLIP
from anomalib_dpclip.benchmark.report import report

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def section(title: str) -> str:
    """Text below a second-level heading of the README."""
    return README.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_arguments_table_names_every_argument_and_default():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section("Arguments"), flags=re.MULTILINE))
    parameters = {name: value for name, value in inspect.signature(DPCLIP.__init__).parameters.items() if name != "self"}
    assert list(rows) == list(parameters)
    for name, parameter in parameters.items():
        if isinstance(parameter.default, str | int | float | bool):
            assert rows[name] == f"`{parameter.default}`", name


def test_model_config_has_the_code_s_defaults():
    arguments = yaml.safe_load((ROOT / "configs/model/dpclip.yaml").read_text())["model"]["init_args"]
    parameters = inspect.signature(DPCLIP.__init__).parameters
    # Spelt out there, derived from the backbone or the machine here.
    own = {"image_size": 518, "adapter_layers": [0, 1, 2, 3, 4, 5], "tap_layers": [6, 12, 18, 24], "num_workers": 4}
    for name, value in arguments.items():
        default = parameters[name].default
        assert value == own.get(name, list(default) if isinstance(default, tuple) else default), name


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.parent.name == "data"], ids=lambda path: path.stem)
def test_data_configs_build_their_data_module(path):
    config = yaml.safe_load(path.read_text())
    assert type(get_datamodule(config)).__name__ == config["class_path"].rpartition(".")[2]


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.parent.name == "benchmark"], ids=lambda path: path.stem)
def test_benchmark_configs_are_whole(path):
    from anomalib_dpclip.benchmark.config import job_configs, read_config

    jobs = job_configs(read_config(path), "cpu")
    assert jobs
    assert len({job.key for job in jobs}) == len(jobs)


def test_quickstart_config_parses_through_the_anomalib_s_parser():
    from anomalib.cli import AnomalibCLI

    parser = AnomalibCLI(args=["train", "--config", str(ROOT / "configs/quickstart.yaml")], run=False)
    assert parser.config is not None


@pytest.mark.parametrize("results", ["surfaces", "ablation", "large_images"])
def test_tables_in_the_readme_equal_the_results(results, capsys):
    report([ROOT / "benchmark_results" / f"{results}.csv"])
    tables = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert tables
    missing = [line for line in tables if line not in README]
    assert not missing, f"run `dpclip report benchmark_results/{results}.csv` and paste its tables into the README"


@pytest.mark.parametrize("results", ["inference", "training", "export"])
def test_tables_of_speed_equal_the_results(results):
    tables = [line for line in (ROOT / f"benchmark_results/{results}.md").read_text().splitlines() if line.startswith("|")]
    assert "\n".join(tables) in README
