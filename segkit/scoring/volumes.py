"""Dice and NSD of saved label volumes (NIfTI)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.formats.decathlon import MAX_LABEL, Labels, list_label_volumes, read_label_task, read_label_volume
from segkit.metrics.surface_elements import import_distance_transform
from segkit.metrics.volume_scores import VolumeScores
from segkit.scoring.panoptic import report_unmatched
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.issues import DEFAULT_LIMIT, ErrorCollector
from segkit.utils.process_pool import EVERYTHING, Progress, Shard, map_and_collect_errors
from segkit.utils.text import abbreviate

BACKGROUND, VOID, UNKNOWN = 0, -1, -2  # rows of the classes


class _Pair(NamedTuple):
    name: str
    gt_path: Path
    pred_path: Path


def score_volumes(
    gt: str | Path,
    pred: str | Path,
    *,
    classes: Mapping[int | str, str] | None = None,
    tolerance_mm: float | None = None,
    ignore_label: Collection[int] | None = None,
    allow_missing: bool = False,
    allow_extra: bool = False,
    workers: int = 1,
    shard: Shard = EVERYTHING,
    progress: Progress | None = None,
    limit: int = DEFAULT_LIMIT,
) -> VolumeScores:
    """Score the predicted label volumes of every volume of the ground truth, or of the shard's volumes.

    Ground truth and prediction of a volume have the same file name, with .nii or .nii.gz, and the same grid.

    Args:
        gt: Folder of label volumes, or of a task of the Decathlon or nnU-Net, which has them in labelsTr.
        pred: Folder of label volumes.
        classes: Label -> name; by default those of the task's dataset.json, and without it the labels in all files.
            Label 0 is the background.
        tolerance_mm: Tolerance of NSD in mm; by default that of the Decathlon's task after which the folder is named.
            Without a tolerance there is no NSD.
        ignore_label: Labels of the ground truth that are not scored; by default nnU-Net's label `ignore`.
        allow_missing: Leave out volumes without a prediction.
        allow_extra: Skip predictions of volumes that the ground truth lacks.
        workers: Number of processes, at least 1.
        shard: The part of the volumes to count.
        progress: Called with (volumes done, all) after each volume.
        limit: Number of errors at which the search for errors stops, at least 1.

    Returns:
        The counts of the shard's volumes.

    Raises:
        DatasetError: The files have errors; lists up to `limit` of them.
        ConfigError: The tolerance or the classes are invalid, or scipy is not installed.
        ValueError: `workers` or `limit` is below 1.
    """
    errors = ErrorCollector(limit)
    task = read_label_task(gt, classes, tolerance_mm)
    if task.tolerance_mm is not None:
        import_distance_transform()
    gt_paths = list_label_volumes(task.label_folder, errors.add_issue)
    pred_paths = list_label_volumes(Path(pred), errors.add_issue)
    pairs = [_Pair(name, path, pred_paths[name]) for name, path in gt_paths.items() if name in pred_paths]
    missing, extra = sorted(gt_paths.keys() - pred_paths.keys()), sorted(pred_paths.keys() - gt_paths.keys())
    report_unmatched(
        errors,
        Path(pred),
        len(gt_paths),
        () if allow_missing and pairs else missing,
        () if allow_extra else extra,
        missing_remedy="predict them, or leave them out with --allow-missing",
        extra_remedy="is it the right folder? Skip them with --allow-extra",
        what="volumes",
    )
    errors.check()
    ignored = {*(task.ignored if ignore_label is None else ignore_label)}
    if unfit := [label for label in ignored if not BACKGROUND < label <= MAX_LABEL]:
        raise ConfigError(f"expected ignored labels in 1..{MAX_LABEL}, got {abbreviate(unfit)}; 0 is the background")
    names = task.names or _find_names(pairs, ignored, workers, errors)
    labels = sorted({BACKGROUND, *names} - ignored)
    class_names = [names.get(label, "background") for label in labels]

    def build_metric() -> VolumeScores:
        return VolumeScores(class_names, task.tolerance_mm, BACKGROUND, VOID)

    def count(pair: _Pair) -> VolumeScores:
        ground_truth, spacing_mm = read_label_volume(pair.gt_path)
        prediction, _ = read_label_volume(pair.pred_path, like=pair.gt_path)
        scores = build_metric()
        rows = (
            _to_rows(ground_truth, labels, ignored, pair.gt_path),
            _to_rows(prediction, labels, set(), pair.pred_path),
        )
        scores.update(pair.name, *rows, spacing_mm)
        return scores

    scores = build_metric()
    for _, counts in map_and_collect_errors(count, shard.select(pairs), errors, workers, progress):
        scores.merge(counts)
    return scores


def _find_names(pairs: list[_Pair], ignored: set[int], workers: int, errors: ErrorCollector) -> dict[int, str]:
    """A name for each label in the files."""
    paths = [path for pair in pairs for path in (pair.gt_path, pair.pred_path)]
    labels: set[int] = set()
    for _, found in map_and_collect_errors(_read_labels, paths, errors, workers):
        labels |= found
    return {label: f"label {label}" for label in sorted(labels - ignored - {BACKGROUND})}


def _read_labels(path: Path) -> set[int]:
    return {*np.unique(read_label_volume(path)[0]).tolist()}


def _to_rows(volume: Labels, labels: list[int], ignored: set[int], path: Path) -> NDArray[np.signedinteger]:
    """The position in `labels` of each voxel, `VOID` where it is ignored; DatasetError for other labels."""
    table = np.full(MAX_LABEL + 1, UNKNOWN, dtype=np.min_scalar_type(-len(labels) - 1))
    table[labels] = range(len(labels))
    table[[*ignored]] = VOID
    rows: NDArray[np.signedinteger] = table.take(volume)
    if rows.min() == UNKNOWN:
        unknown = np.unique(volume[rows == UNKNOWN]).tolist()
        problem = f"expected labels among {abbreviate(labels)}, got {abbreviate(unknown)} too"
        raise DatasetError(problem, where=path, remedy="name all labels (--classes), or repair the volume")
    return rows
