"""The search for the best fusion: half of the images choose a setting, the other half say what it is worth."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from segkit.formats.coco import PanopticRecord
from segkit.metrics import PanopticQuality
from segkit.metrics.panoptic import counts as counting
from segkit.metrics.panoptic.bootstrap import SEED, compare, confidence_intervals
from segkit.metrics.panoptic.counts import Counts
from segkit.metrics.panoptic.matching import BoolArray, FloatArray
from segkit.metrics.panoptic.overlaps import ImageOverlaps, OverlapTable
from segkit.scoring.fusion.options import Setting, to_plain_options
from segkit.scoring.fusion.sweep import SweepData, count_settings
from segkit.structures import CategorySet, ImageId
from segkit.utils.errors import DatasetError
from segkit.utils.issues import DEFAULT_LIMIT
from segkit.utils.process_pool import Progress, ordered_map

ALL, TUNING, HELD_OUT = "all", "tuning", "held_out"
DEFAULT, TUNED, PER_CLASS = "default", "tuned", "per_class"
Numbers = dict[str, "float | None"]
NUMBERS = ("PQ", "PQ_th", "PQ_st", "SQ", "RQ")
# The common score threshold, by the names that methods give it, and the one by class that takes its place.
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
    """Try all settings of each method, the first being its default, and choose the best: for JSON, None = no number.

    `settings`: of each its method, options, whether it is the `default`, whether it is on the Pareto front of PQ_th and
    PQ_st over all images, and NUMBERS in percent over `all` images and over the two splits, `tuning` and `held_out`.
    `methods`: of each `default`, `tuned` (the best PQ on the tuning split; of equal ones that with the fewest changed
    options, then the first) and `per_class` (tuned, with a score threshold for each class; None where that was not
    asked for, the method has no such option or PQ does not rise), each {options, changed, tuning: NUMBERS,
    held_out: NUMBERS with intervals, gain: what `compare` says on the held-out split of this step and the default}.
    `best`: the method whose last step is best on the tuning split, and that step.
    `images`: how many each half has; `seed`: of the halves and the resamples.
    Raises DatasetError for fewer than two images, and whatever `count_settings` raises.
    """
    image_ids = [record.image_id for record in sweep_data.ground_truth.records]
    chosen = choose_tuning_split(image_ids, seed)
    groups = {ALL: {*image_ids}, TUNING: chosen, HELD_OUT: {*image_ids} - chosen}
    every = [setting for one in settings.values() for setting in one]
    counts = count_settings(sweep_data, every, groups, workers=workers, progress=progress, limit=limit)
    numbers = {name: [compute_averages(one, sweep_data.categories) for one in found] for name, found in counts.items()}
    methods = {}
    for name, listed in settings.items():
        known = [one for setting, one in zip(every, numbers[TUNING], strict=True) if setting.name == name]
        tuned = find_best_setting(listed, known)
        steps = {DEFAULT: (listed[0], known[0]), TUNED: (listed[tuned], known[tuned])}
        own = tune_class_thresholds(sweep_data, listed[tuned], chosen, workers=workers) if per_class else None
        if own is not None:
            steps[PER_CLASS] = own
        methods[name] = _confirmed(sweep_data, steps, groups[HELD_OUT], seed, workers)
    best = max(methods, key=lambda name: _last(methods[name])[TUNING]["PQ"] or 0.0)
    return {
        "images": {name: len(ids) for name, ids in groups.items()},
        "seed": seed,
        "best": {"method": best, "step": _last_step(methods[best])},
        "methods": methods,
        "settings": _rows(every, [listed[0] for listed in settings.values()], numbers, sweep_data.categories),
    }


def choose_tuning_split(image_ids: Sequence[ImageId], seed: int = SEED) -> set[ImageId]:
    """Half of the images, of an odd number the smaller half, by a hash of image_id and seed: whatever their order, and
    the same on every machine. DatasetError for fewer than two images."""
    if len(image_ids) < 2:
        got = f"expected at least 2 images, one to choose and one to confirm, got {len(image_ids)}"
        raise DatasetError(got, remedy="save the predictions of more images")
    ranked = sorted(image_ids, key=lambda image_id: hashlib.sha256(f"{seed} {image_id!r}".encode()).digest())
    return {*ranked[: len(ranked) // 2]}


def compute_averages(counts: Counts, categories: CategorySet) -> Numbers:
    """NUMBERS of (C,) counts, in percent, as `PanopticQuality.compute` gives them."""
    averages = counting.averages(counts, categories)
    return {name: averages[name] for name in NUMBERS}


def find_best_setting(settings: Sequence[Setting], numbers: Sequence[Numbers]) -> int:
    """The place of the setting with the best PQ; of equal ones that which differs in the fewest options from the first
    of its method, which is today's, then the first."""
    today = {setting.name: setting.options() for setting in reversed(settings)}
    ranks = []
    for setting, one in zip(settings, numbers, strict=True):
        changed = sum(value != today[setting.name][option] for option, value in setting.options().items())
        ranks.append((-(one["PQ"] or 0.0), changed))
    return ranks.index(min(ranks))


