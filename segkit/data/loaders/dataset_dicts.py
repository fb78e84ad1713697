"""Detectron2's dataset dicts that a user's function returns: checked, and completed where something can be derived."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from segkit.data.dataset import Record
from segkit.formats.coco import are_relative
from segkit.formats.image_io import read_image_size
from segkit.structures import CategorySet, mask_to_rle, segmentation_to_rle
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import explain_missing

FILE_KEYS = {"file_name": "images", "sem_seg_file_name": "semantic maps", "pan_seg_file_name": "panoptic PNGs"}
BOX_MODES = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
POLYGON_NUMBERS = 6  # of a triangle
LISTED = 3  # places in a message


class Problems:
    """Faults of a dataset's records, gathered by their kind.

    Args:
        name: the dataset's name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._places: dict[tuple[str, str], list[str]] = {}

    def add(self, problem: str, place: str, remedy: str = "") -> None:
        """Note a fault.

        Args:
            problem: what is wrong, equal for all faults of a kind.
            place: the record or annotation.
            remedy: what to do.
        """
        self._places.setdefault((problem, remedy), []).append(place)

    def check(self) -> None:
        """Raise the first kind of fault.

        Raises:
            DatasetError: with the number of places and the first of them.
        """
        for (problem, remedy), places in self._places.items():
            more = f" and {len(places) - LISTED} more" if len(places) > LISTED else ""
            text = f"{problem} ({len(places)}: {', '.join(places[:LISTED])}{more})"
            raise DatasetError(text, where=f"dataset {self.name}", remedy=remedy)


def complete_records(name: str, raw_records: Any) -> list[Record]:
    """Check the images of dataset dicts, and add the keys that can be derived.

    Args:
        name: the dataset's name.
        raw_records: what the user's function returned; it is not changed.

    Returns:
        Copies with file_name, image_id (default: the position), height, width (default: the file's); all have
        `annotations` if one has.

    Raises:
        DatasetError: it is no list of dicts, a file is missing, a size is none, or an image_id comes twice.
    """
    if not isinstance(raw_records, (list, tuple)) or not all(isinstance(record, Mapping) for record in raw_records):
        problem = f"expected its function to return a list of dicts, got {type(raw_records).__name__}"
        raise DatasetError(problem, where=f"dataset {name}")
    if not raw_records:
        raise DatasetError("its function returned no image", where=f"dataset {name}", remedy="check its paths")
    records = [dict(record) for record in raw_records]
    problems = Problems(name)
    for number, record in enumerate(records):
        for key in FILE_KEYS.keys() & record.keys():
            if not isinstance(record[key], (str, os.PathLike)):
                problems.add(f"expected {key} to be a path", f"record {number}: {record[key]!r}")
            else:
                record[key] = os.fspath(record[key])
        if "file_name" not in record:
            problems.add("expected the key file_name", f"record {number}")
        record["image_id"] = _get_image_id(record.get("image_id", number))
    problems.check()
    for key, kind in FILE_KEYS.items():
        missing = [record[key] for record in records if key in record and not os.path.isfile(record[key])]
        for path in missing:
            place = f"{path}{explain_missing(path)}"
            problems.add(f"{len(missing)} of {len(records)} {kind} are missing", place, "correct the paths")
    problems.check()
    _check_image_ids(records, problems)
    for record in records:
        _complete_size(record, problems)
    problems.check()
    if any("annotations" in record for record in records):
        for record in records:
            record["annotations"] = record.get("annotations", [])
    return records


def check_annotations(name: str, records: Sequence[Record], class_names: Sequence[str]) -> bool:
    """Check annotations and bring masks to the two forms that Detectron2 takes, polygons and compressed RLE, in place.

    Args:
        name: the dataset's name.
        records: of `complete_records`, with annotations.
        class_names: thing_classes of the metadata.

    Returns:
        False if the annotations are boxes without masks.

    Raises:
        DatasetError: an annotation is wrong; the message counts those with the same fault.
    """
    problems = Problems(name)
    has_masks = any(_has_mask(a) for r in records for a in _get_list(r) if isinstance(a, Mapping))
    for record in records:
        file_name = os.path.basename(record["file_name"])
        if not isinstance(record["annotations"], (list, tuple)):
            problems.add("expected annotations to be a list", file_name)
            continue
        checked = []
        for number, annotation in enumerate(record["annotations"]):
            place = f"{file_name}, annotation {number}"
            if not isinstance(annotation, Mapping):
                problems.add("expected an annotation to be a dict", place)
                continue
            _check_class(annotation, class_names, place, problems)
            box = _check_box(annotation, place, problems)
            checked.append({**annotation, **box, "category_id": _to_int(annotation.get("category_id"))})
            if has_masks:
                size_hw = record["height"], record["width"]
                checked[-1]["segmentation"] = _normalize_mask(annotation, size_hw, place, problems)
        record["annotations"] = checked
    problems.check()
    return has_masks


