"""All post-processing on tensors, for images of one size or of several: one call, one later transfer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from segkit.fusion import FusionMethod, HeuristicFusion
from segkit.fusion.efficientps import EfficientPSFusion
from segkit.fusion.mask_argmax import MaskArgmaxFusion
from segkit.fusion.upsnet import UPSNetFusion
from segkit.modeling.postprocessing.detections import (
    NO_THINGS,
    Detections,
    build_class_thresholds,
    find_input_errors,
    scale_boxes,
    sort_by_score,
    stack_detections,
)
from segkit.modeling.postprocessing.heuristic import NMS_ON_TENSORS, fuse_heuristic
from segkit.modeling.postprocessing.logit_fusion import SemanticChannels, fuse_efficientps, fuse_upsnet
from segkit.modeling.postprocessing.mask_argmax import fuse_mask_argmax
from segkit.modeling.postprocessing.panoptic_tensors import FusedTensors, build_fused_tensors
from segkit.modeling.postprocessing.resampling import argmax_resized, find_nan_logits, resize_logits
from segkit.structures import NO_THING
from segkit.utils.errors import ConfigError

LOGIT_FUSIONS: dict[type[FusionMethod], Callable[..., tuple[torch.Tensor, torch.Tensor | int]]] = {
    UPSNetFusion: fuse_upsnet,
    EfficientPSFusion: fuse_efficientps,
    MaskArgmaxFusion: fuse_mask_argmax,
}


class Sizes(NamedTuple):
    """The sizes of an image.

    Attributes:
        image_size: (height, width) of the network's image without padding.
        size_hw: (height, width) of the output.
        scale: Pixels of the network's image per logit: above 1 for logits before the head's own interpolation.
    """

    image_size: tuple[int, int]
    size_hw: tuple[int, int]
    scale: int = 1


class PanopticPostProcessor(nn.Module):
    """Semantic logits and detections -> FusedTensors. Constants are kept on the device.

    `forward` runs under torch.compile(fullgraph=True), exports with torch.onnx.export(dynamo=True) for fixed sizes, and
    never waits for a GPU. With another runtime (ONNX, inductor) pixels may differ whose probability is within rounding
    of the threshold, or whose best two logits are within rounding of each other. Do not cast it to another dtype:
    thresholds are compared in float64.

    Args:
        fusion: A method for which `runs_on_tensors` is true.
        channels: C, number of channels of the logits.
        stuff_ids: (C,) int64, stuff contiguous id of each channel, 0 for things; None: the channel itself.
        thing_ids: (C,) int64, thing contiguous id of each channel, -1 for none; None: all -1.

    Raises:
        ConfigError: The method or its options run on the CPU only.
        ValueError: stuff_ids or thing_ids do not have one id per channel.
    """

    stuff_ids: torch.Tensor
    thing_ids: torch.Tensor
    stuff_channels: torch.Tensor
    thing_channels: torch.Tensor
    class_thresholds: torch.Tensor

    def __init__(
        self,
        fusion: FusionMethod,
        channels: int,
        stuff_ids: torch.Tensor | None = None,
        thing_ids: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        if not runs_on_tensors(fusion):
            raise ConfigError(f"{fusion} does not run on tensors", remedy="choose another method, or fuse on the CPU")
        stuff_ids = torch.arange(channels) if stuff_ids is None else stuff_ids.long()
        thing_ids = torch.full((channels,), NO_THING) if thing_ids is None else thing_ids.long()
        if not stuff_ids.shape == thing_ids.shape == (channels,):
            got = f"{tuple(stuff_ids.shape)} and {tuple(thing_ids.shape)}"
            raise ValueError(f"stuff_ids and thing_ids must be one per channel, ({channels},), got {got}")
        self.fusion = fusion
        *buffers, self.stuff_count = SemanticChannels.from_ids(stuff_ids, thing_ids)
        for name, buffer in zip(SemanticChannels._fields, buffers, strict=False):
            self.register_buffer(name, buffer, persistent=False)
        if isinstance(fusion, HeuristicFusion):
            self.register_buffer("class_thresholds", build_class_thresholds(fusion), persistent=False)

    def forward(self, detections: Detections, logits: torch.Tensor, sizes: Sizes) -> FusedTensors:
        """Fuse B images of one size.

        HeuristicFusion needs no C x H x W. The other methods compare logits and need it.

        Args:
            detections: Boxes in pixels of the network's image. A box without area in the output is dropped, as in
                detector_postprocess of Detectron2.
            logits: (B, C, h, w) float, padded as the batch was.
            sizes: Sizes of all images.

        Returns:
            The fused batch.
        """
        boxes, has_area = scale_boxes(detections.boxes_xyxy, sizes.image_size, sizes.size_hw)
        detections = detections._replace(boxes_xyxy=boxes, valid=detections.valid & has_area)
        fused = self._fuse(detections, logits, sizes)
        if self.thing_channels.shape[0]:
            return fused
        return fused.with_input_errors(detections.valid.any(1) * NO_THINGS)

    def process_images(
        self, detections: Sequence[Detections], logits: Sequence[torch.Tensor], sizes: Sequence[Sizes]
    ) -> list[FusedTensors]:
        """Fuse images of any sizes. Images of one size are fused together.

        Args:
            detections: Detections of each image.
            logits: (C, h, w) logits of each image.
            sizes: Sizes of each image.

        Returns:
            The fused images in the same order.
        """
        groups: dict[Any, list[int]] = {}
        for index, (rows, scores, size) in enumerate(zip(detections, logits, sizes, strict=True)):
            groups.setdefault((size, scores.shape, rows.mask_probs.shape[1:]), []).append(index)
        fused: dict[int, FusedTensors] = {}
        for (size, *_), indices in groups.items():
            rows = stack_detections([detections[i] for i in indices])
            batch = self(rows, torch.stack([logits[i] for i in indices]), size)
            fused.update(zip(indices, batch.unbatched(), strict=True))
        return [fused[index] for index in range(len(detections))]

    def _fuse(self, detections: Detections, logits: torch.Tensor, sizes: Sizes) -> FusedTensors:
        has_nan_logits = find_nan_logits(logits, sizes.image_size, sizes.scale)
        if isinstance(self.fusion, HeuristicFusion):
            stuff_map = self.stuff_ids[argmax_resized(logits, *sizes)]
            thresholds = self.class_thresholds
            return fuse_heuristic(detections, stuff_map, self.stuff_count, self.fusion, thresholds, has_nan_logits)
        channels = SemanticChannels(
            self.stuff_ids, self.thing_ids, self.stuff_channels, self.thing_channels, self.stuff_count
        )
        ranked, instance_ids = sort_by_score(detections)
        full = resize_logits(logits, *sizes).float()
        owners, errors = LOGIT_FUSIONS[type(self.fusion)](ranked, full, channels, self.fusion)
        errors = errors + find_input_errors(detections, has_nan_logits)
        limit = max(self.fusion.stuff_area_limit_px, 1)
        return build_fused_tensors(ranked, instance_ids, owners, None, self.stuff_count, limit, errors)


def runs_on_tensors(fusion: FusionMethod) -> bool:
    """Whether `PanopticPostProcessor` supports the method and its options; MaskArgmaxFusion without stuff masks."""
    return type(fusion) in LOGIT_FUSIONS or (type(fusion) is HeuristicFusion and fusion.nms in NMS_ON_TENSORS)
