"""Augmentations: image and ground truth stay aligned to the pixel, and a seed makes the result reproducible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import MapDataset
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.data.build import worker_init_reset_seed
from detectron2.structures import BitMasks, BoxMode, Instances
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segkit.config import load_config
from segkit.data.augmentations.build import build_augmentations, build_copy_paste
from segkit.data.augmentations.copy_paste import CopyPaste, Sample, paste
from segkit.data.augmentations.jitter import ColorJitter, LargeScaleJitter, WindowTransform, compute_color_matrix
from segkit.data.augmentations.scene import MOST_NUMBERS, Scene, SegmentMap, build_annotated_instances, build_instances
from segkit.data.dataset import Dataset
from segkit.data.mapper import SegkitMapper
from segkit.formats.derive import build_coco_annotations
from segkit.structures import IGNORE_LABEL, Category, CategorySet, PanopticSegmentation, Segment, ids_to_rgb, rgb_to_ids
from segkit.utils.errors import ConfigError
from tests.helpers.coco_datasets import load_coco_instances, load_coco_panoptic

CATEGORIES = CategorySet([Category(10 + i, f"c{i}", i < 3, (0, 0, 0)) for i in range(5)])  # 10..12 things, 13, 14 stuff
SPACE = CATEGORIES.build_semantic_space("per_class")
NEAREST = Image.Resampling.NEAREST
PADDED = 128 * (1 + 256 + 65536)  # the id that the colour of padded pixels would be


@st.composite
def segmentations(draw: st.DrawFn, most: int = 6) -> PanopticSegmentation:
    """Random maps of up to 12 x 12 pixels with 24-bit ids and void; some segments have no pixel."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size_hw = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    ids = rng.choice(2**24 - 1, draw(st.integers(0, most)), replace=False) + 1
    ids = ids[ids != PADDED]
    image = rng.choice(np.append(ids, 0), size_hw).astype(np.int32)
    segments = []
    for segment_id in ids.tolist():
        category_id = 10 + int(rng.integers(5))
        crowd = category_id < 13 and bool(rng.integers(2))
        area = int((image == segment_id).sum())
        segments.append(Segment(segment_id, category_id, category_id < 13, area, crowd))
    return PanopticSegmentation(image, tuple(segments))


def build_scene(ground_truth: PanopticSegmentation) -> Scene:
    """A scene whose image shows the ids as colours."""
    return Scene(ids_to_rgb(ground_truth.segment_ids), SegmentMap.from_segmentation(ground_truth), SPACE)


def extract_ids(segment_map: SegmentMap | None) -> np.ndarray:
    """(H, W) segment ids, 0 for void, taken pixel by pixel."""
    assert segment_map is not None
    segment_id_by_number = {number: segment.segment_id for number, segment in enumerate(segment_map.segments, 1)}
    numbers = segment_map.numbers()
    return np.array([segment_id_by_number.get(n, 0) for n in numbers.ravel().tolist()], dtype=np.int32).reshape(
        numbers.shape
    )


def geometric(height: int, width: int) -> st.SearchStrategy[T.Transform]:
    def crop(window: tuple[int, int, int, int]) -> T.Transform:
        (top, bottom), (left, right) = sorted(window[:2]), sorted(window[2:])
        return T.CropTransform(left, top, right - left + 1, bottom - top + 1)

    rows, columns = st.integers(0, height - 1), st.integers(0, width - 1)
    sides = st.integers(1, 25)
    resize = st.builds(lambda h, w: T.ResizeTransform(height, width, h, w, NEAREST), sides, sides)
    pad = st.builds(lambda a, b: T.PadTransform(a, b, b, a, pad_value=128, seg_pad_value=255), sides, sides)
    crops = st.tuples(rows, rows, columns, columns).map(crop)
    return st.one_of(st.just(T.HFlipTransform(width)), st.just(T.VFlipTransform(height)), crops, resize, pad)


@settings(max_examples=150, deadline=None)
@given(ground_truth=segmentations(), data=st.data())
def test_image_and_map_stay_aligned_to_the_pixel(ground_truth: PanopticSegmentation, data: st.DataObject) -> None:
    scene = build_scene(ground_truth)
    for _ in range(data.draw(st.integers(1, 3))):
        scene.transform(data.draw(geometric(*scene.image.shape[:2])))
    shown = rgb_to_ids(np.ascontiguousarray(scene.image))
    assert np.array_equal(extract_ids(scene.segment_map), np.where(shown == PADDED, 0, shown))
    assert set(np.unique(shown)) <= {0, PADDED, *(s.segment_id for s in ground_truth.segments)}


