"""Overlapped tiling: a large image seen tile by tile in full detail, and stitched on the token grid without seams.

No part of DP-CLIP's paper, but an addition for small defects on large images. anomalib's own `Tiler` serves models that tile
their features; where tiles overlap it takes the plain average, which jumps wherever one begins or ends, and it cuts a whole
batch at once. Here tiles fade out towards their borders, and a few at a time are in memory. In an exported file they are a loop
around one copy of the model: neither the file nor its memory grows with their number.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from anomalib_dpclip.files.private_names import torch_scan

TILES_AT_ONCE = 8
"""Tiles seen at a time, of all images of a batch together, unless the batch alone is larger."""

Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From images ``(B, 3, H, W)`` and their anchors to values on the token grid ``(B, rows, columns)`` and scores ``(B,)``."""


def blend_weights(length: int, tiles: int) -> Tensor:
    """Shares ``(2 tiles - 1, tiles * length)`` of tiles along an axis, half a tile apart; columns sum to 1.

    ``tiles`` of ``length`` tokens are as long as the axis. Each has a Hann window: it and its neighbours, half a window away,
    sum to 1, and each is close to 0 where it begins and ends.
    """
    place = torch.arange(tiles * length) - _starts(length, tiles).unsqueeze(1)  # of each token in each tile
    window = torch.sin((place + 0.5) * math.pi / length).square()
    shares = torch.where((place >= 0) & (place < length), window, 0)
    return shares / shares.sum(dim=0)  # 1 already but for the borders and tiles of an odd length


def stitching_matrix(length: int, tiles: int) -> Tensor:
    """Sums the tiles of one axis, laid end to end, into the whole axis: ``(tiles * length, (2 tiles - 1) * length)``."""
    place = torch.arange(tiles * length).unsqueeze(1) - _starts(length, tiles)
    is_there = place.unsqueeze(-1) == torch.arange(length)  # (token of the axis, tile, token of the tile)
    return (is_there * blend_weights(length, tiles).T.unsqueeze(-1)).flatten(1)


def predict_tiled(
    predict: Predict, images: Tensor, anchors: Tensor, grid: tuple[int, int], tiles: int, at_once: int = TILES_AT_ONCE
) -> tuple[Tensor, Tensor]:
    """Predict large images with a model of small ones.

    Args:
        predict: The model.
        images: Images ``(B, 3, tiles H, tiles W)``.
        anchors: As `Scorer.score` takes them.
        grid: Rows and columns of the model's token grid.
        tiles: How many times the model's size the images are.
        at_once: Tiles that the model is given together, those of all images; at least one of each image.

    Returns:
        Stitched values ``(B, tiles rows, tiles columns)`` and the highest score of any tile ``(B,)``: a defect that one tile
        shows makes the image anomalous, however many others look normal.
    """
    side = 2 * tiles - 1
    pixels = [_pixels(length, whole, tiles).to(images.device) for length, whole in zip(grid, images.shape[-2:], strict=True)]
    rows, columns = pixels[0].repeat_interleave(side, 0), pixels[1].repeat(side, 1)  # of each tile
    if torch.compiler.is_exporting():
        values, scores = _in_a_loop(predict, images, anchors, rows, columns)
    else:
        values, scores = _in_batches(predict, images, anchors, rows, columns, max(1, at_once // max(1, len(images))))
    row_shares, column_shares = (stitching_matrix(length, tiles).to(values.device) for length in grid)
    # (tile row, tile column, B, rows, columns) to (B, tile row x rows, tile column x columns)
    laid_out = values.float().unflatten(0, (side, side)).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    return row_shares @ laid_out @ column_shares.T, scores.amax(dim=0)


def _in_batches(
    predict: Predict, images: Tensor, anchors: Tensor, rows: Tensor, columns: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Values ``(T, B, rows, columns)`` and scores ``(T, B)`` of tiles, some of them at a time."""
    predicted = []
    for batch in zip(rows.split(count), columns.split(count), strict=True):
        cut = torch.cat([images.index_select(-2, row).index_select(-1, column) for row, column in zip(*batch, strict=True)])
        repeated = anchors if anchors.ndim == 2 else anchors.repeat(len(batch[0]), 1, 1)
        predicted += [[each.unflatten(0, (len(batch[0]), -1)) for each in predict(cut, repeated)]]
    values, scores = (torch.cat(parts) for parts in zip(*predicted, strict=True))
    return values, scores


def _in_a_loop(predict: Predict, images: Tensor, anchors: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """The same in a graph: torch's exporter would write a Python loop out, a copy of the model for each round.

    OpenVINO's loops see nothing that changes from outside: the tiles are cut beforehand, four times the images' memory, and
    the anchors, chosen by an input where a file has several classes, are handed from round to round.
    """

    def see(anchors: Tensor, tile: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return anchors.clone(), predict(tile, anchors)

    side = math.isqrt(len(rows))
    cut = images[..., rows[::side], :][..., columns[:side]]  # (B, 3, side, H, side, W)
    _, (values, scores) = torch_scan(see, anchors, cut.permute(2, 4, 0, 1, 3, 5).flatten(0, 1))
    return values, scores


def _pixels(length: int, whole: int, tiles: int) -> Tensor:
    """Of the pixels of an axis those that each tile sees ``(2 tiles - 1, pixels of a tile)``."""
    patch = whole // (tiles * length)
    return _starts(length, tiles).unsqueeze(1) * patch + torch.arange(length * patch)


def _starts(length: int, tiles: int) -> Tensor:
    """First token of each tile of an axis: whole tokens, or patches would be cut differently in each tile."""
    return length * torch.arange(2 * tiles - 1) // 2
