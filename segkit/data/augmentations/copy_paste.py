"""Copy-paste: instances of another training image laid over this one (Ghiasi et al. 2021, Simple Copy-Paste)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.data.detection_utils import filter_empty_instances
from detectron2.structures import BitMasks, Instances
from numpy.typing import NDArray

from segkit.data.augmentations.scene import SegmentMap, build_instances
from segkit.data.dataset import Record
from segkit.structures import CategorySet, Segment


@dataclass(frozen=True)
class Sample:
    """An augmented image: (H, W, channels) uint8, its map where it has one, and the instances of annotations.

    annotated: instances with BitMasks, of a record with annotations; None where instances follow from the map.
    """

    image: NDArray[np.uint8]
    segment_map: SegmentMap | None
    annotated: Instances | None

    def instances(self, categories: CategorySet) -> Instances | None:
        """Those of the annotations, else those of the map; None where there is neither."""
        if self.annotated is not None or self.segment_map is None:
            return self.annotated
        return self.segment_map.instances(categories)


class CopyPaste:
    """Pastes a random subset of a random record's instances, augmented like it, onto a sample; it may be its own.

    The subset has 1..N of its N instances, each number equally likely; crowds are no instances and stay where they are.
    Nothing is blended: the paper finds no difference (section 4.1 and its appendix).
    """

    def __init__(self, probability: float, records: Sequence[Record], categories: CategorySet) -> None:
        """probability: of pasting onto a sample, 0..1. records: those that may be pasted from."""
        self.probability = probability
        self.records = records
        self.categories = categories

    def __call__(self, sample: Sample, augmented: Callable[[Record], Sample]) -> Sample:
        """augmented: reads and augments a record. The sample itself, where nothing is pasted."""
        if _chances(1)[0] >= self.probability:
            return sample
        other = augmented(self.records[int(_chances(1)[0] * len(self.records))])
        instances = other.instances(self.categories)
        if instances is None or not len(instances):
            return sample
        count = 1 + int(_chances(1)[0] * len(instances))
        rows = np.sort(np.argsort(_chances(len(instances)))[:count])
        return paste(sample, other.image, instances[torch.from_numpy(rows)], self.categories)


def paste(onto: Sample, image: NDArray[np.uint8], instances: Instances, categories: CategorySet) -> Sample:
    """The sample with the pixels of `instances` (BitMasks of `image`) laid over it, top left corners together.

    What lies outside of the sample is cut off. In its map the later of overlapping instances wins. What they cover
    shrinks; annotated instances that are covered whole are left out.
    """
    height, width = (min(a, b) for a, b in zip(onto.image.shape[:2], image.shape[:2], strict=True))
    masks = instances.gt_masks.tensor[:, :height, :width]
    covered = masks.any(dim=0).numpy()
    pixels = onto.image.copy()
    pixels[:height, :width][covered] = image[:height, :width][covered]
    segment_map, annotated = onto.segment_map, onto.annotated
    if segment_map is not None:
        category_ids = [categories.category_id(i, isthing=True) for i in instances.gt_classes.tolist()]
        segment_map = _paste_segments(segment_map, masks.numpy(), category_ids)
    if annotated is not None:
        annotated = _paste_instances(annotated, masks, instances.gt_classes)
    return Sample(pixels, segment_map, annotated)


def _paste_segments(onto: SegmentMap, masks: NDArray[np.bool_], category_ids: list[int]) -> SegmentMap:
    before, height, width = len(onto.segments), *masks.shape[1:]
    numbers = onto.numbers()
    numbers = np.where(numbers <= before, numbers, 0).astype(np.int32)  # numbers above are void, and taken now
    free_id = 1 + max((segment.segment_id for segment in onto.segments), default=0)
    pasted = []
    for row, (mask, category_id) in enumerate(zip(masks, category_ids, strict=True)):
        numbers[:height, :width][mask] = before + row + 1
        pasted.append(Segment(free_id + row, category_id, isthing=True, area_px=int(np.count_nonzero(mask))))
    return SegmentMap.from_numbers(numbers, (*onto.segments, *pasted))


def _paste_instances(onto: Instances, masks: torch.Tensor, classes: torch.Tensor) -> Instances:
    height, width = masks.shape[1:]
    shrunk = onto.gt_masks.tensor.clone()
    shrunk[:, :height, :width] &= ~masks.any(dim=0)
    placed = torch.zeros((len(masks), *shrunk.shape[1:]), dtype=torch.bool)
    placed[:, :height, :width] = masks
    every = torch.cat([shrunk, placed])
    boxes = BitMasks(every).get_bounding_boxes().tensor
    return filter_empty_instances(build_instances(every, boxes, torch.cat([onto.gt_classes, classes])))


def _chances(count: int) -> NDArray[np.float64]:
    """Uniform in [0, 1), of the generator that Detectron2's loader seeds for each worker."""
    return np.random.random(count)  # noqa: NPY002
