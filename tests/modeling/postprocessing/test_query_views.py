"""Queries of several views of one image become one; semantic scores are means."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.fusion.mask_argmax import MaskArgmaxFusion
from segkit.modeling.postprocessing.queries import QueryPostProcessor
from segkit.modeling.postprocessing.query_masks import QueryImage
from segkit.modeling.postprocessing.query_views import flip_queries, merge_queries
from segkit.modeling.postprocessing.resampling import Sizes
from segkit.modeling.postprocessing.view_merging import ViewOutputs, merge_views
from tests.helpers import official_queries

CAT, DOG, NONE = range(3)
Probs = tuple[float, float, float]


def view(*queries: tuple[Probs, str], stride: int = 1) -> QueryImage:
    """Each query has its class probabilities and a picture: '#' is a logit of 3, '.' of -3, rows separated by '/'."""
    masks = torch.tensor([[[3.0 if c == "#" else -3.0 for c in row] for row in text.split("/")] for _, text in queries])
    height, width = masks.shape[1:]
    size_hw = height * stride, width * stride
    return QueryImage(torch.tensor([probs for probs, _ in queries]).log(), masks, Sizes(size_hw, size_hw, stride))


def get_probs(image: QueryImage) -> list[list[float]]:
    return image.class_logits.softmax(1).tolist()  # type: ignore[no-any-return]


def approx(*rows: Probs) -> list[object]:
    return [pytest.approx(row, abs=1e-6) for row in rows]


def test_classes_are_averaged_and_a_view_without_the_query_is_sure_of_no_object() -> None:
    first = view(((0.8, 0.1, 0.1), "##.."), ((0.1, 0.7, 0.2), "..##"))
    second = view(((0.6, 0.2, 0.2), "##.."), ((0.5, 0.1, 0.4), "...#"))
    merged = merge_queries([first, second])
    # Of three groups the two of the highest scores: the cat of both, and the dog of the first view, 0.7 / 2. The cat of
    # the second view, 0.5 / 2, is left out: a view has two queries.
    assert get_probs(merged) == approx((0.7, 0.15, 0.15), (0.05, 0.35, 0.6))
    torch.testing.assert_close(merged.mask_logits, first.mask_logits)


def test_probabilities_of_masks_are_weighted_by_scores() -> None:
    first, second = view(((0.6, 0.1, 0.3), "###.")), view(((0.2, 0.1, 0.7), "##.."))  # IoU 2 / 3
    low, high = torch.tensor([-3.0, 3.0]).sigmoid().tolist()
    probs = merge_queries([first, second]).mask_logits.sigmoid()[0, 0]
    assert probs.tolist() == pytest.approx([high, high, 0.75 * high + 0.25 * low, low])  # 0.6 and 0.2 of 0.8


def test_masks_that_are_surer_than_a_float_stay_finite() -> None:
    image = view(((0.9, 0.05, 0.05), "##.."))
    image.mask_logits.mul_(10)  # 1 - sigmoid(30) is 0 in float32
    torch.testing.assert_close(merge_queries([image, image]).mask_logits, image.mask_logits)
    image.mask_logits.mul_(100)
    logits = merge_queries([image, image]).mask_logits
    assert logits.isfinite().all()
    torch.testing.assert_close(logits.sigmoid(), image.mask_logits.sigmoid())


def test_two_overlapping_objects_of_one_view_stay_two() -> None:
    # IoU 3 / 5; in the second view the queries are in the other order and score the other way.
    one, other = "####.", ".####"
    first = view(((0.9, 0.05, 0.05), one), ((0.7, 0.1, 0.2), other))
    second = view(((0.8, 0.1, 0.1), other), ((0.6, 0.1, 0.3), one))
    merged = merge_queries([first, second])
    assert get_probs(merged) == approx((0.75, 0.075, 0.175), (0.75, 0.1, 0.15))
    torch.testing.assert_close(merged.mask_logits, first.mask_logits)


def test_queries_of_other_classes_are_not_merged() -> None:
    merged = merge_queries([view(((0.8, 0.1, 0.1), "##")), view(((0.2, 0.6, 0.2), "##"))])
    assert get_probs(merged) == approx((0.4, 0.05, 0.55))


def test_views_of_other_sizes_are_resampled_to_the_largest() -> None:
    small = view(((0.8, 0.1, 0.1), "##../##.."), stride=4)  # 8 x 16 pixels
    large = view(((0.8, 0.1, 0.1), "####..../####..../####..../####...."), stride=4)  # 16 x 32 pixels
    merged = merge_queries([small, large])
    assert merged.mask_logits.shape == (1, 4, 8)
    assert merged.sizes == large.sizes
    # Between 3 and -3 the small mask has 1.5 and -1.5: of the mean probability.
    expected = torch.tensor([3, 3, 3, 1.5, -1.5, -3, -3, -3]).sigmoid() + large.mask_logits[0, 0].sigmoid()
    torch.testing.assert_close(merged.mask_logits.sigmoid()[0, 0], expected / 2)


def test_padding_takes_no_part() -> None:
    """Two views of 8 x 8 pixels, one of them padded with 8 columns in which its mask is positive."""
    plain = view(((0.8, 0.1, 0.1), "##/.."), stride=4)
    padded = view(((0.8, 0.1, 0.1), "####/...."), stride=4)
    padded = QueryImage(padded.class_logits, padded.mask_logits, plain.sizes)
    merged = merge_queries([padded, plain])
    torch.testing.assert_close(merged.mask_logits[:, :, :2], plain.mask_logits)
    assert torch.equal(flip_queries(padded).mask_logits[:, :, :2], plain.mask_logits)


def draw_image(seed: int, queries: int = 5) -> QueryImage:
    """Smooth masks of 64 x 88 pixels, padded to 64 x 96."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(queries, 4, generator=generator) * 2
    masks = torch.nn.functional.interpolate(torch.randn(1, queries, 4, 6, generator=generator) * 4, (16, 24))[0]
    return QueryImage(logits, masks, Sizes((64, 88), (64, 88), 4))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_an_only_view_stays_and_a_mirrored_one_is_only_moved(seed: int) -> None:
    image = draw_image(seed)
    assert merge_queries([image]) is image
    mirrored = flip_queries(image)
    assert torch.equal(mirrored.mask_logits[:, :, :22], image.mask_logits[:, :, :22].flip(2))
    assert torch.equal(flip_queries(mirrored).mask_logits[:, :, :22], image.mask_logits[:, :, :22])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 4))
def test_equal_views_change_nothing_but_rounding_and_the_order(seed: int, count: int) -> None:
    image = draw_image(seed)
    merged = merge_queries([image] * count)
    order = image.class_logits.softmax(1)[:, :-1].amax(1).argsort(descending=True)
    torch.testing.assert_close(merged.class_logits.softmax(1), image.class_logits.softmax(1)[order])
    torch.testing.assert_close(merged.mask_logits, image.mask_logits[order], atol=1e-4, rtol=1e-4)


def test_semantic_scores_are_the_mean_of_the_views() -> None:
    images = [draw_image(seed) for seed in range(3)]
    outputs = merge_views([ViewOutputs(queries=(image,)) for image in images], -1)
    processor = QueryPostProcessor(MaskArgmaxFusion(), [1, 0, 2], [-1, 0, -1])
    scores = processor.compute_semantic(*outputs.queries)
    each = [
        official_queries.compute_semantic(
            image.class_logits, official_queries.resize_masks(image.mask_logits, 4, *image.sizes[:2])
        )
        for image in images
    ]
    torch.testing.assert_close(scores, torch.stack(each).mean(0))
    assert torch.equal(processor.argmax_semantic(*outputs.queries), scores.argmax(0))
