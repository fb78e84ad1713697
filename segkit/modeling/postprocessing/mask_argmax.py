"""MaskFormer's fusion for a semantic head on tensors; the rule and its source are in segkit/fusion/mask_argmax.py.

As in contests.py nothing is read back, no N x H x W is made, and values are computed in the order of the CPU's way.
"""

from __future__ import annotations

import numpy as np
import torch

from segkit.fusion.mask_argmax import FIXED_POINT, OWN_PROB, MaskArgmaxFusion
from segkit.modeling.postprocessing.detections import Detections, find_input_errors, sort_by_score
from segkit.modeling.postprocessing.logit_fusion import Channels, argmax_selected, pasted
from segkit.modeling.postprocessing.panoptic_tensors import FusedTensors, build_fused_tensors, histogram
from segkit.modeling.postprocessing.resampling import CHANNELS_PER_STEP
from segkit.structures import THING_CHANNEL


def fuse_mask_argmax(
    found: Detections,
    logits: torch.Tensor,
    channels: Channels,
    rule: MaskArgmaxFusion,
    nan_logits: torch.Tensor | None = None,
) -> FusedTensors:
    """MaskArgmaxFusion for a semantic head.

    found: boxes in pixels of the (H, W) images. logits: (B, C, H, W). nan_logits: (B,) bool.
    """
    highest, channel = logits.max(1)
    best, instance_ids = sort_by_score(found)
    good = best.valid & (best.scores.float() > float(np.float32(rule.object_mask_threshold)))
    total = good.shape[1]
    of_stuff, stuff_channel = argmax_selected(logits, channels.of_stuff)
    values = _softmax(logits, highest, of_stuff)
    owners = channels.stuff_ids[stuff_channel].int() + total
    solid = channels.stuff_ids[channel] != THING_CHANNEL
    own_px = []
    for rank, probs in pasted(best, (owners.shape[1], owners.shape[2])):
        own = probs >= float(OWN_PROB)
        value = best.scores[:, rank, None, None].float() * probs
        won = good[:, rank, None, None] & (value > values)
        values = torch.where(won, value, values)
        owners = owners.masked_fill(won, rank)
        solid = (won & own) | (~won & solid)  # ONNX runtimes have no Where of truth values
        own_px.append(own.sum((1, 2)))
    if own_px:
        lost = _lost(owners, torch.stack(own_px, dim=1), channels.stuff_count, rule.overlap_threshold)
        solid = solid & ~lost
    owners = owners.masked_fill(~solid, total)
    limit = max(rule.stuff_area_limit_px, 1)
    return build_fused_tensors(
        best, instance_ids, owners, None, channels.stuff_count, limit, find_input_errors(found, nan_logits)
    )


def _lost(owners: torch.Tensor, own_px: torch.Tensor, stuff_count: int, overlap_threshold: float) -> torch.Tensor:
    """(B, H, W) bool: pixels won by an instance that won fewer than the share overlap_threshold of its own, (B, N)."""
    bins = own_px.shape[1] + stuff_count + 1
    won_px = histogram(owners, bins)[:, : own_px.shape[1]]
    lost = (own_px > 0) & (won_px.double() / own_px.double() < overlap_threshold)
    lost = torch.cat([lost, lost.new_zeros((len(lost), stuff_count + 1))], dim=1)
    return lost.gather(1, owners.flatten(1).long()).reshape(owners.shape)


def _softmax(logits: torch.Tensor, highest: torch.Tensor, of_stuff: torch.Tensor) -> torch.Tensor:
    """(B, H, W) float32: the probability of a channel with the logit of_stuff, summed in fixed point as on the CPU."""
    total = torch.zeros_like(highest, dtype=torch.float64)
    for start in range(0, logits.shape[1], CHANNELS_PER_STEP):
        powers = _exp(logits[:, start : start + CHANNELS_PER_STEP] - highest[:, None])
        total = total + (powers * float(FIXED_POINT)).round().double().sum(1)
    return (_exp(of_stuff - highest) * float(FIXED_POINT) / total).float()


def _exp(below: torch.Tensor) -> torch.Tensor:
    return torch.where(below.isnan(), 0.0, below.clamp(max=0)).exp()
