"""What the classes of the method's data sets show: prompts name that ("dark bottle"), not a folder.

DP-CLIP (Feature Decoupling and Channel Purification), text anchors: the descriptions are parameters of the method.
"""

import re
from typing import TYPE_CHECKING, Any

from anomalib_dpclip.data_sets.names import data_set_key

if TYPE_CHECKING:  # a leaf, which also runs where anomalib is not wanted
    from anomalib.data import AnomalibDataModule

UNKNOWN_CLASS = "object"

_DESCRIPTIONS: dict[str, dict[str, str]] = {
    "mvtec": {
        "bottle": "dark bottle",
        "cable": "top view of three cables",
        "capsule": "black and orange capsule",
        "carpet": "gray carpet",
        "grid": "metal or plastic mesh",
        "hazelnut": "single brown hazelnut",
        "leather": "brown leather",
        "metal_nut": "metal nut which has four notched edges",
        "pill": "oval white pill with small red speckles and the letters 'FF' engraved",
        "screw": "screw",
        "tile": "speckled tile surface",
        "toothbrush": "toothbrush head",
        "transistor": "a three-legged transistor placed vertically",
        "wood": "wood surface",
        "zipper": "a black zipper",
    },
    "visa": {
        "candle": "candle",
        "capsules": "capsules",
        "cashew": "cashew nut",
        "chewinggum": "chewing gum",
        "fryum": "wheel-shaped fryum snack",
        "macaroni1": "orange macaroni",
        "macaroni2": "scattered yellow macaroni",
        "pcb1": "dual ultrasonic distance sensor pcb module",
        "pcb2": "integrated circuits board",
        "pcb3": "infrared sensor pcb module",
        "pcb4": "battery charging pcb module",
        "pipe_fryum": "pipe-shaped fryum",
    },
    "mpdd": {
        "bracket_black": "black ornamental metal bracket with spiral design attached to a rectangular frame",
        "bracket_brown": "brown L-shaped metal bracket with smooth, glossy finish and multiple mounting holes along its arms",
        "bracket_white": "white, elongated triangular metal bracket with a smooth, matte finish",
        "connector": "metal clamps with black adjustment knobs",
        "metal_plate": "blue rectangular metal plate with a notch on one side",
        "tubes": "scattered metal objects",
    },
    "btad": {
        # Shorter than the published one, which is a long sentence.
        "01": "bright concentric rings in yellow and blue on a dark blue background",
        "02": "vertical fabric lines in warm, dusty pink and beige tones",
        "03": "oval concentric circular rings in gradient shades of blue and white",
    },
    "bmad": {"brain": "scan", "liver": "scan", "retina": "scan", "retina_resc": "scan", "retina_oct2017": "scan"},
}

_POLYPS = "colon endoscopy image"
"""What all polyp sets show, whatever their folders are called."""


def readable_name(name: str | None) -> str:
    """A class's name as prompts say it, whoever gave it: words with single spaces, ``"object"`` where there are none.

    Example:
        >>> readable_name("brushed_metal"), readable_name("  metal   nut "), readable_name("_")
        ('brushed metal', 'metal nut', 'object')
    """
    return re.sub(r"[_\s]+", " ", name or "").strip() or UNKNOWN_CLASS


def describe(data_set: str | None, category: str | None) -> str:
    """What prompts call a category, as its data set spells it: the method's description, else the category in words.

    Example:
        >>> describe("MVTecAD", "bottle"), describe("Folder", "gear_wheel"), describe(None, None)
        ('dark bottle', 'gear wheel', 'object')
    """
    key = data_set_key(data_set)
    if key == "colon":
        return _POLYPS
    return _DESCRIPTIONS.get(key, {}).get((category or "").lower()) or readable_name(category)


def classes_of(datamodule: "AnomalibDataModule") -> set[str]:
    """Readable names of all classes that a data module tests, of its images or its category; empty where none is known."""
    samples = getattr(getattr(datamodule, "test_data", None), "samples", None)
    if samples is not None and "class_name" in samples:
        categories = samples.class_name.unique()
    else:
        categories = [getattr(datamodule, "category", None)]
    return {describe(datamodule.name, category) for category in categories} - {UNKNOWN_CLASS}


def target_name(datamodule: Any, class_name: str | None) -> str:
    """What the images of a run are of, such as ``Surfaces/weave``; the class that the user named, if no data module says it."""
    data_set, category = getattr(datamodule, "name", None), getattr(datamodule, "category", None)
    if not data_set:
        return class_name or ""
    return f"{data_set}/{category}" if category else str(data_set)
