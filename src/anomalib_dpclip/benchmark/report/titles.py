"""What columns of results are called in tables."""

from anomalib_dpclip.benchmark.rows import OPERATING_POINTS

TITLES = {
    "image_AUROC": "Image AUROC",
    "image_AP": "Image AP",
    "image_F1Max": "Image F1-max",
    "pixel_AUROC": "Pixel AUROC",
    "pixel_AP": "Pixel AP",
    "pixel_AUPRO": "Pixel AUPRO",
    "pixel_AUPRO_5": "Pixel AUPRO 5 %",
    "pixel_F1Max": "Pixel F1-max",
    **{f"fpr_at_fnr_{share}": f"Overkill at {share} % escape" for share in (2, 5, 10)},
    **{f"fnr_at_fpr_{share}": f"Escape at {share} % overkill" for share in (2, 5, 10)},
    "class_F1": "ClassF1",
    "seg_F1": "SegF1",
    "false_alarm_rate": "False alarms",
    "guaranteed_rate": "At most, by guarantee",
}

LOWER_IS_BETTER = {*OPERATING_POINTS, "false_alarm_rate"}

KNOWS = "Knows of the target"
NOT_AVAILABLE = "n/a"
AVERAGE = "Average"
