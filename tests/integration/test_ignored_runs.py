"""Runs with something to ignore: calibration, metrics, checkpoint, predictions and exported files leave it out."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tests.arguments import make_dpclip
from tests.data.golden.make_golden import GOLDEN
from tests.metadata_lines import write_lines

from anomalib_dpclip import JSONLines
from anomalib_dpclip.cli import main
from anomalib_dpclip.data.results import RESULTS_JSON
from anomalib_dpclip.metrics import auroc, count_pixels

BOX = (10, 10, 70, 50)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, surfaces_root):
    """Photos twice: as they are, and with a timestamp in the box; what to ignore; and lists of both."""
    folder = tmp_path_factory.mktemp("ignored")
    picture = Image.new("L", (140, 140))
    picture.paste(255, BOX)
    picture.save(folder / "ignore.png")
    random = np.random.default_rng(0)
    for name in ("plain", "stamped"):
        rows = []
        for path in (path for kind in ("good", "hole") for path in sorted((surfaces_root / "weave/test" / kind).iterdir())[:8]):
            kind, image = path.parent.name, Image.open(path).convert("RGB")
            if name == "stamped":
                noise = random.integers(0, 256, (BOX[3] - BOX[1], BOX[2] - BOX[0], 3), np.uint8)
                image.paste(Image.fromarray(noise), BOX[:2])
            (folder / name).mkdir(exist_ok=True)
            image.save(folder / name / f"{kind}{path.name}")
            rows.append({"image_path": f"{name}/{kind}{path.name}", "label": int(kind == "hole"), "class_name": "weave"})
            if kind == "hole":
                rows[-1]["mask_path"] = f"{path.stem}_mask.png"
                shutil.copy(surfaces_root / "weave" / "ground_truth" / kind / rows[-1]["mask_path"], folder)
        write_lines(folder / f"{name}.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def runs(folder, engine_in):
    """Metrics of a test after a validation, and the checkpoint, of both lists."""
    results = {}
    for name in ("plain", "stamped"):
        engine = engine_in(folder / f"run-{name}")
        model = make_dpclip(weights=GOLDEN / "adapters-v1.safetensors", ignore=folder / "ignore.png", visualizer=False)
        data = JSONLines(metadata=folder / f"{name}.jsonl", root=folder, eval_batch_size=8)
        engine.validate(model=model, datamodule=data)
        (metrics,) = engine.test(model=model, datamodule=data)
        engine.trainer.save_checkpoint(folder / f"{name}.ckpt")
        results[name] = (metrics, model)
    return results


def test_what_is_ignored_moves_neither_metric_nor_threshold(runs):
    (plain, model), (stamped, other) = runs["plain"], runs["stamped"]
    assert plain == stamped
    for name, value in model.post_processor.calibration.state_dict().items():
        assert torch.equal(value, other.post_processor.calibration.state_dict()[name]), name


def test_metrics_are_of_the_judged_pixels(runs, folder):
    metrics, model = runs["plain"]
    data = JSONLines(metadata=folder / "plain.jsonl", root=folder)
    data.setup()
    items = [data.test_data[index] for index in range(len(data.test_data))]
    with torch.no_grad():
        maps = model.eval().cpu()(torch.stack([item.image for item in items])).anomaly_map
    masks = torch.stack([item.gt_mask for item in items]).view(-1, 140, 140)
    judged = torch.ones(140, 140, dtype=torch.bool)
    judged[BOX[1] : BOX[3], BOX[0] : BOX[2]] = False
    assert torch.equal(model.region.scored, judged)  # the photos have the model's size: nothing is mixed
    assert metrics["pixel_AUROC"] == pytest.approx(auroc(count_pixels(maps, masks, judged)), abs=1e-5)
    assert metrics["pixel_AUROC"] != pytest.approx(auroc(count_pixels(maps, masks)), abs=1e-5)


@pytest.mark.usefixtures("runs")
def test_the_checkpoint_predicts_without_being_told(folder, tmp_path):
    for name in ("plain", "stamped"):
        command = ["predict", "--weights", str(folder / "plain.ckpt"), str(folder / name)]
        main([*command, "--output", str(tmp_path / name), "--num_workers", "0"])
    plain, stamped = (pd.read_csv(tmp_path / name / "results.csv") for name in ("plain", "stamped"))
    assert list(plain.score) == list(stamped.score)
    rows = json.loads((tmp_path / "stamped" / RESULTS_JSON).read_text())
    regions = [region["box"] for row in rows for region in row["regions"]]
    assert regions
    for left, top, right, bottom in regions:
        assert left < BOX[0] or top < BOX[1] or right > BOX[2] or bottom > BOX[3]
