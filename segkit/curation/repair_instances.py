"""A repaired copy of a COCO instances JSON: what follows from the masks is mended, what would be a guess stays."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from segkit.curation.check_instances import BOX_SLACK_PX, MaskMeasure, is_box, is_inside, is_near_area, measure
from segkit.curation.check_tables import is_size
from segkit.curation.findings import RunAll
from segkit.curation.repair import NO_CATEGORY, Told, flagged, load
from segkit.curation.repair_ids import Ids, agreed, key_of, with_integer_ids
from segkit.formats import coco_tables as coco
from segkit.formats import files
from segkit.formats.coco_masks import fault_of, without_slivers
from segkit.formats.coco_tables import Entry, ImageId
from segkit.structures import segmentation_to_rle

Sizes = Mapping[ImageId, tuple[Any, ...]]
SHORT = "dropped", "polygons", "they have fewer than three points"
NO_POLYGON = "dropped", "annotations", "none of their polygons has three points"
NO_PIXEL = "dropped", "annotations", "their masks have no pixel in the image"
CUT_OFF = "cut off", "masks", "they reach beyond the image"


def repair_instances(json_path: Path, output: Path, run_all: RunAll) -> tuple[Path, list[str]]:
    """Write a repaired copy of the JSON below `output`, an empty or new folder; its path, and lines on what was lost.

    Boxes, and areas of all but crowds, are counted in the masks where they are off. Ids that are integers written as
    text or floats become integers. Dropped are copies of entries, annotations without image, category or pixel, and
    polygons of fewer than three points. Masks that reach beyond the image are cut off, and become run lengths.
    Annotations without an id get one. What cannot be known stays as it is: annotations whose ids are of a wrong type,
    or that a damaged table may have, masks of an image with two sizes.

    The original is only read. DatasetError where the JSON cannot be read or is of another kind, or `output` is not
    empty or cannot be written; nothing is left there then.
    """
    told = Told()
    content = load(json_path, False, told)
    annotations = with_integer_ids(content["annotations"], coco.INTEGER)
    category_ids = Ids.of_table(content["categories"], coco.INTEGER, annotations, "category_id")
    annotations = [category_ids.in_entry(annotation, "category_id") for annotation in annotations]
    kept = category_ids.without_strangers(annotations, "category_id")
    told["dropped", "annotations", NO_CATEGORY] += len(annotations) - len(kept)
    sizes = agreed(content["images"], ("height", "width"))

    def mend(annotation: Any) -> tuple[Any, Told]:
        lost = Told()
        return _mended(annotation, sizes, lost), lost

    mended = []
    for annotation, lost in run_all(mend, kept):
        told.update(lost)
        if annotation is not None:
            mended.append(annotation)
    with files.new_folder(output) as folder:
        files.dump_json(folder / json_path.name, {**content, "annotations": _numbered(mended)})
    return output / json_path.name, told.lines()


def _mended(annotation: Any, sizes: Sizes, lost: Told) -> Any:
    """The annotation, mended as far as its mask can be decoded; None where it is to be dropped."""
    image_id = key_of(annotation, "image_id")
    size_hw = sizes.get(image_id) if image_id is not None else None
    segmentation = annotation.get("segmentation") if size_hw and is_size(*size_hw) else None
    if size_hw is None or not segmentation or type(segmentation) not in (list, dict):
        return annotation
    kept = without_slivers(segmentation)
    if not kept:
        lost[NO_POLYGON] += 1
        return None
    if fault_of(kept, size_hw):
        return annotation
    lost[SHORT] += len(segmentation) - len(kept)
    inside = is_inside(kept, size_hw)
    if not inside:
        kept = segmentation_to_rle(kept, size_hw)
    found = measure(kept, size_hw)
    if not found.area_px:
        lost[NO_PIXEL] += 1
        return None
    lost[CUT_OFF] += not inside
    return _remeasured({**flagged(annotation), "segmentation": kept}, found, size_hw)


def _remeasured(annotation: Entry, found: MaskMeasure, size_hw: tuple[int, int]) -> Entry:
    mended = {**annotation}
    if not (mended["iscrowd"] == 1 and _is_area(mended.get("area"))) and not is_near_area(mended.get("area"), found):
        mended["area"] = found.areas[-1]
    if not is_box(mended.get("bbox"), found) or not _box_inside(mended["bbox"], size_hw):
        left, top, right, bottom = found.boxes_xyxy[-1]
        mended["bbox"] = [left, top, right - left, bottom - top]
    return mended


def _is_area(value: Any) -> bool:
    return coco.all_finite([value]) and bool(value >= 0)


def _box_inside(box: list[float], size_hw: tuple[int, int]) -> bool:
    right, bottom = box[0] + box[2], box[1] + box[3]
    return min(box[:2]) >= -BOX_SLACK_PX and right <= size_hw[1] + BOX_SLACK_PX and bottom <= size_hw[0] + BOX_SLACK_PX


def _numbered(annotations: list[Any]) -> list[Any]:
    taken = {key_of(annotation, "id") for annotation in annotations}
    free = (number for number in count(1) if number not in taken)
    nameless = [type(annotation) is dict and "id" not in annotation for annotation in annotations]
    return [
        {**annotation, "id": next(free)} if bare else annotation
        for annotation, bare in zip(annotations, nameless, strict=True)
    ]
