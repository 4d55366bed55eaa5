"""The method's data sets in miniature: their folders and file names as they are distributed, with a few tiny images in each."""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image

CATEGORIES = {
    "MVTecAD": (
        *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw", "tile"),
        *("toothbrush", "transistor", "wood", "zipper"),
    ),
    "VisA": (
        *("candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2"),
        *("pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum"),
    ),
    "MPDD": ("bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes"),
    "BTech": ("01", "02", "03"),
    "BMAD": ("Brain", "Liver", "Retina_RESC"),
}


def picture(path: Path, size: tuple[int, int] = (36, 28)) -> None:
    """Noise, different in every file: no image may pass for a copy of another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(str(path).encode())).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def mask(path: Path, size: tuple[int, int] = (36, 28)) -> None:
    """A rectangle in the middle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((size[1], size[0]), dtype=np.uint8)
    values[size[1] // 4 : -size[1] // 4, size[0] // 4 : -size[0] // 4] = 255
    Image.fromarray(values).save(path)


def mvtec(root: Path, name: str = "MVTecAD", defect: str = "broken") -> None:
    for folder in (root / category for category in CATEGORIES[name]):
        for image in ("train/good", "test/good", f"test/{defect}"):
            picture(folder / image / "000.png")
        mask(folder / "ground_truth" / defect / "000_mask.png")


def mpdd(root: Path) -> None:
    mvtec(root, "MPDD", "scratches")


def visa(root: Path) -> None:
    """As downloaded: the data module makes its own folders of it, which the list of splits tells."""
    rows = ["object,split,label,image,mask"]
    for category in CATEGORIES["VisA"]:
        images, masks = f"{category}/Data/Images", f"{category}/Data/Masks/Anomaly"
        for name, split in (("0000", "train"), ("0001", "test")):
            picture(root / images / "Normal" / f"{name}.JPG")
            rows.append(f"{category},{split},normal,{images}/Normal/{name}.JPG,")
        picture(root / images / "Anomaly" / "000.JPG")
        mask(root / masks / "000.png")
        rows.append(f"{category},test,anomaly,{images}/Anomaly/000.JPG,{masks}/000.png")
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(rows) + "\n")


def btad(root: Path) -> None:
    """Bitmaps and PNGs, and masks as PNG."""
    for category, suffix in zip(CATEGORIES["BTech"], ("bmp", "png", "bmp"), strict=True):
        picture(root / category / "train" / "ok" / f"0000.{suffix}")
        picture(root / category / "test" / "ok" / f"0000.{suffix}")
        picture(root / category / "test" / "ko" / f"0000.{suffix}")
        mask(root / category / "ground_truth" / "ko" / "0000.png")


def bmad(root: Path, categories: tuple[str, ...] = CATEGORIES["BMAD"], *, masked: bool = True) -> None:
    """With masks, also empty ones of the normal images, or labels of images only; and a validation part."""
    for category in categories:
        picture(root / category / "train" / "good" / "0.png")
        for part in (root / category / split / label for split in ("valid", "test") for label in ("good", "Ungood")):
            picture(part / "img" / f"{part.name}.png")
            if masked:
                mask(part / "label" / f"{part.name}.png")


def polyps(root: Path) -> None:
    """Anomalous images only, of different sizes, with masks of the same names."""
    for name, size in (("1.png", (36, 28)), ("10.png", (28, 42)), ("2.png", (40, 40))):
        picture(root / "images" / name, size)
        mask(root / "masks" / name, size)
