"""The anomalib model: Lightning hooks, training, checkpoints, processing before and after, calibration, export, pictures.

The maths that the paper defines belongs to `method`.
"""
