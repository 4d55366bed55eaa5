import inspect
import re
from dataclasses import fields

import pytest
import yaml
from anomalib.data import get_datamodule
from tests.paths import ROOT

from anomalib_dpclip import DPCLIP
from anomalib_dpclip.benchmark.config import jobs_of, read_config
from anomalib_dpclip.model.arguments import Training

CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def test_model_config_has_the_code_s_defaults():
    arguments = yaml.safe_load((ROOT / "configs/model/dpclip.yaml").read_text())["model"]["init_args"]
    training = {item.name: item.default for item in fields(Training)}
    said = arguments.pop("training")
    assert {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()} == training
    parameters = inspect.signature(DPCLIP.__init__).parameters
    own = {"image_size": 518, "tiles": 1}  # spelt out there, derived here
    for name, value in arguments.items():
        assert value == own.get(name, parameters[name].default), name


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.parent.name == "data"], ids=lambda path: path.stem)
def test_data_configs_build_their_data_module(path):
    config = yaml.safe_load(path.read_text())
    assert type(get_datamodule(config)).__name__ == config["class_path"].rpartition(".")[2]


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.parent.name == "benchmark"], ids=lambda path: path.stem)
def test_benchmark_configs_are_whole(path):
    jobs = jobs_of(read_config(path))
    assert jobs
    assert len({job.key for job in jobs}) == len(jobs)


def test_quickstart_config_parses_through_the_anomalib_s_parser():
    from anomalib.cli import AnomalibCLI

    parser = AnomalibCLI(args=["train", "--config", str(ROOT / "configs/quickstart.yaml")], run=False)
    assert parser.config is not None


def test_the_oldest_versions_are_the_lower_bounds():
    script = (ROOT / "scripts" / "test_matrix.sh").read_text()
    oldest, newest = (
        re.search(rf'^ +{name}\) echo "(.*)" ;;$', script, re.MULTILINE)[1].split() for name in ("oldest", "newest")
    )
    bounds = re.findall(r'^    "(\w+)>=([\d.]+)', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert set(oldest) <= {f"{name}=={version}" for name, version in bounds}
    assert [pin.partition("==")[0] for pin in oldest] == newest
