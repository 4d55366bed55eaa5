"""The command `dpclip metadata`: lists labelled images in a JSON-lines file, or checks such a file."""

import hashlib
import os
import sys
from collections import Counter
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from anomalib_dpclip.data.images import SIXTEEN_BIT_MODES, load_image, read_mask, to_rgb
from anomalib_dpclip.data.listing.folder_samples import folder_samples
from anomalib_dpclip.data.listing.metadata import RootFolder, Sample, few_shot, parse_line, read_lines, write_metadata
from anomalib_dpclip.data.photo_files import photo_files
from anomalib_dpclip.data_sets.class_names import describe

SHOWN = 5
"""Classes that are named on the screen."""


def metadata(
    root: Path,
    source: str = "folder",
    output: Path | None = None,
    class_name: str | None = None,
    shots: int | None = None,
    seed: int = 111,
    check: Path | None = None,
) -> int:
    """List the labelled images of a data set in a JSON-lines file, or check such a file.

    Args:
        root: Folder of the data set, which the paths in the file are relative to.
        source: ``folder`` for folders good/, those of each kind of defect and masks/, or images/ and masks/ (for one
            category, or inside a folder for each); else an image data module of anomalib, such as MVTecAD, Visa, MPDD,
            BTech or BMAD, of which all categories in the root are listed.
        output: File to write; by default ``metadata/<data set>/full-shot.jsonl``, with shots ``<shots>-shot.jsonl``.
        class_name: What the images of a folder show; by default the folder's name.
        shots: List only so many labelled images of each category, half of them anomalous where there are enough, and no
            training images.
        seed: Seed of that choice.
        check: File to check instead of writing one: reads every image and mask, and lists all problems.

    Returns:
        Exit status: 1 if the file checked has errors, else 0.
    """
    if check is not None:
        problems = check_metadata(check, root)
        for problem in problems:
            print(f"{check}:{problem.line}: {'error' if problem.is_error else 'note'}: {problem.message}")  # noqa: T201
        errors = sum(problem.is_error for problem in problems)
        print(f"{check}: {errors} errors, {len(problems) - errors} notes", file=sys.stderr)  # noqa: T201
        return int(errors > 0)
    is_folder = source == "folder"
    if is_folder:
        samples, name = folder_samples(root, class_name), root.resolve().name
        listed = {*samples.image_path}
        unlisted = Counter(Path(path).parent for path in sorted(photo_files(root)) if path not in listed)
    elif class_name is not None:
        raise ValueError(f"class_name is for source folder: {source} has categories of its own")
    else:
        from anomalib_dpclip.data.labelled_sets import datamodule_samples  # with anomalib, which takes seconds to import

        samples, name, unlisted = datamodule_samples(source, root, seed), source, Counter()
    if shots is not None:
        samples = few_shot(samples[samples.split == "test"], shots, seed)
    file = output or Path("metadata") / name / f"{'full' if shots is None else shots}-shot.jsonl"
    write_metadata(samples, root, file)
    names = sorted({describe(file.resolve().parent.name, name) for name in samples.class_name})
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    hint = " (the folder's name: say what the photos show with --class_name)" if is_folder and not class_name else ""
    for line in (
        f"{file}: {_summary(samples)}",
        f"prompts will say {', '.join(map(repr, names[:SHOWN]))}{more}{hint}",
        *(f"not listed: {count} images in {folder}" for folder, count in unlisted.items()),
    ):
        print(line)  # noqa: T201
    return 0


class Problem(NamedTuple):
    """What is wrong with a line, or only worth a look."""

    line: int
    message: str
    is_error: bool = True


def check_metadata(path: str | Path, root: str | Path) -> list[Problem]:
    """Find everything that is wrong with a metadata file and with what it lists, in the order of its lines.

    Only noted are anomalous images without a mask where others have one, 16-bit images and the range they use, masks of more
    than two grey values (as JPEG makes them), and images that equal another one byte for byte.
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
    if sample.mask_path:
        try:
            path = folder.locate(sample.mask_path)
            is_empty = not read_mask(path, size, sample.image_path).any()
            if is_empty == bool(sample.label):
                what, label = ("empty", "anomalous") if is_empty else ("not empty", "normal")
                problems.append(Problem(line, f"mask {sample.mask_path} is {what}, but its image is labelled {label}"))
            mask = load_image(path)
            greys = len(np.unique(np.asarray(mask))) if mask.mode in ("L", *SIXTEEN_BIT_MODES) else 0
            if greys > 2:
                message = f"mask {sample.mask_path} has {greys} grey values: all but 0 are anomalous"
                problems.append(Problem(line, message, is_error=False))
        except ValueError as error:
            problems.append(Problem(line, str(error)))
    return problems, file, content


def _summary(samples: pd.DataFrame) -> str:
    labelled = samples[samples.split == "test"]
    anomalous = labelled[labelled.label_index == 1]
    return (
        f"{len(labelled)} labelled images of {labelled.class_name.nunique()} categories "
        f"({len(labelled) - len(anomalous)} normal, {len(anomalous)} anomalous, {anomalous.mask_path.notna().sum()} "
        f"with masks), {len(samples) - len(labelled)} training images"
    )
