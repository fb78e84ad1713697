"""Panoptic quality of COCO panoptic files: one JSON and one folder of PNGs each for ground truth and predictions."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from segkit.formats import coco
from segkit.formats.coco import PanopticRecord
from segkit.metrics import PanopticQuality
from segkit.metrics.panoptic.overlaps import ImageOverlaps, compute_overlaps
from segkit.scoring.image_ids import describe_rewritten, find_rewritten
from segkit.scoring.instances import describe_no_objects
from segkit.scoring.png_folders import find_png_folder
from segkit.structures import CategorySet, IdRuns, ImageId, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames
from segkit.utils.issues import DEFAULT_LIMIT, ErrorCollector
from segkit.utils.process_pool import EVERYTHING, Progress, Shard, map_and_collect_errors
from segkit.utils.text import abbreviate

Id = TypeVar("Id", bound=ImageId)
log = logging.getLogger(__name__)
DEFAULT_AREAS = {"reference": "check", "corrected": "recount"}


class ScoredPanoptic(NamedTuple):
    """The counts of a shard.

    Attributes:
        metric: The counts of this shard's images.
        image_order: All images of the ground truth, in the order of its JSON.
    """

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
    shard: Shard = EVERYTHING,
    progress: Progress | None = None,
    limit: int = DEFAULT_LIMIT,
) -> ScoredPanoptic:
    """Count the predictions of every image of the ground truth, as panopticapi's pq_compute does.

    Args:
        gt_json: COCO panoptic JSON of the ground truth.
        pred_json: COCO panoptic JSON of the predictions; only its `annotations` are read.
        gt_folder: PNGs of the ground truth; None finds them, see `find_png_folder`.
        pred_folder: PNGs of the predictions; None finds them.
        mode: The mode of `PanopticQuality`.
        areas: How declared areas of the ground truth are used, see `compute_overlaps`; None is "check" in the
            reference mode and "recount" in the corrected mode.
        boundary: Compute Boundary PQ too.
        dagger: Compute PQ-dagger too.
        allow_missing: Count images without a prediction as empty predictions.
        allow_extra: Skip predictions of images that the ground truth lacks.
        workers: Number of processes, at least 1.
        shard: The part of the images to count.
        progress: Called with (images done, all) after each image.
        limit: Number of errors at which the search for errors stops, at least 1.

    Returns:
        The counts of the shard's images.

    Raises:
        DatasetError: The files have errors; lists up to `limit` of them.
        ValueError: `mode` or `areas` is unknown, or `workers` or `limit` is below 1.
    """
    errors = ErrorCollector(limit)
    ground_truth = coco.read_panoptic(gt_json, on_issue=errors.add_issue)
    gt_errors = len(errors)
    predictions = coco.read_panoptic_predictions(pred_json, ground_truth.categories, on_issue=errors.add_issue)
    image_ids = dict.fromkeys(record.image_id for record in ground_truth.records)
    missing = [i for i in image_ids if i not in predictions]
    extra = [i for i in predictions if i not in image_ids]
    is_nothing_matched = len(missing) == len(image_ids)
    if is_nothing_matched or not (allow_missing and allow_extra):
        missing, extra = report_rewritten(errors, Path(pred_json), missing, extra, predictions)
    # Entries with errors are neither missing nor extra.
    report_unmatched(
        errors,
        Path(pred_json),
        len(image_ids),
        () if allow_missing or len(errors) > gt_errors else missing,
        () if allow_extra or gt_errors else extra,
        missing_remedy="predict them, or count them as empty (--allow-missing)",
        extra_remedy="is it the right file? Skip them with --allow-extra",
    )
    gt_root = pred_root = Path()
    with errors.guard():
        gt_root = find_png_folder(gt_json, gt_folder, (record.png_name for record in ground_truth.records))
    with errors.guard():
        png_names = (prediction.png_name for prediction in predictions.values())
        pred_root = find_png_folder(pred_json, pred_folder, png_names, is_prediction=True)
    errors.check()
    areas = areas or DEFAULT_AREAS.get(mode, "check")
    gt_pngs, pred_pngs = FolderNames(gt_root), FolderNames(pred_root)
    metric = PanopticQuality(ground_truth.categories, mode, areas=areas, boundary=boundary, dagger=dagger)

    def count(record: PanopticRecord) -> ImageOverlaps:
        categories, image_id, gt_png = metric.categories, record.image_id, gt_pngs.locate(record.png_name)
        gt_runs = coco.read_id_runs(gt_png)
        gt_segments = [_build_segment(info, categories, gt_runs) for info in record.segments_info]
        where = f"{gt_png}, image {image_id!r}"
        if image_id in predictions:
            prediction = predictions[image_id]
            pred_path = pred_pngs.locate(prediction.png_name)
            pred_runs = coco.read_id_runs(pred_path)
            pred_segments = [Segment(i, c, categories[c].isthing, 0) for i, c in prediction.category_ids.items()]
            where = f"{where} (prediction {pred_path})"
        else:
            pred_path, pred_segments = Path(pred_json), []
            pred_runs = IdRuns.from_map(np.zeros(gt_runs.size_hw, np.int32))
        return compute_overlaps(
            PanopticSegmentation.from_runs(gt_runs, tuple(gt_segments)),
            PanopticSegmentation.from_runs(pred_runs, tuple(pred_segments)),
            categories,
            areas=metric.areas,
            boundary_ratio=metric.boundary_ratio,
            where=where,
            gt_where=f"{gt_png} and {Path(gt_json)}, image {image_id!r}",
            pred_where=f"{pred_path} and {Path(pred_json)}, image {image_id!r}",
        )

    records, labels = shard.select([*ground_truth.records]), Counter[bool]()
    for record, overlaps in map_and_collect_errors(count, records, errors, workers, progress):
        metric.add(record.image_id, overlaps)
        labels.update(overlaps.ground_truth["iscrowd"].tolist())
    if shard == EVERYTHING and not labels[False]:
        log.warning("%s: %s", gt_json, describe_no_objects("segment", labels[True]))
    return ScoredPanoptic(metric, tuple(image_ids))


def report_unmatched(
    errors: ErrorCollector,
    where: Path,
    images: int,
    missing: Collection[object],
    extra: Collection[object],
    *,
    missing_remedy: str,
    extra_remedy: str,
    what: str = "images",
) -> None:
    """Add an error for images without a prediction, and one for predictions without an image."""
    if missing:
        problem = f"{len(missing)} of {images} {what} have no prediction: {abbreviate(missing)}"
        errors.add(DatasetError(problem, where=where, remedy=missing_remedy))
    if extra:
        problem = f"{len(extra)} predictions are of {what} that the ground truth lacks: {abbreviate(extra)}"
        errors.add(DatasetError(problem, where=where, remedy=extra_remedy))


def report_rewritten(
    errors: ErrorCollector,
    where: Path,
    missing: Collection[Id],
    extra: Collection[Id],
    predictions: Collection[Id],
) -> tuple[list[Id], list[Id]]:
    """Add an error for ids that differ in nothing but how they are written; the other missing and extra ids."""
    rewritten = find_rewritten(missing, extra)
    if rewritten:
        errors.add(describe_rewritten(where, rewritten, predictions))
    expected = {*rewritten.values()}
    return [i for i in missing if i not in expected], [i for i in extra if i not in rewritten]


def _build_segment(info: Mapping[str, Any], categories: CategorySet, runs: IdRuns) -> Segment:
    segment_id, category_id = info["id"], info["category_id"]
    area = info["area"] if "area" in info else int(runs.lengths()[runs.ids == segment_id].sum())
    return Segment(segment_id, category_id, categories[category_id].isthing, area, bool(info["iscrowd"]))
