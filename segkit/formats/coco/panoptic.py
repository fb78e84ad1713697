"""COCO's panoptic format: one JSON, and one RGB PNG of segment ids per image (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkit.formats import png
from segkit.formats.coco.tables import CATEGORY_KEYS, TABLES, read_categories, read_images
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
from segkit.utils.issues import raise_issue
from segkit.utils.json_fields import Entry, Location
from segkit.utils.text import abbreviate

ANNOTATION_KEYS = ("id", "image_id", "file_name", "segments_info")
INTEGER_BOX = [int, int, int, int]
SEGMENT_KEYS = ("id", "category_id", "isthing", "iscrowd", "area", "bbox", "score")


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


def _raise_error(error: DatasetError) -> None:
    raise error


@files.no_garbage_collection()
def read_panoptic(json_path: str | Path, on_issue: Callable[[DatasetError], None] = _raise_error) -> PanopticFile:
    """Read and validate a panoptic JSON without opening any PNG.

    Every image needs one annotation; every segment needs a distinct id in 1..MAX_SEGMENT_ID and a category of the file.

    Args:
        json_path: the JSON.
        on_issue: takes the error of an invalid annotation, which is then left out; by default it is raised.

    Returns:
        The content of the file.

    Raises:
        DatasetError: the file is missing, is not JSON, is an instances JSON, or its images or categories are invalid.
    """
    path = Path(json_path)
    content = json_fields.load_object(path)
    annotations = json_fields.get_table(content, "annotations", path)
    _refuse_instances(annotations, path)
    categories = read_categories(content, path)
    images = read_images(content, path)
    records: dict[ImageId, PanopticRecord] = {}
    invalid: list[object] = []  # image ids of any type
    for index, annotation in enumerate(annotations):
        try:
            record = _read_record(annotation, index, images, categories, path)
            if record.image_id in records:
                raise DatasetError("expected one annotation, got two", where=Location(path, record.image_id))
            records[record.image_id] = record
        except DatasetError as error:
            on_issue(error)
            invalid.append(annotation.get("image_id"))
    bare = [image_id for image_id in images if image_id not in records and image_id not in invalid]
    if bare:
        remedy = "annotate them or drop them from `images`"
        on_issue(DatasetError(f"{len(bare)} images have no annotation: {abbreviate(bare)}", where=path, remedy=remedy))
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
    json_path: str | Path, categories: CategorySet, on_issue: Callable[[DatasetError], None] = _raise_error
) -> dict[ImageId, PanopticPrediction]:
    """Read predictions in a panoptic JSON; only its `annotations` are read.

    Args:
        json_path: the JSON.
        categories: of the dataset.
        on_issue: takes the error of an invalid annotation, which is then left out; by default it is raised. Of two
            annotations of one image the second is invalid.

    Returns:
        The predictions by image_id, in the file's order.

    Raises:
        DatasetError: the file is missing, is not JSON, or is an instances JSON.
    """
    path = Path(json_path)
    annotations = json_fields.get_table(json_fields.load_object(path), "annotations", path)
    _refuse_instances(annotations, path)
    predictions: dict[ImageId, PanopticPrediction] = {}
    for index, annotation in enumerate(annotations):
        try:
            where = f"{path}, annotation at index {index}"
            image_id: ImageId = json_fields.get_field(annotation, "image_id", json_fields.IMAGE_ID, where)
            if image_id in predictions:
                raise DatasetError("expected one prediction, got two", where=Location(path, image_id))
            png_name, infos = _read_png_and_infos(annotation, image_id, path)
            category_ids = {
                info["id"]: get_category_id(info, categories.isthing_by_id, where)
                for info, where in _locate_segments(infos, image_id, path)
            }
            predictions[image_id] = PanopticPrediction(png_name, category_ids)
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
    """Read the segment ids of a PNG as runs.

    Args:
        png_path: 8-bit RGB(A) or palette PNG of segment ids, 0 = void.
        size_hw: (height, width) of the image in pixels; None accepts any.

    Returns:
        The runs of equal ids.

    Raises:
        DatasetError: the PNG is missing, truncated, of another kind or of another size.
    """
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
    annotation: Entry, index: int, images: Mapping[ImageId, Entry], categories: CategorySet, path: Path
) -> PanopticRecord:
    image_id = get_image_id(annotation, index, images, path)
    png_name, infos = _read_png_and_infos(annotation, image_id, path)
    segments = infos
    if not all(_is_plain_segment(info, categories.isthing_by_id) for info in infos) or _have_equal_ids(infos):
        segments = []
        for info, where in _locate_segments(infos, image_id, path):
            iscrowd = validate_segment(info, categories.isthing_by_id, where, raise_issue)["iscrowd"]
            segments.append({**info, "iscrowd": iscrowd})
    image = images[image_id]
    return PanopticRecord(image_id, image["file_name"], image["height"], image["width"], png_name, tuple(segments))


def _read_png_and_infos(annotation: Entry, image_id: ImageId, path: Path) -> tuple[str, list[Entry]]:
    where = Location(path, image_id)
    png_name = get_file_name(annotation, where)
    infos = json_fields.get_field(annotation, "segments_info", json_fields.LIST, where)
    return png_name, json_fields.check_objects(infos, "`segments_info`", where)


def _is_plain_segment(info: Entry, category_ids: Collection[int]) -> bool:
    """Whether an entry of `segments_info` is valid and has integers only: half the time of one field at a time."""
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


def _have_equal_ids(infos: Collection[Entry]) -> bool:
    return len({info["id"] for info in infos}) < len(infos)


def _locate_segments(infos: Collection[Entry], image_id: ImageId, path: Path) -> Iterator[tuple[Entry, Location]]:
    """Each segment and its location; DatasetError if its id is invalid."""
    taken: set[int] = set()
    for info in infos:
        where = Location(path, image_id, "segment", info.get("id"))
        taken.add(get_segment_id(info, taken, where))
        yield info, where


def _check_same_ids(in_png: set[int], in_json: set[int], where: Location) -> None:
    remedy = "do the PNG and the JSON belong together?"
    for only, other, ids in (("PNG", "JSON", in_png - in_json), ("JSON", "PNG", in_json - in_png)):
        if ids:
            problem = f"the {only} has segment ids that the {other} lacks: {abbreviate(sorted(ids))}"
            raise DatasetError(problem, where=where, remedy=remedy)
