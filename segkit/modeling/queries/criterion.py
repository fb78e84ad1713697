"""The losses of mask transformers (Cheng et al. 2022, "Masked-attention Mask Transformer", sections 3.3 and 4.1)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.utils import comm
from torch import distributed, nn
from torch.nn import functional as F

from segkit.modeling.point_sampling import draw_uncertain_points, sample_logits
from segkit.modeling.queries.matching import CostWeights, Matches, Objects, assign, compute_costs
from segkit.modeling.queries.outputs import QueryOutputs, QueryTargets
from segkit.modeling.transfers import copy_to_device
from segkit.utils.errors import ConfigError

logger = logging.getLogger(__name__)


class QueryCriterion(nn.Module):
    """Match queries with objects, and compute the losses of each decoder layer, as Mask2Former does.

    The reference is mask2former/modeling/criterion.py: a cross-entropy over all queries, and for the matched ones the
    mean binary cross-entropy and the Dice loss at points, divided by the mean number of objects of a process. They are
    computed in float32 with autocast off. A step waits for the device once, for the costs of all layers.

    Logits that are not finite, as after an overflow in float16, are reported once, with the remedy. Such a query is
    matched last; if a loss is not finite, the trainer skips the step. More objects than queries are reported once.

    Args:
        num_classes: K.
        no_object_weight: weight of "no object" in the cross-entropy.
        class_weight: factor of `loss_class`, and in the cost of a match.
        mask_weight: factor of `loss_mask`, likewise.
        dice_weight: factor of `loss_dice`, likewise.
        num_points: points of a mask.
        oversample_ratio: see `draw_uncertain_points`.
        importance_sample_ratio: see `draw_uncertain_points`.
        deep_supervision: False: losses for the last layer alone.
    """

    empty_weight: torch.Tensor

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        no_object_weight: float = 0.1,
        class_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        num_points: int = 112 * 112,
        oversample_ratio: float = 3.0,
        importance_sample_ratio: float = 0.75,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        self.weights = CostWeights(class_weight, mask_weight, dice_weight)
        self.num_points, self.oversample_ratio = num_points, oversample_ratio
        self.importance_sample_ratio, self.deep_supervision = importance_sample_ratio, deep_supervision
        empty_weight = torch.ones(num_classes + 1)
        empty_weight[-1] = no_object_weight
        self.register_buffer("empty_weight", empty_weight)
        self._reported: set[str] = set()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments of the constructor from MODEL.QUERIES.

        Args:
            cfg: a config with segkit's keys.

        Returns:
            The arguments by name.

        Raises:
            ConfigError: a number is out of range.
        """
        _check_numbers(cfg.MODEL.QUERIES)
        names = (
            "NUM_CLASSES NO_OBJECT_WEIGHT CLASS_WEIGHT MASK_WEIGHT DICE_WEIGHT NUM_POINTS OVERSAMPLE_RATIO "
            "IMPORTANCE_SAMPLE_RATIO DEEP_SUPERVISION"
        )
        return {name.lower(): cfg.MODEL.QUERIES[name] for name in names.split()}

    def forward(self, outputs: Sequence[QueryOutputs], targets: Sequence[QueryTargets]) -> dict[str, torch.Tensor]:
        """Compute the losses.

        Args:
            outputs: of the decoder layers, from the first to the last, for N images.
            targets: of the N images.

        Returns:
            Scalars that are multiplied by their weights: "loss_class", "loss_mask" and "loss_dice" of the last layer,
            and with the suffixes "_0", "_1", ... those of the earlier ones.
        """
        suffixes = ["", *(f"_{index}" for index in range(len(outputs) - 1))]
        layers = [outputs[-1], *outputs[:-1]]
        if not self.deep_supervision:
            layers = layers[:1]
        with torch.autocast(layers[0].mask_logits.device.type, enabled=False):
            objects = Objects(targets)
            matches = self._match(layers, objects)
            divisor = _count_objects(objects)
            losses = {}
            for suffix, layer, matched in zip(suffixes, layers, matches, strict=False):
                for name, loss in self._compute_losses(layer, objects, matched, divisor).items():
                    losses[f"{name}{suffix}"] = loss
        return losses

    def _match(self, layers: Sequence[QueryOutputs], objects: Objects) -> list[Matches]:
        device = objects.class_ids.device
        images, queries = layers[0].class_logits.shape[:2]
        if not len(objects.masks):
            nothing = objects.class_ids.new_zeros(0)
            return [Matches(nothing, nothing)] * len(layers)
        costs = torch.stack(
            [
                compute_costs(layer, objects, torch.rand(images, self.num_points, 2, device=device), self.weights)
                for layer in layers
            ]
        )
        self._report(costs_on_cpu := costs.cpu().numpy(), objects.counts, queries)
        pairs = copy_to_device(assign(costs_on_cpu, objects.counts), device)
        return [Matches(*layer) for layer in pairs]

    def _report(self, costs: np.ndarray, counts: Sequence[int], queries: int) -> None:
        if max(counts) > queries and "objects" not in self._reported:
            self._reported.add("objects")
            logger.warning(
                "An image has %d objects, but the model has %d queries: %d objects are not learned; "
                "raise MODEL.QUERIES.NUM_QUERIES. Further images are not reported.",
                *(max(counts), queries, max(counts) - queries),
            )
        is_finite = np.isfinite(costs.sum((2, 3), dtype=np.float64))  # (L, N)
        if not is_finite.all() and "finite" not in self._reported:
            self._reported.add("finite")
            layer, image = np.argwhere(~is_finite)[0].tolist()
            logger.warning(
                "The logits of decoder layer %s are not finite for image %d of the batch: after an overflow in float16 "
                'set SOLVER.AMP.DTYPE "bfloat16" or SOLVER.AMP.ENABLED False; otherwise lower SOLVER.BASE_LR. '
                "Further steps are not reported.",
                *(len(costs) - 1 if layer == 0 else layer - 1, image),
            )

    def _compute_losses(
        self, layer: QueryOutputs, objects: Objects, matches: Matches, divisor: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        class_logits = layer.class_logits.flatten(0, 1).float()
        no_object = class_logits.shape[1] - 1
        class_ids = torch.full(class_logits.shape[:1], no_object, device=class_logits.device)
        class_ids[matches.queries] = objects.class_ids[matches.objects]
        loss_class = F.cross_entropy(class_logits, class_ids, self.empty_weight)
        logits = layer.mask_logits.flatten(0, 1).index_select(0, matches.queries)[:, None].float()
        points = draw_uncertain_points(
            logits.detach(), self.num_points, self.oversample_ratio, self.importance_sample_ratio
        )
        truth = objects.masks.sample(points, matches.objects)
        logits = sample_logits(logits, points)[:, 0]
        loss_mask = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1).sum() / divisor
        probs = logits.sigmoid()
        dice = 1 - (2 * (probs * truth).sum(1) + 1) / (probs.sum(1) + truth.sum(1) + 1)
        return {
            "loss_class": self.weights.class_weight * loss_class,
            "loss_mask": self.weights.mask_weight * loss_mask,
            "loss_dice": self.weights.dice_weight * dice.sum() / divisor,
        }


def _check_numbers(queries: CfgNode) -> None:
    limits: dict[str, tuple[float, float | None]] = {
        "NUM_QUERIES": (1, None),
        "NUM_POINTS": (1, None),
        "OVERSAMPLE_RATIO": (1, None),
    }
    limits |= {"IMPORTANCE_SAMPLE_RATIO": (0, 1), "NO_OBJECT_WEIGHT": (0, None), "CLASS_WEIGHT": (0, None)}
    limits |= {"MASK_WEIGHT": (0, None), "DICE_WEIGHT": (0, None)}
    for key, (least, most) in limits.items():
        if not least <= queries[key] <= (float("inf") if most is None else most):
            expected = f"at least {least}" if most is None else f"{least} to {most}"
            raise ConfigError(f"expected {expected}, got {queries[key]}", where=f"MODEL.QUERIES.{key}")


def _count_objects(objects: Objects) -> torch.Tensor:
    """The mean number of objects of a process, at least 1, without waiting for the device."""
    count = torch.full((), float(len(objects.masks)), device=objects.class_ids.device)
    if (processes := comm.get_world_size()) > 1:
        distributed.all_reduce(count)
    return (count / processes).clamp(min=1)
