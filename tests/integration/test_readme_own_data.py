"""The commands of the README's section on own data, run as they are written."""

import re
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw
from tests.readme import blocks, run_shell

HOLE = (40, 30, 70, 50)


def take_photo(path: Path, mask: Path | None = None, *, defect: bool = False) -> None:
    noise = np.random.default_rng(zlib.crc32(str(path).encode())).integers(150, 170, (90, 120, 3), dtype=np.uint8)
    photo = Image.fromarray(noise)
    if defect:
        ImageDraw.Draw(photo).rectangle(HOLE, fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    photo.save(path)
    if mask:
        drawn = Image.new("L", photo.size)
        ImageDraw.Draw(drawn).rectangle(HOLE, fill=255)
        mask.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(mask)


@pytest.fixture
def folder(tmp_path):
    """Photos as the section lays them out, others without masks, and some that nobody has looked at."""
    for index in range(3):
        for good in ("photos/good", "photos/train/good", "bolts/good", "new_photos"):
            take_photo(tmp_path / good / f"{index}.jpg")
        for kind in ("scratch", "hole"):
            mask = tmp_path / "photos" / "masks" / kind / f"{index}.png"
            take_photo(tmp_path / "photos" / kind / f"{index}.jpg", mask, defect=True)
        take_photo(tmp_path / "bolts" / "bent" / f"{index}.jpg", defect=True)
    return tmp_path


def metrics(output: str) -> list[dict[str, float]]:
    """The tables of test metrics that were printed, in their order."""
    rows = re.findall(r"((?:image|pixel)_\w+)\s+│\s+([\d.e-]+|nan)\s", output)
    return [{name: float(value) for name, value in rows[i : i + 7]} for i in range(0, len(rows), 7)]


def test_commands_run_as_written(folder):
    done = run_shell(blocks("Your own data", "bash"), folder)
    assert "9 labelled images of 1 categories (3 normal, 6 anomalous, 6 with masks), 3 training images" in done.stdout
    assert "metadata/photos/full-shot.jsonl: 0 errors" in done.stderr
    trained, again, bolts, synthetic = metrics(done.stdout)
    assert trained == again, "the checkpoint carries its thresholds"
    assert not any(np.isnan(value) for value in [*trained.values(), *synthetic.values()])
    assert {name for name, value in bolts.items() if np.isnan(value)} == {name for name in bolts if "pixel" in name}

    predicted = folder / "results" / "DPCLIP" / "new_photos" / "latest"
    results = pd.read_csv(predicted / "results.csv")
    assert [Path(path).name for path in results.path] == ["0.jpg", "1.jpg", "2.jpg"]
    assert results.score.between(0, 1).all()
    assert set(results.label) <= {"normal", "anomalous"}
    assert len(list((predicted / "images").iterdir())) == 3, "a heat map for each photo"