@settings(max_examples=150, deadline=None)
@given(ground_truth=segmentations(), size=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_large_scale_jitter_keeps_them_aligned_and_pads_with_void(
    ground_truth: PanopticSegmentation, size: int, seed: int
) -> None:
    scene = build_scene(ground_truth)
    np.random.seed(seed)  # noqa: NPY002
    transform = LargeScaleJitter(size, interp=NEAREST)(scene)
    assert scene.image.shape[:2] == (size, size)
    shown = rgb_to_ids(scene.image)
    assert np.array_equal(extract_ids(scene.segment_map), np.where(shown == PADDED, 0, shown))
    (height, width), (top, left) = transform.resized_hw, transform.corner_yx
    assert 0 <= top <= max(height - size, 0)
    assert 0 <= left <= max(width - size, 0)
    padded = np.ones((size, size), dtype=bool)
    padded[: min(size, height), : min(size, width)] = False
    assert np.array_equal(shown == PADDED, padded)
    assert scene.sem_seg is not None
    assert (scene.sem_seg[padded] == IGNORE_LABEL).all()


@settings(max_examples=60, deadline=None)
@given(ground_truth=segmentations(), vertical=st.booleans())
def test_flips_keep_ids_areas_and_boxes(ground_truth: PanopticSegmentation, vertical: bool) -> None:
    before, scene = build_scene(ground_truth), build_scene(ground_truth)
    flip = T.RandomFlip(1.0, horizontal=not vertical, vertical=vertical)
    flip(scene)
    assert scene.segment_map is not None
    assert before.segment_map is not None
    assert np.array_equal(extract_ids(scene.segment_map), np.flip(ground_truth.segment_ids, axis=0 if vertical else 1))
    first, second = before.segment_map.instances(CATEGORIES), scene.segment_map.instances(CATEGORIES)
    assert second.gt_classes.tolist() == first.gt_classes.tolist()
    assert second.gt_masks.tensor.sum((1, 2)).tolist() == first.gt_masks.tensor.sum((1, 2)).tolist()
    expected = [flipped(box, ground_truth.segment_ids.shape, vertical) for box in first.gt_boxes.tensor.tolist()]
    assert second.gt_boxes.tensor.tolist() == expected
    flip(scene)
    assert np.array_equal(extract_ids(scene.segment_map), ground_truth.segment_ids)


def flipped(box: list[float], size_hw: tuple[int, ...], vertical: bool) -> list[float]:
    left, top, right, bottom = box
    if vertical:
        return [left, size_hw[0] - bottom, right, size_hw[0] - top]
    return [size_hw[1] - right, top, size_hw[1] - left, bottom]


def test_a_single_column_and_a_single_row_are_flipped_twice(tmp_path: Path) -> None:
    """numpy calls such arrays contiguous whatever their strides; torch rejects them."""
    flips = [T.RandomFlip(1.0), T.RandomFlip(1.0, horizontal=False, vertical=True)]
    for shape in ((3, 1), (1, 3), (1, 1)):
        path = tmp_path / f"{shape}.png"
        Image.fromarray(np.arange(3 * shape[0] * shape[1], dtype=np.uint8).reshape(*shape, 3)).save(path)
        polygons = [square(0, 0, shape[1], shape[0])]
        record = {"file_name": str(path), "image_id": 1, "height": shape[0], "width": shape[1], "annotations": polygons}
        for chosen in (flips, flips[:1], flips[1:]):
            plain = SegkitMapper(CATEGORIES, SPACE, [])(record)["image"]
            dims = [2, 1] if chosen is flips else [2] if chosen[0] is flips[0] else [1]
            assert torch.equal(SegkitMapper(CATEGORIES, SPACE, chosen)(record)["image"], plain.flip(dims))


@pytest.mark.parametrize("kind", ["absolute", "relative", "relative_range", "absolute_range"])
@settings(max_examples=30, deadline=None)
@given(ground_truth=segmentations(), seed=st.integers(0, 2**32 - 1))
def test_crops_contain_only_ids_of_the_map(kind: str, ground_truth: PanopticSegmentation, seed: int) -> None:
    height, width = ground_truth.segment_ids.shape
    size: Any = {"absolute": (5, 7), "absolute_range": (2, 9)}.get(kind, (0.5, 0.5))
    scene = build_scene(ground_truth)
    np.random.seed(seed)  # noqa: NPY002
    if min(height, width) == 1 and kind != "absolute":
        return  # Detectron2's crop of half a pixel may be empty
    crop = T.RandomCrop(kind, size)(scene)
    expected = ground_truth.segment_ids[crop.y0 : crop.y0 + crop.h, crop.x0 : crop.x0 + crop.w]
    assert np.array_equal(extract_ids(scene.segment_map), expected)
    assert scene.segment_map is not None
    expected_instances = scene.segment_map.instances(CATEGORIES)
    things = {s.segment_id for s in ground_truth.segments if s.isthing and not s.iscrowd}
    assert len(expected_instances) == len(things & set(np.unique(expected)))


def test_packed_and_unpacked_maps_select_the_same_pixels() -> None:
    """254 segments fit into a byte, 300 do not: both give the expected map."""
    for count in (MOST_NUMBERS, MOST_NUMBERS + 1, 300):
        ids = (1 + np.arange(20 * 20, dtype=np.int32).reshape(20, 20)) * (np.arange(400).reshape(20, 20) < count)
        ground_truth = PanopticSegmentation(
            ids, tuple(Segment(i, 10 + i % 5, i % 5 < 3, 1) for i in range(1, count + 1))
        )
        scene = build_scene(ground_truth)
        assert scene.segment_map is not None
        assert scene.segment_map.packed.ndim == (2 if count <= MOST_NUMBERS else 3)
        scene.transform(T.VFlipTransform(20))
        scene.transform(WindowTransform((20, 20), (40, 40), (10, 10), 35, NEAREST))
        # rows 10..44 of 40 are rows 10..39, at twice the size; the rest is padded
        expected = np.zeros((35, 35), dtype=np.int32)
        expected[:30, :30] = np.flip(ids, 0).repeat(2, 0).repeat(2, 1)[10:, 10:]
        assert np.array_equal(extract_ids(scene.segment_map), expected)
        channel_by_id = {0: IGNORE_LABEL, **{i: i % 5 for i in range(1, count + 1)}}
        assert np.array_equal(scene.sem_seg, np.vectorize(channel_by_id.get)(expected))
        instances = scene.segment_map.instances(CATEGORIES)
        shown = [i for i in range(1, count + 1) if i % 5 < 3 and (expected == i).any()]
        assert instances.gt_classes.tolist() == [i % 5 for i in shown]
        assert np.array_equal(instances.gt_masks.tensor, np.array([expected == i for i in shown]))


@pytest.mark.parametrize(("resized_hw", "corner_yx"), [((97, 61), (13, 0)), ((33, 21), (0, 0)), ((200, 130), (9, 70))])
def test_the_window_equals_resizing_then_cropping(resized_hw: tuple[int, int], corner_yx: tuple[int, int]) -> None:
    """Pillow rounds between its two passes, so its sums may differ by one level."""
    image = np.random.default_rng(0).integers(0, 256, (57, 37, 3), dtype=np.uint8)
    (top, left), size = corner_yx, 60
    window = WindowTransform((57, 37), resized_hw, corner_yx, size)
    whole = T.ResizeTransform(57, 37, *resized_hw)
    shown = slice(top, top + size), slice(left, left + size)
    image_part, map_part = whole.apply_image(image)[shown], whole.apply_segmentation(image)[shown]
    height, width = image_part.shape[:2]
    got = window.apply_image(image)
    assert np.abs(got[:height, :width].astype(int) - image_part).max() <= 1
    assert (got[height:] == 128).all()
    assert (got[:, width:] == 128).all()
    assert np.array_equal(window.apply_segmentation(image)[:height, :width], map_part)
    grey = window.apply_image(image[..., :1])
    assert np.array_equal(grey[..., 0], got[..., 0])
    corner = window.apply_coords(np.array([[37.0, 57.0]]))
    assert corner.tolist() == [[pytest.approx(resized_hw[1] - left), pytest.approx(resized_hw[0] - top)]]


def build_annotations(ground_truth: PanopticSegmentation) -> list[dict[str, Any]]:
    return [
        {**a, "bbox_mode": BoxMode.XYWH_ABS, "category_id": CATEGORIES.thing_contiguous_ids[a["category_id"]]}
        for a in build_coco_annotations(1, ground_truth)
    ]


@settings(max_examples=60, deadline=None)
@given(ground_truth=segmentations(), seed=st.integers(0, 2**32 - 1))
def test_annotations_move_as_the_map_does(ground_truth: PanopticSegmentation, seed: int) -> None:
    scene = build_scene(ground_truth)
    np.random.seed(seed)  # noqa: NPY002
    transforms = T.AugmentationList([LargeScaleJitter(9), T.RandomFlip()])(scene)
    assert scene.segment_map is not None
    expected = scene.segment_map.instances(CATEGORIES)
    got = build_annotated_instances(build_annotations(ground_truth), transforms, (9, 9), as_masks=True)
    assert torch.equal(got.gt_masks.tensor, expected.gt_masks.tensor)
    assert torch.equal(got.gt_boxes.tensor, expected.gt_boxes.tensor)
    assert got.gt_classes.tolist() == expected.gt_classes.tolist()


def square(left: int, top: int, right: int, bottom: int, category_id: int = 0, **extra: Any) -> dict[str, Any]:
    polygon = [float(x) for x in (left, top, right, top, right, bottom, left, bottom)]
    box = [left, top, right - left, bottom - top]
    return {
        "bbox": box,
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": category_id,
        "segmentation": [polygon],
        "iscrowd": 0,
        **extra,
    }


def test_polygons_are_cut_at_the_window_and_stay_polygons_without_one() -> None:
    """x in [2, 6), y in [1, 5) at twice the size: [4, 12), [2, 10). Less the corner (5, 3): [-1, 7), cut to [0, 7)."""
    cut = T.TransformList([WindowTransform((8, 8), (16, 16), (3, 5), 10)])
    got = build_annotated_instances([square(2, 1, 6, 5), square(0, 0, 2, 1)], cut, (10, 10), as_masks=True)
    expected = np.zeros((10, 10), dtype=bool)
    expected[0:7, 0:7] = True
    assert np.array_equal(got.gt_masks.tensor[0], expected)
    assert got.gt_boxes.tensor.tolist() == [[0, 0, 7, 7]]  # the other box is outside
    whole = T.TransformList([T.ResizeTransform(8, 8, 16, 16)])
    got = build_annotated_instances([square(2, 1, 6, 5)], whole, (16, 16), as_masks=False)
    assert got.gt_masks.polygons[0][0].tolist() == [4, 2, 12, 2, 12, 10, 4, 10]
    assert got.gt_boxes.tensor.tolist() == [[4, 2, 12, 10]]


def test_crowds_of_annotations_are_left_out() -> None:
    crowd = square(0, 0, 4, 4, iscrowd=1)
    for as_masks in (False, True):
        got = build_annotated_instances([crowd], T.TransformList([]), (8, 8), as_masks)
        assert len(got) == 0
        assert got.gt_masks.tensor.shape == (0, 8, 8)
        assert got.gt_boxes.tensor.shape == (0, 4)


def build_sample(ground_truth: PanopticSegmentation, shade: int) -> Sample:
    """A sample whose image has one colour, which identifies it."""
    return Sample(
        np.full((*ground_truth.segment_ids.shape, 3), shade, dtype=np.uint8),
        SegmentMap.from_segmentation(ground_truth),
        None,
    )


@settings(max_examples=150, deadline=None)
@given(below=segmentations(), above=segmentations(), data=st.data())
def test_pasting_equals_pixel_by_pixel_pasting(
    below: PanopticSegmentation, above: PanopticSegmentation, data: st.DataObject
) -> None:
    onto, source = build_sample(below, 1), build_sample(above, 2)
    instances = source.instances(CATEGORIES)
    assert instances is not None
    rows = sorted(data.draw(st.sets(st.sampled_from(range(len(instances)))))) if len(instances) else []
    got = paste(onto, source.image, instances[rows], CATEGORIES)
    size_hw = below.segment_ids.shape
    masks, classes = instances.gt_masks.tensor.numpy(), instances.gt_classes.tolist()
    semantic, colors = onto_channels(below), np.ones(size_hw, dtype=np.uint8)
    owners = below.segment_ids.astype(np.int64)
    for y in range(min(size_hw[0], above.segment_ids.shape[0])):
        for x in range(min(size_hw[1], above.segment_ids.shape[1])):
            for row in rows:
                if masks[row, y, x]:
                    owners[y, x], semantic[y, x], colors[y, x] = -1 - row, classes[row], 2
    assert got.image.shape == (*size_hw, 3)
    assert np.array_equal(got.image[..., 0], colors)
    assert got.segment_map is not None
    assert np.array_equal(got.segment_map.channels(SPACE), semantic)
    expected_instances = [(s.segment_id, s.category_id - 10) for s in below.segments if s.isthing and not s.iscrowd]
    expected_instances += [(-1 - row, classes[row]) for row in rows]
    expected_instances = [(owner, class_id) for owner, class_id in expected_instances if (owners == owner).any()]
    check_partition(
        got, [owners == owner for owner, _ in expected_instances], [class_id for _, class_id in expected_instances]
    )
    assert np.array_equal(onto.image, build_sample(below, 1).image)  # the input is not modified
    assert np.array_equal(extract_ids(onto.segment_map), below.segment_ids)


def onto_channels(ground_truth: PanopticSegmentation) -> np.ndarray:
    channel_by_id = {0: IGNORE_LABEL, **{s.segment_id: s.category_id - 10 for s in ground_truth.segments}}
    return np.array([channel_by_id[i] for i in ground_truth.segment_ids.ravel().tolist()]).reshape(
        ground_truth.segment_ids.shape
    )


def check_partition(sample: Sample, masks: list[np.ndarray], classes: list[int]) -> None:
    instances = sample.instances(CATEGORIES)
    assert instances is not None
    assert sample.segment_map is not None
    assert instances.gt_classes.tolist() == classes
    assert np.array_equal(instances.gt_masks.tensor.numpy(), np.array(masks).reshape(-1, *sample.image.shape[:2]))
    assert torch.equal(instances.gt_masks.get_bounding_boxes().tensor, instances.gt_boxes.tensor)
    if classes:
        assert instances.gt_masks.tensor.sum(0).max() <= 1
    for mask, class_id in zip(instances.gt_masks.tensor.numpy(), classes, strict=True):
        assert (sample.segment_map.channels(SPACE)[mask] == class_id).all()


def test_crowds_and_stuff_are_never_pasted() -> None:
    ids = np.array([[1, 1, 2, 2]], dtype=np.int32)
    ground_truth = PanopticSegmentation(ids, (Segment(1, 10, True, 2, iscrowd=True), Segment(2, 13, False, 2)))
    onto = build_sample(PanopticSegmentation(np.zeros((1, 4), np.int32), ()), 1)
    always = CopyPaste(1.0, [{}], CATEGORIES)
    assert always(onto, lambda record: build_sample(ground_truth, 2)) is onto


def test_pasting_keeps_void_when_segment_numbers_exceed_a_byte() -> None:
    """Padding is 255 in a byte; the 255th segment, which is pasted, must not include the padding."""
    ids = np.arange(1, 255, dtype=np.int32).reshape(1, 254)
    ground_truth = PanopticSegmentation(ids, tuple(Segment(i, 13, False, 1) for i in range(1, 255)))
    scene = build_scene(ground_truth)
    scene.transform(T.PadTransform(0, 0, 3, 0, pad_value=128, seg_pad_value=255))
    mask = torch.zeros((1, 1, 257), dtype=torch.bool)
    mask[0, 0, 0] = True
    pasted = build_instances(BitMasks(mask), torch.tensor([[0.0, 0, 1, 1]]), [2])
    got = paste(Sample(scene.image, scene.segment_map, None), scene.image, pasted, CATEGORIES)
    assert got.segment_map is not None
    assert got.segment_map.channels(SPACE)[0].tolist() == [2, *[3] * 253, *[IGNORE_LABEL] * 3]
    assert got.instances(CATEGORIES).gt_masks.tensor.sum() == 1


def test_annotated_instances_shrink_or_vanish_under_pasted_instances() -> None:
    """Below: A [0, 4) and B [3, 5), which overlap; pasted: [3, 6). A keeps [0, 3), B nothing."""

    def row(begin: int, end: int) -> np.ndarray:
        mask = np.zeros((1, 6), dtype=bool)
        mask[0, begin:end] = True
        return mask

    below = given_instances([row(0, 4), row(3, 5)], [0, 1])
    above = given_instances([row(3, 6)], [2])
    onto = Sample(np.ones((1, 6, 3), np.uint8), None, below)
    got = paste(onto, np.full((1, 6, 3), 2, np.uint8), above, CATEGORIES).instances(CATEGORIES)
    assert got is not None
    assert np.array_equal(got.gt_masks.tensor, [row(0, 3), row(3, 6)])
    assert got.gt_classes.tolist() == [0, 2]
    assert got.gt_boxes.tensor.tolist() == [[0, 0, 3, 1], [3, 0, 6, 1]]
    assert below.gt_masks.tensor.sum().item() == 6  # as before


def given_instances(masks: list[np.ndarray], classes: list[int]) -> Instances:
    tensor = torch.from_numpy(np.stack(masks))
    return build_instances(BitMasks(tensor), torch.zeros((len(masks), 4)), classes)


def test_every_number_of_instances_is_pasted_and_the_probability_is_kept() -> None:
    ids = np.array([[1, 2, 3]], dtype=np.int32)
    ground_truth = PanopticSegmentation(ids, tuple(Segment(i, 10, True, 1) for i in (1, 2, 3)))
    onto = build_sample(PanopticSegmentation(np.zeros((1, 3), np.int32), ()), 1)
    half, seen = CopyPaste(0.5, [{}], CATEGORIES), [0, 0, 0, 0]
    np.random.seed(0)  # noqa: NPY002
    for _ in range(600):
        seen[int((half(onto, lambda record: build_sample(ground_truth, 2)).image[..., 0] == 2).sum())] += 1
    assert 250 < seen[0] < 350  # half of them, within four standard deviations (12)
    assert min(seen[1:]) > 60  # a sixth each: 100, of deviation 9


def test_color_matrices_by_hand() -> None:
    """One pixel of RGB (200, 100, 0) and one of (0, 0, 0). Grey of the first: 59.8 + 58.7 = 118.5; the mean is 59.25.

    Contrast 0: all 59.25. Saturation 0: 118.5 for each channel of the first. Brightness 2 clips 400 to 255.
    """
    image = np.array([[[200, 100, 0], [0, 0, 0]]], dtype=np.uint8)

    def jittered(brightness: float, contrast: float, saturation: float) -> np.ndarray:
        matrix = compute_color_matrix(image, brightness, contrast, saturation, "RGB")
        return matrix[:, :3] @ image[0].T + matrix[:, 3:]

    assert jittered(1, 1, 1).T.tolist() == [[200, 100, 0], [0, 0, 0]]
    assert np.allclose(jittered(2, 1, 1).T, [[400, 200, 0], [0, 0, 0]])
    assert np.allclose(jittered(1, 0, 1), 59.25)
    assert np.allclose(jittered(1, 1, 0).T, [[118.5] * 3, [0] * 3])
    assert np.allclose(jittered(2, 0.5, 1)[0], [0.5 * 400 + 0.5 * 118.5, 0.5 * 118.5])


def test_color_jitter_moves_no_pixel_and_knows_the_order_of_the_channels() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    ground_truth = PanopticSegmentation(np.ones((9, 7), np.int32), (Segment(1, 10, True, 63),))

    def jittered(image: np.ndarray, image_format: str, *spread: float) -> np.ndarray:
        scene = Scene(image, SegmentMap.from_segmentation(ground_truth), SPACE)
        np.random.seed(3)  # noqa: NPY002
        ColorJitter(image_format, *spread)(scene)
        assert np.array_equal(extract_ids(scene.segment_map), ground_truth.segment_ids)
        assert scene.image.shape == image.shape
        assert scene.image.dtype == np.uint8
        return scene.image

    first = jittered(rgb, "RGB", 0.4, 0.4, 0.4)
    second = jittered(np.ascontiguousarray(rgb[..., ::-1]), "BGR", 0.4, 0.4, 0.4)[..., ::-1]
    assert np.abs(first.astype(int) - second).max() <= 1  # sums in another order
    assert not np.array_equal(first, rgb)
    assert np.array_equal(jittered(rgb, "RGB", 0, 0, 0), rgb)
    assert not np.array_equal(jittered(rgb[..., :1].copy(), "L", 0.4, 0.4, 0.4), rgb[..., :1])
    with pytest.raises(ValueError, match="image_format"):
        ColorJitter("YUV-BT.601", 0.1, 0.1, 0.1)


def config(**values: Any) -> Any:
    flat: list[str] = []
    for key, value in values.items():
        flat += [f"INPUT.{key.replace('__', '.')}", str(value)]
    return load_config(opts=["MODEL.META_ARCHITECTURE", "PanopticRCNN", *flat])


@pytest.mark.parametrize("flip", ["horizontal", "vertical", "none"])
@pytest.mark.parametrize("is_train", [True, False])
def test_default_augmentations_equal_detectron2s(flip: str, is_train: bool) -> None:
    cfg = config(RANDOM_FLIP=flip)
    assert [repr(a).replace("SafeResize", "ResizeShortestEdge") for a in build_augmentations(cfg, is_train)] == [
        repr(a) for a in utils.build_augmentation(cfg, is_train)
    ]
    assert build_copy_paste(cfg, [], is_train) is None


def test_our_keys_add_jitter_and_both_flips() -> None:
    cfg = config(RANDOM_FLIP="both", LSJ__ENABLED=True, LSJ__SIZE=64, COLOR_JITTER__CONTRAST=0.2)
    names = [type(a).__name__ for a in build_augmentations(cfg, True)]
    assert names == ["LargeScaleJitter", "RandomFlip", "RandomFlip", "ColorJitter"]
    assert [type(a).__name__ for a in build_augmentations(cfg, False)] == ["SafeResize"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"RANDOM_FLIP": "sideways"}, "INPUT.RANDOM_FLIP: expected one of none, horizontal"),
        ({"LSJ__ENABLED": True, "LSJ__SIZE": 0}, "INPUT.LSJ.SIZE"),
        ({"LSJ__ENABLED": True, "LSJ__MIN_SCALE": 3.0}, "MIN_SCALE <= MAX_SCALE, got 3.0..2.0"),
        ({"LSJ__ENABLED": True, "CROP__ENABLED": True}, "both enabled"),
        ({"LSJ__ENABLED": True, "FORMAT": "YUV-BT.601"}, "INPUT.FORMAT"),
        ({"COLOR_JITTER__SATURATION": 1.5}, "INPUT.COLOR_JITTER.SATURATION"),
        ({"COLOR_JITTER__SATURATION": float("nan")}, "INPUT.COLOR_JITTER.SATURATION"),
        ({"COLOR_JITTER__SATURATION": 0.5, "FORMAT": "YUV-BT.601"}, "INPUT.FORMAT"),
        ({"COPY_PASTE__PROBABILITY": -0.1}, "INPUT.COPY_PASTE.PROBABILITY"),
        ({"FORMAT": "P"}, "INPUT.FORMAT: expected one of BGR, RGB"),
        ({"CROP__ENABLED": True, "CROP__TYPE": "foo"}, "INPUT.CROP.TYPE: expected one of relative"),
        ({"CROP__ENABLED": True, "CROP__SIZE": [512, 1024]}, "INPUT.CROP.SIZE: expected the least height and width as"),
        ({"CROP__ENABLED": True, "CROP__SIZE": [3]}, "INPUT.CROP.SIZE"),
        ({"CROP__ENABLED": True, "CROP__TYPE": "relative", "CROP__SIZE": [1.5, 1.5]}, "INPUT.CROP.SIZE"),
        ({"CROP__ENABLED": True, "CROP__TYPE": "absolute", "CROP__SIZE": [0.5, 0.5]}, "height and width in pixels"),
        ({"CROP__ENABLED": True, "CROP__TYPE": "absolute", "CROP__SIZE": [-5, 10]}, "INPUT.CROP.SIZE"),
        ({"CROP__ENABLED": True, "CROP__TYPE": "absolute_range", "CROP__SIZE": [30, 10]}, "the least and the largest"),
        ({"MIN_SIZE_TRAIN": ()}, "INPUT.MIN_SIZE_TRAIN: expected one or more lengths"),
        ({"MIN_SIZE_TRAIN": (-5,)}, "INPUT.MIN_SIZE_TRAIN"),
        ({"MIN_SIZE_TRAIN": (1, 2, 3), "MIN_SIZE_TRAIN_SAMPLING": "range"}, "a least and a largest length"),
        ({"MIN_SIZE_TRAIN_SAMPLING": "foo"}, "INPUT.MIN_SIZE_TRAIN_SAMPLING"),
        ({"MAX_SIZE_TRAIN": 0}, "INPUT.MAX_SIZE_TRAIN"),
    ],
)
def test_values_out_of_range_are_rejected(values: dict[str, Any], message: str) -> None:
    cfg = config()
    for key, value in values.items():
        node = cfg.INPUT
        *path, last = key.split("__")
        for name in path:
            node = node[name]
        node[last] = value
    build = (lambda: build_copy_paste(cfg, [], True)) if "COPY" in message else lambda: build_augmentations(cfg, True)
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize("is_last", [False, True])
def test_the_crop_is_cut_before_or_after_the_resize(is_last: bool) -> None:
    cfg = config(MIN_SIZE_TRAIN=(20,), RANDOM_FLIP="none")
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", [8, 16]
    cfg.INPUT.CROP.AFTER_RESIZE = is_last
    sample = T.AugInput(np.zeros((40, 80, 3), np.uint8))
    T.AugmentationList(build_augmentations(cfg, True))(sample)
    assert sample.image.shape == ((8, 16, 3) if is_last else (20, 40, 3))


