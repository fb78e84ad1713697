"""CategorySet: conversion between category ids and contiguous ids, as Detectron2 defines them."""

from __future__ import annotations

from typing import Any

import pytest

from segkit.structures import Category, CategorySet, default_color
from segkit.utils.errors import DatasetError

SMALL = CategorySet(
    [
        Category(9, "sky", False, (0, 0, 255)),
        Category(3, "cat", True, (255, 0, 0)),
        Category(5, "sea", False, (0, 255, 0)),
    ]
)


def test_contiguous_ids_are_detectron2s() -> None:
    builtin_meta = pytest.importorskip("detectron2.data.datasets.builtin_meta", reason="compares with Detectron2")
    from segkit.data.datasets.coco import CATEGORIES

    meta = builtin_meta._get_builtin_metadata("coco_panoptic_separated")
    assert CATEGORIES.thing_contiguous_ids == meta["thing_dataset_id_to_contiguous_id"]
    stuff = {k: v for k, v in meta["stuff_dataset_id_to_contiguous_id"].items() if v}
    assert stuff == CATEGORIES.stuff_contiguous_ids
    names = [n.replace("-other", "").replace("-merged", "") for n in CATEGORIES.build_semantic_space().names]
    assert names == meta["stuff_classes"]


def test_ids_are_converted_in_both_directions() -> None:
    assert [SMALL.category_id(0, True), SMALL.category_id(1, False), SMALL.category_id(2, False)] == [3, 5, 9]
    for bad in ((1, True), (0, False), (3, False), (-1, True)):
        with pytest.raises(IndexError, match="contiguous id"):
            SMALL.category_id(*bad)


def test_semantic_spaces() -> None:
    shared, per_class = SMALL.build_semantic_space("one"), SMALL.build_semantic_space("per_class")
    assert (shared.names, shared.channel_by_category) == (("things", "sea", "sky"), {3: 0, 5: 1, 9: 2})
    assert (per_class.names, per_class.channel_by_category) == (("cat", "sea", "sky"), {3: 0, 5: 1, 9: 2})
    assert (shared.stuff_ids.tolist(), per_class.stuff_ids.tolist()) == ([0, 1, 2], [0, 1, 2])
    with pytest.raises(ValueError, match="'one' or 'per_class'"):
        SMALL.build_semantic_space("both")


def test_through_coco_and_back() -> None:
    assert CategorySet.from_coco(SMALL.to_coco(), "x.json") == SMALL
    assert CategorySet([SMALL[3], SMALL[5]]) != SMALL
    assert 5 in SMALL
    assert 4 not in SMALL
    assert SMALL[5].name == "sea"


def test_a_missing_color_is_replaced_by_the_default() -> None:
    (category,) = CategorySet.from_coco([{"id": 7, "name": "x"}], "x.json").categories
    assert category.isthing
    assert category.color == default_color(7) != default_color(8)


def test_supercategories_are_kept_and_ignored_by_comparisons() -> None:
    entry = {"id": 7, "name": "x", "isthing": 1, "color": [1, 2, 3]}
    with_group = CategorySet.from_coco([{**entry, "supercategory": "animal"}], "x.json")
    without, malformed = (CategorySet.from_coco([table], "x.json") for table in (entry, {**entry, "supercategory": 5}))
    assert with_group.to_coco() == [{**entry, "supercategory": "animal"}]
    assert without.to_coco() == malformed.to_coco() == [entry]
    assert with_group == without


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([], "at least one category"),
        ("abc", "to be a list"),
        ([{"id": 1}], "id and name"),
        ([7], "id and name"),
        ([{"id": "1", "name": "a"}], "integer category id"),
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], r"\[1\] more than once"),
        ([{"id": 1, "name": "a", "color": "red!"}], "three numbers"),
        ([{"id": 1, "name": "a", "color": [1, 2]}], "three numbers"),
    ],
)
def test_invalid_categories_are_rejected(categories: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        CategorySet.from_coco(categories, "x.json")


@pytest.mark.parametrize("category_id", [2**63, -(2**70)])
def test_ids_beyond_63_bits_are_rejected(category_id):
    with pytest.raises(DatasetError, match="expected a category id of 63 bits"):
        CategorySet.from_coco([{"id": category_id, "name": "huge", "isthing": 1}], "a.json")


def test_names_with_invalid_unicode_are_rejected() -> None:
    """JSON can hold half of a surrogate pair; a terminal or a file in UTF-8 cannot."""
    with pytest.raises(DatasetError, match="valid Unicode"):
        CategorySet.from_coco([{"id": 1, "name": "\ud800"}], "x.json")
