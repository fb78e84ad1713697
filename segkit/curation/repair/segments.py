"""The segments of one image against the ids of its PNG: which belong together, and what becomes of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from segkit.curation.repair.common import COPIES, NO_CATEGORY, Told, flagged
from segkit.curation.repair.ids import Ids, key_of, with_integers, without_copies
from segkit.structures import Extent
from segkit.utils import json_fields
from segkit.utils.json_fields import Entry

SHARED_SHARE = 1 / 2  # of the ids of an image that JSON and PNG must have in common to be of one image
BOX_IOU, AREA_SHARE = 0.5, 0.1  # a box or an area that is wrong, but still of the same segment
FOREIGN = "left", "images", "as they are, for segments and PNG do not fit each other: is it the PNG of another image?"
AMBIGUOUS = "left", "images", "as they are, for several segments have one id, and whose the pixels are is not clear"
NO_OBJECT = "dropped", "segments", "they are no objects"
NO_PIXEL = "dropped", "segments", "their PNG has no pixel of them"
JOINED = "joined", "segments", "their image has an earlier one of the same stuff"
NO_SEGMENT = "made void", "PNG ids", "no segment has them"


@dataclass(frozen=True)
class SegmentRepair:
    """category_ids: of the JSON. stuff: those that surely are stuff."""

    category_ids: Ids
    stuff: frozenset[int | str]

    def __call__(
        self, infos: list[Any], found: Mapping[int, Extent], told: Told
    ) -> tuple[list[Any], dict[int, int]] | None:
        """The segments that stay, and the id that each id of the PNG becomes: others become void. None where that
        would be a guess.

        found: what the PNG holds, by id.
        """
        distinct = without_copies(infos, "id")
        png_ids = Ids(frozenset(found))
        named = _with_ids([self._read(info, png_ids) for info in distinct], found)
        refusal = _refusal(named, found)
        if refusal:
            told[refusal] += 1
            return None
        told["dropped", "segments", COPIES] += len(infos) - len(distinct)
        told[NO_SEGMENT] += len(found.keys() - {*_ids_of(named)})
        return self._sorted_out(named, found, told)

    def _read(self, info: Any, png_ids: Ids) -> Any:
        info = png_ids.in_entry(with_integers(info, "iscrowd"), "id")
        return self.category_ids.in_entry(info, "category_id")

    def _sorted_out(
        self, infos: list[Any], found: Mapping[int, Extent], told: Told
    ) -> tuple[list[Any], dict[int, int]]:
        kept: list[Any] = []
        value_of: dict[int, int] = {}
        first: dict[int | str, int] = {}
        for info in infos:
            segment_id, category_id = _id_of(info), key_of(info, "category_id")
            if type(info) is not dict:
                told[NO_OBJECT] += 1
            elif segment_id is None:
                kept.append(info)
            elif segment_id not in found:
                told[NO_PIXEL] += 1
            elif told.is_stranger(self.category_ids, info, "category_id", "segments", NO_CATEGORY):
                continue
            elif category_id is not None and category_id in self.stuff and info.get("iscrowd", 0) in (0, False):
                value_of[segment_id] = first.setdefault(category_id, segment_id)
                if value_of[segment_id] == segment_id:
                    kept.append(info)
                else:
                    told[JOINED] += 1
            else:
                value_of[segment_id] = segment_id
                kept.append(info)
        return kept, value_of


def recounted(info: Any, found: Mapping[int, Extent]) -> Any:
    """The segment with area and box of the PNG, and a sound `iscrowd`; as it is where the PNG lacks its id."""
    extent = found.get(_id_of(info) or 0)
    return {**flagged(info), "area": extent.area_px, "bbox": [*extent.bbox_xywh]} if extent else info


def _refusal(infos: list[Any], found: Mapping[int, Extent]) -> tuple[str, str, str] | None:
    """Why what would be dropped or made void may be sound; None where it is not."""
    ids = [segment_id for segment_id in _ids_of(infos) if segment_id in found]
    if len({*ids}) < len(ids):
        return AMBIGUOUS
    most = max(len(infos), len(found))
    if len(ids) < SHARED_SHARE * most or (len(ids) < len(found) and len(ids) < len(infos)):
        return FOREIGN
    stated = [(info, found[info["id"]]) for info in infos if _id_of(info) in found and _shape_of(info) is not None]
    misfits = sum(not _is_near(info, extent) for info, extent in stated)
    return FOREIGN if misfits > len(stated) / 2 else None


def _with_ids(infos: list[Any], found: Mapping[int, Extent]) -> list[Any]:
    """Segments whose id the PNG lacks, or of several of one id those that have not its area and box, get the id there
    that no segment has and that alone has their area and box, where they alone have those."""
    times = Counter(_ids_of(infos))
    free: dict[tuple[Any, ...], list[int]] = {}
    for segment_id, extent in found.items():
        if segment_id not in times:
            free.setdefault((extent.area_px, *extent.bbox_xywh), []).append(segment_id)

    def asked_by(info: Any) -> tuple[Any, ...] | None:
        extent, shape = found.get(_id_of(info) or 0), _shape_of(info)
        if extent and (times[info["id"]] == 1 or shape == (extent.area_px, *extent.bbox_xywh)):
            return None
        return shape

    shapes = [asked_by(info) for info in infos]
    asked = Counter(shapes)
    return [
        {**info, "id": free[shape][0]} if shape and asked[shape] == 1 and len(free.get(shape, ())) == 1 else info
        for info, shape in zip(infos, shapes, strict=True)
    ]


def _ids_of(infos: Iterable[Any]) -> list[int]:
    return [segment_id for segment_id in map(_id_of, infos) if segment_id is not None]


def _id_of(info: Any) -> int | None:
    value = key_of(info, "id")
    return value if isinstance(value, int) else None


def _shape_of(info: Any) -> tuple[float, float, float, float, float] | None:
    """Area and box, where they are those of a segment with pixels."""
    area: Any = info.get("area") if type(info) is dict else None
    box = info.get("bbox") if type(info) is dict else None
    if type(box) is not list or len(box) != 4 or not json_fields.all_finite([area, *box]) or min(area, *box[2:]) <= 0:
        return None
    return area, box[0], box[1], box[2], box[3]


def _is_near(info: Entry, extent: Extent) -> bool:
    """Whether area or box, though off, are likely those of this extent."""
    (x, y, width, height), (left, top, wide, high) = info["bbox"], extent.bbox_xywh
    across = max(0, min(x + width, left + wide) - max(x, left))
    down = max(0, min(y + height, top + high) - max(y, top))
    either = width * height + wide * high - across * down
    near_area = abs(info["area"] - extent.area_px) <= AREA_SHARE * extent.area_px
    return bool(near_area or across * down >= BOX_IOU * either)
