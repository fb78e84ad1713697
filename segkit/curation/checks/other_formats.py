"""Checks of all other formats: what the reader refuses in each image, and issues of the masks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePath

from segkit.curation import image_files
from segkit.curation.checks.classes import report_empty_classes, report_only_crowds
from segkit.curation.issues import NO_DIGESTS, IssueList, RunAll
from segkit.formats.bands import RGB
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.structures import VOID, PanopticSegmentation
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Location
from segkit.utils.text import abbreviate

UNLABELLED = -1  # in the place of a category_id: pixels that are void


@dataclass
class _Labels:
    """Labels of images.

    areas_px: pixels by category_id, or `UNLABELLED`. segments: their number by whether they are crowds.
    """

    areas_px: Counter[int] = field(default_factory=Counter)
    segments: Counter[bool] = field(default_factory=Counter)

    def add(self, other: _Labels) -> None:
        """Add the labels of other images."""
        self.areas_px += other.areas_px
        self.segments += other.segments


def check_dataset(reader: DatasetReader, run_all: RunAll, others: Mapping[bytes, str] = NO_DIGESTS) -> IssueList:
    """Check the images and annotations of a dataset that its reader has opened.

    Args:
        reader: of the dataset.
        run_all: `map`, or a map over processes.
        others: digests of another split's images, see `compute_dataset_digests`.

    Returns:
        All issues, in the order of the images.
    """
    issues = IssueList()
    if not reader.images:
        issues.add("dataset-empty", reader.root, "the dataset has no image")
    for image_id, number in Counter(image.image_id for image in reader.images).items():
        if number > 1:
            issues.add("image-id-twice", Location(reader.root, image_id), f"{number} images have this id")
    for line in reader.skipped:
        issues.add("not-read", reader.root, line)
    for file_name, number in Counter(PurePath(image.file_name).as_posix() for image in reader.images).items():
        if number > 1:
            issues.add("file-name-twice", reader.image_root / file_name, f"{number} images have this file")

    digests: list[image_files.ImageDigest] = []
    labels, n_read = _Labels(), 0
    for image_issues, digest, image_labels in run_all(partial(_check_image, reader), reader.images):
        issues += image_issues
        digests.append(digest)
        if image_labels is not None:
            labels.add(image_labels)
            n_read += 1
    issues += image_files.find_equal_images(digests, others)
    if n_read:
        _report_empty_classes(reader, labels.areas_px, issues)
        report_only_crowds(labels.segments[False], labels.segments[True], "segment", reader.root, issues)
    return IssueList(dict.fromkeys(issues))  # every slice of a damaged volume reports the same


def compute_dataset_digests(reader: DatasetReader, run_all: RunAll) -> dict[bytes, str]:
    """Compute the digests of a split's images, for the check of another split.

    Args:
        reader: of the dataset.
        run_all: `map`, or a map over processes.

    Returns:
        The path of the first image by digest; images of one color have no digest.
    """
    return image_files.index_digests(run_all(partial(_inspect, reader, issues=IssueList()), reader.images))


def _check_image(
    reader: DatasetReader, image: DatasetImage
) -> tuple[IssueList, image_files.ImageDigest, _Labels | None]:
    """The issues, path and digest of the image, and its labels, None if they are unreadable."""
    issues = IssueList()
    digest = _inspect(reader, image, issues)
    place = Location(reader.root, image.image_id)
    labels = _Labels()
    areas_px = labels.areas_px
    try:
        segmentation = reader.read_segmentation(image)
        _check_segmentation(segmentation, image, reader, place, issues)
        areas_px[UNLABELLED] = segmentation.runs.areas_px().get(VOID, 0)
        for segment in segmentation.segments:
            areas_px[segment.category_id] += segment.area_px
            labels.segments[segment.iscrowd] += 1
        for index, annotation in enumerate(reader.read_annotations(image) if reader.has_overlapping_masks else ()):
            _report_small(annotation["area"], f"{place}, annotation at index {index}", issues)
            areas_px[annotation["category_id"]] += annotation["area"]
        reader.check_annotation(image, issues.add_error)
    except (DatasetError, MemoryError, RecursionError) as error:
        _report_error("annotation-unreadable", place, error, issues)
        return issues, digest, None
    return issues, digest, labels


def _report_empty_classes(reader: DatasetReader, areas_px: Counter[int], issues: IssueList) -> None:
    names = {category.category_id: category.name for category in reader.categories.categories}
    used = [category_id for category_id in names if areas_px[category_id]]
    void_px = areas_px[UNLABELLED]
    hint = f"{void_px} pixels are void: {reader.void_remedy}" if void_px and reader.void_remedy else ""
    report_empty_classes(names, used, "pixel", reader.root, issues, hint)


def _inspect(reader: DatasetReader, image: DatasetImage, issues: IssueList) -> image_files.ImageDigest:
    """Path and digest of the image, which some readers compute."""
    path = reader.image_root / image.file_name
    place = Location(path, image.image_id)
    if os.path.lexists(path) and reader.channels == RGB:
        inspection = image_files.inspect_image(path, place)
        issues += inspection.issues
        image_files.check_sizes(
            {"the annotation": image.size_hw, "the image": inspection.size_hw}, inspection.is_rotated, place, issues
        )
        return str(path), inspection.digest
    try:
        pixels = reader.read_channels(image) if reader.channels > RGB else reader.read_image(image)
        return str(path), image_files.digest_pixels(pixels)
    except (DatasetError, MemoryError) as error:
        _report_error("image-unreadable", place, error, issues)
        return str(path), None


def _report_small(area_px: float, where: str, issues: IssueList) -> None:
    if area_px < 2:
        code, has = ("segment-tiny", "one") if area_px else ("segment-empty", "no")
        issues.add(code, where, f"it has {has} pixel")


def _report_error(code: str, place: Location, error: Exception, issues: IssueList) -> None:
    """Report an error, at the place that it names if it names one."""
    where = getattr(error, "where", "")
    message = str(error).removeprefix(f"{where}: ") if where else str(error)
    issues.add(code, where or place, message or type(error).__name__)


def _check_segmentation(
    segmentation: PanopticSegmentation, image: DatasetImage, reader: DatasetReader, place: Location, issues: IssueList
) -> None:
    categories = reader.categories
    extents = segmentation.runs.extents()
    sizes = {"the image": image.size_hw, "the mask": segmentation.runs.size_hw}
    image_files.check_sizes(sizes, False, place, issues)
    unexpected = extents.keys() - {segment.segment_id for segment in segmentation.segments}
    if unexpected:
        issues.add("png-id-unknown", place, f"ids of no segment: {abbreviate(sorted(unexpected))}")
    if not extents and categories.stuff:  # without stuff, an image may have no things
        issues.add("all-void", place, "no pixel is labelled")
    stuff: dict[int, int] = {}
    for segment in segmentation.segments:
        where = f"{place}, segment {segment.segment_id}"
        isthing = categories.isthing_by_id.get(segment.category_id)
        if not reader.has_overlapping_masks:  # else others may hide what its mask holds
            _report_small(extents[segment.segment_id].area_px if segment.segment_id in extents else 0, where, issues)
        if isthing is None:
            issues.add("category-unknown", where, f"category_id is {segment.category_id}")
        if segment.iscrowd and isthing is False:
            issues.add("crowd-of-stuff", where, f"category {segment.category_id} is stuff")
        first = stuff.setdefault(segment.category_id, segment.segment_id) if isthing is False else segment.segment_id
        if first != segment.segment_id:
            message = f"segment {first} is of category {segment.category_id} too, stuff"
            issues.add("stuff-split", where, message)
