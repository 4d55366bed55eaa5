import builtins
import json

import open_clip
import pytest
import torch
from tests import tiny_clip

from anomalib_dpclip.clip.loading import load_clip
from anomalib_dpclip.clip.text_tower import load_tokenizer

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
