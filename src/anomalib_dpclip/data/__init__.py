"""Images on disk, as data modules of anomalib and as lists; and the results of predicting photos.

Nothing here knows a model. Choosing images to learn from belongs to `auxiliary`.
"""
