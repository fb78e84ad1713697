"""COCO's panoptic format: one JSON, and one RGB PNG of segment ids per image (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path, PurePath
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from segkit.formats import png
from segkit.formats.coco import tables as coco
from segkit.structures import (
    MAX_SEGMENT_ID,
    VOID,
    CategorySet,
    Extent,
    IdRuns,
    ImageId,
    PanopticSegmentation,
    Segment,
)
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry, Place
from segkit.utils.text import abbreviate

ANNOTATION_KEYS = ("id", "image_id", "file_name", "segments_info")
SEGMENT_KEYS = ("id", "category_id", "isthing", "iscrowd", "area", "bbox", "score")


@dataclass(frozen=True)
class PanopticRecord:
    """One image: `file_name` in the image folder, `png_name` in the folder of PNGs, `height` and `width` in pixels.

    segments_info: as in the file, `id` being the segment_id; `iscrowd` is 0 where the file lacks it.
    """

    image_id: ImageId
    file_name: str
    height: int
    width: int
    png_name: str
    segments_info: tuple[Entry, ...]


@dataclass(frozen=True)
class PanopticFile:
    """A validated JSON; records are in the order of its annotations, and may be none.

    images: by image_id, as in the file. info: what else the file holds, by key. unread: keys of its annotations,
    segments and categories of which nothing is kept.
    """

    path: Path
    categories: CategorySet
    records: tuple[PanopticRecord, ...]
    images: Mapping[ImageId, Entry]
    info: Mapping[str, Any]
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """What is predicted of one image: its PNG in the folder of PNGs, and the category_id of every segment_id."""

    png_name: str
    category_of: Mapping[int, int]


def _refuse(error: DatasetError) -> None:
    raise error


@files.no_garbage_collection()
def read(json_path: str | Path, on_issue: Callable[[DatasetError], None] = _refuse) -> PanopticFile:
    """Reads and checks a panoptic JSON without opening any PNG.

    Raises DatasetError where it is missing, not JSON, an instances JSON, or contradicts itself: every image needs one
    annotation, every segment an id of its own in 1..MAX_SEGMENT_ID and a known category. tell: gets the errors of
    single annotations, which are then left out, in place of raising the first.
    """
    path = Path(json_path)
    content = json_fields.load_object(path)
    annotations = json_fields.get_table(content, "annotations", path)
    _refuse_instances(annotations, path)
    categories = coco.categories_of(content, path)
    images = coco.images_by_id(content, path)
    records: dict[ImageId, PanopticRecord] = {}
    refused: list[object] = []  # image ids of any type
    for annotation in annotations:
        try:
            record = _read_record(annotation, images, categories, path)
            if record.image_id in records:
                raise DatasetError("expected one annotation, got two", where=Place(path, record.image_id))
            records[record.image_id] = record
        except DatasetError as error:
            on_issue(error)
            refused.append(annotation.get("image_id"))
    bare = [image_id for image_id in images if image_id not in records and image_id not in refused]
    if bare:
        remedy = "annotate them or drop them from `images`"
        on_issue(DatasetError(f"{len(bare)} images have no annotation: {abbreviate(bare)}", where=path, remedy=remedy))
    infos = (info for record in records.values() for info in record.segments_info)
    unread = (
        *json_fields.unexpected_keys(annotations, ANNOTATION_KEYS),
        *json_fields.unexpected_keys(infos, SEGMENT_KEYS),
        *json_fields.unexpected_keys(content["categories"], coco.CATEGORY_KEYS),
    )
    return PanopticFile(
        path, categories, tuple(records.values()), images, json_fields.other_keys(content, coco.TABLES), unread
    )


@files.no_garbage_collection()
def read_predictions(
    json_path: str | Path, categories: CategorySet, on_issue: Callable[[DatasetError], None] = _refuse
) -> dict[ImageId, Prediction]:
    """Predictions in a panoptic JSON by image_id, in the file's order; of it, `annotations` alone are read.

    Raises DatasetError where it is missing, not JSON, or of another kind; and by `on_issue`, as in `read`, where an
    image is predicted twice, or a segment has no id of its own in 1..MAX_SEGMENT_ID or no category of `categories`.
    """
    path = Path(json_path)
    content = json_fields.load_object(path)
    annotations = json_fields.get_table(content, "annotations", path)
    _refuse_instances(annotations, path)
    predictions: dict[ImageId, Prediction] = {}
    for annotation in annotations:
        try:
            image_id: ImageId = json_fields.get_field(
                annotation, "image_id", json_fields.IMAGE_ID, f"{path}, annotations"
            )
            if image_id in predictions:
                raise DatasetError("expected one prediction, got two", where=Place(path, image_id))
            png_name, infos = _png_and_infos(annotation, image_id, path)
            category_of = {
                segment_id: coco.category_id_of(info, categories, Place(path, image_id, "segment", segment_id))
                for segment_id, info in _by_segment_id(infos, image_id, path)
            }
            predictions[image_id] = Prediction(png_name, category_of)
        except DatasetError as error:
            on_issue(error)
    return predictions


def read_segmentation(
    png_path: str | Path,
    segments_info: Iterable[Mapping[str, Any]],
    categories: CategorySet,
    size_hw: tuple[int, int] | None = None,
    image_id: ImageId | None = None,
) -> PanopticSegmentation:
    """The segments of one image, in the order of `segments_info`, with the dataset's category ids.

    Areas are counted in the PNG, whatever the file's `area` says; `image_id` is for messages.
    Raises DatasetError where the PNG is missing, truncated, not 8-bit RGB(A) or palette, or not of `size_hw` pixels,
    where PNG and `segments_info` do not hold the same ids, and for an unknown category.
    """
    path = Path(png_path)
    runs = png.read_id_runs(path, size_hw)
    areas = runs.areas_px()
    areas.pop(VOID, None)
    segments = []
    for info in segments_info:
        segment_id, category_id = info["id"], info["category_id"]
        isthing = categories.isthing_by_id.get(category_id)
        if isthing is None:
            problem = f"expected a category_id of the dataset, got {category_id!r}"
            raise DatasetError(problem, where=Place(path, image_id, "segment", segment_id))
        iscrowd, score = bool(info.get("iscrowd", 0)), info.get("score")
        segments.append(Segment(segment_id, category_id, isthing, areas.get(segment_id, 0), iscrowd, score))
    _check_same_ids(set(areas), {segment.segment_id for segment in segments}, Place(path, image_id))
    return PanopticSegmentation.from_runs(runs, tuple(segments))


def read_id_runs(png_path: str | Path, size_hw: tuple[int, int] | None = None) -> IdRuns:
    """The segment ids of a PNG as runs, 0 = void; DatasetError as `read_segmentation` has it for the PNG alone."""
    return png.read_id_runs(Path(png_path), size_hw)


def write_png(path: str | Path, segment_ids: NDArray[np.integer]) -> None:
    """Writes (H, W) ids as RGB, whole or not at all; ValueError for an id outside [0, MAX_SEGMENT_ID] or no pixels."""
    png.write_ids(Path(path), segment_ids)


def png_names(images: Iterable[tuple[ImageId, str]]) -> dict[ImageId, str]:
    """The PNG of every (image_id, file_name), as `PanopticWriter` names them, no two the same."""
    names: dict[ImageId, str] = {}
    taken: set[str] = set()
    for image_id, file_name in images:
        names[image_id] = free_name(file_name, taken)
        taken.add(names[image_id])
    return names


def free_name(file_name: str, taken: Collection[str]) -> str:
    """The PNG of an image: its stem; where that is taken, the folders in front too, joined by "_", then the suffix too,
    then a number."""
    pure = PurePath(file_name)
    folders = pure.relative_to(pure.anchor).parent.parts
    whole = "_".join([*folders, pure.name])
    numbered = (f"{whole}_{number}" for number in count(len(taken)))
    names = chain((pure.stem, "_".join([*folders, pure.stem]), whole), numbered)
    return next(f"{name}.png" for name in names if f"{name}.png" not in taken)


def annotation_of(image_id: ImageId, png_name: str, segmentation: PanopticSegmentation) -> Entry:
    """The JSON annotation of one image, areas and boxes counted in the map; segments without a pixel are dropped.

    Segments have the dataset's category ids. Raises ValueError where the map holds an id that no segment has (the
    reference, panopticapi evaluation.py, refuses ids that only PNG or JSON has), and for a score that is not finite.
    """
    if type(image_id) not in json_fields.IMAGE_ID:
        raise ValueError(f"image_id must be an int or a str, got {type(image_id).__name__}")
    found = segmentation.runs.extents()
    strange = found.keys() - {s.segment_id for s in segmentation.segments}
    if strange:
        raise ValueError(f"segment_ids must hold ids of segments only, got {abbreviate(sorted(strange))}")
    segments_info = [_info(s, found[s.segment_id]) for s in segmentation.segments if s.segment_id in found]
    return {"image_id": image_id, "file_name": png_name, "segments_info": segments_info}


def write_json(
    json_path: str | Path,
    images: Sequence[Entry],
    annotations: Sequence[Entry],
    categories: CategorySet,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Writes the dataset's JSON, whole or not at all.

    images: `{id, file_name, height, width}` each. annotations: as `annotation_of` makes them. info: what else the file
    is to hold, by key.
    """
    tables = {"images": [*images], "annotations": [*annotations], "categories": categories.to_coco()}
    files.dump_json(Path(json_path), {**(info or {}), **tables})


