"""The command `dpclip predict`: scores, decisions and pictures of photos, from one file of adapters or a checkpoint."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_dpclip.adapter_files.read_and_write import arguments_from_file
from anomalib_dpclip.method.domain import Domain
from anomalib_dpclip.post_processing.score_text import score_text

if TYPE_CHECKING:
    from anomalib_dpclip.data.results import Result


def predict(
    weights: Path,
    photos: list[Path],
    class_name: str | None = None,
    domain: Domain | None = None,
    backbone: str | None = None,
    pretrained: str | None = None,
    output: Path = Path("results/predict"),
    batch_size: int = 8,
    num_workers: int | None = None,
    accelerator: str = "auto",
    bit_depth: int | None = None,
    pictures: bool = True,
    min_area: int | None = None,
    ignore: Path | None = None,
    fresh: bool = False,
) -> int:
    """Predict photos: a line for each with score, decision and picture, and a summary; the exit status is 0 if all were read.

    The same command a second time goes on where the first one stopped.

    Args:
        weights: Adapters or a checkpoint; backbone, class and domain come from this file.
        photos: Photos, and folders of photos.
        class_name: What the photos show, instead of what the file says.
        domain: ``industrial`` or ``medical``, instead of what the file says.
        backbone: CLIP backbone, for a published file, which does not say it.
        pretrained: CLIP weights, where the file's are not to be had under the name that it gives.
        output: Folder for ``results.csv``, ``results.json``, pictures and contact sheet.
        batch_size: Photos a batch.
        num_workers: Processes that read photos; by default one a processor, at most 8.
        accelerator: What computes, as Lightning calls it: ``auto``, ``cpu``, ``gpu``.
        bit_depth: Bits that 16-bit photos use, where their files do not say.
        pictures: Whether to draw heat maps.
        min_area: Pixels of the photo that an anomalous region has at least to be listed and shown.
        ignore: Picture of the photos' size, white where nothing is to be judged.
        fresh: Start over instead of going on with earlier results.

    Returns:
        Exit status: 1 if a photo could not be read, else 0.

    Raises:
        FileNotFoundError: If the weights, or a photo or folder, are not there.
        ValueError: If the weights are no adapters, or an argument is out of range.
    """
    gone = [str(path) for path in photos if not path.exists()]
    if gone:
        raise FileNotFoundError(f"no photo or folder {', '.join(gone)}")
    arguments_from_file(weights)  # what is wrong with the file is said before anomalib's import, which takes seconds

    from lightning.pytorch import Trainer

    from anomalib_dpclip.data.photos import Photos
    from anomalib_dpclip.data.results import DONE, summary
    from anomalib_dpclip.model.from_file import model_from_file

    chosen: dict[str, Any] = {
        "class_name": class_name,
        "domain": domain,
        "backbone": backbone,
        "pretrained": pretrained,
        "min_area": min_area,
    }
    chosen |= {"ignore": ignore}
    arguments = {name: value for name, value in chosen.items() if value is not None}
    model: Any = model_from_file(weights, visualizer=pictures, evaluator=False, **arguments)
    if pictures and model.visualizer is None:  # a checkpoint also brings whether its training had pictures
        model.visualizer = model.configure_visualizer()
    data = Photos(_common_folder(photos), batch_size, num_workers, fresh=fresh, bit_depth=bit_depth, only=photos)
    found: list[Result] = []

    def show(rows: "Sequence[Result]") -> None:
        found.extend(rows)
        for row in rows:
            print(_line(row, Path(trainer.default_root_dir)), flush=True)  # noqa: T201  (what was asked for)

    data.listener = show
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=output,
    )
    trainer.predict(model, datamodule=data, return_predictions=False)
    print(summary(found))  # noqa: T201
    return int(any(row.status != DONE for row in found))


def _common_folder(photos: Sequence[Path]) -> Path:
    """The folder that all are in, below which pictures are laid out as the photos are."""
    folders = [path.resolve() if path.is_dir() else path.resolve().parent for path in photos]
    return Path(os.path.commonpath(folders))


def _line(row: "Result", output: Path) -> str:
    from anomalib_dpclip.data.results import DONE

    if row.status != DONE:
        return f"unread           {row.path!a}: {row.status}"
    picture = f"  {output / row.picture}" if row.picture else ""
    return f"{score_text(float(row.score))}  {row.label:9}  {os.fsencode(row.path).decode(errors='replace')}{picture}"
