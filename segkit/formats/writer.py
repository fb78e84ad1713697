"""Writer: a dataset in one layout, written image by image; one file per layout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from pycocotools import mask as coco_mask

from segkit.formats.base import AS_GIVEN, SourceImage
from segkit.formats.coco.tables import listed
from segkit.structures import (
    VOID,
    CategorySet,
    PanopticSegmentation,
    Segment,
    extents_of_runs,
    segmentation_to_rle,
)
from segkit.utils.files import Finishing

ANNOTATION_KEYS = {"id", "image_id", "category_id", "iscrowd", "area", "bbox", "segmentation", AS_GIVEN}


class Writer(Finishing, ABC):
    """Writes below `root`, inside a `with` block; a subclass says what of an image its layout cannot hold.

    categories: of the segmentations. Files of an image appear with `add`, whole or not at all; an index of all images
    with `finish`, at the end of the block and not on an exception, so that an earlier run's stays as it was. info: as
    `Source.info`, to be set before the end of the block. holds_extras: whether it and `SourceImage.extra` are written.
    """

    holds_extras: ClassVar[bool] = False
    info: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        self.root = Path(root)
        self.categories = categories

    @abstractmethod
    def add(
        self, image: SourceImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """Write one image's labels; what cannot be held, a line each.

        annotations: COCO annotations with the whole masks, of sources in which they overlap. Raises DatasetError for a
        name that climbs out or was added before, ValueError where map, segments, categories and size contradict.
        """

    @abstractmethod
    def picture_path(self, image: SourceImage) -> Path:
        """Where the layout wants the image's picture; DatasetError for a name that climbs out."""


def checked_areas(image: SourceImage, segmentation: PanopticSegmentation, categories: CategorySet) -> dict[int, int]:
    """Pixels by segment_id, void left out; ValueError where the map and the image, the segments or the categories
    contradict each other."""
    size_hw, segments = segmentation.segment_ids.shape, segmentation.segments
    if size_hw != tuple(image.size_hw):
        raise ValueError(f"segment_ids must be of the image's size {image.size_hw}, got {size_hw}")
    unknown = {s.category_id for s in segments if s.category_id not in categories}
    if unknown:
        raise ValueError(f"segments must have category ids of the dataset, got {sorted(unknown)}")
    areas_px = {i: extent.area_px for i, extent in extents_of_runs(segmentation.runs).items()}
    strange = areas_px.keys() - {VOID, *(s.segment_id for s in segments)}
    if strange:
        raise ValueError(f"segment_ids must hold ids of segments only, got {listed(sorted(strange))}")
    return areas_px


def empty_losses(segments: Sequence[Segment], filled: Container[int]) -> list[str]:
    """A line on each segment whose id is not among those that have pixels."""
    return [f"segment {s.segment_id}: it has no pixel" for s in segments if s.segment_id not in filled]


def score_losses(segments: Sequence[Segment]) -> list[str]:
    """The line on segments that have scores, which truth has not; none where no segment has."""
    scored = sum(s.score is not None for s in segments)
    return [f"scores cannot be held: {scored} segments have one"] if scored else []


def annotation_losses(annotations: Sequence[Mapping[str, Any]] | None, size_hw: tuple[int, int]) -> list[str]:
    """Lines on what a map cannot hold of COCO annotations: masks that overlap, and keys of their own; else none.

    A pixel counts once for each mask but one that holds it. Counted in run lengths: no mask is decoded.
    """
    return [*key_losses(annotations), *_overlap_losses(annotations, size_hw)]


def key_losses(annotations: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """The line on keys of COCO annotations that no other layout has; none where there are none."""
    strange = sorted(set[str]().union(*annotations or ()) - ANNOTATION_KEYS)
    return [f"annotations: the keys {listed(strange)} cannot be held"] if strange else []


def _overlap_losses(annotations: Sequence[Mapping[str, Any]] | None, size_hw: tuple[int, int]) -> list[str]:
    masks = [segmentation_to_rle(annotation["segmentation"], size_hw) for annotation in annotations or ()]
    if len(masks) < 2:
        return []
    hidden_px = sum(map(int, coco_mask.area(masks))) - int(coco_mask.area(coco_mask.merge(masks)))
    return [f"annotations: {hidden_px} pixels under other masks cannot be held"] if hidden_px else []