def _refuse_instances(annotations: list[Entry], path: Path) -> None:
    for annotation in annotations:
        keys = sorted(annotation.keys() & {"segmentation", "bbox", "category_id"})
        if keys and "segments_info" not in annotation:
            expected = "a panoptic JSON is expected: its annotations have segments_info"
            raise DatasetError(
                f"this is an instances JSON (an annotation has {', '.join(keys)}), {expected}", where=path
            )


def _read_record(
    annotation: Entry, images: Mapping[ImageId, Entry], categories: CategorySet, path: Path
) -> PanopticRecord:
    image_id = coco.image_id_of(annotation, images, path)
    png_name, infos = _png_and_infos(annotation, image_id, path)
    segments = tuple(
        _read_info(info, categories, Place(path, image_id, "segment", segment_id))
        for segment_id, info in _by_segment_id(infos, image_id, path)
    )
    image = images[image_id]
    size_hw = image["height"], image["width"]
    return PanopticRecord(image_id, image["file_name"], *size_hw, png_name, segments)


def _png_and_infos(annotation: Entry, image_id: ImageId, path: Path) -> tuple[str, list[Entry]]:
    where = Place(path, image_id)
    png_name: str = json_fields.get_field(annotation, "file_name", json_fields.TEXT, where)
    json_fields.check_inside(png_name, "file_name", where)
    infos = json_fields.check_objects(
        json_fields.get_field(annotation, "segments_info", json_fields.LIST, where), "`segments_info`", where
    )
    return png_name, infos


