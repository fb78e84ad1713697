"""A repaired copy of a COCO instances JSON: what follows from the masks is mended, what would be a guess stays."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from segkit.curation.check_instances import BOX_SLACK_PX, is_box, is_inside, is_near_area, measure
from segkit.curation.check_tables import is_size
from segkit.curation.findings import RunAll
from segkit.curation.repair import flagged, isthing_by_id, key_of, load, new_folder, store, without_copies
from segkit.formats import coco_tables as coco
from segkit.formats.coco_masks import fault_of, without_slivers
from segkit.formats.coco_tables import Entry, ImageId
from segkit.structures import segmentation_to_rle

Sizes = Mapping[ImageId, tuple[Any, Any]]


def repair_instances(json_path: Path, output: Path, run_all: RunAll) -> Path:
    """Write a repaired copy of the JSON below `output`, an empty or new folder; its path.

    Boxes, and areas of all but crowds, are counted in the masks where they are off. Dropped are copies of entries,
    annotations without image, category or pixel, and polygons of fewer than three points. Masks that reach beyond the
    image are cut off, and become run lengths. Annotations without an id get one.

    The original is only read. DatasetError where the JSON cannot be read, or `output` is not empty or cannot be
    written; nothing is left there then.
    """
    content = load(json_path)
    tables = {key: without_copies(content[key], "id") for key in ("images", "categories", "annotations")}
    sizes = {e["id"]: (e.get("height"), e.get("width")) for e in tables["images"] if key_of(e, "id") is not None}
    categories = isthing_by_id(content)

    def mend(annotation: Any) -> Any:
        return _mended(annotation, sizes, categories)

    mended = [annotation for annotation in run_all(mend, tables["annotations"]) if annotation is not None]
    tables["annotations"] = _numbered(mended)
    with new_folder(output) as folder:
        store(folder / json_path.name, {**content, **tables})
    return output / json_path.name


def _mended(annotation: Any, sizes: Sizes, categories: Mapping[int, Any]) -> Any:
    """The annotation, mended as far as its mask can be decoded; None where it is to be dropped."""
    image_id, category_id = key_of(annotation, "image_id"), key_of(annotation, "category_id")
    if image_id is None or category_id is None:
        return annotation
    if image_id not in sizes or category_id not in categories:
        return None
    size_hw, segmentation = sizes[image_id], annotation.get("segmentation")
    if not is_size(*size_hw) or type(segmentation) not in (list, dict):
        return annotation
    kept = without_slivers(segmentation)
    if not kept:
        return None
    if fault_of(kept, size_hw):
        return annotation
    if not is_inside(kept, size_hw):
        kept = segmentation_to_rle(kept, size_hw)
    found = measure(kept, size_hw)
    if not found.area_px:
        return None
    mended = {**flagged(annotation), "segmentation": kept}
    if not (mended["iscrowd"] == 1 and _is_finite(mended, "area")) and not is_near_area(mended.get("area"), found):
        mended["area"] = found.areas[-1]
    if not is_box(mended.get("bbox"), found) or not _box_inside(mended["bbox"], size_hw):
        left, top, right, bottom = found.boxes_xyxy[-1]
        mended["bbox"] = [left, top, right - left, bottom - top]
    return mended


def _is_finite(entry: Entry, key: str) -> bool:
    return key in entry and coco.all_finite([entry[key]])


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
