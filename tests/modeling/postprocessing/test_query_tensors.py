"""Queries of a batch as tensors of one shape: equal to `QueryPostProcessor`, image by image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.fusion.mask_argmax import MaskArgmaxFusion
from segkit.modeling.postprocessing.panoptic_tensors import to_panoptic
from segkit.modeling.postprocessing.queries import QueryPostProcessor
from segkit.modeling.postprocessing.query_masks import QueryImage
from segkit.modeling.postprocessing.query_tensors import QUERIES_PER_STEP, QueryInstances, process_queries
from segkit.modeling.postprocessing.resampling import Sizes
from segkit.structures import InstanceMasks
from segkit.structures.graph_outputs import OUTPUTS
from segkit.structures.segment_table import NAN_LOGITS
from tests.helpers.official_queries import is_unambiguous, resize_masks

# Classes: sky (stuff 1), cat (thing 0), road (stuff 2), dog (thing 1), no object.
STUFF_IDS, THING_IDS = [1, 0, 2, 0], [-1, 0, -1, 1]
SKY, CAT, ROAD, DOG, NONE = range(5)


def process(
    classes: torch.Tensor, masks: torch.Tensor, sizes: Sizes, most: int = 100, **options: float
) -> tuple[Any, QueryPostProcessor]:
    """All results of a batch, and what computes those of one image."""
    ids = {"stuff_ids": STUFF_IDS, "thing_ids": THING_IDS, "most_instances": most}
    fusion = MaskArgmaxFusion(**options)
    results = process_queries(classes, masks, sizes, fusion=fusion, tasks=[*OUTPUTS], **ids)
    return results, QueryPostProcessor(fusion, **ids)


def assert_equal_instances(instances: QueryInstances, number: int, expected: InstanceMasks) -> None:
    """Instances of equal scores may come in any order."""
    boxes, scores, class_ids, masks = (field[number].numpy() for field in instances)
    count = int((class_ids >= 0).sum())
    assert (class_ids[:count] >= 0).all()
    assert not scores[count:].any()
    np.testing.assert_allclose(scores[:count], expected.scores, atol=1e-5)
    own = sorted(zip(class_ids[:count].tolist(), boxes[:count].tolist(), map(bytes, masks[:count]), strict=True))
    full = zip(expected.class_ids.tolist(), expected.boxes_xyxy.tolist(), map(bytes, expected.to_full()), strict=True)
    assert own == sorted(full)


@st.composite
def draw_batches(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, Sizes]:
    """One or two images whose queries have smooth masks, some sure and some not, in one step or two."""
    torch.manual_seed(draw(st.integers(0, 2**32 - 1)))
    queries, batch = draw(st.sampled_from([1, 2, 7, QUERIES_PER_STEP + 3])), draw(st.sampled_from([1, 2]))
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    size_hw = (height, width) if draw(st.booleans()) else (draw(st.integers(1, 30)), draw(st.integers(1, 30)))
    stride = draw(st.sampled_from([1, 2, 4]))
    shape = [-(-side // 8) * 8 // stride for side in (height, width)]
    classes = torch.randn(batch, queries, 5) * draw(st.sampled_from([1.0, 6.0]))
    masks = torch.randn(batch, queries, *shape) * 3 + torch.randn(batch, queries, 1, 1)
    return classes, masks, Sizes((height, width), size_hw, stride)


@settings(max_examples=20)
@given(draw_batches(), st.sampled_from([0.0, 0.5]), st.sampled_from([0.0, 0.5]), st.sampled_from([3, 100]))
def test_results_equal_those_of_each_image(
    batch: tuple[torch.Tensor, torch.Tensor, Sizes], score: float, overlap: float, most: int
) -> None:
    classes, masks, sizes = batch
    results, processor = process(*batch, most=most, object_mask_threshold=score, overlap_threshold=overlap)
    for number in range(len(classes)):
        image = QueryImage(classes[number], masks[number], sizes)
        semantic = processor.compute_semantic(image)
        chosen = semantic.gather(0, results.semantic[number][None])[0]
        torch.testing.assert_close(chosen, semantic.max(0).values, rtol=1e-4, atol=1e-5)
        if not is_unambiguous(classes[number], resize_masks(masks[number], sizes.scale, *sizes[:2])):
            continue
        (expected,), (fused,) = (
            to_panoptic(processor.fuse([image])),
            to_panoptic([results.panoptic.unbatched()[number]]),
        )
        np.testing.assert_array_equal(fused.segment_ids, expected.segment_ids)
        assert fused.segments == expected.segments
        assert_equal_instances(results.instances, number, processor.find_instances(image))


def fuse(classes: torch.Tensor, masks: torch.Tensor) -> tuple[list[Any], list[int]]:
    """Of images of one row: their maps, and their errors."""
    results, _ = process(classes, masks[:, :, None], Sizes((1, masks.shape[2]), (1, masks.shape[2])))
    ids, table = results.panoptic
    return ids[:, 0].tolist(), table[:, -1, 0].tolist()


def class_logits(*rows: tuple[int, float]) -> torch.Tensor:
    """Of each query its class and the probability of it; the rest is spread over the other classes."""
    probs = torch.tensor([[(1 - prob) / 4] * 5 for _, prob in rows])
    for row, (label, prob) in enumerate(rows):
        probs[row, label] = prob
    return probs.log()


def test_of_equal_values_stuff_is_first_then_the_higher_score_then_the_earlier_query() -> None:
    # Everywhere the probability is 0 in float32, so that all values are equal, but for those above 0.5.
    classes = class_logits((CAT, 0.9), (DOG, 0.95), (ROAD, 0.85), (SKY, 0.9), (NONE, 0.99), (CAT, 0.9))
    masks = torch.full((6, 4), -200.0)
    masks[0, 0] = masks[5, 0] = masks[1, 1] = masks[2, 2] = 200.0
    # Pixel 0: both cats have the value 0.9, and the first query wins. Pixel 3 is the sky's, but not its own.
    # Ids: the dog (0.95), the cat (0.9), road. The second cat wins none of its own pixel.
    ids, errors = fuse(classes[None], masks[None])
    assert (ids, errors) == ([[2, 1, 3, 0]], [0])


def test_images_of_a_batch_have_as_many_objects_as_they_have() -> None:
    no_object = class_logits((NONE, 0.9), (CAT, 0.5))
    one = class_logits((NONE, 0.9), (CAT, 0.9))
    several = class_logits((DOG, 0.85), (CAT, 0.9))
    masks = torch.tensor([[3.0, 3.0, -3.0], [-3.0, -3.0, 3.0]]).expand(3, 2, 3)
    ids, errors = fuse(torch.stack([no_object, one, several]), masks)
    assert (ids, errors) == ([[0, 0, 0], [0, 0, 1], [2, 2, 1]], [0, 0, 0])


def test_what_is_not_finite_is_reported_of_its_image() -> None:
    classes = class_logits((CAT, 0.9), (NONE, 0.9)).repeat(4, 1, 1)
    masks = torch.full((4, 2, 3), 3.0)
    classes[1, 1, 2] = math.nan
    masks[2, 0, 1] = math.inf
    masks[3, 1, 1] = math.inf  # of a query that takes no part in the map, but may become an instance
    ids, errors = fuse(classes, masks)
    assert ids[0] == ids[3] == [1, 1, 1]
    assert errors == [0, NAN_LOGITS, NAN_LOGITS, 0]
    results, _ = process(classes, masks[:, :, None], Sizes((1, 3), (1, 3)))
    assert results.instances.scores.isnan().any(1).tolist() == [False, True, True, True]
    assert (results.instances.class_ids[1:] >= 0).all()  # so that a reader meets the NaN


def test_only_what_is_asked_for_is_computed() -> None:
    ids = {"stuff_ids": STUFF_IDS, "thing_ids": THING_IDS, "most_instances": 5, "fusion": MaskArgmaxFusion()}
    results = process_queries(torch.zeros(1, 2, 5), torch.zeros(1, 2, 3, 3), Sizes((3, 3), (3, 3)), tasks=[], **ids)
    assert results == (None, None, None)
