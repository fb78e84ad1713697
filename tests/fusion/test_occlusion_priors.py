"""Occlusion priors: hand-drawn maps, comparison with a slow simple version, and errors of the file."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.fusion.occlusion_priors import OcclusionCounter, OcclusionPriors
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment, mask_to_rle
from segkit.utils.errors import DatasetError

PERSON, TIE, TABLE, WALL = 1, 32, 67, 171
CATEGORIES = CategorySet(
    Category(category_id, name, category_id != WALL, (0, 0, 0))
    for category_id, name in ((TIE, "tie"), (WALL, "wall"), (PERSON, "person"), (TABLE, "dining table"))
)
THINGS = ((PERSON, "person"), (TIE, "tie"), (TABLE, "dining table"))


def ground_truth(segment_ids: Any, category_ids: dict[int, int], crowds: tuple[int, ...] = ()) -> PanopticSegmentation:
    ids = np.array(segment_ids, dtype=np.int32)
    return PanopticSegmentation(
        ids,
        tuple(
            Segment(segment_id, category_id, category_id != WALL, int((ids == segment_id).sum()), segment_id in crowds)
            for segment_id, category_id in category_ids.items()
        ),
    )


def drawn(*masks: tuple[int, Any]) -> list[tuple[int, dict[str, Any]]]:
    return [(category_id, mask_to_rle(np.array(mask, dtype=bool))) for category_id, mask in masks]


def counted(*images: Any, min_overlap: float = 0.2) -> dict[tuple[int, int], int]:
    priors = OcclusionCounter(CATEGORIES, min_overlap)
    for image in images:
        priors.update(*image)
    return dict(priors.compute().counts)


WORN = ground_truth([[5, 5, 9, 5, 5, 7]], {5: PERSON, 9: TIE, 7: WALL})  # segment ids are any
BODY, CHEST = [[1, 1, 1, 1, 1, 0]], [[0, 0, 1, 0, 0, 0]]


def test_the_owner_of_the_common_pixels_wins() -> None:
    """Body and tie share column 2, all of the tie; the map gives it to the tie."""
    assert counted((WORN, drawn((PERSON, BODY), (TIE, CHEST)))) == {(TIE, PERSON): 1}


def test_the_majority_of_common_pixels_decides_and_ties_do_not_count() -> None:
    """Common: columns 1 to 4. Person 5 owns 2 of them and the tie 1, column 4 is void: the person occludes the
    tie. If column 4 is the tie's, it is 2 and 2."""
    masks = drawn((PERSON, [[1, 1, 1, 1, 1]]), (TIE, [[0, 1, 1, 1, 1]]))
    assert counted((ground_truth([[5, 5, 5, 9, 0]], {5: PERSON, 9: TIE}), masks)) == {(PERSON, TIE): 1}
    assert counted((ground_truth([[5, 5, 5, 9, 9]], {5: PERSON, 9: TIE}), masks)) == {}


def test_pairs_below_the_minimum_overlap_are_ignored() -> None:
    """They share 1 pixel, the smaller mask has 5: 0.2 is enough, at 0.21 it is not."""
    masks = drawn((PERSON, [[1] * 6 + [0] * 4]), (TIE, [[0] * 5 + [1] * 5]))
    image = ground_truth([[5] * 5 + [9] * 5], {5: PERSON, 9: TIE})
    assert counted((image, masks)) == {(TIE, PERSON): 1}
    assert counted((image, masks), min_overlap=0.21) == {}


def test_an_instance_is_assigned_to_the_segment_with_the_largest_overlap() -> None:
    """The mask over columns 1 to 4 shares one pixel with person 5 and two with 6. Of columns 2 and 3, which the tie's
    mask shares with it, 6 owns one and the tie the other: a draw. If it stood for 5, the tie would win. The mask over
    columns 0 and 1 does not overlap the tie's."""
    image = ground_truth([[5, 5, 6, 9, 6]], {5: PERSON, 6: PERSON, 9: TIE})
    masks = drawn((PERSON, [[0, 1, 1, 1, 1]]), (PERSON, [[1, 1, 0, 0, 0]]), (TIE, [[0, 0, 1, 1, 0]]))
    assert counted((image, masks)) == {}


