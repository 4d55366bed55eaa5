"""Photos of 10 and 12 bits in files of 16: files that say so, and those that don't; empty masks; and worker processes."""

import copy
import multiprocessing
import os
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tests.metadata_lines import write_lines
from tests.pictures import mask, picture
from tests.unit.data.test_json_lines import labelled
from tests.unit.data.test_photos import predict, scores

from anomalib_dpclip.auxiliary.dataset import AuxiliaryDataset
from anomalib_dpclip.clip.pretraining import OPENAI
from anomalib_dpclip.data.images import ImageReadError, read_image
from anomalib_dpclip.data.labelled_sets import read_labelled_set
from anomalib_dpclip.data.photos import Photos
from anomalib_dpclip.data.readers import ImageReader, default_num_workers

RAMP = np.linspace(0, 1, 256)
TWELVE = (RAMP * 4095).round().astype(np.uint16).reshape(16, 16)
EXPECTED = (TWELVE / 4095 * 255).round().astype(np.uint8)


def grey(path, **arguments):
    return np.asarray(read_image(path))[..., 0] if not arguments else np.asarray(ImageReader(**arguments)(path))[..., 0]


@pytest.fixture
def png(tmp_path):
    def write(values, bits):
        path = tmp_path / "a.png"
        Image.fromarray(values).save(path)
        content, body = path.read_bytes(), b"sBIT" + bytes([bits])
        chunk = struct.pack(">I", 1) + body + struct.pack(">I", zlib.crc32(body))
        path.write_bytes(content[:33] + chunk + content[33:])
        return path

    return write


def test_a_file_that_says_its_range(tmp_path, png):
    for value in (4095, (4095,)):
        Image.fromarray(TWELVE).save(tmp_path / "a.tif", tiffinfo={281: value})
        assert np.array_equal(grey(tmp_path / "a.tif"), EXPECTED)
    assert np.array_equal(grey(png(TWELVE, 12)), EXPECTED)


@pytest.mark.parametrize("values", [TWELVE << 4, (TWELVE >> 5) << 4])
def test_a_png_that_scales_its_values_as_the_standard_asks(png, values):
    assert np.array_equal(grey(png(values, 12)), (values / 65535 * 255).round())


def test_the_user_says_it(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(TWELVE).save(path)
    assert grey(path).max() == 16
    assert np.array_equal(grey(path, bit_depth=12), EXPECTED)
    with pytest.raises(ImageReadError, match=r"a\.png.*must lie in 0\.\.1023.*set bit_depth"):
        ImageReader(10)(path)
    with pytest.raises(ValueError, match=r"bit_depth must lie in 8\.\.16, not 32"):
        ImageReader(32)


@pytest.mark.parametrize(("shift", "depth"), [(0, 12), (2, 10)])
def test_dark_photos_are_pointed_out_once_a_run(tmp_path, caplog, shift, depth):
    root = tmp_path / "photos"
    root.mkdir()
    for index in range(3):
        Image.fromarray(TWELVE >> shift).save(root / f"{index}.png")
    predict(root, tmp_path / "out")
    (line,) = [message for message in caplog.messages if "almost black" in message]
    assert str(root / "0.png") in line
    assert f"--data.bit_depth {depth}" in line
    assert max(scores(tmp_path / "out", root).values()) < 0.05
    caplog.clear()
    predict(root, tmp_path / "out", bit_depth=depth)  # other values, so other results
    assert "almost black" not in caplog.text
    assert min(scores(tmp_path / "out", root).values()) > 0.3


def test_listed_photos_too(tmp_path, caplog):
    Image.fromarray(TWELVE).save(tmp_path / "a.png")
    metadata = write_lines(tmp_path / "list.jsonl", [{"image_path": "a.png", "label": 0, "class_name": "a"}])
    assert labelled(metadata, tmp_path)[0].image.max() < 0.1
    assert "--data.bit_depth 12" in caplog.text
    assert labelled(metadata, tmp_path, bit_depth=12)[0].image.max() == 1


def test_the_first_empty_mask_of_an_anomalous_image_is_named_once_in_all_copies(tmp_path, caplog):
    lines = []
    for name in "ab":
        picture(tmp_path / f"{name}.png")
        mask(tmp_path / f"{name}_mask.png", value=0)
        lines.append({"image_path": f"{name}.png", "label": 1, "class_name": "c", "mask_path": f"{name}_mask.png"})
    path = write_lines(tmp_path / "list.jsonl", lines)
    learned = AuxiliaryDataset(read_labelled_set(str(path)), (14, 14), OPENAI, seed=1)
    for dataset in (labelled(path, tmp_path), learned):
        caplog.clear()
        for each in (dataset, copy.deepcopy(dataset)):
            assert not any(each[index].gt_mask.any() for index in range(2))
        (named,) = [message for message in caplog.messages if "is labelled anomalous, but its mask" in message]
        assert str(tmp_path / "a_mask.png") in named


@pytest.mark.parametrize(("processors", "devices", "expected"), [(1, 1, 1), (2, 1, 1), (8, 1, 7), (16, 4, 3), (64, 1, 8)])
def test_one_processor_is_left_to_each_device(monkeypatch, processors, devices, expected):
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "fork")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(processors), raising=False)
    assert default_num_workers(devices) == expected


@pytest.mark.parametrize(("name", "value"), [("get_start_method", "spawn"), ("current_process", SimpleNamespace(daemon=True))])
def test_no_workers_where_processes_are_not_forked_or_may_have_no_children(monkeypatch, tmp_path, name, value):
    monkeypatch.setattr(multiprocessing, name, lambda: value)
    assert default_num_workers() == Photos(tmp_path).num_workers == 0
