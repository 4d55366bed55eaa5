"""What is typed is what is recorded, and how figures are made of what was measured."""

import pandas as pd
import pytest
from benchmarks import timing
from benchmarks.command import run
from benchmarks.scaling import exponent
from matplotlib.figure import Figure


def speed(backbone: str = "ViT-L-14-336", repeats: int = 3, bf16: bool = False) -> pd.DataFrame:
    """Speed of nothing.

    Args:
        backbone: A name.
        repeats: Rounds.
        bf16: Whether in bf16.
    """
    return pd.DataFrame({"backbone": [backbone, "b|b"], "repeats": [repeats, None], "bf16": bf16})


def test_results_name_the_command_as_it_was_typed(tmp_path, capsys):
    words = ["--backbone", "mini", "--bf16", "true", "--out", str(tmp_path / "my results")]
    run(speed, arguments=words)
    folder = tmp_path / "my results"
    assert sorted(path.name for path in folder.iterdir()) == ["speed-mini.csv", "speed-mini.md"]
    command = f"python -m benchmarks.speed --backbone mini --bf16 true --out '{folder}'"
    csv = (folder / "speed-mini.csv").read_text()
    assert csv.startswith(f"# command: {command}\n# commit: ")
    assert csv.endswith("backbone,repeats,bf16\nmini,3.0,True\nb|b,,True\n")
    table = "| backbone | repeats | bf16 |\n| --- | --- | --- |\n| mini | 3.0 | True |\n| b\\|b | n/a | True |\n"
    markdown = (folder / "speed-mini.md").read_text()
    assert markdown.startswith(f"# speed-mini\n\n- command: `{command}`\n- commit: ")
    assert markdown.endswith(f"\n\n{table}")
    assert capsys.readouterr().out == table


def test_the_function_s_own_backbone_needs_no_name_and_a_chart_is_drawn(tmp_path):
    run(speed, lambda _: Figure(), ["--out", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["speed.csv", "speed.md", "speed.png"]


def test_a_new_process_finds_the_function_and_says_why_it_failed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert timing.in_new_process("benchmarks.timing:medians", seconds={"a": [1, 2, 9]}) == {"a": 2}
    with pytest.raises(RuntimeError, match=r"benchmarks\.timing:medians failed in a new process: [\s\S]*TypeError"):
        timing.in_new_process("benchmarks.timing:medians", wrong=1)


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_exponent_of_a_power(power):
    values = pd.Series([1, 4, 16])
    assert exponent(values, 3.0 * values**power) == pytest.approx(power)