def test_crowds_stuff_and_pairs_of_one_class_are_ignored() -> None:
    both = drawn((PERSON, BODY), (TIE, CHEST))
    assert counted((ground_truth([[5, 5, 9, 5, 5, 0]], {5: PERSON, 9: TIE}, crowds=(5,)), both)) == {}
    assert (
        counted((ground_truth([[5, 5, 9, 5, 5, 0]], {5: PERSON, 9: PERSON}), drawn((PERSON, BODY), (PERSON, CHEST))))
        == {}
    )
    assert counted((ground_truth([[5, 5, 9, 5, 5, 0]], {5: WALL, 9: TIE}),)) == {}  # hulls


def test_instances_without_a_segment_are_ignored() -> None:
    """No segment of a tie. An empty list of instances differs from unknown instances."""
    assert counted((ground_truth([[5] * 6], {5: PERSON}), drawn((PERSON, BODY), (TIE, CHEST)))) == {}
    assert counted((WORN, [])) == {}


def test_without_instances_convex_hulls_are_used() -> None:
    """The person's hull is columns 0 to 4: the tie is in it and owns column 2. A person that cuts a table in two owns
    all pixels in the hull of the table that the table does not own, and so occludes it."""
    assert counted((WORN,)) == {(TIE, PERSON): 1}
    cut = ground_truth([[8, 8, 5, 5, 8, 8], [0, 0, 5, 5, 0, 0]], {8: TABLE, 5: PERSON})
    assert counted((cut,)) == {(PERSON, TABLE): 1}
    beside = ground_truth([[8, 8, 8, 5, 5, 5]], {8: TABLE, 5: PERSON, 77: TIE})  # 77 has no pixel
    assert counted((beside,)) == {}


def test_the_hull_of_a_corner_is_a_triangle() -> None:
    """The table is an L of a column and a row; its hull is the triangle below the diagonal, the diagonal too. Of the
    tie's 6 pixels above (columns 1 to 3 of row 0, 2 and 3 of row 1, 3 of row 2) none is in it; of the person's (1, 1)
    and (2, 1), (2, 2) all are: the person is the occluder."""
    ids = [[8, 9, 9, 9], [8, 5, 9, 9], [8, 5, 5, 9], [8, 8, 8, 8]]
    assert counted((ground_truth(ids, {8: TABLE, 9: TIE, 5: PERSON}),), min_overlap=0.5) == {(PERSON, TABLE): 1}


def test_the_hull_of_a_concave_segment_contains_its_cavity() -> None:
    """The table is a C around the person's (1, 1) to (1, 3) and (2, 1) to (2, 3); its hull is the whole map. With the
    C's lower arm one pixel long the hull's edge goes from (0, 3) to (3, 0): of the person's six pixels it holds the
    three with row + column <= 3, half of the six."""
    bend = [[8, 8, 8, 8], [8, 5, 5, 5], [8, 5, 5, 5], [8, 8, 8, 8]]
    assert counted((ground_truth(bend, {8: TABLE, 5: PERSON}),), min_overlap=1.0) == {(PERSON, TABLE): 1}
    bend[3][1:] = [0, 0, 0]
    assert counted((ground_truth(bend, {8: TABLE, 5: PERSON}),), min_overlap=0.5) == {(PERSON, TABLE): 1}
    assert counted((ground_truth(bend, {8: TABLE, 5: PERSON}),), min_overlap=0.51) == {}


@st.composite
def annotated(draw: st.DrawFn) -> tuple[PanopticSegmentation, list[tuple[int, Any]]]:
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    category_ids = {i: int(rng.choice([PERSON, TIE, TABLE, WALL])) for i in range(1, 6)}
    image = ground_truth(rng.integers(0, 6, (height, width)), category_ids, crowds=(3,))
    masks = [(int(rng.choice([PERSON, TIE, TABLE])), rng.random((height, width)) < 0.6) for _ in range(5)]
    return image, masks


