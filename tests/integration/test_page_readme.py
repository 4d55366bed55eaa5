"""The commands of the README, from top to bottom in one folder, as a reader types them; learning is cut short."""

import re

import pandas as pd
import pytest
from tests.pages import blocks, readme_commands, run_shell, short_checkout


@pytest.fixture
def folder(tmp_path, drawn_surfaces):
    return short_checkout(tmp_path, drawn_surfaces, tested=11)


def test_from_top_to_bottom(folder):
    done = run_shell(readme_commands(), folder)
    photo = r"new_photos/\d+\.png  results/predict/images/\d+\.png\.jpg"
    line = rf"^0\.\d+  (?:normal   |anomalous)     {photo}  [\d.]+ % of 8 good photos score lower, most like \d+\.png$"
    assert len(re.findall(line, done.stdout, re.MULTILINE)) == 3
    assert (
        "\nThresholds: the highest of 8 good photos, each scored by the others; no guarantee for new images.\n" in done.stdout
    )
    table = re.findall(r"^ *(the backbone alone|DP-CLIP.*?)  .*?((?: +[\d.]+){4})$", done.stdout, re.MULTILINE)
    assert [label for label, _ in table] == [
        *("the backbone alone", "DP-CLIP", "DP-CLIP with 8 good photos", "DP-CLIP with the lot"),
    ]
    pixel_auroc = [float(values.split()[1]) for _, values in table]
    assert min(pixel_auroc[2:]) > 90 > pixel_auroc[0]
    assert (folder / "results/good_photos/DPCLIP/Surfaces/weave/latest/contact_sheet.png").is_file()
    results = pd.read_csv(folder / "results/DPCLIP/new_photos/latest/results.csv")
    assert len(results) == 3


def test_the_command_line_tells_the_model_s_arguments(tmp_path):
    told = run_shell(blocks("arguments", "bash"), tmp_path).stdout
    for argument in ("k_shot", "false_alarm_rate", "architecture.help"):
        assert re.search(rf"--model\.{argument}\s", told)
    assert "--model.coreset_sampling_ratio" not in told, "another model's"
