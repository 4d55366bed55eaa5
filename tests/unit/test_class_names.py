"""Descriptions and domains of every name that a data set goes by."""

import importlib

import pytest

from anomalib_dpclip.class_names import _DESCRIPTIONS, data_set_key, describe, domain_of


@pytest.mark.parametrize(
    ("data_set", "category", "expected"),
    [
        ("MVTecAD", "bottle", "dark bottle"),
        ("MVTec", "metal_nut", "metal nut which has four notched edges"),
        ("mvtec", "grid", "metal or plastic mesh"),
        ("Visa", "pcb4", "battery charging pcb module"),
        ("VisA", "macaroni2", "scattered yellow macaroni"),
        ("BTech", "03", "oval concentric circular rings in gradient shades of blue and white"),
        ("BMAD", "Brain", "scan"),
        ("Retina", "Retina", "scan"),
        ("Kvasir", "Kvasir", "colon endoscopy image"),
        ("CVC-300", "CVC-300", "colon endoscopy image"),
        ("Colon_ColonDB", "whatever", "colon endoscopy image"),
        ("Surfaces", "brushed_metal", "brushed metal"),
        ("Folder", "gear__wheel ", "gear wheel"),
        ("MVTecAD", "no such category", "no such category"),
        ("MVTecAD", None, "object"),
        (None, "gear", "gear"),
        (None, "", "object"),
        (None, " _ ", "object"),
    ],
)
def test_describe(data_set, category, expected):
    assert describe(data_set, category) == expected


@pytest.mark.parametrize(
    ("data_set", "module"), [("mvtec", "mvtecad"), ("visa", "visa"), ("mpdd", "mpdd"), ("btad", "btech")]
)
def test_every_category_of_the_host_is_described(data_set, module):
    categories = importlib.import_module(f"anomalib.data.datasets.image.{module}").CATEGORIES
    assert set(_DESCRIPTIONS[data_set]) == set(categories)


@pytest.mark.parametrize("name", ["BMAD", "Brain", "Liver", "Retina", "RESC", "Kvasir", "CVC-300", "cvc_clinicdb", "ColonDB"])
def test_medical(name):
    assert domain_of(name) == "medical"


@pytest.mark.parametrize("name", ["MVTecAD", "VisA", "BTech", "MPDD", "Surfaces", "brain scans of my own", "", None])
def test_industrial(name):
    assert domain_of(name) == "industrial"


def test_names_of_one_data_set_are_one_key():
    assert data_set_key("MVTec AD") == data_set_key("mvtec-ad") == data_set_key("MVTec") == "mvtec"
    assert data_set_key("VisA") != data_set_key("MVTec")