def find_pareto_front(points: FloatArray) -> BoolArray:
    """(S,) which of the (S, 2) points no other one beats: as good in both and better in one. A NaN is beaten by all."""
    values = np.nan_to_num(points, nan=-1.0)
    as_good = (values[:, None] >= values[None]).all(axis=2)
    better = (values[:, None] > values[None]).any(axis=2)
    front: BoolArray = np.logical_not((as_good & better).any(axis=0))
    return front


def tune_class_thresholds(
    sweep_data: SweepData, tuned: Setting, image_ids: Collection[ImageId], *, workers: int = 1
) -> tuple[Setting, Numbers] | None:
    """The setting with a score threshold of its own for each thing class whose PQ on these images rises by it, and its
    NUMBERS on them.

    Each class takes the threshold that is best for it when all classes have it; where the classes, together, do not
    hold what they promised, theirs is taken back. None where the method has no such option, or PQ does not rise.
    """
    options = tuned.options()
    common = next((option for option in SCORE_OPTIONS if option in options), None)
    if common is None or CLASS_SCORES not in options:
        return None
    trials = [tuned, *(_with(tuned, {common: score}) for score in CLASS_SCORE_GRID)]
    found = _counts(sweep_data, trials, image_ids, workers)
    scores = _best_scores(np.stack([_of_things(one, sweep_data.categories) for one in found]), options[common])
    quality, before = (
        _of_things(found[0], sweep_data.categories),
        compute_averages(found[0], sweep_data.categories)["PQ"] or 0.0,
    )
    while scores:
        made = _with(tuned, {CLASS_SCORES: {**options[CLASS_SCORES], **scores}})
        (after,) = _counts(sweep_data, [made], image_ids, workers)
        reached = _of_things(after, sweep_data.categories)
        kept = {class_id: score for class_id, score in scores.items() if reached[class_id] > quality[class_id]}
        if len(kept) == len(scores):
            numbers = compute_averages(after, sweep_data.categories)
            return (made, numbers) if (numbers["PQ"] or 0.0) > before else None
        scores = kept
    return None


def _best_scores(quality: FloatArray, common: float) -> dict[int, float]:
    """thing contiguous id -> the threshold of CLASS_SCORE_GRID with the best PQ, of equal ones the nearest to the
    common one; only where it beats that. quality: (1 + thresholds, things), the common threshold's first."""
    scores = {}
    for class_id, of_class in enumerate(quality.T):
        if of_class.max() > of_class[0]:
            equal = [CLASS_SCORE_GRID[place - 1] for place in np.flatnonzero(of_class == of_class.max()).tolist()]
            scores[class_id] = min(equal, key=lambda score: abs(score - common))
    return scores


