"""The work of a job, done in a process of its own: build a model, train adapters, or measure one model on one category."""

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import torch
from anomalib import LearningType
from anomalib.data import AnomalibDataModule, get_datamodule
from anomalib.engine import Engine
from anomalib.models import AnomalibModule, get_model
from anomalib.pre_processing import PreProcessor
from lightning import seed_everything
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils import benchmark
from torchvision.transforms import v2

from anomalib_dpclip.benchmark.config import Job
from anomalib_dpclip.benchmark.corruptions import CORRUPTIONS, corrupted
from anomalib_dpclip.benchmark.image_results import ImageResults, at_thresholds, by_defect, is_set, undefined
from anomalib_dpclip.benchmark.knowledge import knowledge_of, thresholds_of
from anomalib_dpclip.benchmark.own_process import peak_memory, reason_of
from anomalib_dpclip.benchmark.plan import auxiliary_files, name_of, root_of
from anomalib_dpclip.benchmark.rows import DONE, IMAGE_COLUMNS, LEAK, METRICS, OPERATING_POINTS, Result
from anomalib_dpclip.clip.feature_tower import load_feature_tower
from anomalib_dpclip.files.atomic_write import atomic_write
from anomalib_dpclip.metrics import benchmark_metrics, field_metrics
from anomalib_dpclip.pre_processing.resize import EightBitResize

if TYPE_CHECKING:
    from anomalib_dpclip.model.lightning_model import DPCLIP

WIDER = 20
"""Range of a model's scores in ranges of those of the validation; pixels of the latter then have 52,000 bins to differ in."""

LATENCY_SECONDS = 1.0
"""For so long one image is scored again and again."""


def check_model(job: Job) -> None:
    """Build a model, as a job would, to see whether that is possible here: its weights may be missing, an argument wrong."""
    prepare = getattr(_build_model(job), "prepare_pretrained_model", None)
    if prepare is not None:  # EfficientAd's, which would fetch its teacher after all others
        prepare()


def train_adapters(job: Job, device: int | None, path: Path) -> None:
    """Train DP-CLIP once, for all categories to be tested with it; minutes of training go beside the adapters, in JSON.

    Args:
        job: The model, its seed, and any of the targets (which it is not trained on).
        device: Index of the GPU; ``None`` for the job's accelerator alone.
        path: Where the adapters go.
    """
    from anomalib_dpclip.adapter_files.save_and_load import save_adapters

    timer = Timer()
    with TemporaryDirectory() as folder:
        seed_everything(job.seed)
        model = _build_model(job.learner())
        model.visualizer = None
        # Without a target: adapters do not depend on any, and each of those that share them is looked at when tested.
        engine = _engine(job, device, folder, callbacks=[timer], limit_val_batches=0)
        engine.fit(model=model)
        with atomic_write(path.with_suffix(".minutes")) as unfinished:
            unfinished.write_text(json.dumps(timer.time_elapsed("train") / 60), encoding="utf-8")
        save_adapters(cast("DPCLIP", model), path)  # last: where it is, the training is done


