"""OpenVINO models in fewer bits: weights alone, or arithmetic too, of which products and calibrated on what.

Of arithmetic anomalib quantises all that NNCF can, which ruins a transformer's maps: they are small differences of
similarities. Here only products of tokens with weights are in 8 bits: layers, adapters and projectors, which is where the
time goes. The resize, the patch embedding, attention itself, norms, similarities, scores and post-processing stay as they
are. Activations are smoothed before they are quantised: SmoothQuant (Xiao et al., ICML 2023, arXiv 2211.10438), as NNCF does
it for transformers.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.deploy import CompressionType

logger = logging.getLogger(__name__)

CALIBRATION_IMAGES = 64
"""Normal images at most that ranges of activations are taken from. Surfaces has 20, and more was not tried."""


def require_quantisable(compression_type: CompressionType | None, tiles: int) -> None:
    """Refuse to compress a model of so many tiles a side in vain: its file takes minutes to write."""
    if compression_type == CompressionType.INT8_ACQ:
        raise ValueError("INT8_ACQ is not offered for DPCLIP: use INT8_PTQ, or INT8 (weights)")
    if compression_type == CompressionType.INT8_PTQ and tiles > 1:  # NNCF cannot make a graph of a loop
        raise ValueError(f"INT8_PTQ cannot quantise a model with tiles={tiles}: use INT8 (weights), FP16 or tiles=1")


def compressed(
    model: Any, kind: CompressionType | None, datamodule: AnomalibDataModule | None, others: Mapping[str, np.ndarray]
) -> Any:
    """An OpenVINO model in fewer bits; a loop over tiles may be changed in place.

    Args:
        model: The model in fp32.
        kind: What is asked for; ``None`` leaves it as it is.
        datamodule: Target, of whose normal training images ``INT8_PTQ`` takes the ranges of activations; it may not lack any.
        others: Inputs of the model beside the images, with a value each.
    """
    if kind is None:
        return model
    if kind == CompressionType.FP16:
        import openvino

        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.xml"
            openvino.save_model(model, path, compress_to_fp16=True)
            # The weights are read as they are needed, from a file that is about to go.
            return openvino.Core().read_model(path.read_bytes(), path.with_suffix(".bin").read_bytes())
    if kind == CompressionType.INT8_PTQ:
        return _quantise(model, normal_images(datamodule), others)
    import nncf

    loops = [node for node in model.get_ordered_ops() if node.get_type_name() in {"Loop", "TensorIterator"}]  # over tiles
    for loop in loops:  # the tower is in what is repeated; of its copy NNCF can make a graph, of a converted loop it cannot
        loop.set_function(nncf.compress_weights(loop.get_function().clone()))
    return model if loops else nncf.compress_weights(model)


def _quantise(model: Any, images: list[np.ndarray], others: Mapping[str, np.ndarray]) -> Any:
    import nncf

    inputs: dict[int | str, np.ndarray] = dict(others.items())
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() not in {"Constant", "Parameter", "Result"}]
    products = {
        node.get_friendly_name()
        for node in nodes
        if node.get_type_name() == "MatMul" and any(_is_weight_matrix(node.input_value(side).get_node()) for side in range(2))
    }
    kept = sorted({node.get_friendly_name() for node in nodes} - products)
    logger.info("quantising %d products with weights, %d other operations stay as they are", len(products), len(kept))
    return nncf.quantize(
        model,
        nncf.Dataset(images, lambda image: inputs | {0: image}),
        subset_size=len(images),
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(names=kept, validate=False),  # some of these it does not know: it folds constants
    )


def normal_images(datamodule: AnomalibDataModule | None) -> list[np.ndarray]:
    """Normal training images ``(1, 3, H, W)`` of a target, evenly chosen where there are many; a ValueError without any."""
    if datamodule is None:
        raise ValueError("INT8_PTQ needs the target's normal images: name its data set with --data")
    datamodule.prepare_data()
    datamodule.setup("fit")
    dataset: AnomalibDataset | None = getattr(datamodule, "train_data", None)
    samples = getattr(dataset, "samples", None)
    normal = np.empty(0, dtype=int) if samples is None else np.flatnonzero(samples.label_index == 0)
    if dataset is None or not len(normal):
        raise ValueError("INT8_PTQ needs normal training images, the data set has none: use INT8 or FP16")
    chosen = np.unique(np.linspace(0, len(normal) - 1, min(CALIBRATION_IMAGES, len(normal))).round().astype(int))
    return [np.asarray(dataset[int(index)].image)[None] for index in normal[chosen]]


def _is_weight_matrix(node: Any) -> bool:
    """Whether a node gives a matrix of weights; one direction, by which a similarity is a product, is none."""
    while node.get_type_name() in {"Convert", "Transpose", "Reshape"}:
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and min(node.get_output_shape(0), default=0) > 1
