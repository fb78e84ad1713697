"""Why metrics are undefined: a line for each reason, from the results and the categories alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segkit.structures import CategorySet
from segkit.utils.text import abbreviate

NOTES = "notes"  # key of the lines among the tasks of results
OF_THIS_SIZE = "of this size (s: below 32² pixels, m: to 96², l: above)"
Reasons = Iterator[tuple[str, str]]  # metric, reason


def add_notes(
    results: Mapping[str, Any], categories: CategorySet | None = None, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Add the reasons of `explain_undefined` to results.

    Args:
        results: Task -> its metrics.
        categories: The categories of the dataset, if they are known.
        notes: Lines that follow the reasons.

    Returns:
        The results, and with the key `notes` the lines, if there are any.
    """
    lines = [*explain_undefined(results, categories), *notes]
    return {**results, NOTES: lines} if lines else {**results}


def explain_undefined(results: Mapping[str, Any], categories: CategorySet | None = None) -> list[str]:
    """Say why metrics are undefined: None, or NaN in the results of other evaluators.

    Metrics that are undefined for the same reason share a line. If an average is undefined, its parts are not named.

    Args:
        results: Task -> its metrics, as `PanopticQuality`, `VideoPanopticQuality`, `AveragePrecision`, `CityscapesAP`,
            `SemanticIoU` and `VolumeScores` name them; other tasks are skipped.
        categories: The categories of the dataset. They distinguish a class without segments from a dataset without such
            classes, and name the classes of panoptic quality.

    Returns:
        The lines; none if all metrics are defined.
    """
    metrics_by_reason: dict[str, list[str]] = {}
    has_value: dict[str, dict[str, bool]] = {}  # task -> class -> whether it has a metric
    for task, values in results.items():
        lead = next((metric for metric in _EXPLAIN if isinstance(values, Mapping) and metric in values), None)
        if lead is None:
            continue
        for metric, reason in _EXPLAIN[lead](values, categories):
            metrics_by_reason.setdefault(reason, []).append(f"{task} {metric}")
        if not _is_undefined(values[lead]):
            has_value[task] = _find_classes(values, categories)
    lines = [
        f"{', '.join(metrics)} {'is' if len(metrics) == 1 else 'are'} undefined: {reason}"
        for reason, metrics in metrics_by_reason.items()
    ]
    return lines + _describe_absent_classes(has_value)


def _explain_panoptic(values: Mapping[str, Any], categories: CategorySet | None) -> Reasons:
    nothing = "ground truth and predictions have no segment"
    if _is_undefined(values["PQ"]):
        yield "PQ", f"{nothing} that counts (crowds do not)"
        return
    for name in ("PQ", "PQ_th", "PQ_st"):
        if isinstance(values.get(name), float) and math.isinf(values[name]):
            yield name, "declared areas that contradict their maps make it infinite"
    for name, kind, isthing in (("PQ_th", "things", True), ("PQ_st", "stuff", False)):
        if _is_undefined(values.get(name, 0)):
            lacks_classes = categories is not None and all(c.isthing != isthing for c in categories.categories)
            yield name, f"the dataset has no classes of {kind}" if lacks_classes else f"{nothing} of {kind}"
        elif _is_undefined(values.get(f"PQ_dagger{name[2:]}", 0)):
            yield f"PQ_dagger{name[2:]}", f"the ground truth has no segment of {kind}"
    for name in ("PQs", "PQm", "PQl"):
        if _is_undefined(values.get(name, 0)):
            yield name, f"{nothing} {OF_THIS_SIZE}"


