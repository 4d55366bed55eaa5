"""The field's metrics, image and pixel, in bounded memory and undefined (NaN) where they have no meaning."""

from anomalib_dpclip.metrics.evaluator import benchmark_metrics, field_metrics
from anomalib_dpclip.metrics.functional import (
    aupro,
    auroc,
    average_precision,
    f1_curve,
    f1_max,
    f1_threshold,
)
from anomalib_dpclip.metrics.image_metrics import ImageMetric, count_scores
from anomalib_dpclip.metrics.operating_points import operating_point_metrics
from anomalib_dpclip.metrics.pixel_histogram import PixelCounts, PixelHistogram, count_pixels
from anomalib_dpclip.metrics.pixel_metrics import PixelMetric

__all__ = [
    "ImageMetric",
    "PixelCounts",
    "PixelHistogram",
    "PixelMetric",
    "aupro",
    "auroc",
    "average_precision",
    "benchmark_metrics",
    "count_pixels",
    "count_scores",
    "f1_curve",
    "f1_max",
    "f1_threshold",
    "field_metrics",
    "operating_point_metrics",
]
