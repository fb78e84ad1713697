"""Colours and names of classes as overlays draw them: told apart by eye. Files keep the dataset's colours and names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.structures import Category, CategorySet, Segment

Color: TypeAlias = tuple[int, int, int]  # RGB, 0..255

BACKGROUND_NAMES = frozenset({"background", "unlabelled", "unlabeled"})  # drawn as the image is, in any case of letters
NAME_SUFFIXES = re.compile(r"(?:-(?:merged|other|stuff))+$")  # of COCO's panoptic classes: wall-other-merged
MAX_DISTANCE = 30.0  # that two classes of stuff must have (CIE Lab)
CROWDED_DISTANCE = 110.0  # the same times the square root of the number of classes, since the space of colours is full
THING_SHARE = 0.5  # of it for things, which have outlines and names too
LIGHTNESS_WEIGHT = 0.5  # the lightness of the image shows through the colours
POOL_LEVELS = (0, 36, 72, 109, 145, 182, 218, 255)  # of each channel of the colours that replace others
POOL_LIGHTNESS = (50.0, 90.0)
POOL_CHROMA = 32.0  # least; greyer colours look like an image without overlay
SPREAD = 64  # largest distance of a channel from the colour of its class (panopticapi's IdGenerator: 30)
R3_STEPS = (0.8191725134, 0.6710436067, 0.5497004779)  # of Roberts' R3 sequence: neighbours differ most
GOLDEN_ANGLE = 2.399963  # radians
MAX_NEIGHBOURS = 2000  # instances of one class in an image; of more, neighbours are not looked at
CHOICES = 6  # colours among which an instance takes the one that differs most from its neighbours


def is_background(category: Category) -> bool:
    """Say whether a class means "nothing is here": stuff of one of `BACKGROUND_NAMES`, which is not coloured.

    Args:
        category: The class.

    Returns:
        True for background.
    """
    return not category.isthing and category.name.strip().casefold() in BACKGROUND_NAMES


def list_shown_names(categories: CategorySet) -> dict[int, str]:
    """Shorten the names of COCO's panoptic classes: "wall-other-merged" becomes "wall".

    Args:
        categories: The classes.

    Returns:
        category_id -> name. A name stays whole if another class has, or would get, the short one.
    """
    short = {c.category_id: NAME_SUFFIXES.sub("", c.name) or c.name for c in categories.categories}
    uses = Counter(short.values())
    return {
        c.category_id: short[c.category_id] if uses[short[c.category_id]] == 1 else c.name
        for c in categories.categories
    }


def list_drawn_colors(categories: CategorySet, category_ids: Collection[int] | None = None) -> dict[int, Color]:
    """Choose the colours of the classes: their own, unless another class has nearly the same.

    Things choose first, then stuff, each by category_id. A class whose colour is too close to one that is taken gets
    the most similar colour that is not. The fewer classes there are, the more they must differ.

    Args:
        categories: The classes of the dataset.
        category_ids: Those that are drawn together; None for all.

    Returns:
        category_id -> RGB of these classes; always the same for them.
    """
    classes = [
        c for c in (*categories.things, *categories.stuff) if category_ids is None or c.category_id in category_ids
    ]
    drawn = [c for c in classes if not is_background(c)]
    colors = _separate(tuple((c.color, not c.isthing) for c in drawn))
    return {c.category_id: color for c, color in zip(drawn, colors, strict=True)}


def choose_colors(segments: Iterable[Segment], categories: CategorySet) -> dict[int, Color]:
    """Choose the colours of the classes that segments have, for images that are shown together.

    Args:
        segments: With category ids of `categories`.
        categories: The classes.

    Returns:
        category_id -> RGB, see `list_drawn_colors`.
    """
    return list_drawn_colors(categories, {segment.category_id for segment in segments})


@lru_cache(maxsize=32)
def _separate(classes: tuple[tuple[Color, bool], ...]) -> tuple[Color, ...]:
    """The colours of the classes (colour, is stuff), in their order."""
    counts = Counter(isstuff for _, isstuff in classes)
    wanted = {isstuff: min(MAX_DISTANCE, CROWDED_DISTANCE / count**0.5) for isstuff, count in counts.items()}
    pool_rgb, pool_lab = _build_pool()
    taken_lab: list[NDArray[np.float32]] = []
    drawn = []
    for index, (own_color, isstuff) in enumerate(classes):
        own_lab = to_lab([own_color])
        candidates_lab = np.concatenate([own_lab, pool_lab])
        room = np.full(len(candidates_lab), np.inf)  # distance to a taken colour / wanted distance, the smallest
        for lab, (_, is_other_stuff) in zip(taken_lab, classes[:index], strict=True):
            least = min(wanted[isstuff], wanted[is_other_stuff]) * (1 if isstuff and is_other_stuff else THING_SHARE)
            room = np.minimum(room, measure_distances(candidates_lab, lab) / least)
        cost = np.where(room >= 1, measure_distances(candidates_lab, own_lab[0]), np.inf)
        best = int(cost.argmin() if np.isfinite(cost).any() else room.argmax())
        taken_lab.append(candidates_lab[best])
        drawn.append(tuple(pool_rgb[best - 1].tolist()) if best else own_color)
    return tuple(drawn)


@lru_cache(maxsize=1)
def _build_pool() -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    rgb = np.stack(np.meshgrid(*[POOL_LEVELS] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = to_lab(rgb)
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    is_usable = (lightness >= POOL_LIGHTNESS[0]) & (lightness <= POOL_LIGHTNESS[1]) & (chroma >= POOL_CHROMA)
    return rgb[is_usable], lab[is_usable]


def measure_distances(colors_lab: NDArray[np.float32], color_lab: NDArray[np.float32]) -> NDArray[np.float32]:
    """Measure how far colours are from one colour; lightness counts by `LIGHTNESS_WEIGHT`.

    Args:
        colors_lab: (N, 3) CIE Lab.
        color_lab: (3,) CIE Lab.

    Returns:
        (N,) distances.
    """
    weights = np.array([LIGHTNESS_WEIGHT, 1, 1], dtype=np.float32)
    distances: NDArray[np.float32] = np.linalg.norm((colors_lab - color_lab) * weights, axis=1)
    return distances


def to_lab(colors: Sequence[Color] | NDArray[np.integer]) -> NDArray[np.float32]:
    """Convert colours to CIE Lab, where distances are about as large as the eye sees them.

    Args:
        colors: (N, 3) RGB, 0..255.

    Returns:
        (N, 3) float32: lightness 0..100, a, b.
    """
    rgb = np.asarray(colors, dtype=np.float32).reshape(1, -1, 3) / 255
    lab: NDArray[np.float32] = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0]
    return lab


def _to_rgb(lab: NDArray[np.float32]) -> NDArray[np.int64]:
    rgb = cv2.cvtColor(lab.astype(np.float32).reshape(1, -1, 3), cv2.COLOR_LAB2RGB)[0]
    colors: NDArray[np.int64] = np.rint(np.clip(rgb, 0, 1) * 255).astype(np.int64)
    return colors


def choose_instance_colors(base: Color, windows: Sequence[tuple[slice, slice]], all_hues: bool = False) -> list[Color]:
    """Choose a colour for each instance of one class: neighbours differ.

    The first instance has the colour of the class. Each further one takes, of the next `CHOICES` colours of a sequence
    around it, the one that differs most from the instances whose boxes touch its own.

    Args:
        base: RGB of the class.
        windows: Rows and columns of each instance's box.
        all_hues: Whether the colours may have any hue, for an image of a single class.

    Returns:
        One RGB per instance, all different for up to some hundred instances.
    """
    count = len(windows)
    if count > MAX_NEIGHBOURS:
        return (_list_hues if all_hues else _list_shades)(base, count)
    shades = (_list_hues if all_hues else _list_shades)(base, count + CHOICES)
    shades_lab = to_lab(shades)
    touches = _find_touching(windows)
    unused, chosen = list(range(len(shades))), np.empty(count, dtype=np.int64)
    for index in range(count):
        neighbours = shades_lab[chosen[:index][touches[index, :index]]]
        choices = unused[:CHOICES] if len(neighbours) else unused[:1]
        gaps = (
            [np.inf]
            if not len(neighbours)
            else [float(measure_distances(neighbours, shades_lab[c]).min()) for c in choices]
        )
        chosen[index] = unused.pop(int(np.argmax(gaps)))
    return [shades[i] for i in chosen]


def choose_nth_color(base: Color, index: int, all_hues: bool = False) -> Color:
    """Choose the colour of one instance of a class without the others, for a video in which it keeps its colour.

    Args:
        base: RGB of the class.
        index: Of the instance in its class, from 0, which has the colour of the class.
        all_hues: As `choose_instance_colors` takes it.

    Returns:
        RGB.
    """
    return (_list_hues if all_hues else _list_shades)(base, index + 1)[index]


def _list_shades(base: Color, count: int) -> list[Color]:
    """The colour itself, then similar ones, mirrored into 0..255."""
    ordinals = np.arange(count)[:, None]
    shifts = np.rint((2 * ((0.5 + ordinals * np.array(R3_STEPS)) % 1.0) - 1) * SPREAD)
    mirrored = 255 - np.abs(255 - np.abs(base + shifts))
    return [tuple(color) for color in mirrored.astype(int).tolist()]


def _list_hues(base: Color, count: int) -> list[Color]:
    """The colour itself, then strong ones at golden angles, in three lightnesses."""
    _, a, b = to_lab([base])[0].tolist()
    angles = np.arctan2(b, a) + np.arange(1, count) * GOLDEN_ANGLE
    chroma = max(float(np.hypot(a, b)), 60.0)
    levels = np.array([68.0, 50.0, 84.0])[np.arange(1, count) % 3]
    lab = np.stack([levels, chroma * np.cos(angles), chroma * np.sin(angles)], axis=1)
    return [base, *(tuple(color) for color in _to_rgb(lab).tolist())]


def _find_touching(windows: Sequence[tuple[slice, slice]]) -> NDArray[np.bool_]:
    """(N, N): whether two boxes overlap or are next to each other."""
    edges = [(rows.start, columns.start, rows.stop + 1, columns.stop + 1) for rows, columns in windows]
    starts, stops = np.hsplit(np.array(edges, dtype=np.int64).reshape(-1, 4), 2)
    return np.asarray(np.logical_and(starts[:, None] < stops, starts < stops[:, None]).all(axis=2))
