"""Search for the best fusion: settings are chosen on a tuning split of the images and scored on the held-out split."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from segkit.metrics.comparison import SEED
from segkit.metrics.panoptic import counts as counting
from segkit.metrics.panoptic.bootstrap import compare, confidence_intervals
from segkit.metrics.panoptic.counts import Counts
from segkit.metrics.panoptic.matching import BoolArray, FloatArray
from segkit.metrics.panoptic.overlaps import OverlapTable, join
from segkit.scoring.fusion.options import Setting, to_plain_options
from segkit.scoring.fusion.sweep import SweepData, count_settings
from segkit.structures import CategorySet, ImageId
from segkit.utils.errors import DatasetError
from segkit.utils.issues import DEFAULT_LIMIT
from segkit.utils.process_pool import Progress, ordered_map

ALL, TUNING, HELD_OUT = "all", "tuning", "held_out"
DEFAULT, TUNED, PER_CLASS = "default", "tuned", "per_class"
Metrics = dict[str, "float | None"]
NUMBERS = ("PQ", "PQ_th", "PQ_st", "SQ", "RQ")  # the metrics that are reported, in percent
# Options for the common score threshold, and the option with thresholds by class that takes its place.
SCORE_OPTIONS, CLASS_SCORES = ("instance_score_threshold", "object_mask_threshold"), "class_score_thresholds"
CLASS_SCORE_GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def search(
    sweep_data: SweepData,
    settings: Mapping[str, Sequence[Setting]],
    *,
    per_class: bool = False,
    seed: int = SEED,
    workers: int = 1,
    progress: Progress | None = None,
    limit: int = DEFAULT_LIMIT,
) -> dict[str, Any]:
    """Try all settings of each method and choose the best.

    The result can be written as JSON; None stands for a metric without value. Its keys:

    - `settings`, for each setting: `method`, `options`, `changed` options, whether it is the `default` of its method,
      whether it is on the `pareto` front of PQ_th and PQ_st over all images, and NUMBERS in percent over `all` images
      and over the two splits, `tuning` and `held_out`.
    - `methods`, for each method the steps `default`, `tuned` (the best PQ on the tuning split; of equal settings the
      one with the fewest changed options, then the first) and `per_class` (tuned, with a score threshold for each
      class; None if that was not asked for, the method has no such option, or PQ does not rise). Each step has
      `options`, `changed`, `tuning`: NUMBERS, `held_out`: NUMBERS with confidence intervals, and but for the default
      `gain`: the comparison with the default on the held-out split.
    - `best`: the method whose last step is best on the tuning split, and that step.
    - `images`: how many images each split has. `seed`: of the splits and the resamples.

    Args:
        sweep_data: saved head outputs and ground truth.
        settings: method -> its settings, the default first.
        per_class: whether to tune score thresholds by class.
        seed: of the splits and the resamples.
        workers: number of processes.
        progress: called with (images done, images in all).
        limit: stop at so many errors.

    Returns:
        The result.

    Raises:
        DatasetError: there are fewer than two images; or as `count_settings`.
    """
    image_ids = [record.image_id for record in sweep_data.ground_truth.records]
    tuning_ids = choose_tuning_split(image_ids, seed)
    splits = {ALL: {*image_ids}, TUNING: tuning_ids, HELD_OUT: {*image_ids} - tuning_ids}
    every = [setting for of_method in settings.values() for setting in of_method]
    counts = count_settings(sweep_data, every, splits, workers=workers, progress=progress, limit=limit)
    metrics = {
        split: [compute_averages(of_setting, sweep_data.categories) for of_setting in of_split]
        for split, of_split in counts.items()
    }
    methods = {}
    for name, candidates in settings.items():
        on_tuning = [m for setting, m in zip(every, metrics[TUNING], strict=True) if setting.name == name]
        tuned = find_best_setting(candidates, on_tuning)
        steps = {DEFAULT: (candidates[0], on_tuning[0]), TUNED: (candidates[tuned], on_tuning[tuned])}
        if per_class and (step := tune_class_thresholds(sweep_data, candidates[tuned], tuning_ids, workers=workers)):
            steps[PER_CLASS] = step
        methods[name] = _score_steps(sweep_data, steps, splits[HELD_OUT], seed, workers)
    last_steps = {name: PER_CLASS if method[PER_CLASS] else TUNED for name, method in methods.items()}
    best = max(methods, key=lambda name: methods[name][last_steps[name]][TUNING]["PQ"] or 0.0)
    return {
        "images": {name: len(ids) for name, ids in splits.items()},
        "seed": seed,
        "best": {"method": best, "step": last_steps[best]},
        "methods": methods,
        "settings": _describe_settings(settings, metrics, sweep_data.categories),
    }


def choose_tuning_split(image_ids: Sequence[ImageId], seed: int = SEED) -> set[ImageId]:
    """Choose half of the images, of an odd number the smaller half.

    The choice is by a hash of image_id and seed: it does not depend on their order or the machine.

    Args:
        image_ids: all image ids, at least two.
        seed: of the choice.

    Returns:
        Image ids of the tuning split.

    Raises:
        DatasetError: there are fewer than two images.
    """
    if len(image_ids) < 2:
        problem = f"expected at least 2 images, one for tuning and one held out, got {len(image_ids)}"
        raise DatasetError(problem, remedy="save the predictions of more images")
    ranked = sorted(image_ids, key=lambda image_id: hashlib.sha256(f"{seed} {image_id!r}".encode()).digest())
    return {*ranked[: len(ranked) // 2]}


def compute_averages(counts: Counts, categories: CategorySet) -> Metrics:
    """Compute NUMBERS in percent, as `PanopticQuality.compute` does.

    Args:
        counts: (C,) counts.
        categories: their categories, in order.

    Returns:
        Metric -> value, None without segments.
    """
    averages = counting.averages(counts, categories)
    return {name: averages[name] for name in NUMBERS}


def find_best_setting(settings: Sequence[Setting], metrics: Sequence[Metrics]) -> int:
    """Find the setting with the best PQ.

    Of equal settings the one that differs in the fewest options from the default, the first setting of its method,
    then the first.

    Args:
        settings: settings of one or more methods.
        metrics: metrics of each.

    Returns:
        Index of the best setting.
    """
    default = {setting.name: setting.options() for setting in reversed(settings)}
    ranks = []
    for setting, values in zip(settings, metrics, strict=True):
        changed = sum(value != default[setting.name][option] for option, value in setting.options().items())
        ranks.append((-(values["PQ"] or 0.0), changed))
    return ranks.index(min(ranks))


def find_pareto_front(points: FloatArray) -> BoolArray:
    """Find the points that no other point beats, by being as good in both values and better in one.

    Args:
        points: (S, 2) float64; NaN is worse than every number.

    Returns:
        (S,) bool.
    """
    values = np.nan_to_num(points, nan=-1.0)
    is_as_good = (values[:, None] >= values[None]).all(axis=2)
    is_better = (values[:, None] > values[None]).any(axis=2)
    front: BoolArray = np.logical_not((is_as_good & is_better).any(axis=0))
    return front


def tune_class_thresholds(
    sweep_data: SweepData, tuned: Setting, image_ids: Collection[ImageId], *, workers: int = 1
) -> tuple[Setting, Metrics] | None:
    """Give a score threshold of its own to each thing class whose PQ rises by it.

    Each class takes the threshold that is best for it when all classes have that threshold. If some classes do not gain
    when all these thresholds are used together, theirs are dropped, and the rest is tried again.

    Args:
        sweep_data: saved head outputs and ground truth.
        tuned: the setting to improve.
        image_ids: images to tune on.
        workers: number of processes.

    Returns:
        The new setting and its metrics on these images; None if the method has no such option, or PQ does not rise.
    """
    options, categories = tuned.options(), sweep_data.categories
    common = next((option for option in SCORE_OPTIONS if option in options), None)
    if common is None or CLASS_SCORES not in options:
        return None

    def count(settings: Sequence[Setting]) -> list[Counts]:
        return count_settings(sweep_data, settings, {TUNING: image_ids}, workers=workers)[TUNING]

    counts = count([tuned, *(_change(tuned, {common: score}) for score in CLASS_SCORE_GRID)])
    quality = np.stack([_compute_thing_quality(of_setting, categories) for of_setting in counts])
    thresholds = _find_best_thresholds(quality, options[common])
    pq_before = compute_averages(counts[0], categories)["PQ"] or 0.0
    while thresholds:
        setting = _change(tuned, {CLASS_SCORES: {**options[CLASS_SCORES], **thresholds}})
        (counts_after,) = count([setting])
        after = _compute_thing_quality(counts_after, categories)
        gaining = {class_id: score for class_id, score in thresholds.items() if after[class_id] > quality[0, class_id]}
        if len(gaining) == len(thresholds):
            metrics = compute_averages(counts_after, categories)
            return (setting, metrics) if (metrics["PQ"] or 0.0) > pq_before else None
        thresholds = gaining
    return None


def _find_best_thresholds(quality: FloatArray, common: float) -> dict[int, float]:
    """Thing contiguous id -> best threshold of CLASS_SCORE_GRID, for classes in which it beats the common one.

    Of equal thresholds the nearest to the common one is taken. quality: (1 + thresholds, things) PQ, first the common
    threshold's.
    """
    thresholds = {}
    for class_id, by_threshold in enumerate(quality.T):
        if by_threshold.max() > by_threshold[0]:
            best = np.flatnonzero(by_threshold == by_threshold.max()).tolist()
            thresholds[class_id] = min((CLASS_SCORE_GRID[i - 1] for i in best), key=lambda score: abs(score - common))
    return thresholds


def _compute_thing_quality(counts: Counts, categories: CategorySet) -> FloatArray:
    """(things,) PQ in [0, 1] by thing contiguous id, 0 without segments."""
    category_ids = np.array([thing.category_id for thing in categories.things], dtype=np.int64)
    rows = counting.get_category_rows(categories, category_ids)
    quality: FloatArray = np.nan_to_num(counts.quality()[0], nan=0.0)[rows]
    return quality


def _describe_settings(
    settings: Mapping[str, Sequence[Setting]], metrics: Mapping[str, Sequence[Metrics]], categories: CategorySet
) -> list[dict[str, Any]]:
    front = find_pareto_front(np.array([[m["PQ_th"], m["PQ_st"]] for m in metrics[ALL]], dtype=np.float64))
    every = [(setting, setting is candidates[0]) for candidates in settings.values() for setting in candidates]
    return [
        {
            "method": setting.name,
            **_describe_options(setting, categories),
            "default": is_default,
            "pareto": bool(front[index]),
            **{split: of_split[index] for split, of_split in metrics.items()},
        }
        for index, (setting, is_default) in enumerate(every)
    ]


def _describe_options(setting: Setting, categories: CategorySet) -> dict[str, Any]:
    return {
        "options": to_plain_options(setting.options(), categories),
        "changed": to_plain_options(setting.changed(), categories),
    }


def _change(setting: Setting, options: Mapping[str, Any]) -> Setting:
    return Setting(setting.name, replace(setting.fusion, **options))  # type: ignore[type-var]


def _score_steps(
    sweep_data: SweepData,
    steps: Mapping[str, tuple[Setting, Metrics]],
    image_ids: Collection[ImageId],
    seed: int,
    workers: int,
) -> dict[str, Any]:
    """Metrics of a method's steps on both splits, and the gain of each step over the default."""
    categories = sweep_data.categories
    tables = _build_tables(sweep_data, {step: setting for step, (setting, _) in steps.items()}, image_ids, workers)
    scored: dict[str, Any] = {PER_CLASS: None}
    for step, (setting, metrics) in steps.items():
        intervals = confidence_intervals(tables[step], categories, seed=seed)
        described = _describe_options(setting, categories)
        scored[step] = {**described, TUNING: metrics, HELD_OUT: _select_numbers(intervals)}
        if step != DEFAULT:
            scored[step]["gain"] = _select_numbers(compare(tables[DEFAULT], tables[step], categories, seed=seed))
    return scored


def _build_tables(
    sweep_data: SweepData, steps: Mapping[str, Setting], image_ids: Collection[ImageId], workers: int
) -> dict[str, OverlapTable]:
    """The overlaps of each step on these images."""
    records = [record for record in sweep_data.ground_truth.records if record.image_id in image_ids]
    fusions = [setting.fusion for setting in steps.values()]
    results = ordered_map(lambda record: sweep_data.overlaps(record, fusions), records, workers)
    images = [(record.image_id, of_image) for record, of_image in zip(records, results, strict=True)]
    return {step: join([(image_id, of_image[i]) for image_id, of_image in images]) for i, step in enumerate(steps)}


def _select_numbers(result: Mapping[str, Any]) -> dict[str, Any]:
    """NUMBERS of intervals or of a comparison, and how they were computed."""
    return {name: result[name] for name in (*NUMBERS, "level", "samples", "images", "reason")}
