"""Every pretrained tag that open_clip lists: accepted as open_clip itself would run it, or refused with the reason."""

import logging

import open_clip
import pytest
from open_clip.pretrained import get_pretrained_cfg, list_pretrained

from anomalib_dpclip.clip.loading import backbone_config, load_clip, refusal
from anomalib_dpclip.clip.pretraining import OPENAI, Preprocessing, pretraining_of, tell_assumptions

NAMES = open_clip.list_models()
TAGS = [(name, tag) for name, tag in list_pretrained() if name in NAMES]  # 2.26 has tags of models that it lacks
HALF = (0.5, 0.5, 0.5)


def kind_of(name):
    """Kind of a model by its name alone, as a person would tell: None for a vision transformer."""
    if "multimodal_cfg" in open_clip.get_model_config(name):
        return "is a captioning model"
    if any(part in name for part in ("roberta", "nllb", "mt5")):
        return "has a text tower from transformers"
    if name.startswith("RN"):
        return "is a ResNet"
    if name.startswith(("convnext", "ViTamin", "swin", "MobileCLIP-S", "MobileCLIP2-S", "vit_relpos")):
        return "is convolutional or hybrid"
    return None


@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_accepted_or_refused_with_the_reason(name):
    reason = refusal(open_clip.get_model_config(name))
    expected = kind_of(name)
    if expected is None:
        assert reason is None
        assert backbone_config(name)["embed_dim"] > 0
        return
    assert reason.startswith(expected)
    with pytest.raises(ValueError, match=f"backbone '{name}' {expected}"):
        load_clip(name, "random")


@pytest.mark.parametrize(("name", "tag"), [(name, tag) for name, tag in TAGS if kind_of(name) is None])
def test_every_tag_runs_as_it_was_trained(name, tag):
    entry = get_pretrained_cfg(name, tag)
    found = pretraining_of(name, tag)
    assert found.preprocessing == (tuple(entry["mean"]), tuple(entry["std"]), entry["interpolation"])
    asked_for = open_clip.get_model_config(name).get("quick_gelu", False)
    trained_with = entry.get("quick_gelu", asked_for or "quickgelu" in entry["url"])
    assert found.quick_gelu == (asked_for if tag == "openai" else trained_with)


@pytest.fixture
def told(caplog):
    def tell(*arguments):
        tell_assumptions.cache_clear()
        caplog.clear()
        with caplog.at_level(logging.INFO):
            for _ in range(3):
                tell_assumptions(*arguments)
        return [f"{record.levelname}: {record.message}" for record in caplog.records]

    return tell


@pytest.fixture
def file(tmp_path):
    (tmp_path / "clip.pt").touch()
    return str(tmp_path / "clip.pt")


def test_the_activation_of_openai_s_weights_is_told_once(told, file):
    (message,) = told("ViT-B-16", "openai", None, None)
    assert message.startswith("INFO: ViT-B-16: OpenAI's weights run with GELU here, as in the published results")
    (message,) = told("ViT-L-14-336", file, None, None)
    assert message.startswith(f"WARNING: {file} does not say how it was trained: taken for GELU and OpenAI's image statistics")
    assert "they were trained with QuickGELU: --model.clip.quick_gelu true" in message
    assert [each[:5] for each in told("ViT-L-14-336", file, "openai", None)] == ["INFO:"]
    for silent in (
        ("ViT-B-16", "openai", None, True),
        ("ViT-B-16-quickgelu", "openai", None, None),
        ("mini", "openai", None, None),
        ("ViT-L-14-336", file, None, True),
        ("ViT-L-14-336", file, None, False),
    ):
        assert not told(*silent)


def test_a_file_can_name_its_tag(told, file):
    clipa = pretraining_of("ViT-L-14-CLIPA", "datacomp1b")  # by hand, from what its authors say
    assert clipa == (Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear"), False)
    named = pretraining_of("ViT-L-14", file, "laion2b_s32b_b82k")
    assert named.preprocessing == Preprocessing(HALF, HALF)
    assert not told("ViT-L-14", file, "laion2b_s32b_b82k", None)
    assert pretraining_of("ViT-L-14", file) == (OPENAI, False)
    (message,) = told("ViT-L-14", file, None, None)
    assert "taken for GELU and OpenAI's image statistics. Name its tag with --model.clip.pretrained_tag (openai, " in message
    assert told("ViT-L-14", file, None, False), "the statistics are still a guess"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B-16-SigLIP", Preprocessing(HALF, HALF)),
        ("ViT-L-14-336", OPENAI),
        ("ViT-H-14-CLIPA-336", Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear")),
    ],
)
def test_a_file_of_a_backbone_whose_tags_agree(told, file, name, expected):
    assert pretraining_of(name, file).preprocessing == pretraining_of(name, "random").preprocessing == expected
    assert bool(told(name, file, None, None)) == (name == "ViT-L-14-336")
    assert not told(name, "random", None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ViT-B-32", "openai", "laion2b_e16"), "pretrained_tag='laion2b_e16' says what a local file holds, but"),
        (("ViT-B-32", "random", "nonsense"), r"pretrained_tag='nonsense' is no tag of ViT-B-32 \(its tags: openai"),
        (("mini", "openai", "openai"), "pretrained_tag='openai' does not fit backbone='mini'"),
    ],
)
def test_bad_tags(arguments, message):
    with pytest.raises(ValueError, match=message):
        pretraining_of(*arguments)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": [0.5, 0.5]}, r"mean must be three numbers, one a channel, not \[0.5, 0.5\]"),
        ({"std": [0.5, 0.0, 0.5]}, "std must be positive"),
        ({"std": [0.5, float("nan"), 0.5]}, "std must be three numbers"),
        ({"interpolation": "nearest"}, "interpolation must be one of bicubic, bilinear, not 'nearest'"),
    ],
)
def test_bad_statistics(values, message):
    with pytest.raises(ValueError, match=f"somewhere: {message}"):
        Preprocessing.from_dict(values, "somewhere")
