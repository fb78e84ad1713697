"""Source: a dataset on disk, in whatever layout, as pictures and panoptic segmentations; one file per layout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segkit.formats.derive import build_coco_annotations
from segkit.formats.image_io import read_image
from segkit.structures import (
    VOID,
    CategorySet,
    ImageId,
    PanopticSegmentation,
    Segment,
    segmentation_to_rle,
)
from segkit.utils.files import FinishOnExit
from segkit.utils.text import abbreviate

ORIGINAL_SEGMENTATION = "segkit.segmentation"  # of an annotation: its mask as COCO's JSON has it, polygons say


@dataclass(frozen=True)
class DatasetImage:
    """image_id: of the dataset's files, or the name that its files share. file_name: of the picture inside `pictures`,
    with "/". size_hw: pixels. extra: what else a JSON says of the image, a licence say, by its keys."""

    image_id: ImageId
    file_name: str
    size_hw: tuple[int, int]
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)


class DatasetReader(ABC):
    """A dataset as its layout holds it; a subclass finds its files when it is made and reads one image at a time.

    root: what the layout is below. pictures: the folder of the images. categories: the dataset's own. images: in a
    stable order. info: what the dataset says of itself, as JSON, by the keys of a COCO file beside its tables.

    A subclass raises DatasetError where files are missing, damaged or contradict each other, naming the file; it never
    writes. One that has a keyword `on_issue` hands what is wrong with single images to it instead, with the code of
    segkit.curation.issues.RULES; where `on_issue` returns, the image is left out. An image of which one file is missing
    is wrong: a list names it, or its label or picture lies in the layout's own folders without the other. Files that no
    image uses, and that may belong to another split, are not, nor is what is on purpose not read: a line each in
    skipped.
    """

    format: ClassVar[str]  # its key in segkit.formats.registry.READERS
    has_overlapping_masks: bool = False  # whether `annotations` hold pixels that the segmentation gives to others
    has_map: bool = True  # False: models train on the annotations only, not on the panoptic map
    instances_json: Path | None = None  # the COCO instances JSON that holds the annotations, if there is one
    metrics: tuple[str, ...] = ()  # that judge it beside the usual, keys of segkit.evaluation.EVALUATORS
    root: Path
    image_root: Path
    categories: CategorySet
    images: tuple[DatasetImage, ...]
    skipped: tuple[str, ...] = ()
    info: Mapping[str, Any] = MappingProxyType({})

    @abstractmethod
    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """What is true of the image, category ids of the dataset; pixels without a label are void."""

    def read_annotations(self, image: DatasetImage) -> list[dict[str, Any]]:
        """COCO annotations of the things, masks as compressed RLE; of layouts that hold overlapping masks, those.

        Of COCO's layout they have all that the file has, and under `AS_GIVEN` the segmentation that it has.
        """
        return build_coco_annotations(image.image_id, self.read_segmentation(image))

    def read_stored_annotations(self, image: DatasetImage) -> Sequence[Mapping[str, Any]]:
        """Read the same annotations for training, with their masks as stored: polygons stay polygons.

        A reader with a cache overrides this to return a sequence that is cheap to hold.

        Args:
            image: one of `images`.

        Returns:
            COCO annotations with category_id, bbox, iscrowd and segmentation.
        """
        return self.read_annotations(image)

    def check_files(self) -> None:  # noqa: B027 (most formats have nothing to check)
        """Check before training that all listed files exist; formats that list folders need no check.

        Raises:
            DatasetError: files are missing; the message counts and names them.
        """

    def read_image(self, image: DatasetImage) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, turned as its EXIF says; DatasetError where it cannot be read or has another size."""
        return read_image(self.image_root / image.file_name, image.size_hw)


ANNOTATION_KEYS = {"id", "image_id", "category_id", "iscrowd", "area", "bbox", "segmentation", ORIGINAL_SEGMENTATION}


class DatasetWriter(FinishOnExit, ABC):
    """Writes below `root`, inside a `with` block; a subclass says what of an image its layout cannot hold.

    categories: of the segmentations. Files of an image appear with `add`, whole or not at all; an index of all images
    with `finish`, at the end of the block and not on an exception, so that an earlier run's stays as it was. info: as
    `DatasetReader.info`, to be set before the end of the block. holds_extras: whether it and
    `DatasetImage.extra` are written.
    """

    writes_extras: ClassVar[bool] = False
    info: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        self.root = Path(root)
        self.categories = categories

    @abstractmethod
    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """Write one image's labels; what cannot be held, a line each.

        annotations: COCO annotations with the whole masks, of sources in which they overlap. Raises DatasetError for a
        name that climbs out or was added before, ValueError where map, segments, categories and size contradict.
        """

    @abstractmethod
    def image_path(self, image: DatasetImage) -> Path:
        """Where the layout wants the image's picture; DatasetError for a name that climbs out."""


def compute_segment_areas(
    image: DatasetImage, segmentation: PanopticSegmentation, categories: CategorySet
) -> dict[int, int]:
    """Pixels by segment_id, void left out; ValueError where the map and the image, the segments or the categories
    contradict each other."""
    size_hw, segments = segmentation.segment_ids.shape, segmentation.segments
    if size_hw != tuple(image.size_hw):
        raise ValueError(f"segment_ids must be of the image's size {image.size_hw}, got {size_hw}")
    unknown = {s.category_id for s in segments if s.category_id not in categories}
    if unknown:
        raise ValueError(f"segments must have category ids of the dataset, got {sorted(unknown)}")
    areas_px = {i: extent.area_px for i, extent in segmentation.runs.extents().items()}
    strange = areas_px.keys() - {VOID, *(s.segment_id for s in segments)}
    if strange:
        raise ValueError(f"segment_ids must hold ids of segments only, got {abbreviate(sorted(strange))}")
    return areas_px


def list_empty_segments(segments: Sequence[Segment], filled: Container[int]) -> list[str]:
    """A line on each segment whose id is not among those that have pixels."""
    return [f"segment {s.segment_id}: it has no pixel" for s in segments if s.segment_id not in filled]


def list_lost_scores(segments: Sequence[Segment]) -> list[str]:
    """The line on segments that have scores, which truth has not; none where no segment has."""
    scored = sum(s.score is not None for s in segments)
    return [f"scores cannot be held: {scored} segments have one"] if scored else []


def list_lost_annotations(annotations: Sequence[Mapping[str, Any]] | None, size_hw: tuple[int, int]) -> list[str]:
    """Lines on what a map cannot hold of COCO annotations: masks that overlap, and keys of their own; else none.

    A pixel counts once for each mask but one that holds it. Counted in run lengths: no mask is decoded.
    """
    return [*list_lost_keys(annotations), *_overlap_losses(annotations, size_hw)]


def list_lost_keys(annotations: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """The line on keys of COCO annotations that no other layout has; none where there are none."""
    strange = sorted(set[str]().union(*annotations or ()) - ANNOTATION_KEYS)
    return [f"annotations: the keys {abbreviate(strange)} cannot be held"] if strange else []


def _overlap_losses(annotations: Sequence[Mapping[str, Any]] | None, size_hw: tuple[int, int]) -> list[str]:
    masks = [segmentation_to_rle(annotation["segmentation"], size_hw) for annotation in annotations or ()]
    if len(masks) < 2:
        return []
    hidden_px = sum(map(int, coco_mask.area(masks))) - int(coco_mask.area(coco_mask.merge(masks)))
    return [f"annotations: {hidden_px} pixels under other masks cannot be held"] if hidden_px else []