def count_other_box_mode(records: Iterable[Record]) -> tuple[int, int]:
    """Count boxes that leave their image as (x, y, width, height), but fit into it as two corners.

    Args:
        records: with checked annotations.

    Returns:
        The number of such boxes, and of all boxes.
    """
    suspicious = total = 0
    for record in records:
        for annotation in record["annotations"]:
            x, y, right, bottom = annotation["bbox"]
            total += 1
            if annotation["bbox_mode"] == BoxMode.XYWH_ABS and right > x and bottom > y:
                leaves = x + right > record["width"] + 1 or y + bottom > record["height"] + 1
                suspicious += leaves and right <= record["width"] + 1 and bottom <= record["height"] + 1
    return suspicious, total


def convert_segments(name: str, records: Sequence[Record], categories: CategorySet, shared_indices: bool) -> None:
    """Give the segments of panoptic records the category ids of the dataset, in place.

    Args:
        name: the dataset's name.
        records: of `complete_records`, with pan_seg_file_name and segments_info.
        categories: the categories of the metadata.
        shared_indices: thing_classes and stuff_classes are one list, and category_id is a position in it.

    Raises:
        DatasetError: a segment has no valid id or category, or does not say if it is a thing.
    """
    problems = Problems(name)
    for record in records:
        file_name = os.path.basename(record["file_name"])
        if not {"pan_seg_file_name", "segments_info"} <= record.keys():
            problems.add("expected pan_seg_file_name and segments_info in every record", file_name)
            continue
        converted = []
        for number, segment in enumerate(record["segments_info"]):
            place = f"{file_name}, segment {number}"
            if type(segment.get("id")) is not int:
                problems.add("expected a segment to have a whole number as id", place)
                continue
            category_id = _find_category(segment, categories, shared_indices, place, problems)
            if category_id is not None:
                converted.append({**segment, "category_id": category_id})
        record["segments_info"] = converted
    problems.check()


def _find_category(
    segment: Mapping[str, Any], categories: CategorySet, shared_indices: bool, place: str, problems: Problems
) -> int | None:
    index = _to_int(segment.get("category_id"))
    if shared_indices:
        if index in categories:
            return index
    else:
        only = True if not categories.stuff else False if not categories.things else None
        isthing = segment.get("isthing", only)
        if isthing is None:
            remedy = "add isthing: True (category_id is a position in thing_classes) or False (in stuff_classes)"
            problems.add("expected isthing in segments_info, since there are things and stuff", place, remedy)
            return None
        try:
            if index is not None:
                return categories.category_id(index, bool(isthing))
        except IndexError:
            pass
    problems.add("expected a category_id of the metadata's classes", f"{place}: {segment.get('category_id')!r}")
    return None


def _get_list(record: Record) -> Sequence[Any]:
    return record["annotations"] if isinstance(record["annotations"], (list, tuple)) else ()


def _has_mask(annotation: Mapping[str, Any]) -> bool:
    segmentation = annotation.get("segmentation")
    return segmentation is not None and len(segmentation) > 0


def _get_image_id(image_id: Any) -> Any:
    return int(image_id) if isinstance(image_id, np.integer) else image_id


def _to_int(value: Any) -> int | None:
    """The value if it is a whole number of Python or numpy, otherwise None."""
    return int(value) if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else None


def _check_image_ids(records: Sequence[Record], problems: Problems) -> None:
    first: dict[Any, str] = {}
    for record in records:
        image_id, file_name = record["image_id"], os.path.basename(record["file_name"])
        if isinstance(image_id, bool) or not isinstance(image_id, (int, str)):
            problems.add("expected image_id to be a whole number or a text", f"{file_name}: {image_id!r}")
        elif image_id in first:
            remedy = "give each image its own image_id, or leave the key out"
            problems.add("image_id comes twice", f"{image_id!r} of {first[image_id]} and {file_name}", remedy)
        else:
            first[image_id] = file_name
    problems.check()


