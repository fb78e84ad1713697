"""COCO instances: boxes, areas and masks of the JSON against the images, everything that is wrong told."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segkit.curation import image_files
from segkit.curation.checks.fields import BOX_NUMBERS, NEEDED, OPTIONAL, box_of, crowd_of, number_of, value_of
from segkit.curation.checks.tables import ImageEntry, Tables, category_of, image_of, read_tables, refusals
from segkit.curation.issues import NO_OTHERS, IssueList, RunAll
from segkit.formats import coco
from segkit.formats.coco import MAX_COORDINATE, drop_slivers, find_mask_fault
from segkit.structures import ImageId, segmentation_to_rle
from segkit.utils import json_fields
from segkit.utils.json_fields import Entry, Location

# COCO's own files: a polygon's area is that of its outline, not of its pixels; boxes are of the outline, and of crowds
# from the first to the last pixel; rounding moves a corner by less than a pixel.
BOX_SLACK_PX = 1.0
AREA_SLACK_PX, AREA_SLACK_SHARE = 1.0, 0.01


@dataclass(frozen=True)
class MaskMeasure:
    """Of a sound mask. area_px: of its pixels. areas: that, and the outline's. boxes_xyxy: likewise."""

    area_px: int
    areas: tuple[float, ...]
    boxes_xyxy: tuple[tuple[float, float, float, float], ...]


def check_instances(
    json_path: Path, images: Path, run_all: RunAll, others: Mapping[bytes, str] = NO_OTHERS
) -> IssueList:
    """All that is wrong with a dataset in COCO's instances format, in a stable order; none where all is well.

    images: the folder of pictures. others: the pictures of another split, as `image_files.digest_split` gives them. Of
    crowds the area is not checked: in COCO's own files it is not that of the mask.
    """
    tables = read_tables(json_path, panoptic=False)
    if isinstance(tables, IssueList):
        return tables
    issues = tables.issues
    folder = image_files.check_folder(images, issues)
    annotations_of = _by_image(tables)

    def check(image: ImageEntry) -> tuple[IssueList, tuple[str, bytes | None]]:
        return _check_image(image, annotations_of.get(image.image_id, ()), tables, folder)

    digests = []
    for told, digest in run_all(check, [*tables.images.values()]):
        issues += told
        digests.append(digest)
    if folder:
        known = [image.file_name for image in tables.images.values() if image.file_name]
        issues += image_files.find_orphans(folder, known, "image-orphan")
    issues += image_files.find_duplicates(digests) + image_files.find_shared(digests, others)
    return issues if issues.has_errors() else issues + refusals(json_path, coco.read_instances)


def measure(segmentation: Any, size_hw: tuple[int, int]) -> MaskMeasure:
    """Area and box of a sound `segmentation`, see `coco_masks.fault_of`; polygons are cut off at the border."""
    rle = segmentation_to_rle(segmentation, size_hw)
    area_px = int(coco_mask.area(rle))
    left, top, width, height = coco_mask.toBbox(rle).tolist()
    of_pixels = (left, top, left + width, top + height)
    if not isinstance(segmentation, list):
        return MaskMeasure(area_px, (area_px,), (of_pixels,))
    outlines = [np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation]
    points = np.concatenate(outlines)
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    area = sum(_outline_area(outline) for outline in outlines)
    return MaskMeasure(area_px, (area_px, area), (of_pixels, (left, top, right, bottom)))


def is_near_area(area: Any, found: MaskMeasure) -> bool:
    """Whether `area` is a number near one of the mask's."""
    near = (abs(area - one) <= max(AREA_SLACK_PX, AREA_SLACK_SHARE * one) for one in found.areas)
    return json_fields.all_finite([area]) and any(near)


def is_box(box_xywh: Any, found: MaskMeasure) -> bool:
    """Whether it is a box near one of the mask's, to the pixel."""
    if type(box_xywh) is not list or len(box_xywh) != BOX_NUMBERS or not json_fields.all_finite(box_xywh):
        return False
    left, top, width, height = box_xywh
    corners = (left, top, left + width, top + height)
    slack = BOX_SLACK_PX + 1e-6  # corners of big numbers are rounded
    return any(all(abs(a - b) <= slack for a, b in zip(corners, one, strict=True)) for one in found.boxes_xyxy)


def is_inside(segmentation: Any, size_hw: tuple[int, int]) -> bool:
    """Whether the corners of polygons are in the image, to the pixel; run lengths are."""
    if not isinstance(segmentation, list):
        return True
    points = np.array([number for polygon in segmentation for number in polygon], dtype=np.float64).reshape(-1, 2)
    return bool(np.concatenate([-points, points - (size_hw[1], size_hw[0])]).max() <= BOX_SLACK_PX)


def _by_image(tables: Tables) -> dict[ImageId, list[tuple[int, Entry]]]:
    """Annotations and their places in the file; those without an image are told, as are ids that are taken."""
    found: dict[ImageId, list[tuple[int, Entry]]] = {}
    seen: set[int] = set()
    for index, annotation in enumerate(tables.annotations):
        image = image_of(annotation, index, tables, tables.issues)
        place = Location(tables.path, image.image_id if image else None, "annotation at index", index)
        annotation_id = value_of(annotation, "id", json_fields.INTEGER, place, tables.issues)
        if annotation_id is not None and annotation_id in seen:
            tables.issues.add("annotation-id-twice", place, f"the id {annotation_id} is taken")
        if annotation_id is not None:
            seen.add(annotation_id)
        if image is not None:
            found.setdefault(image.image_id, []).append((index, annotation))
    return found


