"""Any other layout: what its reading refuses, told for every image, and what can be wrong with the masks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath

from segkit.curation import image_files
from segkit.curation.issues import NO_OTHERS, IssueList, RunAll
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.structures import PanopticSegmentation
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Location
from segkit.utils.text import abbreviate


def check_dataset(source: DatasetReader, run_all: RunAll, others: Mapping[bytes, str] = NO_OTHERS) -> IssueList:
    """All that is wrong with the images and annotations of a source, in the order of its images.

    others: the pictures of another split, by digest (`compute_dataset_digests`). What is
    wrong with the layout as a whole, the source has refused when it was opened.
    """
    issues = IssueList()
    if not source.images:
        issues.add("dataset-empty", source.root, "the source has no image")
    for image_id, number in Counter(image.image_id for image in source.images).items():
        if number > 1:
            issues.add("image-id-twice", Location(source.root, image_id), f"{number} images have this id")
    for line in source.skipped:
        issues.add("not-read", source.root, line)
    for file_name, number in Counter(PurePath(image.file_name).as_posix() for image in source.images).items():
        if number > 1:
            issues.add("file-name-twice", source.image_root / file_name, f"{number} images have this file")

    def check(image: DatasetImage) -> tuple[IssueList, tuple[str, bytes | None]]:
        return _check_image(source, image)

    digests = []
    for told, digest in run_all(check, source.images):
        issues += told
        digests.append(digest)
    issues += image_files.find_duplicates(digests) + image_files.find_shared(digests, others)
    return IssueList(dict.fromkeys(issues))  # of a damaged volume, every slice tells the same


def compute_dataset_digests(source: DatasetReader, run_all: RunAll) -> dict[bytes, str]:
    """The first picture of every digest, of those that are files and not of one colour."""

    def digest(image: DatasetImage) -> tuple[str, bytes | None]:
        return _look(source, image, IssueList())

    found: dict[bytes, str] = {}
    for path, content in run_all(digest, source.images):
        if content is not None:
            found.setdefault(content, path)
    return found


def _check_image(source: DatasetReader, image: DatasetImage) -> tuple[IssueList, tuple[str, bytes | None]]:
    issues = IssueList()
    digest = _look(source, image, issues)
    place = Location(source.root, image.image_id)
    try:
        segmentation = source.read_segmentation(image)
        _check_segmentation(segmentation, image, source, place, issues)
        for index, annotation in enumerate(source.read_annotations(image) if source.has_overlapping_masks else ()):
            _tell_small(annotation["area"], f"{place}, annotation at index {index}", issues)
    except (DatasetError, MemoryError, RecursionError) as error:
        _tell_error("annotation-unreadable", place, error, issues)
    return issues, digest


def _look(source: DatasetReader, image: DatasetImage, issues: IssueList) -> tuple[str, bytes | None]:
    """The picture's path and digest; a picture that the source makes itself is made."""
    path = source.image_root / image.file_name
    place = Location(path, image.image_id)
    if os.path.lexists(path):
        look = image_files.inspect_image(path, place)
        issues += look.issues
        image_files.check_sizes(
            {"the annotation": image.size_hw, "the image": look.size_hw}, look.is_rotated, place, issues
        )
        return str(path), look.digest
    try:
        return str(path), image_files.digest_pixels(source.read_image(image))
    except (DatasetError, MemoryError) as error:
        _tell_error("image-unreadable", place, error, issues)
        return str(path), None


def _tell_small(area_px: float, where: str, issues: IssueList) -> None:
    if area_px < 2:
        code, has = ("segment-tiny", "one") if area_px else ("segment-empty", "no")
        issues.add(code, where, f"it has {has} pixel")


def _tell_error(code: str, place: Location, error: Exception, issues: IssueList) -> None:
    """At the error's own place, a file, where it has one."""
    where = getattr(error, "where", "")
    message = str(error).removeprefix(f"{where}: ") if where else str(error)
    issues.add(code, where or place, message or type(error).__name__)


def _check_segmentation(
    segmentation: PanopticSegmentation, image: DatasetImage, source: DatasetReader, place: Location, issues: IssueList
) -> None:
    categories = source.categories
    found = segmentation.runs.extents()
    sizes = {"the image": image.size_hw, "the mask": segmentation.runs.size_hw}
    image_files.check_sizes(sizes, False, place, issues)
    strange = found.keys() - {segment.segment_id for segment in segmentation.segments}
    if strange:
        issues.add("png-id-unknown", place, f"ids of no segment: {abbreviate(sorted(strange))}")
    if not found and categories.stuff:  # an image without things is one
        issues.add("all-void", place, "no pixel is labelled")
    stuff: dict[int, int] = {}
    for segment in segmentation.segments:
        where = f"{place}, segment {segment.segment_id}"
        isthing = categories.isthing_by_id.get(segment.category_id)
        if not source.has_overlapping_masks:  # else others may hide what its mask holds
            _tell_small(found[segment.segment_id].area_px if segment.segment_id in found else 0, where, issues)
        if isthing is None:
            issues.add("category-unknown", where, f"category_id is {segment.category_id}")
        if segment.iscrowd and isthing is False:
            issues.add("crowd-of-stuff", where, f"category {segment.category_id} is stuff")
        first = stuff.setdefault(segment.category_id, segment.segment_id) if isthing is False else segment.segment_id
        if first != segment.segment_id:
            message = f"segment {first} is of category {segment.category_id} too, stuff"
            issues.add("stuff-split", where, message)
