"""Per-image state of metrics: each image once, in order."""

import numpy as np
import pytest

from segkit.metrics.state import PerImage, argsort_image_ids
from segkit.utils.errors import DatasetError


def build_images(*image_ids):
    images = PerImage()
    for image_id in image_ids:
        images.add(image_id, f"value of {image_id}")
    return images


def test_order_of_adding_and_a_stated_order():
    images = build_images(3, "3", 1)
    images.merge(build_images(2))
    assert images.ids() == [3, "3", 1, 2]
    assert images.in_order([1, 2, "3", 3])[:2] == [(1, "value of 1"), (2, "value of 2")]


def test_the_same_image_twice():
    with pytest.raises(DatasetError, match=r"^image 'a': expected every image once"):
        build_images("a", "a")


def test_merging_overlapping_shards_changes_nothing():
    images = build_images(1, 2)
    with pytest.raises(DatasetError, match="got 2 in both"):
        images.merge(build_images(5, 2))
    assert images.ids() == [1, 2]


@pytest.mark.parametrize(
    ("image_order", "message"),
    [
        ([1, 2, 3], "not scored: 3"),
        ([1, "2"], "not scored: '2'"),
        ([1, 2, 1], "more than once: 1"),
        ([1], "lacks scored images: 2"),
        ([], "lacks scored images: 1, 2"),
        ([*range(1, 10)], "3, 4, 5, 6, 7 and 2 more"),
    ],
)
def test_an_order_must_name_every_image_once(image_order, message):
    with pytest.raises(DatasetError, match=message):
        build_images(1, 2).in_order(image_order)


def test_numbers_come_before_strings_each_ascending():
    ids = ["b", 10, "a", 9, "10"]
    assert [ids[index] for index in argsort_image_ids(ids)] == [9, 10, "10", "a", "b"]
    assert argsort_image_ids([]).tolist() == []


def test_an_image_twice_is_rejected():
    with pytest.raises(DatasetError, match="image 3: expected every image once"):
        argsort_image_ids([3, 3])


def test_numpy_ids_become_python_types():
    images = build_images(np.int64(3), np.str_("a"))
    assert [type(image_id) for image_id in images.ids()] == [int, str]
    assert np.int64(3) in images
    with pytest.raises(DatasetError, match=r"^image 3: expected every image once"):
        images.add(3, "again")


@pytest.mark.parametrize("image_id", [None, float("nan"), 1.0, True, [1], b"a"])
def test_other_ids_are_rejected(image_id):
    with pytest.raises(ValueError, match="image_id must be an int or a string, got "):
        PerImage().add(image_id, "value")
