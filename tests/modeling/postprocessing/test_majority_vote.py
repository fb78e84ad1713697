"""Panoptic-DeepLab's fusion on tensors against that of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segkit.fusion.majority_vote import MajorityVoteFusion
from segkit.modeling.postprocessing.centers import CenterLogits, build_no_instances
from segkit.modeling.postprocessing.head_outputs import SemanticLogits, build_semantic_scores
from segkit.modeling.postprocessing.logit_fusion import SemanticChannels
from segkit.modeling.postprocessing.majority_vote import fuse_majority_vote
from segkit.modeling.postprocessing.panoptic_tensors import to_panoptic
from segkit.modeling.postprocessing.resampling import Sizes
from segkit.structures import HeadOutputs

STUFF_IDS, THING_IDS = torch.tensor([0, 1, 0, 2, 0]), torch.tensor([0, -1, 1, -1, 2])
IMAGE_SIZE, PADDED = (30, 45), (32, 48)


@pytest.mark.parametrize("size_hw", [(30, 45), (41, 37)])
@pytest.mark.parametrize(
    "fusion",
    [
        MajorityVoteFusion(stuff_area_limit_px=20),
        MajorityVoteFusion(top_k=20, nms_kernel=3, center_threshold=0.5, stuff_area_limit_px=0),
        MajorityVoteFusion(center_threshold=1.0),
    ],
)
def test_a_batch_equals_the_cpu(fusion: MajorityVoteFusion, size_hw: tuple[int, int]) -> None:
    """Three images: many centers, of which some are equally high and points equally far; one center; none."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.randn((3, 5, 4, 6), generator=random)
    logits = torch.nn.functional.interpolate(coarse, size=PADDED, mode="nearest")
    heat = (torch.rand((3, 1, *PADDED), generator=random) * 255).round() / 256
    heat[1:] = 0
    heat[1, 0, 9:12, 19:22] = 0.8
    heat[1, 0, 10, 20] = 0.9
    offsets = torch.randint(-9, 10, (3, 2, *PADDED), generator=random).float()
    sizes = Sizes(IMAGE_SIZE, size_hw)
    fused = fuse_majority_vote(logits, sizes, heat, offsets, sizes, SemanticChannels(5, STUFF_IDS, THING_IDS), fusion)
    counts = []
    for row, given in enumerate(to_panoptic(fused.unbatched())):
        scores = build_semantic_scores(SemanticLogits(logits[row], sizes), STUFF_IDS, THING_IDS, False)
        centers = CenterLogits(heat[row], offsets[row], sizes).resize()
        expected = fusion(HeadOutputs(build_no_instances(size_hw), scores, centers=centers))
        np.testing.assert_array_equal(given.segment_ids, expected.segment_ids)
        assert given.segments == tuple(segment for segment in expected.segments if segment.area_px)
        counts.append(sum(segment.isthing for segment in expected.segments))
    assert counts[2] == 0
    assert (counts[0] > 1) == (counts[1] > 0) == (fusion.center_threshold < 1)


def test_nan_is_reported() -> None:
    logits, offsets = torch.zeros((2, 5, 4, 4)), torch.zeros((2, 2, 4, 4))
    offsets[1, 0, 2, 2] = torch.nan
    sizes, channels = Sizes((4, 4), (4, 4)), SemanticChannels(5, STUFF_IDS, THING_IDS)
    fused = fuse_majority_vote(logits, sizes, torch.zeros((2, 1, 4, 4)), offsets, sizes, channels, MajorityVoteFusion())
    assert len(to_panoptic(fused.unbatched()[:1])) == 1
    with pytest.raises(ValueError, match="logits must be finite"):
        to_panoptic(fused.unbatched()[1:])