def _by_segment_id(infos: list[Entry], image_id: ImageId, path: Path) -> Iterator[tuple[int, Entry]]:
    seen: set[int] = set()
    for info in infos:
        segment_id = info.get("id")
        if type(segment_id) is not int or not VOID < segment_id <= MAX_SEGMENT_ID or segment_id in seen:
            _refuse_id(info, Place(path, image_id, "segment", segment_id))
        seen.add(segment_id)
        yield segment_id, info


def _refuse_id(info: Entry, place: Place) -> NoReturn:
    segment_id = json_fields.get_field(info, "id", json_fields.INTEGER, place)
    if not VOID < segment_id <= MAX_SEGMENT_ID:
        raise DatasetError(f"expected a segment id in 1..{MAX_SEGMENT_ID}, {VOID} being void", where=place)
    raise DatasetError("expected distinct segment ids in an image, got this one twice", where=place)


def _read_info(info: Entry, categories: CategorySet, where: Place) -> Entry:
    """The info with an `iscrowd`; it is the file's own object where it has one."""
    coco.category_id_of(info, categories, where)
    if "area" in info:
        json_fields.get_finite(info, "area", where)
    if "bbox" in info:
        coco.check_bbox(info, where)
    if info.get("score") is not None:
        json_fields.get_finite(info, "score", where)
    iscrowd = json_fields.get_flag(info, "iscrowd", where)
    return info if info.get("iscrowd") is iscrowd else {**info, "iscrowd": iscrowd}


def _check_same_ids(in_png: set[int], in_json: set[int], where: Place) -> None:
    remedy = "do the PNG and the JSON belong together?"
    for only, other, ids in (("PNG", "JSON", in_png - in_json), ("JSON", "PNG", in_json - in_png)):
        if ids:
            problem = f"the {only} has segment ids that the {other} lacks: {abbreviate(sorted(ids))}"
            raise DatasetError(problem, where=where, remedy=remedy)


def _info(segment: Segment, extent: Extent) -> Entry:
    info: Entry = {
        "id": int(segment.segment_id),
        "category_id": int(segment.category_id),
        "isthing": int(segment.isthing),
        "iscrowd": int(segment.iscrowd),
        "area": extent.area_px,
        "bbox": [*extent.bbox_xywh],
    }
    if segment.score is None:
        return info
    if not np.isfinite(segment.score):
        raise ValueError(f"score must be finite, got {segment.score} for segment {segment.segment_id}")
    return {**info, "score": float(segment.score)}
