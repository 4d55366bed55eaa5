"""A lot of unlabelled images that judge each other."""

import pandas as pd
import pytest
import torch
from tests.arguments import make_dpclip
from torch.utils.data import DataLoader, DistributedSampler

from anomalib_dpclip import Photos
from anomalib_dpclip.adapter_files.save_and_load import save_adapters
from anomalib_dpclip.method import mutual_scoring
from anomalib_dpclip.scorers.batch_scorer import panel_loader


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_adapters(make_dpclip(backbone="mini", class_name="weave"), tmp_path_factory.mktemp("w") / "a.safetensors")


@pytest.fixture
def model(weights):
    return make_dpclip(backbone="mini", weights=weights, lot=True, class_name="weave", visualizer=False)


def test_a_test_split_judges_itself(model, make_engine, target):
    (results,) = make_engine().test(model=model, datamodule=target)
    assert results["pixel_AUROC"] > 0.95  # with adapters that have learned nothing


def test_photos_of_a_folder_judge_each_other(model, make_engine, surfaces_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "lot"
    folder.mkdir()
    for kind in ("good", "hole"):
        for path in sorted((surfaces_root / "weave" / "test" / kind).iterdir())[: 12 if kind == "good" else 3]:
            (folder / f"{kind}-{path.name}").write_bytes(path.read_bytes())
    batches = make_engine().predict(model=model, datamodule=Photos(folder, batch_size=4, num_workers=0))
    scores = {path: float(score) for batch in batches for path, score in zip(batch.image_path, batch.pred_score, strict=True)}
    assert len(scores) == 15
    holes = [score for path, score in scores.items() if "hole-" in path]
    assert min(holes) > max(score for path, score in scores.items() if "good-" in path)
    assert min(holes) > 0.5


def test_the_batch_size_does_not_matter(model, make_engine, surfaces_root):
    folder = surfaces_root / "weave" / "test" / "crack"
    scores = []
    for size in (1, 5):
        batches = make_engine(default_root_dir=folder.parent / f"r{size}").predict(
            model=model, datamodule=Photos(folder, batch_size=size, num_workers=0)
        )
        scores.append(torch.cat([batch.pred_score for batch in batches]))
    assert torch.allclose(*scores, atol=1e-3)  # what is compared is stored in half precision


@pytest.fixture
def lot(surfaces_root, tmp_path):
    folder = tmp_path / "lot"
    folder.mkdir()
    for kind in ("good", "hole"):
        for path in sorted((surfaces_root / "weave" / "test" / kind).iterdir())[:5]:
            (folder / f"{kind}-{path.name}").write_bytes(path.read_bytes())
    return folder


def scores_of(folder):
    rows = pd.read_csv(next(folder.rglob("results.csv")))
    return dict(zip(rows["path"], rows["score"], strict=True))


def test_a_panel_judges_a_larger_lot_and_each_image_alike_wherever_it_is(model, make_engine, lot, monkeypatch, tmp_path):
    monkeypatch.setattr(mutual_scoring.choose_panel, "__defaults__", (4,))
    scores = []
    for size in (1, 7):
        folder = tmp_path / str(size)
        datamodule = Photos(lot, batch_size=size, num_workers=0)
        make_engine(default_root_dir=folder).predict(model=model, datamodule=datamodule)
        assert len(model._panel.number) == 4
        scores.append(scores_of(folder))
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    holes = [score for path, score in scores[0].items() if "hole-" in path]
    assert min(holes) > max(score for path, score in scores[0].items() if "good-" in path)


def test_a_resumed_run_judges_by_the_whole_lot(model, make_engine, lot, tmp_path):
    def predict():
        make_engine(default_root_dir=tmp_path / "run").predict(model=model, datamodule=Photos(lot, num_workers=0))
        return scores_of(tmp_path / "run")

    undisturbed = predict()
    results = next((tmp_path / "run").rglob("results.csv"))
    lines = results.read_text().splitlines(keepends=True)
    results.write_text("".join(lines[:-3]))
    assert len(scores_of(tmp_path / "run")) == 7
    assert predict() == pytest.approx(undisturbed, abs=1e-3)


def test_every_process_sees_the_same_panel():
    data = list(range(500))
    panels = []
    for rank in (0, 1):
        loader = DataLoader(data, 8, sampler=DistributedSampler(data, num_replicas=2, rank=rank))
        panels.append(torch.cat(list(panel_loader(loader, seed=1))).tolist())
    assert panels[0] == panels[1]
    assert len(set(panels[0])) == 200


def test_an_export_says_that_it_has_no_lot(model, caplog):
    model.require_references()
    assert "it judges without the lot" in caplog.text


def test_photos_and_lot_together(weights, make_engine, target):
    model = make_dpclip(backbone="mini", weights=weights, lot=True, k_shot=2, visualizer=False)
    (results,) = make_engine().test(model=model, datamodule=target)
    assert results["pixel_AUROC"] > 0.95


def test_one_image_is_judged_by_the_text(model, make_engine, surfaces_root, tmp_path, caplog):
    path = next((surfaces_root / "weave" / "test" / "hole").iterdir())
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / path.name).write_bytes(path.read_bytes())
    make_engine().predict(model=model, datamodule=Photos(tmp_path / "one", num_workers=0))
    assert "a lot of less than two images cannot judge itself" in caplog.text
