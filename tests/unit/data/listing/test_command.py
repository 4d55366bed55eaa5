"""`dpclip metadata` lists folders and the data modules of anomalib, and finds everything that is wrong with a list."""

import json

import numpy as np
import pytest
from PIL import Image
from tests.metadata_lines import write_lines
from tests.pictures import mask, picture

from anomalib_dpclip.data.listing.command import check_metadata, metadata


def build(root, *names):
    for name in names:
        (mask if {"masks", "ground_truth", "label", "Masks"} & set(name.split("/")) else picture)(root / name)
    return root


def listed(root, output, **arguments):
    """What the command lists, as image path: (label, class name, mask path, split)."""
    assert metadata(root, output=output, **arguments) == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    return {line["image_path"]: (line["label"], line["class_name"], line.get("mask_path"), line.get("split")) for line in lines}


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.jsonl"


TRAIN_AND_TEST = ["train/good/0.png", "test/good/0.png", "test/bent/0.png", "ground_truth/bent/0_mask.png"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["good/1.jpg", "scratch/1.jpg", "hole/1.JPG", "masks/scratch/1.png", "masks/hole/1_mask.png"],
            {
                "good/1.jpg": (0, "hex bolt", None, None),
                "scratch/1.jpg": (1, "hex bolt", "masks/scratch/1.png", None),
                "hole/1.JPG": (1, "hex bolt", "masks/hole/1_mask.png", None),
            },
        ),
        (
            ["good/1.png", "bad/2.png", "ground_truth/2.png"],  # one kind of defect: its masks need no folder of their own
            {"good/1.png": (0, "hex bolt", None, None), "bad/2.png": (1, "hex bolt", "ground_truth/2.png", None)},
        ),
        (["good/1.png", "bad/1.png"], {"good/1.png": (0, "hex bolt", None, None), "bad/1.png": (1, "hex bolt", None, None)}),
        (["images/1.png", "masks/1.png"], {"images/1.png": (1, "hex bolt", "masks/1.png", None)}),
        (
            [f"{category}/{name}" for category in ("nut", "screw") for name in TRAIN_AND_TEST],
            {
                "nut/train/good/0.png": (0, "nut", None, "train"),
                "nut/test/good/0.png": (0, "nut", None, None),
                "nut/test/bent/0.png": (1, "nut", "nut/ground_truth/bent/0_mask.png", None),
                "screw/train/good/0.png": (0, "screw", None, "train"),
                "screw/test/good/0.png": (0, "screw", None, None),
                "screw/test/bent/0.png": (1, "screw", "screw/ground_truth/bent/0_mask.png", None),
            },
        ),
    ],
)
def test_layouts_of_folders(tmp_path, output, files, expected):
    root = build(tmp_path / "hex bolt", *files)
    (root / "notes.txt").touch()
    assert listed(root, output) == expected
    assert {name for _, name, *_ in listed(root, output, class_name="screw").values()} == {"screw"}


def test_what_is_not_listed_and_what_prompts_say_is_on_the_screen(tmp_path, capsys):
    names = ("good/1.png", "scratch/1.png", "scratch/deep/2.png", "scratch/deep/3.png", "4.png", ".cache/5.png")
    root = build(tmp_path / "my_photos", *names, "masks/scratch/1.png")
    metadata(root, output=tmp_path / "x.jsonl")
    assert capsys.readouterr().out.splitlines()[1:] == [
        "prompts will say 'my photos' (the folder's name: say what the photos show with --class_name)",
        f"not listed: 1 images in {root}",
        f"not listed: 2 images in {root}/scratch/deep",
    ]
    metadata(root, output=tmp_path / "MVTec" / "x.jsonl", class_name="bottle")
    assert "prompts will say 'dark bottle'\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        (["good/1.png", "hole/1.png", "masks/hole/1_annotation.png"], ValueError, r"1 masks match no image.*1_annotation\.png"),
        (["good/1.png", "hole/1.png", "scratch/1.png", "masks/1.png"], ValueError, "match no image"),  # of which?
        (["images/1.png"], ValueError, r"1\.png has no mask in .*masks: put normal images into .*good"),
        (["1.png"], FileNotFoundError, r"nor a folder in it has good/"),
        (["good/deep/1.png"], FileNotFoundError, "no image in the folders"),
    ],
)
def test_folders_that_cannot_be_listed(tmp_path, output, files, error, message):
    with pytest.raises(error, match=message):
        metadata(build(tmp_path / "nowhere", *files), output=output)
    assert not output.exists()


