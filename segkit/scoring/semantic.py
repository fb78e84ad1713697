"""Semantic IoU of saved label maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from segkit.metrics import SemanticIoU
from segkit.scoring.label_sources import (
    IGNORED,
    LabelFolder,
    MaskResults,
    PanopticMaps,
    build_label_space,
    scan_label_space,
)
from segkit.scoring.panoptic import report_rewritten, report_unmatched
from segkit.structures import IGNORE_LABEL, CategorySet
from segkit.utils.errors import DatasetError
from segkit.utils.issues import DEFAULT_LIMIT, ErrorCollector
from segkit.utils.process_pool import EVERYTHING, Progress, Shard, map_and_collect_errors


def score_semantic(
    gt: str | Path,
    pred: str | Path,
    *,
    classes: CategorySet | Sequence[str] | Mapping[int, str] | None = None,
    gt_folder: str | Path | None = None,
    ignore_label: int | Collection[int] | None = None,
    gt_suffix: str = "",
    pred_suffix: str = "",
    thing_channels: str = "per_class",
    png_values: str = "category_id",
    boundary: bool = False,
    per_image: bool = False,
    allow_extra: bool = False,
    workers: int = 1,
    shard: Shard = EVERYTHING,
    progress: Progress | None = None,
    limit: int = DEFAULT_LIMIT,
) -> SemanticIoU:
    """Count the predicted label maps of every image of the ground truth, or of the shard's images.

    What is left of a prediction's path without the suffix must be the ground truth's path or end in it; a prediction
    without a folder belongs to the ground truth of its name, if there is only one.

    Args:
        gt: Folder of label PNGs, or COCO panoptic JSON, whose void is ignored.
        pred: Folder of label PNGs, or Detectron2's sem_seg_predictions.json.
        classes: Names of the labels 0, 1, ..., or names by label, or categories; a panoptic JSON has its own. None
            takes the labels in all files, whatever the shard, which reads the files once more.
        gt_folder: PNGs of the panoptic JSON; None finds them, see `find_png_folder`.
        ignore_label: Value or values (of a panoptic JSON: category_id) of the ground truth to leave out, also if one is
            a class; None is `IGNORE_LABEL` in PNGs, unless it is a class. Void is always left out.
        gt_suffix: End of the file names, such as `_gtFine_labelTrainIds.png`; "" is `.png`, and in a JSON the
            extension of the image names.
        pred_suffix: End of the predictions' file names, in the same way.
        thing_channels: "per_class" or "one"; the channels of `CategorySet.build_semantic_space`. With "one", all things
            and id 0 are channel 0.
        png_values: With categories, "category_id" if the values of PNGs are category ids, "channel" if they are
            channels. The category ids of a JSON are always those of the dataset.
        boundary: Compute boundary IoU too.
        per_image: Keep the counts of each image too, which `compare_semantic_iou` needs. Its id is the one in the
            panoptic JSON, or the path of its PNG without the suffix.
        allow_extra: Skip predictions of images that the ground truth lacks.
        workers: Number of processes, at least 1.
        shard: The part of the images to count.
        progress: Called with (images done, all) after each image.
        limit: Number of errors at which the search for errors stops, at least 1.

    Returns:
        The counts of the shard's images.

    Raises:
        DatasetError: The files have errors; lists up to `limit` of them.
        ValueError: thing_channels or png_values is unknown, or `workers` or `limit` is below 1.
    """
    errors = ErrorCollector(limit)
    gt_path, pred_path = Path(gt), Path(pred)
    ground_truth: PanopticMaps | LabelFolder = (
        PanopticMaps(gt_path, gt_folder, gt_suffix, errors)
        if gt_path.is_file()
        else LabelFolder(gt_path, gt_suffix, is_ground_truth=True)
    )
    predictions: MaskResults | LabelFolder = (
        MaskResults(pred_path, pred_suffix, errors)
        if pred_path.is_file()
        else LabelFolder(pred_path, pred_suffix, is_ground_truth=False)
    )
    prediction_of = _match_names(ground_truth.names, predictions.names, pred_path, errors, allow_extra)
    errors.check()
    ignored = {ignore_label} if isinstance(ignore_label, int) else ignore_label
    classes = ground_truth.categories if classes is None else classes
    if classes is None:
        sources = [source for source in (ground_truth, predictions) if not isinstance(source, PanopticMaps)]
        space = scan_label_space(sources, ignored, workers, errors)
    else:
        space = build_label_space(classes, ignored, thing_channels, png_values)

    def count(name: str) -> SemanticIoU:
        metric, prediction = SemanticIoU(space.names, IGNORED, boundary=boundary), prediction_of[name]
        gt_map = ground_truth.read_channels(name, space)
        where = f"{ground_truth.locate(name)} (prediction {predictions.locate(prediction)})"
        pred_map = predictions.read_channels(prediction, space, (gt_map.shape[0], gt_map.shape[1]))
        metric.update(gt_map, pred_map, where, ground_truth.get_image_id(name) if per_image else None)
        return metric

    metric = SemanticIoU(space.names, IGNORED, boundary=boundary)
    for _, counts in map_and_collect_errors(count, shard.select(ground_truth.names), errors, workers, progress):
        metric.merge(counts)
    return metric


def describe_void_label(
    metric: SemanticIoU,
    gt: str | Path,
    *,
    classes: CategorySet | Sequence[str] | Mapping[int, str] | None = None,
    ignore_label: int | Collection[int] | None = None,
    gt_suffix: str = "",
    thing_channels: str = "per_class",
    png_values: str = "category_id",
) -> list[str]:
    """Say that pixels of 255 are void, if that may be why a class is missing: masks of 0 and 255 are common.

    Args:
        metric: The counts of all images, see `score_semantic`, also for the other arguments.
        gt: Folder of label PNGs, or COCO panoptic JSON.
        classes: Names of the labels, or categories.
        ignore_label: The values that are left out.
        gt_suffix: End of the file names.
        thing_channels: "per_class" or "one".
        png_values: "category_id" or "channel".

    Returns:
        One line, or none if all of several classes have pixels, 255 is a class, or no PNG has it.
    """
    absent = [name for name, pixels in zip(metric.names, metric.confusion.sum(axis=0), strict=True) if not pixels]
    if not (absent or len(metric.names) == 1) or Path(gt).is_file() or ignore_label is not None:
        return []
    if classes is not None:
        space = build_label_space(classes, None, thing_channels, png_values)
        if space.gt_channels[IGNORE_LABEL] != IGNORED:
            return []
    folder = LabelFolder(gt, gt_suffix, is_ground_truth=True)
    if not any(IGNORE_LABEL in folder.read_values(name) for name in folder.names):
        return []
    first, last = (metric.names[0], absent[-1]) if absent and classes is not None else ("NAME", "NAME")
    remedy = f"--classes 0={first} {IGNORE_LABEL}={last}"
    return [f"pixels of {IGNORE_LABEL} are void: if {IGNORE_LABEL} is a class, name the labels, as in {remedy}"]


def _match_names(
    gt_names: Iterable[str], pred_names: Collection[str], where: Path, errors: ErrorCollector, allow_extra: bool
) -> dict[str, str]:
    """The prediction's name of each ground truth name."""
    names = {*gt_names}
    times = Counter(name.rsplit("/")[-1] for name in names)
    name_by_file = {file: name for name in names if times[file := name.rsplit("/")[-1]] == 1}
    prediction_of: dict[str, str] = {}
    extra = []
    for prediction in pred_names:
        parts = prediction.split("/")
        tails = ("/".join(parts[first:]) for first in range(len(parts)))
        name = next((tail for tail in tails if tail in names), name_by_file.get(prediction))
        if name is None:
            extra.append(prediction)
        elif name in prediction_of:
            problem = f"expected one prediction of {name!r}, got {prediction_of[name]!r} and {prediction!r}"
            errors.add(DatasetError(problem, where=where))
        else:
            prediction_of[name] = prediction
    missing, extra = report_rewritten(errors, where, sorted(names - prediction_of.keys()), extra, [*pred_names])
    report_unmatched(
        errors,
        where,
        len(names),
        missing,
        () if allow_extra else extra,
        missing_remedy="predict them; do the names differ by more than a suffix? Name it",
        extra_remedy="is it the right folder? Skip them",
    )
    return prediction_of
