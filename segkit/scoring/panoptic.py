"""Panoptic quality of COCO panoptic files: one JSON and one folder of PNGs each for ground truth and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segkit.formats import coco
from segkit.formats.coco import PanopticPrediction, PanopticRecord
from segkit.metrics import PanopticQuality
from segkit.metrics.panoptic.overlaps import ImageOverlaps, compute_overlaps
from segkit.structures import CategorySet, IdRuns, ImageId, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from segkit.utils.issues import DEFAULT_LIMIT, ErrorCollector
from segkit.utils.process_pool import Progress, Shard, ordered_map
from segkit.utils.text import abbreviate

DEFAULT_AREAS = {"reference": "check", "corrected": "recount"}


@dataclass(frozen=True)
class ScoredPanoptic:
    """metric: the counts of this shard's images. image_order: all images of the ground truth, in its JSON's order."""

    metric: PanopticQuality
    image_order: tuple[ImageId, ...]


def score_panoptic(
    gt_json: str | Path,
    pred_json: str | Path,
    gt_folder: str | Path | None = None,
    pred_folder: str | Path | None = None,
    *,
    mode: str = "reference",
    areas: str | None = None,
    boundary: bool = False,
    dagger: bool = False,
    allow_missing: bool = False,
    allow_extra: bool = False,
    workers: int = 1,
    shard: Shard = Shard(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
    limit: int = DEFAULT_LIMIT,
) -> ScoredPanoptic:
    """Count the predictions of every image of the ground truth, as panopticapi's pq_compute does.

    Folders are by default those beside the JSON of its name without `.json`. mode, boundary, dagger: see
    `PanopticQuality`. areas: what the ground truth's declared areas are worth, see `compute_overlaps`; by default
    "check" in the reference mode and "recount" in the corrected. allow_missing: an image without prediction has nothing
    predicted. allow_extra: predictions of images that the ground truth lacks are passed over.
    Raises DatasetError that tells all that is wrong with the files, up to `limit` problems; ValueError for another
    mode or areas, and for less than one worker or a limit below one.
    """
    problems = ErrorCollector(limit)
    ground_truth = coco.read_panoptic(gt_json, on_issue=problems.add)
    refused = len(problems)
    predictions = coco.read_panoptic_predictions(pred_json, ground_truth.categories, on_issue=problems.add)
    image_ids = [record.image_id for record in ground_truth.records]
    # What was refused is neither missing nor extra.
    allow_missing, allow_extra = allow_missing or len(problems) > refused, allow_extra or refused > 0
    _check_images(image_ids, predictions, Path(pred_json), problems, allow_missing, allow_extra)
    gt_root, pred_root = _folder(gt_json, gt_folder, problems), _folder(pred_json, pred_folder, problems)
    problems.check()
    areas = areas or DEFAULT_AREAS.get(mode, "check")
    metric = PanopticQuality(ground_truth.categories, mode, areas=areas, boundary=boundary, dagger=dagger)
    pairs = _Pairs(metric, predictions, gt_root, pred_root, Path(gt_json), Path(pred_json))
    records = shard.select(list(ground_truth.records))
    for done, (record, found) in enumerate(zip(records, ordered_map(pairs.count, records, workers), strict=True), 1):
        if isinstance(found, DatasetError):
            problems.add(found)
        else:
            metric.add(record.image_id, found)
        if progress is not None:
            progress(done, len(records))
    problems.check()
    return ScoredPanoptic(metric, tuple(image_ids))


@dataclass(frozen=True)
class _Pairs:
    """Counts one image at a time, in any process."""

    metric: PanopticQuality
    predictions: Mapping[ImageId, PanopticPrediction]
    gt_root: Path
    pred_root: Path
    gt_json: Path
    pred_json: Path

    def count(self, record: PanopticRecord) -> ImageOverlaps | DatasetError:
        try:
            return self._count(record)
        except DatasetError as error:
            return error

    def _count(self, record: PanopticRecord) -> ImageOverlaps:
        categories, image_id = self.metric.categories, record.image_id
        gt_png = self.gt_root / record.png_name
        runs = coco.read_id_runs(gt_png)
        ground_truth = PanopticSegmentation.from_runs(
            runs, tuple(_segment(info, categories, runs) for info in record.segments_info)
        )
        where = f"{gt_png}, image {image_id!r}"
        if image_id in self.predictions:
            prediction = self.predictions[image_id]
            pred_png = self.pred_root / prediction.png_name
            segments = tuple(_predicted(pair, categories) for pair in prediction.category_of.items())
            predicted = PanopticSegmentation.from_runs(coco.read_id_runs(pred_png), segments)
            where = f"{where} (prediction {pred_png})"
        else:
            pred_png, predicted = (
                self.pred_json,
                PanopticSegmentation.from_runs(IdRuns.from_map(np.zeros(runs.size_hw, np.int32)), ()),
            )
        return compute_overlaps(
            ground_truth,
            predicted,
            categories,
            areas=self.metric.areas,
            boundary_ratio=self.metric.boundary_ratio,
            where=where,
            gt_where=f"{gt_png} and {self.gt_json}, image {image_id!r}",
            pred_where=f"{pred_png} and {self.pred_json}, image {image_id!r}",
        )


def _segment(info: Mapping[str, Any], categories: CategorySet, runs: IdRuns) -> Segment:
    segment_id, category_id = info["id"], info["category_id"]
    area = info["area"] if "area" in info else int(runs.lengths()[runs.ids == segment_id].sum())
    return Segment(segment_id, category_id, categories[category_id].isthing, area, bool(info["iscrowd"]))


def _predicted(pair: tuple[int, int], categories: CategorySet) -> Segment:
    segment_id, category_id = pair
    return Segment(segment_id, category_id, categories[category_id].isthing, 0)


def _check_images(
    image_ids: Sequence[ImageId],
    predictions: Mapping[ImageId, PanopticPrediction],
    pred_json: Path,
    problems: ErrorCollector,
    allow_missing: bool,
    allow_extra: bool,
) -> None:
    missing = [image_id for image_id in image_ids if image_id not in predictions]
    if missing and not allow_missing:
        problem = f"{len(missing)} of {len(image_ids)} images have no prediction: {abbreviate(missing)}"
        remedy = "predict them, or count them as empty (--allow-missing)"
        problems.add(DatasetError(problem, where=pred_json, remedy=remedy))
    known = set(image_ids)
    extra = [image_id for image_id in predictions if image_id not in known]
    if extra and not allow_extra:
        problem = f"{len(extra)} predictions are of images that the ground truth lacks: {abbreviate(extra)}"
        remedy = "is it the right file? Pass them over with --allow-extra"
        problems.add(DatasetError(problem, where=pred_json, remedy=remedy))


def _folder(json_path: str | Path, folder: str | Path | None, problems: ErrorCollector) -> Path:
    path = Path(folder) if folder is not None else Path(json_path).with_suffix("")
    if not path.is_dir():
        problems.add(DatasetError("no such folder of PNGs", where=path, remedy="name it"))
    return path