def mvtec(root, *categories):
    for category in categories:
        kinds = ("test/good/{}.png", "test/hole/{}.png", "ground_truth/hole/{}_mask.png")
        build(root / category, "train/good/0.png", *(kind.format(index) for kind in kinds for index in range(5)))
    return root


def test_mvtec_lists_the_categories_there_are(tmp_path, output):
    samples = listed(mvtec(tmp_path / "data", "bottle", "wood"), output, source="MVTecAD")
    assert len(samples) == 22
    assert samples["wood/test/hole/3.png"] == (1, "wood", "wood/ground_truth/hole/3_mask.png", None)
    assert samples["bottle/train/good/0.png"] == (0, "bottle", None, "train")


def test_visa_in_its_raw_layout(tmp_path, output):
    root = tmp_path / "VisA"
    rows = ["object,split,label,image,mask"]
    for name, split, label in (("0", "train", "normal"), ("1", "test", "normal"), ("2", "test", "anomaly")):
        image = f"candle/Data/Images/{'Normal' if label == 'normal' else 'Anomaly'}/{name}.JPG"
        picture(root / image)
        rows.append(f"candle,{split},{label},{image},")
    mask(root / "candle" / "Data" / "Masks" / "Anomaly" / "2.png", value=1)
    rows[-1] += "candle/Data/Masks/Anomaly/2.png"
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(rows))
    converted = "visa_pytorch/candle"
    for _ in range(2):  # once more, now that it is converted
        assert listed(root, output, source="VisA") == {
            f"{converted}/train/good/0.JPG": (0, "candle", None, "train"),
            f"{converted}/test/good/1.JPG": (0, "candle", None, None),
            f"{converted}/test/bad/2.JPG": (1, "candle", f"{converted}/ground_truth/bad/2.png", None),
        }


def test_bad_sources(tmp_path):
    with pytest.raises(FileNotFoundError, match="no category of MVTecAD in"):
        metadata(tmp_path, source="MVTecAD")
    with pytest.raises(ValueError, match="unknown data set 'ImageNet'"):
        metadata(tmp_path, source="ImageNet")
    with pytest.raises(ValueError, match="class_name is for source folder"):
        metadata(tmp_path, source="MVTecAD", class_name="bottle")


def test_shots_are_the_same_each_time(tmp_path, output, capsys, monkeypatch):
    root = mvtec(tmp_path / "data", "bottle", "wood")
    monkeypatch.chdir(tmp_path)
    metadata(root, source="MVTecAD", shots=4)
    summary = "8 labelled images of 2 categories (4 normal, 4 anomalous, 4 with masks), 0 training images"
    prompts = "prompts will say 'dark bottle', 'wood surface'"
    assert capsys.readouterr().out == f"metadata/MVTecAD/4-shot.jsonl: {summary}\n{prompts}\n"
    one, again, other = (listed(root, output, source="MVTecAD", shots=4, seed=seed) for seed in (1, 1, 2))
    assert sorted((name, label) for label, name, *_ in one.values()) == [
        *[("bottle", 0)] * 2, *[("bottle", 1)] * 2, *[("wood", 0)] * 2, *[("wood", 1)] * 2
    ]  # fmt: skip
    assert one == again != other


