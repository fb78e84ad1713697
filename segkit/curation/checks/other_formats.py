"""Any other layout: what its reading refuses, told for every image, and what can be wrong with the masks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath

from segkit.curation import images as pictures
from segkit.curation.issues import NO_OTHERS, Findings, RunAll
from segkit.formats.base import Source, SourceImage
from segkit.formats.coco.tables import Place, listed
from segkit.structures import PanopticSegmentation, extents_of_runs
from segkit.utils.errors import DatasetError


def check_source(source: Source, run_all: RunAll, others: Mapping[bytes, str] = NO_OTHERS) -> Findings:
    """All that is wrong with the images and annotations of a source, in the order of its images.

    others: the pictures of another split, as `digests_of_source` or `pictures.digests_of` gives them. What is wrong
    with the layout as a whole, the source has refused when it was opened.
    """
    findings = Findings()
    if not source.images:
        findings.tell("dataset-empty", source.root, "the source has no image")
    for image_id, number in Counter(image.image_id for image in source.images).items():
        if number > 1:
            findings.tell("image-id-twice", Place(source.root, image_id), f"{number} images have this id")
    for line in source.skipped:
        findings.tell("not-read", source.root, line)
    for file_name, number in Counter(PurePath(image.file_name).as_posix() for image in source.images).items():
        if number > 1:
            findings.tell("file-name-twice", source.pictures / file_name, f"{number} images have this file")

    def check(image: SourceImage) -> tuple[Findings, tuple[str, bytes | None]]:
        return _check_image(source, image)

    digests = []
    for told, digest in run_all(check, source.images):
        findings += told
        digests.append(digest)
    findings += pictures.twice(digests) + pictures.shared(digests, others)
    return Findings(dict.fromkeys(findings))  # of a damaged volume, every slice tells the same


def digests_of_source(source: Source, run_all: RunAll) -> dict[bytes, str]:
    """The first picture of every digest, of those that are files and not of one colour."""

    def digest(image: SourceImage) -> tuple[str, bytes | None]:
        return _look(source, image, Findings())

    found: dict[bytes, str] = {}
    for path, content in run_all(digest, source.images):
        if content is not None:
            found.setdefault(content, path)
    return found


def _check_image(source: Source, image: SourceImage) -> tuple[Findings, tuple[str, bytes | None]]:
    findings = Findings()
    digest = _look(source, image, findings)
    place = Place(source.root, image.image_id)
    try:
        segmentation = source.segmentation(image)
        _check_segmentation(segmentation, image, source, place, findings)
        for index, annotation in enumerate(source.annotations(image) if source.overlaps else ()):
            _tell_small(annotation["area"], f"{place}, annotation at index {index}", findings)
    except (DatasetError, MemoryError, RecursionError) as error:
        _tell_error("annotation-unreadable", place, error, findings)
    return findings, digest


def _look(source: Source, image: SourceImage, findings: Findings) -> tuple[str, bytes | None]:
    """The picture's path and digest; a picture that the source makes itself is made."""
    path = source.pictures / image.file_name
    place = Place(path, image.image_id)
    if os.path.lexists(path):
        look = pictures.look_at(path, place)
        findings += look.findings
        pictures.compare_sizes(
            {"the annotation": image.size_hw, "the image": look.size_hw}, look.turned, place, findings
        )
        return str(path), look.digest
    try:
        return str(path), pictures.digest_of(source.picture(image))
    except (DatasetError, MemoryError) as error:
        _tell_error("image-unreadable", place, error, findings)
        return str(path), None


def _tell_small(area_px: float, where: str, findings: Findings) -> None:
    if area_px < 2:
        code, has = ("segment-tiny", "one") if area_px else ("segment-empty", "no")
        findings.tell(code, where, f"it has {has} pixel")


def _tell_error(code: str, place: Place, error: Exception, findings: Findings) -> None:
    """At the error's own place, a file, where it has one."""
    where = getattr(error, "where", "")
    message = str(error).removeprefix(f"{where}: ") if where else str(error)
    findings.tell(code, where or place, message or type(error).__name__)


def _check_segmentation(
    segmentation: PanopticSegmentation, image: SourceImage, source: Source, place: Place, findings: Findings
) -> None:
    categories = source.categories
    found = extents_of_runs(segmentation.runs)
    sizes = {"the image": image.size_hw, "the mask": segmentation.runs.size_hw}
    pictures.compare_sizes(sizes, False, place, findings)
    strange = found.keys() - {segment.segment_id for segment in segmentation.segments}
    if strange:
        findings.tell("png-id-unknown", place, f"ids of no segment: {listed(sorted(strange))}")
    if not found and categories.stuff:  # an image without things is one
        findings.tell("all-void", place, "no pixel is labelled")
    stuff: dict[int, int] = {}
    for segment in segmentation.segments:
        where = f"{place}, segment {segment.segment_id}"
        isthing = categories.isthing_of.get(segment.category_id)
        if not source.overlaps:  # else others may hide what its mask holds
            _tell_small(found[segment.segment_id].area_px if segment.segment_id in found else 0, where, findings)
        if isthing is None:
            findings.tell("category-unknown", where, f"category_id is {segment.category_id}")
        if segment.iscrowd and isthing is False:
            findings.tell("crowd-of-stuff", where, f"category {segment.category_id} is stuff")
        first = stuff.setdefault(segment.category_id, segment.segment_id) if isthing is False else segment.segment_id
        if first != segment.segment_id:
            message = f"segment {first} is of category {segment.category_id} too, stuff"
            findings.tell("stuff-split", where, message)
