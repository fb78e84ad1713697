"""COCO panoptic: the JSON against its PNGs against the images, everything that is wrong told."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from segkit.curation import image_files
from segkit.curation.checks.fields import NEEDED, OPTIONAL, box_of, crowd_of, inside, number_of, value_of
from segkit.curation.checks.tables import ImageEntry, Tables, category_of, image_of, read_tables, refusals
from segkit.curation.issues import NO_OTHERS, IssueList, RunAll
from segkit.formats import coco, png
from segkit.structures import MAX_SEGMENT_ID, VOID, Extent, ImageId
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry, Location

PNG_SUFFIX = (".png",)
RGB_KIND, RGB_DEPTH = "RGB", 8
DECODABLE = {"RGB", "RGBA", "palette"}


@dataclass(frozen=True)
class Job:
    """What belongs together: an image, its annotation, or one without the other. png_name: None where it has none."""

    image: ImageEntry | None
    annotation: Entry | None = None
    png_name: str | None = None


@dataclass(frozen=True)
class Checked:
    """Of one job. digest: of the picture, with its path."""

    issues: IssueList
    digest: tuple[str, bytes | None]


def check_panoptic(
    json_path: Path, masks: Path, images: Path, run_all: RunAll, others: Mapping[bytes, str] = NO_OTHERS
) -> IssueList:
    """All that is wrong with a dataset in COCO's panoptic format, in a stable order; none where all is well.

    masks: the folder of PNGs. images: the folder of pictures. others: the pictures of another split, as
    `image_files.digest_split` gives them.
    """
    tables = read_tables(json_path, panoptic=True)
    if isinstance(tables, IssueList):
        return tables
    issues = tables.issues
    folders = [image_files.check_folder(folder, issues) for folder in (masks, images)]
    jobs = list(_jobs(tables))

    def check(job: Job) -> Checked:
        return _check_job(job, tables, *folders)

    digests = []
    for checked in run_all(check, jobs):
        issues += checked.issues
        digests.append(checked.digest)
    if folders[0]:
        issues += image_files.find_orphans(
            masks, [job.png_name for job in jobs if job.png_name], "png-orphan", PNG_SUFFIX
        )
    if folders[1]:
        known = [image.file_name for image in tables.images.values() if image.file_name]
        issues += image_files.find_orphans(images, known, "image-orphan")
    issues += image_files.find_duplicates(digests) + image_files.find_shared(digests, others)
    return issues if issues.has_errors() else issues + refusals(json_path, coco.read_panoptic)


def _jobs(tables: Tables) -> Iterator[Job]:
    """Annotations in the file's order, then images without one; what is wrong with their pairing is told.

    Of an image, its first annotation has the picture to be looked at, and of a PNG, in two annotations of one image,
    the first has the PNG: all else would be told twice.
    """
    annotated: set[ImageId] = set()
    pngs: dict[str, object] = {}
    issues = tables.issues
    for index, annotation in enumerate(tables.annotations):
        image = image_of(annotation, index, tables, issues)
        image_id = _known_id(annotation)
        place = Location(tables.path, image_id, "annotation at index", index)
        if image is not None and image.image_id in annotated:
            issues.add("annotation-twice", place, "the image has an annotation before this one")
            image = None
        elif image is not None:
            annotated.add(image.image_id)
        png_name = inside(annotation, "file_name", place, issues)
        if png_name is not None and png_name in pngs and image is None and pngs[png_name] == image_id:
            png_name = None
        elif png_name is not None and png_name in pngs:
            issues.add("png-name-twice", place, f"{png_name} is the PNG of image {pngs[png_name]!r} too")
        elif png_name is not None:
            pngs[png_name] = image_id
        yield Job(image, annotation, png_name)
    for image_id, image in tables.images.items():
        if image_id not in annotated:
            issues.add("image-without-annotation", Location(tables.path, image_id), "no annotation has this image_id")
            yield Job(image)


def _known_id(annotation: Entry) -> ImageId | None:
    image_id = annotation.get("image_id")
    return image_id if type(image_id) in json_fields.IMAGE_ID else None


def _check_job(job: Job, tables: Tables, masks: Path | None, images: Path | None) -> Checked:
    issues = IssueList()
    image, look, path = job.image, image_files.ImageInspection(), ""
    if images and image and image.file_name:
        path = str(images / image.file_name)
        look = image_files.inspect_image(Path(path), Location(Path(path), image.image_id))
        issues += look.issues
    image_id = image.image_id if image else _known_id(job.annotation or {})
    entry = None if image_id is None else tables.images.get(image_id)
    size_hw = entry.size_hw if entry else None
    sizes = {"the JSON": size_hw, "the image": look.size_hw, "the PNG": None}
    if job.annotation is not None:
        found = None
        if masks and job.png_name is not None:
            sizes["the PNG"], found = _check_png(masks / job.png_name, Location(masks / job.png_name, image_id), issues)
        png_place = masks / job.png_name if masks and job.png_name else tables.path
        _Segments(tables, image_id, png_place, size_hw or sizes["the PNG"], found, issues).check(job.annotation)
    image_files.check_sizes(sizes, look.is_rotated, Location(tables.path, image_id), issues)
    return Checked(issues, (path, look.digest))


def _check_png(
    path: Path, place: Location, issues: IssueList
) -> tuple[tuple[int, int] | None, dict[int, Extent] | None]:
    """Size and segments of the PNG as far as it can be read."""
    if not os.path.isfile(path):
        strange = os.path.exists(path)
        message = "this is a folder or a device, no file" if strange else "the file does not exist"
        issues.add("png-unreadable" if strange else "png-missing", place, message)
        return None, None
    size_hw = None
    try:
        header = png.read_header(path)
        size_hw = header.height, header.width
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
    """The segments_info of one image against its PNG. found: segment_id -> extent in the PNG, None where unknown."""

    tables: Tables
    image_id: ImageId | None
    png_place: Path
    size_hw: tuple[int, int] | None
    found: dict[int, Extent] | None
    issues: IssueList

    def check(self, annotation: Entry) -> None:
        """IssueHandler all that is wrong."""
        place = Location(self.tables.path, self.image_id)
        infos = value_of(annotation, "segments_info", json_fields.LIST, place, self.issues)
        if infos is None:
            return
        seen: set[int] = set()
        stuff: dict[int, int] = {}
        for index, info in enumerate(infos):
            if type(info) is not dict:
                got = reprlib.repr(info)
                self.issues.add("type-wrong", f"{place}, segment at index {index}", f"expected an object, got {got}")
                continue
            self._check_info(info, index, seen, stuff)
        for segment_id in sorted((self.found or {}).keys() - seen):
            where = Location(self.png_place, self.image_id, "segment", segment_id)
            area = (self.found or {})[segment_id].area_px
            self.issues.add("png-id-unknown", where, f"{area} pixels have this id, segments_info lacks it")

    def _check_info(self, info: Entry, index: int, seen: set[int], stuff: dict[int, int]) -> None:
        name = f"at index {index}" if "id" not in info else reprlib.repr(info["id"])
        place = f"{Location(self.tables.path, self.image_id)}, segment {name}"
        segment_id = self._segment_id(info, place, seen)
        category_id = category_of(info, self.tables, place, self.issues)
        isthing = None if category_id is None else self.tables.isthing_of[category_id]
        iscrowd = crowd_of(info, isthing, place, self.issues, NEEDED)
        area = number_of(info, "area", place, self.issues, NEEDED)
        box = box_of(info, self.size_hw, place, self.issues, OPTIONAL)
        if info.get("score") is not None:
            number_of(info, "score", place, self.issues, OPTIONAL)
        if segment_id is None:
            return
        if category_id is not None and isthing is False and not iscrowd:
            first = stuff.setdefault(category_id, segment_id)
            if first != segment_id:
                self.issues.add("stuff-split", place, f"segment {first} is of category {category_id} too, stuff")
        if self.found is None:
            return
        extent = self.found.get(segment_id)
        if extent is None:
            code = "segment-empty" if area == 0 else "segment-not-in-png"
            self.issues.add(code, place, f"no pixel of {self.png_place.name} has this id")
            return
        if extent.area_px == 1:
            self.issues.add("segment-tiny", place, "it has one pixel")
        if area is not None and area != extent.area_px:
            self.issues.add("area-wrong", place, f"expected {extent.area_px} pixels as in the PNG, got {area}")
        if box is not None and box != [*extent.bbox_xywh]:
            self.issues.add("box-wrong", place, f"expected {[*extent.bbox_xywh]} as in the PNG, got {box}")

    def _segment_id(self, info: Entry, place: str, seen: set[int]) -> int | None:
        segment_id: int | None = value_of(info, "id", json_fields.INTEGER, place, self.issues)
        if segment_id is None:
            return None
        if segment_id == VOID:
            self.issues.add("segment-id-void", place, "0 is void")
        elif not VOID < segment_id <= MAX_SEGMENT_ID:
            self.issues.add("segment-id-range", place, f"expected an id in 1..{MAX_SEGMENT_ID}")
        elif segment_id in seen:
            self.issues.add("segment-id-twice", place, "expected distinct segment ids in an image")
        else:
            seen.add(segment_id)
            return segment_id
        return None
