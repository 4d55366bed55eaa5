"""`dpclip metadata` lists folders and the data modules of anomalib."""

import json
import subprocess
import sys

import pytest
from tests.pictures import mask, picture

from anomalib_dpclip.data.listing.command import metadata


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


def test_plain_folders_are_listed_without_anomalib_s_import():
    """It takes longer than the listing."""
    code = 'import sys, anomalib_dpclip.data.listing.command; assert not {"anomalib", "lightning", "torch"} & set(sys.modules)'
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
