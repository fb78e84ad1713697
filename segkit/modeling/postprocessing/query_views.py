"""The queries of several views of one image (scaled, flipped), merged before the fusion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from segkit.modeling.postprocessing.query_masks import QueryImage
from segkit.modeling.postprocessing.resampling import Sizes
from segkit.modeling.transfers import copy_to_device
from segkit.runtime.object_groups import MATCH_IOU, ObjectGroups

LOWEST_PROB = 1e-30  # whose logarithm is finite


def flip_queries(image: QueryImage) -> QueryImage:
    """Mirror the masks left and right, without the padding.

    Args:
        image: the predictions.

    Returns:
        The predictions for the mirrored image. If the width of the network's image is a multiple of the stride of the
        logits, these are only moved, otherwise interpolated between neighbours.
    """
    height, width = image.mask_logits.shape[1:]
    return replace(image, mask_logits=_resample(image.mask_logits, image.sizes, image.sizes, (height, width), True))


def merge_queries(views: Sequence[QueryImage]) -> QueryImage:
    """Merge the queries of views, by the rules of `merge_instances` in view_merging.py.

    The class of a query is its most probable one beside "no object", and that probability is its score. Queries of two
    views are one if they are of one class and the IoU of their masks (positive logits) is at least `MATCH_IOU`, those
    of the highest IoU first. Queries of one view are never merged. Class probabilities are the means of all views; a
    view without the query is sure of "no object". Mask probabilities are means weighted by the scores. As many merged
    queries are kept as a view has, those of the highest scores.

    Masks are compared and averaged on the grid of logits of the largest view. Beside the logits of the views, a byte
    is needed for each logit on this grid of all views, and then some 30 bytes for each logit of one view.

    Args:
        views: one or more of one image, flipped back, with equal numbers of queries.

    Returns:
        The queries by falling score, of equal scores those of the first view first. An only view stays as it is.
    """
    if len(views) == 1:
        return views[0]
    base = max(views, key=_count_cells)
    probs = torch.stack([view.class_logits for view in views]).float().softmax(2).cpu()
    scores, class_ids = probs[..., :-1].max(2)
    groups = _group(views, base, class_ids.numpy())
    of_groups = probs.new_zeros((int(groups.max()) + 1, probs.shape[2]))
    of_groups.index_add_(0, torch.from_numpy(groups.ravel()), probs.flatten(0, 1))
    totals = scores.new_zeros(len(of_groups)).index_add_(0, torch.from_numpy(groups.ravel()), scores.flatten())
    class_probs = of_groups[:, :-1] / len(views)
    order = class_probs.amax(1).argsort(descending=True, stable=True)[: probs.shape[1]]
    class_probs = torch.cat([class_probs, 1 - class_probs.sum(1, keepdim=True)], dim=1)[order]
    ranks = np.full(len(of_groups), len(order))
    ranks[order.numpy()] = np.arange(len(order))
    weights = scores / totals[groups].clamp_min(LOWEST_PROB)
    masks = _average(views, base, ranks[groups], weights.numpy())
    return QueryImage(class_probs.clamp_min(LOWEST_PROB).log().to(masks.device), masks, base.sizes)


def _count_cells(image: QueryImage) -> float:
    """Logits of a mask, without the padding."""
    height, width = image.sizes.image_size
    return height * width / image.sizes.scale**2


def _group(views: Sequence[QueryImage], base: QueryImage, class_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """(V, Q): the group of each query, counted by the first of its queries."""
    groups, queries = ObjectGroups(), class_ids.shape[1]
    for view in range(len(views)):
        for _ in range(queries):
            groups.add(view)
    groups.unite(_find_matches(views, base, class_ids))
    roots = [groups.find(number) for number in range(class_ids.size)]
    return np.unique(roots, return_inverse=True)[1].reshape(class_ids.shape)


def _find_matches(
    views: Sequence[QueryImage], base: QueryImage, class_ids: NDArray[np.int64]
) -> Iterator[tuple[float, int, int]]:
    """(IoU, number, number) of the queries of one class with an IoU of `MATCH_IOU`, for `ObjectGroups`."""
    rows, columns = (-(-length // base.sizes.scale) for length in base.sizes.image_size)
    masks = [(_resample_to(view, base)[:, :rows, :columns] > 0).flatten(1) for view in views]
    queries = class_ids.shape[1]
    for a, b in combinations(range(len(views)), 2):
        with torch.autocast(masks[a].device.type, enabled=False):  # which would round the counts
            shared_px = masks[a].float() @ masks[b].float().T
        union_px = masks[a].sum(1)[:, None] + masks[b].sum(1) - shared_px
        ious = (shared_px / union_px.clamp_min(1)).cpu().numpy()
        is_match = (ious >= MATCH_IOU) & (class_ids[a][:, None] == class_ids[b])
        for row, other in np.argwhere(is_match).tolist():
            yield float(ious[row, other]), a * queries + row, b * queries + other


def _average(
    views: Sequence[QueryImage], base: QueryImage, ranks: NDArray[np.int64], weights: NDArray[np.float32]
) -> torch.Tensor:
    """(Q, h, w): the logits of mean probabilities; ranks (V, Q): rows of the result, which others than 0..Q-1 lack."""
    size = ranks.shape[1], *base.mask_logits.shape[1:]
    inside, outside = (torch.zeros(size, device=base.mask_logits.device) for _ in range(2))
    for view, targets, of_view in zip(views, ranks, weights, strict=True):
        rows = np.flatnonzero(targets < len(targets))
        to, chosen = copy_to_device(np.stack([targets[rows], rows]), inside.device)
        factors = copy_to_device(of_view[rows], inside.device)[:, None, None]
        logits = _resample_to(view, base).index_select(0, chosen)
        inside.index_add_(0, to, logits.sigmoid().mul_(factors))
        outside.index_add_(0, to, logits.neg_().sigmoid_().mul_(factors))  # 1 - sigmoid(x) would be 0 from x = 17
    return inside.clamp_min_(LOWEST_PROB).log_().sub_(outside.clamp_min_(LOWEST_PROB).log_())


def _resample_to(view: QueryImage, base: QueryImage) -> torch.Tensor:
    """(Q, h, w) float32: the masks of a view on the grid of another one."""
    height, width = base.mask_logits.shape[1:]
    return _resample(view.mask_logits, view.sizes, base.sizes, (height, width))


def _resample(
    logits: torch.Tensor, sizes: Sizes, target: Sizes, target_hw: tuple[int, int], flip: bool = False
) -> torch.Tensor:
    """Interpolate logits at the same places of the image, without its padding, bilinearly."""
    values = logits.float()
    if sizes == target and values.shape[1:] == target_hw and not flip:
        return values
    for dim, is_flipped in ((1, False), (2, flip)):
        centers = (torch.arange(target_hw[dim - 1], dtype=torch.float64) + 0.5) * target.scale
        shares = centers / target.image_size[dim - 1]
        shares = 1 - shares if is_flipped else shares
        last = values.shape[dim] - 1
        positions = (shares * (sizes.image_size[dim - 1] / sizes.scale) - 0.5).clamp(0, last)
        first = positions.floor()
        weights = (positions - first).float().to(values.device)
        first, after = (index.long().to(values.device) for index in (first, (first + 1).clamp(max=last)))
        weights = weights[:, None] if dim == 1 else weights
        values = torch.lerp(values.index_select(dim, first), values.index_select(dim, after), weights)
    return values
