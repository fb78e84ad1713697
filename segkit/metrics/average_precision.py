"""Box, mask and boundary AP as COCO computes them, with Detectron2's result keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.metrics import coco_matching
from segkit.metrics.coco_matching import (
    AREAS_PX,
    FIELD,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    NO_MATCHES,
    NO_OBJECTS,
    RECALLS,
    Matches,
    ObjectCounts,
)
from segkit.metrics.state import FloatArray, PerImage, check_distinct_names, dump_categories, reading_saved_counts
from segkit.structures import CategorySet, ImageId, InstanceColumns

IMAGES_AT_ONCE = 64  # matched together: masks and boxes are kept of so many images
COLUMNS = ("image", "thing", "iscrowd", "number")  # that every kind of IoU needs
COMPARED = {"bbox": ("boxes", "box_area"), "segmentation": ("masks", "area_px")}
# The twelve metrics of COCOeval.summarize, in its order.
STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
ALL, SMALL, MEDIUM, LARGE = range(len(AREAS_PX))
UNDEFINED = -1.0  # COCOeval's value without ground truth
EPSILON = np.spacing(1)


def check_iou_types(iou_types: Sequence[str]) -> tuple[str, ...]:
    """Check kinds of IoU.

    Args:
        iou_types: Of "bbox", "segm" and "boundary".

    Returns:
        Each kind once, in the order given.

    Raises:
        ValueError: There are none, or one is unknown.
    """
    if not iou_types or isinstance(iou_types, str) or not set(iou_types) <= set(FIELD):
        raise ValueError(f"iou_types must be one or more of {tuple(FIELD)}, got {iou_types!r}")
    return tuple(dict.fromkeys(iou_types))


class AveragePrecision:
    """COCO AP and AR of things over images (pycocotools' COCOeval, called as Detectron2's COCOEvaluator does).

    The state is, per result, its score and whether it is a true or a false positive in each setting (27 bytes for each
    kind of IoU), and per image and class the number of objects. Masks and boxes are kept of the last images only, until
    they are matched. An instance can be pickled.
    """

    def __init__(self, categories: CategorySet, iou_types: Sequence[str] = ("bbox", "segm")) -> None:
        """Start without images.

        Args:
            categories: The categories; their things are scored.
            iou_types: Of "bbox", "segm" and "boundary" (the smaller of mask and boundary IoU, Cheng et al. 2021).

        Raises:
            ValueError: iou_types has none or an unknown kind.
            DatasetError: Two things have one name: their results would have one key.
        """
        self.iou_types = check_iou_types(iou_types)
        check_distinct_names([category.name for category in categories.things], "things")
        self.categories = categories
        self.fields = {FIELD[iou_type] for iou_type in self.iou_types}  # of entries: "bbox", "segmentation"
        self._images: PerImage[None] = PerImage()  # an image's index is its position in the order of adding
        self._waiting: list[tuple[tuple[int, int], InstanceColumns, InstanceColumns]] = []  # the last images
        self._matches: dict[str, list[Matches]] = {iou_type: [] for iou_type in self.iou_types}
        self._objects: list[ObjectCounts] = []

    def __len__(self) -> int:
        """The number of images."""
        return len(self._images)

    def update(
        self, image_id: ImageId, size_hw: tuple[int, int], ground_truth: InstanceColumns, results: InstanceColumns
    ) -> None:
        """Add one image.

        Equal scores, and ground truth of equal IoU, are matched in the order given.

        Args:
            image_id: The image's id.
            size_hw: (height, width) in pixels.
            ground_truth: Annotations of the image with the columns of `fields`, see
                `formats.coco.read_annotation_columns`.
            results: Results of the image, see `formats.coco.read_result_columns`.

        Raises:
            DatasetError: The image was added before. Nothing is added then.
            ValueError: Columns have different lengths, or a column that is compared is missing.
        """
        self._check_columns(ground_truth, results)
        self._images.add(image_id, None)
        self._waiting.append((size_hw, ground_truth, results))
        if len(self._waiting) >= IMAGES_AT_ONCE:
            self._match_waiting()

    def update_images(
        self,
        image_ids: Sequence[ImageId],
        sizes_hw: Sequence[tuple[int, int]],
        ground_truth: InstanceColumns,
        results: InstanceColumns,
    ) -> None:
        """Add many images at once, in a fraction of the time that `update` takes for each.

        Args:
            image_ids: The images' ids.
            sizes_hw: (height, width) of each image in pixels.
            ground_truth: Annotations of all images, see `update`; `image` is the index in `image_ids`.
            results: Results of all images.

        Raises:
            DatasetError: An image was added before. Nothing is added then.
            ValueError: Columns have different lengths, or a column that is compared is missing.
        """
        self._check_columns(ground_truth, results)
        added: PerImage[None] = PerImage()
        for image_id in image_ids:
            added.add(image_id, None)
        self._match_waiting()
        first = len(self._images)
        self._images.merge(added)
        self._match(first, sizes_hw, ground_truth, results)

    def merge(self, other: AveragePrecision) -> None:
        """Add another shard's images.

        Args:
            other: A metric with the same categories and kinds of IoU.

        Raises:
            DatasetError: Both hold an image.
            ValueError: The categories or the kinds of IoU differ.
        """
        if self.categories != other.categories or set(self.iou_types) != set(other.iou_types):
            raise ValueError("other must have the same categories and iou_types as this AveragePrecision, they differ")
        self._match_waiting()
        other._match_waiting()
        first = len(self._images)
        self._images.merge(other._images)
        for iou_type in self.iou_types:
            self._matches[iou_type] += [part._replace(image=part.image + first) for part in other._matches[iou_type]]
        self._objects += [part._replace(image=part.image + first) for part in other._objects]

    def add_iou_types(self, other: AveragePrecision) -> None:
        """Add the kinds of IoU of another metric over the same images: boxes and masks may be counted apart.

        Args:
            other: A metric with the same categories and ground truth over the same images, in any order, and with other
                kinds of IoU.

        Raises:
            ValueError: The categories, the images or their objects differ, or both have a kind of IoU.
        """
        positions = {image_id: position for position, image_id in enumerate(self.ids())}
        if self.categories != other.categories or positions.keys() != {*other.ids()}:
            raise ValueError("other must have the same categories and images as this AveragePrecision, they differ")
        if common := [iou_type for iou_type in self.iou_types if iou_type in other.iou_types]:
            raise ValueError(f"other must have other kinds of IoU, both have {', '.join(common)}")
        index = np.array([positions[image_id] for image_id in other.ids()], dtype=np.int32)
        objects = other.objects()
        if not _are_same_objects(self.objects(), objects._replace(image=index[objects.image])):
            raise ValueError("other must have the same ground truth objects as this AveragePrecision, they differ")
        for iou_type in other.iou_types:
            matches = other._join_matches(iou_type)
            self._matches[iou_type] = [matches._replace(image=index[matches.image])]
        self.iou_types += other.iou_types
        self.fields |= other.fields

    def compute(self, image_order: Sequence[ImageId] | None = None) -> dict[str, dict[str, float | None]]:
        """Compute the metrics over all images.

        Args:
            image_order: All images in the order that settles equal scores in different images; None is by ascending id,
                numbers before strings, as in pycocotools.

        Returns:
            Kind of IoU -> {AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl, `AP-<name>` and `AR-<name>`
            of every thing}, in percent. None without ground truth (pycocotools: -1), 0 with ground truth and no result.

        Raises:
            DatasetError: `image_order` does not name every image once.
        """
        image_rank = self._rank_images(image_order)
        names = [category.name for category in self.categories.things]
        objects = self.objects()
        gt_counts = np.zeros((len(names), len(AREAS_PX)), np.int64)
        np.add.at(gt_counts, objects.thing, objects.number)
        results = {}
        for iou_type in self.iou_types:
            matches = self._join_matches(iou_type)
            precision, recall = _compute_curves(matches, gt_counts, image_rank)
            results[iou_type] = _summarize(precision, recall)
            precision, recall = precision[..., ALL], recall[:, :, ALL, -1]
            results[iou_type] |= {f"AP-{name}": _mean_percent(precision[..., i]) for i, name in enumerate(names)}
            results[iou_type] |= {f"AR-{name}": _mean_percent(recall[:, i]) for i, name in enumerate(names)}
        return results

    def ids(self) -> list[ImageId]:
        """List the images.

        Returns:
            The image ids, in the order of adding; the tables of `objects` and `ranked_matches` index them.
        """
        return self._images.ids()

    def objects(self) -> ObjectCounts:
        """Count the ground truth instances that are no crowds.

        Returns:
            Their numbers by image and class.
        """
        self._match_waiting()
        self._objects = [coco_matching.concatenate_objects(self._objects)]
        return self._objects[0]

    def ranked_matches(self, iou_type: str) -> Matches:
        """Rank the results.

        Args:
            iou_type: One of `iou_types`.

        Returns:
            The results by class, then by falling score; equal scores by ascending image id.
        """
        image_rank = self._rank_images(None)
        matches = self._join_matches(iou_type)
        order = np.lexsort((matches.rank, image_rank[matches.image], -matches.score, matches.thing))
        columns: list[Any] = [column[order] for column in matches]
        return Matches(*columns)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what `from_state` needs to build the same metric.

        Returns:
            A header for JSON, and arrays without Python objects.
        """
        self._match_waiting()
        header = {
            "categories": dump_categories(self.categories),
            "options": {"iou_types": [*self.iou_types]},
            "image_ids": self._images.ids(),
        }
        arrays: dict[str, NDArray[Any]] = {}
        for iou_type in self.iou_types:
            columns = self._join_matches(iou_type)._asdict()
            arrays |= {f"{iou_type}_{name}": column for name, column in columns.items()}
        arrays |= {f"objects_{name}": column for name, column in self.objects()._asdict().items()}
        return header, arrays

    @classmethod
    def from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> AveragePrecision:
        """Build the metric that `state` described.

        Args:
            header: The first result of `state`.
            arrays: The second result of `state`.

        Returns:
            The metric.

        Raises:
            DatasetError: The arguments are not such a state.
        """
        with reading_saved_counts("average precision"):
            metric = cls(CategorySet.from_coco(header["categories"], "categories"), **header["options"])
            for image_id in header["image_ids"]:
                metric._images.add(image_id, None)
            things = len(metric.categories.things)
            for iou_type in metric.iou_types:
                matches = Matches(*(arrays[f"{iou_type}_{name}"] for name in Matches._fields))
                _check_table(matches, NO_MATCHES, len(metric), things)
                metric._matches[iou_type] = [matches]
            objects = ObjectCounts(*(arrays[f"objects_{name}"] for name in ObjectCounts._fields))
            _check_table(objects, NO_OBJECTS, len(metric), things)
            metric._objects = [objects]
        return metric

    def _check_columns(self, *parts: InstanceColumns) -> None:
        names = [*COLUMNS, *(name for field in sorted(self.fields) for name in COMPARED[field])]
        for columns in parts:
            lengths = {name: len(getattr(columns, name)) for name in names}
            if len({*lengths.values()}) > 1:
                raise ValueError(f"columns must have one row per entry, got lengths {lengths}")

    def _match_waiting(self) -> None:
        if self._waiting:
            sizes_hw, ground_truth, results = zip(*self._waiting, strict=True)
            first = len(self._images) - len(self._waiting)
            self._waiting = []
            self._match(first, sizes_hw, *map(InstanceColumns.concatenate, (ground_truth, results)))

    def _match(
        self, first: int, sizes_hw: Sequence[tuple[int, int]], ground_truth: InstanceColumns, results: InstanceColumns
    ) -> None:
        """Match images; `first` is the index of the first one."""
        things = len(self.categories.things)
        for iou_type in self.iou_types:
            matches = coco_matching.match(ground_truth, results, sizes_hw, things, iou_type)
            self._matches[iou_type].append(matches._replace(image=matches.image + np.int32(first)))
        objects = coco_matching.count_objects(ground_truth, things)
        self._objects.append(objects._replace(image=objects.image + np.int32(first)))

    def _rank_images(self, image_order: Sequence[ImageId] | None) -> NDArray[np.int64]:
        """The rank of each image index in the order; all images are matched then."""
        ranks = {image_id: rank for rank, (image_id, _) in enumerate(self._images.in_order(image_order))}
        self._match_waiting()
        return np.array([ranks[image_id] for image_id in self._images.ids()], dtype=np.int64)

    def _join_matches(self, iou_type: str) -> Matches:
        self._matches[iou_type] = [coco_matching.concatenate_matches(self._matches[iou_type])]
        return self._matches[iou_type][0]


