"""Hungarian matching of queries with objects, of all decoder layers and images of a step at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from segkit.modeling.point_sampling import SampledMasks, sample_logits
from segkit.modeling.queries.outputs import QueryOutputs, QueryTargets
from segkit.modeling.transfers import copy_to_device

NOT_FINITE = np.finfo(np.float32).max  # the cost in the place of NaN and infinity: matched last


class Objects:
    """The objects of a batch, one row each, in the order of the images.

    Args:
        targets: of each image.

    Attributes:
        counts: objects of each image.
        class_ids: (M,) int64.
        masks: of the M objects.
        images: (M,) int64, the image of each object.
        ranks: (M,) int64, the row of each object in its image.
    """

    def __init__(self, targets: Sequence[QueryTargets]) -> None:
        self.counts = [len(image.class_ids) for image in targets]
        self.class_ids = torch.cat([image.class_ids for image in targets])
        self.masks = SampledMasks([image.masks for image in targets])
        ranks = [np.arange(count) for count in self.counts]
        rows = np.stack([np.repeat(np.arange(len(targets)), self.counts), np.concatenate(ranks)])
        self.images, self.ranks = copy_to_device(rows, self.class_ids.device)

    def to_padded(self, values: torch.Tensor) -> torch.Tensor:
        """Spread rows over images.

        Args:
            values: (M, ...), one row for each object.

        Returns:
            (N, n, ...) with n the most objects of an image; 0 where an image has fewer.
        """
        padded = values.new_zeros((len(self.counts), max(self.counts), *values.shape[1:]))
        padded[self.images, self.ranks] = values
        return padded


class Matches(NamedTuple):
    """The matched pairs of a layer, by image and then by query.

    Attributes:
        queries: (R,) int64, rows of the N Q queries of all images.
        objects: (R,) int64, rows of `Objects`.
    """

    queries: torch.Tensor
    objects: torch.Tensor


class CostWeights(NamedTuple):
    """The weights of the parts of the cost."""

    class_weight: float
    mask_weight: float
    dice_weight: float


@torch.no_grad()
def compute_costs(layer: QueryOutputs, objects: Objects, points: torch.Tensor, weights: CostWeights) -> torch.Tensor:
    """Compute the cost of each pair of a query and an object, as `HungarianMatcher` of Mask2Former does.

    The cost is that of the losses at the points, with -p of the object's class in the place of the cross-entropy
    (mask2former/modeling/matcher.py). Call it with autocast off.

    Args:
        layer: the predictions.
        objects: of the batch; at least one.
        points: (N, P, 2) float32 in [0, 1], the same for all masks of an image.
        weights: of the parts.

    Returns:
        (N, Q, n) float32, with n the most objects of an image; rows of an image after its objects mean nothing.
    """
    probs = layer.class_logits.float().softmax(2)
    class_ids = objects.to_padded(objects.class_ids)
    class_costs = -probs.gather(2, class_ids[:, None].expand(-1, probs.shape[1], -1))
    truth = objects.to_padded(objects.masks.sample(points[objects.images])).transpose(1, 2)
    logits = sample_logits(layer.mask_logits.float(), points)
    # The cross-entropy is softplus(x) - x t: one product of matrices, in the place of two for t = 1 and t = 0.
    mask_costs = (F.softplus(logits).sum(2, keepdim=True) - logits @ truth) / points.shape[1]
    sigmoid = logits.sigmoid()
    sizes = sigmoid.sum(2, keepdim=True) + truth.sum(1, keepdim=True)
    dice_costs = 1 - (2 * (sigmoid @ truth) + 1) / (sizes + 1)
    return weights.class_weight * class_costs + weights.mask_weight * mask_costs + weights.dice_weight * dice_costs


def assign(costs: NDArray[np.float32], counts: Sequence[int]) -> NDArray[np.int64]:
    """Find the pairs with the least total cost, for each layer and image by scipy's `linear_sum_assignment`.

    Costs that are not finite count as the largest float32: such a pair is matched only if no other pair is left.

    Args:
        costs: (L, N, Q, n) of L layers.
        counts: objects of each image, at most n.

    Returns:
        (L, 2, R) int64 rows of queries and objects, see `Matches`. With more objects than queries, Q objects of the
        image are matched.
    """
    costs = np.nan_to_num(costs, nan=NOT_FINITE, posinf=NOT_FINITE, neginf=NOT_FINITE)
    first_objects = np.cumsum([0, *counts])
    matches = []
    for layer in costs:
        queries, objects = [], []
        for image, (pair_costs, count) in enumerate(zip(layer, counts, strict=True)):
            rows, columns = linear_sum_assignment(pair_costs[:, :count])
            queries.append(image * len(pair_costs) + rows)
            objects.append(first_objects[image] + columns)
        matches.append([np.concatenate(queries), np.concatenate(objects)])
    return np.array(matches, dtype=np.int64)
