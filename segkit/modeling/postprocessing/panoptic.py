"""All post-processing on tensors, for images of one size or of several: one call, one later transfer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from segkit.fusion import FusionMethod, HeuristicFusion
from segkit.fusion.efficientps import EfficientPSFusion
from segkit.fusion.mask_argmax import MaskArgmaxFusion
from segkit.fusion.upsnet import UPSNetFusion
from segkit.modeling.postprocessing.detections import (
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
from segkit.modeling.postprocessing.resampling import Sizes, argmax_resized, find_nan_logits, resize_logits
from segkit.structures.segment_table import NAN_LOGITS, NO_THINGS
from segkit.utils.errors import ConfigError

LOGIT_FUSIONS: dict[type[FusionMethod], Callable[..., tuple[torch.Tensor, torch.Tensor | int]]] = {
    UPSNetFusion: fuse_upsnet,
    EfficientPSFusion: fuse_efficientps,
    MaskArgmaxFusion: fuse_mask_argmax,
}


class PanopticPostProcessor(nn.Module):
    """Semantic logits and detections -> FusedTensors. Constants are kept on the device.

    From torch 2.11 on, `forward` runs under torch.compile(fullgraph=True), and torch.onnx.export(dynamo=True) takes it
    for fixed sizes. It never waits for a GPU. With another runtime (ONNX, inductor) pixels may differ whose probability
    is within rounding of the threshold, or whose best two logits are within rounding of each other. Do not cast it to
    another dtype: thresholds are compared in float64.

    Args:
        fusion: A method for which `runs_on_tensors` is true.
        channels: C, number of channels of the logits.
        stuff_ids: (C,) int64, stuff contiguous id of each channel, 0 for things; None: the channel itself.
        thing_ids: (C,) int64, thing contiguous id of each channel, -1 for none; None: all -1.

    Raises:
        ConfigError: The method or its options run on the CPU only.
        ValueError: stuff_ids or thing_ids do not have one id per channel.
    """

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
        self.fusion = fusion
        self.channels = SemanticChannels(channels, stuff_ids, thing_ids)
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
        errors = find_nan_logits(logits, sizes) * NAN_LOGITS
        if not self.channels.thing_channels.shape[0]:
            errors = errors + detections.valid.any(1) * NO_THINGS
        stuff_count = self.channels.stuff_count
        if isinstance(self.fusion, HeuristicFusion):
            stuff_map = self.channels.stuff_ids[argmax_resized(logits, sizes)]
            return fuse_heuristic(detections, stuff_map, stuff_count, self.fusion, self.class_thresholds, errors)
        ranked, instance_ids = sort_by_score(detections)
        full = resize_logits(logits, sizes).float()
        owners, channel_errors = LOGIT_FUSIONS[type(self.fusion)](ranked, full, self.channels, self.fusion)
        errors = errors + channel_errors + find_input_errors(detections)
        limit = max(self.fusion.stuff_area_limit_px, 1)
        return build_fused_tensors(ranked, instance_ids, owners, None, stuff_count, limit, errors)

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


def runs_on_tensors(fusion: FusionMethod) -> bool:
    """Say whether `PanopticPostProcessor` supports a method with its options.

    Args:
        fusion: the method.

    Returns:
        True if it runs on tensors.
    """
    return type(fusion) in LOGIT_FUSIONS or (type(fusion) is HeuristicFusion and fusion.nms in NMS_ON_TENSORS)
