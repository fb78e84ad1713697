"""The outputs of the heads for several views of one image (scaled, flipped), merged before the fusion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from segkit.fusion.paste import paste_masks
from segkit.modeling.postprocessing.head_outputs import SemanticLogits
from segkit.modeling.postprocessing.query_masks import QueryImage
from segkit.modeling.postprocessing.query_views import LOWEST_PROB, flip_queries
from segkit.modeling.postprocessing.resampling import Sizes
from segkit.runtime.object_groups import MATCH_IOU, ObjectGroups
from segkit.structures import CenterOffsets, InstanceMasks


@dataclass(frozen=True)
class ViewOutputs:
    """The outputs of the heads for one view, at the size of the model's output; None for heads that are missing.

    Attributes:
        instances: Instances with mask_probs.
        logits: (C, H, W) of the semantic head.
        centers: Of the center head.
        queries: Of each view; `merge_queries` merges them.
    """

    instances: InstanceMasks | None = None
    logits: torch.Tensor | None = None
    centers: CenterOffsets | None = None
    queries: tuple[QueryImage, ...] = ()

    @property
    def semantic(self) -> SemanticLogits:
        """The logits with their sizes; ValueError without a semantic head."""
        if self.logits is None:
            raise ValueError("logits are needed, but there is no semantic head")
        size_hw = int(self.logits.shape[1]), int(self.logits.shape[2])
        return SemanticLogits(self.logits, Sizes(size_hw, size_hw))

    def flip(self) -> ViewOutputs:
        """Mirror left and right.

        Returns:
            The outputs of the mirrored image.
        """
        centers = self.centers
        if centers is not None:
            offsets = centers.offsets_yx[:, :, ::-1] * np.array([1, -1], dtype=np.float32)[:, None, None]
            centers = CenterOffsets(centers.heatmap[:, ::-1], offsets)
        return ViewOutputs(
            None if self.instances is None else _flip_instances(self.instances),
            None if self.logits is None else self.logits.flip(-1),
            centers,
            tuple(map(flip_queries, self.queries)),
        )


def merge_views(views: Iterable[ViewOutputs], max_instances: int) -> ViewOutputs:
    """Merge the views of an image, which are read one by one.

    Semantic: the mean of the probabilities (softmax). Instances: see `merge_instances`. Centers: the means of heatmaps
    and offsets. Queries stay as they are, so that the scores of pixels can be averaged too.

    Args:
        views: One or more, of one size, flipped back.
        max_instances: TEST.DETECTIONS_PER_IMAGE; negative for all.

    Returns:
        The merged outputs; the logits are the logarithms of the probabilities.
    """
    count, instances = 0, []
    probs: torch.Tensor | None = None
    centers: CenterOffsets | None = None
    queries: tuple[QueryImage, ...] = ()
    for view in views:
        count += 1
        queries += view.queries
        if view.instances is not None:
            instances.append(view.instances)
        if view.logits is not None:
            view_probs = view.logits.float().softmax(dim=0)
            probs = view_probs if probs is None else probs.add_(view_probs)
        if view.centers is not None:
            centers = view.centers if centers is None else _add(centers, view.centers)
    return ViewOutputs(
        merge_instances(instances, max_instances) if instances else None,
        None if probs is None else (probs / count).clamp_min(LOWEST_PROB).log(),
        None
        if centers is None
        else CenterOffsets(centers.heatmap / np.float32(count), centers.offsets_yx / np.float32(count)),
        queries,
    )


def merge_instances(views: Sequence[InstanceMasks], max_instances: int = -1) -> InstanceMasks:
    """Merge the instances of views.

    Instances of two views are one if they are of one class and the IoU of their masks is at least `MATCH_IOU`, those of
    the highest IoU first. Instances of one view are never merged. As in weighted boxes fusion (Solovyev et al. 2021),
    the score is the mean of all views, 0 for a view without the instance, and the box is the mean of the boxes,
    weighted by their scores; likewise the probabilities of the mask, each resampled from its own box.

    Args:
        views: One or more, of one size, with mask_probs of one size.
        max_instances: So many of the highest scores are kept; negative for all.

    Returns:
        The instances by falling score, of equal scores those of the first view first.

    Raises:
        ValueError: Instances have no mask_probs.
    """
    groups = ObjectGroups()
    numbers = [[groups.add(view) for _ in range(len(instances))] for view, instances in enumerate(views)]
    groups.unite(
        (iou, numbers[a][row], numbers[b][other])
        for a, b in combinations(range(len(views)), 2)
        for iou, row, other in _compute_ious(views[a], views[b])
    )
    members: dict[int, list[tuple[InstanceMasks, int]]] = {}
    for instances, rows in zip(views, numbers, strict=True):
        for row, number in enumerate(rows):
            members.setdefault(groups.find(number), []).append((instances, row))
    merged = [_merge_members(group, len(views)) for group in members.values()]
    merged.sort(key=lambda instance: -instance.score)
    merged = merged[:max_instances] if max_instances >= 0 else merged
    if not merged:
        return views[0]
    boxes, probs, scores, class_ids = zip(*((m.box_xyxy, m.probs, m.score, m.class_id) for m in merged), strict=True)
    arrays = np.stack(probs), np.stack(boxes), np.array(scores, dtype=np.float32), np.array(class_ids, dtype=np.int64)
    return paste_masks(*arrays, views[0].size_hw)


@dataclass(frozen=True)
class _Merged:
    box_xyxy: NDArray[np.float32]
    probs: NDArray[np.float32]
    score: float
    class_id: int


def _merge_members(members: Sequence[tuple[InstanceMasks, int]], views: int) -> _Merged:
    scores = np.array([instances.scores[row] for instances, row in members], dtype=np.float64)
    weights = scores / scores.sum() if scores.sum() > 0 else np.full(len(scores), 1 / len(scores))
    boxes = np.array([instances.boxes_xyxy[row] for instances, row in members], dtype=np.float64)
    box = weights @ boxes
    probs = sum(
        weight * _resample(_get_probs(*member), own_box, box)
        for weight, member, own_box in zip(weights, members, boxes, strict=True)
    )
    instances, row = members[0]
    rounded = np.clip(probs, 0, 1).astype(np.float32)
    return _Merged(box.astype(np.float32), rounded, float(scores.sum()) / views, int(instances.class_ids[row]))


def _get_probs(instances: InstanceMasks, row: int) -> NDArray[np.float32]:
    if instances.mask_probs is None:
        raise ValueError("mask_probs are needed, but only the binary masks are known")
    return instances.mask_probs[row]


def _resample(
    probs: NDArray[np.float32], own_box: NDArray[np.float64], box: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(m, m'): the mask of one box at the cells of another one, bilinear, 0 outside of its box."""
    if np.array_equal(own_box, box):
        return probs.astype(np.float64)
    rows, columns = (
        _build_weights(count, own_box[axis::2], box[axis::2]) for count, axis in zip(probs.shape, (1, 0), strict=True)
    )
    resampled: NDArray[np.float64] = rows @ probs @ columns.T
    return resampled


