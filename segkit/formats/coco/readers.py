"""Readers of COCO's panoptic and instances datasets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segkit.formats.base import ORIGINAL_SEGMENTATION, DatasetImage, DatasetReader
from segkit.formats.coco.instances import read_instances
from segkit.formats.coco.masks import RELATIVE, are_relative
from segkit.formats.coco.panoptic import read_panoptic, read_segmentation
from segkit.formats.coco.tables import IMAGE_KEYS
from segkit.formats.splits import VAL_SHARE, Split, select_images
from segkit.structures import (
    VOID,
    CategorySet,
    IdRuns,
    ImageId,
    PanopticSegmentation,
    Segment,
    rle_to_mask,
    segmentation_to_rle,
)
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames
from segkit.utils.issues import IssueHandler, describe_unused
from segkit.utils.json_fields import Entry, Location

OVERLAPS = ("small_on_top", "later_on_top")  # which of several masks gets a pixel
UNWRITABLE = "keys whose value JSON cannot hold (NaN, say)"
UNREAD = "keys of annotations and categories that are not read"


class SegmentsRecord(Protocol):
    """The annotation of an image: the name of its PNG, and `{id, category_id, iscrowd, score}` of each segment."""

    @property
    def png_name(self) -> str: ...  # noqa: D102

    @property
    def segments_info(self) -> Sequence[Entry]: ...  # noqa: D102


class PanopticPngReader(DatasetReader):
    """A reader of RGB PNGs of segment ids, with the segments of each in a JSON.

    Args:
        categories: of the dataset.
        masks: the folder of PNGs.

    Attributes:
        records: annotations by image_id; a subclass fills them.
    """

    def __init__(self, categories: CategorySet, masks: str | Path) -> None:
        self.categories, self.masks = categories, Path(masks)
        self.records: dict[ImageId, SegmentsRecord] = {}
        self._png_names = FolderNames(self.masks)

    def locate_png(self, name: str) -> Path:
        """Give the path of a PNG.

        Args:
            name: path in the folder of PNGs, in any spelling.

        Returns:
            The path of the file.
        """
        return self._png_names.locate(name)

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class."""
        record = self.records[image.image_id]
        path = self.locate_png(record.png_name)
        return read_segmentation(path, record.segments_info, self.categories, image.size_hw, image.image_id)


class CocoPanopticReader(PanopticPngReader):
    """Reads a panoptic JSON with its PNGs; these and the images are opened when they are asked for.

    Args:
        json: the panoptic JSON.
        masks: the folder of PNGs.
        images: the image folder.
        split: "train" or "val", by the hash of the images' file names; None for all images.
        val_share: share of the images in "val", 0..1.

    Raises:
        DatasetError: the JSON is missing or invalid, see `read_panoptic`, or the split is empty.
        ConfigError: `split` or `val_share` is invalid.
    """

    format = "coco-panoptic"
    marks_void = True

    def __init__(
        self,
        json: str | Path,
        masks: str | Path,
        images: str | Path,
        *,
        split: Split | None = None,
        val_share: float = VAL_SHARE,
    ) -> None:
        file = read_panoptic(json)
        super().__init__(file.categories, masks)
        self.root, self.image_root = Path(json).parent, Path(images)
        self.records |= {record.image_id: record for record in file.records}
        all_images = build_images((file.images[record.image_id] for record in file.records), self.image_root)
        self.images = select_images(split, val_share, all_images, json)
        self.info, unwritable = json_fields.split_writable_keys(file.info)
        self.skipped = (
            *describe_unused(file.path, UNWRITABLE, unwritable),
            *describe_unused(file.path, UNREAD, file.unread),
        )


