"""Toy scenes: reproducible, valid ground truth, of medium difficulty, and never written partially."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools.coco import COCO

from segkit.data.toy import dataset as toy
from segkit.data.toy.scenes import MAX_THINGS, MIN_STUFF_SHARE, MIN_THING_PX, UNKNOWN_SHAPE
from segkit.data.toy.shapes import MARKINGS, SHAPES, Thing, paint
from segkit.data.toy.textures import stuff_texture, value_noise
from segkit.formats import coco
from segkit.structures import MAX_SEGMENT_ID, VOID, PanopticSegmentation
from segkit.utils.errors import DatasetError

Scene = tuple[NDArray[np.uint8], PanopticSegmentation]
SCENES = 150


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [toy.draw_scene(11, index) for index in range(SCENES)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def compute_share(scenes: list[Scene], holds: object) -> float:
    return sum(bool(holds(segmentation)) for _, segmentation in scenes) / len(scenes)  # type: ignore[operator]


# One scene


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**63),
    index=st.integers(0, 10**9),
    size_hw=st.tuples(st.integers(32, 160), st.integers(32, 160)),
)
def test_ground_truth_is_valid(seed: int, index: int, size_hw: tuple[int, int]) -> None:
    image, ground_truth = toy.draw_scene(seed, index, size_hw)
    assert image.shape == (*size_hw, 3)
    assert image.dtype == np.uint8
    assert ground_truth.segment_ids.shape == size_hw
    assert ground_truth.segment_ids.dtype == np.int32
    ids, counts = np.unique(ground_truth.segment_ids[ground_truth.segment_ids != VOID], return_counts=True)
    # One pass over the map gives exactly the segments: no id twice, none without pixels, areas counted.
    assert sorted((s.segment_id, s.area_px) for s in ground_truth.segments) == [
        *zip(ids.tolist(), counts.tolist(), strict=True)
    ]
    assert ids.size == 0 or (ids[0] > VOID and ids[-1] <= MAX_SEGMENT_ID)
    stuff = [s for s in ground_truth.segments if not s.isthing]
    assert len({s.category_id for s in stuff}) == len(stuff)
    assert all(s.area_px >= MIN_STUFF_SHARE * image.shape[0] * image.shape[1] and not s.iscrowd for s in stuff)
    things = [s for s in ground_truth.segments if s.isthing]
    assert all(s.area_px >= MIN_THING_PX for s in things)
    assert sum(not s.iscrowd for s in things) <= MAX_THINGS
    assert sum(s.iscrowd for s in things) <= 1
    assert all(toy.CATEGORIES[s.category_id].isthing == s.isthing for s in ground_truth.segments)


def test_a_scene_does_not_depend_on_what_was_drawn_before() -> None:
    image, ground_truth = toy.draw_scene(4, 7)
    toy.draw_scene(4, 8)
    again, again_gt = toy.draw_scene(4, 7)
    assert np.array_equal(image, again)
    assert np.array_equal(ground_truth.segment_ids, again_gt.segment_ids)
    assert ground_truth.segments == again_gt.segments


@pytest.mark.parametrize("other", [(5, 7), (4, 8), (7, 4)])
def test_scenes_depend_on_seed_and_index(other: tuple[int, int]) -> None:
    assert not np.array_equal(toy.draw_scene(4, 7)[0], toy.draw_scene(*other)[0])


@pytest.mark.parametrize("arguments", [(-1, 0), (0, -1), (0, 0, (31, 128)), (0, 0, (128, 31))])
def test_invalid_arguments_are_rejected(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"negative|size_hw must be at least 32"):
        toy.draw_scene(*arguments)  # type: ignore[arg-type]


# What the scenes hold


def test_category_ids_are_not_contiguous_ids() -> None:
    ids = [category.category_id for category in toy.CATEGORIES.categories]
    assert len(toy.CATEGORIES.things) >= 4
    assert len(toy.CATEGORIES.stuff) >= 4
    assert ids != [*range(len(ids))]
    assert ids != [*range(1, len(ids) + 1)]


def test_every_category_is_frequent_and_segment_ids_are_not_consecutive(scenes: list[Scene]) -> None:
    counts = Counter(s.category_id for _, ground_truth in scenes for s in ground_truth.segments)
    assert set(counts) == {category.category_id for category in toy.CATEGORIES.categories}
    assert min(counts.values()) > SCENES / 3
    ids = [s.segment_id for _, ground_truth in scenes for s in ground_truth.segments]
    assert max(ids) > 0.9 * MAX_SEGMENT_ID  # over all three bytes, as COCO's are


def test_crowds_void_and_numbers_of_things(scenes: list[Scene]) -> None:
    assert 0.08 < compute_share(scenes, lambda ground_truth: any(s.iscrowd for s in ground_truth.segments)) < 0.25
    assert 0.15 < compute_share(scenes, lambda ground_truth: (ground_truth.segment_ids == VOID).any()) < 0.4
    assert compute_share(scenes, lambda ground_truth: (ground_truth.segment_ids == VOID).mean() > 0.5) == 0
    numbers = [sum(s.isthing and not s.iscrowd for s in ground_truth.segments) for _, ground_truth in scenes]
    assert {1, 2, 3, 4, 5, 6, 7, 8} <= set(numbers)
    areas = [s.area_px for _, ground_truth in scenes for s in ground_truth.segments if s.isthing and not s.iscrowd]
    assert np.percentile(areas, 20) > 14 * 14  # most things can be seen


def test_things_cover_each_other(scenes: list[Scene]) -> None:
    """Except the star, all shapes are convex, so a shape that fills its convex hull badly is occluded."""
    convex = {category.category_id for category in toy.CATEGORIES.things if category.name != "star"}
    covered = touching = 0
    for _, ground_truth in scenes:
        for segment in ground_truth.segments:
            if segment.category_id in convex and not segment.iscrowd:
                points = np.argwhere(ground_truth.segment_ids == segment.segment_id).astype(np.int32)
                covered += segment.area_px < 0.9 * cv2.contourArea(cv2.convexHull(points))
        classes = {s.segment_id: s.category_id for s in ground_truth.segments if s.isthing and not s.iscrowd}
        left, right = ground_truth.segment_ids[:, :-1].ravel(), ground_truth.segment_ids[:, 1:].ravel()
        pairs = set(zip(left[left != right].tolist(), right[left != right].tolist(), strict=True))
        touching += any(a in classes and classes[a] == classes.get(b) for a, b in pairs)
    assert covered > SCENES / 15
    assert touching > SCENES / 4


def test_colour_does_not_identify_the_class(scenes: list[Scene]) -> None:
    """The nearest mean colour, and the most frequent class of a colour bin, learned on half of the scenes."""
    colors, labels = [], []
    for image, ground_truth in scenes:
        label = np.zeros(ground_truth.segment_ids.shape, dtype=np.int64)
        for segment in ground_truth.segments:
            label[ground_truth.segment_ids == segment.segment_id] = segment.category_id
        colors.append(image[::4, ::4].reshape(-1, 3).astype(np.int64))
        labels.append(label[::4, ::4].ravel())
    half = SCENES // 2
    seen_colors, seen_labels = np.concatenate(colors[:half]), np.concatenate(labels[:half])
    fresh, fresh_labels = np.concatenate(colors[half:]), np.concatenate(labels[half:])
    fresh, fresh_labels = fresh[fresh_labels != VOID], fresh_labels[fresh_labels != VOID]
    ids = np.array([category.category_id for category in toy.CATEGORIES.categories])
    means = np.stack([seen_colors[seen_labels == i].mean(axis=0) for i in ids])
    nearest = ids[((fresh[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)]
    assert (nearest == fresh_labels).mean() < 0.45
    votes = np.stack([np.bincount(seen_colors[seen_labels == i] // 32 @ [64, 8, 1], minlength=512) for i in ids])
    likeliest = ids[votes.argmax(axis=0)][fresh // 32 @ [64, 8, 1]]
    assert (likeliest == fresh_labels).mean() < 0.55


# Textures and shapes


@pytest.mark.parametrize("seed", range(5))
def test_textures_differ_in_direction_and_fineness(seed: int) -> None:
    """Grass changes sideways, water downwards, gravel both ways, the sky next to nowhere."""
    across, down = {}, {}
    for name in ("grass", "water", "gravel", "sky"):
        grey = stuff_texture(np.random.default_rng(seed), name, (96, 96)).mean(axis=2)
        across[name], down[name] = np.abs(np.diff(grey, axis=1)).mean(), np.abs(np.diff(grey, axis=0)).mean()
    assert across["grass"] > 3 * down["grass"]
    assert down["water"] > 3 * across["water"]
    assert 0.7 < across["gravel"] / down["gravel"] < 1.4
    assert max(across["sky"], down["sky"]) < min(across["grass"], down["water"], across["gravel"]) / 3


def test_value_noise_is_linear_between_lattice_points() -> None:
    lattice = np.random.default_rng(0).random((3, 3), dtype=np.float32)  # 4 pixels at 4 a cell: 4 / 4 + 2 points
    noise = value_noise(np.random.default_rng(0), (4, 4), (4, 4))
    assert noise[0, 0] == lattice[0, 0]
    assert noise[2, 0] == pytest.approx((lattice[0, 0] + lattice[1, 0]) / 2)
    assert noise[0, 1] == pytest.approx(0.75 * lattice[0, 0] + 0.25 * lattice[0, 1])


def thing(shape: str, center_xy: tuple[float, float], radius_px: float = 20.0, marking: str = "plain") -> Thing:
    gray = np.full(3, 200, dtype=np.float32)
    return Thing(shape, center_xy, radius_px, 0.3, 0.0, gray, gray / 2, marking, (0.6, -0.8))


def test_areas_of_shapes() -> None:
    half, thin = 26.0, 0.76 * 20  # the leaf's; REACH * 20 = 26
    bow = (half**2 + thin**2) / (2 * thin)
    lens = 2 * (bow**2 * math.asin(half / bow) - half * (bow - thin))  # two circular segments of chord 2 * half
    expected = {
        "ball": math.pi * 20**2,
        "crate": 4 * 0.95 * 20 * 0.9 * 20,
        "leaf": lens,
        "cross": 8 * 1.1 * 20 * 0.42 * 20 - (2 * 0.42 * 20) ** 2,  # two bars less their common square
    }
    for shape, area in expected.items():
        _, mask = paint(np.zeros((80, 80, 3), dtype=np.float32), thing(shape, (40.0, 40.0)))
        assert mask.sum() == pytest.approx(area, rel=0.02), shape


def test_a_star_has_five_points() -> None:
    """On the circle of its radius, between the notches and the tips, a star is entered five times."""
    around = (np.arange(720) * math.tau / 720).astype(np.float32)
    for slimness in (0.0, 1.0):
        distance = SHAPES["star"](20 * np.cos(around), 20 * np.sin(around), np.float32(20), np.float32(slimness))
        inside = distance < 0
        assert np.count_nonzero(inside & ~np.roll(inside, 1)) == 5


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("marking", MARKINGS)
def test_nothing_is_painted_outside_window_and_image(shape: str, marking: str) -> None:
    for center_xy in ((0.0, 0.0), (64.0, 31.5), (-200.0, 10.0)):
        canvas = np.full((64, 64, 3), 7, dtype=np.float32)
        window, mask = paint(canvas, thing(shape, center_xy, marking=marking))
        assert canvas[window].shape[:2] == mask.shape
        assert mask.any() == (center_xy[0] > -100)
        assert (canvas[window][mask] != 7).all()
        canvas[window] = 7
        assert (canvas == 7).all()


def test_the_unknown_object_belongs_to_no_category() -> None:
    assert {*SHAPES} - {UNKNOWN_SHAPE} == {category.name for category in toy.CATEGORIES.things}


# On disk


def test_bytes_depend_on_nothing_but_seed_index_and_size(tmp_path: Path) -> None:
    first = contents(toy.write_dataset(tmp_path / "first", 4, 3, (64, 48)))
    assert contents(toy.write_dataset(tmp_path / "second", 4, 3, (64, 48))) == first
    longer = contents(toy.write_dataset(tmp_path / "longer", 6, 3, (64, 48)))
    images = {name: content for name, content in first.items() if name.endswith(".png")}
    assert len(images) == 8
    assert images.items() <= longer.items()
    other = contents(toy.write_dataset(tmp_path / "other", 4, 4, (64, 48)))
    assert not images.items() & other.items()


def test_written_files_are_read_back_unchanged(tmp_path: Path) -> None:
    folder = toy.write_dataset(tmp_path / "scenes", 20, 3)
    assert sorted(path.name for path in folder.iterdir()) == ["images", "instances.json", "panoptic", "panoptic.json"]
    file = coco.read_panoptic(folder / "panoptic.json")
    assert file.categories == toy.CATEGORIES
    assert [record.image_id for record in file.records] == [*range(1, 21)]
    for index, record in enumerate(file.records):
        image, ground_truth = toy.draw_scene(3, index)
        png_path = folder / "panoptic" / record.png_name
        stored = coco.read_segmentation(png_path, record.segments_info, file.categories, (128, 128))
        assert np.array_equal(stored.segment_ids, ground_truth.segment_ids)
        assert stored.segments == ground_truth.segments
        assert np.array_equal(cv2.imread(str(folder / "images" / record.file_name))[..., ::-1], image)


def test_instances_are_the_things_of_the_panoptic_file(tmp_path: Path) -> None:
    folder = toy.write_dataset(tmp_path / "scenes", 20, 3)
    coco.read_instances(folder / "instances.json")
    reference = COCO(folder / "instances.json")
    crowds = 0
    for image_id in range(1, 21):
        _, ground_truth = toy.draw_scene(3, image_id - 1)
        annotations = reference.loadAnns(reference.getAnnIds(image_id))
        things = [s for s in ground_truth.segments if s.isthing]
        rows = [(a["category_id"], a["area"], a["iscrowd"]) for a in annotations]
        assert rows == [(s.category_id, s.area_px, int(s.iscrowd)) for s in things]
        for annotation, segment in zip(annotations, things, strict=True):
            assert np.array_equal(
                reference.annToMask(annotation).astype(bool), ground_truth.segment_ids == segment.segment_id
            )
            crowds += annotation["iscrowd"]
    assert crowds > 0


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    toy.write_dataset(tmp_path / "scenes", 3, 0, (32, 32), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_a_folder_with_files_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"expected an empty or missing folder.*--overwrite"):
        toy.write_dataset(tmp_path, 1, 0)
    assert contents(tmp_path) == {"mine.txt": b"mine"}


def test_a_file_at_the_output_path_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "scenes").write_text("mine")
    with pytest.raises(DatasetError, match="this is a file"):
        toy.write_dataset(tmp_path / "scenes", 1, 0, overwrite=True)
    assert contents(tmp_path) == {"scenes": b"mine"}


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    fresh = contents(toy.write_dataset(tmp_path / "deep" / "down", 2, 0, (32, 32)))
    (tmp_path / "empty").mkdir()
    assert contents(toy.write_dataset(tmp_path / "empty", 2, 0, (32, 32))) == fresh


def test_overwriting_replaces_the_dataset_and_nothing_else(tmp_path: Path) -> None:
    folder = toy.write_dataset(tmp_path / "scenes", 5, 0, (32, 32))
    (folder / "mine.txt").write_text("mine")
    toy.write_dataset(folder, 2, 1, (32, 32), overwrite=True)
    fresh = contents(toy.write_dataset(tmp_path / "fresh", 2, 1, (32, 32)))
    assert contents(folder) == {**fresh, "mine.txt": b"mine"}


@pytest.mark.parametrize(("error", "raised"), [(KeyboardInterrupt,) * 2, (OSError, DatasetError)])
def test_an_interrupted_run_changes_nothing(
    tmp_path: Path, error: type[BaseException], raised: type[BaseException]
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise error

    with pytest.raises(raised):
        toy.write_dataset(tmp_path / "scenes", 3, 0, (32, 32), progress=interrupt)
    assert [*tmp_path.iterdir()] == []
    before = contents(toy.write_dataset(tmp_path / "scenes", 3, 0, (32, 32)))
    with pytest.raises(raised):
        toy.write_dataset(tmp_path / "scenes", 3, 1, (32, 32), overwrite=True, progress=interrupt)
    assert contents(tmp_path / "scenes") == before
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]


@pytest.mark.parametrize(("images", "seed"), [(0, 0), (-3, 0), (1, -1)])
def test_invalid_counts_write_nothing(tmp_path: Path, images: int, seed: int) -> None:
    with pytest.raises(ValueError, match=r"images must be at least 1, got|seed and index must not be negative"):
        toy.write_dataset(tmp_path / "scenes", images, seed)
    assert [*tmp_path.iterdir()] == []
