"""One-row maps, drawn by hand and at random, as tables of overlaps."""

import numpy as np
from hypothesis import strategies as st

from segkit.metrics import PanopticQuality
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment

CAR, DOG, SKY, SEA = 1, 17, 90, 200
NAMES = {CAR: "car", DOG: "dog", SKY: "sky", SEA: "sea"}
CATEGORIES = CategorySet(Category(i, name, i in (CAR, DOG), (0, 0, 0)) for i, name in NAMES.items())
WIDTH = 24


def row(*runs, crowds=()):
    """Returns a one-row map of runs (category_id, segment_id, pixels); (0, 0, pixels) is void; segments may repeat."""
    ids = np.repeat([segment_id for _, segment_id, _ in runs], [pixels for _, _, pixels in runs])
    return build_from_ids(ids.astype(np.int32), {i: category_id for category_id, i, _ in runs if i}, crowds)


def build_from_ids(ids, category_of, crowds=()):
    segments = [
        Segment(i, category_id, category_id in (CAR, DOG), int((ids == i).sum()), iscrowd=i in crowds)
        for i, category_id in category_of.items()
    ]
    return PanopticSegmentation(ids.reshape(1, -1), tuple(segments))


def build_table(images, mode="reference"):
    """Returns the table of images: image_id -> (ground truth, prediction), or a single pair."""
    metric = build_metric(images, mode)
    return metric.table(list(images) if isinstance(images, dict) else [1])


def build_metric(images, mode="reference"):
    metric = PanopticQuality(CATEGORIES, mode)
    for image_id, pair in (images if isinstance(images, dict) else {1: images}).items():
        metric.update(image_id, *pair)
    return metric


@st.composite
def segmentations(draw, near=None):
    """Draws runs of up to six segments; with `near`, a copy of it with its categories and some runs overwritten."""
    runs = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 8)), min_size=4, max_size=12))
    ids = np.resize(np.repeat(*np.array(runs).T), WIDTH).astype(np.int32)
    near_categories = {}
    if near is not None:
        start, stop = sorted(draw(st.tuples(*[st.integers(0, WIDTH)] * 2)))
        unchanged = (np.arange(WIDTH) < start) | (np.arange(WIDTH) >= stop)
        ids = np.where(unchanged, near.segment_ids[0], ids).astype(np.int32)
        near_categories = {s.segment_id: s.category_id for s in near.segments}
    categories = st.sampled_from([CAR, CAR, DOG, SKY])
    category_of = {i: near_categories.get(i) or draw(categories) for i in np.unique(ids).tolist() if i}
    return build_from_ids(ids, category_of, [i for i in category_of if draw(st.integers(0, 7)) == 0])


@st.composite
def scored_images(draw, least=1):
    """image_id -> (ground truth, prediction)."""
    images = {}
    for image_id in range(draw(st.integers(least, 4))):
        ground_truth = draw(segmentations())
        images[image_id] = (
            ground_truth,
            draw(segmentations(near=draw(st.sampled_from([None, ground_truth, ground_truth])))),
        )
    return images
