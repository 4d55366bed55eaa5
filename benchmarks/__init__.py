"""Measurements of this package's own speed and memory: `python -m benchmarks.training` and the like."""
