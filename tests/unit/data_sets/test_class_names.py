import importlib
from types import SimpleNamespace

import pandas as pd
import pytest

from anomalib_dpclip.data_sets.class_names import _DESCRIPTIONS, classes_of, describe, readable_name, target_name
from anomalib_dpclip.data_sets.domain import domain_of


@pytest.mark.parametrize(
    ("data_set", "category", "expected"),
    [
        ("MVTec", "metal_nut", "metal nut which has four notched edges"),
        ("Visa", "pcb4", "battery charging pcb module"),
        ("BTech", "03", "oval concentric circular rings in gradient shades of blue and white"),
        ("BMAD", "Brain", "scan"),
        ("Kvasir", "Kvasir", "colon endoscopy image"),
        ("MVTecAD", "no such category", "no such category"),
        ("MVTecAD", None, "object"),
        (None, "gear", "gear"),
    ],
)
def test_describe(data_set, category, expected):
    assert describe(data_set, category) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("brushed_metal", "brushed metal"), ("\tMetal\n nut__", "Metal nut"), (None, "object"), ("", "object"), (" _ ", "object")],
)
def test_one_spelling_of_a_name_whoever_gave_it(name, expected):
    assert readable_name(name) == describe("Folder", name) == expected


@pytest.mark.parametrize(("data_set", "module"), [("mvtec", "mvtecad"), ("visa", "visa"), ("mpdd", "mpdd"), ("btad", "btech")])
def test_every_category_of_the_host_is_described(data_set, module):
    categories = importlib.import_module(f"anomalib.data.datasets.image.{module}").CATEGORIES
    assert set(_DESCRIPTIONS[data_set]) == set(categories)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("BMAD", "Brain", "Liver", "Retina", "RESC", "Kvasir", "CVC-300", "cvc_clinicdb", "ColonDB"), "medical"),
        (("MVTecAD", "MVTec AD", "mvtec-ad", "VisA", "BTech", "MPDD"), "industrial"),
        (("Surfaces", "brain scans of my own", "", None), None),
    ],
)
def test_domains(names, expected):
    assert {domain_of(name) for name in names} == {expected}


@pytest.mark.parametrize(
    ("category", "of_images", "expected"),
    [
        ("bottle", None, {"dark bottle"}),
        ("", None, set()),
        ("", ["bottle", "bottle"], {"dark bottle"}),
        ("", ["bottle", "my_gear"], {"dark bottle", "my gear"}),
    ],
)
def test_classes_are_those_of_the_images_or_of_the_data_module(category, of_images, expected):
    samples = pd.DataFrame({"image_path": ["a.png", "b.png"]} | ({"class_name": of_images} if of_images else {}))
    datamodule = SimpleNamespace(name="MVTecAD", category=category, test_data=SimpleNamespace(samples=samples))
    assert classes_of(datamodule) == expected
    assert classes_of(SimpleNamespace(name="Photos")) == set()


def test_the_name_of_a_target():
    target = SimpleNamespace(name="Surfaces", category="weave")
    assert target_name(target, "brick") == "Surfaces/weave"
    assert target_name(SimpleNamespace(name="photos"), "brick") == "photos"
    assert (target_name(None, "brick"), target_name(None, None)) == ("brick", "")
