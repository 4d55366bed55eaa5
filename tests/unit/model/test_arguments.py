import pytest
from omegaconf import OmegaConf

from anomalib_dpclip.model.arguments import Architecture, ExportOptions, Training, check_flat, groups_of
from anomalib_dpclip.model.configuration import given_values


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
