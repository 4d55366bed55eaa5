"""The command `dpclip metadata`: lists labelled images in a JSON-lines file, or checks such a file."""

import sys
from collections import Counter
from pathlib import Path

import pandas as pd

from anomalib_dpclip.data.listing.check import check_metadata
from anomalib_dpclip.data.listing.folder_samples import folder_samples
from anomalib_dpclip.data.listing.metadata import few_shot, write_metadata
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
        return _report(check, root)
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


def _report(path: Path, root: Path) -> int:
    """Print the problems of a metadata file; 1 if any is an error."""
    problems = check_metadata(path, root)
    for problem in problems:
        print(f"{path}:{problem.line}: {'error' if problem.is_error else 'note'}: {problem.message}")  # noqa: T201
    errors = sum(problem.is_error for problem in problems)
    print(f"{path}: {errors} errors, {len(problems) - errors} notes", file=sys.stderr)  # noqa: T201
    return int(errors > 0)


def _summary(samples: pd.DataFrame) -> str:
    labelled = samples[samples.split == "test"]
    anomalous = labelled[labelled.label_index == 1]
    return (
        f"{len(labelled)} labelled images of {labelled.class_name.nunique()} categories "
        f"({len(labelled) - len(anomalous)} normal, {len(anomalous)} anomalous, {anomalous.mask_path.notna().sum()} "
        f"with masks), {len(samples) - len(labelled)} training images"
    )
