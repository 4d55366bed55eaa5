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
from tests.integration.benchmark_models import Brightness, Contrast, Steps
from tests.unit.benchmark.tree import mvtec_tree

from anomalib_dpclip.benchmark import command
from anomalib_dpclip.benchmark.command import benchmark
from anomalib_dpclip.benchmark.own_process import attempt
from anomalib_dpclip.benchmark.plan import digest_of
from anomalib_dpclip.benchmark.rows import METRICS, OPERATING_POINTS, jobs_folder, read_beside, read_rows


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder to run in."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def here(monkeypatch):
    """Models of the tests, in this process: another one would not find them."""
    monkeypatch.setattr(command, "in_own_process", attempt)
    monkeypatch.setattr(anomalib.models, "Brightness", Brightness, raising=False)
    monkeypatch.setattr(anomalib.models, "Contrast", Contrast, raising=False)
    monkeypatch.setattr(anomalib.models, "Steps", Steps, raising=False)
    monkeypatch.setattr(Brightness, "failing", set())


@pytest.fixture
def tree(tmp_path):
    return mvtec_tree(tmp_path / "MVTecAD")


def _config(path, tree, models, seed=1, categories=("hazelnut", "tile"), **section):
    init_args = {"root": str(tree), "num_workers": 0, "category": {"grid": list(categories)}}
    data = {"class_path": "MVTecAD", "init_args": init_args}
    content = {"accelerator": "cpu", "benchmark": {"seed": seed, "model": {"grid": models}, "data": data, **section}}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.mark.usefixtures("here")
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
    assert "8 of 16 jobs done" in said

    # Once it is repaired, only what failed is run again.
    Brightness.failing.clear()
    files = {path: path.stat().st_mtime_ns for path in jobs_folder(out).iterdir()}
    assert benchmark(_config(tmp_path / "mixed.yaml", tree, models[:3], seed={"grid": [1, 2]}), out) == 0
    written = [path for path in jobs_folder(out).iterdir() if files.get(path) != path.stat().st_mtime_ns]
    assert {json.loads(path.read_text())["row"]["label"] for path in written} == {"weak"}
    assert set(read_rows(out)[read_rows(out)["label"] == "weak"]["status"]) == {"ok"}

    # Nothing is left to do.
    before = out.read_bytes()
    capsys.readouterr()
    assert benchmark(config.with_name("mixed.yaml"), out) == 0
    assert out.read_bytes() == before
    assert "Nothing is measured: all 12 jobs are in" in capsys.readouterr().out

    # Starting over sets all of it aside.
    assert benchmark(config.with_name("mixed.yaml"), out, fresh=True) == 0
    assert len(read_rows(tmp_path / "rows-1.csv")) == 16
    assert len(read_rows(out)) == 12


@pytest.mark.usefixtures("here")
def test_a_training_that_ends_within_an_epoch_is_validated_before_its_test(tmp_path, tree):
    trainer = {"max_steps": 1, "num_sanity_val_steps": 0}
    config = _config(tmp_path / "steps.yaml", tree, [{"class_path": "Steps"}], categories=["tile"], trainer=trainer)
    config.write_text(config.read_text().replace("num_workers: 0", "num_workers: 0\n      train_batch_size: 1"))
    assert benchmark(config, tmp_path / "rows.csv") == 0
    (row,) = read_rows(tmp_path / "rows.csv").to_dict("records")
    assert (row["status"], row["class_F1"]) == ("ok", 1)


@pytest.mark.usefixtures("here")
def test_a_job_whose_files_change_is_run_again_and_its_old_row_marked(tmp_path, tree):
    config, out = _config(tmp_path / "run.yaml", tree, [{"class_path": "Brightness"}]), tmp_path / "rows.csv"
    assert benchmark(config, out) == 0
    old = read_rows(out).set_index("category")["key"]
    shutil.copy(tree / "tile/test/good/000.png", tree / "tile/test/good/001.png")
    digest_of.cache_clear()  # a new process
    assert benchmark(config, out) == 0
    rows = read_rows(out)
    assert rows.set_index("key").loc[old[["hazelnut", "tile"]], "status"].tolist() == ["ok", "superseded"]
    assert rows["category"].tolist().count("tile") == 2

    # What cannot be read any more says nothing of what was measured.
    (tree / "hazelnut").rename(tree / "gone")
    digest_of.cache_clear()
    assert benchmark(config, out) == 1
    assert read_rows(out).set_index("key").loc[old["hazelnut"], "status"] == "ok"
    (tree / "gone").rename(tree / "hazelnut")

    # A job that was lost is measured again.
    jobs_folder(out).joinpath(f"{old['hazelnut']}.json").unlink()
    out.unlink()
    assert benchmark(config, out) == 0
    assert set(read_rows(out)["category"]) == {"hazelnut", "tile"}


