"""Five kinds of defect, to be seen at a glance, drawn into a surface with exact masks."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anomalib_dpclip.data.surfaces.textures import COLORS, Field

Mask = NDArray[np.bool_]

MIN_EXTENT = 4
"""Pixels; anything smaller might fall between them."""


def _blob(size: int, extent: float, rng: np.random.Generator, elongation: float = 1.0) -> Mask:
    """Draw a filled outline: an ellipse ``extent`` pixels across, its radius waved a little."""
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:size, :size] - _place(size, extent, rng)[:, None, None]
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    direction = np.arctan2(across, along)
    wave = sum(rng.uniform(0, 0.12) * np.cos(k * direction + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5))
    return np.hypot(along / elongation**0.5, across * elongation**0.5) < extent / 2 * (1 + wave)


def _line(size: int, points: Field, width: float) -> Mask:
    """Draw a polyline of a given width through ``points``, (N, 2) as row and column."""
    steps = np.linspace(0, 1, int(np.abs(np.diff(points, axis=0)).max()) + 2)[:, None, None]
    dense = (points[:-1] + steps * np.diff(points, axis=0)).reshape(-1, 2).round().astype(int)
    dense = dense[((dense >= 0) & (dense < size)).all(axis=1)]
    empty = np.ones((size, size), dtype=bool)
    empty[dense[:, 0], dense[:, 1]] = False
    return ndimage.distance_transform_edt(empty) <= width / 2


def _place(size: int, extent: float, rng: np.random.Generator) -> Field:
    """Choose a centre, as row and column, that keeps something ``extent`` pixels across inside the image."""
    margin = min(extent / 2, size / 2)
    return rng.uniform(margin, size - margin, 2)


def _contrasting_grey(ground: Field) -> float:
    """Choose the grey, near black or near white, that is further from the ground, (N, 3)."""
    return 0.06 if ground.mean() > 0.4 else 0.95


def _scratch(image: Field, extent: float, rng: np.random.Generator) -> tuple[Field, Mask]:
    size = len(image)
    angle = rng.uniform(0, 2 * np.pi)
    along = np.array([np.sin(angle), np.cos(angle)])
    across = along[::-1] * [1, -1]
    t = np.linspace(-1, 1, 9)[:, None]
    bow = rng.uniform(-0.3, 0.3) * extent
    points = _place(size, 2 * extent, rng) + rng.uniform(0.7, 1.1) * extent * t * along + bow * (1 - t**2) * across
    mask = _line(size, points, extent * rng.uniform(0.11, 0.16))
    return np.full_like(image, _contrasting_grey(image[mask])), mask


def _crack(image: Field, extent: float, rng: np.random.Generator) -> tuple[Field, Mask]:
    size = len(image)
    start = _place(size, 1.4 * extent, rng)
    width = extent * rng.uniform(0.10, 0.14)
    angle = rng.uniform(0, 2 * np.pi)
    mask = np.zeros((size, size), dtype=bool)
    for turn in (0, np.pi * rng.uniform(0.8, 1.2), rng.uniform(0.8, 2.2)):
        steps = angle + turn + rng.normal(0, 0.6, 5)
        path = np.cumsum(np.stack([np.sin(steps), np.cos(steps)], axis=1) * extent * 0.18, axis=0)
        mask |= _line(size, start + np.vstack([[0, 0], path]), width)
    return np.full_like(image, _contrasting_grey(image[mask])), mask


def _hole(image: Field, extent: float, rng: np.random.Generator) -> tuple[Field, Mask]:
    mask = _blob(len(image), extent * rng.uniform(0.8, 1.05), rng)
    grey = _contrasting_grey(image[mask])
    # The rim is lit half-way between ground and depth.
    depth = np.clip(ndimage.distance_transform_edt(mask) / 3, 0.5, 1)[..., None]
    return depth * grey + (1 - depth) * image, mask


def _stain(image: Field, extent: float, rng: np.random.Generator) -> tuple[Field, Mask]:
    mask = _blob(len(image), extent * rng.uniform(0.8, 1.1), rng, elongation=rng.uniform(1, 1.6))
    inks = np.array(list(COLORS.values()))
    distance = np.linalg.norm(inks - image[mask].mean(axis=0), axis=1)
    ink = inks[rng.choice(np.flatnonzero(distance > np.median(distance)))]
    opacity = rng.uniform(0.7, 0.9)
    return opacity * ink + (1 - opacity) * image, mask


def _smear(image: Field, extent: float, rng: np.random.Generator) -> tuple[Field, Mask]:
    mask = _blob(len(image), extent, rng, elongation=rng.uniform(1.5, 2.5))
    blurred = ndimage.gaussian_filter(image, (extent / 6, extent / 6, 0))
    film = rng.uniform(0.45, 0.6)  # a greasy film hides the grain and shifts the tone
    return film * _contrasting_grey(image[mask]) + (1 - film) * blurred, mask


_DEFECTS = {"scratch": _scratch, "hole": _hole, "stain": _stain, "crack": _crack, "smear": _smear}

DEFECTS = tuple(_DEFECTS)


def damage_surface(image: Field, defect: str, extent: float, rng: np.random.Generator) -> tuple[Field, Mask]:
    """Draw one of `DEFECTS` into a copy of an image, RGB (H, W, 3) in [0, 1]; outside the mask (H, W) nothing changes.

    The extent, at least `MIN_EXTENT` pixels, is about the diameter of a blob, or half the length of a scratch; place, shape and
    shade are drawn from ``rng``.
    """
    drawn, mask = _DEFECTS[defect](image, extent, rng)
    return np.where(mask[..., None], np.clip(drawn, 0, 1), image), mask