def measure(job: Job, device: int | None, adapters: Path | None = None) -> Result:
    """Measure one model on one category, DP-CLIP with adapters of `train_adapters` where it does not train itself."""
    timer = Timer()
    with TemporaryDirectory() as folder:
        seed_everything(job.seed)
        model = _build_model(job, adapters)
        datamodule = _data(job)
        val_metrics = list(getattr(model.evaluator, "val_metrics", ()))  # some models stop early by them
        model.evaluator = evaluator = ImageResults(val_metrics=val_metrics, test_metrics=benchmark_metrics())
        model.visualizer = None  # one picture an image would be most of the time measured
        engine = _engine(job, device, folder, callbacks=[timer])
        if model.learning_type == LearningType.ONE_CLASS:  # others are only validated, which testing does too
            engine.fit(model=model, datamodule=datamodule)
            if not is_set(model.post_processor, "image_threshold"):  # the training ended within an epoch
                engine.validate(model=model, datamodule=datamodule)
            keep_apart(model.post_processor)
        (metrics,) = engine.test(model=model, datamodule=datamodule)
        images = _images(evaluator, datamodule)
        seconds = timer.time_elapsed("test")
        basis, rate = thresholds_of(model, datamodule)
        latency, no_latency = _latency(model, datamodule, engine)
        shift = list(_shifted(job, engine, model, datamodule))
    minutes = timer.time_elapsed("train") / 60
    if adapters is not None:
        minutes = json.loads(adapters.with_suffix(".minutes").read_text(encoding="utf-8"))
    row = {
        **job.identity,
        "model": type(model).__name__,
        "knows": knowledge_of(model, job.k_shot or None),
        "key": job.key,
        "normal_images": int((images["label"] == 0).sum()),
        "anomalous_images": int((images["label"] == 1).sum()),
        "mask_resolution": "x".join(map(str, evaluator.resolution or ())),
        **{name: _cell(metrics[name]) for name in (*METRICS, *OPERATING_POINTS)},
        **{name: _cell(value) for name, value in at_thresholds(images).items()},
        "guaranteed_rate": rate,
        "threshold_basis": basis,
        "by_defect": by_defect(images),
        "images_per_second": len(images) / seconds,
        "latency_ms": latency,
        "training_minutes": minutes,
        "peak_memory_mb": _cell(peak_memory((device or 0) if job.accelerator == "cuda" else None)),
        "status": DONE,
        "reason": "; ".join([*undefined(images), *no_latency]),
        **_leak(job, model, datamodule),
    }
    records = images[list(IMAGE_COLUMNS[1:])].astype(object).where(images.notna(), None).to_dict("records")
    return Result(row, records, shift, str(root_of(datamodule)))


def keep_apart(post_processor: Any) -> None:
    """Let scores beyond those of the validation differ: anomalib clamps them, and of good images alone these are all others.

    Its score is ``(raw - threshold) / (max - min) + 0.5``: in a wider range the order and the decisions are the same.
    """
    for kind in ("image", "pixel"):
        low, high = (getattr(post_processor, f"{kind}_{end}", None) for end in ("min", "max"))
        if low is not None and high is not None:
            high.copy_(low + WIDER * (high - low))
            sensitivity = getattr(post_processor, f"{kind}_sensitivity")  # which shifts the threshold by a share of the range
            setattr(post_processor, f"{kind}_sensitivity", 0.5 + (sensitivity - 0.5) / WIDER)


