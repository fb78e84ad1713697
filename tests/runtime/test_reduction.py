"""`reduce_prediction`: every Nth pixel of the map, the instances, the classes and the image."""

from __future__ import annotations

import numpy as np

from segkit.runtime.prediction import Prediction
from segkit.runtime.reduction import reduce_prediction
from segkit.structures import Category, CategorySet, InstanceMasks, PanopticSegmentation, Segment

CATEGORIES = CategorySet([Category(3, "cat", True, (200, 0, 0)), Category(5, "sky", False, (0, 0, 200))])
SIZE = 7, 10


def test_every_third_pixel_is_kept() -> None:
    """7 x 10 pixels with at most 12: steps of 3, for rows 0, 3, 6 and columns 0, 3, 6, 9."""
    random = np.random.default_rng(0)
    ids = random.integers(0, 3, SIZE, dtype=np.int32)
    semantic = random.integers(0, 2, SIZE).astype(np.uint8)
    image = random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    masks = random.random((3, *SIZE)) < 0.5
    masks[2] = False
    masks[2, 1:3, 4:6] = True  # between the kept pixels
    boxes = np.array([[0, 0, 9, 6]] * 3, dtype=np.float32)
    instances = InstanceMasks.from_full(masks, boxes, np.ones(3, np.float32), np.zeros(3, np.int64))
    segments = Segment(1, 3, True, 1, score=0.5), Segment(2, 5, False, 1)
    space = CATEGORIES.build_semantic_space("per_class")
    panoptic = PanopticSegmentation(ids, segments)
    prediction = Prediction(SIZE, CATEGORIES, panoptic, instances, semantic, space, "x.png", lambda: image)
    assert reduce_prediction(prediction, 70) is prediction
    reduced = reduce_prediction(prediction, 12)
    assert reduced.size_hw == (3, 4)
    assert reduced.panoptic is not None
    assert reduced.panoptic.segments == segments
    np.testing.assert_array_equal(reduced.segment_ids, ids[::3, ::3])
    np.testing.assert_array_equal(reduced.semantic, semantic[::3, ::3])
    np.testing.assert_array_equal(reduced.image, image[::3, ::3])
    assert reduced.instances is not None
    for row, mask in enumerate(masks):
        whole = np.zeros((3, 4), np.bool_)
        whole[reduced.instances.window(row)] = reduced.instances.crops[row]
        np.testing.assert_array_equal(whole, mask[::3, ::3])
    assert reduced.plot().size == (4, 3)
    empty = reduce_prediction(Prediction(SIZE, CATEGORIES), 12)
    assert (empty.size_hw, empty.plot().size) == ((3, 4), (4, 3))
