"""Cityscapes' instance AP of saved results."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from segkit.formats import cityscapes, png
from segkit.metrics.cityscapes_ap import CityscapesAP, MaskPrediction
from segkit.utils.errors import DatasetError
from segkit.utils.issues import DEFAULT_LIMIT, ErrorCollector
from segkit.utils.process_pool import EVERYTHING, Progress, Shard, map_and_collect_errors


def score_cityscapes_instances(
    gt_folder: str | Path,
    pred_folder: str | Path,
    *,
    workers: int = 1,
    shard: Shard = EVERYTHING,
    progress: Progress | None = None,
    limit: int = DEFAULT_LIMIT,
) -> CityscapesAP:
    """Count the predictions of all *_gtFine_instanceIds.png in a folder and its subfolders (cities), or of a shard.

    One mask per worker is in memory at a time.

    Args:
        gt_folder: gtFine/<split>, or a city's folder in it. An image_id is the file's name up to _gtFine, such as
            frankfurt_000000_000294.
        pred_folder: Results in the format of `segkit.formats.cityscapes`; those of other images are not read.
        workers: Number of processes, at least 1.
        shard: The part of the images to count.
        progress: Called with (images done, all) after each image.
        limit: Number of errors at which the search for errors stops, at least 1.

    Returns:
        The counts of the shard's images.

    Raises:
        DatasetError: A folder or the ground truth is missing, an image has no result file or several, or a line, a mask
            or a ground truth has an error; lists up to `limit` errors of all images.
        ValueError: `workers` or `limit` is below 1.
    """
    gt_paths = shard.select(_find_gt_paths(Path(gt_folder)))
    results = cityscapes.ResultFiles(pred_folder)
    metric, errors = CityscapesAP(cityscapes.CATEGORIES), ErrorCollector(limit)
    counted = map_and_collect_errors(lambda path: _score_image(path, results), gt_paths, errors, workers, progress)
    for _, (image_metric, image_errors) in counted:
        for error in image_errors:
            errors.add(error)
        if not image_errors:
            metric.merge(image_metric)
    return metric


def _find_gt_paths(folder: Path) -> list[Path]:
    """Sorted by name; DatasetError if there are none, or two have one name."""
    patterns = f"*{cityscapes.INSTANCE_IDS_SUFFIX}", f"*/*{cityscapes.INSTANCE_IDS_SUFFIX}"
    paths = sorted((path for pattern in patterns for path in folder.glob(pattern)), key=lambda path: path.name)
    if not paths:
        problem = f"expected *{cityscapes.INSTANCE_IDS_SUFFIX} here or in subfolders, found none"
        raise DatasetError(problem, where=folder, remedy="give gtFine/<split>, or a city's folder in it")
    for first, second in pairwise(paths):
        if first.name == second.name:
            problem, remedy = "expected one ground truth of each name, got a second", f"the first is {first}"
            raise DatasetError(problem, where=second, remedy=remedy)
    return paths


def _score_image(gt_path: Path, results: cityscapes.ResultFiles) -> tuple[CityscapesAP, list[DatasetError]]:
    """The metric of one image, and its errors."""
    image_id = gt_path.name.removesuffix(cityscapes.INSTANCE_IDS_SUFFIX)
    metric = CityscapesAP(cityscapes.CATEGORIES)
    errors: list[DatasetError] = []
    try:
        lines = cityscapes.read_result_lines(results.find(image_id), results.folder, errors.append)
        gt_ids = png.read_grey16(gt_path)
        size_hw = gt_ids.shape[0], gt_ids.shape[1]
        metric.update(image_id, gt_ids, _predictions(lines, size_hw, errors))
    except DatasetError as error:
        errors.append(error)
    return metric, errors


def _predictions(
    lines: list[cityscapes.ResultLine], size_hw: tuple[int, int], errors: list[DatasetError]
) -> Iterator[MaskPrediction]:
    """One mask at a time; an unreadable mask adds an error with its line."""
    for line in lines:
        try:
            mask = cityscapes.read_result_mask(line.mask_path, size_hw)
        except DatasetError as error:
            errors.append(DatasetError(str(error), where=line.where))
        else:
            yield MaskPrediction(line.category_id, line.score, *mask)
