"""One resolver: what is given, else what a file says, else the published values."""

from dataclasses import replace

import pytest
from tests.arguments import make_dpclip
from tests.data.golden.make_golden import GOLDEN
from tests.paths import DATA

from anomalib_dpclip.adapter_files.read_and_write import read_adapters, write_adapters
from anomalib_dpclip.model.configuration import Configuration, resolve
from anomalib_dpclip.model.from_file import model_from_file

ADAPTERS = GOLDEN / "adapters-v1.safetensors"
OF_THE_FILE = {"backbone": "mini", "adapter_layers": [0], "tap_layers": [3, 6], "class_name": "weave"}


@pytest.fixture(scope="module")
def model():
    return make_dpclip(weights=ADAPTERS, visualizer=False)


def values(configuration, names=OF_THE_FILE):
    return {name: getattr(configuration, name) for name in names}


def test_the_file_says_what_to_build_and_else_it_is_as_published():
    for file in (ADAPTERS, GOLDEN / "checkpoint-v1.ckpt"):
        assert values(resolve({}, file)) == OF_THE_FILE
    assert resolve({}) == resolve({}, DATA / "published_checkpoint.pth") == Configuration()
    assert (Configuration().backbone, Configuration().pretrained) == ("ViT-L-14-336", "openai")


def test_what_is_given_is_not_taken_from_the_file():
    assert resolve({"backbone": "ViT-B-16"}, ADAPTERS) == replace(Configuration(), backbone="ViT-B-16"), "nothing of another"
    given = {"adapter_layers": [0, 1], "grn_pooling": "none", "tiles": 2}
    assert values(resolve(given, ADAPTERS), [*given, "tap_layers"]) == given | {"tap_layers": [3, 6]}
    with pytest.raises(ValueError, match=r"trained with adapter_layers=\[0\], the model has \[1\]: set --model"):
        make_dpclip(weights=ADAPTERS, adapter_layers=[1])


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
        with pytest.raises(FileNotFoundError, match="there is no adapter file"):
            build(tmp_path / "gone.safetensors")