def _cell(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _images(evaluator: ImageResults, datamodule: AnomalibDataModule) -> pd.DataFrame:
    """The records of a test, with names of images instead of paths, and kinds of defects."""
    images, root = pd.DataFrame(evaluator.records), root_of(datamodule)
    images["defect"] = [Path(path).parent.name for path in images["image"]]
    images.loc[images["label"] != 1, "defect"] = ""
    images["image"] = [name_of(path, root) for path in images["image"]]
    return images


def _data(job: Job) -> AnomalibDataModule:
    """The config's data, of whose training split only the good images of the draw are left."""
    datamodule = get_datamodule(job.data)
    datamodule.prepare_data()
    datamodule.setup(TrainerFn.FITTING)  # as the trainer does, which then sets nothing up again
    if job.references:
        root, chosen = root_of(datamodule), set(job.references)
        names = [name_of(path, root) for path in datamodule.train_data.samples.image_path]
        datamodule.train_data.subsample([index for index, name in enumerate(names) if name in chosen], inplace=True)
    return datamodule


def _shifted(job: Job, engine: Engine, model: AnomalibModule, datamodule: AnomalibDataModule) -> Iterator[dict[str, Any]]:
    """Metrics of corrupted test images at the thresholds of the clean ones."""
    clean = datamodule.test_augmentations
    for name in job.shift:
        for strength in CORRUPTIONS[name][1]:
            seed_everything(job.seed)
            datamodule.test_augmentations = corrupted(name, strength, clean)
            model.evaluator = evaluator = ImageResults(test_metrics=field_metrics()[:1])
            # Where this sets thresholds, it is on clean validation images.
            (ranking,) = engine.test(model=model, datamodule=datamodule, verbose=False)
            metrics = {**ranking, **at_thresholds(pd.DataFrame(evaluator.records))}
            yield {"corruption": name, "strength": strength, **{name: _cell(value) for name, value in metrics.items()}}
    datamodule.test_augmentations = clean


def _latency(model: AnomalibModule, datamodule: AnomalibDataModule, engine: Engine) -> tuple[float | None, list[str]]:
    """Median milliseconds of one image, from pixels to decision, reading not included; or why there is none."""
    if getattr(model, "lot", False):
        return None, ["no milliseconds an image: the images of the lot are scored together"]
    device = engine.trainer.strategy.root_device
    image = datamodule.test_data[0].image.unsqueeze(0).to(device)
    model.to(device).eval()
    timer = benchmark.Timer("model(image)", globals={"model": model, "image": image}, num_threads=torch.get_num_threads())
    try:
        with torch.inference_mode():
            return 1000 * timer.blocked_autorange(min_run_time=LATENCY_SECONDS).median, []
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        return None, [f"no milliseconds an image: {reason_of(error)}"]


def _leak(job: Job, model: AnomalibModule, datamodule: AnomalibDataModule) -> dict[str, str]:
    """Status and reason of a row that tested what its adapters have learned from; nothing for a sound one."""
    from anomalib_dpclip.auxiliary.leakage import find_test_duplicate, learned_and_tested

    if not job.is_ours or model.learning_type == LearningType.ONE_CLASS:
        return {}  # the latter has made sure of it before it learned
    source = learned_and_tested(cast("DPCLIP", model).provenance.learned_from, datamodule)
    if source is None and job.training_key:  # of other adapters the images that they learned from are not known
        _, source = find_test_duplicate(auxiliary_files(*job.auxiliary), datamodule) or (None, None)
    return {} if source is None else {"status": LEAK, "reason": f"it has learned from {source}, which it was tested on"}


def _build_model(job: Job, weights: Path | None = None) -> AnomalibModule:
    """The config's model; DP-CLIP with the adapters, if given, and the job's seed, unless the config has one for it."""
    model = copy.deepcopy(job.model)
    init_args = model.setdefault("init_args", {})
    if init_args.get("k_shot") == "all":
        init_args["k_shot"] = len(job.references)
    if job.is_ours:
        init_args.setdefault("seed", job.seed)
        if job.training_key:  # which is shared by targets that choose the same set, and is learned without any of them
            init_args["auxiliary"], root = job.auxiliary
            init_args["training"] = {**(init_args.get("training") or {}), "auxiliary_root": root}
        if weights is not None:
            init_args["weights"] = str(weights)
    network = model.pop("network", None)
    built = get_model(model)
    if network is not None:
        use_network(built, network)
    return built


def use_network(model: AnomalibModule, name: str) -> None:
    """Give a model of anomalib's own whose features timm extracts the weights of `load_feature_tower`, and the same images.

    Raises:
        ValueError: The model's backbone is another.
    """
    tower = load_feature_tower(name)
    try:
        model.model.feature_extractor.feature_extractor.load_state_dict(tower.network.state_dict())
    except (AttributeError, RuntimeError) as error:
        raise ValueError(
            f"network: {type(model).__name__} does not take the weights of {name}: its backbone must be the same network, "
            f"up to the same layer ({reason_of(error)})"
        ) from error
    normalize = v2.Normalize(tower.mean.flatten().tolist(), tower.std.flatten().tolist())
    model.pre_processor = PreProcessor(v2.Compose([EightBitResize(tower.image_size), normalize]))


def _engine(job: Job, device: int | None, folder: str, **arguments: Any) -> Engine:
    devices = "auto" if device is None else [device]
    return Engine(accelerator=job.accelerator, devices=devices, default_root_dir=folder, **{**job.trainer, **arguments})