@given(annotated(), st.sampled_from([0.0, 0.2, 0.7]))
@settings(max_examples=200, deadline=None)
def test_equals_a_slow_simple_version(
    scene: tuple[PanopticSegmentation, list[tuple[int, Any]]], min_overlap: float
) -> None:
    image, masks = scene
    expected: dict[tuple[int, int], int] = {}
    objects = []
    for category_id, mask in masks:
        mine = [
            (-int((mask & (image.segment_ids == s.segment_id)).sum()), s.segment_id)
            for s in image.segments
            if s.category_id == category_id and not s.iscrowd
        ]
        if mine and min(mine)[0] < 0:
            objects.append((category_id, mask, image.segment_ids == min(mine)[1]))
    for (a, mask_a, own_a), (b, mask_b, own_b) in combinations(objects, 2):
        common = mask_a & mask_b
        if a == b or not common.any() or common.sum() < min_overlap * min(mask_a.sum(), mask_b.sum()):
            continue
        won, lost = (common & own_a).sum(), (common & own_b).sum()
        if won != lost:
            pair = (a, b) if won > lost else (b, a)
            expected[pair] = expected.get(pair, 0) + 1
    assert counted((image, drawn(*masks)), min_overlap=min_overlap) == expected


@given(st.lists(annotated(), max_size=6), st.integers(0, 6))
@settings(max_examples=30, deadline=None)
def test_merged_shards_equal_one_pass(scenes: list[Any], cut: int) -> None:
    images = [(image, drawn(*masks) if i % 2 else None) for i, (image, masks) in enumerate(scenes)]
    first, second = OcclusionCounter(CATEGORIES), OcclusionCounter(CATEGORIES)
    for i, image in enumerate(images):
        (first if i < cut else second).update(*image)
    first.merge(second)
    assert first.compute() == OcclusionPriors(THINGS, counted(*images))


def test_shards_of_another_kind_are_rejected() -> None:
    priors = OcclusionCounter(CATEGORIES)
    with pytest.raises(ValueError, match="same categories"):
        priors.merge(OcclusionCounter(CategorySet([CATEGORIES[PERSON]])))
    with pytest.raises(ValueError, match="same min_overlap"):
        priors.merge(OcclusionCounter(CATEGORIES, 0.3))


def test_instances_that_contradict_the_map_are_rejected() -> None:
    with pytest.raises(DatasetError, match=r"map's size \(1, 6\), got \(6, 1\)"):
        counted((WORN, drawn((PERSON, np.ones((6, 1))))))
    for category_id in (WALL, 99):
        with pytest.raises(DatasetError, match=f"thing classes, got the category {category_id}"):
            counted((WORN, drawn((category_id, BODY))))


TABLE_OF_PAIRS = OcclusionPriors(THINGS, {(TIE, PERSON): 6, (PERSON, TIE): 1, (TABLE, PERSON): 2, (TABLE, TIE): 0})


def test_the_probability_is_count_plus_1_of_all_plus_2() -> None:
    """Tie occludes person: (6 + 1) / (7 + 2) = 7 / 9; in reverse 2 / 9; table and person 3 / 4; unseen 1 / 2."""
    assert TABLE_OF_PAIRS.occlusion_probability(TIE, PERSON) == 7 / 9
    assert TABLE_OF_PAIRS.occlusion_probability(PERSON, TIE) == 2 / 9
    assert TABLE_OF_PAIRS.occlusion_probability(TABLE, PERSON) == 3 / 4
    assert TABLE_OF_PAIRS.occlusion_probability(TABLE, TIE) == 1 / 2


