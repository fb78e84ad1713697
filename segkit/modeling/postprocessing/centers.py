"""The outputs of Panoptic-DeepLab's heads for one image: centers for the fusion, and instances of the fused map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from segkit.modeling.postprocessing.head_outputs import SemanticLogits
from segkit.modeling.postprocessing.resampling import Sizes, resize_logits
from segkit.structures import CenterOffsets, IdRuns, InstanceMasks, PanopticSegmentation


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


@dataclass(frozen=True)
class MapInstances:
    """The things of a panoptic map as instances.

    Attributes:
        masks: The instances as box crops on the CPU.
        device: Device of the model.
    """

    masks: InstanceMasks
    device: torch.device

    def with_full_masks(self) -> Instances:
        """The instances as Detectron2's, with pred_masks (N, H, W) bool."""
        masks = self.masks
        full = Instances(masks.size_hw)
        full.pred_boxes = Boxes(torch.from_numpy(masks.boxes_xyxy).to(self.device))
        full.scores = torch.from_numpy(masks.scores).to(self.device)
        full.pred_classes = torch.from_numpy(masks.class_ids).to(self.device)
        full.pred_masks = torch.from_numpy(masks.to_full()).to(self.device)
        return full


def build_instances(
    panoptic: PanopticSegmentation, semantic: SemanticLogits, heatmap: np.ndarray, thing_ids: torch.Tensor
) -> MapInstances:
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
    if not things:
        return MapInstances(build_no_instances(semantic.sizes.size_hw), semantic.coarse.device)
    extents = IdRuns.from_map(panoptic.segment_ids).extents()
    probs = semantic.resize().float().softmax(dim=0)
    channel_by_class = {class_id: channel for channel, class_id in enumerate(thing_ids.tolist())}
    boxes, scores, corners, crops = list[list[int]](), list[float](), list[list[int]](), list[np.ndarray]()
    for segment in things:
        left, top, width, height = extents[segment.segment_id].bbox_xywh
        window = slice(top, top + height), slice(left, left + width)
        crop = panoptic.segment_ids[window] == segment.segment_id
        inside = probs[channel_by_class[segment.category_id]][window][torch.from_numpy(crop).to(probs.device)]
        rows, columns = np.nonzero(crop)
        heat = heatmap[int(rows.mean() + top), int(columns.mean() + left)]
        boxes.append([left, top, left + width, top + height])
        scores.append(float(inside.mean()) * float(heat))
        corners.append([left, top])
        crops.append(crop)
    masks = InstanceMasks(
        semantic.sizes.size_hw,
        np.array(boxes, dtype=np.float32),
        np.array(scores, dtype=np.float32),
        np.array([segment.category_id for segment in things], dtype=np.int64),
        np.array(corners, dtype=np.int64),
        tuple(crops),
    )
    return MapInstances(masks, semantic.coarse.device)


def build_no_instances(size_hw: tuple[int, int]) -> InstanceMasks:
    """Build the instances of an image that has none.

    Args:
        size_hw: (height, width) of the image, pixels.

    Returns:
        No instances.
    """
    none, boxes = np.zeros(0, dtype=np.float32), np.zeros((0, 4), dtype=np.float32)
    return InstanceMasks(size_hw, boxes, none, none.astype(np.int64), np.zeros((0, 2), dtype=np.int64), ())
