"""Backbone and architecture come from the file of the adapters, unless they are given."""

from dataclasses import replace

import pytest
from tests.arguments import make_dpclip
from tests.data.golden.make_golden import GOLDEN
from tests.paths import DATA

from anomalib_dpclip import save_adapters
from anomalib_dpclip.model.arguments import AdaptersArguments, file_of
from anomalib_dpclip.model.from_file import model_from_file

ADAPTERS = GOLDEN / "adapters-v1.safetensors"
NOTHING_GIVEN = AdaptersArguments(*[None] * 9)


@pytest.fixture(scope="module")
def model():
    return make_dpclip(weights=ADAPTERS, visualizer=False)


def test_the_file_says_what_to_build(model):
    assert model.provenance.backbone == "mini"
    assert model.model.adapter_layers == (0,)
    assert model.model.tap_layers == (3, 6)


def test_hyper_parameters_are_what_was_built(model):
    built = {"backbone": "mini", "pretrained": "openai", "adapter_layers": [0], "tap_layers": [3, 6], "adapter_weight": 0.1}
    assert {name: model.hparams[name] for name in built} == built
    assert model.hparams["projector_activation"] is False
    assert model.hparams["grn_pooling"] == "tokens"
    assert model.hparams == model.hparams_initial
    assert "weights" not in model.hparams


def test_without_a_file_they_are_the_published_ones():
    published = AdaptersArguments("ViT-L-14-336", "openai", None, None, None, 0.1, False, "tokens", "projector")
    assert NOTHING_GIVEN.resolved(None) == published
    assert file_of("clip") is None
    assert NOTHING_GIVEN.resolved(DATA / "published_checkpoint.pth") == published


def test_what_is_given_is_not_taken_from_the_file():
    given = NOTHING_GIVEN._replace(adapter_layers=[0, 1], grn_pooling="none")
    assert given.resolved(ADAPTERS) == AdaptersArguments(
        "mini", "openai", False, [0, 1], [3, 6], 0.1, False, "none", "projector"
    )
    with pytest.raises(ValueError, match=r"trained with adapter_layers=\[0\], the model has \[1\]: set --model"):
        make_dpclip(weights=ADAPTERS, adapter_layers=[1])


def test_nothing_of_a_file_for_another_backbone_is_taken():
    given = NOTHING_GIVEN._replace(backbone="ViT-B-16")
    assert given.resolved(ADAPTERS) == AdaptersArguments(
        "ViT-B-16", "openai", None, None, None, 0.1, False, "tokens", "projector"
    )


def test_a_file_of_clip_weights_that_is_not_here_is_the_fingerprint_s_to_judge(model, tmp_path):
    changed = make_dpclip(weights=ADAPTERS, visualizer=False)
    changed.provenance = replace(model.provenance, pretrained="elsewhere.pt")
    path = save_adapters(changed, tmp_path / "a.safetensors")
    assert NOTHING_GIVEN.resolved(path).pretrained == "openai"
    assert make_dpclip(weights=path).model.tap_layers == (3, 6)


def test_a_file_that_is_not_there_is_told_of_before_clip_is_fetched(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no adapter file"):
        make_dpclip(weights=tmp_path / "gone.safetensors")


@pytest.mark.parametrize("build", [model_from_file, lambda path: make_dpclip(weights=path)])
@pytest.mark.parametrize(
    "told",
    [
        {"architecture": {"adapter_layers": "abc"}},
        {"architecture": {"adapter_layers": [True]}},
        {"architecture": {"adapter_weight": [0.1]}},
        {"architecture": {"another_argument": 1}},
        {"hyper_parameters": {"image_size": "140"}},
        {"hyper_parameters": {"templates": "a photo of {}."}},
    ],
)
def test_a_provenance_that_no_model_can_be_built_from_is_named(model, tmp_path, build, told):
    changed = make_dpclip(weights=ADAPTERS, visualizer=False)
    changed.provenance = replace(model.provenance, **told)
    path = save_adapters(changed, tmp_path / "bad.safetensors")
    (name,) = next(iter(told.values()))
    with pytest.raises(ValueError, match=rf"bad\.safetensors: no model can be built as its provenance says \({name}="):
        build(path)
