"""Overlapped tiling: a large image seen tile by tile in full detail, and stitched on the token grid without seams.

No part of DP-CLIP's paper, but an addition for small defects on large images.

anomalib's own `Tiler` serves models that tile their features (PatchCore, PaDiM); where tiles overlap it takes the plain
average, which jumps wherever a tile begins or ends, and it cuts a whole batch at once, which for large images is many times
the batch's memory. Here tiles fade out towards their borders, and one of each image is in memory at a time; an exported file
sees them as one batch, since a copy of the tower for each would make it useless.
"""

import math
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor


def blend_weights(length: int, tiles: int) -> Tensor:
    """Shares of the tiles along one axis: ``2 tiles - 1`` tiles, half a tile apart, each with a Hann window.

    A Hann window and its neighbours, half a window away, sum to 1, and each is close to 0 where it begins and ends.

    Args:
        length: Tokens of a tile along the axis.
        tiles: Tiles of the whole axis, side by side.

    Returns:
        Shares ``(2 tiles - 1, tiles * length)``, 0 outside each tile, columns summing to 1.
    """
    window = torch.sin((torch.arange(length) + 0.5) * math.pi / length).square()
    shares = torch.zeros(2 * tiles - 1, tiles * length)
    for index, share in enumerate(shares):
        share[_start(length, index) :][:length] = window
    return shares / shares.sum(dim=0)  # 1 already but for the borders and tiles of an odd length


def stitching_matrix(length: int, tiles: int) -> Tensor:
    """Sums the tiles of one axis, laid end to end, into the whole axis, each with its shares.

    Args:
        length: Tokens of a tile along the axis.
        tiles: Tiles of the whole axis, side by side.

    Returns:
        Matrix ``(tiles * length, (2 tiles - 1) * length)`` whose rows sum to 1.
    """
    shares = blend_weights(length, tiles)
    blocks = torch.zeros(tiles * length, 2 * tiles - 1, length)
    for index, share in enumerate(shares):
        own = slice(_start(length, index), _start(length, index) + length)
        blocks[own, index] = torch.diag(share[own])
    return blocks.flatten(1)


def predict_tiled(
    predict: Callable[[Tensor], tuple[Tensor, Tensor]],
    images: Tensor,
    grid: tuple[int, int],
    tiles: int,
) -> tuple[Tensor, Tensor]:
    """Predict large images with a model of small ones.

    Args:
        predict: From images ``(B, 3, H, W)`` to values on the token grid ``(B, rows, columns)`` and scores ``(B,)``.
        images: Images ``(B, 3, tiles H, tiles W)``.
        grid: Rows and columns of the model's token grid.
        tiles: How many times the model's size the images are.

    Returns:
        Stitched values ``(B, tiles rows, tiles columns)`` and the highest score of any tile ``(B,)``: a defect that one tile
        shows makes the image anomalous, however many others look normal.
    """
    side = 2 * tiles - 1
    cut = [_tile(images, grid, tiles, row, column) for row, column in product(range(side), repeat=2)]
    if torch.compiler.is_exporting():
        values, scores = predict(torch.cat(cut))
        values, scores = values.unflatten(0, (side * side, -1)), scores.unflatten(0, (side * side, -1))
    else:
        predicted = [predict(tile) for tile in cut]
        values, scores = (torch.stack(parts) for parts in zip(*predicted, strict=True))
    rows, columns = (stitching_matrix(length, tiles).to(values.device) for length in grid)
    # (tile row, tile column, B, rows, columns) to (B, tile row x rows, tile column x columns)
    laid_out = values.float().unflatten(0, (side, side)).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    return rows @ laid_out @ columns.T, scores.amax(dim=0)


def _tile(images: Tensor, grid: tuple[int, int], tiles: int, row: int, column: int) -> Tensor:
    """The part of images ``(B, 3, tiles H, tiles W)`` that a tile sees ``(B, 3, H, W)``: a view."""
    slices = []
    for length, pixels, index in zip(grid, images.shape[-2:], (row, column), strict=True):
        patch = pixels // (tiles * length)
        first = _start(length, index) * patch
        slices.append(slice(first, first + length * patch))
    return images[..., slices[0], slices[1]]


def _start(length: int, index: int) -> int:
    """First token of a tile: whole tokens, or patches would be cut differently in each tile."""
    return length * index // 2
