"""The benchmark command: mixed models, failures, going on, and one training for many categories."""

import inspect
import logging
import pickle
import shutil
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import anomalib.data
import anomalib.models
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from anomalib import LearningType
from anomalib.data import InferenceBatch
from anomalib.data.datasets.image import btech, mpdd, mvtecad, visa
from anomalib.models import AnomalibModule
from anomalib.pipelines import Benchmark
from anomalib.post_processing import PostProcessor
from jsonargparse import Namespace
from PIL import Image
from tests import paths

from anomalib_dpclip import DPCLIP
from anomalib_dpclip.benchmark.command import benchmark
from anomalib_dpclip.benchmark.config import job_configs, read_config
from anomalib_dpclip.benchmark.jobs import RowJob
from anomalib_dpclip.benchmark.rows import LINE_METRICS, METRICS, read_rows
from anomalib_dpclip.data.surfaces.data_module import Surfaces

CONFIGS = paths.CONFIGS / "benchmark"


class Brightness(AnomalibModule):
    """Zero-shot: bright pixels are anomalous. Fails on demand."""

    failing: ClassVar[set[str]] = set()

    def __init__(self, name: str = "plain"):
        super().__init__()
        self.model = torch.nn.Identity()
        self.job = name

    learning_type = LearningType.ZERO_SHOT
    trainer_arguments = MappingProxyType({})

    def configure_post_processor(self):
        return PostProcessor()

    def validation_step(self, batch, *args):
        if self.job in self.failing:
            raise RuntimeError("broken\non purpose")
        maps = batch.image.mean(dim=1).sigmoid()
        return batch.update(**InferenceBatch(anomaly_map=maps, pred_score=maps.amax(dim=(1, 2)))._asdict())

    test_step = validation_step


class Contrast(Brightness):
    """Another class, with other arguments."""

    def __init__(self, gain: float = 1.0):
        super().__init__()
        self.gain = gain


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder to run in, models to find, and the logging as it was: anomalib redirects all of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(anomalib.models, "Brightness", Brightness, raising=False)
    monkeypatch.setattr(anomalib.models, "Contrast", Contrast, raising=False)
    monkeypatch.setattr(Brightness, "failing", set())
    handlers = {name: list(logging.getLogger(name).handlers) for name in logging.root.manager.loggerDict}
    root = list(logging.root.handlers)
    yield
    logging.captureWarnings(False)
    logging.root.handlers = root
    for name, before in handlers.items():
        logging.getLogger(name).handlers = before


@pytest.fixture
def tree(tmp_path):
    """MVTec AD in miniature: dark images, anomalous ones with a bright square."""
    root = tmp_path / "MVTecAD"
    generator = np.random.default_rng(0)
    for category in ("bottle", "hazelnut", "tile"):
        for folder, count in (("train/good", 2), ("test/good", 3), ("test/broken", 3)):
            for index in range(count):
                image = generator.integers(0, 100, (40, 40, 3), dtype=np.uint8)
                path = root / category / folder / f"{index:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                if folder.endswith("broken"):
                    image[8:20, 8:20] = 250
                    mask = np.zeros((40, 40), dtype=np.uint8)
                    mask[8:20, 8:20] = 255
                    masks = root / category / "ground_truth" / "broken"
                    masks.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(masks / f"{index:03}_mask.png")
                Image.fromarray(image).save(path)
    return root


