"""The objects of the toy scenes: shapes as signed distances, painted with colour, markings, shading and a shadow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

REACH = 1.3  # the largest distance of a shape's outline from its centre, in radii
SHADOW_PX = 2  # how far a shadow falls, pixels
# All shapes have all markings: a marking does not identify a class.
MARKINGS = ("plain", "plain", "stripes", "checks", "spots")


@dataclass(frozen=True)
class Thing:
    """One object.

    Attributes:
        shape: key of `SHAPES`.
        center_xy: in pixels.
        radius_px: in pixels.
        turn: rotation in radians.
        slimness: in [0, 1]; 0 is the shape's widest form.
        color: (3,) float32 RGB, 0..255.
        mark_color: (3,) float32 RGB of the marking.
        marking: one of `MARKINGS`.
        light_xy: unit vector towards the light, y downwards.
    """

    shape: str
    center_xy: tuple[float, float]
    radius_px: float
    turn: float
    slimness: float
    color: Floats
    mark_color: Floats
    marking: str
    light_xy: tuple[float, float]


def paint(canvas: Floats, thing: Thing) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """Draw a thing in place.

    Args:
        canvas: (H, W, 3) float32 RGB.
        thing: what is drawn; pixels outside the image are skipped.

    Returns:
        The thing's window (rows, columns), empty if the thing is outside the image, and the mask in the window: pixels
        whose centre is inside the outline.
    """
    window, x, y = _local_grid(canvas.shape[:2], thing)
    cos, sin = np.float32(math.cos(thing.turn)), np.float32(math.sin(thing.turn))
    u, v = x * cos + y * sin, y * cos - x * sin
    distance = SHAPES[thing.shape](u, v, np.float32(thing.radius_px), np.float32(thing.slimness))
    alpha = np.clip(0.5 - distance, 0, 1)
    view = canvas[window]
    view *= (1 - 0.35 * _shadow(alpha, thing.light_xy))[..., None]
    marked = _marks(thing.marking, u, v, thing.radius_px)[..., None]
    surface = thing.color + marked * (thing.mark_color - thing.color)
    surface *= _shade(thing, x, y, u, v, distance)[..., None]
    view += alpha[..., None] * (surface - view)
    return window, distance < 0


def _local_grid(size_hw: tuple[int, ...], thing: Thing) -> tuple[tuple[slice, slice], Floats, Floats]:
    """The image's window around the thing; x (1, w) and y (h, 1) of its pixel centres, from the thing's centre."""
    reach = thing.radius_px * REACH + SHADOW_PX + 1
    spans = []
    for center, size in zip(reversed(thing.center_xy), size_hw, strict=True):
        spans.append((min(max(math.floor(center - reach), 0), size), min(max(math.ceil(center + reach), 0), size)))
    (top, bottom), (left, right) = spans
    x = np.arange(left, right, dtype=np.float32)[None, :] + np.float32(0.5 - thing.center_xy[0])
    y = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - thing.center_xy[1])
    return (slice(top, bottom), slice(left, right)), x, y


def _ball(u: Floats, v: Floats, radius: np.float32, slimness: np.float32) -> Floats:
    return np.sqrt(u * u + v * v) - radius


def _crate(u: Floats, v: Floats, radius: np.float32, slimness: np.float32) -> Floats:
    half_width, half_height = radius * np.float32(0.95), radius * (np.float32(0.9) - np.float32(0.3) * slimness)
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


def _star(u: Floats, v: Floats, radius: np.float32, slimness: np.float32) -> Floats:
    """A pentagram with cut tips: inside are pixels on the inner side of at least four of its five edge lines."""
    inner = radius * np.float32(REACH * (0.46 - 0.05 * float(slimness)))
    edges = [
        u * np.float32(math.cos(math.tau * k / 5)) + v * np.float32(math.sin(math.tau * k / 5)) - inner
        for k in range(5)
    ]
    second: Floats = np.sort(np.stack(edges), axis=0)[-2]
    return np.maximum(second, np.sqrt(u * u + v * v) - radius * np.float32(REACH))


def _leaf(u: Floats, v: Floats, radius: np.float32, slimness: np.float32) -> Floats:
    """A lens, the intersection of two discs, `half` long and `thin` wide to either side."""
    half, thin = radius * np.float32(REACH), radius * (np.float32(0.76) - np.float32(0.14) * slimness)
    bow = (half * half + thin * thin) / (2 * thin)
    return np.sqrt(u * u + (np.abs(v) + (bow - thin)) ** 2) - bow


def _cross(u: Floats, v: Floats, radius: np.float32, slimness: np.float32) -> Floats:
    arm, width = radius * np.float32(1.1), radius * (np.float32(0.42) - np.float32(0.1) * slimness)
    across = np.maximum(np.abs(u) - arm, np.abs(v) - width)
    return np.minimum(across, np.maximum(np.abs(v) - arm, np.abs(u) - width))


def _shadow(alpha: Floats, light_xy: tuple[float, float]) -> Floats:
    """The outline, moved away from the light; (h, w) in [0, 1]."""
    dx, dy = (-SHADOW_PX if toward > 0 else SHADOW_PX for toward in light_xy)
    shadow = np.zeros_like(alpha)
    height, width = alpha.shape
    shadow[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = alpha[
        max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)
    ]
    return shadow


def _marks(marking: str, u: Floats, v: Floats, radius: float) -> Floats:
    """(h, w) float32, 1 where the second colour shows."""
    pitch = np.float32(max(radius * 0.7, 3.0))
    first, second = (np.mod(axis, pitch) > pitch / 2 for axis in (u, v))
    if marking == "stripes":
        shown = first | np.zeros_like(second)
    elif marking == "checks":
        shown = first ^ second
    elif marking == "spots":
        shown = (np.mod(u, pitch) - pitch / 2) ** 2 + (np.mod(v, pitch) - pitch / 2) ** 2 < pitch * pitch / 10
    else:
        shown = np.zeros_like(first & second)
    return shown.astype(np.float32)


def _shade(thing: Thing, x: Floats, y: Floats, u: Floats, v: Floats, distance: Floats) -> Floats:
    """(h, w) float32 brightness: the lit side, the dark rim, and the relief of the shape."""
    radius = np.float32(thing.radius_px)
    light_x, light_y = (np.float32(part) for part in thing.light_xy)
    shade = 1 + np.float32(0.25) * (x * light_x + y * light_y) / radius
    if thing.shape == "ball":
        off_x, off_y = x - light_x * radius * np.float32(0.4), y - light_y * radius * np.float32(0.4)
        shade += np.maximum(np.float32(0.45) - (off_x * off_x + off_y * off_y) / (radius * radius), -0.5)
    elif thing.shape == "crate":
        brace = np.abs(np.abs(u) - np.abs(v)) < radius * np.float32(0.12)
        shade += np.float32(0.2) - np.float32(0.45) * (brace & (distance < radius * np.float32(-0.2)))
    elif thing.shape == "leaf":
        shade += np.float32(0.18) * np.sign(v) - np.float32(0.4) * (np.abs(v) < radius * np.float32(0.07))
    elif thing.shape == "star":
        shade += np.float32(0.35) - np.float32(0.5) * np.sqrt(u * u + v * v) / radius
    return np.maximum(shade, np.float32(0.25)) * (1 - np.float32(0.35) * (distance > -1.3))


SHAPES: dict[str, Callable[[Floats, Floats, np.float32, np.float32], Floats]] = {
    "ball": _ball,
    "crate": _crate,
    "star": _star,
    "leaf": _leaf,
    "cross": _cross,
}
