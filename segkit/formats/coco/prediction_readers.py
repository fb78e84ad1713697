"""Predictions of a model: as ground truth to train on again (pseudo-labels), or with their scores, to convert them."""

from __future__ import annotations

import reprlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.coco.instances import read_results
from segkit.formats.coco.panoptic import read_panoptic_predictions, read_segmentation
from segkit.formats.coco.readers import OVERLAPS, build_images, paint_annotations
from segkit.formats.coco.tables import read_annotations, read_categories, read_images
from segkit.formats.coco.validation import get_segmentation, validate_entry, validate_segment
from segkit.formats.derive import build_coco_annotations, relabel
from segkit.structures import CategorySet, ImageId, PanopticSegmentation, Segment, rle_to_mask, segmentation_to_rle
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames
from segkit.utils.issues import IssueHandler, raise_issue, report_missing, try_read
from segkit.utils.json_fields import Entry, Location
from segkit.utils.text import abbreviate

MIN_SCORE = 0.5  # of a prediction that becomes ground truth
BY_SCORE = "score_on_top"
RESULT_OVERLAPS = (BY_SCORE, *OVERLAPS)


class CocoResultsReader(DatasetReader):
    """Reads COCO's results list, or an instances JSON whose annotations have scores: things, as whole masks.

    The dataset has all images and categories of `dataset`; an image without results is void. If no category has
    `isthing`, all are things. Crowds are below all other masks.

    Args:
        json: the results.
        images: the image folder.
        dataset: a JSON with `images` and `categories` (instances, panoptic, image_info); None if `json` has them.
        min_score: results of a lower score are left out; None keeps all.
        keep_scores: whether segments and annotations have the scores.
        overlap: which mask gets a pixel: "score_on_top", the one of the highest score, of equal scores the earlier
            result; or one of `OVERLAPS`.
        on_issue: takes the code and error of a result without finite score, image, thing or mask, and, unless its score
            is too low, of one with an invalid mask. These results are left out.

    Raises:
        DatasetError: a JSON is missing or of another kind.
        ValueError: `overlap` has another value, or min_score is neither None nor a finite number.
    """

    format = "coco-results"
    has_overlapping_masks = True

    @files.no_garbage_collection()
    def __init__(
        self,
        json: str | Path,
        images: str | Path,
        dataset: str | Path | None = None,
        *,
        min_score: float | None = MIN_SCORE,
        keep_scores: bool = False,
        overlap: str = BY_SCORE,
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        if overlap not in RESULT_OVERLAPS:
            raise ValueError(f"overlap must be one of {RESULT_OVERLAPS}, got {overlap!r}")
        _check_min_score(min_score)
        path, has_tables = Path(json), dataset is None
        tables = _DatasetTables(path if dataset is None else dataset, images, has_predictions=has_tables)
        self.root, self.image_root, self.overlap = path.parent, Path(images), overlap
        self._keeps_scores = keep_scores
        all_things = all("isthing" not in c for c in json_fields.get_table(tables.content, "categories", tables.path))
        self.categories = read_categories(tables.content, tables.path, all_things)
        self.images = tuple(tables.images.values())
        entries = json_fields.get_table(tables.content, "annotations", path) if has_tables else read_results(path)
        if any("segments_info" in entry for entry in entries):
            remedy = "use the format panoptic-predictions"
            raise DatasetError("expected results with a mask each, got a panoptic JSON", where=path, remedy=remedy)
        read = (
            try_read(on_issue, "", _read_result, entry, index, path, tables, self.categories, min_score)
            for index, entry in enumerate(entries)
        )
        results = [result for result in read if result is not None]
        confident = [result for result in results if "segmentation" in result]
        if overlap == BY_SCORE:
            confident.sort(key=lambda result: float(result["score"]), reverse=True)
            confident.reverse()  # not sorted ascending: of equal scores, the earlier result is painted later
        self._results: dict[ImageId, list[Entry]] = {}
        for result in confident:
            if coco_mask.area(result["segmentation"]):
                self._results.setdefault(result["image_id"], []).append(result)
        low = len(results) - len(confident)
        self.skipped = self._skipped(path, len(entries), low, len(confident), min_score)

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class; segments are numbered from 1 in the order of `read_annotations`, hidden masks have none."""
        overlap = "later_on_top" if self.overlap == BY_SCORE else self.overlap
        results = self._results.get(image.image_id, [])
        painted = paint_annotations(results, image.size_hw, overlap)
        if not self._keeps_scores:
            return painted
        segments = (replace(s, score=float(results[s.segment_id - 1]["score"])) for s in painted.segments)
        return PanopticSegmentation.from_runs(painted.runs, tuple(segments))

    def read_annotations(self, image: DatasetImage) -> list[dict[str, Any]]:
        """See base class; whole masks in the file's order, or by ascending score if the highest score is on top."""
        return [
            annotation
            for result in self._results.get(image.image_id, [])
            for annotation in build_coco_annotations(image.image_id, _paint_one(result), self._keeps_scores)
        ]

    def _skipped(self, path: Path, results: int, low: int, confident: int, min_score: float | None) -> tuple[str, ...]:
        empty = confident - sum(map(len, self._results.values()))
        bare = [image.image_id for image in self.images if image.image_id not in self._results]
        counted = {
            f"{path}: {low} of {results} results have a score below {_format(min_score)}": low,
            f"{path}: {empty} of {results} results have a mask without a pixel": empty,
            f"{path}: {len(bare)} of {len(self.images)} images have no result left: {abbreviate(bare)}": len(bare),
        }
        return tuple(line for line, number in counted.items() if number)


class PanopticPredictionsReader(DatasetReader):
    """Reads a panoptic JSON of predictions; the dataset has the predicted images, in the order of the JSON.

    Without `keep_scores`, several segments of one stuff class become one, with the id of the first, and stuff is never
    a crowd.

    Args:
        json: the panoptic JSON.
        masks: the folder of PNGs.
        images: the image folder.
        dataset: a JSON with `images` and `categories`; None if `json`, unlike COCO's submissions, has them.
        min_score: things of a lower score become void; stuff, and things without a score, stay. None keeps all.
        keep_scores: whether segments stay as they are predicted, with their scores.
        on_issue: takes the code and error of an image that the dataset lacks, with an invalid annotation, or without
            PNG. These images are left out.

    Raises:
        DatasetError: a JSON is missing or of another kind.
        ValueError: min_score is neither None nor a finite number.
    """

    format = "panoptic-predictions"

    @files.no_garbage_collection()
    def __init__(
        self,
        json: str | Path,
        masks: str | Path,
        images: str | Path,
        dataset: str | Path | None = None,
        *,
        min_score: float | None = MIN_SCORE,
        keep_scores: bool = False,
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        _check_min_score(min_score)
        path, tables = Path(json), _DatasetTables(json if dataset is None else dataset, images, dataset is None)
        self.root, self.image_root, self.masks, self.min_score = path.parent, Path(images), Path(masks), min_score
        self._keeps_scores = keep_scores
        self.categories = read_categories(tables.content, tables.path)
        annotations = _read_predicted_annotations(path, tables, self.categories, on_issue)
        resolve = FolderNames(self.masks).resolve
        annotations = {i: {**entry, "file_name": resolve(entry["file_name"])} for i, entry in annotations.items()}
        pngs = {image_id: self.masks / annotation["file_name"] for image_id, annotation in annotations.items()}
        missing = report_missing(
            on_issue, "png-missing", "PNG", [*pngs.values()], "give the folder of the predicted PNGs as `masks`"
        )
        self._annotations = {image_id: annotations[image_id] for image_id, png in pngs.items() if png not in missing}
        self.images = tuple(tables.images[image_id] for image_id in self._annotations)
        self.skipped = self._skipped(path, [i for i in tables.images if i not in self._annotations])

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class."""
        annotation = self._annotations[image.image_id]
        path, infos = self.masks / annotation["file_name"], annotation["segments_info"]
        predicted = read_segmentation(path, infos, self.categories, image.size_hw, image.image_id)
        gt_ids: dict[int, int] = {}  # by segment_id of the prediction
        stuff_ids: dict[int, int] = {}  # by category_id
        ground_truth: dict[int, Segment] = {}
        for segment in predicted.segments:
            if segment.isthing and _is_below(segment.score, self.min_score):
                continue
            segment_id = segment.segment_id
            is_own = segment.isthing or self._keeps_scores
            gt_id = segment_id if is_own else stuff_ids.setdefault(segment.category_id, segment_id)
            area_px = segment.area_px + (ground_truth[gt_id].area_px if gt_id in ground_truth else 0)
            iscrowd, score = (segment.iscrowd and is_own), (segment.score if self._keeps_scores else None)
            ground_truth[gt_id] = replace(segment, segment_id=gt_id, area_px=area_px, iscrowd=iscrowd, score=score)
            gt_ids[segment_id] = gt_id
        segments = tuple(ground_truth.values())
        if len(segments) == len(predicted.segments):
            return PanopticSegmentation.from_runs(predicted.runs, segments)
        return PanopticSegmentation(relabel(predicted.segment_ids, gt_ids, np.int32), segments)

    def _skipped(self, path: Path, bare: list[ImageId]) -> tuple[str, ...]:
        infos = (info for annotation in self._annotations.values() for info in annotation["segments_info"])
        scores = [info.get("score") for info in infos if self.categories[info["category_id"]].isthing]
        low, unknown = sum(_is_below(score, self.min_score) for score in scores), scores.count(None)
        counted = {
            f"{path}: {low} of {len(scores)} things have a score below {_format(self.min_score)} and are void": low,
            f"{path}: {unknown} of {len(scores)} things have no score and are kept": unknown,
            f"{path}: {len(bare)} images have no prediction: {abbreviate(bare)}": len(bare),
        }
        return tuple(line for line, number in counted.items() if number)


def _paint_one(result: Entry) -> PanopticSegmentation:
    """The mask as the one segment of its image."""
    mask = rle_to_mask(result["segmentation"])
    score, area_px = float(result["score"]), int(np.count_nonzero(mask))
    segment = Segment(1, result["category_id"], True, area_px, bool(result["iscrowd"]), score)
    return PanopticSegmentation(mask.astype(np.int32), (segment,))


def _is_below(score: float | None, min_score: float | None) -> bool:
    return score is not None and min_score is not None and score < min_score


def _format(min_score: float | None) -> str:
    return "" if min_score is None else f"{min_score:g}"


class _DatasetTables:
    """The images, which are in `folder`, and categories that predictions are of, in a JSON with the given `content`."""

    def __init__(self, json_path: str | Path, folder: str | Path, has_predictions: bool) -> None:
        """DatasetError, with a remedy that depends on `has_predictions`, if a table is missing or invalid."""
        self.path = Path(json_path)
        self.content = json_fields.load_object(self.path)
        missing = [f"`{key}`" for key in ("images", "categories") if key not in self.content]
        if missing:
            problem = f"expected a JSON that names images and categories, got one without {' and '.join(missing)}"
            remedy = "give one that has both as `dataset`" + (", beside this one" if has_predictions else "")
            raise DatasetError(problem, where=self.path, remedy=remedy)
        images = build_images(read_images(self.content, self.path).values(), Path(folder), with_extra=False)
        self.images = {image.image_id: image for image in images}

    def get_image(self, image_id: ImageId, where: Location) -> DatasetImage:
        """The image; DatasetError if `images` lacks it."""
        if image_id not in self.images:
            problem = f"expected an image_id of {self.path} ({abbreviate(self.images)}), got {reprlib.repr(image_id)}"
            remedy = "give the JSON of the images that were predicted"
            raise DatasetError(problem, where=where, remedy=remedy, code="annotation-without-image")
        return self.images[image_id]


def _read_result(
    entry: Entry, index: int, path: Path, tables: _DatasetTables, categories: CategorySet, min_score: float | None
) -> Entry:
    """image_id, category_id, iscrowd, score and, unless the score is low, the mask as compressed RLE."""
    image_id: ImageId = json_fields.get_field(entry, "image_id", json_fields.IMAGE_ID, f"{path}, result {index}")
    where = Location(path, image_id, "result", index)
    size_hw = tables.get_image(image_id, where).size_hw
    keys = ("category_id", "score", "iscrowd")
    valid = validate_entry(entry, keys, categories.isthing_by_id, size_hw, where, raise_issue)
    category_id = valid["category_id"]
    if not categories[category_id].isthing:
        problem = f"expected the category_id of a thing, got {category_id}, which is stuff"
        raise DatasetError(problem, where=where, code="category-unknown")
    if "segmentation" not in entry:
        remedy = "export masks: boxes alone make no dataset of masks"
        problem = "expected a mask in `segmentation`, got none"
        raise DatasetError(problem, where=where, remedy=remedy, code="key-missing")
    valid["image_id"] = image_id
    if not _is_below(valid["score"], min_score):
        valid["segmentation"] = segmentation_to_rle(get_segmentation(entry, size_hw, where), size_hw)
    return valid


def _read_predicted_annotations(
    path: Path, tables: _DatasetTables, categories: CategorySet, on_issue: IssueHandler
) -> dict[ImageId, Entry]:
    """The valid annotations by image_id, in the file's order; images with two annotations are left out."""
    predictions = read_panoptic_predictions(path, categories, on_issue)
    content = tables.content if tables.path == path else json_fields.load_object(path)
    by_image: dict[ImageId, list[Entry]] = {image_id: [] for image_id in predictions}
    for annotation in read_annotations(content, path, panoptic=True):
        if type(annotation.get("image_id")) in json_fields.IMAGE_ID and annotation["image_id"] in predictions:
            by_image[annotation["image_id"]].append(annotation)
    valid = {}
    for image_id, (annotation, *repeated) in by_image.items():
        errors = _find_errors(annotation, image_id, path, tables, categories) if not repeated else []
        for error in errors:
            on_issue(error.code, error)
        if not errors and not repeated:
            valid[image_id] = annotation
    return valid


def _find_errors(
    annotation: Entry, image_id: ImageId, path: Path, tables: _DatasetTables, categories: CategorySet
) -> list[DatasetError]:
    """Errors of the image and of `iscrowd` and `score` of the segments."""
    errors: list[DatasetError] = []

    def collect(code: str, error: DatasetError) -> None:
        errors.append(error)

    try_read(collect, "", tables.get_image, image_id, Location(path, image_id))
    for info in annotation["segments_info"]:
        where = Location(path, image_id, "segment", info["id"])
        needed = {key: info[key] for key in ("category_id", "iscrowd", "score") if key in info}
        validate_segment(needed, categories.isthing_by_id, where, collect)
    return errors


def _check_min_score(min_score: object) -> None:
    if min_score is not None and not json_fields.all_finite([min_score]):
        raise ValueError(f"min_score must be a finite number or null, got {min_score!r}")