def _complete_size(record: Record, problems: Problems) -> None:
    if "height" not in record or "width" not in record:
        record["height"], record["width"] = read_image_size(Path(record["file_name"]))
    for key in ("height", "width"):
        size_px = _to_int(record[key])
        if size_px is None or size_px < 1:
            place = f"{os.path.basename(record['file_name'])}: {record[key]!r}"
            problems.add(f"expected {key} to be a whole number of pixels", place, "leave it out: the file has it")
        else:
            record[key] = size_px


def _check_class(annotation: Mapping[str, Any], names: Sequence[str], place: str, problems: Problems) -> None:
    index = _to_int(annotation.get("category_id"))
    if index is None or not 0 <= index < len(names):
        problem = f"expected category_id from 0 to {len(names) - 1}, a position in thing_classes ({len(names)} names)"
        remedy = "count classes from 0, or complete thing_classes"
        problems.add(problem, f"{place}: {annotation.get('category_id')!r}", remedy)


def _check_box(annotation: Mapping[str, Any], place: str, problems: Problems) -> Record:
    """The box as a list of numbers, with its mode."""
    box, mode = annotation.get("bbox"), annotation.get("bbox_mode")
    if mode not in BOX_MODES:
        remedy = "add bbox_mode: BoxMode.XYXY_ABS (two corners) or BoxMode.XYWH_ABS (corner and size)"
        problems.add("expected bbox_mode to be BoxMode.XYXY_ABS or XYWH_ABS", f"{place}: {mode!r}", remedy)
        return {}
    try:
        values = [float(value) for value in box]  # type: ignore[union-attr]
    except (TypeError, ValueError):
        values = []
    if len(values) != 4 or not all(map(math.isfinite, values)):
        problems.add("expected bbox to be four finite numbers", f"{place}: {box!r}")
        return {}
    width, height = (values[2] - values[0], values[3] - values[1]) if mode == BoxMode.XYXY_ABS else values[2:]
    if width < 0 or height < 0:
        other = "XYWH_ABS" if mode == BoxMode.XYXY_ABS else "XYXY_ABS"
        problem = f"bbox has a negative width or height as {BoxMode(mode).name}"
        problems.add(problem, f"{place}: {values}", f"correct bbox, or bbox_mode: is it BoxMode.{other}?")
    return {"bbox": values, "bbox_mode": BoxMode(mode)}


def _normalize_mask(
    annotation: Mapping[str, Any], size_hw: tuple[int, int], place: str, problems: Problems
) -> list[list[float]] | dict[str, Any] | None:
    """Polygons as lists of floats, everything else as compressed RLE."""
    segmentation = annotation.get("segmentation")
    if not _has_mask(annotation):
        problems.add(
            "expected segmentation in every annotation, as others have it", place, "add it, or leave it out of all"
        )
    elif isinstance(segmentation, np.ndarray) and segmentation.ndim == 2 and segmentation.dtype.kind in "bui":
        if segmentation.shape == size_hw:
            return mask_to_rle(segmentation.astype(np.bool_))
        problems.add("expected a mask of the image's size", f"{place}: {segmentation.shape}, the image {size_hw}")
    elif isinstance(segmentation, Mapping):
        try:
            rle = segmentation_to_rle(segmentation, size_hw)
            if tuple(rle["size"]) == size_hw:
                return rle
            problems.add("expected RLE of the image's size", f"{place}: {rle['size']}, the image {[*size_hw]}")
        except (ValueError, TypeError, KeyError) as error:
            problems.add("expected RLE as {size, counts}", f"{place}: {error}")
    else:
        return _normalize_polygons(segmentation, place, problems)
    return None


def _normalize_polygons(segmentation: Any, place: str, problems: Problems) -> list[list[float]] | None:
    remedy = "write segmentation as [[x0, y0, x1, y1, ...], ...] in pixels"
    if isinstance(segmentation, (list, tuple)) and all(isinstance(v, (int, float, np.number)) for v in segmentation):
        problems.add("expected a list of polygons, got a flat list of numbers", place, remedy)
        return None
    try:
        polygons = [np.asarray(polygon, dtype=np.float64).reshape(-1).tolist() for polygon in segmentation]
    except (TypeError, ValueError):
        polygons = []
    if not polygons or any(len(p) < POLYGON_NUMBERS or len(p) % 2 or not np.isfinite(p).all() for p in polygons):
        problem = "expected polygons of an even number of coordinates, three points or more"
        problems.add(problem, place, remedy)
        return None
    if are_relative(polygons):
        problems.add("expected polygons in pixels, got coordinates in 0..1", place, remedy)
    return polygons