def _check_image(
    image: ImageEntry, annotations: Sequence[tuple[int, Entry]], tables: Tables, folder: Path | None
) -> tuple[IssueList, tuple[str, bytes | None]]:
    issues, look, path = IssueList(), image_files.ImageInspection(), Path()
    if folder and image.file_name:
        path = folder / image.file_name
        look = image_files.inspect_image(path, Location(path, image.image_id))
        issues += look.issues
    earlier: set[str] = set()
    for index, annotation in annotations:
        look_alike = _check_annotation(annotation, index, image, tables, issues)
        if look_alike in earlier:
            place = Location(tables.path, image.image_id, "annotation at index", index)
            issues.add("mask-twice", place, "an annotation before this one has its category, box and mask")
        elif look_alike:
            earlier.add(look_alike)
    sizes = {"the JSON": image.size_hw, "the image": look.size_hw}
    image_files.check_sizes(sizes, look.is_rotated, Location(tables.path, image.image_id), issues)
    return issues, (str(path), look.digest)


def _check_annotation(annotation: Entry, index: int, image: ImageEntry, tables: Tables, issues: IssueList) -> str:
    """What is the same for annotations of one category, box and mask; "" where its mask is not sound."""
    name = f"at index {index}" if "id" not in annotation else reprlib.repr(annotation["id"])
    place = f"{Location(tables.path, image.image_id)}, annotation {name}"
    category_of(annotation, tables, place, issues)
    iscrowd = crowd_of(annotation, None, place, issues, OPTIONAL)
    area = number_of(annotation, "area", place, issues, NEEDED)
    if area is not None and area < 0:
        issues.add("area-wrong", place, f"expected 0 or more pixels, got {area:g}")
        area = None
    box = box_of(annotation, image.size_hw, place, issues, NEEDED, BOX_SLACK_PX)
    segmentation = value_of(annotation, "segmentation", (*json_fields.LIST, *json_fields.OBJECT), place, issues)
    if segmentation is None or image.size_hw is None:
        return ""
    sound = _sound_part(segmentation, image.size_hw, place, issues)
    if sound is None:
        return ""
    _check_mask(measure(sound, image.size_hw), None if iscrowd else area, box, place, issues)
    mask = sound["counts"] if isinstance(sound, dict) else sound
    return reprlib.repr([annotation.get("category_id"), annotation.get("bbox")]) + repr(mask)


def _check_mask(found: MaskMeasure, area: float | None, box: list[float] | None, place: str, issues: IssueList) -> None:
    if found.area_px == 0:
        issues.add("segment-empty", place, "its mask has no pixel in the image")
        return
    if found.area_px == 1:
        issues.add("segment-tiny", place, "its mask has one pixel")
    if area is not None and not is_near_area(area, found):
        issues.add("area-wrong", place, f"expected {found.areas[-1]:g} pixels as in the mask, got {area:g}")
    if box is not None and not is_box(box, found):
        left, top, right, bottom = found.boxes_xyxy[-1]
        expected = f"[{left:g}, {top:g}, {right - left:g}, {bottom - top:g}]"
        issues.add("box-wrong", place, f"expected about {expected} as in the mask, got {box}")


def _sound_part(segmentation: Any, size_hw: tuple[int, int], place: str, issues: IssueList) -> Any:
    """The segmentation without polygons that are too short; None where nothing is left that could be decoded."""
    kept = drop_slivers(segmentation)
    if isinstance(segmentation, list) and len(kept) < len(segmentation):
        number = len(segmentation) - len(kept)
        issues.add("polygon-short", place, f"{number} of {len(segmentation)} polygons have fewer than three points")
        if not kept:
            return None
    fault = find_mask_fault(kept, size_hw)
    if not fault:
        if not is_inside(kept, size_hw):
            message = f"it reaches beyond an image of {size_hw[0]} x {size_hw[1]} (height x width)"
            issues.add("mask-outside", place, message)
        return kept
    size = kept.get("size") if isinstance(kept, dict) else None
    other = type(size) is list and [*map(type, size)] == [int, int] and size != [*size_hw]
    far = f"a polygon has a corner more than {MAX_COORDINATE:g} pixels away"
    issues.add("rle-size" if other else "mask-invalid", place, far if _has_far_corner(kept) else fault)
    return None


def _has_far_corner(segmentation: Any) -> bool:
    """Whether numbers of polygons are too large, and that alone is wrong with them."""
    if not isinstance(segmentation, list) or not all(isinstance(polygon, list) for polygon in segmentation):
        return False
    points = [number for polygon in segmentation for number in polygon]
    return json_fields.all_finite(points) and not json_fields.all_finite(points, MAX_COORDINATE)


def _outline_area(points: NDArray[np.float64]) -> float:
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)
