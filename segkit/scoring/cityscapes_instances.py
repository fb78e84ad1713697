"""Cityscapes' instance AP of saved results."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from segkit.formats import png
from segkit.formats.cityscapes import (
    CATEGORIES,
    INSTANCE_IDS_SUFFIX,
    ResultFiles,
    ResultLine,
    read_result_lines,
    read_result_mask,
)
from segkit.metrics.cityscapes_ap import CityscapesAP, MaskPrediction
from segkit.utils.errors import DatasetError
from segkit.utils.issues import DEFAULT_LIMIT, ErrorCollector
from segkit.utils.process_pool import Progress, Shard, ordered_map

EVERYTHING = Shard()


def score_cityscapes_instances(
    gt_folder: str | Path,
    pred_folder: str | Path,
    *,
    workers: int = 1,
    shard: Shard = EVERYTHING,
    progress: Progress | None = None,
    limit: int = DEFAULT_LIMIT,
) -> CityscapesAP:
    """The metric over all *_gtFine_instanceIds.png in gt_folder and its subfolders (cities), or the shard's part.

    pred_folder: results in the layout of `segkit.formats.cityscapes.results`; those of other images are not looked at.
    image_id is the name up to _gtFine, as in frankfurt_000000_000294. One mask per worker is in memory at a time.
    progress(done, total) is called after each image. DatasetError, with up to `limit` problems of all images, where a
    folder or the ground truth is missing, an image has no file or several, or a line, a mask or a ground truth cannot
    be used.
    """
    gt_paths = _find_gt_paths(Path(gt_folder))
    part, results = shard.select(gt_paths), ResultFiles(pred_folder)
    metric, problems = CityscapesAP(CATEGORIES), ErrorCollector(limit)
    found = ordered_map(lambda path: _score_image(path, results), part, workers)
    for done, (one, errors) in enumerate(found, 1):
        for error in errors:
            problems.add(error)
        if not errors:
            metric.merge(one)
        if progress is not None:
            progress(done, len(part))
    problems.check()
    return metric


def _find_gt_paths(folder: Path) -> list[Path]:
    """Sorted by name; DatasetError where there is none, or two have one name."""
    paths = sorted(
        [*folder.glob(f"*{INSTANCE_IDS_SUFFIX}"), *folder.glob(f"*/*{INSTANCE_IDS_SUFFIX}")], key=lambda path: path.name
    )
    if not paths:
        remedy = "give gtFine/<split>, or a city's folder in it"
        raise DatasetError(
            f"expected *{INSTANCE_IDS_SUFFIX} here or in subfolders, found none", where=folder, remedy=remedy
        )
    for first, second in pairwise(paths):
        if first.name == second.name:
            raise DatasetError(
                "expected one ground truth of each name, got a second", where=second, remedy=f"there is {first}"
            )
    return paths


def _score_image(gt_path: Path, results: ResultFiles) -> tuple[CityscapesAP, list[DatasetError]]:
    """The metric of one image, or what is wrong with it."""
    image_id = gt_path.name.removesuffix(INSTANCE_IDS_SUFFIX)
    metric = CityscapesAP(CATEGORIES)
    errors: list[DatasetError] = []
    try:
        lines = read_result_lines(results.find(image_id), results.folder, errors.append)
        gt_ids = png.read_grey16(gt_path)
        size_hw = gt_ids.shape[0], gt_ids.shape[1]
        metric.update(image_id, gt_ids, _predictions(lines, size_hw, errors))
    except DatasetError as error:
        errors.append(error)
    return metric, errors


def _predictions(
    lines: list[ResultLine], size_hw: tuple[int, int], errors: list[DatasetError]
) -> Iterator[MaskPrediction]:
    """One mask at a time; what is wrong with a mask goes to the errors, with its line."""
    for line in lines:
        try:
            mask = read_result_mask(line.mask_path, size_hw)
        except DatasetError as error:
            errors.append(DatasetError(str(error), where=line.where))
        else:
            yield MaskPrediction(line.category_id, line.score, *mask)
