"""`dpclip metadata --check` finds everything that is wrong with a list."""

import json

import numpy as np
import pytest
from PIL import Image
from tests.pictures import mask, picture

from anomalib_dpclip.data.listing.check import Problem, check_metadata
from anomalib_dpclip.data.listing.command import metadata


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
        return check_metadata(path, root)

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
            (5, "small_mask.png is 4x3, but its image b.png is 16x12"),
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
        noisy = np.zeros((12, 16), np.uint8)
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
