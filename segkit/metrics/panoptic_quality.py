"""Panoptic quality, equal to panopticapi's to the last bit; and the same corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.boundary import DILATION_RATIO
from segkit.metrics.panoptic import counts as counting
from segkit.metrics.panoptic.matching import MODES, FloatArray, Matching, match, same_category
from segkit.metrics.panoptic.overlaps import (
    AREAS,
    ON_VOID,
    PAIR,
    SEGMENT,
    ImageOverlaps,
    OverlapTable,
    Table,
    compute_overlaps,
    concatenate,
    join,
)
from segkit.metrics.per_image import PerImage
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.utils.errors import DatasetError

# COCO's area classes in pixels, lower bound included (https://cocodataset.org/#detection-eval).
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, float("inf"))}
SHOWN_IMAGES = 5
COLUMNS = {"ground_truth": SEGMENT, "prediction": SEGMENT, "pairs": PAIR}  # of `ImageOverlaps`


class PanopticQuality:
    """PQ = SQ x RQ over images (Kirillov et al. 2019, equation 1), by the rules of panopticapi's evaluation.py.

    A pair matches when both have one category, the true segment is no crowd and
    intersection / (union - predicted pixels on void) > 0.5. What is unmatched counts as false negative (true, no crowd)
    or false positive (predicted), but for predictions more than half of which lie on void and the category's crowd.
    A prediction's `area_px` and `iscrowd`, and `isthing` and `score` of any segment, are not read.

    The state is, per image, the segments and the pixels that they share (`ImageOverlaps`): no maps, some numbers per
    segment. It is what is pickled, saved and sent between processes, and all that analyses of errors need.
    """

    def __init__(
        self,
        categories: CategorySet,
        mode: str = "reference",
        *,
        areas: str = "recount",
        boundary: bool = False,
        dagger: bool = False,
        boundary_ratio: float = DILATION_RATIO,
    ) -> None:
        """mode: "reference" is panopticapi, bit for bit; "corrected" counts all crowds of a category instead of the
        last, and adds up in a way that no order of images moves a bit.

        areas: what the declared area of a true segment is worth, see `compute_overlaps`. boundary: Boundary PQ too
        (Cheng et al. 2021), within boundary_ratio of the diagonal. dagger: PQ-dagger too (Porzi et al. 2019, Seamless
        Scene Segmentation, section 4).
        Raises ValueError for another mode, areas or a ratio outside (0, 1).
        """
        if mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
        if areas not in AREAS:
            raise ValueError(f"areas must be one of {AREAS}, got {areas!r}")
        if not 0 < boundary_ratio < 1:
            raise ValueError(f"boundary_ratio must be in (0, 1), got {boundary_ratio}")
        self.categories = categories
        self.mode = mode
        self.areas = areas
        self.dagger = dagger
        self.boundary_ratio = boundary_ratio if boundary else None
        self._images: PerImage[ImageOverlaps] = PerImage()

    def __len__(self) -> int:
        """The number of images."""
        return len(self._images)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._images

    def update(self, image_id: int | str, ground_truth: PanopticSegmentation, prediction: PanopticSegmentation) -> None:
        """Count one image; `Segment.category_id` is the dataset's category_id in both.

        Both maps: (H, W) integers, 0 = void. An all-void or empty map is allowed. Raises, and counts nothing,
        DatasetError where the image was counted before and whatever `compute_overlaps` raises.
        """
        found = compute_overlaps(
            ground_truth,
            prediction,
            self.categories,
            areas=self.areas,
            boundary_ratio=self.boundary_ratio,
            where=f"image {image_id!r}",
        )
        self.add(image_id, found)

    def add(self, image_id: int | str, overlaps: ImageOverlaps) -> None:
        """Add an image's overlaps; DatasetError where it was counted before."""
        self._images.add(image_id, overlaps)

    def merge(self, other: PanopticQuality) -> None:
        """Add another shard's images; DatasetError where both hold an image, ValueError where the categories or the
        options differ."""
        if self.categories != other.categories or self._options() != other._options():
            raise ValueError("other must have the same categories and options as this PanopticQuality, they differ")
        self._images.merge(other._images)

    def compute(self, image_order: Sequence[int | str] | None = None) -> dict[str, Any]:
        """PQ, SQ, RQ over all categories, things (`_th`) and stuff (`_st`), in percent (float64), and more.

        `PQs`, `PQm`, `PQl`: of small, medium and large segments (`SIZES`; a match and a miss by the true segment's
        pixels, a false prediction by its own), in full under `by_size`. `per_class`: str(category_id) -> {PQ, SQ, RQ,
        tp, fp, fn}. With boundary, `BoundaryPQ` and its like; with dagger, `PQ_dagger` and `PQ_dagger_st`; both per
        class too. Where the other mode's PQ, SQ or RQ differ they are under `other_mode`, with the reason.
        None stands for a number over nothing: a category without segments, a group without such a category.
        image_order: all images, in the order in which the reference adds their IoUs (it moves the last bits); by
        default by ascending id, numbers before strings. DatasetError where it does not name every image once.
        """
        table = self.table(image_order)
        matching = match(table, self.mode)
        results, per_class = self._quality(table, matching)
        by_size = {size: self._of_size(table, matching, *limits) for size, limits in SIZES.items()}
        results.update({f"PQ{size[0]}": numbers["PQ"] for size, numbers in by_size.items()})
        if self.dagger:
            self._add_dagger(table, matching, results, per_class)
        if self.boundary_ratio is not None:
            overall, each = self._quality(table, match(table, self.mode, boundary=True))
            results.update({f"Boundary{name}": value for name, value in overall.items()})
            for category_id, numbers in each.items():
                per_class[category_id].update({f"Boundary{name}": value for name, value in numbers.items()})
        other = self._other_mode(table, matching)
        return {**results, "per_class": per_class, "by_size": by_size, **({"other_mode": other} if other else {})}

    def per_image(self, image_order: Sequence[int | str] | None = None) -> dict[int | str, dict[str, Any]]:
        """image_id -> {PQ, SQ, RQ (means over the categories with segments in the image, None without any), tp, fp,
        fn}, in the order of `compute`."""
        table = self.table(image_order)
        counts = counting.count_per_image(table, match(table, self.mode), self.categories)
        columns = [np.nan_to_num(column) for column in counts.quality()]
        present = ((counts.tp + counts.fp + counts.fn) > 0).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            pq, sq, rq = (column.sum(axis=1) / present for column in columns)
        sums = [column.sum(axis=1).tolist() for column in (counts.tp, counts.fp, counts.fn)]
        return {
            image_id: {
                "PQ": counting.percent(pq[row]),
                "SQ": counting.percent(sq[row]),
                "RQ": counting.percent(rq[row]),
                **{name: column[row] for name, column in zip(("tp", "fp", "fn"), sums, strict=True)},
            }
            for row, image_id in enumerate(table.image_ids)
        }

    def table(self, image_order: Sequence[int | str] | None = None) -> OverlapTable:
        """All images joined, in this order (default: ascending id, numbers before strings)."""
        return join(self._images.in_order(self._images.sorted_ids() if image_order is None else image_order))

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """(header for JSON, arrays without objects): what `from_state` makes the same metric of."""
        images = self._images.in_order(self._images.sorted_ids())
        listed = {category["id"]: category for category in self.categories.to_coco()}
        header = {
            "categories": [listed[category_id] for category_id in self.categories.ids_in_file_order],
            "options": self._options(),
            "image_ids": [image_id for image_id, _ in images],
        }
        arrays: dict[str, NDArray[Any]] = {}
        for name, dtype in COLUMNS.items():
            rows = [getattr(overlaps, name) for _, overlaps in images]
            arrays[name] = concatenate(rows, dtype)
            arrays[f"{name}_per_image"] = np.array([len(one) for one in rows], dtype=np.int64)
        return header, arrays

    @classmethod
    def from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> PanopticQuality:
        """The metric that `state` described; DatasetError where this is no such state."""
        try:
            metric = cls(CategorySet.from_coco(header["categories"], "categories"), **header["options"])
            image_ids = header["image_ids"]
            if any(type(image_id) not in (int, str) for image_id in image_ids):
                raise ValueError("image_ids are no ids")
            tables = [_per_image(arrays, name, dtype, len(image_ids)) for name, dtype in COLUMNS.items()]
            for image_id, *rows in zip(image_ids, *tables, strict=True):
                metric.add(image_id, _checked(ImageOverlaps(*rows), metric.categories))
        except (LookupError, TypeError, ValueError, AttributeError, DatasetError) as error:
            raise DatasetError(f"expected saved counts of panoptic quality, got others ({error})") from error
        return metric

    def _options(self) -> dict[str, Any]:
        ratio = self.boundary_ratio
        boundary = {"boundary": ratio is not None, **({} if ratio is None else {"boundary_ratio": ratio})}
        return {"mode": self.mode, "areas": self.areas, "dagger": self.dagger, **boundary}

    @property
    def _exact(self) -> bool:
        return self.mode == "corrected"

    def _quality(self, table: OverlapTable, matching: Matching) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """The averages, and the numbers of each class."""
        counts = counting.count(table, matching, self.categories, exact=self._exact)
        pq, sq, rq = counts.quality()
        per_class: dict[str, dict[str, Any]] = {
            str(category.category_id): {
                "PQ": counting.percent(pq[row]),
                "SQ": counting.percent(sq[row]),
                "RQ": counting.percent(rq[row]),
                "tp": int(counts.tp[row]),
                "fp": int(counts.fp[row]),
                "fn": int(counts.fn[row]),
            }
            for row, category in enumerate(self.categories.categories)
        }
        return dict(counting.averages(counts, self.categories, exact=self._exact)), per_class

    def _of_size(self, table: OverlapTable, matching: Matching, low: float, high: float) -> dict[str, float | None]:
        gt_mask, pred_mask = (
            (low <= rows["counted_px"]) & (rows["counted_px"] < high) for rows in (table.ground_truth, table.prediction)
        )
        counts = counting.count(
            table, matching, self.categories, exact=self._exact, gt_mask=gt_mask, pred_mask=pred_mask
        )
        return counting.averages(counts, self.categories, exact=self._exact)

    def _add_dagger(
        self, table: OverlapTable, matching: Matching, results: dict[str, Any], per_class: dict[str, dict[str, Any]]
    ) -> None:
        """PQ-dagger: of stuff, the mean IoU of the true segments, matched or not; of things, PQ."""
        values = self._dagger(table, matching)
        for suffix, group in (("", self.categories.categories), ("_st", self.categories.stuff)):
            results[f"PQ_dagger{suffix}"] = counting.average([values], self.categories, group, exact=self._exact)[0]
        for row, category in enumerate(self.categories.categories):
            per_class[str(category.category_id)]["PQ_dagger"] = counting.percent(values[row])

    def _dagger(self, table: OverlapTable, matching: Matching) -> FloatArray:
        number = len(self.categories)
        values = counting.count(table, matching, self.categories, exact=self._exact).quality()[0]
        pairs = same_category(table)
        rows = counting.get_category_rows(
            self.categories, table.ground_truth["category_id"][table.pairs["ground_truth"][pairs]]
        )
        ious = counting.sums(matching.iou[pairs], rows, number, self._exact)
        gt_ids = table.ground_truth["category_id"][~table.ground_truth["iscrowd"]]
        segments = np.bincount(counting.get_category_rows(self.categories, gt_ids), minlength=number)
        stuff = np.array([not category.isthing for category in self.categories.categories])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(stuff, np.where(segments > 0, ious / segments, np.nan), values)

    def _other_mode(self, table: OverlapTable, matching: Matching) -> dict[str, Any] | None:
        """The other mode's averages and what sets the modes apart; None where they agree but for rounding."""
        mode = next(mode for mode in MODES if mode != self.mode)
        counts = [counting.count(table, one, self.categories) for one in (matching, match(table, mode))]
        same = all(np.array_equal(getattr(counts[0], name), getattr(counts[1], name)) for name in ("tp", "fp", "fn"))
        if same and np.array_equal(counts[0].iou, counts[1].iou):
            return None
        averages = counting.averages(counts[1], self.categories, exact=mode == "corrected")
        return {"mode": mode, **averages, "reasons": self._reasons(table)}

    def _reasons(self, table: OverlapTable) -> list[str]:
        crowds = table.ground_truth["iscrowd"]
        keys = np.stack([table.gt_image[crowds], table.ground_truth["category_id"][crowds]], axis=1)
        groups, times = np.unique(keys, axis=0, return_counts=True)
        several = np.unique(groups[times > 1, 0]).tolist()
        declared = table.ground_truth["area_px"] != table.ground_truth["counted_px"]
        wrong = np.unique(table.gt_image[declared]).tolist()
        reasons = [(several, "several crowds of one category"), (wrong, "areas that their map contradicts")]
        return [f"{_images(table, images)} {what}" for images, what in reasons if images]