def _config(path, tree, models, seed=1, categories=("hazelnut", "tile"), **section):
    init_args = {"root": str(tree), "num_workers": 0, "category": {"grid": list(categories)}}
    data = {"class_path": "MVTecAD", "init_args": init_args}
    content = {"accelerator": "cpu", "benchmark": {"seed": seed, "model": {"grid": models}, "data": data, **section}}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_mixed_models_a_failure_and_going_on(tmp_path, tree, capsys):
    models = [
        {"class_path": "Brightness", "label": "sound"},
        {"class_path": "Brightness", "label": "weak", "init_args": {"name": "weak"}},
        {"class_path": "Contrast", "init_args": {"gain": 2.0}},
        {"class_path": "NoSuchModel"},
    ]
    config, out = _config(tmp_path / "mixed.yaml", tree, models, seed={"grid": [1, 2]}), tmp_path / "rows.csv"
    Brightness.failing.add("weak")

    assert benchmark(config, out) == 1
    rows = read_rows(out)
    assert len(rows) == 4 * 2 * 2
    by_label = rows.groupby("label")["status"].agg(set).to_dict()
    assert by_label == {"sound": {"ok"}, "weak": {"failed"}, "Contrast": {"ok"}, "NoSuchModel": {"failed"}}
    assert set(rows[rows["label"] == "weak"]["reason"]) == {"RuntimeError: broken on purpose"}
    assert rows[rows["label"] == "NoSuchModel"]["reason"].str.contains("has no attribute 'NoSuchModel'").all()
    sound = rows[rows["label"] == "sound"]
    assert (sound[list(METRICS)] > 0.98).all(axis=None)  # the bright squares are found; resizing blurs their edges
    assert (sound[list(LINE_METRICS)] == 0).all(axis=None)
    assert set(sound["knows"]) == {"nothing"}
    assert (sound["images_per_second"] > 0).all()
    assert (sound["training_minutes"] == 0).all()
    assert "8 of 16 jobs done" in capsys.readouterr().out

    # Once it is repaired, only what failed is run again.
    Brightness.failing.clear()
    written = out.read_text(encoding="utf-8")
    assert benchmark(_config(tmp_path / "mixed.yaml", tree, models[:3], seed={"grid": [1, 2]}), out) == 0
    added = out.read_text(encoding="utf-8").removeprefix(written)
    assert added.count("\n") == 4
    assert set(read_rows(out)[read_rows(out)["label"] == "weak"]["status"]) == {"ok"}

    # Nothing is left to do.
    written = out.read_bytes()
    assert benchmark(config.with_name("mixed.yaml"), out) == 0
    assert out.read_bytes() == written


def test_an_interrupted_run_goes_on_and_fresh_starts_over(tmp_path, tree):
    config = _config(tmp_path / "run.yaml", tree, [{"class_path": "Brightness"}])
    assert benchmark(config) == 0
    out = Path("runs/benchmark/run.csv")
    whole = out.read_text(encoding="utf-8")
    out.write_text(whole[:-30], encoding="utf-8")  # killed while the second row was written
    assert benchmark(config) == 0
    lines = out.read_text(encoding="utf-8").splitlines()
    assert lines[:-1] == whole.splitlines()[:-1]
    assert lines[-1].endswith(whole.splitlines()[-1].rpartition(",")[2])

    assert benchmark(config, fresh=True) == 0
    assert len(read_rows(out)) == 2
    assert out.read_text(encoding="utf-8").count("\n") == whole.count("\n")


def _dpclip(tree, **init_args):
    arguments = {"backbone": "mini", "auxiliary": "MVTecAD/bottle", "auxiliary_root": str(tree), **init_args}
    return {"class_path": "DPCLIP", "label": str(init_args or "DP-CLIP"), "init_args": arguments}