class CocoInstancesReader(DatasetReader):
    """Reads an instances JSON; a pixel without any mask is void.

    Args:
        json: the instances JSON.
        images: the image folder.
        overlap: which mask gets a pixel, one of `OVERLAPS`, see `paint_annotations`.
        split: "train" or "val", by the hash of the images' file names; None for all images.
        val_share: share of the images in "val", 0..1.

    Raises:
        DatasetError: the JSON is missing or invalid, see `read_instances`, or the split is empty.
        ConfigError: `split` or `val_share` is invalid.
        ValueError: `overlap` has another value.
    """

    format = "coco-instances"
    has_overlapping_masks = True

    def __init__(
        self,
        json: str | Path,
        images: str | Path,
        overlap: str = "small_on_top",
        *,
        split: Split | None = None,
        val_share: float = VAL_SHARE,
    ) -> None:
        if overlap not in OVERLAPS:
            raise ValueError(f"overlap must be one of {OVERLAPS}, got {overlap!r}")
        file = read_instances(json)
        self._json, self.root, self.image_root, self.overlap = file.path, file.path.parent, Path(images), overlap
        self.categories = file.categories
        self._annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in file.annotations:
            self._annotations[annotation["image_id"]].append(annotation)
        self.images = select_images(split, val_share, build_images(file.images, self.image_root), json)
        self.info, unwritable = json_fields.split_writable_keys(file.info)
        self.skipped = (
            *describe_unused(file.path, UNWRITABLE, unwritable),
            *describe_unused(file.path, UNREAD, file.unread),
        )

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class."""
        return paint_annotations(self.read_annotations(image), image.size_hw, self.overlap)

    def read_annotations(self, image: DatasetImage) -> list[dict[str, Any]]:
        """See base class."""
        annotations = self._annotations.get(image.image_id, [])
        return [_compress(annotation, image.size_hw) for annotation in annotations]

    def check_annotation(self, image: DatasetImage, on_issue: IssueHandler) -> None:
        """See base class: polygons whose coordinates are no pixels."""
        annotations = self._annotations.get(image.image_id, [])
        report_relative_coordinates(annotations, self._json, image.image_id, on_issue)


def report_relative_coordinates(
    annotations: Iterable[Mapping[str, Any]], path: str | Path, image_id: ImageId, on_issue: IssueHandler
) -> None:
    """Report annotations whose polygons are shares of the image, not pixels.

    Args:
        annotations: valid annotations of an image.
        path: the JSON, for the message.
        image_id: the image, for the message.
        on_issue: gets the code `coordinates-relative` and the error.
    """
    path = Path(path)
    for annotation in annotations:
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, list) and are_relative(segmentation):
            where = Location(path, image_id, "annotation", annotation["id"])
            on_issue("coordinates-relative", DatasetError(RELATIVE, where=where))


def paint_annotations(
    annotations: Sequence[Mapping[str, Any]], size_hw: tuple[int, int], overlap: str = "small_on_top"
) -> PanopticSegmentation:
    """Paint instance masks that may overlap; crowds are below all others.

    Args:
        annotations: COCO annotations of things with compressed RLE.
        size_hw: (height, width) of the image in pixels.
        overlap: which mask gets a pixel: "small_on_top", the mask of fewer pixels, of equal ones the later;
            "later_on_top", the later one.

    Returns:
        A segment per annotation, numbered from 1 in their order; an annotation without any pixel left has none.
    """
    rles = [annotation["segmentation"] for annotation in annotations]
    small = [-int(coco_mask.area(rle)) if overlap == "small_on_top" else 0 for rle in rles]
    crowd = [bool(annotation.get("iscrowd", 0)) for annotation in annotations]
    segment_ids: NDArray[np.int32] = np.full(size_hw, VOID, dtype=np.int32)
    for row in sorted(range(len(rles)), key=lambda row: (not crowd[row], small[row], row)):
        segment_ids[rle_to_mask(rles[row])] = row + 1  # one mask in memory at a time
    runs = IdRuns.from_map(segment_ids)
    areas_px = runs.areas_px()
    segments = [
        Segment(row, int(annotation["category_id"]), True, areas_px[row], crowd[row - 1])
        for row, annotation in enumerate(annotations, 1)
        if row in areas_px
    ]
    return PanopticSegmentation(segment_ids, tuple(segments))


def build_images(entries: Iterable[Entry], folder: str | Path, with_extra: bool = True) -> list[DatasetImage]:
    """Build the images of a JSON; names are spelled as their files.

    Args:
        entries: valid entries of `images`.
        folder: the image folder; it may be missing.
        with_extra: whether to read the other keys of the entries.

    Returns:
        The images.
    """
    folder = Path(folder)
    names = FolderNames(folder)
    return [
        DatasetImage(
            entry["id"],
            names.resolve(entry["file_name"]),
            (entry["height"], entry["width"]),
            json_fields.other_keys(entry, IMAGE_KEYS) if with_extra else {},
        )
        for entry in entries
    ]


def _compress(annotation: Entry, size_hw: tuple[int, int]) -> Entry:
    given = annotation["segmentation"]
    if isinstance(given, dict):
        given = {"size": given["size"], "counts": given["counts"]}
    return {**annotation, "segmentation": segmentation_to_rle(given, size_hw), ORIGINAL_SEGMENTATION: given}