def _images(table: OverlapTable, places: list[int]) -> str:
    shown = ", ".join(repr(table.image_ids[place]) for place in places[:SHOWN_IMAGES])
    more = ", ..." if len(places) > SHOWN_IMAGES else ""
    return f"{len(places)} {'image has' if len(places) == 1 else 'images have'} ({shown}{more})"


def _per_image(arrays: Mapping[str, NDArray[Any]], name: str, dtype: np.dtype[Any], images: int) -> list[Table]:
    """The rows of each image; ValueError where they are not such rows, or not of so many images."""
    rows, lengths = arrays[name], arrays[f"{name}_per_image"]
    fits = lengths.dtype.kind in "iu" and lengths.shape == (images,) and rows.ndim == 1 and rows.dtype == dtype
    if not fits or (lengths < 0).any() or lengths.sum() != len(rows):
        raise ValueError(f"{name} is of another kind")
    return np.split(rows, np.cumsum(lengths))[:-1]


def _checked(overlaps: ImageOverlaps, categories: CategorySet) -> ImageOverlaps:
    """The overlaps; ValueError where they point to categories or segments that are not there, or count less than 0."""
    known = [category.category_id for category in categories.categories]
    for rows in (overlaps.ground_truth, overlaps.prediction):
        if not np.isin(rows["category_id"], known).all():
            raise ValueError("segments of unknown categories")
        if not np.isfinite(rows["area_px"]).all() or (rows["counted_px"] < 1).any() or (rows["boundary_px"] < 0).any():
            raise ValueError("segments without pixels")
    for name in ("ground_truth", "prediction"):
        if not np.isin(overlaps.pairs[name], np.arange(ON_VOID, len(getattr(overlaps, name)))).all():
            raise ValueError("pairs of segments that are not there")
    on_void = (overlaps.pairs["ground_truth"] == ON_VOID) & (overlaps.pairs["prediction"] == ON_VOID)
    if on_void.any() or (overlaps.pairs["pixels"] < 1).any() or (overlaps.pairs["boundary_px"] < 0).any():
        raise ValueError("pairs without pixels")
    return overlaps