def test_one_training_serves_all_categories_of_a_seed(tmp_path, tree):
    config = _config(tmp_path / "dpclip.yaml", tree, [_dpclip(tree)], seed={"grid": [1, 2]}, trainer={"max_epochs": 1})
    out = tmp_path / "rows.csv"
    assert benchmark(config, out) == 0
    adapters = sorted((tmp_path / "rows.adapters").glob("*.safetensors"))
    assert len(adapters) == 2  # four rows, two seeds
    assert adapters[0].read_bytes() != adapters[1].read_bytes()
    rows = read_rows(out)
    assert rows["status"].tolist() == ["ok"] * 4
    assert rows[list(METRICS)].notna().all(axis=None)
    assert rows.groupby("seed")["training_minutes"].nunique().tolist() == [1, 1]
    assert (rows["training_minutes"] > 0).all()

    # A row that has got lost is measured again with the adapters there are.
    modified = [path.stat().st_mtime_ns for path in adapters]
    out.write_text("".join(out.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    assert benchmark(config, out) == 0
    assert [path.stat().st_mtime_ns for path in adapters] == modified
    again = read_rows(out)
    pd.testing.assert_frame_equal(again[list(METRICS)], rows[list(METRICS)])

    # anomalib's own benchmark runs the same model with these adapters.
    weights = _dpclip(tree, weights=str(adapters[0]))
    Benchmark().run(Namespace(config=str(_config(tmp_path / "host.yaml", tree, [weights], categories=["tile"]))))
    (results,) = Path("runs/benchmark").glob("*/results.csv")
    host = pd.read_csv(results)[list(METRICS)].to_numpy()
    ours = rows[rows["category"] == "tile"][list(METRICS)].to_numpy()
    assert np.isclose(host, ours).all(axis=1).any()  # the row of the seed that these adapters are of


def test_a_row_that_tested_what_was_learned_is_a_leak(tmp_path, tree):
    shutil.copy(tree / "bottle" / "test" / "good" / "000.png", tree / "hazelnut" / "test" / "good" / "009.png")
    categories = ["bottle", "hazelnut", "tile"]
    config = _config(tmp_path / "leak.yaml", tree, [_dpclip(tree)], categories=categories, trainer={"max_epochs": 1})
    out = tmp_path / "rows.csv"
    assert benchmark(config, out) == 1
    rows = read_rows(out).set_index("category")
    assert rows["status"].to_dict() == {"bottle": "leak", "hazelnut": "leak", "tile": "ok"}
    assert "learned from MVTecAD/dark bottle" in rows.loc["bottle", "reason"]
    assert "bottle/test/good/000.png" in rows.loc["hazelnut", "reason"]
    assert rows["pixel_AUROC"].notna().all()
    assert len(list((tmp_path / "rows.adapters").glob("*.safetensors"))) == 1

    # The same with adapters that are given: their file says what they learned from.
    (adapters,) = (tmp_path / "rows.adapters").glob("*.safetensors")
    given = tmp_path / "given.csv"
    benchmark(_config(tmp_path / "g.yaml", tree, [_dpclip(tree, weights=str(adapters))], categories=["bottle"]), given)
    assert read_rows(given)["status"].tolist() == ["leak"]


def test_a_failed_training_fails_its_rows_only(tmp_path, tree):
    models = [_dpclip(tree / "nowhere"), {"class_path": "Brightness"}]
    out = tmp_path / "rows.csv"
    assert benchmark(_config(tmp_path / "c.yaml", tree, models, categories=["tile"]), out) == 1
    rows = read_rows(out).set_index("model")
    assert rows.loc["Brightness", "status"] == "ok"
    assert rows.loc["DPCLIP", "reason"].startswith("training of the adapters: FileNotFoundError")


def test_trainings_are_shared_by_what_they_learn_from():
    def key(seed=1, data="MVTecAD", root=None, name=None, metadata=None, **init_args):
        target = {"category": "x", "root": root, "name": name, "metadata": metadata}
        entry = {"grid": [{"class_path": "DPCLIP", "init_args": init_args}]}
        section = {"seed": seed, "model": entry, "data": {"class_path": data, "init_args": target}}
        return job_configs({"benchmark": section}, "cpu")[0].training_key

    assert key() == key(data="MPDD")  # both learn from VisA
    assert key() != key(data="Visa")  # which learns from MVTec AD
    assert key(data="JSONLines", name="VisA") == key(data="Visa")
    assert key(data="JSONLines", metadata="metadata/VisA/full-shot.jsonl") == key(data="Visa")
    assert key(data="JSONLines", name="Parts") == key()
    assert key(data="Surfaces", root="a") != key(data="Surfaces", root="b")  # learned from what lies there
    assert key(auxiliary="VisA") == key(auxiliary="VisA", data="Visa")
    assert len({key(), key(seed=2), key(decoupling_weight=0.0)}) == 3
    assert key(weights="trained.safetensors") is None
    assert key(auxiliary="synthetic") is None


def test_jobs_can_be_sent_to_another_process(tmp_path, tree):
    config = read_config(_config(tmp_path / "c.yaml", tree, [{"class_path": "Brightness"}]))
    job = RowJob(job_configs(config, "cpu")[0], tmp_path / "rows.csv")
    assert pickle.loads(pickle.dumps(job)).config == job.config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("benchmark: {seed: 1, model: {class_path: A}}", "must have seed, model and data; missing: data"),
        ("- a list", "missing: data, model, seed"),
        ("benchmark: [", "c.yaml"),
        ("benchmark: {seed: 1, model: {class_path: A}, data: {name: x}}", "must have a class_path"),
        (
            "benchmark: {seed: 1, data: {class_path: D}, model: {grid: [{class_path: A}, {class_path: A, x: 1}]}}",
            "two different models are called 'A'",
        ),
        ("benchmark: {seed: 1, model: null, data: {class_path: D}}", "model` must have a class_path.*None"),
        ("benchmark: {seed: 1, model: {grid: [null]}, data: {class_path: D}}", "model` must have a class_path.*None"),
        ("benchmark: {seed: 1, model: {class_path: 5}, data: {class_path: D}}", "model` must have a class_path.*5"),
        ("benchmark: {seed: 1, model: [{class_path: A}], data: {class_path: D}}", "model` must have a class_path"),
        ("benchmark: {seed: 1, model: {class_path: A, label: [x]}, data: {class_path: D}}", "model.label` of A must be text"),
        ("benchmark: {seed: 1, model: {class_path: A}, data: {class_path: D, label: 5}}", "data.label` of D must be text"),
        ("benchmark: {seed: 1, model: {class_path: A, init_args: 5}, data: {class_path: D}}", "init_args` of A must be arg"),
        ("benchmark: {seed: one, model: {class_path: A}, data: {class_path: D}}", "seed` must be a whole number.*'one'"),
        ("benchmark: {seed: -1, model: {class_path: A}, data: {class_path: D}}", "seed` must be a whole number.*-1"),
        ("benchmark: {seed: {grid: 5}, model: {class_path: A}, data: {class_path: D}}", "seed.grid` must be a list"),
        ("benchmark: {seed: {grid: []}, model: {class_path: A}, data: {class_path: D}}", "seed.grid` must be a list"),
        ("benchmark: {seed: 1, trainer: 5, model: {class_path: A}, data: {class_path: D}}", "trainer` must be arguments"),
        ("{accelerator: tpu, benchmark: {seed: 1, model: {class_path: A}, data: {class_path: D}}}", "accelerator.*'tpu'"),
        (
            "benchmark: {seed: 1, model: {class_path: A}, data: {grid: [{class_path: D}, {class_path: D, x: 1}]}}",
            "two different data sets are called 'D', category 'all'",
        ),
    ],
)
def test_bad_configs_are_told_before_anything_is_written(tmp_path, content, message):
    path = tmp_path / "c.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        benchmark(path, tmp_path / "rows.csv")
    assert not (tmp_path / "rows.csv").exists()


