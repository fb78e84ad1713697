"""Checks of COCO panoptic: the JSON against its PNGs and the images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segkit.curation import image_files
from segkit.curation.checks.classes import report_labels
from segkit.curation.checks.tables import (
    Tables,
    check_images,
    inspect_image,
    name_entry,
    normalize_name,
    read_tables,
    report_box_outside,
    report_missing,
    report_spelling,
    resolve_names,
)
from segkit.curation.image_files import ImageDigest
from segkit.curation.issues import NO_DIGESTS, IssueList, RunAll
from segkit.formats import coco, png
from segkit.formats.coco import ImageEntry, validation
from segkit.structures import Extent, ImageId
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames, explain_missing
from segkit.utils.issues import try_read
from segkit.utils.json_fields import Entry, Location

PNG_SUFFIX = (".png",)
RGB_KIND, RGB_DEPTH = "RGB", 8
DECODABLE = {"RGB", "RGBA", "palette"}
NEEDED_KEYS = {"iscrowd": "key-missing", "area": "key-missing", "bbox": "key-missing-optional"}  # by other tools


@dataclass(frozen=True)
class Job:
    """An image and its annotation, or one without the other.

    Attributes:
        image: None if the annotation has no image, or the image another annotation.
        annotation: None if the image has none.
        png_name: path in the folder of PNGs, None if it is invalid.
    """

    image: ImageEntry | None
    annotation: Entry | None = None
    png_name: str | None = None


def check_panoptic(
    json_path: str | Path,
    masks: str | Path,
    images: str | Path,
    run_all: RunAll,
    others: Mapping[bytes, str] = NO_DIGESTS,
) -> IssueList:
    """Check a dataset in COCO's panoptic format.

    Args:
        json_path: the panoptic JSON.
        masks: the folder of PNGs.
        images: the image folder.
        run_all: `map`, or a map over processes.
        others: digests of another split's images, see `image_files.digest_split`.

    Returns:
        All issues, in a stable order.
    """
    json_path, masks, images = Path(json_path), Path(masks), Path(images)
    tables = read_tables(json_path, panoptic=True)
    if isinstance(tables, IssueList):
        return tables
    png_folder, image_folder = (image_files.check_folder(folder, tables.issues) for folder in (masks, images))
    resolve_names(tables, image_folder)
    infos_by_image = (annotation.get("segments_info") for annotation in tables.annotations)
    segments = [info for infos in infos_by_image if type(infos) is list for info in infos if type(info) is dict]
    report_labels(tables.class_names, segments, "segment", json_path, tables.issues)
    jobs = list(_pair(tables, FolderNames(png_folder) if png_folder else None))
    if png_folder:
        png_names = [job.png_name for job in jobs if job.png_name]
        tables.issues += image_files.find_orphans(masks, png_names, "png-orphan", PNG_SUFFIX)

    check = partial(_check_job, tables=tables, masks=png_folder, images=image_folder)
    return check_images(check, jobs, tables, image_folder, run_all, others, coco.read_panoptic)


def _pair(tables: Tables, png_names: FolderNames | None) -> Iterator[Job]:
    """Annotations in the file's order, then images without one; issues of their pairing are reported.

    Only the first annotation of an image gets the image, and of two annotations of one image and one PNG only the
    first gets the PNG: their issues would be reported twice.
    """
    annotated: set[ImageId] = set()
    owners: dict[str, object] = {}  # image_id by png_name
    issues = tables.issues
    for index, annotation in enumerate(tables.annotations):
        image = tables.get_image(annotation, index)
        image_id = _get_image_id(annotation)
        place = Location(tables.path, image_id, "annotation at index", index)
        if image is not None and image.image_id in annotated:
            issues.add("annotation-twice", place, "the image has an annotation before this one")
            image = None
        elif image is not None:
            annotated.add(image.image_id)
        png_name = try_read(issues.add_error, "", validation.get_file_name, annotation, place)
        png_name = normalize_name(png_name, place, issues)
        if png_name is not None and png_names:
            name, png_name = png_name, png_names.resolve(png_name)
            report_spelling(name, png_name, place, issues)
        if png_name is not None and png_name in owners and image is None and owners[png_name] == image_id:
            png_name = None
        elif png_name is not None and png_name in owners:
            issues.add("png-name-twice", place, f"{png_name} is the PNG of image {owners[png_name]!r} too")
        elif png_name is not None:
            owners[png_name] = image_id
        yield Job(image, annotation, png_name)
    for image_id, image in tables.images.items():
        if image_id not in annotated:
            issues.add("image-without-annotation", Location(tables.path, image_id), "no annotation has this image_id")
            yield Job(image)


def _get_image_id(annotation: Entry) -> ImageId | None:
    image_id = annotation.get("image_id")
    return image_id if type(image_id) in json_fields.IMAGE_ID else None


def _check_job(job: Job, tables: Tables, masks: Path | None, images: Path | None) -> tuple[IssueList, ImageDigest]:
    issues = IssueList()
    path, inspection = inspect_image(job.image, images, issues)
    image_id = job.image.image_id if job.image else _get_image_id(job.annotation or {})
    entry = None if image_id is None else tables.images.get(image_id)
    sizes = {"the JSON": entry.size_hw if entry else None, "the image": inspection.size_hw, "the PNG": None}
    if job.annotation is not None:
        png_path, extents = tables.path, None
        if masks and job.png_name is not None:
            png_path = masks / job.png_name
            sizes["the PNG"], extents = _check_png(png_path, Location(png_path, image_id), issues)
        size_hw = sizes["the JSON"] or sizes["the PNG"]
        _Segments(tables, image_id, png_path, size_hw, extents, issues).check(job.annotation)
    image_files.check_sizes(sizes, inspection.is_rotated, Location(tables.path, image_id), issues)
    return issues, (path, inspection.digest)


def _check_png(
    path: Path, place: Location, issues: IssueList
) -> tuple[tuple[int, int] | None, dict[int, Extent] | None]:
    """Size and segments of the PNG as far as it can be read."""
    if not os.path.isfile(path):
        exists = os.path.exists(path)
        message = (
            "this is a folder or a device, no file" if exists else f"the file does not exist{explain_missing(path)}"
        )
        issues.add("png-unreadable" if exists else "png-missing", place, message)
        return None, None
    size_hw = None
    try:
        header = png.read_header(path)
        size_hw = header.size_hw
        if (header.kind, header.bit_depth) != (RGB_KIND, RGB_DEPTH):
            issues.add("png-not-rgb", place, f"it is {header.bit_depth}-bit {header.kind}")
            if header.kind not in DECODABLE or header.bit_depth > RGB_DEPTH:
                return size_hw, None
        extents = png.read_id_runs(path).extents()
    except DatasetError as error:
        issues.add("png-unreadable", place, str(error).removeprefix(f"{path}: "))
        return None, None
    if not extents:
        issues.add("all-void", place, "every pixel has the id 0")
    return size_hw, extents


@dataclass(frozen=True)
class _Segments:
    """The segments_info of one image against its PNG. extents: by segment_id in the PNG, None if they are unknown."""

    tables: Tables
    image_id: ImageId | None
    png_path: Path
    size_hw: tuple[int, int] | None
    extents: Mapping[int, Extent] | None
    issues: IssueList

    def check(self, annotation: Entry) -> None:
        """Report all issues."""
        place = Location(self.tables.path, self.image_id)
        infos = json_fields.get_table(annotation, "segments_info", place, self.issues.add_error)
        segment_ids: set[int] = set()
        stuff: dict[int, int] = {}  # first segment_id by category_id
        for index, info in enumerate(infos):
            self._check_info(info, index, segment_ids, stuff)
        extents = (self.extents or {}) if type(annotation.get("segments_info")) is list else {}
        for segment_id in sorted(extents.keys() - segment_ids):
            where = Location(self.png_path, self.image_id, "segment", segment_id)
            message = f"{extents[segment_id].area_px} pixels have this id, segments_info lacks it"
            self.issues.add("png-id-unknown", where, message)

    def _check_info(self, info: Entry, index: int, segment_ids: set[int], stuff: dict[int, int]) -> None:
        place = f"{Location(self.tables.path, self.image_id)}, segment {name_entry(info, index)}"
        isthing_by_id, on_issue = self.tables.isthing_by_id, self.issues.add_error
        segment_id = try_read(on_issue, "", validation.get_segment_id, info, segment_ids, place)
        valid = validation.validate_segment(info, isthing_by_id, place, on_issue)
        report_missing(info, NEEDED_KEYS, place, self.issues)
        category_id, iscrowd = valid["category_id"], valid["iscrowd"]
        is_stuff = category_id is not None and isthing_by_id[category_id] is False
        if is_stuff and iscrowd:
            self.issues.add("crowd-of-stuff", place, f"category {category_id} is stuff, `iscrowd` is 1")
        box = report_box_outside(valid["bbox"], self.size_hw, place, self.issues)
        if segment_id is None:
            return
        segment_ids.add(segment_id)
        if is_stuff and not iscrowd:
            first = stuff.setdefault(category_id, segment_id)
            if first != segment_id:
                self.issues.add("stuff-split", place, f"segment {first} is of category {category_id} too, stuff")
        if self.extents is not None:
            self._check_extent(self.extents.get(segment_id), valid["area"], box, place)

    def _check_extent(self, extent: Extent | None, area: float | None, box: list[float] | None, place: str) -> None:
        if extent is None:
            code = "segment-empty" if area == 0 else "segment-not-in-png"
            self.issues.add(code, place, f"no pixel of {self.png_path.name} has this id")
            return
        if extent.area_px == 1:
            self.issues.add("segment-tiny", place, "it has one pixel")
        if area is not None and area != extent.area_px:
            self.issues.add("area-wrong", place, f"expected {extent.area_px} pixels as in the PNG, got {area}")
        if box is not None and box != [*extent.bbox_xywh]:
            self.issues.add("box-wrong", place, f"expected {[*extent.bbox_xywh]} as in the PNG, got {box}")
