"""From matches to COCO's metrics: the precision and recall curves of COCOeval.accumulate, bit for bit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.instances.coco_matching import AREAS_PX, IOU_THRESHOLDS, MAX_DETECTIONS, RECALLS, SETTINGS, Matches

# The twelve metrics of COCOeval.summarize, in its order.
STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
ALL, SMALL, MEDIUM, LARGE = range(len(AREAS_PX))
UNDEFINED = -1.0  # COCOeval's value without ground truth
EPSILON = np.spacing(1)

FloatArray = NDArray[np.float64]


class Curves(NamedTuple):
    """Curves of all things; float64, UNDEFINED without ground truth.

    precision: (10 IoU thresholds, 101 recalls, things, 4 area ranges), COCOeval's at 100 detections. recall: (10,
    things, 4, 3 numbers of detections).
    """

    precision: FloatArray
    recall: FloatArray


def compute_curves(matches: Matches, gt_counts: NDArray[np.int64], image_rank: NDArray[np.int64]) -> Curves:
    """Compute the curves of all things (pycocotools cocoeval.py, accumulate).

    gt_counts: (things, 4) numbers of ground truth instances. image_rank: (images,) rank of each image index in the
    order that settles equal scores; of equal scores in an image the result that was matched first is first.
    """
    things, thresholds = len(gt_counts), len(IOU_THRESHOLDS)
    precision = np.full((thresholds, len(RECALLS), things, len(AREAS_PX)), UNDEFINED)
    recall = np.full((thresholds, things, len(AREAS_PX), len(MAX_DETECTIONS)), UNDEFINED)
    order = np.lexsort((matches.rank, image_rank[matches.image], matches.thing))
    stops = np.searchsorted(matches.thing[order], np.arange(things), side="right")
    for thing, (start, stop) in enumerate(zip([0, *stops.tolist()], stops.tolist(), strict=False)):
        rows = order[start:stop]
        rows = rows[np.argsort(-matches.score[rows], kind="stable")]
        tp, fp = (np.unpackbits(bits[rows], axis=1) for bits in (matches.tp, matches.fp))
        defined = gt_counts[thing] > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            recall[:, thing, defined] = _compute_recall(tp, matches.rank[rows], gt_counts[thing])[:, defined]
        precision[:, :, thing, defined] = _compute_precision(tp, fp, gt_counts[thing])[:, :, defined]
    return Curves(precision, recall)


def summarize(curves: Curves) -> dict[str, float | None]:
    """STATS in percent (COCOeval.summarize); None if nothing is defined."""
    precision, recall = curves
    at50, at75 = (int(np.flatnonzero(value == IOU_THRESHOLDS)[0]) for value in (0.5, 0.75))
    columns = [precision[..., ALL], precision[at50, ..., ALL], precision[at75, ..., ALL]]
    columns += [precision[..., area] for area in (SMALL, MEDIUM, LARGE)]
    columns += [recall[..., ALL, index] for index in range(len(MAX_DETECTIONS))]
    columns += [recall[..., area, -1] for area in (SMALL, MEDIUM, LARGE)]
    return {name: mean_percent(values) for name, values in zip(STATS, columns, strict=True)}


def mean_percent(values: FloatArray) -> float | None:
    """The mean of the defined values, added in C order as COCOeval does; None without any."""
    defined = values[values > UNDEFINED]
    return float(np.mean(defined) * 100) if defined.size else None


def _compute_recall(tp: NDArray[np.uint8], rank: NDArray[np.uint8], gt_counts: NDArray[np.int64]) -> FloatArray:
    """(10, 4, 3) recall of one class."""
    hits = np.stack([tp[rank < number].sum(axis=0, dtype=np.int64) for number in MAX_DETECTIONS], axis=-1)
    by_area = hits.reshape(len(AREAS_PX), len(IOU_THRESHOLDS), len(MAX_DETECTIONS))
    recall: FloatArray = (by_area / gt_counts[:, None, None]).transpose(1, 0, 2)
    return recall


def _compute_precision(tp: NDArray[np.uint8], fp: NDArray[np.uint8], gt_counts: NDArray[np.int64]) -> FloatArray:
    """(10, 101, 4) interpolated precision of one class; areas without ground truth are left to the caller.

    tp, fp: (N, 40) flags by falling score. Only after a true positive can the precision be the highest from there on,
    and only there does recall rise: the curve needs one value per true positive.
    """
    setting, row = np.nonzero(tp.T)
    number = tp.sum(axis=0, dtype=np.int64)
    hits = np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number) + 1
    false_positives = np.cumsum(fp, axis=0, dtype=np.int64)[row, setting]
    # A column per true positive, and one of zeros: a recall that is not reached has precision 0.
    highest = np.zeros((SETTINGS, int(number.max(initial=0)) + 1))
    highest[setting, hits - 1] = hits / (false_positives + hits + EPSILON)
    highest = np.maximum.accumulate(highest[:, ::-1], axis=1)[:, ::-1]
    by_area = highest.reshape(len(AREAS_PX), len(IOU_THRESHOLDS), -1)
    curves = np.zeros((len(AREAS_PX), len(IOU_THRESHOLDS), len(RECALLS)))
    for area, total in enumerate(gt_counts.tolist()):
        needed = np.searchsorted(np.arange(total + 1) / max(total, 1), RECALLS, side="left")  # true positives
        curves[area] = by_area[area][:, np.minimum(np.maximum(needed, 1), by_area.shape[-1]) - 1]
    by_threshold: FloatArray = curves.transpose(1, 2, 0)
    return by_threshold
