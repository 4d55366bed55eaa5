"""Overlapped tiling: a large image seen tile by tile in full detail, and stitched on the token grid without seams.

No part of DP-CLIP's paper, but an addition for small defects on large images.

anomalib's own `Tiler` serves models that tile their features (PatchCore, PaDiM); where tiles overlap it takes the plain
average, which jumps wherever a tile begins or ends, and it cuts a whole batch at once, which for large images is many times
the batch's memory. Here tiles fade out towards their borders, and one of each image is in memory at a time.
"""

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor


class Tile(NamedTuple):
    """Part of a token grid, as large as the model's own grid.

    Attributes:
        rows: Rows of the whole grid.
        columns: Columns of the whole grid.
        weight: Share of the tile in the stitched grid ``(rows, columns)``; the shares of all tiles sum to 1 everywhere.
    """

    rows: slice
    columns: slice
    weight: Tensor


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


def tile_grid(grid: tuple[int, int], tiles: int) -> Iterator[Tile]:
    """Tiles that cover a token grid of ``tiles`` times the model's rows and columns, row by row.

    Args:
        grid: Rows and columns of the model's token grid.
        tiles: How many of them are side by side along each axis.
    """
    row_shares, column_shares = (blend_weights(length, tiles) for length in grid)
    for row, column in product(range(2 * tiles - 1), repeat=2):
        rows, columns = (slice(_start(n, index), _start(n, index) + n) for n, index in zip(grid, (row, column), strict=True))
        yield Tile(rows, columns, torch.outer(row_shares[row, rows], column_shares[column, columns]))


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
    patch_height, patch_width = (side // (tiles * length) for side, length in zip(images.shape[-2:], grid, strict=True))
    stitched = images.new_zeros(images.shape[0], *(tiles * length for length in grid), dtype=torch.float32)
    scores = []
    for rows, columns, weight in tile_grid(grid, tiles):
        values, score = predict(images[..., _pixels(rows, patch_height), _pixels(columns, patch_width)])
        stitched[:, rows, columns] += weight.to(values.device) * values
        scores.append(score)
    return stitched, torch.stack(scores).amax(dim=0)


def _start(length: int, index: int) -> int:
    """First token of a tile: whole tokens, or patches would be cut differently in each tile."""
    return length * index // 2


def _pixels(tokens: slice, patch: int) -> slice:
    return slice(tokens.start * patch, tokens.stop * patch)
