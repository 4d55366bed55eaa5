"""The metrics that the field reports, ready for anomalib's `Evaluator`."""

from functools import partial

from anomalib.metrics import AnomalibMetric
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from anomalib_dpclip.metrics.functional import aupro, auroc, average_precision, f1_max
from anomalib_dpclip.metrics.image_metrics import ImageMetric, image_f1_max
from anomalib_dpclip.metrics.operating_points import operating_point_metrics
from anomalib_dpclip.metrics.pixel_metrics import PixelMetric

STRICT_FPR_LIMIT = 0.05
"""Upper false positive rate of the stricter AUPRO (MVTec AD 2)."""


def field_metrics() -> list[AnomalibMetric]:
    """New metrics for ``Evaluator(test_metrics=field_metrics())``, of any anomalib model.

    They see post-processed scores, which lie in [0, 1]. Metrics that a data set does not define (no masks, one kind of
    image) are NaN.

    Returns:
        ``image_AUROC``, ``image_AP``, ``image_F1Max``, ``pixel_AUROC``, ``pixel_AP``, ``pixel_AUPRO`` (false positive
        rates up to 0.3), ``pixel_F1Max``. The pixel metrics share one histogram; any choice of them works.
    """
    pixel_auroc = PixelMetric("pixel_AUROC", auroc)
    return [
        ImageMetric("image_AUROC", binary_auroc),
        ImageMetric("image_AP", binary_average_precision),
        ImageMetric("image_F1Max", image_f1_max),
        pixel_auroc,
        PixelMetric("pixel_AP", average_precision, reads=pixel_auroc),
        PixelMetric("pixel_AUPRO", aupro, reads=pixel_auroc),
        PixelMetric("pixel_F1Max", f1_max, reads=pixel_auroc),
    ]


def benchmark_metrics() -> list[AnomalibMetric]:
    """`field_metrics`, ``pixel_AUPRO_5`` (false positive rates up to 0.05), and `operating_point_metrics`."""
    metrics = field_metrics()
    pixel_auroc = next(metric for metric in metrics if isinstance(metric, PixelMetric))
    strict = PixelMetric("pixel_AUPRO_5", partial(aupro, fpr_limit=STRICT_FPR_LIMIT), reads=pixel_auroc)
    return [*metrics, strict, *operating_point_metrics()]
