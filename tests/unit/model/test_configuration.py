"""What is given, else what a file says, else the published values; what is checked of them, and what a checkpoint holds."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from tests.arguments import grouped, make_dpclip
from tests.data.golden.make_golden import GOLDEN
from tests.paths import DATA

from anomalib_dpclip import DPCLIP
from anomalib_dpclip.adapter_files.read_and_write import read_adapters, write_adapters
from anomalib_dpclip.model.arguments import Architecture, ExportOptions, RegionOptions, Training, check_flat, groups_of
from anomalib_dpclip.model.configuration import Configuration, given_values, portable_arguments, resolve
from anomalib_dpclip.model.from_file import model_from_file

ADAPTERS, CHECKPOINT = (GOLDEN / name for name in ("adapters-v1.safetensors", "checkpoint-v1.ckpt"))
OF_THE_FILE = {"backbone": "mini", "adapter_layers": [0], "tap_layers": [3, 6], "class_name": "weave"}


@pytest.fixture(scope="module")
def model():
    return make_dpclip(weights=ADAPTERS, visualizer=False)


def values(configuration, names=OF_THE_FILE):
    return {name: getattr(configuration, name) for name in names}


def test_the_file_says_what_to_build_and_else_it_is_as_published():
    for file in (ADAPTERS, CHECKPOINT):
        assert values(resolve({}, file)) == OF_THE_FILE
    assert resolve({}) == resolve({}, DATA / "published_checkpoint.pth") == Configuration()
    assert (Configuration().backbone, Configuration().pretrained) == ("ViT-L-14-336", "openai")


def test_what_is_given_is_not_taken_from_the_file():
    assert resolve({"backbone": "ViT-B-16"}, ADAPTERS) == replace(Configuration(), backbone="ViT-B-16"), "nothing of another"
    given = {"adapter_layers": [0, 1], "grn_pooling": "none", "tiles": 2}
    assert values(resolve(given, ADAPTERS), [*given, "tap_layers"]) == given | {"tap_layers": [3, 6]}


def test_the_model_says_what_was_built(model):
    built = {"backbone": "mini", "pretrained": "openai", "image_size": 140, "class_name": "weave"}
    assert {name: model.hparams[name] for name in built} == built
    assert model.hparams == model.hparams_initial
    assert "weights" not in model.hparams
    assert values(resolve(model.configuration.as_dict())) == OF_THE_FILE


def test_a_file_of_clip_weights_that_is_not_here_is_the_fingerprint_s_to_judge(tmp_path):
    content = read_adapters(ADAPTERS)
    elsewhere = replace(content, provenance=replace(content.provenance, pretrained="elsewhere.pt"))
    path = write_adapters(elsewhere, tmp_path / "a.safetensors")
    assert resolve({}, path).pretrained == "openai"
    assert make_dpclip(weights=path).model.tap_layers == (3, 6)


@pytest.mark.parametrize(
    "damage",
    [
        {"architecture": {"adapter_layers": "abc"}},
        {"architecture": {"adapter_layers": [True]}},
        {"architecture": {"adapter_weight": [0.1]}},
        {"architecture": {"another_argument": 1}},
        {"arguments": {"tiles": True}},
        {"arguments": {"templates": ["a {}", 3]}},
        {"arguments": {"image_size": [1.5]}},
    ],
    ids=str,
)
def test_a_provenance_that_no_model_can_be_built_from_is_named(tmp_path, damage):
    content = read_adapters(ADAPTERS)
    path = write_adapters(replace(content, provenance=replace(content.provenance, **damage)), tmp_path / "bad.safetensors")
    (name,) = next(iter(damage.values()))
    for build in (model_from_file, lambda path: make_dpclip(weights=path)):
        with pytest.raises(ValueError, match=rf"bad\.safetensors: no model can be built as its provenance says \({name}="):
            build(path)


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
        return make_dpclip(weights=ADAPTERS, visualizer=False, ignore=ignore)

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


def test_a_group_from_an_object_a_mapping_or_nothing():
    training = Training(learning_rate=1e-3)
    assert groups_of(training=training)["training"] is training
    assert groups_of(training={"learning_rate": 1e-3}) == groups_of(training=training)
    assert groups_of()["training"] == Training()
    from_yaml = groups_of(architecture=OmegaConf.create({"tap_layers": [1, 2]}))["architecture"]
    assert from_yaml == Architecture(tap_layers=[1, 2])
    assert type(from_yaml.tap_layers) is list


def test_what_was_given_of_groups():
    memory, architecture = {"image_size": 64, "tokens": 5}, Architecture(tap_layers=[3])
    groups = groups_of(memory=memory, region={"min_area": 0}, architecture=architecture, clip={"quick_gelu": False})
    expected = {"quick_gelu": False, "tap_layers": [3], "memory_image_size": 64, "min_area": 0, "tiles": 2}
    assert given_values(groups, tiles=2, image_size=None) == expected


@pytest.mark.parametrize(
    ("group", "values", "message"),
    [
        ("training", {"lr": 1}, r"Training has no argument 'lr': it has .*learning_rate"),
        ("training", {"learning_rate": 0}, "learning_rate must be positive, not 0"),
        ("training", {"epochs": 0}, "training.epochs must be at least 1, not 0"),
        ("training", {"decoupling_weight": float("inf")}, "decoupling_weight must be at least 0 and finite"),
        ("memory", {"tokens": 0}, "memory.tokens must be positive, not 0"),
        ("memory", {"text_weight": -0.1}, "memory.text_weight must be at least 0 and finite, not -0.1"),
        ("region", {"min_area": -1}, "min_area must be at least 0, not -1"),
        (None, {"batch_size": 0}, "batch_size must be positive, not 0"),
        (None, {"seed": -1}, r"seed must lie in 0..4294967295, not -1"),
        (None, {"k_shot": -1}, "k_shot must be at least 0, not -1"),
        (None, {"tiles": 0}, "tiles must be at least 1, not 0"),
        (None, {"tiles": 2, "reads_target": True}, "score whole images: set --model.tiles 1"),
    ],
)
def test_what_is_unknown_or_out_of_range_is_named(group, values, message):
    flat = {"batch_size": 1, "seed": 0, "k_shot": 0, "tiles": None, "reads_target": False}
    with pytest.raises(ValueError, match=message):
        check_flat(**flat | values) if group is None else groups_of(**{group: values})


def test_classes_from_a_text_or_a_list():
    for classes in ("metal nut,bolt, screw ", ["metal_nut", "bolt", "screw"]):
        assert ExportOptions(classes).names() == ["metal nut", "bolt", "screw"]
    assert ExportOptions().names() == []


@pytest.mark.parametrize("names", ["bolt,screw,bolt", "bolt,Bolt", ["metal nut", "metal_nut"], "bolt,,screw", "bolt,", [" "]])
def test_classes_that_cannot_be_told_apart(names):
    with pytest.raises(ValueError, match=r"export.classes (names '([bB]olt|metal nut)' twice|has a class without a name)"):
        ExportOptions(names).names()
