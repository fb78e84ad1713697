"""The backgrounds of the toy scenes: value noise, and one procedural texture for each kind of stuff.

The code uses only element-wise arithmetic on seeded uniform numbers: its results do not depend on threads or vector
width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# RGB, 0..255. The palettes overlap on purpose: classes of stuff differ by texture, not by colour.
PALETTES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "sky": ((112, 158, 215), (172, 182, 192), (214, 164, 124), (84, 98, 128), (150, 160, 120)),
    "grass": ((88, 132, 64), (160, 152, 88), (128, 106, 70), (80, 116, 112), (150, 160, 140)),
    "water": ((72, 116, 160), (92, 132, 124), (122, 126, 130), (150, 124, 94), (190, 160, 140)),
    "gravel": ((142, 136, 130), (154, 128, 98), (100, 106, 84), (112, 124, 138), (186, 170, 148)),
}
COLOR_JITTER = 16  # how far a base colour strays from its palette entry, in grey levels


def value_noise(rng: np.random.Generator, size_hw: tuple[int, int], cell_hw: tuple[float, float]) -> Floats:
    """Draw uniform random numbers on a lattice, interpolated linearly.

    Args:
        rng: source of random numbers.
        size_hw: height and width in pixels.
        cell_hw: distance of the lattice points in pixels.

    Returns:
        (H, W) float32 in [0, 1).
    """
    rows, columns = (int(size / cell) + 2 for size, cell in zip(size_hw, cell_hw, strict=True))
    lattice = rng.random((rows, columns), dtype=np.float32)
    y, x = (np.arange(size, dtype=np.float32) / np.float32(cell) for size, cell in zip(size_hw, cell_hw, strict=True))
    top, left = y.astype(np.int64), x.astype(np.int64)
    lines = lattice[top] + (lattice[top + 1] - lattice[top]) * (y - top.astype(np.float32))[:, None]
    return lines[:, left] + (lines[:, left + 1] - lines[:, left]) * (x - left.astype(np.float32))


def stuff_texture(rng: np.random.Generator, name: str, size_hw: tuple[int, int]) -> Floats:
    """Draw a kind of stuff over a whole image.

    Args:
        rng: source of random numbers.
        name: key of `PALETTES`.
        size_hw: height and width in pixels.

    Returns:
        (H, W, 3) float32 RGB, about 0..255.
    """
    first, second = rng.permutation(len(PALETTES[name]))[:2].tolist()
    jitter = rng.integers(-COLOR_JITTER, COLOR_JITTER + 1, size=(2, 3))
    base = np.array(PALETTES[name][first], dtype=np.float32) + jitter[0]
    other = (base + np.array(PALETTES[name][second], dtype=np.float32) + jitter[1]) / 2
    mix, light = _PATTERNS[name](rng, size_hw)
    color: Floats = base.astype(np.float32) + mix[..., None] * (other - base).astype(np.float32)
    return color * light[..., None]


def _sky(rng: np.random.Generator, size_hw: tuple[int, int]) -> tuple[Floats, Floats]:
    """A vertical gradient and soft clouds, almost without fine structure."""
    down: Floats = np.linspace(0, 1, size_hw[0], dtype=np.float32)[:, None]
    cloud: Floats = 0.7 * value_noise(rng, size_hw, (26, 44)) + 0.3 * value_noise(rng, size_hw, (11, 17))
    cover: Floats = np.clip((cloud - np.float32(rng.uniform(0.4, 0.6))) * 4, 0, 1)
    slope = np.float32(rng.uniform(-0.15, 0.3))
    return down + cloud * np.float32(0.5), 0.95 + slope * (down - 0.5) + np.float32(rng.uniform(0.0, 0.25)) * cover


def _grass(rng: np.random.Generator, size_hw: tuple[int, int]) -> tuple[Floats, Floats]:
    """Upright blades: narrow, tall streaks over wide patches."""
    blades = value_noise(rng, size_hw, (rng.uniform(6, 10), 1.6))
    return value_noise(rng, size_hw, (22, 30)), _contrast(rng) * (blades - 0.5) + 1


def _water(rng: np.random.Generator, size_hw: tuple[int, int]) -> tuple[Floats, Floats]:
    """Level ripples: flat, wide streaks with glints."""
    ripples = value_noise(rng, size_hw, (rng.uniform(2, 3), rng.uniform(14, 22)))
    glints: Floats = np.clip((ripples - 0.8) * 4, 0, 1)
    return value_noise(rng, size_hw, (18, 60)), _contrast(rng) * (ripples - 0.5) + 1 + 0.3 * glints


def _gravel(rng: np.random.Generator, size_hw: tuple[int, int]) -> tuple[Floats, Floats]:
    """Pebbles: rounded patches of uneven brightness in dark joints, the same in every direction."""
    gap, tone = _pebbles(rng, size_hw, rng.uniform(5.5, 8.0))
    domed = np.minimum(gap * 2, 1) - np.float32(0.75)
    return tone, _contrast(rng) * (domed + tone - 0.5) + 1


def _pebbles(rng: np.random.Generator, size_hw: tuple[int, int], cell: float) -> tuple[Floats, Floats]:
    """A mosaic around one point per cell (Worley 1996): F2 - F1, 0 in the joints, and each patch's tone in [0, 1)."""
    y, x = (np.arange(size, dtype=np.float32) / np.float32(cell) + 1 for size in size_hw)
    row, column = y.astype(np.int64)[:, None], x.astype(np.int64)[None, :]
    points = rng.random((3, int(row[-1, 0]) + 2, int(column[0, -1]) + 2), dtype=np.float32)
    nearest = np.full(size_hw, 9, dtype=np.float32)
    second, tone = nearest.copy(), np.zeros(size_hw, dtype=np.float32)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            off_y, off_x, point_tone = points[:, row + down, column + right]
            off_y = off_y + ((row + down).astype(np.float32) - y[:, None])
            off_x = off_x + ((column + right).astype(np.float32) - x[None, :])
            distance = off_y * off_y + off_x * off_x
            second = np.minimum(second, np.maximum(nearest, distance))
            np.copyto(tone, point_tone, where=distance < nearest)
            nearest = np.minimum(nearest, distance)
    return np.sqrt(second) - np.sqrt(nearest), tone


def _contrast(rng: np.random.Generator) -> np.float32:
    return np.float32(rng.uniform(0.4, 0.75))


_PATTERNS: dict[str, Callable[[np.random.Generator, tuple[int, int]], tuple[Floats, Floats]]] = {
    "sky": _sky,
    "grass": _grass,
    "water": _water,
    "gravel": _gravel,
}
