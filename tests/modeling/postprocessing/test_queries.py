"""Segments, instances and semantic scores from queries: hand-drawn, and against the slow official rules."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.fusion.mask_argmax import MaskArgmaxFusion
from segkit.modeling.postprocessing import resized_masks
from segkit.modeling.postprocessing.panoptic_tensors import to_panoptic
from segkit.modeling.postprocessing.queries import QueryPostProcessor
from segkit.modeling.postprocessing.query_masks import QueryImage
from segkit.modeling.postprocessing.resampling import Sizes, resize_logits
from segkit.structures import PanopticSegmentation, Segment
from tests.helpers import official_queries

# Classes: sky (stuff 1), cat (thing 0), road (stuff 2), dog (thing 1), no object.
STUFF_IDS, THING_IDS = [1, 0, 2, 0], [-1, 0, -1, 1]
IS_THING = [False, True, False, True]
SKY, CAT, ROAD, DOG, NONE = range(5)


def class_logits(*rows: tuple[int, float]) -> torch.Tensor:
    """Of each query its class and the probability of it; the rest is spread over the other classes."""
    probs = torch.zeros(len(rows), 5)
    for row, (label, prob) in enumerate(rows):
        probs[row] = (1 - prob) / 4
        probs[row, label] = prob
    return probs.log()


def draw(*masks: str, positive: float = 3.0) -> torch.Tensor:
    """Mask logits from pictures: '#' is `positive`, '+' is 1, '-' is -1, '.' is -3; rows are separated by '/'."""
    values = {"#": positive, "+": 1.0, "-": -1.0, ".": -3.0}
    return torch.tensor([[[values[c] for c in line] for line in mask.split("/")] for mask in masks])


def fuse(classes: torch.Tensor, masks: torch.Tensor, **options: float) -> PanopticSegmentation:
    size_hw = masks.shape[1], masks.shape[2]
    processor = QueryPostProcessor(MaskArgmaxFusion(**options), STUFF_IDS, THING_IDS)
    (segmentation,) = to_panoptic(processor.fuse([QueryImage(classes, masks, Sizes(size_hw, size_hw))]))
    return segmentation


def test_each_pixel_goes_to_the_highest_score_times_probability() -> None:
    classes = class_logits((CAT, 0.9), (DOG, 0.99), (SKY, 0.95))
    # Pixel 1: 0.9 s(3) > 0.99 s(1); pixel 2: 0.9 s(1) < 0.99 s(3); pixel 4: no mask has s(-1) = 0.27 >= 0.5.
    fused = fuse(classes, draw("##+..", ".+##.", "...#-"), overlap_threshold=0.5)
    # Dog 1, cat 2, sky 3. Each of cat and dog wins two of its three own pixels. Sky wins its own one and the last.
    # Pixel 3: 0.99 s(3) of the dog and 0.95 s(3) of the sky.
    assert fused.segment_ids.tolist() == [[2, 2, 1, 1, 0]]


def test_own_pixels_are_compared_with_all_pixels_that_a_query_wins() -> None:
    # The cat has five own pixels, and wins four of them and one that is not its own: 5 / 5 >= 0.8. That pixel is void.
    classes = class_logits((CAT, 0.9), (DOG, 0.95))
    masks = draw("#####-", "....#.")
    assert fuse(classes, masks).segment_ids.tolist() == [[2, 2, 2, 2, 1, 0]]


def test_transformers_rules_differ_as_the_docs_say() -> None:
    # docs/fusion.md: a cat of score 0.81 and a dog of score 0.95.
    probs = torch.tensor([[[0.6, 0.6, 0.6, 0.95]], [[0.05, 0.05, 0.95, 0.05]]])
    assert fuse(class_logits((CAT, 0.81), (DOG, 0.95)), probs.logit()).segment_ids.tolist() == [[0, 0, 1, 0]]
    theirs = _fuse_with_transformers(probs, (0.81, CAT), (0.95, DOG))
    assert theirs.tolist() == [[1, 1, 2, 1]]


def test_a_thing_after_merged_stuff_has_an_id_of_its_own() -> None:
    queries = ((CAT, 0.9), (SKY, 0.9), (CAT, 0.89), (SKY, 0.88), (DOG, 0.87))
    masks = draw("#....", ".#...", "..#..", "...#.", "....#")
    assert fuse(class_logits(*queries), masks).segment_ids.tolist() == [[1, 4, 2, 4, 3]]
    theirs = _fuse_with_transformers(masks.sigmoid(), *((score, label) for label, score in queries))
    assert theirs.tolist() == [[1, 2, 3, 2, 3]]  # the second cat and the dog share an id


def _fuse_with_transformers(probs: torch.Tensor, *queries: tuple[float, int]) -> torch.Tensor:
    if sys.version_info < (3, 11):
        pytest.skip("transformers 5 needs Python 3.11")
    name = "transformers.models.mask2former.image_processing_mask2former"
    module = pytest.importorskip(name, reason="pip install 'segkit[oracle]'")
    scores, labels = torch.tensor([score for score, _ in queries]), torch.tensor([label for _, label in queries])
    segmentation, _ = module.compute_segments(probs.clone(), scores, labels, label_ids_to_fuse={SKY, ROAD})
    return segmentation


def test_a_share_of_exactly_the_threshold_stays() -> None:
    masks = draw("#####", "....#")
    classes = class_logits((CAT, 0.9), (DOG, 0.95))
    assert fuse(classes, masks, overlap_threshold=0.8).segment_ids.tolist() == [[2, 2, 2, 2, 1]]
    assert fuse(classes, masks, overlap_threshold=0.81).segment_ids.tolist() == [[0, 0, 0, 0, 1]]


def test_stuff_of_one_class_is_one_segment_and_no_object_and_low_scores_take_no_part() -> None:
    classes = class_logits((ROAD, 0.9), (SKY, 0.9), (ROAD, 0.85), (NONE, 0.99), (CAT, 0.8), (DOG, 0.81))
    fused = fuse(classes, draw("#....", ".#...", "..#..", "#####", "...#.", "....#"))
    score = pytest.approx(0.81)
    assert fused.segments == (
        Segment(1, 1, True, 1, score=score, instance_id=1),  # the dog; the cat, whose score is not above 0.8, is row 0
        Segment(2, 1, False, 1),
        Segment(3, 2, False, 2),
    )
    assert fused.segment_ids.tolist() == [[3, 2, 3, 0, 1]]


def test_nothing_above_the_threshold_is_void() -> None:
    fused = fuse(class_logits((CAT, 0.5), (NONE, 0.9)), draw("##", "##"))
    assert fused.segments == ()
    assert fused.segment_ids.tolist() == [[0, 0]]


def test_a_diverged_network_is_reported() -> None:
    masks = draw("##")
    with pytest.raises(ValueError, match="did the training diverge"):
        fuse(class_logits((CAT, 0.9)) * math.nan, masks)
    with pytest.raises(ValueError, match="did the training diverge"):
        fuse(class_logits((CAT, 0.9)), masks * math.inf)


@st.composite
def draw_images(draw_value: st.DrawFn) -> QueryImage:
    """Queries with smooth masks, some sure and some not, and images that are padded, and resized to the output."""
    seed = draw_value(st.integers(0, 2**32 - 1))
    torch.manual_seed(seed)
    queries = draw_value(st.integers(1, 7))
    height, width = draw_value(st.integers(1, 20)), draw_value(st.integers(1, 20))
    size_hw = (height, width)
    if draw_value(st.booleans()):
        size_hw = draw_value(st.integers(1, 30)), draw_value(st.integers(1, 30))
    stride = draw_value(st.sampled_from([1, 2, 4]))
    shape = [-(-side // 8) * 8 // stride for side in (height, width)]
    logits = torch.randn(queries, 5) * draw_value(st.sampled_from([1.0, 6.0]))
    masks = torch.randn(queries, *shape) * 3 + torch.randn(queries, 1, 1)
    return QueryImage(logits, masks, Sizes((height, width), size_hw, stride))


def resize_officially(image: QueryImage) -> torch.Tensor:
    return official_queries.resize_masks(image.mask_logits, image.sizes.scale, *image.sizes[:2])


@settings(max_examples=40)
@given(draw_images(), st.sampled_from([0.0, 0.5]), st.sampled_from([0.0, 0.5, 0.8]))
def test_panoptic_maps_equal_those_of_the_official_rules(image: QueryImage, score: float, overlap: float) -> None:
    full = resize_officially(image)
    if not official_queries.is_unambiguous(image.class_logits, full):
        return
    expected_ids, infos = official_queries.fuse_panoptic(image.class_logits, full, IS_THING, score, overlap)
    fusion = MaskArgmaxFusion(object_mask_threshold=score, overlap_threshold=overlap)
    (fused,) = to_panoptic(QueryPostProcessor(fusion, STUFF_IDS, THING_IDS).fuse([image]))
    names = {info["id"]: (info["label"], info["score"] if info["isthing"] else None) for info in infos}
    classes = {True: {0: CAT, 1: DOG}, False: {1: SKY, 2: ROAD}}
    own = {s.segment_id: (classes[s.isthing][s.category_id], s.score) for s in fused.segments}
    pairs = {*zip(expected_ids.ravel().tolist(), fused.segment_ids.ravel().tolist(), strict=True)} - {(0, 0)}
    assert len(pairs) == len(names) == len(own)  # ids are in another order, but name the same pixels
    for theirs, ours in pairs:
        assert own[ours] == (names[theirs][0], names[theirs][1] and pytest.approx(names[theirs][1]))
    assert [s.area_px for s in fused.segments] == [(fused.segment_ids == s.segment_id).sum() for s in fused.segments]


@settings(max_examples=40)
@given(draw_images(), st.integers(1, 20))
def test_instances_equal_those_of_the_official_rules(image: QueryImage, most: int) -> None:
    full = resize_officially(image)
    most = min(most, 4 * len(full))
    if full.abs().min() < 1e-4:
        return
    official = official_queries.find_instances(image.class_logits, full, IS_THING, most)
    instances = QueryPostProcessor(MaskArgmaxFusion(), STUFF_IDS, THING_IDS, most).find_instances(image)
    official = [
        ((CAT, DOG).index(label), int(mask.sum()), score, mask) for label, score, mask in official if mask.any()
    ]
    own = zip(instances.class_ids.tolist(), instances.areas_px.tolist(), instances.scores.tolist(), strict=True)
    expected = sorted((class_id, area, score) for class_id, area, score, _ in official)
    np.testing.assert_allclose(sorted(own), expected, rtol=1e-4, atol=1e-5)
    assert {mask.tobytes() for mask in instances.to_full()} == {mask.tobytes() for *_, mask in official}
    for mask, (left, top, right, bottom) in zip(instances.to_full(), instances.boxes_xyxy, strict=True):
        ys, xs = np.nonzero(mask)
        assert (left, top, right, bottom) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert (np.diff(instances.scores) <= 0).all()


@settings(max_examples=40)
@given(draw_images())
def test_semantic_scores_equal_those_of_the_official_rules(image: QueryImage) -> None:
    expected = official_queries.compute_semantic(image.class_logits, resize_officially(image))
    processor = QueryPostProcessor(MaskArgmaxFusion(), STUFF_IDS, THING_IDS)
    scores = processor.compute_semantic(image)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(processor.argmax_semantic(image), scores.max(0).indices)


def test_semantic_scores_are_computed_in_float32() -> None:
    torch.manual_seed(1)
    image = QueryImage(torch.randn(3, 5), torch.randn(3, 8, 8), Sizes((8, 8), (8, 8)))
    processor = QueryPostProcessor(MaskArgmaxFusion(), STUFF_IDS, THING_IDS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = processor.compute_semantic(image)
    assert torch.equal(scores, processor.compute_semantic(image))


def test_bands_are_small_and_make_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    masks, sizes = torch.randn(3, 10, 12), Sizes((37, 45), (60, 50), 4)
    whole = resize_logits(masks[None], sizes)[0]
    monkeypatch.setattr(resized_masks, "CPU_BYTES", 3 * 50 * 4 * 7)  # seven rows of three masks of float32
    bands = list(resized_masks.ResizedMasks(masks, sizes).bands())
    assert {band.shape[1] for _, band in bands} == {7, 4}
    torch.testing.assert_close(torch.cat([band for _, band in bands], dim=1), whole, rtol=1e-5, atol=1e-5)


def test_the_number_of_transfers_does_not_depend_on_the_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[torch.Size] = []
    copy = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: reads.append(tensor.shape) or copy(tensor))
    monkeypatch.setattr(torch.Tensor, "item", lambda _: pytest.fail("a value was read back"))
    classes = class_logits((CAT, 0.9), (DOG, 0.95), (SKY, 0.9))
    image = QueryImage(classes, draw("#####.", "....#.", ".....#"), Sizes((1, 6), (1, 6)))
    to_panoptic(QueryPostProcessor(MaskArgmaxFusion(), STUFF_IDS, THING_IDS).fuse([image, image]))
    assert len(reads) == 2  # which queries take part; all maps and tables
