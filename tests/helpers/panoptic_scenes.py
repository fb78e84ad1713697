"""Literal and random panoptic scenes, and their scores by panopticapi."""

import contextlib
import io
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segkit.metrics import PanopticQuality
from segkit.structures import MAX_SEGMENT_ID, Category, CategorySet, PanopticSegmentation, Segment
from segkit.structures import ids_to_rgb as to_rgb

try:
    from panopticapi import evaluation as panopticapi
except ImportError:
    panopticapi = None
needs_panopticapi = pytest.mark.skipif(panopticapi is None, reason="panopticapi is not installed: no oracle for PQ")

CAR, DOG, SKY, SEA = 1, 17, 90, 200
NAMES = {CAR: "car", DOG: "dog", SKY: "sky", SEA: "sea"}
CATEGORIES = CategorySet(Category(i, name, i in (CAR, DOG), (0, 0, 0)) for i, name in NAMES.items())


def panoptic(rows, crowds=(), area_px=None, **category_of):
    """PanopticSegmentation of literal rows; s5=CAR makes segment 5 a car."""
    ids = np.array(rows, dtype=np.int32)
    segments = []
    for name, category_id in category_of.items():
        segment_id = int(name[1:])
        area = int((ids == segment_id).sum()) if area_px is None else area_px
        isthing = category_id in (CAR, DOG)
        segments.append(Segment(segment_id, category_id, isthing, area, iscrowd=segment_id in crowds))
    return PanopticSegmentation(ids, tuple(segments))


def score(ground_truth, prediction, categories=CATEGORIES):
    metric = PanopticQuality(categories)
    metric.update(1, ground_truth, prediction)
    return metric.compute()


def counts(results, category_id):
    item = results["per_class"][str(category_id)]
    return item["tp"], item["fp"], item["fn"]


GROUND_TRUTH = panoptic([[1, 1, 2, 2], [1, 1, 2, 2], [0, 0, 3, 3], [3, 3, 3, 3]], s1=CAR, s2=CAR, s3=SKY)
PREDICTION = panoptic([[5, 5, 6, 6], [5, 5, 6, 9], [5, 5, 8, 8], [8, 8, 8, 9]], s5=CAR, s6=CAR, s8=SKY, s9=CAR)
ONE = panoptic([[1, 1]], s1=CAR)


def reference(images, categories=CATEGORIES):
    """Returns panopticapi's PQStat of (ground truth, prediction) pairs, from PNGs, with areas counted in the maps."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        pairs = []
        for index, pair in enumerate(images):
            pairs.append([])
            for role, item in zip(("ground_truth", "prediction"), pair, strict=True):
                name = f"{role}_{index}.png"
                Image.fromarray(to_rgb(item.segment_ids)).save(Path(folder) / name)
                infos = [
                    {"id": s.segment_id, "category_id": s.category_id, "iscrowd": int(s.iscrowd)}
                    | {"area": int((item.segment_ids == s.segment_id).sum())}
                    for s in item.segments
                ]
                pairs[-1].append({"file_name": name, "segments_info": infos, "image_id": index})
        by_id = {entry["id"]: entry for entry in categories.to_coco()}
        return by_id, panopticapi.pq_compute_single_core(0, pairs, folder, folder, by_id)


def assert_equals_reference(results, by_id, stat):
    for suffix, isthing in (("", None), ("_th", True), ("_st", False)):
        try:
            average, _ = stat.pq_average(by_id, isthing)
        except ZeroDivisionError:
            average = None
        for name in ("PQ", "SQ", "RQ"):
            assert results[name + suffix] == (None if average is None else 100 * average[name.lower()])
    for category_id in by_id:
        item, expected = results["per_class"][str(category_id)], stat[category_id]
        assert (item["tp"], item["fp"], item["fn"]) == (expected.tp, expected.fp, expected.fn)
        if expected.tp:
            assert item["SQ"] == 100 * (expected.iou / expected.tp)


SEGMENT_IDS = st.sampled_from([1, 2, 3, 255, 256, 65536, MAX_SEGMENT_ID])


@st.composite
def segmentations(draw, shape, near=None):
    """Draws a map of up to 5 ids; with `near`, perhaps a copy of it with some pixels changed."""
    palette = [0, *draw(st.lists(SEGMENT_IDS, min_size=1, max_size=5, unique=True))]
    ids = draw(hnp.arrays(np.int32, shape, elements=st.sampled_from(palette)))
    categories = st.sampled_from([CAR, DOG, SKY])
    known_ids = {}
    if near is not None and draw(st.booleans()):
        unchanged = draw(hnp.arrays(np.bool_, shape, elements=st.sampled_from([True, True, True, False])))
        ids = np.where(unchanged, near.segment_ids, ids)
        known_ids = {s.segment_id: s.category_id for s in near.segments}
    present = draw(st.permutations([i for i in np.unique(ids).tolist() if i]))
    segments = [
        Segment(i, known_ids.get(i) or draw(categories), draw(st.booleans()), 0, iscrowd=draw(st.integers(0, 3)) == 0)
        for i in present
    ]
    return PanopticSegmentation(ids, tuple(segments))


@st.composite
def videos(draw):
    """One to three videos of one to five frames of 2 x 3 pixels; an id keeps its category within a video."""
    clips = []
    for _ in range(draw(st.integers(1, 3))):
        category_of = {i: draw(st.sampled_from([CAR, DOG, SKY])) for i in (1, 2, 3, 255, 256, 65536, 2**24 - 1)}
        clip = []
        for _ in range(draw(st.integers(1, 5))):
            ground_truth = draw(segmentations((2, 3)))
            frames = ground_truth, draw(segmentations((2, 3), near=ground_truth))
            clip.append([_recolor(frame, category_of) for frame in frames])
        clips.append(clip)
    return clips


def _recolor(segmentation, category_of):
    segments = [replace(segment, category_id=category_of[segment.segment_id]) for segment in segmentation.segments]
    return replace(segmentation, segments=tuple(segments))


@st.composite
def scored_images(draw):
    images = []
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6))
        ground_truth = draw(segmentations(shape))
        images.append((ground_truth, draw(segmentations(shape, near=ground_truth))))
    return images


def blobs(seed, images=12, side=64, segments=25):
    """Larger scenes, predictions shifted by a pixel or two: many matches, whose IoUs do not add exactly."""
    rng = np.random.default_rng(seed)
    for _ in range(images):
        ids = np.zeros((side, side), dtype=np.int32)
        for segment_id in range(1, segments):
            top, left, height, width = rng.integers([0, 0, 6, 6], [side, side, 30, 30])
            ids[top : top + height, left : left + width] = segment_id * 1000
        shifted = np.roll(ids, rng.integers(-2, 3, size=2), axis=(0, 1))
        yield tuple(
            PanopticSegmentation(
                item, tuple(Segment(i, (CAR, DOG, SKY, SEA)[i % 3], True, 0) for i in np.unique(item).tolist() if i)
            )
            for item in (ids, shifted)
        )


def computed(images, **options):
    metric = PanopticQuality(CATEGORIES, **options)
    for image_id, pair in images:
        metric.update(image_id, *pair)
    return metric
