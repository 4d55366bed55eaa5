"""The field's metrics, image and pixel, in bounded memory and undefined (NaN) where they have no meaning."""

from anomalib_dpclip.metrics.evaluator import PixelMetric, benchmark_metrics, field_metrics, operating_point_metrics
from anomalib_dpclip.metrics.functional import aupro, auroc, average_precision, f1_max, f1_threshold
from anomalib_dpclip.metrics.pixel_histogram import PixelCounts, PixelHistogram, count_pixels

__all__ = [
    "PixelCounts",
    "PixelHistogram",
    "PixelMetric",
    "aupro",
    "auroc",
    "average_precision",
    "benchmark_metrics",
    "count_pixels",
    "f1_max",
    "f1_threshold",
    "field_metrics",
    "operating_point_metrics",
]
