"""Tiled results against those of the whole image, by a model that reads them from a scene."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.runtime.tiling import TileGrid, predict_tiles
from segkit.structures import InstanceMasks, PanopticSegmentation, Segment
from segkit.utils.errors import ConfigError

CAR, DOG, SKY, SEA = 0, 1, 11, 12
STUFF = (SKY, SEA)


@dataclass
class Scene:
    """Things 1..N of a map (H, W), each with its class and score; elsewhere stuff, or void (0)."""

    things: np.ndarray
    classes: list[int]
    scores: list[float]
    stuff: np.ndarray

    @property
    def image(self) -> np.ndarray:
        """Each pixel holds its place, so that a crop says where it is."""
        return np.arange(self.things.size).reshape(self.things.shape)

    def window(self, crop: np.ndarray) -> tuple[slice, slice]:
        top, left = divmod(int(crop[0, 0]), self.things.shape[1])
        return slice(top, top + crop.shape[0]), slice(left, left + crop.shape[1])

    def panoptic(self, crop: np.ndarray) -> PanopticSegmentation:
        window = self.window(crop)
        things, stuff = self.things[window], self.stuff[window]
        ids, segments = np.zeros(crop.shape, np.int32), []
        order = sorted(np.unique(things[things > 0]).tolist(), key=lambda i: -self.scores[i - 1])
        parts = [(things == i, self.classes[i - 1], True, self.scores[i - 1]) for i in order]
        parts += [((things == 0) & (stuff == c), c, False, None) for c in STUFF]
        for mask, category_id, isthing, score in parts:
            if area := int(mask.sum()):
                ids[mask] = len(segments) + 1
                segments.append(Segment(len(segments) + 1, category_id, isthing, area, score=score))
        return PanopticSegmentation(ids, tuple(segments))

    def instances(self, crop: np.ndarray) -> InstanceMasks:
        things = self.things[self.window(crop)]
        rows = np.array(sorted(np.unique(things[things > 0]).tolist(), key=lambda i: -self.scores[i - 1]), dtype=int)
        masks = things == rows.reshape(-1, 1, 1)
        boxes = [cv2.boundingRect(mask.astype(np.uint8)) for mask in masks]
        boxes_xyxy = np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], dtype=np.float32).reshape(-1, 4)
        scores = np.array(self.scores, dtype=np.float32)[rows - 1]
        return InstanceMasks.from_full(masks, boxes_xyxy, scores, np.array(self.classes, dtype=np.int64)[rows - 1])

    def predict(self, crop: np.ndarray) -> dict[str, object]:
        semantic = self.stuff[self.window(crop)]
        return {"panoptic": self.panoptic(crop), "instances": self.instances(crop), "semantic": semantic}


def scene_of(things: np.ndarray, classes: list[int] | None = None, stuff: np.ndarray | int = SKY) -> Scene:
    count = int(things.max(initial=0))
    scores = [round(0.99 - 0.01 * i, 2) for i in range(count)]
    return Scene(things, classes or [CAR] * count, scores, np.broadcast_to(stuff, things.shape).copy())


def draw_scene(*rectangles: tuple[int, int, int, int], size_hw: tuple[int, int]) -> Scene:
    """Cars in rectangles (top, left, bottom, right), the later ones over the earlier ones."""
    things = np.zeros(size_hw, dtype=np.int64)
    for number, (top, left, bottom, right) in enumerate(rectangles, 1):
        things[top:bottom, left:right] = number
    return scene_of(things)


def assert_tiled_equals_untiled(scene: Scene, tile_px: int, overlap_px: int) -> None:
    whole = scene.predict(scene.image)
    tiled = predict_tiles(scene.image, scene.predict, tile_px, overlap_px)
    np.testing.assert_array_equal(tiled["panoptic"].segment_ids, whole["panoptic"].segment_ids)
    assert tiled["panoptic"].segments == whole["panoptic"].segments
    np.testing.assert_array_equal(tiled["semantic"], whole["semantic"])
    for name in ("size_hw", "boxes_xyxy", "scores", "class_ids", "corners_xy"):
        np.testing.assert_array_equal(getattr(tiled["instances"], name), getattr(whole["instances"], name))
    for crop, expected in zip(tiled["instances"].crops, whole["instances"].crops, strict=True):
        np.testing.assert_array_equal(crop, expected)


@st.composite
def tiled_scenes(draw: st.DrawFn, largest: int | None) -> tuple[Scene, int, int]:
    """Rectangles over each other, in several parts perhaps; with `largest` None of any size, but in one part."""
    tile_px = draw(st.integers(2, 14))
    overlap_px = draw(st.integers(1, tile_px // 2))
    height, width = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    things = np.zeros((height, width), dtype=np.int64)
    for number in range(1, draw(st.integers(0, 12)) + 1):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        sides = st.integers(1, overlap_px if largest else max(height, width))
        things[top : top + draw(sides), left : left + draw(sides)] = number
    parts = np.zeros_like(things)
    for number in np.unique(things[things > 0]).tolist():
        labels = (things == number).astype(np.uint8) if largest else None
        if labels is None:
            labels = cv2.connectedComponents((things == number).astype(np.uint8), connectivity=8)[1]
        parts = np.where(labels > 0, labels + parts.max(), parts)
    classes = draw(st.lists(st.sampled_from([CAR, DOG]), min_size=int(parts.max()), max_size=int(parts.max())))
    stuff = np.array([0, SKY, SEA])[(np.arange(width) // draw(st.integers(1, 9))) % 3]
    return scene_of(parts, classes, stuff), tile_px, overlap_px


@settings(max_examples=30)
@given(tiled_scenes(largest=1))
def test_tiled_equals_untiled_if_objects_fit_the_overlap(drawn: tuple[Scene, int, int]) -> None:
    assert_tiled_equals_untiled(*drawn)


@settings(max_examples=30)
@given(tiled_scenes(largest=None))
def test_objects_of_any_size_are_one_if_they_are_connected(drawn: tuple[Scene, int, int]) -> None:
    assert_tiled_equals_untiled(*drawn)


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.integers(0, 10))
def test_tiles_cover_the_image_and_own_each_pixel_once(height: int, width: int, tile_px: int, overlap_px: int) -> None:
    overlap_px = min(overlap_px, tile_px // 2)
    owners = np.zeros((height, width), dtype=np.int64)
    tiles = TileGrid((height, width), tile_px, overlap_px).tiles
    for tile in tiles:
        assert tile.seen.intersect(tile.owned) == tile.owned
        assert (tile.seen.bottom - tile.seen.top, tile.seen.right - tile.seen.left) == (
            min(tile_px, height),
            min(tile_px, width),
        )
        owners[tile.owned.window()] += 1
    assert (owners == 1).all()
    lefts = sorted({tile.seen.left for tile in tiles})
    assert all(left + tile_px - following >= overlap_px for left, following in pairwise(lefts))
    if width > tile_px:  # ceil((L - O) / (T - O))
        assert len(lefts) == -(-(width - overlap_px) // (tile_px - overlap_px))


def test_an_object_at_the_corner_of_four_tiles_is_one() -> None:
    assert_tiled_equals_untiled(draw_scene((6, 6, 10, 10), size_hw=(16, 16)), 9, 2)


def test_an_object_larger_than_a_tile_is_one() -> None:
    assert_tiled_equals_untiled(draw_scene((1, 1, 39, 49), size_hw=(40, 50)), 8, 2)


def test_touching_objects_of_one_class_stay_two_on_a_seam() -> None:
    # The seam between 0..10 and 6..16 is at 8; both objects cross it and touch each other along a row.
    assert_tiled_equals_untiled(draw_scene((2, 4, 5, 12), (5, 4, 8, 12), size_hw=(10, 16)), 10, 4)


@pytest.mark.parametrize("size_hw", [(1, 1), (5, 7)])
def test_an_image_smaller_than_a_tile_is_one_tile(size_hw: tuple[int, int]) -> None:
    assert_tiled_equals_untiled(draw_scene((0, 0, 1, 1), size_hw=size_hw), 8, 2)


def test_empty_tiles_give_an_empty_map() -> None:
    scene = scene_of(np.zeros((20, 20), dtype=np.int64), stuff=0)
    assert_tiled_equals_untiled(scene, 8, 2)


def test_an_object_that_the_owner_misses_is_kept_whole_if_another_tile_sees_all_of_it() -> None:
    # Tiles 0..10 and 6..16 of one row, seam 8: columns 8 and 9 of the object belong to the second tile.
    scene = draw_scene((2, 7, 5, 9), size_hw=(10, 16))

    def predict(crop: np.ndarray) -> dict[str, object]:
        is_first = crop[0, 0] == 0
        seen = scene if is_first else replace(scene, things=np.zeros_like(scene.things))
        return {"panoptic": seen.panoptic(crop), "instances": seen.instances(crop)}

    tiled = predict_tiles(scene.image, predict, 10, 4)
    np.testing.assert_array_equal(tiled["panoptic"].segment_ids, scene.panoptic(scene.image).segment_ids)
    np.testing.assert_array_equal(tiled["instances"].to_full()[0], scene.things == 1)


def test_a_complete_object_wins_over_one_that_is_cut_and_the_highest_score_is_kept() -> None:
    # The first tile, 0..10, cuts the object 7..12 and sees 7..10 of it, one row too high, IoU 9 / 15 = 0.6, with a
    # score of 0.9; the second tile, 6..16, sees all of it with a score of 0.5. Its owner pixels begin at column 8.
    scene = replace(draw_scene((2, 7, 6, 12), size_hw=(10, 16)), scores=[0.5])
    shifted = replace(scene, things=np.roll(scene.things, -1, axis=0), scores=[0.9])

    def predict(crop: np.ndarray) -> dict[str, object]:
        seen = shifted if crop[0, 0] == 0 else scene
        return {"panoptic": seen.panoptic(crop), "instances": seen.instances(crop)}

    tiled = predict_tiles(scene.image, predict, 10, 4)
    things = [segment for segment in tiled["panoptic"].segments if segment.isthing]
    # All 20 pixels of the complete object, and the pixel of row 1 that the first tile owns: column 7.
    assert [(segment.score, segment.area_px) for segment in things] == [(0.9, 21)]
    np.testing.assert_array_equal(tiled["instances"].to_full()[0], scene.things == 1)
    assert tiled["instances"].scores.tolist() == [np.float32(0.9)]


def test_two_objects_of_a_tile_are_never_united() -> None:
    # The first tile sees one object where the second tile sees its two halves, each of IoU 1/2.
    halves = draw_scene((2, 6, 4, 10), (4, 6, 6, 10), size_hw=(10, 16))
    whole = draw_scene((2, 6, 6, 10), size_hw=(10, 16))

    def predict(crop: np.ndarray) -> dict[str, object]:
        seen = whole if crop[0, 0] == 0 else halves
        return {"panoptic": seen.panoptic(crop), "instances": seen.instances(crop)}

    tiled = predict_tiles(whole.image, predict, 10, 4)
    assert sum(segment.isthing for segment in tiled["panoptic"].segments) == 2
    assert len(tiled["instances"]) == 2


@pytest.mark.parametrize(("tile_px", "overlap_px"), [(0, 0), (8, 5), (8, -1)])
def test_tiles_that_overlap_by_more_than_half_are_refused(tile_px: int, overlap_px: int) -> None:
    with pytest.raises(ConfigError, match="expected"):
        predict_tiles(np.zeros((20, 20)), lambda crop: {}, tile_px, overlap_px)


def test_results_of_other_kinds_and_sizes_are_refused() -> None:
    image = np.zeros((20, 20), dtype=np.uint8)
    with pytest.raises(ValueError, match="a map of classes as depth"):
        predict_tiles(image, lambda crop: {"depth": crop.astype(np.float32)}, 8, 2)
    scene = scene_of(np.zeros((20, 20), dtype=np.int64))
    for name in ("panoptic", "instances", "semantic"):
        with pytest.raises(ValueError, match=r"\(8, 8\), got \(20, 20\)"):
            predict_tiles(image, lambda _, name=name: {name: scene.predict(scene.image)[name]}, 8, 2)


@pytest.mark.slow
def test_memory_is_the_map_and_some_rows() -> None:
    # 3072 x 3072: 36 MiB of ids. Levels of a row of tiles 1.5 MiB, overlaps of two rows 2 MiB, bands of 2**20 pixels
    # and a tile's own arrays 20 MiB; the whole map as int64 would be 72 MiB more.
    side, tile_px = 3072, 512
    checkers = (np.arange(tile_px)[:, None] // 32 * 16 + np.arange(tile_px) // 32 + 1).astype(np.int32)
    segments = tuple(Segment(i, CAR, True, 1024, score=0.5) for i in range(1, 257))
    image = np.zeros((side, side), dtype=np.uint8)
    tracemalloc.start()
    try:
        result = predict_tiles(image, lambda crop: {"map": PanopticSegmentation(checkers, segments)}, tile_px, 64)[
            "map"
        ]
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(result.segments) > 256
    assert peak_bytes < result.segment_ids.nbytes + 30 * 2**20
