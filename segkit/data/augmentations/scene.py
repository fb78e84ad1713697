"""One training sample while it is augmented, and the tensors that are derived from the result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, Instances
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segkit.data.dataset import Record
from segkit.data.map_masks import MapMasks
from segkit.structures import (
    IGNORE_LABEL,
    CategorySet,
    IdRuns,
    PanopticSegmentation,
    Segment,
    SemanticSpace,
    ids_to_rgb,
    rgb_to_ids,
)

PAD = 255  # value of padded pixels, as in Detectron2
MOST_NUMBERS = PAD - 1  # segments that one byte can number, beside void and padding


@dataclass(frozen=True)
class SegmentMap:
    """A panoptic map that Detectron2's transforms can move; void and padded pixels stay void.

    Attributes:
        packed: (H, W) uint8, 1..N, the position of each pixel's segment in `segments`; every other number is void. For
            more than `MOST_NUMBERS` segments (H, W, 3) uint8, the numbers as `ids_to_rgb` packs them. Only bytes are
            resized by Pillow, whose nearest pixel is the one that its resized images show there.
        segments: the N segments, with category ids of the dataset.
    """

    packed: NDArray[np.uint8]
    segments: tuple[Segment, ...]

    @classmethod
    def from_segmentation(cls, segmentation: PanopticSegmentation) -> SegmentMap:
        """Pack a segmentation.

        Args:
            segmentation: ids without a segment become void.

        Returns:
            The packed map.
        """
        runs, segments = segmentation.runs, segmentation.segments
        ids = np.array([segment.segment_id for segment in segments], dtype=np.int64)
        order = np.argsort(ids)
        positions = np.searchsorted(ids[order], runs.ids).clip(max=max(len(ids) - 1, 0))
        has_segment = ids[order][positions] == runs.ids if len(ids) else np.zeros(len(runs.ids), dtype=np.bool_)
        numbers = np.zeros(len(runs.ids), dtype=np.uint8 if len(ids) <= MOST_NUMBERS else np.int32)
        numbers[has_segment] = order[positions[has_segment]] + 1
        return cls.from_numbers(np.repeat(numbers, runs.lengths()).reshape(runs.size_hw), segments)

    @classmethod
    def from_numbers(cls, numbers: NDArray[Any], segments: tuple[Segment, ...]) -> SegmentMap:
        """Pack a map of numbers.

        Args:
            numbers: (H, W) integers, 1..N by the position in `segments`; any other number is void.
            segments: the N segments.

        Returns:
            The packed map.
        """
        if len(segments) > MOST_NUMBERS:
            return cls(ids_to_rgb(numbers), segments)
        return cls(numbers.astype(np.uint8, copy=False), segments)

    def numbers(self) -> NDArray[Any]:
        """Unpack the map.

        Returns:
            (H, W) uint8 or int32, contiguous: 1..N by the position in `segments`; any other number is void.
        """
        return np.ascontiguousarray(_forward(self.packed)) if self.packed.ndim == 2 else rgb_to_ids(self.packed)

    def channels(self, space: SemanticSpace) -> NDArray[np.uint8]:
        """Derive the semantic map.

        Args:
            space: the semantic channels.

        Returns:
            (H, W) uint8 channels, `IGNORE_LABEL` for void; crowds have their category's channel.
        """
        channels = np.full(max(PAD, len(self.segments) + 1) + 1, IGNORE_LABEL, dtype=np.uint8)
        channels[1 : len(self.segments) + 1] = [space.channel_by_category[s.category_id] for s in self.segments]
        numbers = self.numbers()
        if numbers.dtype == np.uint8:
            return np.asarray(cv2.LUT(numbers, channels), dtype=np.uint8)  # numpy would make indices of eight bytes
        pixels: NDArray[np.uint8] = channels.take(np.minimum(numbers, len(channels) - 1))
        return pixels

    def instances(self, categories: CategorySet) -> Instances:
        """Derive the instances with tight boxes.

        Args:
            categories: the dataset's categories.

        Returns:
            Training targets of the things that have a pixel and are no crowds, in the order of `segments`.
        """
        numbers = self.numbers()
        extents = IdRuns.from_map(numbers).extents()
        wanted = [n for n, s in enumerate(self.segments, 1) if s.isthing and not s.iscrowd and n in extents]
        boxes = []
        for number in wanted:
            left, top, width, height = extents[number].bbox_xywh
            boxes.append([left, top, left + width, top + height])
        classes = [categories.thing_contiguous_ids[self.segments[number - 1].category_id] for number in wanted]
        boxes_xyxy = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        owned = torch.from_numpy(numbers if numbers.flags.writeable else numbers.copy())
        return build_instances(MapMasks(owned, torch.tensor(wanted, dtype=owned.dtype)), boxes_xyxy, classes)


class Scene:
    """Detectron2's `AugInput`: the image, and everything that must move with it.

    Args:
        image: (H, W, channels) uint8.
        segment_map: the map of the image; None if there is none.
        space: the semantic channels of `sem_seg`.
    """

    boxes = None  # an attribute that augmentations may read

    def __init__(self, image: NDArray[np.uint8], segment_map: SegmentMap | None, space: SemanticSpace) -> None:
        self.image = image
        self.segment_map = segment_map
        self._space = space

    @property
    def sem_seg(self) -> NDArray[np.uint8] | None:
        """(H, W) uint8 semantic channels; None if there is no map."""
        return None if self.segment_map is None else self.segment_map.channels(self._space)

    def transform(self, transform: T.Transform) -> None:
        """Apply a transform to the image and to the map.

        Args:
            transform: Detectron2's transform.
        """
        self.image = transform.apply_image(_forward(self.image))
        self.transform_map(transform)

    def transform_map(self, transform: T.Transform) -> None:
        """Apply a transform to the map alone.

        Args:
            transform: Detectron2's transform.
        """
        if self.segment_map is not None:
            packed = transform.apply_segmentation(_forward(self.segment_map.packed))
            self.segment_map = SegmentMap(packed, self.segment_map.segments)


def build_annotated_instances(
    annotations: Iterable[Record], transforms: T.TransformList, size_hw: tuple[int, int], as_masks: bool
) -> Instances:
    """Build training targets from Detectron2 annotations, which may overlap.

    Args:
        annotations: Detectron2's; crowds are left out.
        transforms: the transforms that were applied to the image.
        size_hw: height and width of the transformed image in pixels.
        as_masks: polygons become masks and boxes become tight, which is necessary if objects are cut; False: polygons
            stay polygons if all are, and boxes are the transformed ones.

    Returns:
        Training targets; empty instances are left out.
    """
    objects = [annotation for annotation in annotations if not annotation.get("iscrowd", 0)]
    polygons = all(isinstance(annotation["segmentation"], list) for annotation in objects)
    if objects and polygons and not as_masks:
        # transform_instance_annotations changes its argument
        moved = [utils.transform_instance_annotations(dict(a), transforms, size_hw) for a in objects]
        return utils.filter_empty_instances(utils.annotations_to_instances(moved, size_hw, mask_format="polygon"))
    masks = torch.zeros((len(objects), *size_hw), dtype=torch.bool)
    boxes = torch.zeros((len(objects), 4))
    for row, annotation in enumerate(objects):
        masks[row] = torch.from_numpy(_moved_mask(annotation["segmentation"], transforms, size_hw))
        bare = {key: annotation[key] for key in ("bbox", "bbox_mode")}
        moved_box = utils.transform_instance_annotations(bare, transforms, size_hw)["bbox"]
        boxes[row] = torch.from_numpy(np.asarray(moved_box, dtype=np.float32))
    if as_masks:
        boxes = BitMasks(masks).get_bounding_boxes().tensor
    classes = [annotation["category_id"] for annotation in objects]
    return utils.filter_empty_instances(build_instances(BitMasks(masks), boxes, classes))


def build_instances(masks: BitMasks, boxes_xyxy: torch.Tensor, classes: list[int] | torch.Tensor) -> Instances:
    """Build Detectron2's training targets.

    Args:
        masks: N masks.
        boxes_xyxy: (N, 4) float32, pixels.
        classes: N thing contiguous ids.

    Returns:
        Instances with gt_boxes, gt_classes and gt_masks.
    """
    instances = Instances(tuple(masks.image_size))
    instances.gt_boxes = Boxes(boxes_xyxy)
    instances.gt_classes = torch.as_tensor(classes, dtype=torch.int64)
    instances.gt_masks = masks
    return instances


def _forward(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Copy pixels with negative strides, which a flip leaves: torch refuses them."""
    return pixels.copy() if min(pixels.strides) < 0 else pixels


def _moved_mask(segmentation: Any, transforms: T.TransformList, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Move polygons and then draw them, at full precision; or move a mask, where padded pixels are background."""
    if isinstance(segmentation, list):
        corners = [np.asarray(polygon, dtype=np.float64).reshape(-1, 2).copy() for polygon in segmentation]
        moved = [transforms.apply_coords(points).reshape(-1) for points in corners]
        drawn: NDArray[np.uint8] = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(moved, *size_hw)))
        return drawn == 1
    mask: NDArray[np.uint8] = np.ascontiguousarray(coco_mask.decode(segmentation))
    for transform in transforms.transforms:
        mask = transform.apply_segmentation(_forward(mask))
    return mask == 1