def test_empty_arguments_are_none(tmp_path, tree):
    path = _config(tmp_path / "c.yaml", tree, [{"class_path": "DPCLIP", "init_args": None, "label": None}])
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["benchmark"]["data"] = {"class_path": "MVTecAD", "init_args": None}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    (job,) = job_configs(read_config(path), "cpu")
    assert (job.label, job.data_set, job.category) == ("DPCLIP", "MVTecAD", "all")
    assert job.training_key


def test_grids_inside_arguments_are_labelled_by_what_varies(tmp_path, tree):
    path = _config(tmp_path / "c.yaml", tree, [{"class_path": "A"}], seed={"grid": [1, 2]}, trainer={"max_epochs": 1})
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    section = content["benchmark"]
    section["model"] = {"class_path": "Contrast", "label": "C", "init_args": {"gain": {"grid": [1.0, 2.0]}, "other": 1}}
    section["data"]["init_args"]["image_size"] = {"grid": [40, 80]}
    section["trainer"]["max_epochs"] = {"grid": [1, 6]}
    jobs = job_configs(content, "cpu")
    assert len({job.key for job in jobs}) == len(jobs) == 2 * 2 * 2 * 2 * 2
    assert {job.label for job in jobs} == {f"C, gain={gain}, max_epochs={epochs}" for gain in (1.0, 2.0) for epochs in (1, 6)}
    assert {job.data_set for job in jobs} == {"MVTecAD, image_size=40", "MVTecAD, image_size=80"}

    # And they run.
    del section["data"]["init_args"]["image_size"], section["trainer"], section["model"]["init_args"]["other"]
    section["seed"] = 1
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert benchmark(path, tmp_path / "rows.csv") == 0
    assert set(read_rows(tmp_path / "rows.csv")["label"]) == {"C, gain=1.0", "C, gain=2.0"}


