"""Copy-paste: instances of another training image are pasted onto this one (Ghiasi et al. 2021, Simple Copy-Paste)."""

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
    """An augmented image with its ground truth.

    Attributes:
        image: (H, W, channels) uint8.
        segment_map: the panoptic map; None if there is none.
        annotated: the instances (BitMasks) of the record's annotations; None if instances are derived from the map.
    """

    image: NDArray[np.uint8]
    segment_map: SegmentMap | None
    annotated: Instances | None

    def instances(self, categories: CategorySet) -> Instances | None:
        """Get the instances.

        Args:
            categories: the dataset's categories.

        Returns:
            The instances of the annotations, otherwise those of the map; None if there is neither.
        """
        if self.annotated is not None or self.segment_map is None:
            return self.annotated
        return self.segment_map.instances(categories)


class CopyPaste:
    """Paste a random subset of a random record's augmented instances onto a sample.

    The record may be the sample's own. The subset has 1..N of the N instances, each number equally likely; crowds are
    not pasted. Borders are not blended: the paper finds no difference (section 4.1 and its appendix).

    Args:
        probability: share of the samples that get instances, 0..1.
        records: the records that may be pasted from.
        categories: the dataset's categories.
    """

    def __init__(self, probability: float, records: Sequence[Record], categories: CategorySet) -> None:
        self.probability = probability
        self.records = records
        self.categories = categories

    def __call__(self, sample: Sample, augment: Callable[[Record], Sample]) -> Sample:
        """Paste onto a sample.

        Args:
            sample: the sample, which is not changed.
            augment: reads and augments a record.

        Returns:
            The sample with pasted instances, or the sample itself.
        """
        if _draw_uniform(1)[0] >= self.probability:
            return sample
        source = augment(self.records[int(_draw_uniform(1)[0] * len(self.records))])
        instances = source.instances(self.categories)
        if instances is None or not len(instances):
            return sample
        count = 1 + int(_draw_uniform(1)[0] * len(instances))
        rows = np.sort(np.argsort(_draw_uniform(len(instances)))[:count])
        return paste(sample, source.image, instances[torch.from_numpy(rows)], self.categories)


def paste(onto: Sample, image: NDArray[np.uint8], instances: Instances, categories: CategorySet) -> Sample:
    """Paste instances onto a sample, top left corners together.

    Pixels outside the sample are cut off. In the map, a later instance covers an earlier one. Covered objects shrink;
    annotated instances that are covered completely are left out.

    Args:
        onto: the sample, which is not changed.
        image: (H', W', channels) uint8, the image of the instances.
        instances: instances of `image`, with BitMasks.
        categories: the dataset's categories.

    Returns:
        The sample with the instances.
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
    numbers = np.where(numbers <= before, numbers, 0).astype(np.int32)  # higher numbers are void, and are used now
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
    pasted = torch.zeros((len(masks), *shrunk.shape[1:]), dtype=torch.bool)
    pasted[:, :height, :width] = masks
    masks = torch.cat([shrunk, pasted])
    boxes = BitMasks(masks).get_bounding_boxes().tensor
    return filter_empty_instances(build_instances(BitMasks(masks), boxes, torch.cat([onto.gt_classes, classes])))


def _draw_uniform(count: int) -> NDArray[np.float64]:
    """Uniform random numbers in [0, 1) of numpy's global generator, which Detectron2's loader seeds for each worker."""
    return np.random.random(count)  # noqa: NPY002