@pytest.mark.usefixtures("here")
def test_scores_of_images_and_corrupted_ones(tmp_path, tree):
    config, out = _config(tmp_path / "c.yaml", tree, [{"class_path": "Brightness"}], categories=["tile"]), tmp_path / "rows.csv"
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

    assert benchmark(config, tmp_path / "without.csv", image_scores=False) == 0
    assert not (tmp_path / "without.images.csv").exists()


def _dpclip(tree, **init_args):
    training = {"auxiliary_root": str(tree), "epochs": 1}
    arguments = {"backbone": "mini", "auxiliary": "MVTecAD/bottle", "training": training, **init_args}
    return {"class_path": "DPCLIP", "label": str(init_args or "DP-CLIP"), "init_args": arguments}


def test_one_training_serves_all_categories_in_processes_of_their_own(tmp_path, tree):
    shutil.copy(tree / "bottle/test/good/000.png", tree / "hazelnut/test/good/009.png")
    categories = ["bottle", "hazelnut", "tile"]
    config = _config(tmp_path / "c.yaml", tree, [_dpclip(tree)], categories=categories)
    out = tmp_path / "rows.csv"
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
    Benchmark().run(Namespace(config=str(_config(tmp_path / "host.yaml", tree, [_dpclip(tree)], categories=["tile"]))))
    (results,) = Path("runs/benchmark").glob("*/results.csv")
    names = [name for name in METRICS if name != "pixel_AUPRO_5"]
    assert np.allclose(pd.read_csv(results)[names].to_numpy(), rows.loc[["tile"], names].to_numpy())


@pytest.mark.usefixtures("here")
def test_an_interrupted_run_says_how_to_go_on(tmp_path, tree, capsys, monkeypatch):
    monkeypatch.setattr("anomalib_dpclip.benchmark.measure.measure", interrupt)
    config, out = _config(tmp_path / "c.yaml", tree, [{"class_path": "Brightness"}]), tmp_path / "rows.csv"
    assert benchmark(config, out) == 130
    assert "the same command goes on from there" in capsys.readouterr().out
    monkeypatch.undo()
    assert read_rows(out).empty


def interrupt(*arguments):
    raise KeyboardInterrupt


@pytest.mark.usefixtures("here")
def test_good_images_are_drawn_once_for_all_models_and_can_be_given(tmp_path, tree):
    models = [
        {"class_path": "DPCLIP", "label": "two", "init_args": {"backbone": "mini", "weights": "clip", "k_shot": 2}},
        {"class_path": "DPCLIP", "label": "all", "init_args": {"backbone": "mini", "weights": "clip", "k_shot": "all"}},
    ]
    models.append(
        {
            "class_path": "Padim",
            "label": "host",
            "k_shot": 2,
            "init_args": {"backbone": "resnet18", "layers": ["layer1"], "pre_trained": False, "n_features": 20},
        }
    )
    config, out = _config(tmp_path / "c.yaml", tree, models, categories=["tile"], draws=2), tmp_path / "rows.csv"
    assert benchmark(config, out) == 0, read_rows(out)["reason"].tolist()
    rows = read_rows(out)
    assert rows.groupby("label")["draw"].agg(list).to_dict() == {"two": ["0", "1"], "all": ["0"], "host": ["0", "1"]}
    assert dict(zip(rows["label"], rows["knows"], strict=True)) == {
        "two": "2 normal photos",
        "all": "all normal photos",
        "host": "2 normal photos",
    }
    drawn = json.loads((tmp_path / "rows.draws.json").read_text())
    assert [len(draw) for draw in drawn["MVTecAD/tile"]] == [2, 2]

    again = _config(tmp_path / "again.yaml", tree, models[:1], categories=["tile"], draws=str(tmp_path / "rows.draws.json"))
    assert benchmark(again, tmp_path / "again.csv") == 0
    columns = ["draw", "image_AUROC", "pixel_AP"]
    same = rows[rows["label"] == "two"][columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(read_rows(tmp_path / "again.csv")[columns], same)


@pytest.mark.usefixtures("here")
def test_a_training_that_cannot_start_fails_its_rows_only(tmp_path, tree):
    models = [_dpclip(tree / "nowhere"), {"class_path": "Brightness"}]
    out = tmp_path / "rows.csv"
    assert benchmark(_config(tmp_path / "c.yaml", tree, models, categories=["tile"]), out) == 1
    rows = read_rows(out).set_index("model")
    assert rows.loc["Brightness", "status"] == "ok"
    assert "nowhere" in rows.loc["DPCLIP", "reason"]
