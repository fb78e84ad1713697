"""Checks of COCO instances: boxes, areas and masks of the JSON against each other and the images."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segkit.curation import image_files
from segkit.curation.checks.classes import report_labels
from segkit.curation.checks.tables import (
    Tables,
    check_images,
    inspect_image,
    name_entry,
    read_tables,
    report_box_outside,
    report_missing,
    resolve_names,
)
from segkit.curation.image_files import ImageDigest
from segkit.curation.issues import NO_DIGESTS, IssueList, RunAll
from segkit.formats import coco
from segkit.formats.coco import ImageEntry, validation
from segkit.structures import ImageId, segmentation_to_rle
from segkit.utils import json_fields
from segkit.utils.issues import try_read
from segkit.utils.json_fields import Entry, Location, get_field

# COCO's own files: a polygon's area is that of its outline, not of its pixels; boxes are of the outline, and of crowds
# from the first to the last pixel; rounding moves a corner by less than a pixel.
BOX_SLACK_PX = 1.0
AREA_SLACK_PX, AREA_SLACK_SHARE = 1.0, 0.01


@dataclass(frozen=True)
class MaskMeasure:
    """Areas and boxes of a mask.

    Attributes:
        area_px: pixels of the mask.
        areas: `area_px`, and of polygons the area of the outline.
        boxes_xyxy: (left, top, right, bottom) of the pixels, and of polygons of the outline.
    """

    area_px: int
    areas: tuple[float, ...]
    boxes_xyxy: tuple[tuple[float, float, float, float], ...]


def check_instances(
    json_path: str | Path, images: str | Path, run_all: RunAll, others: Mapping[bytes, str] = NO_DIGESTS
) -> IssueList:
    """Check a dataset in COCO's instances format.

    The area of crowds is not checked: in COCO's own files it is not the area of the mask.

    Args:
        json_path: the instances JSON.
        images: the image folder.
        run_all: `map`, or a map over processes.
        others: digests of another split's images, see `image_files.digest_split`.

    Returns:
        All issues, in a stable order.
    """
    json_path, images = Path(json_path), Path(images)
    tables = read_tables(json_path, panoptic=False)
    if isinstance(tables, IssueList):
        return tables
    folder = image_files.check_folder(images, tables.issues)
    resolve_names(tables, folder)
    report_labels(tables.class_names, tables.annotations, "annotation", json_path, tables.issues)
    check = partial(_check_image, annotations=_group_by_image(tables), tables=tables, folder=folder)
    return check_images(check, [*tables.images.values()], tables, folder, run_all, others, coco.read_instances)


def measure_mask(segmentation: Any, size_hw: tuple[int, int]) -> MaskMeasure:
    """Measure a mask; polygons are cut off at the border of the image.

    Args:
        segmentation: a valid COCO `segmentation`, see `coco.find_mask_fault`.
        size_hw: (height, width) of the image in pixels.

    Returns:
        Its areas and boxes.
    """
    rle = segmentation_to_rle(segmentation, size_hw)
    area_px = int(coco_mask.area(rle))
    left, top, width, height = coco_mask.toBbox(rle).tolist()
    pixel_box = (left, top, left + width, top + height)
    if not isinstance(segmentation, list):
        return MaskMeasure(area_px, (area_px,), (pixel_box,))
    outlines = [np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation]
    points = np.concatenate(outlines)
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    area = sum(_compute_outline_area(outline) for outline in outlines)
    return MaskMeasure(area_px, (area_px, area), (pixel_box, (left, top, right, bottom)))


def is_near_area(area: Any, measure: MaskMeasure) -> bool:
    """Compare an area with a mask.

    Args:
        area: pixels, or anything else.
        measure: of the mask.

    Returns:
        Whether `area` is a number close to one of the mask's areas.
    """
    near = (abs(area - mask_area) <= max(AREA_SLACK_PX, AREA_SLACK_SHARE * mask_area) for mask_area in measure.areas)
    return json_fields.all_finite([area]) and any(near)


def is_near_box(box_xywh: Any, measure: MaskMeasure) -> bool:
    """Compare a box with a mask.

    Args:
        box_xywh: [x, y, width, height] in pixels, or anything else.
        measure: of the mask.

    Returns:
        Whether it is a box within a pixel of one of the mask's boxes.
    """
    if type(box_xywh) is not list or len(box_xywh) != validation.BOX_NUMBERS or not json_fields.all_finite(box_xywh):
        return False
    left, top, width, height = box_xywh
    corners = (left, top, left + width, top + height)
    slack = BOX_SLACK_PX + 1e-6  # corners of big numbers are rounded
    return any(all(abs(a - b) <= slack for a, b in zip(corners, box, strict=True)) for box in measure.boxes_xyxy)


def is_mask_inside(segmentation: Any, size_hw: tuple[int, int]) -> bool:
    """Check that polygons are inside an image, to the pixel; run lengths always are.

    Args:
        segmentation: a valid COCO `segmentation`.
        size_hw: (height, width) of the image in pixels.

    Returns:
        Whether all corners are inside.
    """
    if not isinstance(segmentation, list):
        return True
    points = np.array([number for polygon in segmentation for number in polygon], dtype=np.float64).reshape(-1, 2)
    return bool(np.concatenate([-points, points - (size_hw[1], size_hw[0])]).max() <= BOX_SLACK_PX)


def _group_by_image(tables: Tables) -> dict[ImageId, list[tuple[int, Entry]]]:
    """Annotations and their indices in the file; those without an image are reported, as are ids that are taken."""
    annotations: dict[ImageId, list[tuple[int, Entry]]] = {}
    ids: set[int] = set()
    for index, annotation in enumerate(tables.annotations):
        image = tables.get_image(annotation, index)
        place = Location(tables.path, image.image_id if image else None, "annotation at index", index)
        get = partial(get_field, annotation, "id", json_fields.INTEGER, place)
        annotation_id: int | None = try_read(tables.issues.add_error, "", get)
        if annotation_id is not None and annotation_id in ids:
            tables.issues.add("annotation-id-twice", place, f"the id {annotation_id} is taken")
        elif annotation_id is not None:
            ids.add(annotation_id)
        if image is not None:
            annotations.setdefault(image.image_id, []).append((index, annotation))
    return annotations


def _check_image(
    image: ImageEntry, annotations: Mapping[ImageId, list[tuple[int, Entry]]], tables: Tables, folder: Path | None
) -> tuple[IssueList, ImageDigest]:
    issues = IssueList()
    path, inspection = inspect_image(image, folder, issues)
    earlier: set[str] = set()
    for index, annotation in annotations.get(image.image_id, ()):
        fingerprint = _check_annotation(annotation, index, image, tables, issues)
        if fingerprint in earlier:
            place = Location(tables.path, image.image_id, "annotation at index", index)
            issues.add("mask-twice", place, "an annotation before this one has its category, box and mask")
        elif fingerprint:
            earlier.add(fingerprint)
    sizes = {"the JSON": image.size_hw, "the image": inspection.size_hw}
    image_files.check_sizes(sizes, inspection.is_rotated, Location(tables.path, image.image_id), issues)
    return issues, (path, inspection.digest)


def _check_annotation(annotation: Entry, index: int, image: ImageEntry, tables: Tables, issues: IssueList) -> str:
    """What annotations of equal category, box and mask have in common; "" if the mask is invalid."""
    size_hw = image.size_hw
    place = f"{Location(tables.path, image.image_id)}, annotation {name_entry(annotation, index)}"
    given: Any = annotation.get("segmentation")
    polygons = coco.drop_slivers(given)
    slivers = len(given) - len(polygons) if isinstance(given, list) else 0
    if slivers and size_hw and coco.recognize_mask_form(given, size_hw):
        slivers = 0  # points of a polygon, for example: `validate_entry` reports the form
    if slivers:
        issues.add("polygon-short", place, f"{slivers} of {len(given)} polygons have fewer than three points")
    has_mask = size_hw is not None and not (slivers and not polygons)
    keys = ("category_id", "iscrowd", "area", "bbox", *(("segmentation",) if has_mask else ()))
    valid = validation.validate_entry(annotation, keys, tables.isthing_by_id, size_hw, place, issues.add_error)
    report_missing(annotation, {"iscrowd": "key-missing-optional"}, place, issues)
    box = report_box_outside(valid["bbox"], size_hw, place, issues, BOX_SLACK_PX)
    if size_hw is None:
        try_read(issues.add_error, "", get_field, annotation, "segmentation", (list, dict), place)
    mask = valid.get("segmentation")
    if mask is None or size_hw is None:
        return ""
    if isinstance(mask, list) and coco.are_relative(mask):
        issues.add("coordinates-relative", place, coco.RELATIVE)
        return ""
    if not is_mask_inside(mask, size_hw):
        message = f"it reaches beyond an image of {size_hw[0]} x {size_hw[1]} (height x width)"
        issues.add("mask-outside", place, message)
    _check_mask(measure_mask(mask, size_hw), None if valid["iscrowd"] else valid["area"], box, place, issues)
    shape = mask["counts"] if isinstance(mask, dict) else mask
    return reprlib.repr([annotation.get("category_id"), annotation.get("bbox")]) + repr(shape)


def _check_mask(
    measure: MaskMeasure, area: float | None, box: list[float] | None, place: str, issues: IssueList
) -> None:
    if measure.area_px == 0:
        issues.add("segment-empty", place, "its mask has no pixel in the image")
        return
    if measure.area_px == 1:
        issues.add("segment-tiny", place, "its mask has one pixel")
    if area is not None and not is_near_area(area, measure):
        issues.add("area-wrong", place, f"expected {measure.areas[-1]:g} pixels as in the mask, got {area:g}")
    if box is not None and not is_near_box(box, measure):
        left, top, right, bottom = measure.boxes_xyxy[-1]
        expected = f"[{left:g}, {top:g}, {right - left:g}, {bottom - top:g}]"
        issues.add("box-wrong", place, f"expected about {expected} as in the mask, got {box}")


def _compute_outline_area(points: NDArray[np.float64]) -> float:
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)
