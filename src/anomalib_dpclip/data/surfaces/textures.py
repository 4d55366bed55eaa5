"""Procedural surfaces: ten materials in ten colours, at any size.

A material is a function that draws a *tone* field, (H, W) in [0, 1], 0 for its gaps and shadows and 1 for its raised or
lit parts. `render_surface` colours it and lights it. Feature sizes are in pixels, so a larger image shows more of the
same surface.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.float64]


def _grid(size: int, rng: np.random.Generator, tilt: float) -> tuple[Field, Field]:
    """Draw pixel coordinates (u, v), turned by up to ``tilt`` radians and shifted, so that no two surfaces align."""
    angle = rng.uniform(-tilt, tilt)
    v, u = np.mgrid[:size, :size].astype(float)
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * u + sin * v + rng.uniform(0, 50), cos * v - sin * u + rng.uniform(0, 50)


def _noise(size: int, rng: np.random.Generator, sigma: float | tuple[float, float]) -> Field:
    """Draw smoothed white noise of zero mean and unit deviation."""
    field = ndimage.gaussian_filter(rng.standard_normal((size, size)), sigma, mode="wrap", truncate=3)
    return (field - field.mean()) / field.std()


def _edge(distance: Field) -> Field:
    """Turn a signed distance in pixels into coverage in [0, 1]: one pixel of antialiasing."""
    return np.clip(distance + 0.5, 0, 1)


def _to_nearest_line(coordinate: Field, period: float) -> Field:
    """Measure the distance in pixels to the nearest multiple of ``period``."""
    return np.abs((coordinate + period / 2) % period - period / 2)


def _stripes(size: int, rng: np.random.Generator) -> Field:
    u, _ = _grid(size, rng, tilt=np.pi / 2)
    period = rng.uniform(12, 22)
    return 0.25 + 0.75 * _edge(_to_nearest_line(u, period) - period / 4)


def _checkerboard(size: int, rng: np.random.Generator) -> Field:
    u, v = _grid(size, rng, tilt=0.2)
    side = rng.uniform(10, 18)
    even = (np.floor(u / side) + np.floor(v / side)) % 2 == 0
    return np.where(even, 0.9, 0.35)


def _dots(size: int, rng: np.random.Generator) -> Field:
    u, v = _grid(size, rng, tilt=0.4)
    period = rng.uniform(13, 20)
    to_centre = np.hypot(_to_nearest_line(u, period), _to_nearest_line(v, period))
    return 0.85 - 0.55 * _edge(period * rng.uniform(0.25, 0.35) - to_centre)


def _weave(size: int, rng: np.random.Generator) -> Field:
    u, v = _grid(size, rng, tilt=0.3)
    period = rng.uniform(10, 16)
    column, row = np.floor(u / period), np.floor(v / period)
    warp_is_above = (column + row) % 2 == 0
    across = np.where(warp_is_above, u, v) % period / period
    return np.sin(np.pi * across) * np.where(warp_is_above, 1.0, 0.75)


def _mesh(size: int, rng: np.random.Generator) -> Field:
    u, v = _grid(size, rng, tilt=0.5)
    period = rng.uniform(12, 18)
    wire = rng.uniform(2, 3)
    return 0.15 + 0.8 * _edge(wire - np.minimum(_to_nearest_line(u, period), _to_nearest_line(v, period)))


def _concrete(size: int, rng: np.random.Generator) -> Field:
    pores = _noise(size, rng, 1) > 2.4  # 0.8 % of a normal distribution
    return np.where(pores, 0.3, 0.65 + 0.08 * _noise(size, rng, 8) + 0.05 * rng.standard_normal((size, size)))


def _wood(size: int, rng: np.random.Generator) -> Field:
    u, v = _grid(size, rng, tilt=0.3)
    period = rng.uniform(9, 16)
    bend = 6 * _noise(size, rng, 20)
    fibres = 0.06 * _noise(size, rng, (8, 0.7))
    return 0.62 + 0.2 * np.sin(2 * np.pi * (u + 0.1 * v + bend) / period) + fibres


def _leather(size: int, rng: np.random.Generator) -> Field:
    # Creases run where band-passed noise crosses zero.
    return 0.8 - 0.5 * np.exp(-((_noise(size, rng, 2.5) / 0.25) ** 2)) + 0.05 * _noise(size, rng, 1)


def _brushed_metal(size: int, rng: np.random.Generator) -> Field:
    streaks = 0.09 * _noise(size, rng, (0.6, 25)) + 0.06 * _noise(size, rng, (4, 40))
    sheen = 0.12 * np.sin(np.linspace(0, np.pi, size) + rng.uniform(0, np.pi))
    field = 0.7 + streaks + sheen[:, None]
    return field.T if rng.random() < 0.5 else field


def _brick(size: int, rng: np.random.Generator) -> Field:
    u, v = _grid(size, rng, tilt=0.08)
    height = rng.uniform(18, 26)
    width = 2 * height
    row = np.floor(v / height).astype(int)
    shifted = u + row % 2 * width / 2
    column = np.floor(shifted / width).astype(int)
    shade = rng.uniform(0.55, 0.8, (64, 64))[row % 64, column % 64]
    to_mortar = np.minimum(_to_nearest_line(shifted, width), _to_nearest_line(v, height))
    brick = _edge(to_mortar - 2)
    return brick * shade + (1 - brick) + 0.04 * _noise(size, rng, 1)


_DRAWN = (_stripes, _checkerboard, _dots, _weave, _mesh, _concrete, _wood, _leather, _brushed_metal, _brick)
_TONES = {function.__name__.strip("_").replace("_", " "): function for function in _DRAWN}

MATERIALS = tuple(_TONES)

COLORS = {
    "red": (0.80, 0.16, 0.14),
    "orange": (0.92, 0.52, 0.12),
    "yellow": (0.93, 0.85, 0.25),
    "green": (0.20, 0.62, 0.25),
    "blue": (0.18, 0.32, 0.80),
    "purple": (0.52, 0.22, 0.68),
    "brown": (0.50, 0.32, 0.18),
    "grey": (0.55, 0.55, 0.55),
    "white": (0.95, 0.95, 0.93),
    "black": (0.20, 0.20, 0.21),
}


def render_surface(material: str, color: str, size: int, rng: np.random.Generator) -> Field:
    """Draw a clean surface of one of `MATERIALS` and `COLORS`: an RGB image (size, size, 3) in [0, 1].

    Shape, shade and light are drawn from ``rng``.
    """
    lit = np.clip(np.asarray(COLORS[color]) + rng.normal(0, 0.03, 3), 0.05, 1)
    tone = np.clip(_TONES[material](size, rng), 0, 1)[..., None]
    towards = rng.uniform(0, 2 * np.pi)
    ramp = np.linspace(-0.5, 0.5, size)
    light = 1 + 0.15 * (np.cos(towards) * ramp[None, :] + np.sin(towards) * ramp[:, None])
    return np.clip(lit * (0.3 + 0.7 * tone) * light[..., None], 0, 1)
