"""Panoptic-DeepLab's fusion on tensors, with as many centers for each image, so that no shape depends on a value.

The method and its source are in segkit/fusion/majority_vote.py. Results equal the CPU's up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from segkit.fusion.majority_vote import MajorityVoteFusion
from segkit.modeling.postprocessing.detections import Detections, sort_stably
from segkit.modeling.postprocessing.logit_fusion import SemanticChannels
from segkit.modeling.postprocessing.panoptic_tensors import FusedTensors, build_fused_tensors
from segkit.modeling.postprocessing.resampling import Sizes, argmax_resized, find_nan_logits, resize_logits
from segkit.structures import THING_CHANNEL
from segkit.structures.segment_table import NAN_LOGITS

CENTERS_PER_STEP = 8  # whose distances to all pixels are computed at once, 4 bytes each
NOWHERE, FAR_PX = 2**40, 1e18  # position and coordinate of rows without a center; the square of the second is finite


class Centers(NamedTuple):
    """K rows for each of B images, in reading order of the centers; rows without a center are the last.

    Attributes:
        heats: (B, K) float32.
        positions: (B, K) int64, row x width + column.
        valid: (B, K) bool.
    """

    heats: torch.Tensor
    positions: torch.Tensor
    valid: torch.Tensor


def fuse_majority_vote(
    logits: torch.Tensor,
    sizes: Sizes,
    heat: torch.Tensor,
    offsets_yx: torch.Tensor,
    center_sizes: Sizes,
    channels: SemanticChannels,
    fusion: MajorityVoteFusion,
) -> FusedTensors:
    """Group the thing pixels of B images of one size around centers.

    Args:
        logits: (B, C, h, w), padded as the batch was.
        sizes: of the logits.
        heat: (B, 1, h, w), of the center head.
        offsets_yx: (B, 2, h, w), down and right, in cells of h x w.
        center_sizes: of `heat` and `offsets_yx`.
        channels: of the logits, one for each thing class.
        fusion: the options.

    Returns:
        The fused batch. Instances have no instance_id.
    """
    heatmap, points_yx = resize_centers(heat, offsets_yx, center_sizes)
    centers = find_centers(heatmap, fusion)
    best_channels = argmax_resized(logits, sizes)
    is_thing = channels.stuff_ids[best_channels] == THING_CHANNEL
    is_grouped = is_thing & centers.valid.any(1)[:, None, None]
    count, classes = fusion.top_k, len(channels.stuff_ids)
    order = sort_stably(torch.where(centers.valid, centers.heats, -torch.inf))
    ranks = torch.zeros_like(order).scatter(1, order, torch.arange(count, device=order.device).expand_as(order))
    groups = ranks.gather(1, _find_nearest(points_yx, centers).flatten(1)).reshape(best_channels.shape)
    keys = torch.where(is_grouped, groups * classes + best_channels, count * classes).flatten(1)
    votes = torch.zeros((keys.shape[0], count * classes + 1), dtype=torch.int32, device=keys.device)
    votes = votes.scatter_add(1, keys, torch.ones_like(keys, dtype=torch.int32))[:, :-1]
    class_ids = channels.thing_ids[votes.reshape(-1, count, classes).argmax(2)]
    scores = torch.where(centers.valid, centers.heats, 0.0).gather(1, order)
    boxes = scores[:, :, None].expand(-1, -1, 4)  # not read
    ranked = Detections(boxes, boxes, scores, class_ids, centers.valid)
    owners = torch.where(is_grouped, groups, channels.stuff_ids[best_channels] + count).int()
    maps = ((logits, sizes), (heat, center_sizes), (offsets_yx, center_sizes))
    is_nan = torch.stack([find_nan_logits(each, own) for each, own in maps]).any(0)
    limit = max(fusion.stuff_area_limit_px, 1)
    instance_ids = torch.full_like(class_ids, -1)
    stuff_count = channels.stuff_count
    return build_fused_tensors(ranked, instance_ids, owners, None, stuff_count, limit, is_nan * NAN_LOGITS)


def resize_centers(
    heat: torch.Tensor, offsets_yx: torch.Tensor, sizes: Sizes
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Resize the output of the center head, see `segkit.modeling.postprocessing.centers.CenterLogits`.

    Args:
        heat: see `fuse_majority_vote`.
        offsets_yx: see `fuse_majority_vote`.
        sizes: of both.

    Returns:
        (B, 1, H, W) heat, and rows and columns (B, H, W) where the offsets of pixels point.
    """
    heatmap, offsets = (resize_logits(maps.float(), sizes) for maps in (heat, offsets_yx))
    points = []
    for axis, (before, after) in enumerate(zip(sizes.image_size, sizes.size_hw, strict=True)):
        pixels = torch.arange(after, device=heat.device).float()
        along = pixels[:, None] if axis == 0 else pixels
        points.append(along + offsets[:, axis] * (sizes.scale * after / before))
    return heatmap, (points[0], points[1])


def find_centers(heatmap: torch.Tensor, fusion: MajorityVoteFusion) -> Centers:
    """Find the centers, as `find_heat_peaks` of segkit/fusion/grouping.py.

    Args:
        heatmap: (B, 1, H, W) float32.
        fusion: the options.

    Returns:
        `top_k` rows for each image; fewer are valid.
    """
    kernel = fusion.nms_kernel
    highest = F.max_pool2d(heatmap, kernel, stride=1, padding=kernel // 2)
    is_peak = (heatmap > max(float(np.float32(fusion.center_threshold)), 0.0)) & (heatmap == highest)
    heats = torch.where(is_peak, heatmap, -torch.inf).flatten(1)
    heats = torch.cat([heats, heats.new_full((1, fusion.top_k), -torch.inf).expand(heats.shape[0], -1)], dim=1)
    best, positions = heats.topk(fusion.top_k, dim=1)
    valid = best > best[:, -1:]  # without top_k peaks the last is -infinity
    positions = torch.where(valid, positions, NOWHERE)
    order = sort_stably(-positions)
    positions = positions.gather(1, order)
    return Centers(best.gather(1, order), positions, positions < NOWHERE)


def compute_distances(points_yx: tuple[torch.Tensor, torch.Tensor], centers: Centers) -> Iterator[torch.Tensor]:
    """Compute the distances of pixels from centers, some centers at a time.

    Args:
        points_yx: rows and columns of `resize_centers`.
        centers: the centers.

    Yields:
        (B, step, H, W) float32; of rows without a center far more than any distance.
    """
    rows = centers.positions // points_yx[0].shape[2]
    columns = centers.positions - rows * points_yx[0].shape[2]
    axes = [torch.where(centers.valid, axis.float(), FAR_PX)[:, :, None, None] for axis in (rows, columns)]
    for start in range(0, centers.positions.shape[1], CENTERS_PER_STEP):
        down, right = (
            axis[:, start : start + CENTERS_PER_STEP] - points[:, None]
            for axis, points in zip(axes, points_yx, strict=True)
        )
        yield (down * down + right * right).sqrt()


def _find_nearest(points_yx: tuple[torch.Tensor, torch.Tensor], centers: Centers) -> torch.Tensor:
    """(B, H, W) int64: the first of the nearest centers of each pixel."""
    least = torch.full_like(points_yx[0], torch.inf)
    nearest = torch.zeros_like(least, dtype=torch.int64)
    for step, distances in enumerate(compute_distances(points_yx, centers)):
        own_least, own_nearest = distances.min(1)
        is_nearer = own_least < least
        nearest = torch.where(is_nearer, own_nearest + step * CENTERS_PER_STEP, nearest)
        least = torch.where(is_nearer, own_least, least)
    return nearest
