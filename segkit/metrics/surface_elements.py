"""Surfaces of voxel masks as elements with areas, and how much of two surfaces is within a distance of each other.

As Nikolov et al. 2018, "Deep learning to achieve clinically applicable segmentation of head and neck anatomy for
radiotherapy", section 4.3, and their package `surface_distance`: the surface goes through the points between voxels
whose 2 x 2 x 2 neighbours are not all equal; marching cubes gives the area of the surface at each point.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.utils.errors import ConfigError

Mask = NDArray[np.bool_]
Point = tuple[int, ...]
CORNERS: tuple[Point, ...] = tuple(itertools.product((0, 1), repeat=3))  # bit k of a code is CORNERS[k]
CODES = 1 << len(CORNERS)
FULL = CODES - 1
FACE_CYCLE = ((0, 0), (0, 1), (1, 1), (1, 0))


class SurfaceOverlap(NamedTuple):
    """Areas of two surfaces.

    Attributes:
        gt_mm2: Area of the ground truth's surface.
        pred_mm2: Area of the prediction's surface.
        gt_within_mm2: The part of `gt_mm2` within the tolerance of the prediction's surface.
        pred_within_mm2: The part of `pred_mm2` within the tolerance of the ground truth's surface.
    """

    gt_mm2: float
    pred_mm2: float
    gt_within_mm2: float
    pred_within_mm2: float


def compute_surface_overlap(
    ground_truth: Mask, prediction: Mask, spacing_mm: Sequence[float], tolerance_mm: float
) -> SurfaceOverlap:
    """Measure which part of each surface is within a distance of the other.

    Outside of the volume there is nothing, so that a mask at the border has a surface there. The work is done in the
    bounding box of both masks, with about 20 bytes of memory per voxel of the box.

    Args:
        ground_truth: (X, Y, Z) bool.
        prediction: (X, Y, Z) bool.
        spacing_mm: Three edge lengths of a voxel in mm, above 0.
        tolerance_mm: The distance in mm, at least 0; a distance equal to it is within.

    Returns:
        The areas; 0 of an empty mask, and no part of a surface is within a distance of an empty mask.

    Raises:
        ConfigError: scipy is not installed.
    """
    box = find_box(ground_truth, prediction)
    if box is None:
        return SurfaceOverlap(0.0, 0.0, 0.0, 0.0)
    areas = compute_element_areas(spacing_mm)
    surfaces = [_compute_codes(mask[box]) for mask in (ground_truth, prediction)]
    totals, parts = [], []
    for own, other in (surfaces, surfaces[::-1]):
        points = np.nonzero(_is_surface(own))
        codes = own[points]
        distances = _compute_distances(points, _is_surface(other), spacing_mm)
        # Numbers of equal elements times their area: equal surfaces have equal areas to the last bit.
        totals.append(float(np.bincount(codes, minlength=CODES) @ areas))
        parts.append(float(np.bincount(codes[distances <= tolerance_mm], minlength=CODES) @ areas))
    return SurfaceOverlap(*totals, *parts)


def import_distance_transform() -> Any:
    """Import scipy's distance transform, which NSD needs; call it before long work.

    Returns:
        `scipy.ndimage.distance_transform_edt`.

    Raises:
        ConfigError: scipy is not installed.
    """
    try:
        from scipy.ndimage import distance_transform_edt
    except ImportError:
        problem = "NSD needs the extra 'classical' (scipy is not installed)"
        raise ConfigError(problem, remedy="pip install 'segkit[classical]'") from None
    return distance_transform_edt


def find_box(*masks: NDArray[Any]) -> tuple[slice, ...] | None:
    """Find the bounding box of everything that is not 0.

    Args:
        masks: (X, Y, Z) arrays of one shape.

    Returns:
        A slice per axis, None if all masks are 0 everywhere.
    """
    box = []
    for axis in range(masks[0].ndim):
        others = tuple(other for other in range(masks[0].ndim) if other != axis)
        filled = np.flatnonzero(np.any([mask.any(axis=others) for mask in masks], axis=0))
        if not len(filled):
            return None
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def compute_element_areas(spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Compute the area of the surface between eight voxels, for each way in which a mask can hold some of them.

    Args:
        spacing_mm: Three edge lengths of a voxel in mm.

    Returns:
        (256,) float64 in mm2 by code: bit k is 1 if the mask holds the voxel at `CORNERS[k]`.
    """
    x, y, z = spacing_mm
    scale = np.array([y * z, x * z, x * y])
    return np.array([np.linalg.norm(normals * scale, axis=1).sum() for normals in _list_normals()])


