"""Comparing anomalib's models: configs, jobs, rows, and the report that is made of them.

Measuring this package's own speed is no user's task: that is `benchmarks/`, outside the package.
"""
