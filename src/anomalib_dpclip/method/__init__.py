"""The paper: from images to tokens, text anchors, losses, maps and scores, as tensors and plain torch modules.

DP-CLIP (Feature Decoupling and Channel Purification, github.com/jeffreyFF/DP-CLIP): zero-shot anomaly detection on a frozen
CLIP. Its repository, the only publication that could be found, names neither authors nor venue. It builds on AA-CLIP (Ma et
al., CVPR 2025, arXiv 2503.06661); its GRN is that of ConvNeXt V2 (Woo et al., CVPR 2023, arXiv 2301.00808).

Nothing of anomalib's hooks, of data sets on disk or of file formats belongs here.
"""