@pytest.mark.parametrize("recipe", ["panoptic_rcnn_R50_FPN", "semantic_fpn_R50", "deeplab_v3_plus_R103"])
def test_recipes_for_cityscapes_crop_the_scaled_image(recipe: str) -> None:
    """Detectron2's DeepLab project resizes first; Panoptic FPN has "512 x 1024 crops ... after randomly scaling"."""
    cfg = load_config(f"cityscapes/{recipe}", ["INPUT.MIN_SIZE_TRAIN", "(640,)"])
    sample = T.AugInput(np.zeros((1024, 2048, 3), np.uint8))
    T.AugmentationList(build_augmentations(cfg, True))(sample)
    assert sample.image.shape == (512, 1024, 3)


def test_a_share_of_a_small_image_is_a_pixel_at_least() -> None:
    cfg = config()
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "relative", [0.01, 0.5]
    crop = build_augmentations(cfg, True)[0]
    assert crop.get_transform(np.zeros((40, 8, 3), np.uint8)).apply_image(np.zeros((40, 8, 3))).shape == (1, 4, 3)


@pytest.mark.parametrize("size_hw", [(2, 20000), (20000, 2), (1, 1)])
@pytest.mark.parametrize("is_train", [True, False])
def test_the_short_side_of_a_long_image_is_a_pixel_at_least(is_train: bool, size_hw: tuple[int, int]) -> None:
    image = np.full((*size_hw, 3), 7, dtype=np.uint8)
    transforms = T.AugmentationList(build_augmentations(config(), is_train))(T.AugInput(image))
    resized = transforms.apply_image(image)
    assert min(resized.shape[:2]) >= 1
    assert max(resized.shape[:2]) == (1333 if max(size_hw) > 1 else 800)
    assert (resized == 7).all()


