import json
import warnings
from pathlib import Path

import torch
from safetensors import safe_open

from anomalib_dpclip.clip import mini_clip
from anomalib_dpclip.clip.mini_clip import CONTEXT_LENGTH, UNKNOWN_WORDS_NAMED, VOCABULARY, MiniTokenizer, load_mini_clip
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
