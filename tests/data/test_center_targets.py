"""Centers, offsets and weights: against Detectron2's generator, and on a map whose targets are worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segkit.data.augmentations.scene import SegmentMap
from segkit.data.center_targets import CenterTargets
from segkit.modeling.center_heads import PROJECT
from segkit.structures import IGNORE_LABEL, Category, CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import ConfigError

CATEGORIES = CategorySet(Category(i, str(i), i in (2, 5), (0, 0, i)) for i in (1, 2, 4, 5))
SPACE = CATEGORIES.build_semantic_space("per_class")  # category 1 -> channel 0 (stuff), 2 -> 1, 4 -> 2 (stuff), 5 -> 3


def derive(segment_ids: np.ndarray, segments: list[Segment], **options: Any) -> dict[str, torch.Tensor]:
    segmentation = PanopticSegmentation(segment_ids.astype(np.int32), tuple(segments))
    return CenterTargets(**options)(SegmentMap.from_segmentation(segmentation), SPACE)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, list[Segment]]:
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    size_hw = draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    count = draw(st.sampled_from([0, 1, 5, 300]))  # 300: more segments than a byte has numbers
    blocks = rng.integers(0, count + 3, (8, 8))  # the last two ids have no segment: void
    segment_ids = blocks[np.ix_(np.arange(size_hw[0]) * 8 // size_hw[0], np.arange(size_hw[1]) * 8 // size_hw[1])]
    segments = []
    for segment_id in range(1, count + 1):
        category_id = int(rng.choice([1, 2, 4, 5]))
        isthing, iscrowd = category_id in (2, 5), bool(rng.random() < 0.2)
        area_px = max(int((segment_ids == segment_id).sum()), 1)
        segments.append(Segment(segment_id, category_id, isthing, area_px, iscrowd=iscrowd))
    return segment_ids, segments


@given(scenes(), st.integers(1, 4), st.booleans(), st.booleans(), st.sampled_from([0, 5, 40]))
def test_equal_to_detectron2(
    scene: tuple[np.ndarray, list[Segment]], sigma: int, stuff: bool, crowds: bool, small: int
) -> None:
    segment_ids, segments = scene
    generator = PROJECT.target_generator.PanopticDeepLabTargetGenerator(
        IGNORE_LABEL, [1, 3], sigma, stuff, small, 3, crowds
    )
    infos = [
        {"id": s.segment_id, "category_id": SPACE.channel_by_category[s.category_id], "iscrowd": int(s.iscrowd)}
        for s in segments
    ]
    expected = generator(segment_ids, infos)
    options = {"sigma_px": sigma, "ignores_stuff": stuff, "small_area_px": small, "ignores_crowds": crowds}
    targets = derive(segment_ids, segments, **options)
    assert {*expected} == {*targets, "center_points"}
    for name, values in targets.items():
        assert values.dtype == expected[name].dtype
        # numpy 1 computes Detectron2's offsets in float32, whose distance of numbers below 32 is 2e-6.
        tolerance = 2e-6 if name == "offset" else 0.0
        torch.testing.assert_close(values, expected[name], rtol=0, atol=tolerance)


def test_a_map_by_hand() -> None:
    """A thing of three pixels in an L, stuff, and void."""
    ids = np.array([[7, 7, 0], [7, 3, 3]])
    targets = derive(ids, [Segment(3, 1, False, 2), Segment(7, 5, True, 3)], sigma_px=1, small_area_px=4)
    assert targets["sem_seg"].tolist() == [[3, 3, 255], [3, 0, 0]]
    assert targets["sem_seg_weights"].tolist() == [[3, 3, 1], [3, 1, 1]]
    assert targets["center_weights"].tolist() == [[[1, 1, 0], [1, 1, 1]]]
    assert targets["offset_weights"].tolist() == [[[1, 1, 0], [1, 0, 0]]]
    # The mean of (0, 0), (0, 1) and (1, 0) is (1/3, 1/3), whose pixel is (0, 0).
    third = pytest.approx(1 / 3), pytest.approx(-2 / 3)
    assert targets["offset"].tolist() == [
        [[third[0], third[0], 0], [third[1], 0, 0]],
        [[third[0], third[1], 0], [third[0], 0, 0]],
    ]
    peak = [[np.exp(-(y * y + x * x) / 2) for x in range(3)] for y in range(2)]
    assert targets["center"].tolist() == [pytest.approx(row) for row in peak]


def test_padding_is_void() -> None:
    numbers = np.full((2, 3), 255, dtype=np.uint8)  # as augmentations pad
    targets = CenterTargets()(SegmentMap.from_numbers(numbers, (Segment(1, 5, True, 4),)), SPACE)
    assert (targets.pop("sem_seg") == IGNORE_LABEL).all()
    assert (targets.pop("sem_seg_weights") == 1).all()
    assert not any(values.any() for values in targets.values())


@pytest.mark.parametrize("option", ["sigma_px", "small_area_px", "small_weight"])
def test_numbers_out_of_range_name_the_key(option: str) -> None:
    with pytest.raises(ConfigError, match=r"^INPUT\.[A-Z_]+: expected \d or more, got -1"):
        CenterTargets(**{option: -1})  # type: ignore[arg-type]