def test_a_crop_by_semantics_needs_them(toy_folder: Path) -> None:
    cfg = config(CROP__ENABLED=True)
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 0.9
    instances = load_coco_instances("toy", toy_folder / "instances.json", toy_folder / "images")
    with pytest.raises(ConfigError, match=r"SINGLE_CATEGORY_MAX_AREA: the training dataset has no semantic labels"):
        SegkitMapper.from_config(cfg, instances, is_train=True)
    sample = SegkitMapper.from_config(cfg, panoptic(toy_folder), is_train=True)(panoptic(toy_folder).records[0])
    assert sample["sem_seg"].shape == sample["image"].shape[1:]


def panoptic(folder: Path) -> Dataset:
    return load_coco_panoptic("toy", folder / "panoptic.json", folder / "panoptic")


def panoptic_with_instances(folder: Path) -> Dataset:
    return load_coco_panoptic(
        "toy", folder / "panoptic.json", folder / "panoptic", instances_json=folder / "instances.json"
    )


def instances_alone(folder: Path) -> Dataset:
    return load_coco_instances("toy", folder / "instances.json", folder / "images")


def everything() -> Any:
    return config(
        LSJ__ENABLED=True,
        LSJ__SIZE=96,
        LSJ__MIN_SCALE=0.5,
        RANDOM_FLIP="both",
        COLOR_JITTER__BRIGHTNESS=0.3,
        COPY_PASTE__PROBABILITY=1.0,
    )


