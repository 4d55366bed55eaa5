import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from anomalib.data import MVTec, MVTecAD
from PIL import Image

from anomalib_dpclip.data.listing.check import Problem, check_metadata
from anomalib_dpclip.data.listing.command import metadata
from anomalib_dpclip.data.listing.few_shot import few_shot


def picture(path, value=100, size=(8, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def mask(path, size=(8, 6), value=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros(size[::-1], np.uint8)
    values[1:3, 2:4] = value
    Image.fromarray(values).save(path)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def listed(root, tmp_path, **arguments):
    """What the command lists, as image path: (label, class name, mask path, split)."""
    output = tmp_path / "out.jsonl"
    assert metadata(root, output=output, **arguments) == 0
    return {
        line["image_path"]: (line["label"], line["class_name"], line.get("mask_path"), line.get("split"))
        for line in lines(output)
    }


class TestFolders:
    def test_good_and_defects_beside_each_other(self, tmp_path):
        root = tmp_path / "hex bolt"
        picture(root / "good" / "1.jpg")
        picture(root / "scratch" / "1.jpg")
        picture(root / "hole" / "1.JPG")
        mask(root / "masks" / "scratch" / "1.png")
        mask(root / "masks" / "hole" / "1_mask.png")
        (root / "good" / "notes.txt").touch()
        assert listed(root, tmp_path) == {
            "good/1.jpg": (0, "hex bolt", None, None),
            "scratch/1.jpg": (1, "hex bolt", "masks/scratch/1.png", None),
            "hole/1.JPG": (1, "hex bolt", "masks/hole/1_mask.png", None),
        }

    def test_one_kind_of_defect_with_masks_that_have_no_folder_of_their_own(self, tmp_path):
        root = tmp_path / "bolt"
        picture(root / "good" / "1.png")
        picture(root / "bad" / "2.png")
        mask(root / "ground_truth" / "2.png")
        assert listed(root, tmp_path, class_name="screw") == {
            "good/1.png": (0, "screw", None, None),
            "bad/2.png": (1, "screw", "ground_truth/2.png", None),
        }

    def test_without_masks(self, tmp_path):
        picture(tmp_path / "bolt" / "good" / "1.png")
        picture(tmp_path / "bolt" / "bad" / "1.png")
        assert listed(tmp_path / "bolt", tmp_path)["bad/1.png"] == (1, "bolt", None, None)

    def test_train_and_test_folders_of_several_categories(self, tmp_path):
        root = tmp_path / "parts"
        for category in ("nut", "screw"):
            picture(root / category / "train" / "good" / "0.png")
            picture(root / category / "test" / "good" / "0.png")
            picture(root / category / "test" / "bent" / "0.png")
            mask(root / category / "ground_truth" / "bent" / "0_mask.png")
        samples = listed(root, tmp_path)
        assert len(samples) == 6
        assert samples["nut/train/good/0.png"] == (0, "nut", None, "train")
        assert samples["screw/test/bent/0.png"] == (1, "screw", "screw/ground_truth/bent/0_mask.png", None)

    def test_images_and_masks_of_the_polyp_sets(self, tmp_path):
        root = tmp_path / "CVC-300"
        for index in (1, 2):
            picture(root / "images" / f"{index}.png")
            mask(root / "masks" / f"{index}.png")
        assert listed(root, tmp_path) == {f"images/{index}.png": (1, "CVC-300", f"masks/{index}.png", None) for index in (1, 2)}

    def test_what_is_not_listed_and_what_prompts_say_is_on_the_screen(self, tmp_path, capsys):
        root = tmp_path / "my_photos"
        for name in ("good/1.png", "scratch/1.png", "scratch/deep/2.png", "scratch/deep/3.png", "4.png", ".cache/5.png"):
            picture(root / name)
        mask(root / "masks" / "scratch" / "1.png")
        metadata(root, output=tmp_path / "x.jsonl")
        assert capsys.readouterr().out.splitlines()[1:] == [
            "prompts will say 'my photos' (the folder's name: say what the photos show with --class_name)",
            f"not listed: 1 images in {root}",
            f"not listed: 2 images in {root}/scratch/deep",
        ]
        metadata(root, output=tmp_path / "MVTec" / "x.jsonl", class_name="bottle")
        assert "prompts will say 'dark bottle'\n" in capsys.readouterr().out

    def test_a_mask_that_matches_no_image(self, tmp_path):
        picture(tmp_path / "good" / "1.png")
        picture(tmp_path / "hole" / "1.png")
        mask(tmp_path / "masks" / "hole" / "1_annotation.png")
        with pytest.raises(ValueError, match=r"1 masks match no image, the first is .*1_annotation\.png"):
            metadata(tmp_path, output=tmp_path / "x.jsonl")
        assert not (tmp_path / "x.jsonl").exists()

    def test_masks_of_several_defects_in_one_folder_are_ambiguous(self, tmp_path):
        for defect in ("hole", "scratch"):
            picture(tmp_path / defect / "1.png")
        picture(tmp_path / "good" / "1.png")
        mask(tmp_path / "masks" / "1.png")
        with pytest.raises(ValueError, match="match no image"):
            metadata(tmp_path, output=tmp_path / "x.jsonl")

    def test_an_image_of_the_polyp_layout_without_a_mask(self, tmp_path):
        picture(tmp_path / "images" / "1.png")
        with pytest.raises(ValueError, match=r"1\.png has no mask in .*masks: put normal images into .*good"):
            metadata(tmp_path, output=tmp_path / "x.jsonl")

    def test_no_folder_and_no_layout(self, tmp_path):
        picture(tmp_path / "1.png")
        with pytest.raises(FileNotFoundError, match=r"nor a folder in it has good/"):
            metadata(tmp_path)
        with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
            metadata(tmp_path / "nowhere")
        (tmp_path / "good").mkdir()
        with pytest.raises(FileNotFoundError, match="no image in the folders"):
            metadata(tmp_path)


class TestDataModules:
    def mvtec(self, root, *categories):
        for category in categories:
            picture(root / category / "train" / "good" / "0.png")
            for index in range(5):
                picture(root / category / "test" / "good" / f"{index}.png")
                picture(root / category / "test" / "hole" / f"{index}.png")
                mask(root / category / "ground_truth" / "hole" / f"{index}_mask.png")

    def test_mvtec_lists_the_categories_there_are(self, tmp_path):
        self.mvtec(tmp_path / "data", "bottle", "wood")
        samples = listed(tmp_path / "data", tmp_path, source="MVTecAD")
        assert len(samples) == 22
        assert samples["wood/test/hole/3.png"] == (1, "wood", "wood/ground_truth/hole/3_mask.png", None)
        assert samples["bottle/train/good/0.png"] == (0, "bottle", None, "train")

    def test_btad(self, tmp_path):
        root = tmp_path / "BTech"
        for split, label in (("train", "ok"), ("test", "ok"), ("test", "ko")):
            picture(root / "01" / split / label / "0000.bmp")
        mask(root / "01" / "ground_truth" / "ko" / "0000.png")
        assert listed(root, tmp_path, source="BTech") == {
            "01/train/ok/0000.bmp": (0, "01", None, "train"),
            "01/test/ok/0000.bmp": (0, "01", None, None),
            "01/test/ko/0000.bmp": (1, "01", "01/ground_truth/ko/0000.png", None),
        }

    def test_visa_in_its_raw_layout(self, tmp_path):
        root = tmp_path / "VisA"
        rows = ["object,split,label,image,mask"]
        for name, split, label in (("0", "train", "normal"), ("1", "test", "normal"), ("2", "test", "anomaly")):
            kind = "Normal" if label == "normal" else "Anomaly"
            picture(root / "candle" / "Data" / "Images" / kind / f"{name}.JPG")
            rows.append(f"candle,{split},{label},candle/Data/Images/{kind}/{name}.JPG,")
        mask(root / "candle" / "Data" / "Masks" / "Anomaly" / "2.png", value=1)
        rows[-1] += "candle/Data/Masks/Anomaly/2.png"
        (root / "split_csv").mkdir()
        (root / "split_csv" / "1cls.csv").write_text("\n".join(rows))
        converted = "visa_pytorch/candle"
        expected = {
            f"{converted}/train/good/0.JPG": (0, "candle", None, "train"),
            f"{converted}/test/good/1.JPG": (0, "candle", None, None),
            f"{converted}/test/bad/2.JPG": (1, "candle", f"{converted}/ground_truth/bad/2.png", None),
        }
        assert listed(root, tmp_path, source="VisA") == expected
        # Once more, now that it is converted.
        assert listed(root, tmp_path, source="VisA") == expected

    def test_bmad(self, tmp_path):
        root = tmp_path / "BMAD"
        picture(root / "Liver" / "train" / "good" / "0.png")
        picture(root / "Liver" / "test" / "good" / "img" / "1.png")
        picture(root / "Liver" / "test" / "Ungood" / "img" / "2.png")
        mask(root / "Liver" / "test" / "Ungood" / "label" / "2.png")
        samples = listed(root, tmp_path, source="BMAD")
        assert samples == {
            "Liver/train/good/0.png": (0, "Liver", None, "train"),
            "Liver/test/good/img/1.png": (0, "Liver", None, None),
            "Liver/test/Ungood/img/2.png": (1, "Liver", "Liver/test/Ungood/label/2.png", None),
        }

    def test_bad_sources(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no category of MVTecAD in"):
            metadata(tmp_path, source="MVTecAD")
        with pytest.raises(ValueError, match="unknown data set 'ImageNet'"):
            metadata(tmp_path, source="ImageNet")
        with pytest.raises(ValueError, match="class_name is for source folder"):
            metadata(tmp_path, source="MVTecAD", class_name="bottle")

    def test_shots(self, tmp_path, capsys, monkeypatch):
        self.mvtec(tmp_path / "data", "bottle", "wood")
        monkeypatch.chdir(tmp_path)
        for _ in range(2):
            metadata(tmp_path / "data", source="MVTecAD", shots=4)
        chosen = lines(tmp_path / "metadata" / "MVTecAD" / "4-shot.jsonl")
        assert [(line["class_name"], line["label"]) for line in chosen] == [
            *[("bottle", 0)] * 2, *[("bottle", 1)] * 2, *[("wood", 0)] * 2, *[("wood", 1)] * 2
        ]  # fmt: skip
        summary = "8 labelled images of 2 categories (4 normal, 4 anomalous, 4 with masks), 0 training images"
        prompts = "prompts will say 'dark bottle', 'wood surface'"
        assert capsys.readouterr().out == f"metadata/MVTecAD/4-shot.jsonl: {summary}\n{prompts}\n" * 2

    def test_output_is_the_same_each_time(self, tmp_path):
        self.mvtec(tmp_path / "data", "bottle")
        texts = []
        for seed in (1, 1, 2):
            metadata(tmp_path / "data", source="MVTecAD", output=tmp_path / "x.jsonl", shots=4, seed=seed)
            texts.append((tmp_path / "x.jsonl").read_bytes())
        assert texts[0] == texts[1] != texts[2]


class TestFewShot:
    @pytest.fixture
    def samples(self):
        rows = [("a", label, f"{label}{index:02}") for label, count in ((0, 10), (1, 6)) for index in range(count)]
        rows += [("b", label, f"{label}{index:02}") for label, count in ((0, 2), (1, 9)) for index in range(count)]
        return pd.DataFrame(rows, columns=["class_name", "label_index", "image_path"])

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
    def test_half_of_each_category_is_anomalous_where_there_are_enough(self, samples, shots, of_a, of_b):
        counts = few_shot(samples, shots, seed=0).groupby(["class_name", "label_index"]).size()
        for name, (normal, anomalous) in (("a", of_a), ("b", of_b)):
            assert (counts.get((name, 0), 0), counts.get((name, 1), 0)) == (normal, anomalous)

    def test_the_choice_does_not_depend_on_order_or_other_categories(self, samples):
        chosen = set(map(tuple, few_shot(samples, 4, seed=3).to_numpy()))
        assert set(map(tuple, few_shot(samples[::-1], 4, seed=3).to_numpy())) == chosen
        alone = few_shot(samples[samples.class_name == "a"], 4, seed=3)
        assert set(map(tuple, alone.to_numpy())) == {row for row in chosen if row[0] == "a"}

    def test_more_shots_contain_fewer(self, samples):
        four, two = (set(map(tuple, few_shot(samples, shots, seed=5).to_numpy())) for shots in (4, 2))
        assert two < four

    def test_the_choice_follows_from_numpys_frozen_generator(self, samples):
        """Files made by one version are made again by all later ones."""
        a = samples[samples.class_name == "a"].sort_values("image_path").image_path.to_numpy()
        shuffled = a[np.random.RandomState(111).permutation(16)]  # the frozen one
        assert shuffled[:4].tolist() == ["104", "007", "005", "100"]
        chosen = few_shot(samples[samples.class_name == "a"], 4, seed=111)
        assert chosen.image_path.tolist() == ["005", "007", "100", "104"]

    def test_no_shots(self, samples):
        with pytest.raises(ValueError, match="shots must be at least 1, not 0"):
            few_shot(samples, 0, seed=0)


class TestCheck:
    @pytest.fixture
    def root(self, tmp_path):
        root = tmp_path / "data"
        picture(root / "good.png", value=1)
        picture(root / "bad.png", value=2)
        mask(root / "mask.png")
        return root

    def check(self, root, *rows):
        path = root / "x.jsonl"
        defaults = {"label": 1, "class_name": "c"}
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(defaults | row) for row in rows))
        return check_metadata(path, root, num_workers=2)

    def test_nothing_wrong(self, root):
        assert (
            self.check(root, {"image_path": "good.png", "label": 0}, {"image_path": "bad.png", "mask_path": "mask.png"}) == []
        )

    def test_all_problems_at_once(self, root):
        mask(root / "empty_mask.png", value=0)
        mask(root / "small_mask.png", size=(4, 3))
        for name in ("a", "b", "c", "d"):
            picture(root / f"{name}.png", value=ord(name))
        content = (root / "bad.png").read_bytes()
        (root / "cut.png").write_bytes(content[:50])
        (root / "nothing.png").touch()
        found = self.check(
            root,
            {"image_path": "good.png", "label": 0},
            {"image_path": "missing.png", "mask_path": "missing_mask.png"},
            '{"image_path": ',
            {"image_path": "a.png", "mask_path": "empty_mask.png"},
            {"image_path": "b.png", "mask_path": "small_mask.png"},
            {"image_path": "cut.png", "mask_path": "mask.png"},
            {"image_path": "./good.png", "label": 0},
            {"image_path": "c.png", "label": 0, "mask_path": "mask.png"},
            {"image_path": "d.png", "mask_path": "nothing.png"},
        )
        assert all(problem.is_error for problem in found)
        expected = [
            (2, "there is no file 'missing.png'"),
            (2, "there is no file 'missing_mask.png'"),
            (3, "not valid JSON"),
            (4, "mask empty_mask.png is empty, but its image is labelled anomalous"),
            (5, "small_mask.png is 4x3, but its image b.png is 8x6"),
            (6, "cut.png"),
            (7, "./good.png is listed in line 1 too"),
            (8, "mask mask.png is not empty, but its image is labelled normal"),
            (9, "nothing.png: empty, damaged or none of the formats"),
        ]
        assert [problem.line for problem in found] == [line for line, _ in expected]
        for problem, (_, message) in zip(found, expected, strict=True):
            assert message in problem.message

    def test_what_is_only_worth_a_look(self, root):
        Image.fromarray(np.uint16([[0, 4095]])).save(root / "16bit.png")
        (root / "copy.png").write_bytes((root / "good.png").read_bytes())
        noisy = np.zeros((6, 8), np.uint8)
        noisy[:2] = [[1], [254]]
        Image.fromarray(noisy).save(root / "noisy.png")
        picture(root / "other.png", value=3)
        assert self.check(
            root,
            {"image_path": "16bit.png", "label": 0},
            {"image_path": "good.png", "label": 0},
            {"image_path": "copy.png", "label": 0},
            {"image_path": "bad.png", "mask_path": "noisy.png"},
            {"image_path": "other.png"},
        ) == [
            Problem(1, "16bit.png has 16 bits and values up to 4095: 65535 is shown as white", is_error=False),
            Problem(3, "copy.png is the same picture as good.png", is_error=False),
            Problem(4, "mask noisy.png has 3 grey values: all but 0 are anomalous", is_error=False),
            Problem(
                5,
                "other.png is anomalous and has no mask, although others have one: pixel metrics leave it out",
                is_error=False,
            ),
        ]

    def test_a_set_without_masks_is_complete(self, root):
        assert self.check(root, {"image_path": "good.png", "label": 0}, {"image_path": "bad.png"}) == []

    def test_an_empty_file(self, root):
        assert self.check(root, "") == [Problem(1, "the file lists no images")]

    def test_the_command_prints_lines_and_returns_a_status(self, root, capsys):
        path = root / "x.jsonl"
        path.write_text('{"image_path": "good.png", "label": 0, "class_name": "c"}\n')
        assert metadata(root, check=path) == 0
        path.write_text('{"image_path": "gone.png", "label": 0, "class_name": "c"}\n')
        assert metadata(root, check=path) == 1
        captured = capsys.readouterr()
        assert captured.out == f"{path}:1: error: there is no file 'gone.png' in the root {root}\n"
        assert captured.err.rstrip().endswith(f"{path}: 1 errors, 0 notes")


def test_plain_folders_are_listed_without_anomalib_s_import():
    """It takes longer than the listing."""
    code = 'import sys, anomalib_dpclip.data.listing.command; assert not {"anomalib", "lightning", "torch"} & set(sys.modules)'
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_mvtec_is_the_hosts_data_module_under_its_usual_name():
    datamodule = MVTec()
    assert isinstance(datamodule, MVTecAD)
    assert (datamodule.name, str(datamodule.root), datamodule.category) == ("MVTec", "datasets/MVTecAD", "bottle")
