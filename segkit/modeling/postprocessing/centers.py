"""The outputs of Panoptic-DeepLab's heads for one image: centers for the fusion, and instances of the fused map."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from segkit.modeling.postprocessing.head_outputs import SemanticLogits
from segkit.modeling.postprocessing.map_outputs import build_map_masks
from segkit.modeling.postprocessing.resampling import Sizes, resize_logits
from segkit.structures import CenterOffsets, InstanceMasks, PanopticSegmentation


@dataclass(frozen=True)
class CenterLogits:
    """The output of the center head for one image.

    Attributes:
        heat: (1, h, w), padded as the batch was.
        offsets_yx: (2, h, w), down and right, in cells of h x w.
        sizes: Sizes of the image.
    """

    heat: torch.Tensor
    offsets_yx: torch.Tensor
    sizes: Sizes

    def resize(self) -> CenterOffsets:
        """Resize to the output's size, and scale offsets to pixels of the output.

        Returns:
            Heatmap and offsets, on the CPU.

        Raises:
            ValueError: a value is NaN.
        """
        image_size, size_hw, stride = self.sizes
        scales = [stride * after / before for before, after in zip(image_size, size_hw, strict=True)]
        # By themselves: torch rounds the interpolation of three channels otherwise, and peaks may be level.
        heat, offsets = (resize_logits(maps[None].float(), self.sizes)[0] for maps in (self.heat, self.offsets_yx))
        offsets = offsets * offsets.new_tensor(scales)[:, None, None]
        return CenterOffsets(heat[0].detach().cpu().numpy(), offsets.detach().cpu().numpy())


def build_instances(
    panoptic: PanopticSegmentation, semantic: SemanticLogits, heatmap: np.ndarray, thing_ids: torch.Tensor
) -> InstanceMasks:
    """Build the instances of a panoptic map, in the order of its things.

    The score is the mean probability of the class, by the semantic head, times the heat at the center of mass, as in
    Detectron2's project.

    Args:
        panoptic: The fused map, with contiguous category ids.
        semantic: Output of the semantic head.
        heatmap: (H, W) float32, heat of the centers.
        thing_ids: (C,) int64, thing contiguous id of each channel, -1 for none.

    Returns:
        The instances; without things there are none.
    """
    things = [segment for segment in panoptic.segments if segment.isthing]
    masks = build_map_masks(panoptic.segment_ids, things)
    if not things:
        return masks
    probs = semantic.resize().float().softmax(dim=0)
    channel_by_class = {class_id: channel for channel, class_id in enumerate(thing_ids.tolist())}
    scores = []
    for segment, crop, (left, top) in zip(things, masks.crops, masks.corners_xy.tolist(), strict=True):
        window = slice(top, top + crop.shape[0]), slice(left, left + crop.shape[1])
        inside = probs[channel_by_class[segment.category_id]][window][torch.from_numpy(crop).to(probs.device)]
        rows, columns = np.nonzero(crop)
        heat = heatmap[int(rows.mean() + top), int(columns.mean() + left)]
        scores.append(float(inside.mean()) * float(heat))
    return replace(masks, scores=np.array(scores, dtype=np.float32))


def build_no_instances(size_hw: tuple[int, int]) -> InstanceMasks:
    """Build the instances of an image that has none.

    Args:
        size_hw: (height, width) of the image, pixels.

    Returns:
        No instances.
    """
    none, boxes = np.zeros(0, dtype=np.float32), np.zeros((0, 4), dtype=np.float32)
    return InstanceMasks(size_hw, boxes, none, none.astype(np.int64), np.zeros((0, 2), dtype=np.int64), ())
