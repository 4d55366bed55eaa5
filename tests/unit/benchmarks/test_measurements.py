"""What is typed is what is recorded; speed is compared with the same loss; memory is of the work itself."""

import pandas as pd
import pytest
import torch
from benchmarks import baseline, peak_memory, timing
from benchmarks.command import run
from benchmarks.peak_memory import PeakMemory
from benchmarks.scaling import exponent
from matplotlib.figure import Figure
from tests.tiny_clip import tiny_model

from anomalib_dpclip.method.objective import training_objective
from anomalib_dpclip.method.prototypes import Prototypes


def speed(backbone: str = "ViT-L-14-336", repeats: int = 3, bf16: bool = False) -> pd.DataFrame:
    """Speed of nothing."""
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


MEBIBYTES = 400


class Job:
    """Holds itself, as models and trainers do, so that it waits for the garbage collector."""

    def __init__(self, size):
        self.itself = self
        self.blocks = [torch.ones(size // 4) for _ in range(MEBIBYTES * 2**20 // size)]


@pytest.mark.skipif(not peak_memory._CLEAR_REFS.exists(), reason="the peak of this system cannot be reset")
@pytest.mark.parametrize("size", [2**24, 2**16])
def test_what_an_earlier_job_left_does_not_count(size):
    idle = PeakMemory(None).mebibytes()
    Job(size)
    during = PeakMemory(None).mebibytes()
    assert during < idle + MEBIBYTES / 4

    memory = PeakMemory(None)
    Job(size)
    assert memory.mebibytes() > during + MEBIBYTES / 2


def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, 24, 24, generator=generator)
    mask = torch.zeros(3, 24, 24, dtype=torch.bool)
    mask[::2, 6:15, 3:12] = True
    anchors = torch.nn.functional.normalize(torch.randn(3, 8, 2, generator=generator), dim=1)
    return images, mask, mask.flatten(1).any(1).long(), anchors


def test_loss_and_gradients_of_the_baseline_are_those_of_the_product():
    ours, published = tiny_model().train(), tiny_model().train()
    baseline.thaw(published)
    own_prototypes, published_prototypes = Prototypes(8), Prototypes(8)
    for _ in range(2):  # the first step sets the prototypes, the second is held against them
        own = training_objective(ours, own_prototypes, *batch())
        loss = baseline.loss(published, published_prototypes, *batch())
        assert own.decoupling > 0
        torch.testing.assert_close(loss, own.total, rtol=1e-5, atol=0)
        ours.zero_grad()
        published.zero_grad()
        own.total.backward()
        loss.backward()
        blocks = published.backbone.visual.transformer.resblocks  # the frozen tower, whose gradients it pays for
        assert all(block.attn.attention.in_proj_weight.grad is not None for block in blocks)
        gradients = {name: parameter.grad for name, parameter in published.named_parameters()}
        learned = {name: parameter.grad for name, parameter in ours.named_parameters() if parameter.requires_grad}
        assert {name.split(".")[0] for name in learned} == {prefix.rstrip(".") for prefix in ours.adapter_prefixes}
        for name, gradient in learned.items():
            assert gradient.abs().max() > 0, name
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6 * gradient.abs().max().item(), msg=name)
        with torch.no_grad():
            for model in (ours, published):
                for name, gradient in learned.items():
                    model.get_parameter(name).sub_(0.1 * gradient)