def _of_things(counts: Counts, categories: CategorySet) -> FloatArray:
    """(things,) PQ in [0, 1] by thing contiguous id, 0 where there is no segment."""
    category_ids = np.array([thing.category_id for thing in categories.things], dtype=np.int64)
    quality: FloatArray = np.nan_to_num(counts.quality()[0], nan=0.0)[
        counting.get_category_rows(categories, category_ids)
    ]
    return quality


def _rows(
    settings: Sequence[Setting],
    usual: Sequence[Setting],
    numbers: Mapping[str, Sequence[Numbers]],
    categories: CategorySet,
) -> list[dict[str, Any]]:
    """What is told of each setting; usual: the defaults."""
    front = find_pareto_front(np.array([[one["PQ_th"], one["PQ_st"]] for one in numbers[ALL]], dtype=np.float64))
    return [
        {
            "method": setting.name,
            "options": to_plain_options(setting.options(), categories),
            "changed": to_plain_options(setting.changed(), categories),
            "default": any(setting is one for one in usual),
            "pareto": bool(front[place]),
            **{name: found[place] for name, found in numbers.items()},
        }
        for place, setting in enumerate(settings)
    ]


def _with(setting: Setting, options: Mapping[str, Any]) -> Setting:
    return Setting(setting.name, replace(setting.fusion, **options))  # type: ignore[type-var]


def _counts(
    sweep_data: SweepData, settings: Sequence[Setting], image_ids: Collection[ImageId], workers: int
) -> list[Counts]:
    return count_settings(sweep_data, settings, {TUNING: image_ids}, workers=workers)[TUNING]


def _confirmed(
    sweep_data: SweepData,
    steps: Mapping[str, tuple[Setting, Numbers]],
    image_ids: Collection[ImageId],
    seed: int,
    workers: int,
) -> dict[str, Any]:
    """What is told of a method: its steps on both halves, and what each has gained over the default."""
    categories = sweep_data.categories
    tables = _tables(sweep_data, {step: setting for step, (setting, _) in steps.items()}, image_ids, workers)
    told: dict[str, Any] = {}
    for step, (setting, numbers) in steps.items():
        told[step] = {
            "options": to_plain_options(setting.options(), categories),
            "changed": to_plain_options(setting.changed(), categories),
            TUNING: numbers,
            HELD_OUT: _headline(confidence_intervals(tables[step], categories, seed=seed)),
        }
        if step != DEFAULT:
            gain = compare(tables[DEFAULT], tables[step], categories, seed=seed)
            told[step]["gain"] = _headline(gain)
    return {PER_CLASS: None, **told}


def _tables(
    sweep_data: SweepData, steps: Mapping[str, Setting], image_ids: Collection[ImageId], workers: int
) -> dict[str, OverlapTable]:
    """Of each step, the overlaps of these images."""
    records = [record for record in sweep_data.ground_truth.records if record.image_id in image_ids]
    work = _Overlaps(sweep_data, [*steps.values()]).of
    metrics = [PanopticQuality(sweep_data.categories) for _ in steps]
    for record, found in zip(records, ordered_map(work, records, workers), strict=True):
        for metric, overlaps in zip(metrics, found, strict=True):
            metric.add(record.image_id, overlaps)
    order = [record.image_id for record in records]
    return {step: metric.table(order) for step, metric in zip(steps, metrics, strict=True)}


@dataclass(frozen=True)
class _Overlaps:
    sweep_data: SweepData
    settings: Sequence[Setting]

    def of(self, record: PanopticRecord) -> list[ImageOverlaps]:
        return self.sweep_data.overlaps(record, [setting.fusion for setting in self.settings])


def _headline(found: Mapping[str, Any]) -> dict[str, Any]:
    """Of intervals or a comparison: NUMBERS, and how they came about."""
    return {name: found[name] for name in (*NUMBERS, "level", "samples", "images", "reason")}


def _last_step(method: Mapping[str, Any]) -> str:
    return PER_CLASS if method.get(PER_CLASS) else TUNED


def _last(method: Mapping[str, Any]) -> Any:
    return method[_last_step(method)]