def _explain_video_panoptic(values: Mapping[str, Any], categories: CategorySet | None) -> Reasons:
    windows = [name for name in values if name.startswith("VPQ") and name[3:].isdecimal()]
    undefined = [name for name in windows if _is_undefined(values[name])]
    if windows and len(undefined) == len(windows):
        yield "VPQ", "ground truth and predictions have no segment that counts (crowds do not), or the videos no frames"
        return
    for name in undefined:
        yield name, f"no video with segments that count has {name[3:]} frames"
    if undefined:
        yield "VPQ", f"it is the mean of {', '.join(windows)}"
    for name, kind, isthing in (("VPQ_th", "things", True), ("VPQ_st", "stuff", False)):
        if _is_undefined(values.get(name, 0)) and not undefined:
            lacks_classes = categories is not None and all(c.isthing != isthing for c in categories.categories)
            nothing = f"there is a window length for which no segment of {kind} counts"
            yield name, f"the dataset has no classes of {kind}" if lacks_classes else nothing
    if _is_undefined(values.get("AQ", 0)):
        lacks_things = categories is not None and not categories.things
        nothing = "the ground truth has no thing that counts (crowds do not)"
        yield "STQ", "the dataset has no classes of things" if lacks_things else nothing


def _explain_ap(values: Mapping[str, Any], categories: CategorySet | None) -> Reasons:
    if _is_undefined(values["AP"]):
        lacks_things = categories is not None and not categories.things
        nothing = "the ground truth has no object that counts (crowds do not)"
        yield "AP", "the dataset has no classes of things" if lacks_things else nothing
        return
    for name in ("APs", "APm", "APl"):
        if _is_undefined(values.get(name, 0)):
            yield name, f"the ground truth has no object {OF_THIS_SIZE}"


def _explain_semantic(values: Mapping[str, Any], categories: CategorySet | None) -> Reasons:
    if _is_undefined(values["mIoU"]):
        names = [*_find_classes(values, categories)]
        only_class = f"there is only the class {names[0]!r}, which every prediction has right" if names else ""
        yield "mIoU", only_class if len(names) == 1 else "the ground truth has no pixel of a class"


def _explain_volumes(values: Mapping[str, Any], categories: CategorySet | None) -> Reasons:
    if _is_undefined(values["mDice"]):
        yield "mDice", "ground truth and predictions have no voxel of a class"


# By the metric that identifies a kind of results; mIoU stands before mDice, which semantic IoU has too.
_EXPLAIN = {
    "PQ": _explain_panoptic,
    "VPQ": _explain_video_panoptic,
    "AP": _explain_ap,
    "mIoU": _explain_semantic,
    "mDice": _explain_volumes,
}


def _find_classes(values: Mapping[str, Any], categories: CategorySet | None) -> dict[str, bool]:
    """Class -> whether its metric is defined."""
    lead = next((name for name in ("PQ", "VPQ") if name in values), None)
    if lead is not None:
        names = {str(c.category_id): c.name for c in categories.categories} if categories else {}
        rows = values.get("per_class", {})
        return {names.get(key, key): not _is_undefined(row.get(lead)) for key, row in rows.items()}
    prefix = next(prefix for metric, prefix in _PREFIXES.items() if metric in values)
    return {
        key.removeprefix(prefix): not _is_undefined(value) for key, value in values.items() if key.startswith(prefix)
    }


_PREFIXES = {"AP": "AP-", "mIoU": "IoU-", "mDice": "Dice-"}


def _describe_absent_classes(has_value: Mapping[str, Mapping[str, bool]]) -> list[str]:
    """A line for the classes without any metric, and one for each further set of classes that some tasks lack."""
    names = list(dict.fromkeys(name for classes in has_value.values() for name in classes))
    absent = [name for name in names if not any(classes.get(name, False) for classes in has_value.values())]
    lines = [_describe_classes(absent, len(names))] if absent else []
    tasks_by_classes: dict[tuple[str, ...], list[str]] = {}
    for task, classes in has_value.items():
        further = tuple(name for name, is_known in classes.items() if not is_known and name not in absent)
        if further:
            tasks_by_classes.setdefault(further, []).append(task)
    return lines + [
        f"{', '.join(tasks)}: {_describe_classes(further, len(has_value[tasks[0]]))}"
        for further, tasks in tasks_by_classes.items()
    ]


def _describe_classes(absent: Sequence[str], number: int) -> str:
    return f"{len(absent)} of {number} classes have no ground truth that counts: {abbreviate(absent)}"


def _is_undefined(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
