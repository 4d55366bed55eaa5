"""Words: those of the mini backbone, whose weights come with the package, and tokenizers that are not part of open_clip."""

import builtins
import json
import warnings
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors import safe_open
from tests import tiny_clip

from anomalib_dpclip.clip import mini_clip
from anomalib_dpclip.clip.loading import load_clip
from anomalib_dpclip.clip.mini_clip import CONTEXT_LENGTH, UNKNOWN_WORDS_NAMED, VOCABULARY, MiniTokenizer, load_mini_clip
from anomalib_dpclip.clip.text_tower import load_tokenizer
from anomalib_dpclip.data.surfaces.data_module import TARGET_MATERIALS
from anomalib_dpclip.data.surfaces.defects import DEFECTS
from anomalib_dpclip.data.surfaces.textures import COLORS, MATERIALS
from anomalib_dpclip.method.prompting import ABNORMAL_STATES, NORMAL_STATES, prompts

WEIGHTS = Path(mini_clip.__file__).parent / "mini" / "mini_clip.safetensors"


def test_tokens_are_start_words_end_and_padding():
    tokens = MiniTokenizer()(["A photo of a damaged Brick.", "dots", "brick " * 100])
    assert tokens.shape == (3, CONTEXT_LENGTH)
    assert tokens.dtype == torch.long
    words = [[VOCABULARY[token] for token in row] for row in tokens]
    assert words[0][:8] == ["<start>", "a", "photo", "of", "a", "damaged", "brick", "<end>"]
    assert words[1][:3] == ["<start>", "dots", "<end>"]
    assert set(words[0][8:]) == set(words[1][3:]) == {"<pad>"}
    # CLIP reads a sentence out at its highest token id: a long one keeps its end.
    assert tokens.argmax(dim=1).tolist() == [7, 2, CONTEXT_LENGTH - 1]


def test_an_unknown_word_counts_as_object_and_is_named_once_and_not_without_end():
    tokenizer = MiniTokenizer()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        unknown = tokenizer(["a zeppelin", "the broken zeppelin"])
        assert torch.equal(unknown, tokenizer(["a object", "the broken object"]))
        assert [str(each.message).partition(":")[0] for each in caught] == [
            "the mini backbone does not know the word 'zeppelin'"
        ]
        for request in range(10):
            tokenizer([" ".join(f"word{request}x{number}{'y' * 1000}" for number in range(100))])
    assert len(caught) == UNKNOWN_WORDS_NAMED
    assert all(len(str(each.message)) < 200 for each in caught)


def test_the_words_of_the_method_and_of_surfaces_are_known():
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    names = [*MATERIALS, *COLORS, *DEFECTS, "object", "surface", "texture"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokens = MiniTokenizer()([p for name in names for p in prompts(name, [*NORMAL_STATES, *ABNORMAL_STATES])])
    assert len(tokens.unique(dim=0)) == len(tokens)


def test_the_packaged_weights_are_small_and_say_what_they_saw():
    assert WEIGHTS.stat().st_size < 8e6
    clip = load_mini_clip()
    assert {parameter.dtype for parameter in clip.parameters()} == {torch.float32}
    assert not clip.training
    with safe_open(WEIGHTS, framework="pt") as file:
        header = json.loads(file.metadata()["pretraining"])
    assert tuple(header["vocabulary"]) == VOCABULARY
    assert header["masks seen"] == "none"
    assert set(header["seen damaged"]).isdisjoint(TARGET_MATERIALS)
    assert {"steps", "images", "batch_size", "learning_rate", "seed", "versions"} <= header.keys()


WORDS = ["<pad>", "<unk>", "</s>", "a", "broken", "screw"]
CONFIG = {"text_cfg": {"context_length": 6, "hf_tokenizer_name": "timm/none", "tokenizer_kwargs": {"clean": "canonicalize"}}}


def test_a_local_tokenizer_needs_no_network(tmp_path):
    pytest.importorskip("transformers")
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    special = {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "TemplateProcessing", "single": [*pair[:1], end], "pair": pair, "special_tokens": special},
        "model": {"type": "WordLevel", "vocab": {word: index for index, word in enumerate(WORDS)}, "unk_token": "<unk>"},
    }
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
    tokenize = load_tokenizer("some-siglip", CONFIG, str(tmp_path))
    # Lower case without punctuation ("canonicalize"), cut or padded to the text tower's context length.
    expected = torch.tensor([[3, 4, 5, 2, 0, 0], [3, 1, 2, 0, 0, 0]])
    assert torch.equal(tokenize(["A broken screw.", "a nail"]), expected)
    assert tokenize(["a a a a a a a a a"]).shape == (1, 6)


def test_offline_the_error_names_the_remedy(monkeypatch, tmp_path):
    pytest.importorskip("transformers")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    missing = r"the tokenizer of ViT-B-16-SigLIP is not on this machine.*--model.clip.tokenizer"
    with pytest.raises(FileNotFoundError, match=missing):
        load_clip("ViT-B-16-SigLIP", "webli")
    with pytest.raises(ValueError, match=f"tokenizer='{tmp_path}' holds no tokenizer that can be read"):
        load_tokenizer("some-siglip", CONFIG, str(tmp_path))


def test_without_transformers_the_error_names_it(monkeypatch):
    imported = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.startswith("transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return imported(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    needed = r"needs the package transformers .*pip install 'anomalib-dpclip\[transformers\]'"
    with pytest.raises(ModuleNotFoundError, match=needed):
        load_clip("ViT-B-16-SigLIP", "webli")


def test_folders_that_do_not_serve(tmp_path):
    with pytest.raises(FileNotFoundError, match="tokenizer='/nowhere/at/all': there is no such folder"):
        load_tokenizer("some-siglip", CONFIG, "/nowhere/at/all")
    with pytest.raises(ValueError, match="does not fit backbone='ViT-B-32', whose tokenizer is part of open_clip"):
        load_tokenizer("ViT-B-32", open_clip.get_model_config("ViT-B-32"), str(tmp_path))


def test_an_untrained_backbone_asks_for_its_tokenizer_last(tmp_path):
    """Speed can be measured without a download."""
    text = tiny_clip.CONFIG["text_cfg"] | {"hf_tokenizer_name": "timm/none"}
    (tmp_path / "dpclip-test-hub.json").write_text(json.dumps(tiny_clip.CONFIG | {"text_cfg": text}))
    open_clip.add_model_config(tmp_path)
    _, tower = load_clip("dpclip-test-hub", "random", 24)
    with pytest.raises((FileNotFoundError, ModuleNotFoundError), match="the tokenizer of dpclip-test-hub"):
        tower(["a screw"])
