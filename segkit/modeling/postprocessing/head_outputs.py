"""From the tensors of the heads for one image to the parts of HeadOutputs, by the fastest way on their device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.layers import paste_masks_in_image
from detectron2.modeling import detector_postprocess
from detectron2.structures import Instances

from segkit.fusion import FusionMethod
from segkit.fusion.semantic_argmax import argmax_upsampled
from segkit.modeling.postprocessing.panoptic import runs_on_tensors
from segkit.modeling.postprocessing.paste import paste_crops
from segkit.modeling.postprocessing.resampling import Sizes, find_nan_logits, resize_logits
from segkit.structures import InstanceMasks, SemanticScores
from segkit.structures.segment_table import INPUT_ERRORS, NAN_INSTANCES, NAN_LOGITS
from segkit.utils.compiled import COMPILED


@dataclass(frozen=True)
class SemanticLogits:
    """The output of the semantic head for one image.

    Attributes:
        coarse: (C, h, w) logits, padded as the batch was.
        sizes: Sizes of the image.
    """

    coarse: torch.Tensor
    sizes: Sizes

    def resize(self) -> torch.Tensor:
        """(C, H, W) logits at the output's size, as Detectron2's PanopticFPN computes them."""
        return resize_logits(self.coarse[None], self.sizes)[0]

    def argmax_channels(self) -> torch.Tensor:
        """(H, W) integers: the channel of the highest logit, the first of equal ones. Raises ValueError as `check`."""
        on_cpu = self.coarse.device.type == "cpu" and self.coarse.dtype == torch.float32
        if on_cpu and COMPILED:
            coarse = self.coarse.detach().contiguous().numpy()
            image_size, size_hw, scale = self.sizes
            return torch.from_numpy(argmax_upsampled(coarse, scale, image_size, size_hw))
        self.check()
        full = self.resize()
        return full.max(dim=0).indices if on_cpu else full.argmax(dim=0)

    def check(self) -> None:
        """Raise ValueError if a logit of the image is NaN or infinite."""
        if find_nan_logits(self.coarse[None], self.sizes).item():
            raise ValueError(INPUT_ERRORS[NAN_LOGITS])


def build_semantic_scores(
    logits: SemanticLogits, stuff_ids: torch.Tensor | None, thing_ids: torch.Tensor | None, with_logits: bool
) -> SemanticScores:
    """Build the semantic part of HeadOutputs on the CPU.

    Args:
        logits: Output of the semantic head.
        stuff_ids: (C,) int64, see SemanticScores; None: channel 0 is all things, channel c is stuff c.
        thing_ids: (C,) int64, see SemanticScores; None: no channel is of one thing class.
        with_logits: Whether to keep the logits of every channel besides the best channel.

    Returns:
        The scores.

    Raises:
        ValueError: A logit is NaN or infinite.
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
    """Instances in pixels of the output.

    Attributes:
        instances: Detectron2's instances, without masks.
        masks: The same instances as box crops on the CPU.
        mask_probs: (N, m, m') probabilities from the mask head.
    """

    instances: Instances
    masks: InstanceMasks
    mask_probs: torch.Tensor

    def with_full_masks(self) -> Instances:
        """The instances with Detectron2's pred_masks (N, H, W) bool."""
        full = Instances(self.instances.image_size, **self.instances.get_fields())
        if self.mask_probs.device.type == "cpu":
            full.pred_masks = torch.from_numpy(self.masks.to_full())
        else:
            probs = self.mask_probs.float()  # as in the fusion: in half precision the masks would differ
            full.pred_masks = paste_masks_in_image(probs, full.pred_boxes, self.masks.size_hw)
        return full


def scale_instances(instances: Instances, size_hw: tuple[int, int]) -> OutputInstances:
    """Scale instances to the output and paste their masks.

    Instances with empty boxes are left out, as in detector_postprocess of Detectron2. The input is not changed.

    Args:
        instances: From the ROI heads, in pixels of the network's image, pred_masks (N, 1, m, m) probabilities.
        size_hw: (height, width) of the output.

    Returns:
        The instances in pixels of the output.

    Raises:
        ValueError: A box or score is not finite, or a probability is not in [0, 1].
    """
    if not (instances.pred_boxes.tensor.isfinite().all() and instances.scores.isfinite().all()):
        raise ValueError(INPUT_ERRORS[NAN_INSTANCES])
    fields = {**instances.get_fields(), "row": torch.arange(len(instances), device=instances.scores.device)}
    fields["pred_boxes"] = fields["pred_boxes"].clone()
    mask_probs = fields.pop("pred_masks")[:, 0]
    scaled = detector_postprocess(Instances(instances.image_size, **fields), *size_hw)
    mask_probs = mask_probs[scaled.get("row")]
    scaled.remove("row")
    masks = paste_crops(mask_probs, scaled.pred_boxes.tensor, scaled.scores, scaled.pred_classes, size_hw)
    return OutputInstances(scaled, masks, mask_probs)


def fuses_on_device(fusion: FusionMethod, tensor: torch.Tensor) -> bool:
    """Whether the fusion runs on the tensor's device: on CUDA, by a method of `PanopticPostProcessor`.

    Other devices than CUDA may lack float64, which `PanopticPostProcessor` needs.
    """
    return tensor.device.type == "cuda" and runs_on_tensors(fusion)
