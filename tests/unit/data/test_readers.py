"""Photos of 10 and 12 bits in files of 16: TIFF and PNG that say so, and those that don't."""

import copy
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tests.unit.data.test_json_lines import labelled
from tests.unit.data.test_photos import predict, rows

from anomalib_dpclip.auxiliary.dataset import AuxiliaryDataset
from anomalib_dpclip.clip.preprocessing import OPENAI
from anomalib_dpclip.data.images import ImageReadError, read_image
from anomalib_dpclip.data.labelled_sets import read_labelled_set
from anomalib_dpclip.data.readers import ImageReader

RAMP = np.linspace(0, 1, 256)
TWELVE = (RAMP * 4095).round().astype(np.uint16).reshape(16, 16)
EXPECTED = (TWELVE / 4095 * 255).round().astype(np.uint8)


def grey(path, **arguments):
    return np.asarray(read_image(path))[..., 0] if not arguments else np.asarray(ImageReader(**arguments)(path))[..., 0]


def png_with_significant_bits(path, values, bits):
    """A 16-bit PNG with an sBIT chunk behind its header."""
    Image.fromarray(values).save(path)
    content = path.read_bytes()
    body = b"sBIT" + bytes([bits])
    chunk = struct.pack(">I", 1) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(content[:33] + chunk + content[33:])
    return path


@pytest.mark.parametrize("tags", [{281: 4095}, {281: (4095,)}])
def test_a_tiff_that_says_its_range(tmp_path, tags):
    path = tmp_path / "a.tif"
    Image.fromarray(TWELVE).save(path, tiffinfo=tags)
    assert np.array_equal(grey(path), EXPECTED)


def test_a_png_that_says_its_range(tmp_path):
    assert np.array_equal(grey(png_with_significant_bits(tmp_path / "a.png", TWELVE, 12)), EXPECTED)


def test_a_png_that_scales_its_values_as_the_standard_asks(tmp_path):
    path = png_with_significant_bits(tmp_path / "bright.png", TWELVE << 4, 12)
    assert np.array_equal(grey(path), ((TWELVE << 4) / 65535 * 255).round())
    dark = (TWELVE >> 5) << 4
    path = png_with_significant_bits(tmp_path / "dark.png", dark, 12)
    assert grey(path).max() == round(dark.max() / 65535 * 255)


def test_sixteen_bits_stay_sixteen(tmp_path):
    values = (RAMP * 65535).round().astype(np.uint16).reshape(16, 16)
    for path in (tmp_path / "a.tif", tmp_path / "a.png"):
        Image.fromarray(values).save(path)
        assert np.array_equal(grey(path), (values / 65535 * 255).round())


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
    lines = [record.getMessage() for record in caplog.records if "almost black" in record.getMessage()]
    assert len(lines) == 1
    assert str(root / "0.png") in lines[0]
    assert f"--data.bit_depth {depth}" in lines[0]
    scores = [float(score) for _, score, *_ in rows(tmp_path / "out")]
    caplog.clear()
    predict(root, tmp_path / "out", bit_depth=depth)  # other values, so other results
    assert "almost black" not in caplog.text
    assert max(scores) < 0.05
    assert min(float(score) for _, score, *_ in rows(tmp_path / "out")) > 0.3


def test_listed_photos_too(tmp_path, caplog):
    Image.fromarray(TWELVE).save(tmp_path / "a.png")
    metadata = tmp_path / "list.jsonl"
    metadata.write_text('{"image_path": "a.png", "label": 0, "class_name": "a"}\n')
    assert labelled(metadata, tmp_path)[0].image.max() < 0.1
    assert "--data.bit_depth 12" in caplog.text
    assert labelled(metadata, tmp_path, bit_depth=12)[0].image.max() == 1


def test_the_first_empty_mask_of_an_anomalous_image_is_named_once_in_all_copies(tmp_path, caplog):
    for name in ("a", "b"):
        Image.new("L", (4, 3)).save(tmp_path / f"{name}_mask.png")
        Image.new("RGB", (4, 3)).save(tmp_path / f"{name}.png")
    lines = '{"image_path": "%s.png", "label": 1, "class_name": "c", "mask_path": "%s_mask.png"}'
    (tmp_path / "list.jsonl").write_text("\n".join(lines % (name, name) for name in "ab"))
    samples = read_labelled_set(str(tmp_path / "list.jsonl"))
    for dataset in (labelled(tmp_path / "list.jsonl", tmp_path), AuxiliaryDataset(samples, (14, 14), OPENAI, seed=1)):
        caplog.clear()
        for each in (dataset, copy.deepcopy(dataset)):
            assert not any(each[index].gt_mask.any() for index in range(2))
        (named,) = [message for message in caplog.messages if "is labelled anomalous, but its mask" in message]
        assert str(tmp_path / "a_mask.png") in named
