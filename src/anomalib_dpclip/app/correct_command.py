"""The command `dpclip correct`: photos that were called anomalous wrongly, taken into account from now on."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_dpclip.adapter_files.read_and_write import read_adapters
from anomalib_dpclip.data.images import read_image
from anomalib_dpclip.data.photo_files import photo_files

if TYPE_CHECKING:  # imported by what needs it, after everything that can be wrong with the arguments
    from anomalib_dpclip.model.lightning_model import DPCLIP


def correct(ckpt_path: Path, photos: list[Path], to: Path | None = None, known: list[Path] | Path | None = None) -> None:
    """Have photos that were called anomalous wrongly join the good ones: write a new checkpoint, and list what changes.

    Args:
        ckpt_path: Checkpoint of a model with good photos of the target.
        photos: Photos that show nothing anomalous.
        to: Checkpoint to write. Default: beside the other, with ``-corrected`` in its name; if that is there already, of an
            earlier correction, these photos are added to it.
        known: Other photos, and folders of them, to look at before and after: one, or a list.
    """
    target = to or corrected_path(ckpt_path)
    if to is not None and to.exists():
        raise FileExistsError(f"{to} is there already: delete it, or name another with --to")
    source = target if target.exists() else ckpt_path
    read_adapters(source)
    for photo in photos:  # before anything that takes time
        read_image(photo)
    places = [known] if isinstance(known, Path) else known or []
    for place in places:
        if not place.exists():
            raise FileNotFoundError(f"no folder or photo {place}: --known looks at it before and after")

    from anomalib_dpclip.app.predictor import Predictor
    from anomalib_dpclip.model.from_file import model_from_file

    model = model_from_file(source, visualizer=False, evaluator=False)
    if model.scorer.name != "memory":
        raise ValueError(
            f"{source} keeps no good photos of its target that others could join: calibrate with `anomalib validate` and "
            f"--model.few_shot_source FOLDER of good photos, and correct the checkpoint that this writes"
        )
    fine = list(map(str, photos))
    others = sorted({path for place in places for path in photo_files(place)} - set(fine))
    predictor, paths = Predictor(model), [*fine, *others]
    before = list(map(predictor.score, paths))
    model.add_good_images(photos)
    after = list(map(predictor.score, paths))
    write_corrected(model, source, target)
    print("\n".join(changes(paths, before, after, len(fine))))  # noqa: T201
    print(f"{'Added to' if source == target else 'Written'}: {target}")  # noqa: T201


def corrected_path(checkpoint: Path) -> Path:
    """Where the corrected form of a checkpoint goes."""
    return checkpoint.with_stem(f"{checkpoint.stem}-corrected")


def write_corrected(model: "DPCLIP", source: Path, target: Path) -> None:
    """Write a checkpoint that is another one but for what a model knows now."""
    from anomalib_dpclip.callbacks.checkpoint_io import AtomicCheckpointIO

    files = AtomicCheckpointIO()
    checkpoint = files.load_checkpoint(source)
    checkpoint["state_dict"] = model.state_dict()
    model.on_save_checkpoint(checkpoint)
    files.save_checkpoint(checkpoint, target)


def changes(paths: Sequence[str], before: Sequence[float], after: Sequence[float], fine: int) -> list[str]:
    """Score and decision of each photo before and after, how many have changed, and which of the first, fine, ones have not.

    Example:
        >>> for line in changes(["a.png", "b.png"], [0.9, 0.7], [0.2, 0.6], 2):
        ...     print(line)
        0.900 -> 0.200  anomalous -> normal  a.png
        0.700 -> 0.600  anomalous  b.png
        1 of 2 decisions have changed
        b.png stays anomalous: text or thresholds say so; more good photos of its kind help, or `anomalib validate` anew
    """
    lines, changed = [], 0
    for path, old, new in zip(paths, before, after, strict=True):
        decisions = ["anomalous" if score > 0.5 else "normal" for score in (old, new)]
        changed += decisions[0] != decisions[1]
        lines.append(f"{old:.3f} -> {new:.3f}  {' -> '.join(dict.fromkeys(decisions))}  {path}")
    lines.append(f"{changed} of {len(lines)} decisions have changed")
    advice = "text or thresholds say so; more good photos of its kind help, or `anomalib validate` anew"
    still = [path for path, score in zip(paths[:fine], after, strict=False) if score > 0.5]
    return [*lines, *(f"{path} stays anomalous: {advice}" for path in still)]
