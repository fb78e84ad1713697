"""A repaired copy of a COCO instances JSON: what follows from the masks is mended, what would be a guess stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from segkit.curation.checks.instances import BOX_SLACK_PX, MaskMeasure, is_box, is_inside, is_near_area, measure
from segkit.curation.issues import RunAll
from segkit.curation.repair.common import NO_CATEGORY, Told, flagged, load, of_size
from segkit.curation.repair.ids import Ids, agreed, key_of, with_integer_ids
from segkit.curation.repair.sizes import SizeHW, settled_size
from segkit.formats.coco import drop_slivers, find_mask_fault
from segkit.structures import segmentation_to_rle
from segkit.utils import files, json_fields
from segkit.utils.json_fields import Entry

ENTRY_KEYS = "height", "width", "file_name"
SHORT = "dropped", "polygons", "they have fewer than three points"
NO_POLYGON = "dropped", "annotations", "none of their polygons has three points"
NO_PIXEL = "dropped", "annotations", "their masks have no pixel in the image"
CUT_OFF = "cut off", "masks", "they reach beyond the image"
RESIZED = "corrected", "images", "height and width are now those of the picture, which the masks fit"
UNSETTLED = (
    "left",
    "images",
    "with their masks as they are, for neither entry nor picture surely has the size of these",
)


def repair_instances(json_path: Path, images: Path, output: Path, run_all: RunAll) -> tuple[Path, list[str]]:
    """Write a repaired copy of the JSON below `output`, an empty or new folder; its path, and lines on what was lost.

    Boxes, and areas of all but crowds, are counted in the masks where they are off. Ids that are integers written as
    text or floats become integers. Dropped are copies of entries, annotations without image, category or pixel, and
    polygons of fewer than three points. Sizes become those of the pictures, where all masks of the image fit these.
    Masks that reach beyond an image whose entry and picture agree are cut off, and become run lengths. Annotations
    without an id get one. What cannot be known stays as it is: annotations whose ids are of a wrong type, or unknown in
    a table that has a damaged one, one twice, or one that nothing refers to, which may be mistyped; masks of an image
    with two entries, or that fit neither its entry nor its picture.

    images: the folder of pictures.

    The original is only read. DatasetError where the JSON cannot be read or is of another kind, or `output` is not
    empty or cannot be written; nothing is left there then.
    """
    told = Told()
    content = load(json_path, False, told)
    annotations = with_integer_ids(content["annotations"], json_fields.INTEGER)
    category_ids = Ids.of_table(content["categories"], json_fields.INTEGER, annotations, "category_id")
    annotations = [category_ids.in_entry(annotation, "category_id") for annotation in annotations]
    kept = [a for a in annotations if not told.is_stranger(category_ids, a, "category_id", "annotations", NO_CATEGORY)]
    repair = _Repair(images, {**agreed(content["images"], ENTRY_KEYS)}, kept)
    mended, sizes = [*kept], dict[Any, SizeHW]()
    places_of = repair.places()
    for (image_id, places), one in zip(places_of.items(), run_all(repair.image, [*places_of.items()]), strict=True):
        told.update(one.told)
        for place, annotation in zip(places, one.annotations, strict=True):
            mended[place] = annotation
        if one.size_hw:
            sizes[image_id] = one.size_hw
    content["images"] = [of_size(image, sizes.get(key_of(image, "id"))) for image in content["images"]]
    content["annotations"] = _numbered([annotation for annotation in mended if annotation is not None])
    with files.new_folder(output) as folder:
        files.dump_json(folder / json_path.name, content)
    return output / json_path.name, told.lines()


@dataclass(frozen=True)
class _Repaired:
    """Of one image. annotations: None for each that is dropped. size_hw: where the picture's is not the entry's."""

    annotations: list[Any]
    told: Told = field(default_factory=Told)
    size_hw: SizeHW | None = None


@dataclass(frozen=True)
class _Repair:
    """images: the folder. entries: `ENTRY_KEYS` by image_id. annotations: of all images."""

    images: Path
    entries: Mapping[int | str, tuple[Any, ...]]
    annotations: list[Any]

    def places(self) -> dict[int | str, list[int]]:
        """Where the annotations of every image that has an entry are."""
        found: dict[int | str, list[int]] = {image_id: [] for image_id in self.entries}
        for place, annotation in enumerate(self.annotations):
            image_id = key_of(annotation, "image_id")
            if image_id in found:
                found[image_id].append(place)
        return found

    def image(self, image: tuple[int | str, list[int]]) -> _Repaired:
        """The annotations at these places, mended as far as their masks can be decoded."""
        image_id, places = image
        annotations = [self.annotations[place] for place in places]
        entry = dict(zip(ENTRY_KEYS, self.entries[image_id], strict=True))
        segmentations = [annotation.get("segmentation") for annotation in annotations]
        size_hw, certain = settled_size(entry, segmentations, self.images)
        told = Told()
        if size_hw is None:
            told[UNSETTLED] += any(map(_is_mask, segmentations))
            return _Repaired(annotations, told)
        resized = size_hw != (entry["height"], entry["width"])
        told[RESIZED] += resized
        mended = [_mended(annotation, size_hw, certain, told) for annotation in annotations]
        return _Repaired(mended, told, size_hw if resized else None)


def _is_mask(segmentation: Any) -> bool:
    return bool(segmentation) and type(segmentation) in (list, dict)


def _mended(annotation: Entry, size_hw: SizeHW, certain: bool, told: Told) -> Entry | None:
    """None where it is to be dropped; as it is where its mask cannot be decoded, or has no pixel in a size that may be
    wrong."""
    segmentation: Any = annotation.get("segmentation")
    if not _is_mask(segmentation):
        return annotation
    kept = drop_slivers(segmentation)
    if not kept:
        told[NO_POLYGON] += 1
        return None
    if find_mask_fault(kept, size_hw):
        return annotation
    inside = is_inside(kept, size_hw)
    mask = kept if inside else segmentation_to_rle(kept, size_hw)
    found = measure(mask, size_hw)
    if not found.area_px and not certain:
        return annotation
    told[SHORT] += len(segmentation) - len(kept)
    told[NO_PIXEL] += not found.area_px
    if not found.area_px:
        return None
    told[CUT_OFF] += not inside
    return _remeasured({**flagged(annotation), "segmentation": mask}, found, size_hw)


def _remeasured(annotation: Entry, found: MaskMeasure, size_hw: tuple[int, int]) -> Entry:
    mended = {**annotation}
    if not (mended["iscrowd"] == 1 and _is_area(mended.get("area"))) and not is_near_area(mended.get("area"), found):
        mended["area"] = found.areas[-1]
    if not is_box(mended.get("bbox"), found) or not _box_inside(mended["bbox"], size_hw):
        left, top, right, bottom = found.boxes_xyxy[-1]
        mended["bbox"] = [left, top, right - left, bottom - top]
    return mended


def _is_area(value: Any) -> bool:
    return json_fields.all_finite([value]) and bool(value >= 0)


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
