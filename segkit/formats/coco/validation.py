"""The entries of COCO's JSON files, validated one by one: readers and scorers raise an issue, checks collect all.

Every `get_<field>` raises a DatasetError with the code of its issue (`segkit.curation.issues.RULES`). Every
`validate_<entry>` passes these errors to its `on_issue`, and returns None for a field that is missing or invalid.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from segkit.formats.coco.mask_forms import EMPTY, recognize_mask_form
from segkit.formats.coco.masks import drop_slivers, find_mask_fault
from segkit.structures import MAX_SEGMENT_ID, VOID, ImageId
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, try_read
from segkit.utils.json_fields import (
    IMAGE_ID,
    INTEGER,
    LIST,
    NUMBER,
    OBJECT,
    TEXT,
    Entry,
    Location,
    all_finite,
    check_inside,
    get_field,
    get_finite,
    get_flag,
)
from segkit.utils.text import abbreviate

BOX_NUMBERS = 4
LARGEST_IN_BOX = 1e150  # the area of a box is a finite number, too
FIX = "`segkit data check --fix` repairs a copy of a dataset"
MAX_PIXELS = 2**32 - 1  # of an image: pycocotools counts in 32 bits


class ImageEntry(NamedTuple):
    """An entry of `images`.

    Attributes:
        image_id: id of the image.
        file_name: path inside the image folder, None if it is invalid.
        size_hw: (height, width) in pixels, None if it is invalid.
    """

    image_id: ImageId
    file_name: str | None
    size_hw: tuple[int, int] | None


def get_box(entry: Entry, where: object) -> list[float]:
    """Get `bbox`.

    Args:
        entry: an annotation, a segment or a result.
        where: its location, for the message.

    Returns:
        [x, y, width, height] in pixels.

    Raises:
        DatasetError: the box is missing, is not four finite numbers, or has a negative width or height.
    """
    box: list[Any] = get_field(entry, "bbox", LIST, where)
    problem = f"expected `bbox` to be [x, y, width, height] in pixels, got {reprlib.repr(box)}"
    if len(box) != BOX_NUMBERS or not {*map(type, box)} <= {*NUMBER}:
        raise DatasetError(problem, where=where, code="box-invalid")
    if not all_finite(box, LARGEST_IN_BOX):
        raise DatasetError(problem, where=where, code="number-not-finite")
    if min(box[2:]) < 0:
        raise DatasetError(problem, where=where, code="box-invalid", remedy="is it [x0, y0, x1, y1]?")
    return box


def get_area(entry: Entry, where: object) -> float:
    """Get `area` of an annotation.

    Args:
        entry: the annotation.
        where: its location, for the message.

    Returns:
        Pixels, 0 or more.

    Raises:
        DatasetError: the area is missing, not finite or negative.
    """
    area = get_finite(entry, "area", where)
    if area < 0:
        raise DatasetError(f"expected `area` to be 0 or more pixels, got {area:g}", where=where, code="area-wrong")
    return area


def get_category_id(entry: Entry, where: object, category_ids: Collection[int]) -> int:
    """Get `category_id`.

    Args:
        entry: an annotation, a segment or a result.
        where: its location, for the message.
        category_ids: ids of the dataset.

    Returns:
        The category_id of the dataset.

    Raises:
        DatasetError: the id is missing, is not an integer, or is not among the categories.
    """
    category_id: int = get_field(entry, "category_id", INTEGER, where)
    if category_id not in category_ids:
        expected = f"expected a category_id of `categories` ({abbreviate(category_ids)})"
        problem = f"{expected}, got {reprlib.repr(category_id)}"
        raise DatasetError(problem, where=where, code="category-unknown")
    return category_id


def get_image_id(annotation: Entry, index: int, images: Collection[ImageId], path: Path) -> ImageId:
    """Get `image_id`.

    Args:
        annotation: an annotation.
        index: its index in the file.
        images: image ids of the dataset.
        path: the file, for the message.

    Returns:
        The image_id.

    Raises:
        DatasetError: the id is missing, is not an integer or a string, or is not in `images`.
    """
    image_id: ImageId = get_field(annotation, "image_id", IMAGE_ID, f"{path}, annotation at index {index}")
    if image_id not in images:
        raise DatasetError(
            f"expected an image_id of `images` ({abbreviate(images)}), got {reprlib.repr(image_id)}",
            where=Location(path, image_id),
            remedy="add the image or drop the annotation",
            code="annotation-without-image",
        )
    return image_id


def get_file_name(entry: Entry, where: object) -> str:
    """Get `file_name`.

    Args:
        entry: an image, or an annotation with a PNG.
        where: its location, for the message.

    Returns:
        A path inside the folder.

    Raises:
        DatasetError: the name is missing, is not a string, or leads out of the folder.
    """
    name: str = get_field(entry, "file_name", TEXT, where)
    check_inside(name, "file_name", where)
    return name


def is_size(height: Any, width: Any) -> bool:
    """Check the size of an image.

    Args:
        height: any value.
        width: any value.

    Returns:
        Whether these are pixels of an image that COCO's run lengths can cover.
    """
    return type(height) is type(width) is int and min(height, width) > 0 and height * width <= MAX_PIXELS


def is_box_inside(box: list[float], size_hw: tuple[int, int], slack_px: float = 0) -> bool:
    """Check that a box is inside an image.

    Args:
        box: [x, y, width, height] in pixels.
        size_hw: (height, width) of the image in pixels.
        slack_px: pixels beyond the image that are accepted.

    Returns:
        Whether the box is inside.
    """
    right, bottom = box[0] + box[2], box[1] + box[3]
    return min(box[:2]) >= -slack_px and right <= size_hw[1] + slack_px and bottom <= size_hw[0] + slack_px


def get_segmentation(entry: Entry, size_hw: tuple[int, int] | None, where: object) -> Any:
    """Get `segmentation`.

    Args:
        entry: an annotation or a result.
        size_hw: (height, width) of the image in pixels; None takes the `size` of the RLE.
        where: its location, for the message.

    Returns:
        RLE, or polygons of three or more points: shorter ones are dropped, as Detectron2 does.

    Raises:
        DatasetError: the segmentation is missing or invalid, see `find_mask_fault`.
    """
    given = get_field(entry, "segmentation", (*LIST, *OBJECT), where)
    segmentation = drop_slivers(given)
    fault = find_mask_fault(segmentation, size_hw)
    form = recognize_mask_form(given, size_hw) if fault and size_hw else None
    if form:
        code = "segment-empty" if form.name == EMPTY else "mask-form" if form.segmentation else "mask-invalid"
        problem = f"bad segmentation: expected [[x, y, x, y, ...], ...] or RLE of size and counts, got {form.name}"
        raise DatasetError(problem, where=where, remedy=FIX, code=code)
    if fault:
        size = segmentation.get("size") if isinstance(segmentation, dict) else None
        is_other = type(size) is list and [*map(type, size)] == [int, int] and size != [*(size_hw or size)]
        code = "rle-size" if is_other else "mask-invalid"
        remedy = "is it a result of this image?" if "score" in entry else "correct or drop it"
        raise DatasetError(f"bad segmentation: {fault}", where=where, remedy=remedy, code=code)
    return segmentation


def get_segment_id(info: Entry, taken: Collection[int], where: object) -> int:
    """Get the `id` of a segment.

    Args:
        info: an entry of `segments_info`.
        taken: ids of other segments of the image.
        where: its location, for the message.

    Returns:
        The segment_id, in 1..MAX_SEGMENT_ID.

    Raises:
        DatasetError: the id is missing, is not an integer, is void, is out of range, or is taken.
    """
    segment_id: int = get_field(info, "id", INTEGER, where)
    if not VOID < segment_id <= MAX_SEGMENT_ID:
        problem = f"expected a segment id in 1..{MAX_SEGMENT_ID}, {VOID} being void, got {reprlib.repr(segment_id)}"
        code = "segment-id-void" if segment_id == VOID else "segment-id-range"
        raise DatasetError(problem, where=where, code=code)
    if segment_id in taken:
        problem = "expected distinct segment ids in an image, got this one twice"
        raise DatasetError(problem, where=where, code="segment-id-twice")
    return segment_id


def validate_images(entries: Iterable[Entry], path: Path, on_issue: IssueHandler) -> dict[ImageId, ImageEntry]:
    """Validate the table `images`.

    Args:
        entries: the JSON objects.
        path: the file, for messages.
        on_issue: takes the code and the error of each field, and of an id that is taken.

    Returns:
        The first entry of each valid id, in the file's order.
    """
    get = partial(try_read, on_issue, "")
    images: dict[ImageId, ImageEntry] = {}
    for index, entry in enumerate(entries):
        image_id: ImageId | None = get(get_field, entry, "id", IMAGE_ID, f"{path}, image at index {index}")
        if image_id is None:
            continue
        where = Location(path, image_id)
        file_name = get(get_file_name, entry, where)
        height, width = (get(get_field, entry, key, INTEGER, where) for key in ("height", "width"))
        size_hw = None if height is None or width is None else get(_check_size, height, width, where)
        if image_id in images:
            problem = f"expected distinct image ids, got this one twice, the second of {file_name}"
            on_issue("image-id-twice", DatasetError(problem, where=where))
        else:
            images[image_id] = ImageEntry(image_id, file_name, size_hw)
    return images


def validate_entry(
    entry: Entry,
    fields: Iterable[str],
    category_ids: Collection[int],
    size_hw: tuple[int, int] | None,
    where: object,
    on_issue: IssueHandler,
) -> Entry:
    """Validate an annotation of an instances file, or an entry of a results list.

    Args:
        entry: the JSON object.
        fields: which of category_id, iscrowd, area, score, bbox and segmentation to validate, in this order.
        category_ids: ids of the dataset.
        size_hw: (height, width) of the image in pixels, see `get_segmentation`.
        where: its location, for messages.
        on_issue: takes the code and the error of each field.

    Returns:
        The fields, None for each that is missing or invalid; iscrowd is 0 if it is missing.
    """
    getters: dict[str, Callable[[], Any]] = {
        "category_id": partial(get_category_id, entry, where, category_ids),
        "iscrowd": partial(get_flag, entry, "iscrowd", where),
        "area": partial(get_area, entry, where),
        "score": partial(get_finite, entry, "score", where),
        "bbox": partial(get_box, entry, where),
        "segmentation": partial(get_segmentation, entry, size_hw, where),
    }
    return {key: try_read(on_issue, "", getters[key]) for key in fields}


def validate_segment(info: Entry, category_ids: Collection[int], where: object, on_issue: IssueHandler) -> Entry:
    """Validate an entry of `segments_info` but for its id, see `get_segment_id`.

    Args:
        info: the JSON object.
        category_ids: ids of the dataset.
        where: its location, for messages.
        on_issue: takes the code and the error of each field.

    Returns:
        category_id, iscrowd, area, bbox and score, None for each that is missing or invalid; iscrowd is 0 if it is
        missing.
    """
    get = partial(try_read, on_issue, "")
    return {
        "category_id": get(get_category_id, info, where, category_ids),
        "iscrowd": get(get_flag, info, "iscrowd", where),
        "area": get(get_finite, info, "area", where) if "area" in info else None,
        "bbox": get(get_box, info, where) if "bbox" in info else None,
        "score": get(get_finite, info, "score", where) if info.get("score") is not None else None,
    }


def _check_size(height: int, width: int, where: object) -> tuple[int, int]:
    if not is_size(height, width):
        got = f"{reprlib.repr(height)} x {reprlib.repr(width)}"
        problem = f"expected height and width of at least 1 pixel and {MAX_PIXELS} pixels in all, got {got}"
        raise DatasetError(problem, where=where, code="size-invalid")
    return height, width