@pytest.mark.parametrize("load", [panoptic, panoptic_with_instances, instances_alone])
def test_everything_at_once_on_every_kind_of_dataset(load: Callable[[Path], Dataset], toy_folder: Path) -> None:
    dataset = load(toy_folder)
    mapper = SegkitMapper.from_config(everything(), dataset, is_train=True)
    plain = [len(SegkitMapper(dataset.categories, mapper.space, [])(r)["instances"]) for r in dataset.records]
    np.random.seed(7)  # noqa: NPY002
    samples = [mapper(record) for record in dataset.records]
    for sample in samples:
        masks, boxes = sample["instances"].gt_masks.tensor, sample["instances"].gt_boxes.tensor
        assert sample["image"].shape == (3, 96, 96)
        assert masks.shape[1:] == (96, 96)
        assert masks.flatten(1).any(1).all()
        assert torch.equal(sample["instances"].gt_masks.get_bounding_boxes().tensor, boxes)
        if "sem_seg" in sample:
            assert (sample["sem_seg"][masks.any(0)] == 0).all()
            assert masks.sum(0).max() <= 1
    assert ("sem_seg" in samples[0]) == (load is not instances_alone)
    assert any(len(s["instances"]) > count for s, count in zip(samples, plain, strict=True))


def test_annotations_and_map_agree_through_pasting(toy_folder: Path) -> None:
    """The toy instances equal those of the map, so both ways of pasting give the same sample."""
    cfg, samples = everything(), []
    for load in (panoptic, panoptic_with_instances):
        dataset = load(toy_folder)
        mapper = SegkitMapper.from_config(cfg, dataset, is_train=True)
        np.random.seed(11)  # noqa: NPY002
        samples.append([mapper(record) for record in dataset.records])
    for first, second in zip(*samples, strict=True):
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["sem_seg"], second["sem_seg"])
        assert torch.equal(first["instances"].gt_masks.tensor, second["instances"].gt_masks.tensor)
        assert torch.equal(first["instances"].gt_boxes.tensor, second["instances"].gt_boxes.tensor)
        assert first["instances"].gt_classes.tolist() == second["instances"].gt_classes.tolist()


def test_one_seed_gives_one_sequence_and_each_worker_its_own(toy_folder: Path) -> None:
    dataset = panoptic(toy_folder)
    mapper = SegkitMapper.from_config(everything(), dataset, is_train=True)

    def images(seed: int) -> list[torch.Tensor]:
        """The first record, thrice by each of two workers."""
        loader = torch.utils.data.DataLoader(
            MapDataset([dataset.records[0]] * 6, mapper),
            batch_size=None,
            num_workers=2,
            worker_init_fn=worker_init_reset_seed,
            generator=torch.Generator().manual_seed(seed),
        )
        return [sample["image"] for sample in loader]

    first, again, other = images(1), images(1), images(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({image.numpy().tobytes() for image in first}) == 6
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
