"""Semantic IoU of saved label maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from segkit.metrics import SemanticIoU
from segkit.scoring.label_sources import (
    IGNORED,
    LabelFolder,
    LabelSpace,
    MaskResults,
    PanopticMaps,
    build_label_space,
    scan_label_space,
)
from segkit.structures import CategorySet
from segkit.utils.errors import DatasetError
from segkit.utils.issues import DEFAULT_LIMIT, ErrorCollector
from segkit.utils.process_pool import Progress, Shard, ordered_map
from segkit.utils.text import abbreviate

Truths = LabelFolder | PanopticMaps
Predictions = LabelFolder | MaskResults


def score_semantic(
    gt: str | Path,
    pred: str | Path,
    *,
    classes: CategorySet | Sequence[str] | None = None,
    gt_folder: str | Path | None = None,
    ignore_label: int | Collection[int] | None = None,
    gt_suffix: str = "",
    pred_suffix: str = "",
    thing_channels: str = "per_class",
    png_values: str = "category_id",
    boundary: bool = False,
    allow_extra: bool = False,
    workers: int = 1,
    shard: Shard = Shard(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
    limit: int = DEFAULT_LIMIT,
) -> SemanticIoU:
    """Count the predicted label maps of every image of the ground truth, or of the shard's images.

    gt: a folder of label PNGs (`label_maps.read`), or a COCO panoptic JSON with its PNGs in `gt_folder`, by default the
    folder beside it of its name without `.json`; void is ignored. pred: a folder of label PNGs, or Detectron2's
    sem_seg_predictions.json.
    classes: names of the labels 0, 1, ..., or categories; a panoptic JSON has its own. Without, they are the labels
    found in all files, whatever the shard: one reading more. With categories, values of PNGs are category ids, or the
    channels of `build_semantic_space(thing_channels)` where png_values is "channel"; category ids of a JSON are
    always those of the dataset. Where thing_channels is "one", all things, and id 0, are the channel 0.
    ignore_label: the value (of a panoptic JSON: category_id) of the ground truth, or values, to be left out, also
    where one is a class; by default of PNGs `IGNORE_LABEL` where that is no class. Void is left out in any case.
    gt_suffix, pred_suffix: end of the file names, as in `_gtFine_labelTrainIds.png`, by default `.png`; of the image
    names in a JSON, by default the extension. What is left of a prediction's path must be the ground truth's or end in
    it; a prediction without a folder belongs to the ground truth of its name, where there is one such.
    allow_extra: predictions of images that the ground truth lacks are passed over.
    Raises DatasetError that tells all that is wrong with the files, up to `limit` problems, and ValueError for another
    thing_channels or png_values.
    """
    problems = ErrorCollector(limit)
    ground_truths = _truths(gt, gt_folder, gt_suffix, problems)
    predictions = _predictions(pred, pred_suffix, problems)
    prediction_of = _matched(ground_truths.names, predictions.names, Path(pred), problems, allow_extra)
    problems.check()
    ignored = {ignore_label} if isinstance(ignore_label, int) else ignore_label
    classes = ground_truths.categories if classes is None else classes
    if classes is None:
        sources = [source for source in (ground_truths, predictions) if not isinstance(source, PanopticMaps)]
        space = scan_label_space(sources, ignored, workers, problems)
    else:
        space = build_label_space(classes, ignored, thing_channels, png_values)
    metric = SemanticIoU(space.names, IGNORED, boundary=boundary)

    def count(name: str) -> SemanticIoU | DatasetError:
        one = SemanticIoU(space.names, IGNORED, boundary=boundary)
        try:
            _count(one, ground_truths, predictions, space, name, prediction_of[name])
        except DatasetError as error:
            return error
        return one

    names = shard.select(ground_truths.names)
    for done, found in enumerate(ordered_map(count, names, workers), 1):
        if isinstance(found, DatasetError):
            problems.add(found)
        else:
            metric.merge(found)
        if progress is not None:
            progress(done, len(names))
    problems.check()
    return metric


def _truths(gt: str | Path, folder: str | Path | None, suffix: str, problems: ErrorCollector) -> Truths:
    path = Path(gt)
    return (
        PanopticMaps(path, folder, suffix, problems)
        if path.is_file()
        else LabelFolder(path, suffix, is_ground_truth=True)
    )


def _predictions(pred: str | Path, suffix: str, problems: ErrorCollector) -> Predictions:
    path = Path(pred)
    return MaskResults(path, suffix, problems) if path.is_file() else LabelFolder(path, suffix, is_ground_truth=False)


def _matched(
    ground_truths: Iterable[str], predictions: Iterable[str], where: Path, problems: ErrorCollector, allow_extra: bool
) -> dict[str, str]:
    """The prediction of each ground truth, by their names."""
    names = {*ground_truths}
    bare = Counter(name.rsplit("/")[-1] for name in names)
    only = {last: name for name in names if bare[last := name.rsplit("/")[-1]] == 1}
    prediction_of: dict[str, str] = {}
    extra = []
    for prediction in predictions:
        parts = prediction.split("/")
        tails = ("/".join(parts[first:]) for first in range(len(parts)))
        name = next((tail for tail in tails if tail in names), only.get(prediction))
        if name is None:
            extra.append(prediction)
        elif name in prediction_of:
            problem = f"expected one prediction of {name!r}, got {prediction_of[name]!r} and {prediction!r}"
            problems.add(DatasetError(problem, where=where))
        else:
            prediction_of[name] = prediction
    missing = sorted(names - prediction_of.keys())
    if missing:
        problem = f"{len(missing)} of {len(names)} images have no prediction: {abbreviate(missing)}"
        remedy = "predict them; do the names differ by more than a suffix? Name it"
        problems.add(DatasetError(problem, where=where, remedy=remedy))
    if extra and not allow_extra:
        problem = f"{len(extra)} predictions are of images that the ground truth lacks: {abbreviate(extra)}"
        problems.add(DatasetError(problem, where=where, remedy="is it the right folder? Pass them over"))
    return prediction_of


def _count(
    metric: SemanticIoU, ground_truths: Truths, predictions: Predictions, space: LabelSpace, name: str, prediction: str
) -> None:
    ground_truth = ground_truths.channels(name, space)
    size_hw = ground_truth.shape[0], ground_truth.shape[1]
    where = f"{ground_truths.place(name)} (prediction {predictions.place(prediction)})"
    metric.update(ground_truth, predictions.channels(prediction, space, size_hw), where)
