"""COCO's panoptic format: one JSON, and one RGB PNG of segment ids per image (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkit.formats import png
from segkit.formats.coco.tables import CATEGORY_KEYS, TABLES, read_annotations, read_categories, read_images
from segkit.formats.coco.validation import (
    LARGEST_IN_BOX,
    get_category_id,
    get_file_name,
    get_image_id,
    get_segment_id,
    validate_segment,
)
from segkit.structures import MAX_SEGMENT_ID, VOID, CategorySet, IdRuns, ImageId, PanopticSegmentation, Segment
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, raise_issue, try_read
from segkit.utils.json_fields import Entry, Location
from segkit.utils.text import abbreviate

ANNOTATION_KEYS = ("id", "image_id", "file_name", "segments_info")
INTEGER_BOX = [int, int, int, int]
SEGMENT_KEYS = ("id", "category_id", "isthing", "iscrowd", "area", "bbox", "score")
UNREADABLE = "annotation-unreadable"


@dataclass(frozen=True)
class PanopticRecord:
    """One image of a panoptic JSON.

    Attributes:
        image_id: id of the image.
        file_name: path in the image folder.
        height: pixels.
        width: pixels.
        png_name: path in the folder of PNGs.
        segments_info: as in the file, `id` being the segment_id; `iscrowd` is 0 if the file lacks it.
    """

    image_id: ImageId
    file_name: str
    height: int
    width: int
    png_name: str
    segments_info: tuple[Entry, ...]


@dataclass(frozen=True)
class PanopticFile:
    """A valid panoptic JSON.

    Attributes:
        path: the JSON.
        categories: of the dataset.
        records: one per image, in the order of the annotations; there may be none.
        images: the file's objects by image_id.
        info: the other tables of the file, by key.
        unread: keys of annotations, segments and categories that are not read.
    """

    path: Path
    categories: CategorySet
    records: tuple[PanopticRecord, ...]
    images: Mapping[ImageId, Entry]
    info: Mapping[str, Any]
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class PanopticPrediction:
    """The predicted segments of one image.

    Attributes:
        png_name: path in the folder of PNGs.
        category_ids: category_id of the dataset by segment_id.
    """

    png_name: str
    category_ids: Mapping[int, int]


@files.no_garbage_collection()
def read_panoptic(
    json_path: str | Path, on_issue: IssueHandler = raise_issue, correct: Callable[[Entry], Entry] | None = None
) -> PanopticFile:
    """Read and validate a panoptic JSON without opening any PNG.

    Every image needs one annotation; every segment needs a distinct id in 1..MAX_SEGMENT_ID and a category of the file.

    Args:
        json_path: the JSON.
        on_issue: takes the code `annotation-unreadable` and the error of an invalid annotation, which is then left out.
        correct: corrects known faults of an annotation before it is validated.

    Returns:
        The content of the file.

    Raises:
        DatasetError: the file is missing, is not JSON, is an instances JSON, or its images or categories are invalid.
    """
    path = Path(json_path)
    content = json_fields.load_object(path)
    annotations = read_annotations(content, path, panoptic=True)
    annotations = annotations if correct is None else [*map(correct, annotations)]
    categories = read_categories(content, path)
    images = read_images(content, path)
    records: dict[ImageId, PanopticRecord] = {}
    invalid: list[object] = []  # image ids of any type
    for index, annotation in enumerate(annotations):
        record = try_read(on_issue, UNREADABLE, _read_record, annotation, index, images, records, categories, path)
        if record is None:
            invalid.append(annotation.get("image_id"))
        else:
            records[record.image_id] = record
    bare = [image_id for image_id in images if image_id not in records and image_id not in invalid]
    if bare:
        problem = f"{len(bare)} images have no annotation: {abbreviate(bare)}"
        remedy = "annotate them or drop them from `images`"
        on_issue(UNREADABLE, DatasetError(problem, where=path, remedy=remedy))
    infos = (info for record in records.values() for info in record.segments_info)
    unread = (
        *json_fields.unexpected_keys(annotations, ANNOTATION_KEYS),
        *json_fields.unexpected_keys(infos, SEGMENT_KEYS),
        *json_fields.unexpected_keys(content["categories"], CATEGORY_KEYS),
    )
    info = json_fields.other_keys(content, TABLES)
    return PanopticFile(path, categories, tuple(records.values()), images, info, unread)


@files.no_garbage_collection()
def read_panoptic_predictions(
    json_path: str | Path, categories: CategorySet, on_issue: IssueHandler = raise_issue
) -> dict[ImageId, PanopticPrediction]:
    """Read predictions in a panoptic JSON; only its `annotations` are read.

    Args:
        json_path: the JSON.
        categories: of the dataset.
        on_issue: takes the code `annotation-unreadable` and the error of an invalid annotation, which is then left out.
            Of two annotations of one image the second is invalid.

    Returns:
        The predictions by image_id, in the file's order.

    Raises:
        DatasetError: the file is missing, is not JSON, or is an instances JSON.
    """
    path = Path(json_path)
    predictions: dict[ImageId, PanopticPrediction] = {}

    def add(annotation: Entry, where: str) -> None:
        image_id: ImageId = json_fields.get_field(annotation, "image_id", json_fields.IMAGE_ID, where)
        if image_id in predictions:
            raise DatasetError("expected one prediction, got two", where=Location(path, image_id))
        png_name, infos = _read_segments(annotation, image_id, path, categories.isthing_by_id, only_categories=True)
        category_ids = {segment_id: info["category_id"] for segment_id, info in infos.items()}
        predictions[image_id] = PanopticPrediction(png_name, category_ids)

    for index, annotation in enumerate(read_annotations(json_fields.load_object(path), path, panoptic=True)):
        try_read(on_issue, UNREADABLE, add, annotation, f"{path}, annotation at index {index}")
    return predictions


def read_segmentation(
    png_path: str | Path,
    segments_info: Iterable[Mapping[str, Any]],
    categories: CategorySet,
    size_hw: tuple[int, int] | None = None,
    image_id: ImageId | None = None,
) -> PanopticSegmentation:
    """Read the panoptic segmentation of one image; areas are counted in the PNG.

    Args:
        png_path: 8-bit RGB(A) or palette PNG of segment ids, 0 = void.
        segments_info: `{id, category_id, iscrowd, score}` of each segment; the last two may be missing.
        categories: of the dataset.
        size_hw: (height, width) of the image in pixels; None accepts any.
        image_id: of the image, for messages.

    Returns:
        The segments in the order of `segments_info`, with category ids of the dataset.

    Raises:
        DatasetError: the PNG is missing, truncated, of another kind or of another size; PNG and `segments_info` have
            different ids; or a category is unknown.
    """
    path = Path(png_path)
    return build_segmentation(png.read_id_runs(path, size_hw), segments_info, categories, path, image_id)


def build_segmentation(
    runs: IdRuns,
    segments_info: Iterable[Mapping[str, Any]],
    categories: CategorySet,
    path: str | Path,
    image_id: ImageId | None = None,
) -> PanopticSegmentation:
    """Join the segment ids of a PNG with `segments_info`, see `read_segmentation`.

    Args:
        runs: of the segment ids, 0 = void.
        segments_info: as in `read_segmentation`.
        categories: of the dataset.
        path: the PNG, for messages.
        image_id: of the image, for messages.

    Returns:
        The segments in the order of `segments_info`, with category ids of the dataset.

    Raises:
        DatasetError: runs and `segments_info` have different ids, or a category is unknown.
    """
    path = Path(path)
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


def _read_record(
    annotation: Entry,
    index: int,
    images: Mapping[ImageId, Entry],
    annotated: Container[ImageId],
    categories: CategorySet,
    path: Path,
) -> PanopticRecord:
    image_id = get_image_id(annotation, index, images, path)
    if image_id in annotated:
        raise DatasetError("expected one annotation, got two", where=Location(path, image_id))
    png_name, infos = _read_segments(annotation, image_id, path, categories.isthing_by_id)
    image = images[image_id]
    return PanopticRecord(
        image_id, image["file_name"], image["height"], image["width"], png_name, tuple(infos.values())
    )


def _read_segments(
    annotation: Entry, image_id: ImageId, path: Path, category_ids: Collection[int], only_categories: bool = False
) -> tuple[str, dict[int, Entry]]:
    """Name of the PNG, and the valid segments by segment_id; `only_categories` validates no more than ids."""
    where = Location(path, image_id)
    png_name = get_file_name(annotation, where)
    segments: dict[int, Entry] = {}
    for info in json_fields.get_table(annotation, "segments_info", where):
        if not only_categories and _is_plain(info, category_ids) and info["id"] not in segments:
            segments[info["id"]] = info
            continue
        where = Location(path, image_id, "segment", info.get("id"))
        segment_id = get_segment_id(info, segments, where)
        if only_categories:
            segments[segment_id] = {"category_id": get_category_id(info, where, category_ids)}
        else:
            iscrowd = validate_segment(info, category_ids, where, raise_issue)["iscrowd"]
            segments[segment_id] = {**info, "iscrowd": iscrowd}
    return png_name, segments


def _is_plain(info: Entry, category_ids: Collection[int]) -> bool:
    """Whether a segment is valid and has integers only: half the time of one field at a time."""
    segment_id, category_id, iscrowd, area = map(info.get, ("id", "category_id", "iscrowd", "area"))
    box = info.get("bbox")
    return (
        type(segment_id) is type(category_id) is type(iscrowd) is type(area) is int
        and VOID < segment_id <= MAX_SEGMENT_ID
        and category_id in category_ids
        and 0 <= iscrowd <= 1
        and 0 <= area <= json_fields.LARGEST
        and type(box) is list
        and [*map(type, box)] == INTEGER_BOX
        and min(box) >= 0
        and max(box) <= LARGEST_IN_BOX
        and "score" not in info
    )


def _check_same_ids(in_png: set[int], in_json: set[int], where: Location) -> None:
    remedy = "do the PNG and the JSON belong together?"
    for only, other, ids in (("PNG", "JSON", in_png - in_json), ("JSON", "PNG", in_json - in_png)):
        if ids:
            problem = f"the {only} has segment ids that the {other} lacks: {abbreviate(sorted(ids))}"
            raise DatasetError(problem, where=where, remedy=remedy)
