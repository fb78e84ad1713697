"""One order of images: numbers before strings."""

import pytest

from segkit.metrics.image_order import places_by_id
from segkit.structures import DatasetError


def test_numbers_come_before_strings_each_ascending():
    ids = ["b", 10, "a", 9, "10"]
    assert [ids[place] for place in places_by_id(ids)] == [9, 10, "10", "a", "b"]
    assert places_by_id([]).tolist() == []


def test_an_image_twice_is_refused():
    with pytest.raises(DatasetError, match="image 3: expected every image once"):
        places_by_id([3, 3])
