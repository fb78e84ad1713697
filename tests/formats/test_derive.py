from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.formats.derive import build_coco_annotations, build_semantic_map, relabel
from segkit.structures import (
    IGNORE_LABEL,
    MAX_SEGMENT_ID,
    Category,
    CategorySet,
    PanopticSegmentation,
    Segment,
    rle_to_mask,
)
from tests.helpers.coco_samples import first_image

MAPS = hnp.arrays(
    np.int32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7),
    elements=st.sampled_from([0, 1, 2, 300, MAX_SEGMENT_ID]),
)


@given(MAPS)
def test_relabel_is_a_lookup(segment_ids: np.ndarray) -> None:
    values = {1: 9, 300: 200, MAX_SEGMENT_ID: 65535}
    expected = np.vectorize(lambda i: values.get(int(i), 0), otypes=[np.uint16])(segment_ids)
    labels = relabel(segment_ids, values, np.uint16)
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(("in_map", "in_values"), [(-1, 1), (MAX_SEGMENT_ID + 1, 1), (1, -1), (1, MAX_SEGMENT_ID + 1)])
def test_relabel_raises_an_error_for_ids_out_of_range(in_map: int, in_values: int) -> None:
    with pytest.raises(ValueError, match="segment ids must be in"):
        relabel(np.array([[in_map]], dtype=np.int32), {in_values: 1}, np.uint8)


def test_semantic_map_with_one_channel_for_things(categories: CategorySet) -> None:
    # things (person, cat crowd) 0; sky is the first stuff, 1; void 255.
    expected = [[1, 1, 1, 255], [0, 0, 1, 255], [0, 0, 0, 0]]
    labels = build_semantic_map(first_image(), categories.build_semantic_space())
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)


def test_semantic_map_with_a_channel_per_class(categories: CategorySet) -> None:
    # person 0, cat 1, sky 2, grass 3.
    expected = [[2, 2, 2, 255], [0, 0, 2, 255], [0, 0, 1, 1]]
    np.testing.assert_array_equal(
        build_semantic_map(first_image(), categories.build_semantic_space("per_class")), expected
    )


def test_semantic_map_of_void_is_void(categories: CategorySet) -> None:
    void = PanopticSegmentation(np.zeros((2, 3), dtype=np.int32), ())
    np.testing.assert_array_equal(
        build_semantic_map(void, categories.build_semantic_space()), np.full((2, 3), IGNORE_LABEL)
    )


def test_more_than_255_channels_and_unknown_categories_raise_an_error(categories: CategorySet) -> None:
    def build_stuff_categories(count: int) -> CategorySet:
        return CategorySet(Category(i + 1, str(i), False, (0, 0, 0)) for i in range(count))

    last = PanopticSegmentation(np.array([[9]], dtype=np.int32), (Segment(9, 254, False, 1),))
    assert build_semantic_map(last, build_stuff_categories(254).build_semantic_space()).tolist() == [[254]]
    with pytest.raises(ValueError, match="at most 255 channels, got 256"):
        build_semantic_map(last, build_stuff_categories(255).build_semantic_space())
    with pytest.raises(ValueError, match=r"category ids of the space, got \[254\]"):
        build_semantic_map(last, categories.build_semantic_space())


def test_coco_annotations_are_the_things() -> None:
    crowd, person = build_coco_annotations("x", first_image())
    assert {key: crowd[key] for key in crowd if key != "segmentation"} == {
        "image_id": "x",
        "category_id": 3,
        "iscrowd": 1,
        "area": 2,
        "bbox": [2, 2, 2, 1],
    }
    assert (person["category_id"], person["iscrowd"], person["area"], person["bbox"]) == (1, 0, 4, [0, 1, 2, 2])
    np.testing.assert_array_equal(rle_to_mask(person["segmentation"]), first_image().segment_ids == 7)
    np.testing.assert_array_equal(rle_to_mask(crowd["segmentation"]), first_image().segment_ids == 300)


def test_coco_annotations_leave_out_segments_without_a_pixel() -> None:
    empty_segment = PanopticSegmentation(np.zeros((2, 2), dtype=np.int32), (Segment(4, 1, True, 0),))
    assert build_coco_annotations(1, empty_segment) == []
