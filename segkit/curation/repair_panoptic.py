"""A repaired copy of a COCO panoptic dataset: what follows from the data is mended, what would be a guess stays."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segkit.curation import pictures
from segkit.curation.findings import RunAll
from segkit.curation.repair import flagged, isthing_by_id, key_of, load, new_folder, store, without_copies
from segkit.formats import coco_tables as coco
from segkit.formats import png
from segkit.formats.coco_tables import Entry
from segkit.structures import MAX_SEGMENT_ID, VOID, DatasetError, Extent, IdRuns, extents_of_runs


def repair_panoptic(json_path: Path, masks: Path, images: Path, output: Path, run_all: RunAll) -> tuple[Path, Path]:
    """Write a repaired copy of the JSON and its PNGs below `output`, an empty or new folder; their paths.

    Areas and boxes are counted in the PNGs. Dropped are copies of entries, images without annotation, annotations
    without image, segments without pixel or category; their pixels, and those of no segment, become void. Segments of
    one stuff class are joined. A segment whose id the PNG lacks gets the one id there that has no segment and its area
    and box. Sizes become those on which PNG and image agree, palette and RGBA PNGs RGB.

    The originals are only read. DatasetError where the JSON cannot be read, or `output` is not empty or cannot be
    written; nothing is left there then.
    """
    content = load(json_path)
    if not os.path.isdir(masks):
        raise DatasetError("expected a folder of PNGs, found none", where=masks, remedy="check the path")
    tables = {key: without_copies(content[key], "id") for key in ("images", "categories")}
    annotations = without_copies(content["annotations"], "image_id")
    known = {key_of(entry, "id") for entry in tables["images"]} | {None}
    annotations = [annotation for annotation in annotations if key_of(annotation, "image_id") in known]
    annotated = {key_of(annotation, "image_id") for annotation in annotations}
    tables["images"] = [i for i in tables["images"] if key_of(i, "id") is None or i["id"] in annotated]
    names = Counter(name for name in map(_png_name, annotations) if name)
    folder_name = os.path.basename(os.path.abspath(masks))
    with new_folder(output) as folder:
        copies = folder / folder_name
        copies.mkdir()
        repair = _Repair(masks, copies, isthing_by_id(content), names)
        mended = [*run_all(repair.annotation, annotations)]
        tables["images"] = _with_sizes(tables["images"], mended, copies, images)
        store(folder / json_path.name, {**content, **tables, "annotations": mended})
    return output / json_path.name, output / folder_name


@dataclass(frozen=True)
class _Repair:
    """masks: the PNGs. copies: where theirs go. names: how many annotations name a PNG: one of several is copied as it
    is."""

    masks: Path
    copies: Path
    isthing_of: Mapping[int, Any]
    names: Mapping[str, int]

    def annotation(self, annotation: Any) -> Any:
        """The repaired annotation; its PNG is written. One whose PNG does not decode stays as it is."""
        name = _png_name(annotation)
        if name is None or not os.path.isfile(self.masks / name):
            return annotation
        source, target = self.masks / name, self.copies / name
        target.parent.mkdir(parents=True, exist_ok=True)
        infos = annotation.get("segments_info")
        try:
            runs = png.read_id_runs(source)
        except DatasetError:
            runs = None
        if runs is None or type(infos) is not list or self.names[name] > 1:
            shutil.copyfile(source, target)
            return annotation
        kept, value_of = self._segments(infos, extents_of_runs(runs))
        mended = _relabelled(runs, value_of)
        if png.read_header(source).kind == "RGB" and np.array_equal(mended.ids, runs.ids):
            shutil.copyfile(source, target)
        else:
            png.write_ids(target, mended.to_map())
        extents = extents_of_runs(mended)
        return {**annotation, "segments_info": [_recounted(info, extents) for info in kept]}

    def _segments(self, infos: list[Any], found: Mapping[int, Extent]) -> tuple[list[Any], dict[int, int]]:
        """The segments that stay, and the id that each id of the PNG becomes; ids that are not in it become void."""
        infos = _with_ids(infos, found)
        kept: list[Any] = []
        value_of: dict[int, int] = {}
        stuff: dict[int, int] = {}
        for info in infos:
            if type(info) is not dict:
                continue
            segment_id, category_id = info.get("id"), info.get("category_id")
            if type(segment_id) is not int or segment_id not in found:
                continue
            if type(category_id) is not int or category_id not in self.isthing_of:
                continue
            if segment_id in value_of:
                if info not in kept:
                    kept.append(info)  # two segments, one id: whose it is would be a guess
                continue
            value_of[segment_id] = segment_id
            if self.isthing_of[category_id] in (0, False) and info.get("iscrowd", 0) in (0, False):
                value_of[segment_id] = stuff.setdefault(category_id, segment_id)
            if value_of[segment_id] == segment_id:
                kept.append(info)
        return kept, value_of


def _png_name(annotation: Any) -> str | None:
    name = annotation.get("file_name") if type(annotation) is dict else None
    if type(name) is not str:
        return None
    try:
        coco.check_inside(name, "file_name", "")
        name.encode()
    except (DatasetError, UnicodeEncodeError):
        return None
    return name


def _with_ids(infos: list[Any], found: Mapping[int, Extent]) -> list[Any]:
    """Segments whose id the PNG lacks get the id there that no segment has and that alone has their area and box, where
    they alone have those."""
    taken = {info.get("id") for info in infos if type(info) is dict and type(info.get("id")) is int}
    free: dict[tuple[Any, ...], list[int]] = {}
    for segment_id, extent in found.items():
        if segment_id not in taken:
            free.setdefault((extent.area_px, *extent.bbox_xywh), []).append(segment_id)
    asked = Counter(shape for shape in (_shape_without_id(info, found) for info in infos) if shape)
    named = []
    for info in infos:
        shape = _shape_without_id(info, found)
        alone = shape is not None and asked[shape] == 1 and len(free.get(shape, ())) == 1
        named.append({**info, "id": free[shape][0]} if alone and shape is not None else info)
    return named


def _shape_without_id(info: Any, found: Mapping[int, Extent]) -> tuple[Any, ...] | None:
    """Area and box of a segment that is not in the PNG."""
    if type(info) is not dict:
        return None
    segment_id, area, box = info.get("id"), info.get("area"), info.get("bbox")
    in_png = type(segment_id) is int and VOID < segment_id <= MAX_SEGMENT_ID and segment_id in found
    if in_png or type(box) is not list or not {*map(type, [area, *box])} <= {*coco.NUMBER}:
        return None
    return area, *box


def _relabelled(runs: IdRuns, value_of: Mapping[int, int]) -> IdRuns:
    ids, places = np.unique(runs.ids, return_inverse=True)
    values = np.array([value_of.get(i, VOID) for i in ids.tolist()], dtype=np.int32)
    return IdRuns(runs.size_hw, runs.starts, values[places] if len(ids) else runs.ids)


def _recounted(info: Entry, found: Mapping[int, Extent]) -> Entry:
    extent = found.get(info["id"])
    return {**flagged(info), "area": extent.area_px, "bbox": [*extent.bbox_xywh]} if extent else info


def _with_sizes(entries: list[Any], annotations: list[Any], copies: Path, images: Path) -> list[Any]:
    """The image entries, with the size of the PNG where the entry has another and the image has the PNG's."""
    png_of = {key_of(annotation, "image_id"): _png_name(annotation) for annotation in annotations}
    mended = []
    for entry in entries:
        name = png_of.get(key_of(entry, "id")) if key_of(entry, "id") is not None else None
        size_hw = _size_of(copies / name) if name else None
        if size_hw is not None and size_hw != (entry.get("height"), entry.get("width")):
            picture = entry.get("file_name")
            inside = _png_name({"file_name": picture})
            if inside and pictures.look_at(images / inside, "").size_hw == size_hw:
                entry = {**entry, "height": size_hw[0], "width": size_hw[1]}
        mended.append(entry)
    return mended


def _size_of(path: Path) -> tuple[int, int] | None:
    try:
        header = png.read_header(path)
    except DatasetError:
        return None
    return header.height, header.width
