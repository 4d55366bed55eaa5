"""Files in INT8: weights alone, or arithmetic too, of which products and calibrated on what.

Of arithmetic anomalib quantises all that NNCF can, which ruins a transformer's maps: they are small differences of
similarities. Here only products of tokens with weights are in 8 bits: layers, adapters and projectors, which is where the
time goes. The resize, the patch embedding, attention itself, norms, similarities, scores and post-processing stay as they
are. Activations are smoothed before they are quantised: SmoothQuant (Xiao et al., ICML 2023, arXiv 2211.10438), as NNCF does
it for transformers.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset, ImageBatch
from torchmetrics import Metric

from anomalib_dpclip.metrics import field_metrics

logger = logging.getLogger(__name__)

CALIBRATION_PHOTOS = 64
"""Normal photos at most that ranges of activations are taken from. Surfaces has 20, and more was not tried."""

JUDGED_BY = ("image_AUROC", "pixel_AUROC")
"""What may drop by ``max_drop`` at most: the mean of those that are defined."""


def require_one_tile(tiles: int) -> None:
    """Make sure that a file can be quantised, before it takes minutes to write: NNCF cannot make a graph of a loop.

    Args:
        tiles: As in `DPCLIP`.

    Raises:
        ValueError: If there are several.
    """
    if tiles > 1:
        raise ValueError(
            f"INT8_PTQ and INT8_ACQ cannot quantise a model with tiles={tiles}: use INT8 (weights) or FP16, or one with tiles=1"
        )


def compress_weights(model: Any) -> Any:
    """Keep the weights of an OpenVINO model of DP-CLIP in 8 bits; ranges of activations are the runtime's to find.

    Args:
        model: The model in fp32. A loop over tiles is changed in place.

    Returns:
        The model with weights in INT8.
    """
    import nncf

    loops = [node for node in model.get_ordered_ops() if node.get_type_name() in {"Loop", "TensorIterator"}]  # over tiles
    if not loops:
        return nncf.compress_weights(model)
    for loop in loops:  # the tower is in what is repeated; of its copy NNCF can make a graph, of a converted loop it cannot
        repeated = loop.get_function().clone()
        loop.set_function(nncf.compress_weights(repeated))
    return model


def quantise(model: Any, datamodule: AnomalibDataModule | None) -> Any:
    """Quantise an OpenVINO model of DP-CLIP.

    Args:
        model: The model in fp32, of one tile.
        datamodule: Target, of whose normal training photos the ranges of activations are taken.

    Returns:
        The model in INT8.

    Raises:
        ValueError: Without normal training photos.
    """
    import nncf

    photos = normal_photos(datamodule)
    return nncf.quantize(model, nncf.Dataset(photos, _inputs), subset_size=len(photos), **_as_transformer(model))


def quantise_with_accuracy_control(
    model: Any, datamodule: AnomalibDataModule | None, metric: Metric | None = None, max_drop: float = 0.01
) -> Any:
    """Quantise without smoothing, and put back as many products as it takes to keep a metric on the validation images.

    Args:
        model: As in `quantise`.
        datamodule: As in `quantise`; its validation images are what the metric is of.
        metric: Of anomalib's batches, the higher the better. Default: mean of image AUROC and pixel AUROC.
        max_drop: What the metric may lose, in [0, 1].

    Returns:
        The model, most of it in INT8.

    Raises:
        ValueError: As in `quantise`, without validation images, or for a drop out of range.
    """
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedSmoothQuantParameters

    if not 0 <= max_drop <= 1:
        raise ValueError(f"max_drop must lie in [0, 1], not {max_drop}")
    photos = normal_photos(datamodule)
    judged = getattr(datamodule, "val_data", None)
    if not judged:
        raise ValueError("INT8_ACQ needs validation images to keep the accuracy of: use INT8_PTQ, or another data module")
    return nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(photos, _inputs),
        nncf.Dataset([judged[index] for index in range(len(judged))]),
        _judge(metric),
        max_drop=max_drop,
        subset_size=len(photos),
        # NNCF puts a product's own weights back, not those that fit smoothed activations.
        advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
            smooth_quant_alphas=AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
        ),
        **_as_transformer(model),
    )


def normal_photos(datamodule: AnomalibDataModule | None) -> list[np.ndarray]:
    """Normal training photos ``(1, 3, H, W)`` of a target, evenly chosen where there are many.

    Raises:
        ValueError: If there are none.
    """
    if datamodule is None:
        raise ValueError("INT8_PTQ and INT8_ACQ need the target's normal photos: name its data set with --data")
    datamodule.prepare_data()
    datamodule.setup("fit")
    dataset: AnomalibDataset | None = getattr(datamodule, "train_data", None)
    samples = getattr(dataset, "samples", None)
    normal = np.empty(0, dtype=int) if samples is None else np.flatnonzero(samples.label_index == 0)
    if dataset is None or not len(normal):
        raise ValueError("INT8_PTQ and INT8_ACQ need normal training photos, the data set has none: use INT8 or FP16")
    chosen = np.unique(np.linspace(0, len(normal) - 1, min(CALIBRATION_PHOTOS, len(normal))).round().astype(int))
    return [np.asarray(dataset[int(index)].image)[None] for index in normal[chosen]]


def _inputs(photo: np.ndarray) -> dict[int, np.ndarray]:
    """What a file is given: the photo; of several classes the first."""
    return {0: photo}


def products_with_weights(model: Any) -> set[str]:
    """Names of the products of tokens with a matrix of weights; those with one direction, a similarity, are none."""
    return {
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() == "MatMul" and any(_is_weight_matrix(node.input_value(side)) for side in range(2))
    }


def _is_weight_matrix(value: Any) -> bool:
    node = value.get_node()
    while node.get_type_name() in {"Convert", "Transpose", "Reshape"}:
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and min(node.get_output_shape(0), default=0) > 1


def _as_transformer(model: Any) -> dict[str, Any]:
    """What NNCF is told of a model."""
    import nncf

    products = products_with_weights(model)
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() not in {"Constant", "Parameter", "Result"}]
    kept = sorted({node.get_friendly_name() for node in nodes} - products)
    logger.info("quantising %d products with weights, %d other operations stay as they are", len(products), len(kept))
    return {
        "model_type": nncf.ModelType.TRANSFORMER,
        # Some of these names NNCF does not know, for it folds constants.
        "ignored_scope": nncf.IgnoredScope(names=kept, validate=False),
    }


def _judge(metric: Metric | None) -> Callable[[Any, Iterable[Any]], float]:
    metrics = [metric] if metric is not None else [each for each in field_metrics() if each.name in JUDGED_BY]

    def judge(compiled: Any, items: Iterable[Any]) -> float:
        for each in metrics:  # NNCF tries this on one image first, and goes on where that fails
            each.reset()
        for item in items:
            outputs = compiled(_inputs(np.asarray(item.image)[None]))
            mask = None if item.gt_mask is None else torch.as_tensor(item.gt_mask)[None]
            predicted: dict[str, Any] = {
                name: torch.from_numpy(np.array(outputs[name]))
                for name in ("pred_score", "pred_label", "anomaly_map", "pred_mask")
            }
            batch = ImageBatch(image=item.image[None], gt_label=item.gt_label[None], gt_mask=mask, **predicted)
            for each in metrics:
                each.update(batch)
        return float(torch.stack([torch.as_tensor(each.compute()).float() for each in metrics]).nanmean())

    return judge
