"""Sentences; anchors are in the published numbers."""

import pytest

from anomalib_dpclip.method.prompting import prompts


@pytest.mark.parametrize("name", ["nut {} with braces", "{0}", "100 % %s", "Straße 你好", "x" * 300, ""])
def test_any_class_name_is_put_in_as_it_is(name):
    assert prompts(name, ["a {}"], ["photo of {}!"]) == [f"photo of a {name}!"]


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
