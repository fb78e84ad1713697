"""The whole path after the heads on tensors, for images of one size or of several: one call, one later transfer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from segkit.fusion import FusionMethod, HeuristicFusion
from segkit.fusion.efficientps import EfficientPSFusion
from segkit.fusion.mask_argmax import MaskArgmaxFusion
from segkit.fusion.upsnet import UPSNetFusion
from segkit.modeling.postprocessing.detections import NO_THINGS, Detections, build_class_thresholds
from segkit.modeling.postprocessing.heuristic import NMS_ON_TENSORS, fuse_heuristic
from segkit.modeling.postprocessing.logit_fusion import Channels, fuse_efficientps, fuse_upsnet
from segkit.modeling.postprocessing.mask_argmax import fuse_mask_argmax
from segkit.modeling.postprocessing.panoptic_tensors import FusedTensors
from segkit.modeling.postprocessing.resampling import argmax_resized, nan_logits, resized
from segkit.structures import NO_THING
from segkit.utils.errors import ConfigError

LOGIT_FUSIONS: dict[type[FusionMethod], Callable[..., FusedTensors]] = {
    UPSNetFusion: fuse_upsnet,
    EfficientPSFusion: fuse_efficientps,
    MaskArgmaxFusion: fuse_mask_argmax,
}


class Sizes(NamedTuple):
    """image_size: (height, width) that the network saw, without padding; size_hw: of the output; scale: how many pixels
    of the network's image each logit stands for, above 1 for logits of before the head's own interpolation."""

    image_size: tuple[int, int]
    size_hw: tuple[int, int]
    scale: int = 1


class PanopticPostProcessor(nn.Module):
    """Semantic logits and detections -> FusedTensors, with the constants kept on the device.

    `forward` runs under torch.compile(fullgraph=True), exports with torch.onnx.export(dynamo=True) for fixed sizes, and
    waits for a GPU nowhere. Pixels whose probability or whose best two logits are within rounding of each other may
    fall otherwise where another runtime resamples (ONNX, inductor). Do not cast it: thresholds are compared in float64.
    """

    stuff_ids: torch.Tensor
    thing_ids: torch.Tensor
    of_stuff: torch.Tensor
    of_things: torch.Tensor
    limits: torch.Tensor

    def __init__(
        self,
        rule: FusionMethod,
        channels: int,
        stuff_ids: torch.Tensor | None = None,
        thing_ids: torch.Tensor | None = None,
    ) -> None:
        """
        rule: a fusion method of `runs_on_tensors`, ConfigError for another. channels: C of the logits. stuff_ids: (C,)
        int64, the stuff contiguous id of each channel, 0 for things; None: the channel itself. thing_ids: (C,) int64,
        the thing contiguous id of each channel, -1 for none; None: all -1.
        """
        super().__init__()
        if not runs_on_tensors(rule):
            raise ConfigError(f"{rule} is not done on tensors", remedy="choose another, or fuse on the CPU")
        stuff_ids = torch.arange(channels) if stuff_ids is None else stuff_ids.long()
        thing_ids = torch.full((channels,), NO_THING) if thing_ids is None else thing_ids.long()
        if not stuff_ids.shape == thing_ids.shape == (channels,):
            got = f"{tuple(stuff_ids.shape)} and {tuple(thing_ids.shape)}"
            raise ValueError(f"stuff_ids and thing_ids must be one per channel, ({channels},), got {got}")
        self.rule = rule
        *buffers, self.stuff_count = Channels.of(stuff_ids, thing_ids)
        for name, buffer in zip(Channels._fields, buffers, strict=False):
            self.register_buffer(name, buffer, persistent=False)
        if isinstance(rule, HeuristicFusion):
            self.register_buffer("limits", build_class_thresholds(rule), persistent=False)

    def forward(self, found: Detections, logits: torch.Tensor, sizes: Sizes) -> FusedTensors:
        """
        found: of B images of one size, boxes in pixels of the network's image. logits: (B, C, h, w), padded as the
        batch was. A box without area at the output's size is no instance, as in Detectron2's detector_postprocess.
        The heuristic makes no C x H x W; the others compare logits and make it.
        """
        boxes, nonempty = scale_boxes(found.boxes_xyxy, sizes.image_size, sizes.size_hw)
        found = found._replace(boxes_xyxy=boxes, valid=found.valid & nonempty)
        fused = self._fused(found, logits, sizes)
        without_things = not self.of_things.shape[0]
        return fused.with_input_errors(found.valid.any(1) * NO_THINGS) if without_things else fused

    def images(
        self, found: Sequence[Detections], logits: Sequence[torch.Tensor], sizes: Sequence[Sizes]
    ) -> list[FusedTensors]:
        """Images of any sizes, those of one size together; found and logits (C, h, w): of single images."""
        together: dict[Any, list[int]] = {}
        for index, (one, scores, size) in enumerate(zip(found, logits, sizes, strict=True)):
            together.setdefault((size, scores.shape, one.mask_probs.shape[1:]), []).append(index)
        fused: dict[int, FusedTensors] = {}
        for (size, *_), indices in together.items():
            batch = self(stack_detections([found[i] for i in indices]), torch.stack([logits[i] for i in indices]), size)
            fused.update(zip(indices, batch.unbatched(), strict=True))
        return [fused[index] for index in range(len(found))]

    def _fused(self, found: Detections, logits: torch.Tensor, sizes: Sizes) -> FusedTensors:
        nan = nan_logits(logits, sizes.image_size, sizes.scale)
        if isinstance(self.rule, HeuristicFusion):
            stuff_map = self.stuff_ids[argmax_resized(logits, *sizes)]
            return fuse_heuristic(found, stuff_map, self.stuff_count, self.rule, self.limits, nan)
        full = resized(logits, *sizes).float()
        space = Channels(self.stuff_ids, self.thing_ids, self.of_stuff, self.of_things, self.stuff_count)
        return LOGIT_FUSIONS[type(self.rule)](found, full, space, self.rule, nan)


def runs_on_tensors(rule: FusionMethod) -> bool:
    """Whether `PanopticPostProcessor` knows method and options; MaskArgmaxFusion for semantic logits alone."""
    return type(rule) in LOGIT_FUSIONS or (type(rule) is HeuristicFusion and rule.nms in NMS_ON_TENSORS)


def detections_from_instances(instances: Any) -> Detections:
    """The rows of Detectron2's Instances of one image with pred_masks (N, 1, m, m) as the ROI heads give them."""
    return Detections(
        instances.pred_masks[:, 0],
        instances.pred_boxes.tensor,
        instances.scores,
        instances.pred_classes,
        torch.ones_like(instances.scores, dtype=torch.bool),
    )


