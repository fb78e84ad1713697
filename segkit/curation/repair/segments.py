"""The segments of one image and the ids of its PNG: match them, and decide on segments and ids without a match."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pycocotools import mask as coco_mask

from segkit.curation.repair.ids import IdTable, drop_copies, get_id, get_value, parse_integer_fields
from segkit.curation.repair.tables import COPIES, NO_CATEGORY, RepairLog, correct_iscrowd
from segkit.structures import Extent
from segkit.utils import json_fields
from segkit.utils.json_fields import Entry

MIN_SHARED = 1 / 2  # share of the ids of an image that PNG and JSON must have in common
MIN_BOX_IOU, MAX_AREA_ERROR = 0.5, 0.1  # a wrong box or area within these may belong to the same segment
FOREIGN = "left unchanged", "images", "segments and PNG do not fit each other: is it the PNG of another image?"
AMBIGUOUS = "left unchanged", "images", "several segments have the same id, and it is unclear which one has the pixels"
NO_OBJECT = "dropped", "segments", "they are not JSON objects"
NO_PIXEL = "dropped", "segments", "their PNG has no pixel of them"
JOINED = "joined", "segments", "their image has an earlier segment of the same stuff"
NO_SEGMENT = "made void", "PNG ids", "no segment has them"
Extents = Mapping[int, Extent]  # by id, in the PNG


@dataclass(frozen=True)
class SegmentRepair:
    """category_ids: of the JSON. stuff: the category ids that certainly are stuff."""

    category_ids: IdTable
    stuff: frozenset[int | str]

    def repair(self, infos: list[Any], extents: Extents, log: RepairLog) -> tuple[list[Any], dict[int, int]] | None:
        """The remaining segments, and the new id of each id of the PNG; other ids become void.

        None if the repair would be a guess.
        """
        distinct = drop_copies(infos, "id")
        png_ids = IdTable(frozenset(extents))
        corrected = [png_ids.correct(parse_integer_fields(info, "iscrowd"), "id") for info in distinct]
        named = _recover_ids([self.category_ids.correct(info, "category_id") for info in corrected], extents)
        obstacle = _find_obstacle(named, extents)
        if obstacle:
            log[obstacle] += 1
            return None
        log["dropped", "segments", COPIES] += len(infos) - len(distinct)
        log[NO_SEGMENT] += len(extents.keys() - {*_list_ids(named)})
        return self._select(named, extents, log)

    def _select(self, infos: list[Any], extents: Extents, log: RepairLog) -> tuple[list[Any], dict[int, int]]:
        remaining: list[Any] = []
        new_ids: dict[int, int] = {}
        stuff_segments: dict[int | str, int] = {}  # category_id -> id of its first segment
        for info in infos:
            segment_id, category_id = _get_segment_id(info), get_id(info, "category_id")
            if type(info) is not dict:
                log[NO_OBJECT] += 1
                continue
            if segment_id is None:
                remaining.append(info)
                continue
            if segment_id not in extents:
                log[NO_PIXEL] += 1
                continue
            if log.must_drop(self.category_ids, info, "category_id", "segments", NO_CATEGORY):
                continue
            new_ids[segment_id] = segment_id
            if category_id is not None and category_id in self.stuff and info.get("iscrowd", 0) in (0, False):
                new_ids[segment_id] = stuff_segments.setdefault(category_id, segment_id)
            if new_ids[segment_id] == segment_id:
                remaining.append(info)
            else:
                log[JOINED] += 1
        return remaining, new_ids


def correct_measures(info: Any, extents: Extents) -> Any:
    """The segment with area and box in the PNG and a valid `iscrowd`; unchanged if the PNG does not have its id."""
    extent = extents.get(_get_segment_id(info) or 0)
    return {**correct_iscrowd(info), "area": extent.area_px, "bbox": [*extent.bbox_xywh]} if extent else info


def _find_obstacle(infos: list[Any], extents: Extents) -> tuple[str, str, str] | None:
    """Why segments or pixels may be valid that a repair would drop; None if there is no such reason."""
    ids = [segment_id for segment_id in _list_ids(infos) if segment_id in extents]
    if len({*ids}) < len(ids):
        return AMBIGUOUS
    total = max(len(infos), len(extents))
    if len(ids) < MIN_SHARED * total or (len(ids) < len(extents) and len(ids) < len(infos)):
        return FOREIGN
    pairs = [(info, extents[info["id"]]) for info in infos if _get_segment_id(info) in extents]
    stated = [(info, extent) for info, extent in pairs if _get_measures(info) is not None]
    misfits = sum(not _is_near(info, extent) for info, extent in stated)
    return FOREIGN if misfits > len(stated) / 2 else None


def _recover_ids(infos: list[Any], extents: Extents) -> list[Any]:
    """Give an id of the PNG to the segments whose own id is wrong.

    The id is wrong if the PNG does not have it, or if several segments have it and area and box do not match. The
    segment gets the id that no segment has and that alone has its area and box, if no other such segment has these.
    """
    times = Counter(_list_ids(infos))
    free_ids: dict[tuple[Any, ...], list[int]] = {}
    for segment_id, extent in extents.items():
        if segment_id not in times:
            free_ids.setdefault((extent.area_px, *extent.bbox_xywh), []).append(segment_id)

    def get_wanted(info: Any) -> tuple[Any, ...] | None:
        extent, measures = extents.get(_get_segment_id(info) or 0), _get_measures(info)
        is_right = extent and (times[info["id"]] == 1 or measures == (extent.area_px, *extent.bbox_xywh))
        return None if is_right else measures

    wanted = [get_wanted(info) for info in infos]
    requests = Counter(wanted)
    return [
        {**info, "id": free_ids[key][0]} if key and requests[key] == 1 and len(free_ids.get(key, ())) == 1 else info
        for info, key in zip(infos, wanted, strict=True)
    ]


def _list_ids(infos: Iterable[Any]) -> list[int]:
    return [segment_id for segment_id in map(_get_segment_id, infos) if segment_id is not None]


def _get_segment_id(info: Any) -> int | None:
    value = get_id(info, "id")
    return value if isinstance(value, int) else None


def _get_measures(info: Any) -> tuple[float, float, float, float, float] | None:
    """(area, x, y, width, height) if all are numbers that a segment with pixels can have."""
    area, box = get_value(info, "area"), get_value(info, "bbox")
    if type(box) is not list or len(box) != 4 or not json_fields.all_finite([area, *box]) or min(area, *box[2:]) <= 0:
        return None
    return area, box[0], box[1], box[2], box[3]


def _is_near(info: Entry, extent: Extent) -> bool:
    """Whether area or box are close to those of the extent."""
    is_near_area = abs(info["area"] - extent.area_px) <= MAX_AREA_ERROR * extent.area_px
    iou: float = coco_mask.iou([info["bbox"]], [[*extent.bbox_xywh]], [False]).item()
    return bool(is_near_area or iou >= MIN_BOX_IOU)