def _build_weights(count: int, own_edges: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """(count, count): the weight of each value between `own_edges` (2,) for each cell between `edges` (2,)."""
    centers = edges[0] + (np.arange(count) + 0.5) / count * (edges[1] - edges[0])
    positions = (centers - own_edges[0]) / max(own_edges[1] - own_edges[0], np.finfo(np.float32).tiny) * count - 0.5
    return np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(count)))


def _compute_ious(first: InstanceMasks, second: InstanceMasks) -> Iterator[tuple[float, int, int]]:
    """(IoU, row, row) of the pairs of one class that may have an IoU of `MATCH_IOU`."""
    if not len(first) or not len(second):
        return
    a_places, b_places = _get_places(first), _get_places(second)
    begins = np.maximum(a_places[:, None, :2], b_places[None, :, :2])
    ends = np.minimum(a_places[:, None, 2:], b_places[None, :, 2:])
    shared_px = np.maximum(ends - begins, 0).prod(axis=2)
    larger_px = np.maximum(first.areas_px[:, None], second.areas_px)  # at most the union
    is_near = (shared_px > 0) & (shared_px >= MATCH_IOU * larger_px)
    is_near &= first.class_ids[:, None] == second.class_ids
    for row, other in np.argwhere(is_near).tolist():
        (left, top), (right, bottom) = begins[row, other], ends[row, other]
        crops = [
            instances.crops[index][top - y : bottom - y, left - x : right - x]
            for instances, index in ((first, row), (second, other))
            for x, y in (instances.corners_xy[index].tolist(),)
        ]
        intersection_px = int(np.count_nonzero(crops[0] & crops[1]))
        union_px = int(first.areas_px[row] + second.areas_px[other]) - intersection_px
        yield intersection_px / max(union_px, 1), row, other


def _get_places(instances: InstanceMasks) -> NDArray[np.int64]:
    """(N, 4): left, top, right, bottom of each crop."""
    sizes = np.array([crop.shape[::-1] for crop in instances.crops], dtype=np.int64)
    return np.concatenate([instances.corners_xy, instances.corners_xy + sizes], axis=1)


def _flip_instances(instances: InstanceMasks) -> InstanceMasks:
    width = instances.size_hw[1]
    boxes, corners = instances.boxes_xyxy.copy(), instances.corners_xy.copy()
    boxes[:, 0::2] = width - instances.boxes_xyxy[:, 2::-2]
    corners[:, 0] = [width - x - crop.shape[1] for x, crop in zip(corners[:, 0].tolist(), instances.crops, strict=True)]
    crops = tuple(crop[:, ::-1] for crop in instances.crops)
    probs = None if instances.mask_probs is None else instances.mask_probs[:, :, ::-1]
    return replace(instances, boxes_xyxy=boxes, corners_xy=corners, crops=crops, mask_probs=probs)


def _add(first: CenterOffsets, second: CenterOffsets) -> CenterOffsets:
    return CenterOffsets(first.heatmap + second.heatmap, first.offsets_yx + second.offsets_yx)
