"""What a checkpoint holds of a model, and who says what when it is loaded."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.arguments import grouped, make_dpclip
from tests.data.golden.make_golden import GOLDEN

from anomalib_dpclip import DPCLIP
from anomalib_dpclip.model.arguments import RegionOptions, Training
from anomalib_dpclip.model.configuration import portable_arguments

CHECKPOINT = GOLDEN / "checkpoint-v1.ckpt"


def test_arguments_of_one_machine_are_left_out():
    region, training = RegionOptions(ignore="/here/ignore.png", min_area=5), Training(auxiliary_root="/here", milestones=(1, 2))
    given = {"backbone": None, "weights": Path("/a.safetensors"), "few_shot_source": "/good", "k_shot": 2}
    found = portable_arguments(
        given | {"training": training, "region": region}, {"backbone": "mini", "min_area": 5, "memory_layers": [0.5]}
    )
    assert found.pop("training").items() >= {"milestones": [1, 2]}.items()
    assert found == {"backbone": "mini", "region": {"min_area": 5}, "k_shot": 2}
    assert portable_arguments({"weights": "clip"}, {}) == {"weights": "clip"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("dpclip"), "not one of DPCLIP: it lacks its provenance"),
        (lambda content: content["dpclip"].update(threshold_basis=5), "its provenance has a wrong 'threshold_basis'"),
        (
            lambda content: content["state_dict"]["post_processor.calibration.map_knots"].fill_(torch.nan),
            "its calibration's map_knots are not finite numbers; the file is damaged",
        ),
        (lambda content: content["dpclip"].update(fingerprint="another"), "holds adapters of another backbone"),
    ],
)
def test_what_is_damaged_or_of_another_model_is_refused(tmp_path, change, message):
    content = torch.load(CHECKPOINT, weights_only=False)
    change(content)
    torch.save(content, tmp_path / "changed.ckpt")
    with pytest.raises(ValueError, match=message):
        DPCLIP.load_from_checkpoint(tmp_path / "changed.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domain": "medical"}, r"thresholds were set with domain=industrial: leave --model.domain out, or .* --model.weights"),
        ({"weights": "clip"}, "the checkpoint holds adapters"),
        ({"tiles": 2}, r"images of \(140, 140\), the model takes \(280, 280\): give it as"),
        ({"tap_layers": [2]}, r"trained with tap_layers=\[3, 6\], the model has \[2\]"),
    ],
)
def test_arguments_that_contradict_it_are_refused(arguments, message):
    hparams = torch.load(CHECKPOINT, weights_only=False)["hyper_parameters"]
    chosen = {name: hparams[name] | value if isinstance(value, dict) else value for name, value in grouped(**arguments).items()}
    with pytest.raises(ValueError, match=message):
        DPCLIP.load_from_checkpoint(CHECKPOINT, weights_only=True, **chosen)


def test_what_is_ignored_stays_with_the_checkpoint(tmp_path, caplog):
    def make(name, box=None):
        if box:
            image = Image.new("L", (200, 150))
            image.paste(255, box)
            image.save(tmp_path / name)
        ignore = tmp_path / name if box else None
        return make_dpclip(weights=GOLDEN / "adapters-v1.safetensors", visualizer=False, ignore=ignore)

    model, plain = make("ignore.png", (20, 10, 90, 60)), make("none")
    state = model.state_dict()
    plain.load_state_dict(state)
    assert torch.equal(plain.region.scored, model.region.scored)
    assert plain.region.photo_size.tolist() == [200, 150]
    plain.load_state_dict(make("none").state_dict())
    assert plain.region.scored is None
    other = make("other.png", (100, 80, 190, 140))
    own = other.region.scored.clone()
    assert "calibrate" not in caplog.text
    other.load_state_dict(state)  # what an argument names comes first
    assert torch.equal(other.region.scored, own)
    assert "set without this --model.region.ignore: calibrate with `anomalib validate`" in caplog.text


def test_anything_missing_or_too_much_is_an_error():
    model = DPCLIP.load_from_checkpoint(CHECKPOINT, weights_only=True)
    state = model.state_dict()
    assert not [name for name in state if "backbone" in name]
    for change in (lambda s: s.pop("prototypes.normal"), lambda s: s.update(another=torch.zeros(1))):
        damaged = dict(state)
        change(damaged)
        with pytest.raises(RuntimeError, match=r"prototypes\.normal|another"):
            model.load_state_dict(damaged)
