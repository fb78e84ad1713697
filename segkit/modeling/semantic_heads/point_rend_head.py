"""PointRend's semantic head (Kirillov et al. 2020): logits that are computed again, point by point, at outlines."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.projects import point_rend

from segkit.structures.architecture_spec import HeadSpec, register_head
from segkit.utils.errors import ConfigError


class PointRendSemSegHead(point_rend.PointRendSemSegHead):
    """Detectron2's head of this name, with errors at build time for configs whose outputs would be wrong.

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


# In the place of Detectron2's, so that its configs get it.
SEM_SEG_HEADS_REGISTRY._obj_map["PointRendSemSegHead"] = PointRendSemSegHead
register_head(HeadSpec("PointRendSemSegHead", {"MODEL.POINT_HEAD.NUM_CLASSES": "semantic_channels"}))
