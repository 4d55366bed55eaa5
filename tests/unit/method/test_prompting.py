"""Sentences and anchors."""

import pytest
import torch

from anomalib_dpclip.method.prompting import ABNORMAL_STATES, NORMAL_STATES, prompts, text_anchors


def test_the_method_s_sentences():
    assert set(prompts("screw", NORMAL_STATES)) == {
        "screw.",
        "a screw.",
        "the screw.",
        "a photo of screw.",
        "a photo of a screw.",
        "a photo of the screw.",
    }
    abnormal = prompts("screw", ABNORMAL_STATES)
    assert len(set(abnormal)) == len(abnormal) == 10
    assert "a photo of a screw with flaw." in abnormal
    assert "a damaged screw." in abnormal


@pytest.mark.parametrize("name", ["nut {} with braces", "{0}", "100 % %s", "Straße 你好", "x" * 300, ""])
def test_any_class_name_is_put_in_as_it_is(name):
    assert prompts(name, ["a {}"], ["photo of {}!"]) == [f"photo of a {name}!"]


def test_anchors_by_hand():
    vectors = {"n.": [3.0, 4.0, 0.0], "m.": [0.0, 0.0, 2.0], "d.": [0.0, -5.0, 0.0]}
    anchors = text_anchors(
        lambda sentences: torch.tensor([vectors[sentence.replace("object", "")] for sentence in sentences]),
        "object",
        normal_states=("n{}", "m{}"),
        abnormal_states=("d{}",),
        templates=("{}.",),
    )
    # Each sentence counts as its direction: (0.6, 0.8, 0) and (0, 0, 1) average to (0.6, 0.8, 1) / 2.
    expected = torch.tensor([[0.6, 0.0], [0.8, -1.0 * 2**0.5], [1.0, 0.0]]) / 2**0.5
    torch.testing.assert_close(anchors, expected)


@pytest.mark.parametrize(
    ("states", "templates", "message"),
    [
        (["a thing"], ["{}."], r"prompt 'a thing' must contain \{\} exactly once"),
        (["{} and {}"], ["{}."], r"prompt '\{\} and \{\}' must contain"),
        (["{}"], ["photo"], r"prompt 'photo' must contain"),
        ([], ["{}."], "at least one state"),
        (["{}"], [], "at least one state and one template"),
    ],
)
def test_bad_prompts(states, templates, message):
    with pytest.raises(ValueError, match=message):
        prompts("screw", states, templates)