def test_a_run_says_what_comes_and_when_there_is_nothing_to_do(tmp_path, tree, capsys):
    config, out = _config(tmp_path / "c.yaml", tree, [{"class_path": "Brightness"}]), tmp_path / "rows.csv"
    assert benchmark(config, out) == 0
    assert capsys.readouterr().out.startswith("2 of 2 jobs to run, 0 trainings first")
    assert benchmark(config, out) == 0
    assert "Nothing is measured: all 2 jobs are in" in capsys.readouterr().out
    assert benchmark(config, out, fresh=True) == 0
    assert len(read_rows(tmp_path / "rows-1.csv")) == len(read_rows(out)) == 2


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        benchmark(tmp_path / "nowhere.yaml")


# Configs of DP-CLIP alone, which anomalib's own pipeline runs too. The others compare models and arguments.
CATEGORIES = {
    "surfaces": Surfaces.target_categories,
    "mvtec": mvtecad.CATEGORIES,
    "visa": visa.CATEGORIES,
    "mpdd": mpdd.CATEGORIES,
    "btad": btech.CATEGORIES,
    "medical": ("all",) * 7,
}


@pytest.mark.parametrize("name", CATEGORIES)
def test_shipped_configs_are_complete(name, monkeypatch):
    monkeypatch.delenv("DPCLIP_WEIGHTS", raising=False)
    jobs = job_configs(read_config(CONFIGS / f"{name}.yaml"), "cpu")
    assert sorted(job.category for job in jobs) == sorted(CATEGORIES[name])
    assert len({job.training_key for job in jobs}) == 1
    assert jobs[0].training_key is not None
    for job in jobs:
        assert set(job.model["init_args"]) <= set(inspect.signature(DPCLIP).parameters)
        data = getattr(anomalib.data, job.data["class_path"])
        inspect.signature(data).bind(**job.data["init_args"])
    # anomalib's benchmark takes the first row's columns for all.
    assert len({tuple(job.data["init_args"]) for job in jobs}) == 1


def test_shipped_configs_take_adapters_from_the_environment(monkeypatch):
    monkeypatch.setenv("DPCLIP_WEIGHTS", "trained.safetensors")
    for name in CATEGORIES:
        jobs = job_configs(read_config(CONFIGS / f"{name}.yaml"), "cpu")
        assert {job.model["init_args"]["weights"] for job in jobs} == {"trained.safetensors"}