def _compute_codes(mask: Mask) -> NDArray[np.uint8]:
    """(X + 1, Y + 1, Z + 1): the code of the eight voxels around each corner of a voxel."""
    padded = np.pad(mask, 1)
    codes = np.zeros([size + 1 for size in mask.shape], dtype=np.uint8)
    for bit, corner in enumerate(CORNERS):
        window = tuple(slice(start, start + size) for start, size in zip(corner, codes.shape, strict=True))
        codes |= padded[window].astype(np.uint8) << np.uint8(bit)
    return codes


def _is_surface(codes: NDArray[np.uint8]) -> Mask:
    is_surface: Mask = (codes != 0) & (codes != FULL)
    return is_surface


def _compute_distances(
    points: Sequence[NDArray[np.int64]], surface: Mask, spacing_mm: Sequence[float]
) -> NDArray[np.float64]:
    """(N,) in mm from each of N points, given by their indices on three axes, to the surface; inf if it is empty."""
    distance_transform_edt = import_distance_transform()
    if not surface.any():
        return np.full(len(points[0]), math.inf)
    # The indices take 12 bytes per voxel; with its distances scipy takes 60.
    nearest = distance_transform_edt(~surface, sampling=spacing_mm, return_distances=False, return_indices=True)
    squares = np.zeros(len(points[0]))
    for axis, spacing in enumerate(spacing_mm):
        squares += ((nearest[axis][tuple(points)] - points[axis]) * float(spacing)) ** 2
    distances: NDArray[np.float64] = np.sqrt(squares)
    return distances


@cache
def _list_normals() -> list[NDArray[np.float64]]:
    """By code: (T, 3), normals of the triangles of a cube of side 1, as long as their areas."""
    return [_triangulate(code) for code in range(CODES)]


def _triangulate(code: int) -> NDArray[np.float64]:
    """The triangles that cut the smaller set of corners off.

    A polygon becomes triangles that share a vertex, the one that gives the largest area: so does `surface_distance`.
    """
    inside = {corner for bit, corner in enumerate(CORNERS) if code >> bit & 1}
    if len(inside) > len(CORNERS) // 2:
        inside = {*CORNERS} - inside
    normals = [np.zeros((0, 3))]
    for polygon in _cut_off(inside):
        fans = []
        for first in range(len(polygon)):
            rays = np.roll(polygon, -first, axis=0)[1:] - polygon[first]
            fans.append(np.cross(rays[:-1], rays[1:]) / 2)
        normals.append(max(fans, key=lambda fan: float(np.linalg.norm(fan, axis=1).sum())))
    return np.concatenate(normals)


def _cut_off(inside: set[Point]) -> list[NDArray[np.float64]]:
    """Polygons (N, 3) of edge midpoints that separate corners from the others; diagonal corners of a face are apart."""
    links: dict[Point, list[Point]] = {}
    for axis, side in itertools.product(range(3), (0, 1)):
        face = [(*place[:axis], side, *place[axis:]) for place in FACE_CYCLE]
        for first in range(len(face)):
            if face[first] in inside and face[first - 1] not in inside:
                last = first
                while face[(last + 1) % len(face)] in inside:
                    last += 1
                begin = _add(face[first - 1], face[first])
                end = _add(face[last % len(face)], face[(last + 1) % len(face)])
                links.setdefault(begin, []).append(end)
                links.setdefault(end, []).append(begin)
    polygons = []
    while links:
        point: Point | None = next(iter(links))
        polygon = []
        while point is not None:
            polygon.append(point)
            point = next((neighbour for neighbour in links.pop(point) if neighbour in links), None)
        polygons.append(np.array(polygon) / 2)
    return polygons


def _add(first: Point, second: Point) -> Point:
    """Twice the midpoint of two corners."""
    return tuple(a + b for a, b in zip(first, second, strict=True))
