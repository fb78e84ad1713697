"""COCO's panoptic format: one JSON, and one RGB PNG of segment ids per image (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from segkit.formats import png
from segkit.formats.coco.tables import (
    CATEGORY_KEYS,
    TABLES,
    check_bbox,
    get_category_id,
    get_image_id,
    read_categories,
    read_images,
)
from segkit.structures import (
    MAX_SEGMENT_ID,
    VOID,
    CategorySet,
    IdRuns,
    ImageId,
    PanopticSegmentation,
    Segment,
)
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry, Location
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
class PanopticPrediction:
    """What is predicted of one image: its PNG in the folder of PNGs, and the category_id of every segment_id."""

    png_name: str
    category_of: Mapping[int, int]


def _refuse(error: DatasetError) -> None:
    raise error


@files.no_garbage_collection()
def read_panoptic(json_path: str | Path, on_issue: Callable[[DatasetError], None] = _refuse) -> PanopticFile:
    """Reads and checks a panoptic JSON without opening any PNG.

    Raises DatasetError where it is missing, not JSON, an instances JSON, or contradicts itself: every image needs one
    annotation, every segment an id of its own in 1..MAX_SEGMENT_ID and a known category. tell: gets the errors of
    single annotations, which are then left out, in place of raising the first.
    """
    path = Path(json_path)
    content = json_fields.load_object(path)
    annotations = json_fields.get_table(content, "annotations", path)
    _refuse_instances(annotations, path)
    categories = read_categories(content, path)
    images = read_images(content, path)
    records: dict[ImageId, PanopticRecord] = {}
    refused: list[object] = []  # image ids of any type
    for annotation in annotations:
        try:
            record = _read_record(annotation, images, categories, path)
            if record.image_id in records:
                raise DatasetError("expected one annotation, got two", where=Location(path, record.image_id))
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
        *json_fields.unexpected_keys(content["categories"], CATEGORY_KEYS),
    )
    return PanopticFile(
        path, categories, tuple(records.values()), images, json_fields.other_keys(content, TABLES), unread
    )


@files.no_garbage_collection()
def read_panoptic_predictions(
    json_path: str | Path, categories: CategorySet, on_issue: Callable[[DatasetError], None] = _refuse
) -> dict[ImageId, PanopticPrediction]:
    """Predictions in a panoptic JSON by image_id, in the file's order; of it, `annotations` alone are read.

    Raises DatasetError where it is missing, not JSON, or of another kind; and by `on_issue`, as in `read`, where an
    image is predicted twice, or a segment has no id of its own in 1..MAX_SEGMENT_ID or no category of `categories`.
    """
    path = Path(json_path)
    content = json_fields.load_object(path)
    annotations = json_fields.get_table(content, "annotations", path)
    _refuse_instances(annotations, path)
    predictions: dict[ImageId, PanopticPrediction] = {}
    for annotation in annotations:
        try:
            image_id: ImageId = json_fields.get_field(
                annotation, "image_id", json_fields.IMAGE_ID, f"{path}, annotations"
            )
            if image_id in predictions:
                raise DatasetError("expected one prediction, got two", where=Location(path, image_id))
            png_name, infos = _png_and_infos(annotation, image_id, path)
            category_of = {
                segment_id: get_category_id(info, categories, Location(path, image_id, "segment", segment_id))
                for segment_id, info in _by_segment_id(infos, image_id, path)
            }
            predictions[image_id] = PanopticPrediction(png_name, category_of)
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
            raise DatasetError(problem, where=Location(path, image_id, "segment", segment_id))
        iscrowd, score = bool(info.get("iscrowd", 0)), info.get("score")
        segments.append(Segment(segment_id, category_id, isthing, areas.get(segment_id, 0), iscrowd, score))
    _check_same_ids(set(areas), {segment.segment_id for segment in segments}, Location(path, image_id))
    return PanopticSegmentation.from_runs(runs, tuple(segments))


def read_id_runs(png_path: str | Path, size_hw: tuple[int, int] | None = None) -> IdRuns:
    """The segment ids of a PNG as runs, 0 = void; DatasetError as `read_segmentation` has it for the PNG alone."""
    return png.read_id_runs(Path(png_path), size_hw)


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
    image_id = get_image_id(annotation, images, path)
    png_name, infos = _png_and_infos(annotation, image_id, path)
    segments = tuple(
        _read_info(info, categories, Location(path, image_id, "segment", segment_id))
        for segment_id, info in _by_segment_id(infos, image_id, path)
    )
    image = images[image_id]
    size_hw = image["height"], image["width"]
    return PanopticRecord(image_id, image["file_name"], *size_hw, png_name, segments)


def _png_and_infos(annotation: Entry, image_id: ImageId, path: Path) -> tuple[str, list[Entry]]:
    where = Location(path, image_id)
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
            _refuse_id(info, Location(path, image_id, "segment", segment_id))
        seen.add(segment_id)
        yield segment_id, info


def _refuse_id(info: Entry, place: Location) -> NoReturn:
    segment_id = json_fields.get_field(info, "id", json_fields.INTEGER, place)
    if not VOID < segment_id <= MAX_SEGMENT_ID:
        raise DatasetError(f"expected a segment id in 1..{MAX_SEGMENT_ID}, {VOID} being void", where=place)
    raise DatasetError("expected distinct segment ids in an image, got this one twice", where=place)


def _read_info(info: Entry, categories: CategorySet, where: Location) -> Entry:
    """The info with an `iscrowd`; it is the file's own object where it has one."""
    get_category_id(info, categories, where)
    if "area" in info:
        json_fields.get_finite(info, "area", where)
    if "bbox" in info:
        check_bbox(info, where)
    if info.get("score") is not None:
        json_fields.get_finite(info, "score", where)
    iscrowd = json_fields.get_flag(info, "iscrowd", where)
    return info if info.get("iscrowd") is iscrowd else {**info, "iscrowd": iscrowd}


def _check_same_ids(in_png: set[int], in_json: set[int], where: Location) -> None:
    remedy = "do the PNG and the JSON belong together?"
    for only, other, ids in (("PNG", "JSON", in_png - in_json), ("JSON", "PNG", in_json - in_png)):
        if ids:
            problem = f"the {only} has segment ids that the {other} lacks: {abbreviate(sorted(ids))}"
            raise DatasetError(problem, where=where, remedy=remedy)
