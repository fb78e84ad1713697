"""What the heads gave of one image -> HeadOutputs, by whichever way is fastest where the tensors are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.layers import paste_masks_in_image
from detectron2.modeling import detector_postprocess
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import Instances
from torch.nn import functional as F

from segkit.fusion import FusionMethod
from segkit.fusion.semantic_argmax import argmax_upsampled
from segkit.modeling.postprocessing.detections import INPUT_ERRORS, NAN_INSTANCES, NAN_LOGITS
from segkit.modeling.postprocessing.panoptic import runs_on_tensors
from segkit.modeling.postprocessing.paste import paste_crops
from segkit.modeling.postprocessing.resampling import nan_logits
from segkit.structures import InstanceMasks, SemanticScores
from segkit.utils.compiled import COMPILED


@dataclass(frozen=True)
class SemanticLogits:
    """The semantic head's output of one image.

    coarse: (C, h, w) logits, padded as the batch was; scale: how many pixels of the network's image each stands for.
    image_size: (height, width) of the network's image without padding. size_hw: of the output.
    """

    coarse: torch.Tensor
    scale: int
    image_size: tuple[int, int]
    size_hw: tuple[int, int]

    def resize(self) -> torch.Tensor:
        """(C, H, W) logits at the output's size, as Detectron2's PanopticFPN gives them."""
        logits = self.coarse
        if self.scale != 1:
            logits = F.interpolate(logits[None], scale_factor=self.scale, mode="bilinear", align_corners=False)[0]
        return sem_seg_postprocess(logits, self.image_size, *self.size_hw)

    def argmax_channels(self) -> torch.Tensor:
        """(H, W) integers: the channel of the highest logit, of equal ones the first. ValueError as `check`."""
        on_cpu = self.coarse.device.type == "cpu" and self.coarse.dtype == torch.float32
        if on_cpu and COMPILED:
            coarse = self.coarse.detach().contiguous().numpy()
            return torch.from_numpy(argmax_upsampled(coarse, self.scale, self.image_size, self.size_hw))
        self.check()
        full = self.resize()
        return full.max(dim=0).indices if on_cpu else full.argmax(dim=0)

    def check(self) -> None:
        """ValueError where a logit of the image is NaN or infinite."""
        if nan_logits(self.coarse[None], self.image_size, self.scale).item():
            raise ValueError(INPUT_ERRORS[NAN_LOGITS])


def semantic_scores(
    logits: SemanticLogits, stuff_ids: torch.Tensor | None, thing_ids: torch.Tensor | None, with_logits: bool
) -> SemanticScores:
    """On the CPU: the best channel of each pixel, and if asked for every channel's logit.

    stuff_ids, thing_ids: (C,) int64, see SemanticScores; None: channel 0 is all things, channel c the stuff c.
    ValueError where a logit is NaN or infinite.
    """
    channels = len(logits.coarse)
    stuff = torch.arange(channels) if stuff_ids is None else stuff_ids.cpu()
    things = torch.full((channels,), -1) if thing_ids is None else thing_ids.cpu()
    if not with_logits:
        return SemanticScores(logits.argmax_channels().cpu().numpy(), stuff.numpy(), things.numpy())
    logits.check()
    full = logits.resize().detach().float().cpu()
    return SemanticScores(full.max(dim=0).indices.numpy(), stuff.numpy(), things.numpy(), full.numpy())


@dataclass(frozen=True)
class OutputInstances:
    """Instances in output pixels: as Detectron2's without masks, as crops, and what the mask head gave, (N, m, m')."""

    instances: Instances
    masks: InstanceMasks
    mask_probs: torch.Tensor

    def with_full_masks(self) -> Instances:
        """The instances with Detectron2's pred_masks (N, H, W) bool."""
        full = Instances(self.instances.image_size, **self.instances.get_fields())
        if self.mask_probs.device.type == "cpu":
            full.pred_masks = torch.from_numpy(self.masks.to_full())
        else:
            probs = self.mask_probs.float()  # as they were fused: half precision would place them otherwise
            full.pred_masks = paste_masks_in_image(probs, full.pred_boxes, self.masks.size_hw)
        return full


def scale_instances(found: Instances, size_hw: tuple[int, int]) -> OutputInstances:
    """The instances in pixels of the output.

    found: of the ROI heads, in the network's pixels, pred_masks (N, 1, m, m) probabilities; it is not changed.
    Instances whose boxes are empty are left out, as Detectron2's detector_postprocess does. ValueError where a box or
    score is not finite, or a probability not in [0, 1].
    """
    if not (found.pred_boxes.tensor.isfinite().all() and found.scores.isfinite().all()):
        raise ValueError(INPUT_ERRORS[NAN_INSTANCES])
    fields = {**found.get_fields(), "row": torch.arange(len(found), device=found.scores.device)}
    fields["pred_boxes"] = fields["pred_boxes"].clone()
    mask_probs = fields.pop("pred_masks")[:, 0]
    instances = detector_postprocess(Instances(found.image_size, **fields), *size_hw)
    mask_probs = mask_probs[instances.get("row")]
    instances.remove("row")
    masks = paste_crops(mask_probs, instances.pred_boxes.tensor, instances.scores, instances.pred_classes, size_hw)
    return OutputInstances(instances, masks, mask_probs)


def fuses_on_device(fusion: FusionMethod, tensor: torch.Tensor) -> bool:
    """Whether the fusion runs where the tensor is: on CUDA, by a method of `PanopticPostProcessor`; else on the CPU.

    Not on other devices: `PanopticPostProcessor` needs float64, which not all of them have.
    """
    return tensor.device.type == "cuda" and runs_on_tensors(fusion)
