"""From matches to COCO's numbers: the precision and recall curves of COCOeval.accumulate, bit for bit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.instances.coco_matching import AREAS_PX, IOU_THRESHOLDS, MAX_DETECTIONS, RECALLS, SETTINGS, Matches

# COCOeval.summarize's twelve numbers, in its order.
STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
ALL, SMALL, MEDIUM, LARGE = range(len(AREAS_PX))
UNDEFINED = -1.0  # COCOeval's value where there is nothing to find
EPSILON = np.spacing(1)


class Curves(NamedTuple):
    """COCOeval's `precision` at 100 detections, (10 IoU thresholds, 101 recalls, things, 4 area ranges), and `recall`,
    (10, things, 4, 3 numbers of detections); float64, UNDEFINED where there is nothing to find."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def compute_curves(matches: Matches, gt_counts: NDArray[np.int64], image_place: NDArray[np.int64]) -> Curves:
    """The curves of all things (pycocotools cocoeval.py, accumulate).

    gt_counts: (things, 4) ground truth to find. image_place: (images,) the place of each image index in the order that
    settles equal scores; of equal scores in an image the one matched first comes first.
    """
    things, thresholds = len(gt_counts), len(IOU_THRESHOLDS)
    precision = np.full((thresholds, len(RECALLS), things, len(AREAS_PX)), UNDEFINED)
    recall = np.full((thresholds, things, len(AREAS_PX), len(MAX_DETECTIONS)), UNDEFINED)
    order = np.lexsort((matches.rank, image_place[matches.image], matches.thing))
    stops = np.searchsorted(matches.thing[order], np.arange(things), side="right")
    for thing, (start, stop) in enumerate(zip([0, *stops.tolist()], stops.tolist(), strict=False)):
        rows = order[start:stop]
        rows = rows[np.argsort(-matches.score[rows], kind="stable")]
        true, false = (np.unpackbits(bits[rows], axis=1) for bits in (matches.tp, matches.fp))
        defined = gt_counts[thing] > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            found = _recall(true, matches.rank[rows], gt_counts[thing])
        recall[:, thing, defined] = found[:, defined]
        precision[:, :, thing, defined] = _precision(true, false, gt_counts[thing])[:, :, defined]
    return Curves(precision, recall)


def summarize(compute_curves: Curves) -> dict[str, float | None]:
    """STATS in percent (COCOeval.summarize); None where nothing is defined."""
    precision, recall = compute_curves
    at50, at75 = (int(np.flatnonzero(value == IOU_THRESHOLDS)[0]) for value in (0.5, 0.75))
    numbers = [precision[..., ALL], precision[at50, ..., ALL], precision[at75, ..., ALL]]
    numbers += [precision[..., area] for area in (SMALL, MEDIUM, LARGE)]
    numbers += [recall[..., ALL, number] for number in range(len(MAX_DETECTIONS))]
    numbers += [recall[..., area, -1] for area in (SMALL, MEDIUM, LARGE)]
    return {name: mean_percent(values) for name, values in zip(STATS, numbers, strict=True)}


def mean_percent(values: NDArray[np.float64]) -> float | None:
    """The mean of what is defined, in C order as COCOeval adds it up; None of nothing."""
    defined = values[values > UNDEFINED]
    return float(np.mean(defined) * 100) if defined.size else None


def _recall(true: NDArray[np.uint8], rank: NDArray[np.uint8], gt_counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(10, 4, 3) recall of one class."""
    found = np.stack([true[rank < number].sum(axis=0, dtype=np.int64) for number in MAX_DETECTIONS], axis=-1)
    by_area = found.reshape(len(AREAS_PX), len(IOU_THRESHOLDS), len(MAX_DETECTIONS))
    recall: NDArray[np.float64] = (by_area / gt_counts[:, None, None]).transpose(1, 0, 2)
    return recall


def _precision(true: NDArray[np.uint8], false: NDArray[np.uint8], gt_counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(10, 101, 4) interpolated precision of one class; what nothing is to be found of is left to the caller.

    true, false: (N, 40) flags by falling score. Only after a true positive can the precision be the highest from there
    on, and only there does recall rise: the curve needs one value per true positive.
    """
    setting, row = np.nonzero(true.T)
    number = true.sum(axis=0, dtype=np.int64)
    found = np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number) + 1
    wrong = np.cumsum(false, axis=0, dtype=np.int64)[row, setting]
    # A column per true positive, and one of zeros: a recall that is not reached has precision 0.
    highest = np.zeros((SETTINGS, int(number.max(initial=0)) + 1))
    highest[setting, found - 1] = found / (wrong + found + EPSILON)
    highest = np.maximum.accumulate(highest[:, ::-1], axis=1)[:, ::-1]
    by_area = highest.reshape(len(AREAS_PX), len(IOU_THRESHOLDS), -1)
    compute_curves = np.zeros((len(AREAS_PX), len(IOU_THRESHOLDS), len(RECALLS)))
    for area, total in enumerate(gt_counts.tolist()):
        needed = np.searchsorted(np.arange(total + 1) / max(total, 1), RECALLS, side="left")  # true positives
        compute_curves[area] = by_area[area][:, np.minimum(np.maximum(needed, 1), by_area.shape[-1]) - 1]
    by_threshold: NDArray[np.float64] = compute_curves.transpose(1, 2, 0)
    return by_threshold
