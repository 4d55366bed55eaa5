"""The paper: from images to tokens, text anchors, losses, maps and scores, as tensors and plain torch modules.

Nothing of anomalib's hooks, of data sets on disk or of file formats belongs here.
"""
