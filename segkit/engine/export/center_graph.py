"""Graphs of Panoptic-DeepLab: a semantic head, a center head, and the votes of their fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from segkit.engine.export.graph import Graph, find_square_padding, name_panoptic
from segkit.fusion.majority_vote import MajorityVoteFusion
from segkit.modeling.postprocessing.logit_fusion import SemanticChannels
from segkit.modeling.postprocessing.majority_vote import fuse_majority_vote
from segkit.modeling.postprocessing.resampling import Sizes, argmax_resized
from segkit.structures.graph_outputs import PANOPTIC, SEMANTIC


class CenterGraph(Graph):
    """Of PanopticDeepLab. See base class."""

    def __init__(self, model: Any, tasks: Sequence[str], swap_channels: bool, channels: int) -> None:
        super().__init__(model, tasks, swap_channels, channels)
        self.channels = SemanticChannels(channels, model.stuff_ids, model.thing_ids)

    @staticmethod
    def list_tasks(model: Any) -> tuple[str, ...]:
        """See base class."""
        return SEMANTIC, PANOPTIC

    @staticmethod
    def find_obstacle(model: Any, tasks: Sequence[str]) -> str:
        """See base class."""
        if PANOPTIC in tasks and type(model.fusion) is not MajorityVoteFusion:
            return f"the fusion {type(model.fusion).__name__} (MODEL.PANOPTIC.FUSION)"
        return find_square_padding(model)

    def compute(self, pixels: torch.Tensor, sizes: Sizes) -> dict[str, torch.Tensor]:
        """See base class."""
        features, results = self.model.backbone(pixels), dict[str, torch.Tensor]()
        logits, scale = self.compute_logits(features)
        sizes = sizes._replace(scale=scale)
        if SEMANTIC in self.tasks:
            results["semantic_ids"] = argmax_resized(logits, sizes).int()
        if PANOPTIC in self.tasks:
            centers = self.compute_centers(features, sizes)
            fused = fuse_majority_vote(logits, sizes, *centers, self.channels, self.model.fusion)
            results.update(name_panoptic(fused))
        return results

    def compute_logits(self, features: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
        """Run the semantic head.

        Args:
            features: of the backbone.

        Returns:
            See `compute_coarse_logits`.
        """
        head = self.model.sem_seg_head
        return head.layers(features), head.common_stride

    def compute_centers(
        self, features: dict[str, torch.Tensor], sizes: Sizes
    ) -> tuple[torch.Tensor, torch.Tensor, Sizes]:
        """Run the center head.

        Args:
            features: of the backbone.
            sizes: of the images and results.

        Returns:
            Heat, offsets and their sizes, see `fuse_majority_vote`.
        """
        head = self.model.ins_embed_head
        heat, offsets_yx = head.layers(features)
        return heat, offsets_yx, sizes._replace(scale=head.common_stride)
