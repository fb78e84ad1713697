"""torchvision's DeepLabV3 (Chen et al. 2017): its dilated network as a backbone, and its head: its weights load."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, SEM_SEG_HEADS_REGISTRY, Backbone
from torch import nn
from torch.nn import functional
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from segkit.utils.errors import ConfigError

LEVEL = "res5"  # Detectron2's name of the last stage
MOBILENET = "mobilenet_v3_large"
# name -> stride and channels of the last level
NETWORKS = {"resnet50": (8, 2048), "resnet101": (8, 2048), MOBILENET: (16, 960)}


class TorchvisionDilatedBackbone(Backbone):
    """A torchvision ResNet whose last two stages are dilated instead of strided, or a MobileNetV3 with the last one so.

    Args:
        name: resnet50, resnet101 or mobilenet_v3_large.

    Raises:
        ConfigError: another name.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in NETWORKS:
            problem = f"expected one of {', '.join(NETWORKS)}, got {name}"
            raise ConfigError(problem, where="MODEL.RESNETS.DEPTH", remedy="set it to 50 or 101")
        if name == MOBILENET:
            network = torchvision.models.get_model(name, weights=None, dilated=True).features
            last = str(len(network) - 1)
        else:
            dilated = [False, True, True]
            network = torchvision.models.get_model(name, weights=None, replace_stride_with_dilation=dilated)
            last = "layer4"
        self.body = IntermediateLayerGetter(network, {last: LEVEL})
        self._out_features = [LEVEL]
        stride, channels = NETWORKS[name]
        self._out_feature_strides, self._out_feature_channels = {LEVEL: stride}, {LEVEL: channels}

    @property
    def size_divisibility(self) -> int:
        """Images of any size: torchvision does not pad."""
        return 0

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the feature map.

        Args:
            x: (B, 3, H, W) float.

        Returns:
            "res5" -> (B, C, H / stride, W / stride).
        """
        return dict(self.body(x))


@BACKBONE_REGISTRY.register()
def build_torchvision_dilated_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TorchvisionDilatedBackbone:
    """Build the ResNet of MODEL.RESNETS.DEPTH, dilated."""
    return TorchvisionDilatedBackbone(f"resnet{cfg.MODEL.RESNETS.DEPTH}")


@BACKBONE_REGISTRY.register()
def build_torchvision_mobilenet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TorchvisionDilatedBackbone:
    """Build MobileNetV3 (large), dilated."""
    return TorchvisionDilatedBackbone(MOBILENET)


@SEM_SEG_HEADS_REGISTRY.register()
class TorchvisionDeepLabV3Head(nn.Module):
    """The DeepLabHead of torchvision as a semantic head of Detectron2.

    Args:
        in_channels: channels of the feature map.
        stride: pixels of the image for each of its cells.
        num_classes: channels of the output.
        ignore_value: label of pixels without a class.
        loss_weight: factor of the cross entropy.
    """

    @configurable
    def __init__(
        self, *, in_channels: int, stride: int, num_classes: int, ignore_value: int, loss_weight: float
    ) -> None:
        super().__init__()
        self.classifier = DeepLabHead(in_channels, num_classes)
        self.common_stride, self.ignore_value, self.loss_weight = stride, ignore_value, loss_weight

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The arguments of the constructor for a config."""
        return {
            "in_channels": input_shape[LEVEL].channels,
            "stride": input_shape[LEVEL].stride,
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "ignore_value": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            "loss_weight": cfg.MODEL.SEM_SEG_HEAD.LOSS_WEIGHT,
        }

    def layers(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Compute the coarse logits.

        Args:
            features: level -> feature map.

        Returns:
            (B, C, h, w) logits.
        """
        logits: torch.Tensor = self.classifier(features[LEVEL])
        return logits

    def forward(self, features: dict[str, torch.Tensor], targets: Any = None) -> Any:
        """Compute losses in training, otherwise logits of the size of the image.

        Args:
            features: level -> feature map.
            targets: (B, H, W) int64 channels, in training.

        Returns:
            (None, losses) in training, otherwise ((B, C, H, W) logits, {}).
        """
        logits = self.layers(features)
        if self.training:
            return None, self.losses(logits, targets)
        return functional.interpolate(logits, scale_factor=self.common_stride, mode="bilinear", align_corners=False), {}

    def losses(self, predictions: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the cross entropy.

        Args:
            predictions: (B, C, h, w) logits.
            targets: (B, H, W) int64 channels.

        Returns:
            "loss_sem_seg" -> scalar.
        """
        logits = functional.interpolate(predictions.float(), targets.shape[-2:], mode="bilinear", align_corners=False)
        loss = functional.cross_entropy(logits, targets, ignore_index=self.ignore_value)
        return {"loss_sem_seg": loss * self.loss_weight}