def _are_same_objects(a: ObjectCounts, b: ObjectCounts) -> bool:
    """Whether both have the same rows, in any order."""
    tables = [np.column_stack([part.image, part.thing, part.number]) for part in (a, b)]
    first, second = (table[np.lexsort((table[:, 1], table[:, 0]))] for table in tables)
    return np.array_equal(first, second)


def _check_table(table: Matches | ObjectCounts, empty: Matches | ObjectCounts, images: int, things: int) -> None:
    """ValueError if the columns do not fit together; empty: a table of the same kind without rows."""
    for name, expected in empty._asdict().items():
        column = getattr(table, name)
        if column.dtype != expected.dtype or column.shape != (len(table.image), *expected.shape[1:]):
            raise ValueError(f"{name} has another dtype or shape")
    for name, indices, number in (("image", table.image, images), ("thing", table.thing, things)):
        if len(indices) and not 0 <= indices.min() <= indices.max() < number:
            raise ValueError(f"{name} is out of range")
    if isinstance(table, ObjectCounts) and (table.number < 0).any():
        raise ValueError("number is below 0")


def _compute_curves(
    matches: Matches, gt_counts: NDArray[np.int64], image_rank: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    """Precision and recall of all things, UNDEFINED without ground truth (pycocotools cocoeval.py, accumulate).

    Precision is (10 IoU thresholds, 101 recalls, things, 4 area ranges), COCOeval's at 100 detections. Recall is (10,
    things, 4, 3 numbers of detections). Both equal COCOeval's bit for bit.

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
    return precision, recall


def _summarize(precision: FloatArray, recall: FloatArray) -> dict[str, float | None]:
    """STATS in percent (COCOeval.summarize); None if nothing is defined."""
    at50, at75 = (int(np.flatnonzero(value == IOU_THRESHOLDS)[0]) for value in (0.5, 0.75))
    columns = [precision[..., ALL], precision[at50, ..., ALL], precision[at75, ..., ALL]]
    columns += [precision[..., area] for area in (SMALL, MEDIUM, LARGE)]
    columns += [recall[..., ALL, index] for index in range(len(MAX_DETECTIONS))]
    columns += [recall[..., area, -1] for area in (SMALL, MEDIUM, LARGE)]
    return {name: _mean_percent(values) for name, values in zip(STATS, columns, strict=True)}


def _mean_percent(values: FloatArray) -> float | None:
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
    highest: FloatArray = np.zeros((coco_matching.SETTINGS, int(number.max(initial=0)) + 1))
    highest[setting, hits - 1] = hits / (false_positives + hits + EPSILON)
    highest = np.maximum.accumulate(highest[:, ::-1], axis=1)[:, ::-1]
    by_area = highest.reshape(len(AREAS_PX), len(IOU_THRESHOLDS), -1)
    curves = np.zeros((len(AREAS_PX), len(IOU_THRESHOLDS), len(RECALLS)))
    for area, total in enumerate(gt_counts.tolist()):
        needed = np.searchsorted(np.arange(total + 1) / max(total, 1), RECALLS, side="left")  # true positives
        curves[area] = by_area[area][:, np.minimum(np.maximum(needed, 1), by_area.shape[-1]) - 1]
    by_threshold: FloatArray = curves.transpose(1, 2, 0)
    return by_threshold
