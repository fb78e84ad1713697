"""Predictions in COCO's JSON files, row by row: what is wrong with one is told, and the row left out."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segkit.formats.base import DatasetImage
from segkit.formats.coco.masks import drop_slivers, find_mask_fault
from segkit.formats.coco.panoptic import read_panoptic_predictions
from segkit.formats.coco.tables import get_category_id, read_categories, read_images
from segkit.structures import CategorySet, ImageId, segmentation_to_rle
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, try_read
from segkit.utils.json_fields import Entry, Location
from segkit.utils.text import abbreviate


@dataclass(frozen=True)
class Named:
    """A JSON that names images and categories."""

    path: Path
    content: Entry
    images: Mapping[ImageId, DatasetImage]

    @classmethod
    def read(cls, json_path: str | Path, report_unpaired: bool) -> Named:
        """alone: it has the predictions too. DatasetError where it is missing, lacks a table, or one is malformed."""
        path = Path(json_path)
        content = json_fields.load_object(path)
        missing = [f"`{key}`" for key in ("images", "categories") if key not in content]
        if missing:
            problem = f"expected a JSON that names images and categories, got one without {' and '.join(missing)}"
            remedy = "give one that has both as `dataset`"
            raise DatasetError(problem, where=path, remedy=f"{remedy}, beside this one" if report_unpaired else remedy)
        images = {
            image_id: DatasetImage(image_id, entry["file_name"], (entry["height"], entry["width"]))
            for image_id, entry in read_images(content, path).items()
        }
        return cls(path, content, images)

    def thing_categories(self) -> CategorySet:
        """All things, unless a category says otherwise."""
        categories = json_fields.get_table(self.content, "categories", self.path)
        all_things = all("isthing" not in category for category in categories)
        return read_categories(self.content, self.path, all_things)

    def annotations(self) -> list[Entry]:
        """Those of a JSON that has the predictions too."""
        return json_fields.get_table(self.content, "annotations", self.path)

    def image(self, image_id: ImageId, where: Location) -> DatasetImage:
        """DatasetError where it is not named."""
        if image_id not in self.images:
            problem = f"expected an image_id of {self.path} ({abbreviate(self.images)}), got {reprlib.repr(image_id)}"
            raise DatasetError(problem, where=where, remedy="give the JSON of the images that were predicted")
        return self.images[image_id]


def read_result(
    entry: Entry, index: int, path: Path, named: Named, categories: CategorySet, on_issue: IssueHandler
) -> tuple[Entry, Location] | None:
    """The result with all but its mask checked, and where it is; None where something is wrong with it, which is told.

    DatasetError where it is of a panoptic JSON.
    """
    if "segments_info" in entry:
        remedy = "use the format panoptic-predictions"
        raise DatasetError("expected results with a mask each, got a panoptic JSON", where=path, remedy=remedy)
    code = _code_of(entry, "image_id")
    try:
        image_id: ImageId = json_fields.get_field(entry, "image_id", json_fields.IMAGE_ID, f"{path}, result {index}")
        where = Location(path, image_id, "result", index)
        code = "annotation-without-image"
        named.image(image_id, where)
        code = "category-unknown" if type(entry.get("category_id")) is int else _code_of(entry, "category_id")
        category_id = get_category_id(entry, categories, where)
        if not categories[category_id].isthing:
            raise DatasetError(f"expected the category_id of a thing, got {category_id}, which is stuff", where=where)
        code = _code_of_number(entry, "score")
        json_fields.get_finite(entry, "score", where)
        code = "key-missing"
        if "segmentation" not in entry:
            remedy = "export masks: boxes alone make no dataset of masks"
            raise DatasetError("expected a mask in `segmentation`, got none", where=where, remedy=remedy)
        code = "iscrowd-invalid"
        return {**entry, "iscrowd": json_fields.get_flag(entry, "iscrowd", where)}, where
    except DatasetError as error:
        on_issue(code, error)
        return None


def with_rle(result: Entry, where: Location, named: Named, on_issue: IssueHandler) -> Entry | None:
    """The result with what is needed of it; None where its mask is not sound, which is told."""
    size_hw = named.images[result["image_id"]].size_hw
    segmentation = drop_slivers(result["segmentation"])
    fault = find_mask_fault(segmentation, size_hw)
    if fault:
        is_other = isinstance(segmentation, dict) and segmentation.get("size") != [*size_hw]
        remedy = "is it a result of this image?"
        error = DatasetError(f"bad segmentation: {fault}", where=where, remedy=remedy)
        on_issue("rle-size" if is_other else "mask-invalid", error)
        return None
    kept = {key: result[key] for key in ("image_id", "category_id", "iscrowd", "score")}
    return {**kept, "segmentation": segmentation_to_rle(segmentation, size_hw)}


def read_predicted_annotations(
    path: Path, named: Named, categories: CategorySet, on_issue: IssueHandler
) -> dict[ImageId, Entry]:
    """The annotations of a panoptic JSON of predictions by image_id, in its order, sound but for their PNGs; images
    with one that is not, or with two, are told and left out.

    DatasetError as `read_panoptic_predictions` has it for the file as a whole.
    """
    predicted = read_panoptic_predictions(path, categories, partial(on_issue, "annotation-unreadable"))
    content = named.content if named.path == path else json_fields.load_object(path)
    annotations = [
        a
        for a in json_fields.get_table(content, "annotations", path)
        if type(a.get("image_id")) in json_fields.IMAGE_ID
    ]
    number_of = Counter(annotation["image_id"] for annotation in annotations)
    found = {}
    for annotation in annotations:
        image_id = annotation["image_id"]
        if image_id not in predicted or number_of[image_id] > 1:
            continue
        code, where = "annotation-without-image", Location(path, image_id)
        is_known = try_read(on_issue, code, named.image, image_id, where) is not None
        sound = [_is_sound(info, path, image_id, on_issue) for info in annotation["segments_info"]]
        if is_known and all(sound):
            found[image_id] = annotation
    return found


def check_min_score(min_score: object) -> None:
    """ValueError where it is no finite number."""
    isnumber = isinstance(min_score, (int, float)) and not isinstance(min_score, bool)
    if not isnumber or not -json_fields.LARGEST <= min_score <= json_fields.LARGEST:  # type: ignore[operator]
        raise ValueError(f"min_score must be a finite number, got {min_score!r}")


def _code_of(entry: Entry, key: str) -> str:
    return "type-wrong" if key in entry else "key-missing"


def _code_of_number(entry: Entry, key: str) -> str:
    return "number-not-finite" if type(entry.get(key)) in json_fields.NUMBER else _code_of(entry, key)


def _is_sound(info: Entry, path: Path, image_id: ImageId, on_issue: IssueHandler) -> bool:
    where = Location(path, image_id, "segment", info["id"])
    is_sound = try_read(on_issue, "iscrowd-invalid", json_fields.get_flag, info, "iscrowd", where) is not None
    if info.get("score") is None:
        return is_sound
    return (
        try_read(on_issue, _code_of_number(info, "score"), json_fields.get_finite, info, "score", where) is not None
        and is_sound
    )
