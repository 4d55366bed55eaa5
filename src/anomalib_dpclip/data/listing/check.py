"""Checking a metadata file: reads every image and mask, and lists all problems at once."""

import hashlib
import os
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from anomalib_dpclip.data.images import SIXTEEN_BIT_MODES, load_image, read_mask, to_rgb
from anomalib_dpclip.data.listing.metadata import RootFolder, Sample, parse_line, read_lines


class Problem(NamedTuple):
    """What is wrong with a line, or only worth a look."""

    line: int
    message: str
    is_error: bool = True


def check_metadata(path: str | Path, root: str | Path) -> list[Problem]:
    """Find everything that is wrong with a metadata file and with what it lists, in the order of its lines.

    Errors are lines that are not as the format says, images and masks that are missing or cannot be read, masks of
    another size than their image, empty masks of anomalous images, masks of normal images that are not empty, and images
    listed twice. Only noted are anomalous images without a mask where others have one, 16-bit images and the range they use,
    masks of more than two grey values (as JPEG makes them), and images that equal another one byte for byte.
    """
    folder = RootFolder(root)
    problems: list[Problem] = []
    samples: dict[int, Sample] = {}
    for line, text in read_lines(path):
        try:
            samples[line] = parse_line(text)
        except ValueError as error:
            problems.append(Problem(line, str(error)))
    if not samples and not problems:
        problems.append(Problem(1, "the file lists no images"))
    some_masked = any(sample.mask_path for sample in samples.values() if sample.label)

    line_of: dict[str | bytes, int] = {}
    # Decoding releases the interpreter's lock. Leaving the pool early, as Ctrl-C does, drops what is still to do.
    with ThreadPool() as pool:
        checked = pool.imap(lambda item: _check_sample(*item, folder), samples.items())
        progress = tqdm(checked, "check", len(samples), unit="image")
        for (line, sample), (found, file, content) in zip(samples.items(), progress, strict=True):
            problems += found
            if sample.label and not sample.mask_path and some_masked:
                message = "is anomalous and has no mask, although others have one: pixel metrics leave it out"
                problems.append(Problem(line, f"{sample.image_path} {message}", is_error=False))
            if file is None:
                continue
            if line_of.setdefault(file, line) != line:
                problems.append(Problem(line, f"{sample.image_path} is listed in line {line_of[file]} too"))
            elif line_of.setdefault(content, line) != line:
                other = samples[line_of[content]].image_path
                problems.append(Problem(line, f"{sample.image_path} is the same picture as {other}", is_error=False))
    return sorted(problems)


def _check_sample(line: int, sample: Sample, folder: RootFolder) -> tuple[list[Problem], str | None, bytes]:
    """Problems of one line, and the real path and a digest of its image if that could be read."""
    problems = []
    size, file, content = None, None, b""
    try:
        path = folder.locate(sample.image_path)
        image = load_image(path)
        size = to_rgb(image, path).size
        file, content = os.path.realpath(path), hashlib.sha256(Path(path).read_bytes()).digest()
        if image.mode in SIXTEEN_BIT_MODES:
            largest = np.asarray(image).max()
            white = 2 ** image.info.get("bit_depth", 16) - 1
            message = f"{sample.image_path} has 16 bits and values up to {largest}: {white} is shown as white"
            problems.append(Problem(line, message, is_error=False))
    except ValueError as error:
        problems.append(Problem(line, str(error)))
    try:
        problems += _check_mask(line, sample, folder, size) if sample.mask_path else []
    except ValueError as error:
        problems.append(Problem(line, str(error)))
    return problems, file, content


def _check_mask(line: int, sample: Sample, folder: RootFolder, size: tuple[int, int] | None) -> Iterator[Problem]:
    path = folder.locate(sample.mask_path or "")
    anomalous_pixels = read_mask(path, size, sample.image_path).any()
    if sample.label and not anomalous_pixels:
        yield Problem(line, f"mask {sample.mask_path} is empty, but its image is labelled anomalous")
    if anomalous_pixels and not sample.label:
        yield Problem(line, f"mask {sample.mask_path} is not empty, but its image is labelled normal")
    mask = load_image(path)
    greys = len(np.unique(np.asarray(mask))) if mask.mode in ("L", *SIXTEEN_BIT_MODES) else 0
    if greys > 2:
        yield Problem(line, f"mask {sample.mask_path} has {greys} grey values: all but 0 are anomalous", is_error=False)
