"""One toy scene: a small landscape with objects, drawn together with its panoptic ground truth."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segkit.data.toy.shapes import MARKINGS, Floats, Thing, paint
from segkit.data.toy.textures import stuff_texture, value_noise
from segkit.structures import MAX_SEGMENT_ID, VOID, Category, CategorySet, PanopticSegmentation, Segment

# Ids with gaps, as in COCO: code that takes a category_id for a contiguous id fails.
CATEGORIES = CategorySet(
    [
        Category(1, "ball", True, (220, 60, 60)),
        Category(3, "crate", True, (235, 170, 40)),
        Category(4, "star", True, (250, 230, 90)),
        Category(18, "leaf", True, (110, 200, 60)),
        Category(92, "grass", False, (40, 120, 60)),
        Category(119, "gravel", False, (150, 140, 130)),
        Category(155, "water", False, (60, 110, 190)),
        Category(199, "sky", False, (160, 210, 245)),
    ]
)
MOST_TURN = {"crate": 0.6}  # radians; crates are nearly upright, other things have any turn
UNKNOWN_SHAPE = "cross"  # belongs to no category: its pixels are void

MIN_SIZE_PX = 32  # of either side of a scene
MAX_THINGS = 8
THINGS_SHARES = (0.16, 0.19, 0.19, 0.16, 0.12, 0.08, 0.06, 0.04)  # of the scenes with 1, 2, ... things
MIN_THING_PX = 80  # a thing with fewer visible pixels becomes void
MIN_STUFF_SHARE = 0.01  # of the image: stuff with a lower visible share becomes void
MIN_REGION_SHARE = 0.08  # of the image: the lowest share of a background region at its start

SKY_CHANCE = 0.75
# The usual colour of each class; other things have any colour.
USUAL_COLORS = {"ball": (205, 70, 75), "crate": (165, 120, 75), "star": (215, 195, 80), "leaf": (85, 160, 75)}
USUAL_COLOR_CHANCE = 0.8

CROWD_CHANCE = 0.17
SMUDGE_CHANCE = 0.13
UNKNOWN_CHANCE = 0.12
COMPANION_CHANCE = 0.3  # of placing a thing close to an earlier one of its class
MOST_OVERLAP = 0.7  # the least distance of two centres, in sums of the radii, if there is room elsewhere
PLACING_TRIES = 6


@dataclass
class _Draft:
    """A scene while it is drawn: its image, the segment of each pixel, and the segments.

    canvas: (H, W, 3) float32 RGB, about 0..255. owner: (H, W) int16, index into `kinds`, -1 = void.
    kinds: (category, iscrowd) of each segment. light_xy: unit vector towards the light, y downwards.
    """

    canvas: Floats
    owner: NDArray[np.int16]
    kinds: list[tuple[Category, bool]]
    light_xy: tuple[float, float]


def draw_scene(
    seed: int, index: int, size_hw: tuple[int, int] = (128, 128)
) -> tuple[NDArray[np.uint8], PanopticSegmentation]:
    """Draw scene `index` of the endless series `seed`: the same scene on every call.

    A scene has 1 to 4 stuff segments, at most one of each category, and up to `MAX_THINGS` things, later ones over
    earlier. Some have a crowd, or void (smudges, objects of no category).

    Args:
        seed: the series, 0 or more.
        index: the scene in the series, 0 or more.
        size_hw: height and width in pixels, at least `MIN_SIZE_PX`.

    Returns:
        The image, (H, W, 3) uint8 RGB, and its ground truth with category ids of `CATEGORIES` and segment ids scattered
        over [1, 2^24).

    Raises:
        ValueError: seed or index is negative, or a side is too short.
    """
    if min(size_hw) < MIN_SIZE_PX:
        raise ValueError(f"size_hw must be at least {MIN_SIZE_PX} on both sides, got {tuple(size_hw)}")
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must not be negative, got {seed} and {index}")
    rng = np.random.default_rng([seed, index])
    draft = _background(rng, size_hw)
    if rng.random() < CROWD_CHANCE:
        _add_crowd(rng, draft)
    _add_things(rng, draft)
    if rng.random() < UNKNOWN_CHANCE:
        _stamp(draft, _random_thing(rng, draft, UNKNOWN_SHAPE), -1)
    if rng.random() < SMUDGE_CHANCE:
        _add_smudge(rng, draft)
    return _photograph(rng, draft.canvas), _ground_truth(rng, draft)


def _background(rng: np.random.Generator, size_hw: tuple[int, int]) -> _Draft:
    by_name = {category.name: category for category in CATEGORIES.stuff}
    grounds = rng.permutation([name for name in by_name if name != "sky"]).tolist()
    owner = np.zeros(size_hw, dtype=np.int16)
    names = [grounds.pop()]
    for _ in range(int(rng.integers(0, len(grounds) + 1))):
        _split(owner, _select_side(rng, size_hw, rng.uniform(0, math.tau)), names, grounds.pop())
    if rng.random() < SKY_CHANCE:
        _split(owner, _select_side(rng, size_hw, -math.pi / 2 + rng.uniform(-0.12, 0.12)), names, "sky")
    canvas = np.zeros((*size_hw, 3), dtype=np.float32)
    for index, name in enumerate(names):
        np.copyto(canvas, stuff_texture(rng, name, size_hw), where=(owner == index)[..., None])
    turn = rng.uniform(0.15, 0.85) * math.pi
    kinds = [(by_name[name], False) for name in names]
    return _Draft(canvas, owner, kinds, (math.cos(turn), -math.sin(turn)))


def _select_side(rng: np.random.Generator, size_hw: tuple[int, int], turn: float) -> NDArray[np.bool_]:
    """(H, W), True on the side that `turn` (radians, y downwards) points to of a wavy line through the image."""
    height, width = size_hw
    cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    y, x = (np.arange(size, dtype=np.float32) / np.float32(min(size_hw)) for size in size_hw)
    x, y = (x - x[width // 2])[None, :], (y - y[height // 2])[:, None]
    ahead, along = x * cos + y * sin, y * cos - x * sin
    wave = np.zeros_like(along)
    for waves, swing in ((rng.uniform(0.5, 1.5), 0.06), (rng.uniform(2, 5), 0.02)):
        phase = np.float32(rng.uniform(0, math.tau))
        wave += np.float32(rng.uniform(0, swing)) * np.sin(along * np.float32(math.tau * waves) + phase)
    selected: NDArray[np.bool_] = ahead + wave > np.float32(rng.uniform(-0.05, 0.22))
    return selected


def _split(owner: NDArray[np.int16], selected: NDArray[np.bool_], names: list[str], name: str) -> None:
    """Give the pixels `selected` to `name`, unless that would leave a region too small."""
    changed = np.where(selected, np.int16(len(names)), owner)
    if np.bincount(changed.ravel(), minlength=len(names) + 1).min() >= MIN_REGION_SHARE * owner.size:
        owner[:] = changed
        names.append(name)


def _add_things(rng: np.random.Generator, draft: _Draft) -> None:
    earlier: list[Thing] = []
    for _ in range(int(rng.choice(MAX_THINGS, p=THINGS_SHARES)) + 1):
        for _ in range(PLACING_TRIES):
            if earlier and rng.random() < COMPANION_CHANCE:
                thing = _beside(rng, draft, earlier[int(rng.integers(len(earlier)))])
            else:
                thing = _random_thing(rng, draft, CATEGORIES.things[int(rng.integers(len(CATEGORIES.things)))].name)
            if not any(_hides(thing, other) for other in earlier):
                break
        earlier.append(thing)
        _stamp(draft, thing, _open_segment(draft, thing.shape))


def _hides(thing: Thing, other: Thing) -> bool:
    """Check if `thing`, drawn over `other`, would hide too much of it to recognise it."""
    return math.dist(thing.center_xy, other.center_xy) < MOST_OVERLAP * (thing.radius_px + other.radius_px)


def _random_thing(rng: np.random.Generator, draft: _Draft, shape: str) -> Thing:
    """A thing anywhere in the image, 13 pixels to 0.18 of the shorter side in radius, small ones more often."""
    height, width = draft.owner.shape
    smallest, largest = 13.0, max(14.0, 0.18 * min(height, width))
    color = rng.integers(40, 226, size=3).astype(np.float32)
    if rng.random() < USUAL_COLOR_CHANCE and shape in USUAL_COLORS:
        color = np.array(USUAL_COLORS[shape], dtype=np.float32) + rng.integers(-40, 41, size=3).astype(np.float32)
    return Thing(
        shape=shape,
        center_xy=(rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height),
        radius_px=smallest * (largest / smallest) ** rng.random(),
        turn=rng.uniform(-1, 1) * MOST_TURN.get(shape, math.pi),
        slimness=rng.random(),
        color=color,
        mark_color=np.clip(color + rng.integers(-50, 51, size=3).astype(np.float32), 0, 255),
        marking=MARKINGS[int(rng.integers(len(MARKINGS)))],
        light_xy=draft.light_xy,
    )


def _beside(rng: np.random.Generator, draft: _Draft, other: Thing) -> Thing:
    """A thing of the class of `other` that touches or covers part of it."""
    height, width = draft.owner.shape
    thing = _random_thing(rng, draft, other.shape)
    away, turn = rng.uniform(0.8, 1.1) * (thing.radius_px + other.radius_px), rng.uniform(0, math.tau)
    x, y = other.center_xy[0] + away * math.cos(turn), other.center_xy[1] + away * math.sin(turn)
    return replace(thing, center_xy=(min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))))


def _add_crowd(rng: np.random.Generator, draft: _Draft) -> None:
    """Add a cluster of tiny things of one class as one segment."""
    height, width = draft.owner.shape
    category = CATEGORIES.things[int(rng.integers(len(CATEGORIES.things)))]
    index = _open_segment(draft, category.name, iscrowd=True)
    x, y = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height
    spread = rng.uniform(0.1, 0.18) * min(height, width)
    for _ in range(int(rng.integers(14, 31))):
        away, turn = spread * math.sqrt(rng.random()), rng.uniform(0, math.tau)
        center = (x + 1.5 * away * math.cos(turn), y + away * math.sin(turn))
        member = replace(_random_thing(rng, draft, category.name), center_xy=center, radius_px=rng.uniform(2.5, 4.2))
        _stamp(draft, member, index)


def _add_smudge(rng: np.random.Generator, draft: _Draft) -> None:
    """Add a blot at the image's border, as of a finger on the lens; the pixels behind it are void."""
    height, width = draft.owner.shape
    x, y = [(rng.random(), 0.0), (rng.random(), 1.0), (0.0, rng.random()), (1.0, rng.random())][int(rng.integers(4))]
    columns = (np.arange(width, dtype=np.float32) - np.float32(x * width))[None, :]
    rows = (np.arange(height, dtype=np.float32) - np.float32(y * height))[:, None]
    reach = np.float32(rng.uniform(0.15, 0.35) * min(height, width))
    ragged = value_noise(rng, (height, width), (14, 14))
    inside = 1.3 - np.sqrt(columns * columns + rows * rows) / reach - 0.6 * ragged
    cover = np.clip(inside * 6 + 0.5, 0, 1)[..., None]
    haze = draft.canvas.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    draft.canvas += cover * (haze + 12 * (ragged[..., None] - 0.5) - draft.canvas)
    draft.owner[inside > 0] = -1


