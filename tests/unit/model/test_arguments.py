"""Arguments that are checked before there is a model."""

import pytest

from anomalib_dpclip.model.arguments import class_list


def test_classes_from_a_text_or_a_list():
    assert class_list("metal nut,bolt, screw ") == class_list(["metal  nut", "bolt", "screw"]) == ["metal nut", "bolt", "screw"]
    assert class_list(None) == []


@pytest.mark.parametrize("names", ["bolt,screw,bolt", "bolt,Bolt", ["bolt", " bolt"]])
def test_two_classes_of_the_same_name(names):
    with pytest.raises(ValueError, match=r"export_classes names '[bB]olt' twice"):
        class_list(names)


@pytest.mark.parametrize("names", ["", "bolt,,screw", "bolt,", [" "]])
def test_a_class_without_a_name(names):
    with pytest.raises(ValueError, match="export_classes has a class without a name"):
        class_list(names)
