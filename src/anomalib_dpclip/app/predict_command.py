"""The command `dpclip predict`: scores, decisions and pictures of photos, by good photos of the same or by adapters."""

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_dpclip.adapter_files.adapter_file import UNADAPTED
from anomalib_dpclip.adapter_files.read_and_write import arguments_from_file
from anomalib_dpclip.app.own_options import own_options
from anomalib_dpclip.clip.pretraining import MINI
from anomalib_dpclip.data_sets.class_names import UNKNOWN_CLASS
from anomalib_dpclip.data_sets.domain import Domain
from anomalib_dpclip.post_processing.score_text import Standing, score_text

if TYPE_CHECKING:
    from anomalib_dpclip.data.results.rows import Result

_WEIGHTS = {".ckpt", ".safetensors", ".pth", ".pt"}


def predict(
    photos: list[Path],
    good: Path | None = None,
    lot: bool = False,
    weights: str | None = None,
    class_name: str | None = None,
    memory_backbone: str | None = None,
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
    false_alarm_rate: float | None = None,
    exit_code: bool = False,
    fresh: bool = False,
) -> int:
    """Predict photos: a line for each with score, decision and picture, and a summary; the exit status is 0 if all were read.

    With a folder of good photos nothing has to be trained. The same command a second time goes on where the first one stopped.

    Args:
        photos: Photos, and folders of photos.
        good: Folder of good photos of the same: the others are compared with them.
        lot: Whether the photos are compared with each other, which takes a lot of mostly normal ones.
        weights: Adapters or a checkpoint; backbone, class and domain come from this file.
        class_name: What the photos show, instead of what the file says.
        memory_backbone: Network whose features photos are compared by: ``efficientnet_lite0``, or the name of a timm model.
            Default: without `weights` the first, else as the file says.
        domain: ``industrial`` or ``medical``, instead of what the file says.
        backbone: CLIP backbone, for a published file, which does not say it.
        pretrained: CLIP weights, where the file's are not to be had under the name that it gives.
        output: Folder for ``results.csv``, ``results.json``, pictures and contact sheet.
        batch_size: Photos a batch.
        num_workers: Processes that read photos; by default as many as the machine bears.
        accelerator: What computes, as Lightning calls it: ``auto``, ``cpu``, ``gpu``.
        bit_depth: Bits that 16-bit photos use, where their files do not say.
        pictures: Whether to draw heat maps.
        min_area: Pixels of the photo that an anomalous region has at least to be listed and shown.
        ignore: Picture of the photos' size, white where nothing is scored.
        false_alarm_rate: Probability with which a new good photo is called anomalous at most, where thresholds come from the
            good photos.
        exit_code: Whether the exit status is 1 if a photo is anomalous, too.
        fresh: Start over instead of going on with earlier results.

    Returns:
        Exit status: 1 if a photo could not be read, or with `exit_code` is anomalous, else 0.
    """
    _require_photos(photos)
    if good is not None and not good.is_dir():
        raise FileNotFoundError(f"no folder {good}: --good must be the folder of the good photos")
    if weights is None and good is None and not lot:
        raise ValueError(
            "say what photos are to be compared with: --good FOLDER of good photos of the same, --lot for a lot of mostly "
            "normal ones, or --weights FILE of trained adapters or of a checkpoint"
        )
    if weights is not None and weights != UNADAPTED:
        arguments_from_file(weights)  # what is wrong with the file is said before anomalib's import, which takes seconds

    from lightning.pytorch import Trainer

    from anomalib_dpclip.clip.feature_tower import EMBEDDED
    from anomalib_dpclip.data.photos import Photos
    from anomalib_dpclip.data.results.rows import DONE, summary
    from anomalib_dpclip.model.from_file import model_from_file
    from anomalib_dpclip.visualization.visualizer import PictureVisualizer

    arguments: dict[str, Any] = {
        "class_name": class_name,
        "domain": domain,
        "backbone": backbone,
        "pretrained": pretrained,
        "memory_backbone": memory_backbone,
        "few_shot_source": good,
        "false_alarm_rate": false_alarm_rate,
        "region": {"ignore": None if ignore is None else str(ignore), "min_area": min_area},
        "lot": lot,
    }
    if weights is None:  # comparing needs no text, so it needs no CLIP: the small one only stands in for it
        arguments |= {"backbone": backbone or MINI, "memory_backbone": memory_backbone or EMBEDDED}
        arguments |= {"class_name": class_name or UNKNOWN_CLASS, "memory": {"text_weight": 0}}
    arguments = {name: value for name, value in arguments.items() if value is not None}
    with own_options():
        model: Any = model_from_file(weights or UNADAPTED, visualizer=pictures, evaluator=False, **arguments)
    if pictures and model.visualizer is None:  # a checkpoint also brings whether its training had pictures
        model.visualizer = PictureVisualizer()
    # Pictures are laid out as the photos are, below the folder that all are in.
    folder = os.path.commonpath([path.resolve() if path.is_dir() else path.parent.resolve() for path in photos])
    data = Photos(folder, batch_size, num_workers, fresh=fresh, bit_depth=bit_depth, only=photos)
    found: list[Result] = []
    told: list[int] = []  # photos of each call: of an earlier run first, then of each batch

    def show(rows: "Sequence[Result]") -> None:
        found.extend(rows)
        told.append(len(rows))
        for row in rows:
            print(_line(row, Path(trainer.default_root_dir)), flush=True)  # noqa: T201  (what was asked for)

    data.listener = show
    for name in ("lightning.pytorch", "lightning_fabric"):  # what hardware there is, and advertisements
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "Total length of `DataLoader` across ranks is zero")
    unwanted: Any = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator=accelerator, devices=1, default_root_dir=output, **unwanted)
    with own_options(few_shot_source="good"):
        trainer.predict(model, datamodule=data, return_predictions=False)
    print(summary(found))  # noqa: T201
    nothing_new = [f"Nothing to do: all {len(found)} photos have results in {output}."]
    for line in model.threshold_remarks() if sum(told[1:]) else nothing_new:
        print(line)  # noqa: T201
    unread = any(row.status != DONE for row in found)
    return int(unread or (exit_code and any(row.label == "anomalous" for row in found)))


def _require_photos(photos: Sequence[Path]) -> None:
    if weights := next((path for path in photos if path.suffix in _WEIGHTS), None):
        raise ValueError(f"{weights} is no photo: give it as --weights {weights}")
    if gone := [str(path) for path in photos if not path.exists()]:
        raise FileNotFoundError(f"no photo or folder {', '.join(gone)}")


def _line(row: "Result", output: Path) -> str:
    from anomalib_dpclip.data.results import DONE

    if row.status != DONE:
        return f"unread           {row.path!a}: {row.status}"
    path, here = Path(row.path), Path.cwd()
    path = path.relative_to(here) if path.is_relative_to(here) else path
    words = [os.fsencode(path).decode(errors="replace")]
    words += [str(output / row.picture)] if row.picture else []
    beside = []
    if row.good_photos:
        total = int(row.good_photos)
        beside.append(str(Standing(round(float(row.good_below) * total), total)))
    beside += [f"most like {row.most_like}"] if row.most_like else []
    words += [", ".join(beside)] if beside else []
    return f"{score_text(float(row.score))}  {row.label:12}  {'  '.join(words)}"
