"""The benchmark command: mixed models, failures, going on, files that change, and one training for many categories."""

import json
import re
import shutil
from pathlib import Path

import anomalib.models
import numpy as np
import pandas as pd
import pytest
import yaml
from anomalib.pipelines import Benchmark
from jsonargparse import Namespace
from tests.integration.benchmark_models import Brightness, Steps
from tests.unit.benchmark.tree import mvtec_tree

from anomalib_dpclip.benchmark import command
from anomalib_dpclip.benchmark.command import benchmark
from anomalib_dpclip.benchmark.own_process import attempt
from anomalib_dpclip.benchmark.rows import METRICS, OPERATING_POINTS, jobs_folder, read_beside, read_rows


@pytest.fixture
def here(monkeypatch):
    """Models of the tests, in this process: another one would not find them."""
    monkeypatch.setattr(command, "in_own_process", attempt)
    for model in (Brightness, Steps):
        monkeypatch.setattr(anomalib.models, model.__name__, model, raising=False)
    monkeypatch.setattr(Brightness, "failing", set())


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A data set, in a folder to run in."""
    monkeypatch.chdir(tmp_path)
    return mvtec_tree(tmp_path / "MVTecAD")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "rows.csv"


def config_of(tree, models, categories=("tile",), seed=1, init_args=None, **section):
    arguments = {"root": str(tree), "num_workers": 0, "category": {"grid": list(categories)}} | (init_args or {})
    data = {"class_path": "MVTecAD", "init_args": arguments}
    content = {"accelerator": "cpu", "benchmark": {"seed": seed, "model": {"grid": models}, "data": data, **section}}
    path = tree.with_name("config.yaml")
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


PLAIN = [{"class_path": "Brightness"}]


@pytest.mark.usefixtures("here")
def test_mixed_models_a_failure_and_going_on(out, tree, capsys):
    models = [
        {"class_path": "Brightness", "label": "sound"},
        {"class_path": "Brightness", "label": "weak", "init_args": {"name": "weak"}},
        {"class_path": "NoSuchModel"},
    ]
    several = {"seed": {"grid": [1, 2]}, "categories": ["hazelnut", "tile"]}
    Brightness.failing.add("weak")

    assert benchmark(config_of(tree, models, **several), out) == 1
    rows = read_rows(out)
    assert len(rows) == 3 * 2 * 2
    by_label = rows.groupby("label")["status"].agg(set).to_dict()
    assert by_label == {"sound": {"ok"}, "weak": {"failed"}, "NoSuchModel": {"failed"}}
    assert set(rows[rows["label"] == "weak"]["reason"]) == {"RuntimeError: broken on purpose"}
    assert rows[rows["label"] == "NoSuchModel"]["reason"].str.contains("has no attribute 'NoSuchModel'").all()
    sound = rows[rows["label"] == "sound"]
    assert (sound[list(METRICS)] > 0.95).all(axis=None)  # the bright squares are found; resizing blurs their edges
    assert (sound[list(OPERATING_POINTS)] == 0).all(axis=None)
    assert (sound[["class_F1", "false_alarm_rate"]] == [1, 0]).all(axis=None)
    assert set(sound["threshold_basis"]) == {"best F1 score of the validation images (the validation images are those tested)"}
    assert (sound[["normal_images", "anomalous_images"]] == 3).all(axis=None)
    assert set(sound["by_defect"]) == {'{"broken": {"images": 3, "AUROC": 1.0, "AP": 1.0}}'}
    assert set(sound["mask_resolution"]) == {"256x256"}
    assert (sound[["images_per_second", "peak_memory_mb"]] > 0).all(axis=None)
    assert (sound["training_minutes"] == 0).all()
    said = capsys.readouterr().out
    # What cannot be built says so before anything is measured.
    refused = re.search(r"^NoSuchModel / MVTecAD / hazelnut / seed 1: failed: .* \(and so 3 more\)$", said, re.MULTILINE)
    assert refused.start() < said.index("sound / MVTecAD / hazelnut / seed 1")
    assert said.count("NoSuchModel /") == 1
    assert "4 of 12 jobs done" in said

    # Once it is repaired, only what failed is run again.
    Brightness.failing.clear()
    files = {path: path.stat().st_mtime_ns for path in jobs_folder(out).iterdir()}
    config = config_of(tree, models[:2], **several)
    assert benchmark(config, out) == 0
    written = [path for path in jobs_folder(out).iterdir() if files.get(path) != path.stat().st_mtime_ns]
    assert {json.loads(path.read_text())["row"]["label"] for path in written} == {"weak"}
    assert set(read_rows(out)[read_rows(out)["label"] == "weak"]["status"]) == {"ok"}

    # Nothing is left to do.
    before = out.read_bytes()
    capsys.readouterr()
    assert benchmark(config, out) == 0
    assert out.read_bytes() == before
    assert "Nothing is measured: all 8 jobs are in" in capsys.readouterr().out

    # Starting over sets all of it aside.
    assert benchmark(config, out, fresh=True) == 0
    assert len(read_rows(out.with_name("rows-1.csv"))) == 12
    assert len(read_rows(out)) == 8


@pytest.mark.usefixtures("here")
def test_a_training_that_ends_within_an_epoch_is_validated_before_its_test(out, tree):
    trainer = {"max_steps": 1, "num_sanity_val_steps": 0}
    config = config_of(tree, [{"class_path": "Steps"}], trainer=trainer, init_args={"train_batch_size": 1})
    assert benchmark(config, out) == 0
    (row,) = read_rows(out).to_dict("records")
    assert (row["status"], row["class_F1"]) == ("ok", 1)


@pytest.mark.usefixtures("here")
def test_scores_of_images_and_corrupted_ones(out, tree):
    config = config_of(tree, PLAIN)
    assert benchmark(config, out, shift="light,move") == 0
    images = read_beside(out, "images")
    assert images["image"].tolist() == [
        f"tile/test/{kind}/{number:03}.png" for kind in ("broken", "good") for number in range(3)
    ]
    assert images["defect"].tolist()[:3] == ["broken"] * 3
    assert (images["called"] == images["label"]).all()
    shift = read_beside(out, "shift")
    assert shift[["corruption", "strength"]].to_numpy().tolist() == [
        *(["light", each] for each in (0.9, 0.75, 0.5)),
        *(["move", each] for each in (0.02, 0.05, 0.1)),
    ]
    # At half the light no square is bright enough for the threshold of clean images.
    darkest, moved = shift.iloc[2], shift.iloc[5]
    assert (darkest["class_F1"], darkest["false_alarm_rate"]) == (0.0, 0.0)
    assert (moved["image_AUROC"], moved["class_F1"]) == (1.0, 1.0)

    # Without them nothing is left to do; with another one, that one is.
    (file,) = jobs_folder(out).glob("*.json")
    before = file.read_bytes()
    assert benchmark(config, out) == 0
    assert file.read_bytes() == before
    assert benchmark(config, out, shift="blur") == 0
    assert set(read_beside(out, "shift")["corruption"]) == {"light", "move", "blur"}

    assert benchmark(config, out.with_name("without.csv"), image_scores=False) == 0
    assert not out.with_name("without.images.csv").exists()


def test_one_training_serves_all_categories_in_processes_of_their_own(out, tree):
    shutil.copy(tree / "bottle/test/good/000.png", tree / "hazelnut/test/good/009.png")
    training = {"auxiliary_root": str(tree), "epochs": 1}
    dpclip = {"class_path": "DPCLIP", "init_args": {"backbone": "mini", "auxiliary": "MVTecAD/bottle", "training": training}}
    config = config_of(tree, [dpclip], ["bottle", "hazelnut", "tile"])
    assert benchmark(config, out) == 1
    (adapters,) = jobs_folder(out).glob("*.safetensors")
    rows = read_rows(out).set_index("category")
    # What tested what was learned is a leak, by its class or as a copy.
    assert rows["status"].to_dict() == {"bottle": "leak", "hazelnut": "leak", "tile": "ok"}
    assert "learned from MVTecAD/dark bottle" in rows.loc["bottle", "reason"]
    assert "bottle/test/good/000.png" in rows.loc["hazelnut", "reason"]
    assert rows[list(METRICS)].notna().all(axis=None)
    assert len(set(rows["training_minutes"])) == 1
    assert (rows[["training_minutes", "latency_ms"]] > 0).all(axis=None)
    assert (rows["peak_memory_mb"] < 3000).all()

    # A row that has got lost is measured again with the adapters there are.
    modified = adapters.stat().st_mtime_ns
    jobs_folder(out).joinpath(f"{rows.loc['tile', 'key']}.json").unlink()
    out.unlink()
    benchmark(config, out)
    assert adapters.stat().st_mtime_ns == modified
    again = read_rows(out).set_index("category")
    pd.testing.assert_frame_equal(again.loc[["tile"], list(METRICS)], rows.loc[["tile"], list(METRICS)])

    # anomalib's own benchmark trains for as many epochs, and finds the same.
    Benchmark().run(Namespace(config=str(config_of(tree, [dpclip]))))
    (results,) = Path("runs/benchmark").glob("*/results.csv")
    names = [name for name in METRICS if name != "pixel_AUPRO_5"]
    assert np.allclose(pd.read_csv(results)[names].to_numpy(), rows.loc[["tile"], names].to_numpy())


@pytest.mark.usefixtures("here")
def test_an_interrupted_run_says_how_to_go_on(out, tree, capsys, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("anomalib_dpclip.benchmark.measure.measure", interrupt)
    assert benchmark(config_of(tree, PLAIN), out) == 130
    assert "the same command goes on from there" in capsys.readouterr().out
    assert read_rows(out).empty


@pytest.mark.usefixtures("here")
def test_good_images_are_drawn_once_for_all_models_and_can_be_given(out, tree):
    known = {"two": 2, "all": "all"}
    models = [
        {"class_path": "DPCLIP", "label": label, "init_args": {"backbone": "mini", "weights": "clip", "k_shot": count}}
        for label, count in known.items()
    ]
    small = {"backbone": "resnet18", "layers": ["layer1"], "pre_trained": False, "n_features": 20}
    models.append({"class_path": "Padim", "label": "host", "k_shot": 2, "init_args": small})
    assert benchmark(config_of(tree, models, draws=2), out) == 0, read_rows(out)["reason"].tolist()
    rows = read_rows(out)
    assert rows.groupby("label")["draw"].agg(list).to_dict() == {"two": ["0", "1"], "all": ["0"], "host": ["0", "1"]}
    knows = {"two": "2 normal photos", "all": "all normal photos", "host": "2 normal photos"}
    assert dict(zip(rows["label"], rows["knows"], strict=True)) == knows
    drawn = json.loads(out.with_name("rows.draws.json").read_text())
    assert [len(draw) for draw in drawn["MVTecAD/tile"]] == [2, 2]

    given, again = config_of(tree, models[:1], draws=str(out.with_name("rows.draws.json"))), out.with_name("again.csv")
    assert benchmark(given, again) == 0
    columns = ["draw", "image_AUROC", "pixel_AP"]
    same = rows[rows["label"] == "two"][columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(read_rows(again)[columns], same)