def stack_detections(found: Sequence[Detections]) -> Detections:
    """Single images as a batch: rows are padded to the most that one has."""
    total = max(len(one.scores) for one in found)

    def padded(field: torch.Tensor) -> torch.Tensor:
        return F.pad(field, (0, 0) * (field.ndim - 1) + (0, total - len(field)))

    return Detections(*(torch.stack([padded(field) for field in fields]) for fields in zip(*found, strict=True)))


def scale_boxes(
    boxes_xyxy: torch.Tensor, image_size: tuple[int, int], size_hw: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes of the network's image in pixels of the output, and which have an area there.

    boxes_xyxy: (B, N, 4) float. Returns the same shape and (B, N) bool; a box that is not finite counts as one with an
    area, so that it is reported. detectron2/modeling/postprocessing.py `detector_postprocess`.
    """
    scale_x, scale_y = size_hw[1] / image_size[1], size_hw[0] / image_size[0]
    x0, y0, x1, y1 = boxes_xyxy.unbind(2)
    finite = boxes_xyxy.isfinite().all(2)
    x0, x1 = ((x * scale_x).clamp(0, size_hw[1]) for x in (x0, x1))
    y0, y1 = ((y * scale_y).clamp(0, size_hw[0]) for y in (y0, y1))
    boxes = torch.where(finite[:, :, None], torch.stack([x0, y0, x1, y1], dim=2), boxes_xyxy)
    return boxes, ((x1 > x0) & (y1 > y0)) | ~finite
