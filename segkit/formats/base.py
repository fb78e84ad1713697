"""A dataset on disk in any format: its reader gives images and panoptic segmentations, its writer takes them."""

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
    compute_areas_px,
    segmentation_to_rle,
)
from segkit.utils.errors import DatasetError
from segkit.utils.files import FinishOnExit
from segkit.utils.issues import IssueHandler
from segkit.utils.text import abbreviate

# Key of an annotation: its mask as in the COCO JSON, polygons for example.
ORIGINAL_SEGMENTATION = "segkit.segmentation"
SCORE = "score"  # key of an annotation that is a prediction


@dataclass(frozen=True)
class DatasetImage:
    """An image of a dataset.

    Attributes:
        image_id: id in the dataset's files, or the name that the files of the image share.
        file_name: path of the image inside `DatasetReader.image_root`, with "/".
        size_hw: (height, width) in pixels.
        extra: further keys of the image in a JSON, the licence for example.
    """

    image_id: ImageId
    file_name: str
    size_hw: tuple[int, int]
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)


class DatasetReader(ABC):
    """A dataset on disk in one format. The constructor finds the files; images are read one at a time.

    A reader never writes. It raises DatasetError if files are missing, damaged or contradict each other, and names the
    file. A reader whose constructor has the keyword `on_issue` passes errors of single images to it instead, with a
    code of `segkit.curation.issues.RULES`; if `on_issue` returns, the image is left out. These are errors:
    a label without its image, an image without its label, a listed file that is missing. Files that may belong to
    another split, and content that is not read on purpose, are no errors: `skipped` names them.

    Attributes:
        format: key of the reader in `segkit.formats.registry.READERS`.
        channels: number of channels of `read_channels`: 3 for images whose channels are red, green and blue.
        has_overlapping_masks: whether annotations hold pixels that the segmentation gives to other segments.
        has_map: False if models train on the annotations only, not on the panoptic map.
        marks_void: whether a pixel without segment was left out of a complete labelling, rather than being background.
        instances_json: the COCO instances JSON that holds the annotations, if there is one.
        metrics: evaluators besides the usual ones, keys of `segkit.evaluation.EVALUATORS`.
        root: folder that holds the dataset.
        image_root: folder that holds the images.
        categories: the categories of the dataset.
        images: the images, in a stable order.
        skipped: one line for each kind of content that is not read.
        info: top-level keys of a COCO JSON besides its tables.
        void_remedy: what to do if pixels that are read as void belong to a class; "" if nothing can be done.
    """

    format: ClassVar[str]
    channels: int = 3
    has_overlapping_masks: bool = False
    has_map: bool = True
    marks_void: bool = False
    instances_json: Path | None = None
    metrics: tuple[str, ...] = ()
    root: Path
    image_root: Path
    categories: CategorySet
    images: tuple[DatasetImage, ...]
    skipped: tuple[str, ...] = ()
    info: Mapping[str, Any] = MappingProxyType({})
    void_remedy: str = ""

    @abstractmethod
    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """Read the ground truth of an image.

        Args:
            image: one of `images`.

        Returns:
            Segments with category ids of the dataset; pixels without a label are void.

        Raises:
            DatasetError: a file is missing, damaged, or contradicts another one.
        """

    def read_annotations(self, image: DatasetImage) -> list[dict[str, Any]]:
        """Read the things of an image as COCO annotations.

        Args:
            image: one of `images`.

        Returns:
            COCO annotations, masks as compressed RLE. They are the whole masks if `has_overlapping_masks`. Those of a
            COCO JSON have all keys of the file, and its segmentation as `ORIGINAL_SEGMENTATION`.

        Raises:
            DatasetError: as `read_segmentation`.
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

    def check_annotation(self, image: DatasetImage, on_issue: IssueHandler) -> None:  # noqa: B027 (most report nothing)
        """Report parts of an annotation that can be read but are probably mistakes: a shape outside the image, say.

        Args:
            image: one of `images`.
            on_issue: gets a code of `segkit.curation.issues.RULES`, and what is wrong as an error.

        Raises:
            DatasetError: as `read_segmentation`.
        """

    def check_files(self) -> None:  # noqa: B027 (most formats have nothing to check)
        """Check before training that all listed files exist; formats that list folders need no check.

        Raises:
            DatasetError: files are missing; the message counts and names them.
        """

    def read_image(self, image: DatasetImage) -> NDArray[np.uint8]:
        """Read the pixels of an image, as people look at them.

        Args:
            image: one of `images`.

        Returns:
            (H, W, 3) uint8 RGB, rotated as its EXIF orientation says; of other images than RGB what `to_rgb` shows.

        Raises:
            DatasetError: the file cannot be read or has another size.
        """
        return read_image(self.image_root / image.file_name, image.size_hw)

    def read_channels(self, image: DatasetImage) -> NDArray[np.uint8]:
        """Read all channels of an image, as networks take them.

        Args:
            image: one of `images`.

        Returns:
            (H, W, `channels`) uint8.

        Raises:
            DatasetError: as `read_image`, or the image has another number of channels.
        """
        return self.read_image(image)


# `DatasetWriter.prediction_options` of formats of ground truth that hold scores, and of formats of predictions.
WITH_SCORES: Mapping[str, Any] = MappingProxyType({"keep_scores": True})
ALL_PREDICTIONS: Mapping[str, Any] = MappingProxyType({"keep_scores": True, "min_score": None})


class UnfitImageError(DatasetError):
    """An image that a format cannot hold: `DatasetWriter.add` has written nothing, others can still be added."""


ANNOTATION_KEYS = {"id", "image_id", "category_id", "iscrowd", "area", "bbox", "segmentation", ORIGINAL_SEGMENTATION}


class DatasetWriter(FinishOnExit, ABC):
    """Writes a dataset in one format, inside a `with` block.

    The files of an image are written by `add`, whole or not at all. The index of all images is written by `finish`, at
    the end of the block but not after an exception, so that the index of an earlier run stays as it was.

    Args:
        root: folder to write to.
        categories: the categories of the segmentations.

    Attributes:
        info: as `DatasetReader.info`; set it before the end of the block.
        writes_extras: whether `info` and `DatasetImage.extra` are written.
        prediction_options: options of the readers of predictions that suit the format, unless the user chooses others.
    """

    writes_extras: ClassVar[bool] = False
    prediction_options: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    info: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        self.root = Path(root)
        self.categories = categories

    @abstractmethod
    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """Write the labels of one image.

        Args:
            image: the image; its name must be below the image folder.
            segmentation: segments with category ids of `categories`.
            annotations: COCO annotations with the whole masks, from readers whose masks overlap.

        Returns:
            One line for each thing that the format cannot hold.

        Raises:
            UnfitImageError: the format cannot hold the image; nothing is written of it.
            DatasetError: the name leads out of the folder, or the image_id was added before.
            ValueError: map, segments, categories and size contradict each other.
        """

    @abstractmethod
    def image_path(self, image: DatasetImage) -> Path:
        """The path at which the format expects the image.

        Args:
            image: the image.

        Returns:
            A path below `root`.

        Raises:
            UnfitImageError: the format cannot hold the name.
            DatasetError: the name leads out of the folder.
        """


def check_has_things(categories: CategorySet, root: str | Path) -> None:
    """Check that a format of things alone can hold something.

    Args:
        categories: the categories of the dataset.
        root: folder to write to, for the message.

    Raises:
        DatasetError: no category is a thing.
    """
    if not categories.things:
        problem = "expected categories with things, all are stuff"
        raise DatasetError(problem, where=root, remedy="convert to another format")


def compute_segment_areas(
    image: DatasetImage, segmentation: PanopticSegmentation, categories: CategorySet
) -> dict[int, int]:
    """Check that map, image, segments and categories agree, and count the pixels of each segment.

    Args:
        image: its size is that of the map.
        segmentation: map and segments, with category ids of `categories`.
        categories: the categories of the dataset.

    Returns:
        segment_id -> area in pixels, without void.

    Raises:
        ValueError: they contradict each other.
    """
    size_hw, segments = segmentation.segment_ids.shape, segmentation.segments
    if size_hw != tuple(image.size_hw):
        raise ValueError(f"segment_ids must be of the image's size {image.size_hw}, got {size_hw}")
    unknown = {s.category_id for s in segments if s.category_id not in categories}
    if unknown:
        raise ValueError(f"segments must have category ids of the dataset, got {sorted(unknown)}")
    areas_px = {i: extent.area_px for i, extent in segmentation.runs.extents().items()}
    unlisted = areas_px.keys() - {VOID, *(s.segment_id for s in segments)}
    if unlisted:
        raise ValueError(f"segment_ids must hold ids of segments only, got {abbreviate(sorted(unlisted))}")
    return areas_px


def list_empty_segments(segments: Sequence[Segment], filled: Container[int]) -> list[str]:
    """Describe the segments without pixels.

    Args:
        segments: of one image.
        filled: segment ids that have pixels.

    Returns:
        One line for each segment without pixels.
    """
    return [f"segment {s.segment_id}: it has no pixel" for s in segments if s.segment_id not in filled]


def list_lost_scores(segments: Sequence[Segment]) -> list[str]:
    """Describe the scores that a ground-truth format loses.

    Args:
        segments: of one image.

    Returns:
        One line, or none if no segment has a score.
    """
    scored = sum(s.score is not None for s in segments)
    return [f"scores cannot be held: {scored} segments have one"] if scored else []


def list_lost_annotations(
    annotations: Sequence[Mapping[str, Any]] | None, segmentation: PanopticSegmentation
) -> list[str]:
    """Describe what a map loses of COCO annotations: pixels under other masks, and further keys.

    A pixel in n masks counts n - 1 times. Pixels are counted in run lengths: no mask is decoded. Scores are no loss of
    the annotations if the segments have them too.

    Args:
        annotations: COCO annotations of one image, or None.
        segmentation: of the image.

    Returns:
        Up to two lines.
    """
    size_hw = segmentation.runs.size_hw
    masks = [segmentation_to_rle(annotation["segmentation"], size_hw) for annotation in annotations or ()]
    hidden_px = sum(compute_areas_px(masks)) - sum(compute_areas_px([coco_mask.merge(masks)] if masks else []))
    pixels = [f"annotations: {hidden_px} pixels under other masks cannot be held"] if hidden_px else []
    held = (SCORE,) if any(s.score is not None for s in segmentation.segments) else ()
    return [*list_lost_keys(annotations, held), *pixels]


def list_lost_keys(annotations: Sequence[Mapping[str, Any]] | None, held: Sequence[str] = ()) -> list[str]:
    """Describe the keys of COCO annotations that a format does not hold.

    Args:
        annotations: COCO annotations of one image, or None.
        held: keys that it holds besides those that all formats have.

    Returns:
        One line, or none without such keys.
    """
    extra_keys = sorted(set[str]().union(*annotations or ()) - ANNOTATION_KEYS - {*held})
    return [f"annotations: the keys {abbreviate(extra_keys)} cannot be held"] if extra_keys else []
