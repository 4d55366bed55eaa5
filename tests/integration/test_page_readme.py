"""The commands of the README, from top to bottom in one folder, as a reader types them; learning is cut short."""

import re
import shutil

import pandas as pd
import pytest
from tests.pages import README, blocks, blocks_of, run_shell
from tests.paths import CONFIGS

from anomalib_dpclip import Surfaces


@pytest.fixture
def folder(tmp_path):
    """Configs as in a checkout, with less to learn from, and photos as the README says they are sorted."""
    shutil.copytree(CONFIGS, tmp_path / "configs")
    quickstart = tmp_path / "configs" / "quickstart.yaml"
    text = quickstart.read_text()
    quickstart.write_text(
        text.replace("max_epochs: 6", "max_epochs: 1").replace("backbone: mini", "backbone: mini\n    shots: 8")
    )
    assert quickstart.read_text().count("shots: 8") == quickstart.read_text().count("max_epochs: 1") == 1

    target = Surfaces(root=tmp_path / "datasets" / "Surfaces", category="weave")
    target.prepare_data()
    test = tmp_path / "datasets" / "Surfaces" / "weave" / "test"
    for kind, place, chosen in (
        ("good", "good", slice(8)),
        ("good", "photos/good", slice(8)),
        ("scratch", "photos/scratch", slice(8)),
        ("scratch", "new_photos", slice(8, 11)),
    ):
        (tmp_path / place).mkdir(parents=True)
        for path in sorted((test / kind).iterdir())[chosen]:
            shutil.copy(path, tmp_path / place / path.name)
    return tmp_path


def test_from_top_to_bottom(folder):
    commands = "\n".join(blocks_of(README.read_text(encoding="utf-8"), "bash"))
    commands = re.sub(r"^make .*\n", "", commands, flags=re.MULTILINE)  # the environment, and the commands that follow it
    done = run_shell(commands, folder)
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
