"""A repaired copy of a COCO instances JSON."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from segkit.curation.checks import instances as checks
from segkit.curation.image_files import inspect_image
from segkit.curation.issues import RunAll
from segkit.curation.repair.ids import IdTable, collect_values, get_id, get_value, parse_integer_fields
from segkit.curation.repair.tables import (
    ENTRY_KEYS,
    NO_CATEGORY,
    RepairLog,
    SizeHW,
    correct_iscrowd,
    correct_names,
    correct_sizes,
    get_file_name,
    load_tables,
)
from segkit.formats import coco
from segkit.formats.coco import validation
from segkit.formats.image_io import read_image_size
from segkit.structures import segmentation_to_rle
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry

SHORT = "dropped", "polygons", "they have fewer than three points"
EMPTY = "dropped", "annotations", "their segmentation is empty"
ONLY_BOXES = "left unchanged", "annotations", "no annotation of the file has a mask"
RENUMBERED = "renumbered", "annotations", "an earlier annotation has their id"
NO_POLYGON = "dropped", "annotations", "none of their polygons has three points"
NO_PIXEL = "dropped", "annotations", "their masks have no pixel in the image"
CUT_OFF = "cut off", "masks", "they reach beyond the image"
RESIZED = "corrected", "images", "height and width are now those of the image file, which the masks fit"
UNKNOWN_SIZE = (
    "left unchanged",
    "images",
    "with their masks, because it is uncertain whether entry or image file has the size of the masks",
)


def repair_instances(
    json_path: str | Path, images: str | Path, output: str | Path, run_all: RunAll
) -> tuple[Path, list[str]]:
    """Write a repaired copy of a COCO instances JSON.

    Corrected:
    - Ids that are integers written as text or float become integers; annotations without an id get one, and those
      whose id an earlier annotation has get another.
    - Flat, nested and point-wise polygons and run lengths without size get COCO's form, see `coco.to_coco_form`.
    - Wrong boxes are computed from the masks, and wrong areas too, except those of crowds.
    - File names that are spelled otherwise than the files become those of the files.
    - Wrong sizes become those of the image files, if all masks of the image fit there.
    - Masks that reach beyond an image are cut off and become run lengths, if entry and image file have the same size.

    Dropped:
    - copies of entries;
    - annotations without image, category, mask or pixel;
    - polygons of fewer than three points.

    Left unchanged, because a repair would be a guess:
    - annotations with an id of a wrong type;
    - flat lists of numbers that may be a polygon or run lengths;
    - annotations without a mask, if no annotation has one;
    - annotations with an unknown id, if the table has an id that may be mistyped: damaged, repeated, or unused;
    - masks of an image that has two contradicting entries;
    - masks that fit neither the entry nor the image file.

    Args:
        json_path: The JSON; only read.
        images: The image folder.
        output: An empty or new folder for the copy.
        run_all: `map`, or a parallel one.

    Returns:
        The path of the copy, and lines on what was changed, dropped and left unchanged.

    Raises:
        DatasetError: The JSON cannot be read or is of another kind, or `output` is not empty or cannot be written.
            Nothing is left in `output` then.
    """
    json_path, images, output = Path(json_path), Path(images), Path(output)
    log = RepairLog()
    content = load_tables(json_path, False, log)
    content["images"] = correct_names(content["images"], images, "images", log)
    annotations = [parse_integer_fields(annotation, "id") for annotation in content["annotations"]]
    ids = IdTable.from_table(content["categories"], json_fields.INTEGER, annotations, "category_id")
    annotations = [ids.correct(annotation, "category_id") for annotation in annotations]
    annotations = [a for a in annotations if not log.must_drop(ids, a, "category_id", "annotations", NO_CATEGORY)]
    annotations = _drop_empty(annotations, log)
    entries = collect_values(content["images"], ENTRY_KEYS)
    groups = _group_by_image(annotations, entries)
    jobs = [(entries[image_id], [annotations[index] for index in indices]) for image_id, indices in groups.items()]
    results = run_all(partial(_repair_image, images=images), jobs)
    sizes: dict[Any, SizeHW | None] = {}
    for (image_id, indices), (repaired, image_log, size_hw) in zip(groups.items(), results, strict=True):
        log.update(image_log)
        sizes[image_id] = size_hw
        for index, annotation in zip(indices, repaired, strict=True):
            annotations[index] = annotation
    content["images"] = correct_sizes(content["images"], sizes)
    content["annotations"] = _number([annotation for annotation in annotations if annotation is not None], log)
    with files.new_folder(output) as folder:
        files.dump_json(folder / json_path.name, content)
    return output / json_path.name, log.lines()


def _drop_empty(annotations: list[Any], log: RepairLog) -> list[Any]:
    """The annotations with something as `segmentation`; all of them if none has."""
    masked = [annotation for annotation in annotations if get_value(annotation, "segmentation") not in ([], {})]
    log[EMPTY if masked else ONLY_BOXES] += len(annotations) - len(masked)
    return masked or annotations


def _repair_image(job: tuple[tuple[Any, ...], list[Any]], images: Path) -> tuple[list[Any], RepairLog, SizeHW | None]:
    """Repair one image, given as (values of `ENTRY_KEYS`, annotations).

    The result is (annotations, None for each that is dropped; log; size of the image file if the entry has another).
    """
    values, annotations = job
    entry = dict(zip(ENTRY_KEYS, values, strict=True))
    segmentations = [annotation.get("segmentation") for annotation in annotations]
    size_hw, is_certain = _choose_size(entry, segmentations, images)
    log = RepairLog()
    if size_hw is None:
        log[UNKNOWN_SIZE] += any(map(_is_mask, segmentations))
        return annotations, log, None
    is_resized = size_hw != (entry["height"], entry["width"])
    log[RESIZED] += is_resized
    repaired = [_repair_annotation(annotation, size_hw, is_certain, log) for annotation in annotations]
    return repaired, log, size_hw if is_resized else None


def _group_by_image(annotations: list[Any], image_ids: Iterable[int | str]) -> dict[int | str, list[int]]:
    """image_id -> indices of its annotations, for every image that has an entry."""
    groups: dict[int | str, list[int]] = {image_id: [] for image_id in image_ids}
    for index, annotation in enumerate(annotations):
        image_id = get_id(annotation, "image_id")
        if image_id in groups:
            groups[image_id].append(index)
    return groups


def _choose_size(entry: Any, segmentations: list[Any], images: Path) -> tuple[SizeHW | None, bool]:
    """The size of an image, None if unknown, and whether it is certain: only then masks may be cut off or dropped.

    - The size of the image file is certain if the entry has it too, or if all masks that decode fit it.
    - Otherwise the size of the entry is used if all masks fit it, but it is not certain.

    entry: `height`, `width` and `file_name`, of any type. segmentations: of all annotations of the image.
    """
    stated = (entry["height"], entry["width"]) if validation.is_size(entry["height"], entry["width"]) else None
    name = get_file_name(entry)
    actual = _read_size(images / name, stated) if name else None
    if actual and (actual == stated or _fit(segmentations, actual)):
        return actual, True
    return (stated if stated and _fit(segmentations, stated) else None), False


def _read_size(path: Path, stated: SizeHW | None) -> SizeHW | None:
    """Size of the image file; None if it does not decode, or if EXIF rotates it to another size than the stated one."""
    try:
        if read_image_size(path) == stated:
            return stated
    except DatasetError:
        return None
    inspection = inspect_image(path, path)
    return None if inspection.is_rotated else inspection.size_hw


def _fit(segmentations: list[Any], size_hw: SizeHW) -> bool:
    """Whether all valid polygons are inside an image of this size, and all valid run lengths have the size."""
    masks = [coco.drop_slivers(coco.to_coco_form(segmentation, size_hw)) for segmentation in segmentations]
    return all(
        checks.is_mask_inside(mask, size_hw) and (type(mask) is list or _states_size(segmentation, size_hw))
        for segmentation, mask in zip(segmentations, masks, strict=True)
        if not coco.find_mask_fault(mask, None)
    )


def _states_size(segmentation: Any, size_hw: SizeHW) -> bool:
    """Whether these run lengths have the size; a list of them has none."""
    return type(segmentation) is dict and tuple(segmentation["size"]) == size_hw


def _is_mask(segmentation: Any) -> bool:
    return bool(segmentation) and type(segmentation) in (list, dict)


def _repair_annotation(annotation: Entry, size_hw: SizeHW, is_certain: bool, log: RepairLog) -> Entry | None:
    """The repaired annotation, None if it is to be dropped.

    It stays unchanged if its mask does not decode, or has no pixel in an image whose size is not certain.
    """
    segmentation: Any = annotation.get("segmentation")
    if not _is_mask(segmentation):
        return annotation
    form = coco.recognize_mask_form(segmentation, size_hw)
    segmentation = coco.to_coco_form(segmentation, size_hw)
    mask = coco.drop_slivers(segmentation)
    if not mask:
        log[NO_POLYGON] += 1
        return None
    if coco.find_mask_fault(mask, size_hw):
        return annotation
    dropped, inside = len(segmentation) - len(mask), checks.is_mask_inside(mask, size_hw)
    mask = mask if inside else segmentation_to_rle(mask, size_hw)
    measured = checks.measure_mask(mask, size_hw)
    if not measured.area_px and not is_certain:
        return annotation
    log[SHORT] += dropped
    if form:
        log["corrected", "masks", f"each was {form.name}"] += 1
    if not measured.area_px:
        log[NO_PIXEL] += 1
        return None
    log[CUT_OFF] += not inside
    return _correct_measures({**correct_iscrowd(annotation), "segmentation": mask}, measured, size_hw)


def _correct_measures(annotation: Entry, measured: checks.MaskMeasure, size_hw: SizeHW) -> Entry:
    area: Any = annotation.get("area")
    box: Any = annotation.get("bbox")
    is_crowd_area = annotation["iscrowd"] == 1 and json_fields.all_finite([area]) and area >= 0
    if not is_crowd_area and not checks.is_near_area(area, measured):
        area = measured.areas[-1]
    if not checks.is_near_box(box, measured) or not validation.is_box_inside(box, size_hw, checks.BOX_SLACK_PX):
        left, top, right, bottom = measured.boxes_xyxy[-1]
        box = [left, top, right - left, bottom - top]
    return {**annotation, "area": area, "bbox": box}


def _number(annotations: list[Any], log: RepairLog) -> list[Any]:
    """The annotations, those without an id or with one of an earlier annotation with the lowest free ids from 1."""
    taken = {get_id(annotation, "id") for annotation in annotations}
    free = (number for number in count(1) if number not in taken)
    used: set[Any] = set()
    numbered = []
    for annotation in annotations:
        annotation_id = get_id(annotation, "id")
        is_repeated = type(annotation_id) is int and annotation_id in used
        is_unnumbered = type(annotation) is dict and "id" not in annotation
        log[RENUMBERED] += is_repeated
        used.add(annotation_id)
        numbered.append({**annotation, "id": next(free)} if is_repeated or is_unnumbered else annotation)
    return numbered
