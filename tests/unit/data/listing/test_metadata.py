"""What a line of a metadata file may say, what is said of a bad one, and which lines are chosen."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.metadata_lines import write_lines
from tests.pictures import picture

from anomalib_dpclip.data.listing.metadata import few_shot, read_metadata, write_metadata

LINE = {"image_path": "a.png", "label": 0, "class_name": "c"}
GOOD = json.dumps(LINE) + "\n"


@pytest.mark.parametrize(("text", "label"), [("1", 1), ("1.0", 1), ("true", 1), ("0", 0), ("0.0", 0), ("false", 0)])
def test_spellings_of_labels(folder, tmp_path, text, label):
    path = write_lines(tmp_path / "x.jsonl", [f'{{"image_path": "a.png", "label": {text}, "class_name": "c"}}'])
    assert read_metadata(path, folder).label_index.tolist() == [label]


def test_what_a_file_may_hold_besides(folder, tmp_path):
    """A byte-order mark, CR LF, empty lines, unknown keys, empty mask paths, masks of normal images."""
    text = (
        '{"image_path": "a.png", "label": 1, "class_name": "c", "mask_path": "m.png", "exposure": [1]}\r\n'
        "\r\n"
        '{"image_path": "b.png", "label": 0, "class_name": "c", "mask_path": ""}\n'
        '{"image_path": "./a.png", "label": 0, "class_name": "c", "mask_path": "m.png", "split": "train"}'
    )
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    samples = read_metadata(path, folder)
    assert samples.mask_path.tolist() == [str(folder / "m.png"), None, None]
    assert samples.split.tolist() == ["test", "test", "train"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GOOD[:-2], "not valid JSON: .* at character 54"),
        (GOOD.encode("utf-16"), "not valid JSON in UTF-8"),
        ("[1, 2]", "not a JSON object"),
        ("[" * 100_000, "not valid JSON"),
        ('{"label": ' + "9" * 10_000 + "}", "not valid JSON"),
        ({"image_path": None}, '"image_path" must be text, but is None'),
        ('{"image_path": "a.png", "class_name": "c"}', '"label" must be 0 .* or 1 .*, but is missing'),
        ({"label": 2}, "but is 2"),
        ({"label": "1"}, "but is '1'"),
        ({"class_name": " "}, '"class_name" must be text'),
        ({"class_name": "\ud800"}, '"class_name" must be printable text'),
        ({"split": "val"}, "\"split\" must be .*, but is 'val'"),
        ({"label": 1, "mask_path": 3}, '"mask_path" must be text, but is 3'),
        ({"image_path": "z.png"}, "there is no file 'z.png'"),
        ({"label": 1, "mask_path": "z.png"}, "there is no file 'z.png'"),
        ({"image_path": "a\0.png"}, "there is no file"),
        ({"image_path": "\ud800.png"}, "there is no file"),
        ({"image_path": "a" * 5000}, "there is no file"),
        ({"image_path": "dangling.png"}, "there is no file"),
        ({"image_path": "pipe"}, "is not a file"),
        ({"image_path": "../outside.png"}, "leaves the root"),
        ({"image_path": "folder/outside.png"}, "leaves the root"),
        ({"image_path": "/etc/hostname"}, "/etc/hostname is absolute"),
    ],
)
def test_a_bad_line_is_named_with_its_number(folder, tmp_path, line, message):
    picture(tmp_path / "outside.png")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "dangling.png").symlink_to(folder / "nothing.png")
    os.mkfifo(folder / "pipe")
    text = json.dumps(LINE | line) if isinstance(line, dict) else line
    path = tmp_path / "x.jsonl"
    path.write_bytes(f"{GOOD}\n".encode() + (text if isinstance(text, bytes) else text.encode()))
    with pytest.raises(ValueError, match=rf"(?s)^{path}:3: .*{message}") as caught:
        read_metadata(path, folder)
    assert len(str(caught.value)) < 12_000


def test_links_that_stay_inside_are_followed(folder, tmp_path):
    (folder / "sub").mkdir()
    (tmp_path / "alias").symlink_to(folder)
    for name in ("link.png", "größer als 螺丝.png"):
        (folder / name).symlink_to("a.png")
    lines = [LINE | {"image_path": name} for name in ("sub/../link.png", "größer als 螺丝.png")]
    samples = read_metadata(write_lines(tmp_path / "x.jsonl", lines), tmp_path / "alias")
    assert [Image.open(path).size for path in samples.image_path] == [(16, 12)] * 2


def test_missing_file_root_and_lines(folder, tmp_path):
    path = write_lines(tmp_path / "x.jsonl", ["\n"])
    with pytest.raises(ValueError, match="lists no images"):
        read_metadata(path, folder)
    with pytest.raises(FileNotFoundError, match=r"no metadata file .*y\.jsonl"):
        read_metadata(tmp_path / "y.jsonl", folder)
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere: root must be"):
        read_metadata(path, tmp_path / "nowhere")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["a.png", "m.png", "test"]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from(["image_path", "label", "class_name", "mask_path", "split"]) | st.text()
json_lines = st.dictionaries(keys, json_values, max_size=6).map(lambda line: json.dumps(line).encode())


@settings(max_examples=300, deadline=None, derandomize=True)
@given(lines=st.lists(st.binary(max_size=60) | json_lines | st.just(GOOD.strip().encode()), max_size=4))
def test_any_file_gives_samples_or_one_error_with_its_line(tmp_path_factory, lines):
    root = tmp_path_factory.getbasetemp() / "fuzz"
    if not root.exists():
        picture(root / "a.png")
    path = root / "x.jsonl"
    path.write_bytes(b"\n".join(lines))
    try:
        samples = read_metadata(path, root)
    except ValueError as error:
        assert str(error).startswith(f"{path}:") or "lists no images" in str(error)  # noqa: PT017  (either is right)
    else:
        assert set(samples.label_index) <= {0, 1}
        assert all((root / "a.png").samefile(image) for image in samples.image_path)


def test_writing_and_reading_give_the_same_samples_or_no_file(folder, tmp_path):
    lines = [LINE | {"label": 1, "mask_path": "m.png"}, LINE | {"image_path": "b.png"}, LINE | {"split": "train"}]
    samples = read_metadata(write_lines(tmp_path / "x.jsonl", lines), folder)
    copy = tmp_path / "new" / "copy.jsonl"
    write_metadata(samples, folder, copy)
    assert read_metadata(copy, folder).equals(samples)
    assert [json.loads(each) for each in copy.read_text().splitlines()] == lines
    (folder / "inner").mkdir()
    with pytest.raises(ValueError, match="is not inside the root"):
        write_metadata(samples, folder / "inner", tmp_path / "other" / "copy.jsonl")
    assert not list(tmp_path.glob("other/*"))


@pytest.fixture
def samples():
    counts = {"a": (10, 6), "b": (2, 9)}
    rows = [
        (name, label, f"{label}{index:02}") for name, of in counts.items() for label in (0, 1) for index in range(of[label])
    ]
    return pd.DataFrame(rows, columns=["class_name", "label_index", "image_path"])


def rows_of(samples):
    return set(map(tuple, samples.to_numpy()))


@pytest.mark.parametrize(
    ("shots", "of_a", "of_b"),
    [
        (1, (0, 1), (0, 1)),
        (3, (1, 2), (1, 2)),
        (4, (2, 2), (2, 2)),
        (8, (4, 4), (2, 6)),  # b has 2 normal images only
        (14, (8, 6), (2, 9)),  # a has 6 anomalous ones; b has 11 images in all
    ],
)
def test_half_of_each_category_is_anomalous_where_there_are_enough(samples, shots, of_a, of_b):
    counts = few_shot(samples, shots, seed=0).groupby(["class_name", "label_index"]).size()
    assert [tuple(counts.get((name, label), 0) for label in (0, 1)) for name in "ab"] == [of_a, of_b]


def test_the_choice_depends_on_neither_order_nor_other_categories_and_grows(samples):
    chosen = rows_of(few_shot(samples, 4, seed=3))
    assert rows_of(few_shot(samples[::-1], 4, seed=3)) == chosen
    alone = few_shot(samples[samples.class_name == "a"], 4, seed=3)
    assert rows_of(alone) == {row for row in chosen if row[0] == "a"}
    assert rows_of(few_shot(samples, 2, seed=3)) < chosen


def test_the_choice_follows_from_numpys_frozen_generator(samples):
    a = samples[samples.class_name == "a"].sort_values("image_path").image_path.to_numpy()
    shuffled = a[np.random.RandomState(111).permutation(16)]  # the frozen one
    assert shuffled[:4].tolist() == ["104", "007", "005", "100"]
    chosen = few_shot(samples[samples.class_name == "a"], 4, seed=111)
    assert chosen.image_path.tolist() == ["005", "007", "100", "104"]
