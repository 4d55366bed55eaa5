"""ELPV: photographs of solar cells with a probability of a defect, from the package ``elpv-dataset``.

Buerhop-Lutz et al., "A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence Imagery", EU
PVSEC 2018. 2,624 grey images of 300x300; licence CC BY-NC-SA 4.0. There are labels of images only, no masks.
"""

import importlib.util
from pathlib import Path

from anomalib_dpclip.data.listing.metadata import Sample, to_frame, write_metadata


def convert_elpv(output: Path = Path("metadata/elpv/full-shot.jsonl"), cut: float = 0.5) -> Path:
    """List the images of the installed package ``elpv-dataset`` in a JSON-lines file; the images stay where they are.

    Experts gave each cell one of the probabilities 0, 1/3, 2/3 and 1. With the default cut, a cell is anomalous if a
    defect is likelier than not: 821 are, and 1,803 are normal.

    Args:
        output: File to write.
        cut: Least probability of a defect that makes an image anomalous, above 0 and at most 1.

    Returns:
        Root that the paths in the file are relative to.

    Raises:
        FileNotFoundError: If the package is not installed.
        ValueError: If the cut is not above 0 and at most 1.
    """
    if not 0 < cut <= 1:
        raise ValueError(f"cut must be above 0 and at most 1, not {cut}: it is a probability of a defect")
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or package.origin is None:
        raise FileNotFoundError("the package elpv-dataset is not installed: pip install elpv-dataset")
    root = Path(package.origin).parent / "data"
    samples = []
    for line in (root / "labels.csv").read_text(encoding="utf-8").splitlines():
        image, probability, _cell_type = line.split()
        samples.append(Sample(str(root / image), int(float(probability) >= cut), "solar cell"))
    write_metadata(to_frame(samples), root, output)
    anomalous = sum(sample.label for sample in samples)
    print(f"{output}: {len(samples)} images, {anomalous} anomalous; root {root}")  # noqa: T201
    return root
