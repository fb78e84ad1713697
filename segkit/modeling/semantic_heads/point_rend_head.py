"""PointRend's semantic head (Kirillov et al. 2020): logits that are computed again, point by point, at outlines."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.projects import point_rend
from detectron2.projects.point_rend.point_features import get_uncertain_point_coords_with_randomness, point_sample
from detectron2.projects.point_rend.semantic_seg import calculate_uncertainty
from torch.nn import functional as F

from segkit.structures.architecture_spec import HeadSpec, register_head
from segkit.utils.errors import ConfigError


class PointRendSemSegHead(point_rend.PointRendSemSegHead):
    """Detectron2's head of this name, with errors at build time for configs whose outputs would be wrong.

    The loss of the points is 0 if none of the sampled ones has a label; Detectron2's is NaN.

    Args:
        cfg: A config with PointRend's keys.
        input_shape: ShapeSpec of each feature map.

    Raises:
        ConfigError: The logits would not have the size of the input, or points have several feature maps.
    """

    def __init__(self, cfg: CfgNode, input_shape: Any) -> None:
        super().__init__(cfg, input_shape)
        stride = self.coarse_sem_seg_head.common_stride
        if 2**self.subdivision_steps != stride:
            problem = (
                f"{self.subdivision_steps} steps enlarge logits {2**self.subdivision_steps} times, not {stride} times"
            )
            remedy = f"set it to {stride.bit_length() - 1}, so that they get the size of the image"
            raise ConfigError(problem, where="MODEL.POINT_HEAD.SUBDIVISION_STEPS", remedy=remedy)
        if len(self.in_features) != 1:  # Detectron2 would concatenate them as further images
            problem = f"expected one feature map, got {list(self.in_features)}"
            raise ConfigError(problem, where="MODEL.POINT_HEAD.IN_FEATURES", remedy="name the finest one")

    def forward(self, features: dict[str, torch.Tensor], targets: torch.Tensor | None = None) -> Any:
        """Compute losses in training, otherwise logits.

        Args:
            features: Level -> (B, C, h, w).
            targets: (B, H, W) int64 channels, in training.

        Returns:
            (None, a dict of scalar losses) in training, otherwise (logits (B, K, H, W), {}).
        """
        if not self.training:
            return super().forward(features, targets)
        assert targets is not None
        coarse_logits = self.coarse_sem_seg_head.layers(features)
        losses = self.coarse_sem_seg_head.losses(coarse_logits, targets)
        with torch.no_grad():
            sampling = self.train_num_points, self.oversample_ratio, self.importance_sample_ratio
            points = get_uncertain_point_coords_with_randomness(coarse_logits, calculate_uncertainty, *sampling)
        sample = partial(point_sample, point_coords=points, align_corners=False)
        logits = self.point_head(sample(features[self.in_features[0]]), sample(coarse_logits))
        labels = sample(targets[:, None].float(), mode="nearest")[:, 0].long()
        total = F.cross_entropy(logits, labels, reduction="sum", ignore_index=self.ignore_value)
        losses["loss_sem_seg_point"] = total / labels.ne(self.ignore_value).sum().clamp(min=1)
        return None, losses


# In the place of Detectron2's, so that its configs get it.
SEM_SEG_HEADS_REGISTRY._obj_map["PointRendSemSegHead"] = PointRendSemSegHead
register_head(HeadSpec("PointRendSemSegHead", {"MODEL.POINT_HEAD.NUM_CLASSES": "semantic_channels"}))