@pytest.fixture
def root(tmp_path):
    for value, name in enumerate(("good", "bad", "a", "b", "c", "d"), start=1):
        picture(tmp_path / f"{name}.png", value=value)
    mask(tmp_path / "mask.png")
    return tmp_path


def check(root, *rows):
    lines = [row if isinstance(row, str) else {"label": 1, "class_name": "c"} | row for row in rows]
    return [tuple(problem) for problem in check_metadata(write_lines(root / "x.jsonl", lines), root)]


def test_nothing_wrong_and_nothing_at_all(root):
    for masked in ({}, {"mask_path": "mask.png"}):
        assert check(root, {"image_path": "good.png", "label": 0}, {"image_path": "bad.png"} | masked) == []
    assert check(root) == [(1, "the file lists no images", True)]


def test_all_problems_at_once(root):
    mask(root / "empty_mask.png", value=0)
    mask(root / "small_mask.png", size=(4, 3))
    (root / "cut.png").write_bytes((root / "bad.png").read_bytes()[:50])
    (root / "nothing.png").touch()
    found = check(
        root,
        {"image_path": "good.png", "label": 0},
        {"image_path": "missing.png", "mask_path": "missing_mask.png"},
        '{"image_path": \n',
        {"image_path": "a.png", "mask_path": "empty_mask.png"},
        {"image_path": "b.png", "mask_path": "small_mask.png"},
        {"image_path": "cut.png", "mask_path": "mask.png"},
        {"image_path": "./good.png", "label": 0},
        {"image_path": "c.png", "label": 0, "mask_path": "mask.png"},
        {"image_path": "d.png", "mask_path": "nothing.png"},
    )
    expected = [
        (2, "there is no file 'missing.png'"),
        (2, "there is no file 'missing_mask.png'"),
        (3, "not valid JSON"),
        (4, "mask empty_mask.png is empty, but its image is labelled anomalous"),
        (5, "small_mask.png is 4x3, but its image b.png is 16x12"),
        (6, "cut.png"),
        (7, "./good.png is listed in line 1 too"),
        (8, "mask mask.png is not empty, but its image is labelled normal"),
        (9, "nothing.png: empty, damaged or none of the formats"),
    ]
    for (line, message, is_error), (expected_line, words) in zip(found, expected, strict=True):
        assert (line, is_error) == (expected_line, True)
        assert words in message.replace(f"{root}/", "")


def test_what_is_only_worth_a_look(root):
    Image.fromarray(np.uint16([[0, 4095]])).save(root / "16bit.png")
    (root / "copy.png").write_bytes((root / "good.png").read_bytes())
    noisy = np.zeros((12, 16), np.uint8)
    noisy[:2] = [[1], [254]]
    Image.fromarray(noisy).save(root / "noisy.png")
    unmasked = "a.png is anomalous and has no mask, although others have one: pixel metrics leave it out"
    assert check(
        root,
        {"image_path": "16bit.png", "label": 0},
        {"image_path": "good.png", "label": 0},
        {"image_path": "copy.png", "label": 0},
        {"image_path": "bad.png", "mask_path": "noisy.png"},
        {"image_path": "a.png"},
    ) == [
        (1, "16bit.png has 16 bits and values up to 4095: 65535 is shown as white", False),
        (3, "copy.png is the same picture as good.png", False),
        (4, "mask noisy.png has 3 grey values: all but 0 are anomalous", False),
        (5, unmasked, False),
    ]


def test_the_command_prints_lines_and_returns_a_status(root, capsys):
    line = {"image_path": "good.png", "label": 0, "class_name": "c"}
    assert metadata(root, check=write_lines(root / "x.jsonl", [line])) == 0
    path = write_lines(root / "x.jsonl", [line | {"image_path": "gone.png"}])
    assert metadata(root, check=path) == 1
    captured = capsys.readouterr()
    assert captured.out == f"{path}:1: error: there is no file 'gone.png' in the root {root}\n"
    assert captured.err.rstrip().endswith(f"{path}: 1 errors, 0 notes")
