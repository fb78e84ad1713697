"""MaskFormer's fusion with a semantic head on tensors. The method and its source are in segkit/fusion/mask_argmax.py.

As in logit_fusion.py, nothing is read back, no N x H x W is needed, and results equal the CPU's up to rounding.
"""

from __future__ import annotations

import numpy as np
import torch

from segkit.fusion.mask_argmax import FIXED_POINT, OWN_PROB, MaskArgmaxFusion
from segkit.modeling.postprocessing.detections import Detections
from segkit.modeling.postprocessing.logit_fusion import SemanticChannels
from segkit.modeling.postprocessing.panoptic_tensors import count_labels
from segkit.modeling.postprocessing.paste import paste_each
from segkit.modeling.postprocessing.resampling import CHANNELS_PER_STEP, argmax_selected
from segkit.structures import THING_CHANNEL


def fuse_mask_argmax(
    ranked: Detections, logits: torch.Tensor, channels: SemanticChannels, fusion: MaskArgmaxFusion
) -> tuple[torch.Tensor, int]:
    """Run MaskArgmaxFusion on B images of one size. Arguments and result are those of `fuse_upsnet`."""
    highest, best_channels = logits.max(1)
    candidates = ranked.valid & (ranked.scores.float() > float(np.float32(fusion.object_mask_threshold)))
    total = candidates.shape[1]
    stuff_logits, best_stuff = argmax_selected(logits, channels.stuff_channels)
    values = _softmax(logits, highest, stuff_logits)
    owners = channels.stuff_ids[best_stuff].int() + total
    is_own = channels.stuff_ids[best_channels] != THING_CHANNEL
    own_px = []
    for rank, probs, own, area_px in paste_each(ranked, (owners.shape[1], owners.shape[2]), float(OWN_PROB)):
        value = ranked.scores[:, rank, None, None].float() * probs
        won = candidates[:, rank, None, None] & (value > values)
        values = torch.where(won, value, values)
        owners = owners.masked_fill(won, rank)
        is_own = (won & own) | (~won & is_own)  # ONNX runtimes have no Where of booleans
        own_px.append(area_px)
    if own_px:
        px = torch.stack(own_px, dim=1)
        is_own = is_own & ~_find_dropped(owners, px, channels.stuff_count, fusion.overlap_threshold)
    return owners.masked_fill(~is_own, total), 0


def _find_dropped(
    owners: torch.Tensor, own_px: torch.Tensor, stuff_count: int, overlap_threshold: float
) -> torch.Tensor:
    """(B, H, W) bool: pixels of instances that won fewer pixels than a share of their own ones, (B, N)."""
    won_px = count_labels(owners, own_px.shape[1] + stuff_count + 1)[:, : own_px.shape[1]]
    dropped = (own_px > 0) & (won_px.double() / own_px.double() < overlap_threshold)
    dropped = torch.cat([dropped, dropped.new_zeros((dropped.shape[0], stuff_count + 1))], dim=1)
    return dropped.gather(1, owners.flatten(1).long()).reshape(owners.shape)


def _softmax(logits: torch.Tensor, highest: torch.Tensor, stuff_logits: torch.Tensor) -> torch.Tensor:
    """(B, H, W) float32: the probability of a channel with these logits, summed in fixed point as on the CPU."""
    total = torch.zeros_like(highest, dtype=torch.float64)
    for start in range(0, logits.shape[1], CHANNELS_PER_STEP):
        powers = _exp(logits[:, start : start + CHANNELS_PER_STEP] - highest[:, None])
        total = total + (powers * float(FIXED_POINT)).round().double().sum(1)
    return (_exp(stuff_logits - highest) * float(FIXED_POINT) / total).float()


def _exp(differences: torch.Tensor) -> torch.Tensor:
    """The exponentials of differences up to 0; NaN counts as 0."""
    return torch.where(differences.isnan(), 0.0, differences.clamp(max=0)).exp()
