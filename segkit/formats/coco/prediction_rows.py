"""Predictions in COCO's JSON files, entry by entry: invalid ones are reported and left out."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segkit.formats.base import DatasetImage
from segkit.formats.coco.panoptic import read_panoptic_predictions
from segkit.formats.coco.tables import read_categories, read_images
from segkit.formats.coco.validation import get_segmentation, try_field, validate_result, validate_segment
from segkit.structures import CategorySet, ImageId, segmentation_to_rle
from segkit.utils import json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, raise_issue
from segkit.utils.json_fields import Entry, Location
from segkit.utils.text import abbreviate


@dataclass(frozen=True)
class DatasetTables:
    """The images and categories that predictions are of.

    Attributes:
        path: a JSON.
        content: its content.
        images: by image_id.
    """

    path: Path
    content: Entry
    images: Mapping[ImageId, DatasetImage]

    @classmethod
    def read(cls, json_path: str | Path, has_predictions: bool) -> DatasetTables:
        """Read the tables.

        Args:
            json_path: the JSON.
            has_predictions: it is the JSON of the predictions, for the remedy in messages.

        Returns:
            The tables.

        Raises:
            DatasetError: the file is missing, or its `images` or `categories` are missing or invalid.
        """
        path = Path(json_path)
        content = json_fields.load_object(path)
        missing = [f"`{key}`" for key in ("images", "categories") if key not in content]
        if missing:
            problem = f"expected a JSON that names images and categories, got one without {' and '.join(missing)}"
            remedy = "give one that has both as `dataset`"
            raise DatasetError(problem, where=path, remedy=f"{remedy}, beside this one" if has_predictions else remedy)
        images = {
            image_id: DatasetImage(image_id, entry["file_name"], (entry["height"], entry["width"]))
            for image_id, entry in read_images(content, path).items()
        }
        return cls(path, content, images)

    def read_thing_categories(self) -> CategorySet:
        """Read the categories of results.

        Returns:
            The categories; all are things if no category has `isthing`.
        """
        categories = json_fields.get_table(self.content, "categories", self.path)
        all_things = all("isthing" not in category for category in categories)
        return read_categories(self.content, self.path, all_things)

    def get_image(self, image_id: ImageId, where: Location) -> DatasetImage:
        """Get an image.

        Args:
            image_id: id of the image.
            where: location of the prediction, for the message.

        Returns:
            The image.

        Raises:
            DatasetError: `images` has no such image.
        """
        if image_id not in self.images:
            problem = f"expected an image_id of {self.path} ({abbreviate(self.images)}), got {reprlib.repr(image_id)}"
            remedy = "give the JSON of the images that were predicted"
            raise DatasetError(problem, where=where, remedy=remedy, code="annotation-without-image")
        return self.images[image_id]


def read_result(
    entry: Entry, index: int, path: Path, tables: DatasetTables, categories: CategorySet, min_score: float
) -> Entry:
    """Validate a result and compress its mask.

    Args:
        entry: the JSON object.
        index: its index in the list.
        path: the results, for messages.
        tables: the images.
        categories: of the dataset.
        min_score: the mask of a result of a lower score is neither validated nor compressed.

    Returns:
        image_id, category_id, iscrowd, score and, unless the score is low, segmentation (compressed RLE).

    Raises:
        DatasetError: a field is invalid, with the code of the first one.
    """
    where: object = f"{path}, result {index}"
    image_id: ImageId = json_fields.get_field(entry, "image_id", json_fields.IMAGE_ID, where)
    where = Location(path, image_id, "result", index)
    size_hw = tables.get_image(image_id, where).size_hw
    valid = {"image_id": image_id, **validate_result(entry, categories.isthing_by_id, where, raise_issue)}
    category_id = valid["category_id"]
    if not categories[category_id].isthing:
        problem = f"expected the category_id of a thing, got {category_id}, which is stuff"
        raise DatasetError(problem, where=where, code="category-unknown")
    if "segmentation" not in entry:
        remedy = "export masks: boxes alone make no dataset of masks"
        problem = "expected a mask in `segmentation`, got none"
        raise DatasetError(problem, where=where, remedy=remedy, code="key-missing")
    if valid["score"] < min_score:
        return valid
    segmentation = get_segmentation(entry, size_hw, where, remedy="is it a result of this image?")
    return {**valid, "segmentation": segmentation_to_rle(segmentation, size_hw)}


def read_predicted_annotations(
    path: Path, tables: DatasetTables, categories: CategorySet, on_issue: IssueHandler
) -> dict[ImageId, Entry]:
    """Read the annotations of a panoptic JSON of predictions, without opening any PNG.

    Args:
        path: the JSON of the predictions.
        tables: the images.
        categories: of the dataset.
        on_issue: takes what is wrong with an annotation, which is then left out, as is an image with two.

    Returns:
        The valid annotations by image_id, in the file's order.

    Raises:
        DatasetError: the file is missing, is not JSON, or is an instances JSON.
    """
    predictions = read_panoptic_predictions(path, categories, partial(on_issue, "annotation-unreadable"))
    content = tables.content if tables.path == path else json_fields.load_object(path)
    annotations = [
        annotation
        for annotation in json_fields.get_table(content, "annotations", path)
        if type(annotation.get("image_id")) in json_fields.IMAGE_ID
    ]
    number_by_image = Counter(annotation["image_id"] for annotation in annotations)
    valid = {}
    for annotation in annotations:
        image_id = annotation["image_id"]
        if image_id not in predictions or number_by_image[image_id] > 1:
            continue
        issues: list[str] = []

        def report(code: str, error: DatasetError, issues: list[str] = issues) -> None:
            issues.append(code)
            on_issue(code, error)

        try_field(report, tables.get_image, image_id, Location(path, image_id))
        for info in annotation["segments_info"]:
            where = Location(path, image_id, "segment", info["id"])
            scored = {key: info[key] for key in ("category_id", "iscrowd", "score") if key in info}
            validate_segment(scored, categories.isthing_by_id, where, report)
        if not issues:
            valid[image_id] = annotation
    return valid


def check_min_score(min_score: object) -> None:
    """Check the option `min_score`.

    Args:
        min_score: any value.

    Raises:
        ValueError: it is not a finite number.
    """
    if not json_fields.all_finite([min_score]):
        raise ValueError(f"min_score must be a finite number, got {min_score!r}")