def _open_segment(draft: _Draft, name: str, iscrowd: bool = False) -> int:
    category = next(c for c in CATEGORIES.things if c.name == name)
    draft.kinds.append((category, iscrowd))
    return len(draft.kinds) - 1


def _stamp(draft: _Draft, thing: Thing, index: int) -> None:
    window, mask = paint(draft.canvas, thing)
    draft.owner[window][mask] = index


def _photograph(rng: np.random.Generator, canvas: Floats) -> NDArray[np.uint8]:
    """Add brightness, colour cast, sometimes a soft focus, and noise; (H, W, 3) uint8."""
    cast = np.float32(rng.uniform(0.75, 1.15)) * rng.uniform(0.9, 1.1, size=3).astype(np.float32)
    image = canvas * cast
    if rng.random() < 0.25:
        image = _soften(_soften(image).transpose(1, 0, 2)).transpose(1, 0, 2)
    noise = rng.random(canvas.shape, dtype=np.float32) + rng.random(canvas.shape, dtype=np.float32) - 1
    image = image + np.float32(rng.uniform(5, 20)) * noise
    return np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)


def _soften(image: Floats) -> Floats:
    """Rows averaged with their neighbours by the weights 1/4, 1/2, 1/4."""
    padded = np.concatenate((image[:1], image, image[-1:]))
    return (padded[:-2] + padded[2:]) * np.float32(0.25) + image * np.float32(0.5)


def _ground_truth(rng: np.random.Generator, draft: _Draft) -> PanopticSegmentation:
    """The map of the visible segments; segments with too few visible pixels become void."""
    areas = np.bincount(draft.owner.ravel() + 1, minlength=len(draft.kinds) + 1)[1:].tolist()
    ids = (rng.choice(MAX_SEGMENT_ID, size=len(draft.kinds), replace=False) + 1).tolist()
    table = np.full(len(draft.kinds) + 1, VOID, dtype=np.int32)  # the last entry serves owner -1
    segments = []
    for index, (category, iscrowd) in enumerate(draft.kinds):
        if areas[index] >= (MIN_THING_PX if category.isthing else MIN_STUFF_SHARE * draft.owner.size):
            table[index] = ids[index]
            segments.append(Segment(ids[index], category.category_id, category.isthing, areas[index], iscrowd))
    return PanopticSegmentation(table[draft.owner], tuple(segments))
