"""Anchors of other packages, so that their weights give the same boxes."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling.anchor_generator import ANCHOR_GENERATOR_REGISTRY, DefaultAnchorGenerator
from detectron2.structures import Boxes


@ANCHOR_GENERATOR_REGISTRY.register()
class TorchvisionAnchorGenerator(DefaultAnchorGenerator):
    """The anchors of torchvision.models.detection: whole pixels, and strides that follow from the feature maps.

    torchvision divides the padded image by the size of each map, rounded down. This differs from 4, 8, 16, 32 and 64
    for the last map if the image is no multiple of 64.
    """

    def generate_cell_anchors(self, sizes: Any = (32,), aspect_ratios: Any = (0.5, 1, 2)) -> torch.Tensor:
        """See base class."""
        anchors: torch.Tensor = super().generate_cell_anchors(sizes, aspect_ratios)
        return anchors.round()

    def forward(self, features: list[torch.Tensor]) -> Any:
        """See base class."""
        image_hw = [int(length) * self.strides[0] for length in features[0].shape[-2:]]
        anchors = []
        for feature, cells in zip(features, self.cell_anchors, strict=True):
            shifts_yx = [
                torch.arange(int(length), device=cells.device) * (pixels // int(length))
                for length, pixels in zip(feature.shape[-2:], image_hw, strict=True)
            ]
            grid_y, grid_x = torch.meshgrid(*shifts_yx, indexing="ij")
            shifts = torch.stack((grid_x, grid_y, grid_x, grid_y), dim=-1).reshape(-1, 1, 4)
            anchors.append(Boxes((shifts + cells).reshape(-1, 4)))
        return anchors
