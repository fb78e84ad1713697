"""Panoptic quality, equal to panopticapi's to the last bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from segkit.metrics.label_pairs import count_pairs
from segkit.metrics.per_image import PerImage
from segkit.structures import MAX_SEGMENT_ID, VOID, Category, CategorySet, DatasetError, PanopticSegmentation, Segment

MATCH_IOU = 0.5  # a match is strictly above (Kirillov et al. 2019, Panoptic Segmentation, section 4.1)
IGNORED_SHARE = 0.5  # an unmatched prediction is dropped with strictly more of it on void and crowd (panopticapi)

Numbers = dict[str, "float | None"]
Overlaps = dict[tuple[int, int], int]  # (true segment_id, predicted segment_id) -> pixels, ascending


@dataclass
class CategoryCounts:
    """One category in one image: IoUs of its matches by (true, predicted) segment_id, unmatched segments."""

    ious: list[float] = field(default_factory=list)
    fp: int = 0
    fn: int = 0


class PanopticQuality:
    """PQ = SQ x RQ over images (Kirillov et al. 2019, equation 1), by the rules of panopticapi's evaluation.py.

    A pair matches when both have one category, the true segment is no crowd and
    intersection / (union - predicted pixels on void) > 0.5. What is unmatched counts as false negative (true, no crowd)
    or false positive (predicted), but for predictions more than half of which lie on void and the category's crowd.
    Areas are counted in the maps; `Segment.area_px`, `isthing`, `score` and a prediction's `iscrowd` are not read.

    The state is the categories and, per image, a `CategoryCounts` per category_id present: no maps are kept,
    so that an instance is pickled and sent between processes at the cost of some numbers per image.
    """

    def __init__(self, categories: CategorySet) -> None:
        self.categories = categories
        self._images: PerImage[dict[int, CategoryCounts]] = PerImage()

    def update(self, image_id: int | str, truth: PanopticSegmentation, prediction: PanopticSegmentation) -> None:
        """Count one image; `Segment.category_id` is the dataset's category_id in both.

        Both maps: (H, W) integers, 0 = void. An all-void or empty map is allowed. Of several crowds of a category
        the last in `truth.segments` counts, as in panopticapi. Raises DatasetError, and counts nothing, where the
        sizes differ, the image was counted before, a category is unknown, or `segments` and the map do not name the
        same ids, each once and in [1, 2^24); ValueError where a map is not an (H, W) integer array.
        """
        where = f"image {image_id!r}"
        pairs = count_pairs(truth.segment_ids, prediction.segment_ids, where)
        overlaps = {(t, p): pixels for t, p, pixels in zip(*(column.tolist() for column in pairs), strict=True)}
        true_px, predicted_px = _areas(overlaps)
        truth_of = _segments_by_id(truth.segments, true_px, self.categories, f"{where}, truth")
        prediction_of = _segments_by_id(prediction.segments, predicted_px, self.categories, f"{where}, prediction")
        matches = _matches(truth_of, prediction_of, overlaps, true_px, predicted_px)
        self._images.add(image_id, _count(truth_of, prediction_of, matches, overlaps, predicted_px))

    def merge(self, other: PanopticQuality) -> None:
        """Add another shard's images after one's own; DatasetError where both hold an image, ValueError where the
        categories differ."""
        if self.categories != other.categories:
            raise ValueError("other must have the same categories as this PanopticQuality, they differ")
        self._images.merge(other._images)

    def compute(self, image_order: Sequence[int | str] | None = None) -> dict[str, Any]:
        """PQ, SQ, RQ over all categories, things (`_th`) and stuff (`_st`), in percent (float64), and `per_class`.

        `per_class` maps str(category_id) to {PQ, SQ, RQ, tp, fp, fn}. None stands for a number over nothing: a category
        without segments, a group without such a category. image_order: all images, in the order in which their IoUs
        are added (it moves the last bits); None is the order of `update`. Raises DatasetError where it does not name
        every image once. The averages run over category_id in ascending order, as panopticapi's do over its file's.
        """
        order = self._images.ids() if image_order is None else image_order
        totals = {category.category_id: _Total() for category in self.categories.categories}
        for _, counts in self._images.in_order(order):
            for category_id, one in counts.items():
                totals[category_id].add(one)
        results: dict[str, Any] = {}
        groups = (("", self.categories.categories), ("_th", self.categories.things), ("_st", self.categories.stuff))
        for suffix, group in groups:
            results.update({f"{name}{suffix}": value for name, value in _average(group, totals).items()})
        results["per_class"] = {str(category_id): total.as_dict() for category_id, total in totals.items()}
        return results


def _areas(overlaps: Overlaps) -> tuple[dict[int, int], dict[int, int]]:
    """Pixels of every true and of every predicted segment, void left out."""
    true_px: dict[int, int] = {}
    predicted_px: dict[int, int] = {}
    for (truth_id, predicted_id), pixels in overlaps.items():
        true_px[truth_id] = true_px.get(truth_id, 0) + pixels
        predicted_px[predicted_id] = predicted_px.get(predicted_id, 0) + pixels
    true_px.pop(VOID, None)
    predicted_px.pop(VOID, None)
    return true_px, predicted_px


def _segments_by_id(
    segments: Sequence[Segment], area_px: Mapping[int, int], categories: CategorySet, where: str
) -> dict[int, Segment]:
    by_id: dict[int, Segment] = {}
    for segment in segments:
        here = f"{where}, segment {segment.segment_id}"
        if segment.segment_id in by_id:
            raise DatasetError("expected every segment once, got this id a second time", where=here)
        if not VOID < segment.segment_id <= MAX_SEGMENT_ID:
            raise DatasetError(f"expected a segment id in [1, {MAX_SEGMENT_ID}]; {VOID} is void", where=here)
        if segment.category_id not in categories:
            known = [category.category_id for category in categories.categories]
            raise DatasetError(f"expected a category_id out of {known}, got {segment.category_id!r}", where=here)
        if segment.segment_id not in area_px:
            raise DatasetError("expected pixels with this id in the map, got none", where=here, remedy="drop it")
        by_id[segment.segment_id] = segment
    for segment_id in area_px:
        if segment_id not in by_id:
            raise DatasetError(
                f"expected a segment for every id of the map, got {area_px[segment_id]} pixels of an id without one",
                where=f"{where}, segment {segment_id}",
                remedy=f"add the segment or set its pixels to {VOID} (void)",
            )
    return by_id


def _matches(
    truth_of: Mapping[int, Segment],
    prediction_of: Mapping[int, Segment],
    overlaps: Overlaps,
    true_px: Mapping[int, int],
    predicted_px: Mapping[int, int],
) -> Iterator[tuple[int, int, float]]:
    """(true segment_id, predicted segment_id, IoU) of every match, ascending; segments match at most once."""
    for (truth_id, predicted_id), intersection in overlaps.items():
        if VOID in (truth_id, predicted_id) or truth_of[truth_id].iscrowd:
            continue
        if truth_of[truth_id].category_id != prediction_of[predicted_id].category_id:
            continue
        on_void = overlaps.get((VOID, predicted_id), 0)
        iou = intersection / (predicted_px[predicted_id] + true_px[truth_id] - intersection - on_void)
        if iou > MATCH_IOU:
            yield truth_id, predicted_id, iou


def _count(
    truth_of: Mapping[int, Segment],
    prediction_of: Mapping[int, Segment],
    matches: Iterator[tuple[int, int, float]],
    overlaps: Overlaps,
    predicted_px: Mapping[int, int],
) -> dict[int, CategoryCounts]:
    counts: dict[int, CategoryCounts] = {}
    matched_truth, matched_predictions = set(), set()
    for truth_id, predicted_id, iou in matches:
        counts.setdefault(truth_of[truth_id].category_id, CategoryCounts()).ious.append(iou)
        matched_truth.add(truth_id)
        matched_predictions.add(predicted_id)
    for truth_id, segment in truth_of.items():
        if truth_id not in matched_truth and not segment.iscrowd:
            counts.setdefault(segment.category_id, CategoryCounts()).fn += 1
    # panopticapi's rule: a later crowd of a category replaces an earlier one.
    crowd_of = {segment.category_id: truth_id for truth_id, segment in truth_of.items() if segment.iscrowd}
    for predicted_id, segment in prediction_of.items():
        if predicted_id in matched_predictions:
            continue
        ignored_px = overlaps.get((VOID, predicted_id), 0)
        if segment.category_id in crowd_of:
            ignored_px += overlaps.get((crowd_of[segment.category_id], predicted_id), 0)
        if ignored_px / predicted_px[predicted_id] <= IGNORED_SHARE:
            counts.setdefault(segment.category_id, CategoryCounts()).fp += 1
    return counts


@dataclass
class _Total:
    """One category over all images (panopticapi's PQStatCat)."""

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def add(self, counts: CategoryCounts) -> None:
        # One by one: `sum` compensates rounding from Python 3.12 on, panopticapi does not.
        for iou in counts.ious:
            self.iou += iou
        self.tp += len(counts.ious)
        self.fp += counts.fp
        self.fn += counts.fn

    def quality(self) -> tuple[float, float, float] | None:
        """PQ, SQ, RQ in [0, 1]; None without segments."""
        if self.tp + self.fp + self.fn == 0:
            return None
        size = self.tp + 0.5 * self.fp + 0.5 * self.fn
        return self.iou / size, self.iou / self.tp if self.tp else 0.0, self.tp / size

    def as_dict(self) -> dict[str, float | int | None]:
        return {**_percent(self.quality()), "tp": self.tp, "fp": self.fp, "fn": self.fn}


def _average(group: Sequence[Category], totals: Mapping[int, _Total]) -> Numbers:
    """Mean over the categories that have segments, added one by one like panopticapi's pq_average."""
    pq, sq, rq, present = 0.0, 0.0, 0.0, 0
    for category in group:
        quality = totals[category.category_id].quality()
        if quality is not None:
            pq, sq, rq = pq + quality[0], sq + quality[1], rq + quality[2]
            present += 1
    return _percent((pq / present, sq / present, rq / present) if present else None)


def _percent(quality: tuple[float, float, float] | None) -> Numbers:
    values = (None, None, None) if quality is None else tuple(100 * value for value in quality)
    return dict(zip(("PQ", "SQ", "RQ"), values, strict=True))