@pytest.mark.parametrize(
    ("margin", "min_count", "expected"),
    [
        (0.0, 0, {(1, 0), (2, 0)}),
        (0.25, 0, {(1, 0)}),  # 3 / 4 is not above 0.5 + 0.25
        (0.0, 2, {(1, 0), (2, 0)}),  # table and person were seen twice
        (0.0, 3, {(1, 0)}),
        (0.0, 8, set()),  # tie and person seven times
        (0.5, 0, set()),
    ],
)
def test_occluding_pairs_have_contiguous_ids(margin: float, min_count: int, expected: set[tuple[int, int]]) -> None:
    """Person, tie and table are 0, 1 and 2."""
    assert TABLE_OF_PAIRS.occluding_pairs(margin, min_count) == expected


def test_the_file_lists_each_pair_once_occluder_first_and_is_read_back() -> None:
    content = TABLE_OF_PAIRS.to_json()
    assert content == {
        "format": 1,
        "things": [{"id": 1, "name": "person"}, {"id": 32, "name": "tie"}, {"id": 67, "name": "dining table"}],
        "pairs": [
            {"occluder": 32, "occluded": 1, "count": 6, "reverse_count": 1},
            {"occluder": 67, "occluded": 1, "count": 2, "reverse_count": 0},
        ],
    }
    back = OcclusionPriors.from_json(json.loads(json.dumps(content)), "here")
    assert back.to_json() == content
    assert back.occluding_pairs(0, 0) == TABLE_OF_PAIRS.occluding_pairs(0, 0)


def test_of_equal_counts_the_smaller_id_is_the_occluder_and_things_may_have_any_order() -> None:
    even = OcclusionPriors(THINGS, {(TABLE, TIE): 3, (TIE, TABLE): 3}).to_json()
    assert even["pairs"] == [{"occluder": TIE, "occluded": TABLE, "count": 3, "reverse_count": 3}]
    turned = changed(things=TABLE_OF_PAIRS.to_json()["things"][::-1])
    assert OcclusionPriors.from_json(turned, Path("here")).things == THINGS


def changed(**changes: Any) -> dict[str, Any]:
    return {**TABLE_OF_PAIRS.to_json(), **changes}


PAIR = {"occluder": 32, "occluded": 1, "count": 6, "reverse_count": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected occlusion priors, got something else"),
        ({"things": []}, "expected occlusion priors, got something else"),
        (changed(format=2), "of format 1, got 2"),
        (changed(things=None), "`things` to be a list, got None"),
        (changed(things=[{"id": "1", "name": "a"}]), "`id` to be an integer, got '1'"),
        (changed(things=[{"id": True, "name": "a"}]), "`id` to be an integer, got True"),
        (changed(things=[{"id": 1}]), "`name` to be a string, got none"),
        (changed(things=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "distinct ids"),
        (changed(pairs=[3]), "`pairs` to hold objects, got 3"),
        (changed(pairs=[{**PAIR, "occluder": 171}]), "two ids of `things`"),
        (changed(pairs=[{**PAIR, "occluder": 1}]), "two ids of `things`"),
        (changed(pairs=[{**PAIR, "occluder": [1]}]), "two ids of `things`"),
        (changed(pairs=[{**PAIR, "count": -1}]), "whole numbers from 0"),
        (changed(pairs=[{**PAIR, "reverse_count": float("nan")}]), "whole numbers from 0"),
        (changed(pairs=[PAIR, {**PAIR, "occluder": 1, "occluded": 32}]), "every pair once"),
    ],
)
def test_broken_content_is_rejected(content: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=f"^here: .*{message}"):
        OcclusionPriors.from_json(content, Path("here"))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "priors.json"
    with pytest.raises(DatasetError, match=r"cannot be read: .*priors\.json: .*; write them"):
        OcclusionPriors.read(path)
    for broken in (b"", b'{"format": 1, "things"', b"\xff\xfe\x00"):
        path.write_bytes(broken)
        with pytest.raises(DatasetError, match=r"the occlusion priors cannot be read: .*priors\.json"):
            OcclusionPriors.read(path)
    with pytest.raises(DatasetError, match="cannot be read"):
        OcclusionPriors.read(tmp_path)
    path.write_text(json.dumps(TABLE_OF_PAIRS.to_json()))
    assert OcclusionPriors.read(path).to_json() == TABLE_OF_PAIRS.to_json()
