"""Pre-processing of images for a backbone: resize of 8-bit values, normalisation."""
