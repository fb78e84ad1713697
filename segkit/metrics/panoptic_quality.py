"""Panoptic quality, equal to panopticapi's to the last bit, and a corrected mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from segkit.metrics.boundary import DILATION_RATIO, boundary_options
from segkit.metrics.panoptic import counts as counting
from segkit.metrics.panoptic.matching import MODES, Matching, find_same_category, match
from segkit.metrics.panoptic.overlaps import (
    AREAS,
    TABLES,
    ImageOverlaps,
    OverlapTable,
    check_overlaps,
    compute_overlaps,
    join,
)
from segkit.metrics.state import ImageTablesMetric, mean_over_present, percent
from segkit.structures import CategorySet, ImageId, PanopticSegmentation
from segkit.utils.text import abbreviate

# COCO's area classes in pixels, lower bound included (https://cocodataset.org/#detection-eval).
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, float("inf"))}


class PanopticQuality(ImageTablesMetric[ImageOverlaps]):
    """PQ = SQ x RQ over images (Kirillov et al. 2019, equation 1), by the rules of panopticapi's evaluation.py.

    A pair matches if both segments have one category, the ground truth segment is no crowd, and
    intersection / (union - predicted pixels on void) > 0.5. An unmatched ground truth segment that is no crowd is a
    false negative. An unmatched prediction is a false positive, unless more than half of it lies on void and on crowds
    of its category. `area_px` and `iscrowd` of predictions and `isthing` and `score` of all segments are not read.

    The state is, per image, the segments and the pixels that they share (`ImageOverlaps`): no maps, a few numbers per
    segment. It is pickled, saved and sent between processes, and it is all that analyses of errors need.
    """

    counts_name = "panoptic quality"
    image_type = ImageOverlaps
    dtypes = TABLES

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
        """Start without images.

        Args:
            categories: The categories of ground truth and predictions.
            mode: "reference" is panopticapi bit for bit. "corrected" counts all crowds of a category instead of the
                last one, and adds up so that no order of images moves a bit.
            areas: How declared areas of ground truth segments are used, see `compute_overlaps`.
            boundary: Compute Boundary PQ too (Cheng et al. 2021).
            dagger: Compute PQ-dagger too (Porzi et al. 2019, Seamless Scene Segmentation, section 4).
            boundary_ratio: In (0, 1), width of the boundaries as a share of the image's diagonal.

        Raises:
            ValueError: `mode` or `areas` is unknown, or the ratio is outside (0, 1).
        """
        if mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
        if areas not in AREAS:
            raise ValueError(f"areas must be one of {AREAS}, got {areas!r}")
        if not 0 < boundary_ratio < 1:
            raise ValueError(f"boundary_ratio must be in (0, 1), got {boundary_ratio}")
        super().__init__(categories)
        self.mode = mode
        self._exact = mode == "corrected"
        self.areas = areas
        self.dagger = dagger
        self.boundary_ratio = boundary_ratio if boundary else None

    def update(self, image_id: ImageId, ground_truth: PanopticSegmentation, prediction: PanopticSegmentation) -> None:
        """Count one image.

        Args:
            image_id: The image's id.
            ground_truth: (H, W) integers, 0 = void; category ids of the dataset. The map may be all void or empty.
            prediction: (H, W) integers, 0 = void; category ids of the dataset. The map may be all void or empty.

        Raises:
            DatasetError: The image was counted before, or as `compute_overlaps` raises. Nothing is counted then.
            ValueError: A map is not an (H, W) integer array.
        """
        where, ratio = f"image {image_id!r}", self.boundary_ratio
        overlaps = compute_overlaps(
            ground_truth, prediction, self.categories, areas=self.areas, boundary_ratio=ratio, where=where
        )
        self.add(image_id, overlaps)

    def compute(self, image_order: Sequence[ImageId] | None = None) -> dict[str, Any]:
        """Compute all metrics, in percent (float64).

        None stands for a metric over nothing: a category without segments, a group without such a category.

        Args:
            image_order: All images in the order in which the reference adds their IoUs, which moves the last bits;
                None is by ascending id, numbers before strings.

        Returns:
            PQ, SQ, RQ of all categories, things (`_th`) and stuff (`_st`).
            `PQs`, `PQm`, `PQl`: of small, medium and large segments (`SIZES`), in full under `by_size`. A match and a
            miss are sized by the ground truth segment, a false positive by its own pixels.
            `per_class`: str(category_id) -> {PQ, SQ, RQ, tp, fp, fn}.
            With `boundary`: `BoundaryPQ`, ..., also per class. With `dagger`: `PQ_dagger` and `PQ_dagger_st`, the
            former also per class.
            `other_mode`: PQ, SQ, RQ of the other mode and the reasons, only if the modes differ.

        Raises:
            DatasetError: `image_order` does not name every image once.
        """
        table = self.table(image_order)
        matching = match(table, self.mode)
        results, per_class = self._compute_quality(table, matching)
        by_size = {size: self._compute_size(table, matching, *limits) for size, limits in SIZES.items()}
        results.update({f"PQ{size[0]}": values["PQ"] for size, values in by_size.items()})
        if self.dagger:
            self._add_dagger(table, matching, results, per_class)
        if self.boundary_ratio is not None:
            boundary_results, boundary_per_class = self._compute_quality(table, match(table, self.mode, boundary=True))
            results.update({f"Boundary{name}": value for name, value in boundary_results.items()})
            for category_id, values in boundary_per_class.items():
                per_class[category_id].update({f"Boundary{name}": value for name, value in values.items()})
        other = self._compare_modes(table, matching)
        return {**results, "per_class": per_class, "by_size": by_size, **({"other_mode": other} if other else {})}

    def per_image(self, image_order: Sequence[ImageId] | None = None) -> dict[ImageId, dict[str, Any]]:
        """Compute the metrics of each image.

        Args:
            image_order: All images in the order of the result; None is by ascending id, numbers before strings.

        Returns:
            image_id -> {PQ, SQ, RQ, tp, fp, fn}. The first three are means over the categories with segments in the
            image, in percent, and None if there are none.

        Raises:
            DatasetError: `image_order` does not name every image once.
        """
        table = self.table(image_order)
        counts = counting.count_per_image(table, match(table, self.mode), self.categories)
        tallies = [column.sum(axis=1) for column in (counts.tp, counts.fp, counts.fn)]
        rows = counting.build_rows([*map(mean_over_present, counts.quality())], tallies)
        return dict(zip(table.image_ids, rows, strict=True))

    def table(self, image_order: Sequence[ImageId] | None = None) -> OverlapTable:
        """Join all images.

        Args:
            image_order: All images in the order of the table; None is by ascending id, numbers before strings.

        Returns:
            The overlaps of all images.

        Raises:
            DatasetError: `image_order` does not name every image once.
        """
        return join(self._images.in_order(image_order))

    def _options(self) -> dict[str, Any]:
        options = {"mode": self.mode, "areas": self.areas, "dagger": self.dagger}
        return {**options, **boundary_options(self.boundary_ratio)}

    def _check_image(self, image: ImageOverlaps) -> None:
        check_overlaps(image, self.categories)

    def _compute_quality(
        self, table: OverlapTable, matching: Matching
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """The averages, and the metrics of each class."""
        counts = counting.count(table, matching, self.categories, exact=self._exact)
        rows = counting.build_rows(counts.quality(), (counts.tp, counts.fp, counts.fn))
        per_class = {str(c.category_id): row for c, row in zip(self.categories.categories, rows, strict=True)}
        return dict(counting.averages(counts, self.categories, exact=self._exact)), per_class

    def _compute_size(
        self, table: OverlapTable, matching: Matching, low: float, high: float
    ) -> dict[str, float | None]:
        gt_mask, pred_mask = (
            (low <= rows["counted_px"]) & (rows["counted_px"] < high) for rows in (table.ground_truth, table.prediction)
        )
        masks = {"gt_mask": gt_mask, "pred_mask": pred_mask}
        counts = counting.count(table, matching, self.categories, exact=self._exact, **masks)
        return counting.averages(counts, self.categories, exact=self._exact)

    def _add_dagger(
        self, table: OverlapTable, matching: Matching, results: dict[str, Any], per_class: dict[str, dict[str, Any]]
    ) -> None:
        """PQ-dagger: of stuff, the mean IoU of the ground truth segments, matched or not; of things, PQ."""
        number, ground_truth, groups = len(self.categories), table.ground_truth, counting.select_groups(self.categories)
        pq = counting.count(table, matching, self.categories, exact=self._exact).quality()[0]
        gt_rows = counting.get_category_rows(self.categories, ground_truth["category_id"])
        pairs = find_same_category(table)
        pair_rows = gt_rows[table.pairs["ground_truth"][pairs]]
        iou = counting.compute_sums(matching.iou[pairs], pair_rows, number, self._exact)
        segments = np.bincount(gt_rows[~ground_truth["iscrowd"]], minlength=number)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(groups["_st"], np.where(segments > 0, iou / segments, np.nan), pq)
        for suffix in ("", "_st"):
            average = counting.average([values], self.categories, groups[suffix], exact=self._exact)
            results[f"PQ_dagger{suffix}"] = average[0]
        for row, category in enumerate(self.categories.categories):
            per_class[str(category.category_id)]["PQ_dagger"] = percent(values[row])

    def _compare_modes(self, table: OverlapTable, matching: Matching) -> dict[str, Any] | None:
        """The other mode's averages and the reasons; None if the modes agree except for rounding."""
        mode = next(mode for mode in MODES if mode != self.mode)
        own, other = (counting.count(table, m, self.categories) for m in (matching, match(table, mode)))
        if all(np.array_equal(getattr(own, name), getattr(other, name)) for name in ("iou", *counting.TALLIES)):
            return None
        averages = counting.averages(other, self.categories, exact=mode == "corrected")
        return {"mode": mode, **averages, "reasons": _find_reasons(table)}


def _find_reasons(table: OverlapTable) -> list[str]:
    """What makes the modes differ, with the number of images and some of their ids."""
    crowds = table.ground_truth["iscrowd"]
    keys = np.stack([table.gt_image[crowds], table.ground_truth["category_id"][crowds]], axis=1)
    groups, times = np.unique(keys, axis=0, return_counts=True)
    declared = table.ground_truth["area_px"] != table.ground_truth["counted_px"]
    reasons = {
        "several crowds of one category": groups[times > 1, 0],
        "areas that their map contradicts": table.gt_image[declared],
    }
    lines = []
    for reason, indices in reasons.items():
        image_ids = [table.image_ids[index] for index in np.unique(indices).tolist()]
        if image_ids:
            images = "1 image has" if len(image_ids) == 1 else f"{len(image_ids)} images have"
            lines.append(f"{images} ({abbreviate(image_ids)}) {reason}")
    return lines
