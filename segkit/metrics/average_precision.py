"""Box, mask and boundary AP: COCO's scorer, with Detectron2's result keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.instances.coco_curves import ALL, compute_curves, mean_percent, summarize
from segkit.metrics.instances.coco_matching import FIELD, NO_MATCHES, Matches, concatenate_matches, match
from segkit.metrics.state import PerImage
from segkit.structures import CategorySet, InstanceColumns
from segkit.utils.errors import DatasetError

IMAGES_AT_ONCE = 64  # matched together: their entries are what is kept of masks and boxes


def check_iou_types(iou_types: Sequence[str]) -> tuple[str, ...]:
    """Each once, in the order given; ValueError where there is none, or another than "bbox", "segm" and "boundary"."""
    if not iou_types or isinstance(iou_types, str) or not set(iou_types) <= set(FIELD):
        raise ValueError(f"iou_types must be one or more of {tuple(FIELD)}, got {iou_types!r}")
    return tuple(dict.fromkeys(iou_types))


class AveragePrecision:
    """COCO AP and AR of things over images (pycocotools' COCOeval, called as Detectron2's COCOEvaluator does).

    The state is, per result, its score and where it counts as true or false (27 bytes for each kind of IoU); masks and
    boxes are kept of the last images only, until they are matched. An instance pickles as it is.
    """

    def __init__(self, categories: CategorySet, iou_types: Sequence[str] = ("bbox", "segm")) -> None:
        """iou_types: of "bbox", "segm" and "boundary" (the smaller of mask and boundary IoU, Cheng et al. 2021).

        Raises ValueError for other iou_types, DatasetError where two things have one name (their results would have
        one key).
        """
        self.iou_types = check_iou_types(iou_types)
        names = [category.name for category in categories.things]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DatasetError(f"expected distinct names of things, got {twice} twice", remedy="rename one of them")
        self.categories = categories
        self.fields = {FIELD[iou_type] for iou_type in self.iou_types}  # of entries: "bbox", "segmentation"
        self._images: PerImage[None] = PerImage()  # an image's index is its place in the order of adding
        self._waiting: list[
            tuple[tuple[int, int], InstanceColumns, InstanceColumns]
        ] = []  # the last images: size, ground truth, results
        self._matches: dict[str, list[Matches]] = {iou_type: [] for iou_type in self.iou_types}
        self._gt_counts = {iou_type: np.zeros((len(categories.things), 4), np.int64) for iou_type in self.iou_types}

    def __len__(self) -> int:
        """The number of images."""
        return len(self._images)

    def update(
        self,
        image_id: int | str,
        size_hw: tuple[int, int],
        ground_truth: InstanceColumns,
        results: InstanceColumns,
    ) -> None:
        """Add one image.

        Equal scores, and ground truth of equal IoU, are matched in the order given.

        Args:
            image_id: id of the image.
            size_hw: (height, width) in pixels.
            ground_truth: annotations of the image with the columns of `fields`, see
                `formats.coco.read_annotation_columns`.
            results: results of the image, see `formats.coco.read_result_columns`.

        Raises:
            DatasetError: the image was added before; nothing is added then.
            ValueError: columns have different lengths, or a column that is compared is missing.
        """
        self._check_columns(ground_truth, results)
        self._images.add(image_id, None)
        self._waiting.append((size_hw, ground_truth, results))
        if len(self._waiting) >= IMAGES_AT_ONCE:
            self._match_waiting()

    def update_images(
        self,
        image_ids: Sequence[int | str],
        sizes_hw: Sequence[tuple[int, int]],
        ground_truth: InstanceColumns,
        results: InstanceColumns,
    ) -> None:
        """Add many images at once, in a fraction of the time that `update` takes for each.

        Args:
            image_ids: ids of the images.
            sizes_hw: (height, width) of each image in pixels.
            ground_truth: annotations of all images, see `update`; `image` is the index in `image_ids`.
            results: results of all images.

        Raises:
            DatasetError: an image was added before; nothing is added then.
            ValueError: columns have different lengths, or a column that is compared is missing.
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
        """Add another shard's images; DatasetError where both hold an image, ValueError where the categories or the
        iou_types differ."""
        if self.categories != other.categories or set(self.iou_types) != set(other.iou_types):
            raise ValueError("other must have the same categories and iou_types as this AveragePrecision, they differ")
        self._match_waiting()
        other._match_waiting()
        first = len(self._images)
        self._images.merge(other._images)
        for iou_type in self.iou_types:
            self._matches[iou_type] += [one._replace(image=one.image + first) for one in other._matches[iou_type]]
            self._gt_counts[iou_type] = self._gt_counts[iou_type] + other._gt_counts[iou_type]

    def compute(self, image_order: Sequence[int | str] | None = None) -> dict[str, dict[str, float | None]]:
        """{iou_type: {AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl, AP-<thing's name>...,
        AR-<thing's name>...}}, percent.

        None where there is no ground truth to find (pycocotools: -1); ground truth without any result has 0.
        image_order: all images, in the order that settles equal scores in different images; None is by ascending id
        (numbers, then strings), the order of pycocotools. Raises DatasetError where it does not name every image once.
        """
        order = image_order
        place = {image_id: index for index, (image_id, _) in enumerate(self._images.in_order(order))}
        image_place = np.array([place[image_id] for image_id in self._images.ids()], dtype=np.int64)
        self._match_waiting()
        return {iou_type: self._numbers(iou_type, image_place) for iou_type in self.iou_types}

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """(header for JSON, arrays without objects): what `from_state` makes the same metric of."""
        self._match_waiting()
        listed = {category["id"]: category for category in self.categories.to_coco()}
        header = {
            "categories": [listed[category_id] for category_id in self.categories.ids_in_file_order],
            "options": {"iou_types": [*self.iou_types]},
            "image_ids": [i if isinstance(i, str) else int(i) for i in self._images.ids()],
        }
        arrays: dict[str, NDArray[Any]] = {}
        for iou_type in self.iou_types:
            columns = self._joined(iou_type)._asdict()
            arrays |= {f"{iou_type}_{name}": column for name, column in columns.items()}
            arrays[f"{iou_type}_gt_counts"] = self._gt_counts[iou_type]
        return header, arrays

    @classmethod
    def from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> AveragePrecision:
        """The metric that `state` described; DatasetError where this is no such state."""
        try:
            metric = cls(CategorySet.from_coco(header["categories"], "categories"), **header["options"])
            for image_id in header["image_ids"]:
                metric._images.add(image_id, None)
            for iou_type in metric.iou_types:
                found = Matches(*(arrays[f"{iou_type}_{name}"] for name in Matches._fields))
                gt_counts = arrays[f"{iou_type}_gt_counts"]
                _check_state(found, gt_counts, len(metric), len(metric.categories.things))
                metric._matches[iou_type], metric._gt_counts[iou_type] = [found], gt_counts
        except (KeyError, TypeError, ValueError, AttributeError, DatasetError) as error:
            raise DatasetError(f"expected saved counts of average precision, got others ({error})") from error
        return metric

    def _check_columns(self, *parts: InstanceColumns) -> None:
        compared = {"bbox": ("boxes", "box_area"), "segmentation": ("masks", "area_px")}
        names = [
            "image",
            "thing",
            "iscrowd",
            "number",
            *(name for key in sorted(self.fields) for name in compared[key]),
        ]
        for columns in parts:
            lengths = {name: len(getattr(columns, name)) for name in names}
            if len({*lengths.values()}) > 1:
                raise ValueError(f"columns must have one row per entry, got lengths {lengths}")

    def _match_waiting(self) -> None:
        if self._waiting:
            sizes_hw, ground_truth, results = zip(*self._waiting, strict=True)
            first = len(self._images) - len(self._waiting)
            self._waiting = []
            joined = [InstanceColumns.concatenate(parts) for parts in (ground_truth, results)]
            self._match(first, sizes_hw, *joined)

    def _match(
        self, first: int, sizes_hw: Sequence[tuple[int, int]], ground_truth: InstanceColumns, results: InstanceColumns
    ) -> None:
        """Match images; `first` is the index of the first one."""
        for iou_type in self.iou_types:
            found, gt_counts = match(ground_truth, results, sizes_hw, len(self.categories.things), iou_type)
            self._matches[iou_type].append(found._replace(image=found.image + np.int32(first)))
            self._gt_counts[iou_type] = self._gt_counts[iou_type] + gt_counts

    def _numbers(self, iou_type: str, image_place: NDArray[np.int64]) -> dict[str, float | None]:
        precision, recall = found = compute_curves(self._joined(iou_type), self._gt_counts[iou_type], image_place)
        results = summarize(found)
        names = [category.name for category in self.categories.things]
        results |= {f"AP-{name}": mean_percent(precision[:, :, i, ALL]) for i, name in enumerate(names)}
        return results | {f"AR-{name}": mean_percent(recall[:, i, ALL, -1]) for i, name in enumerate(names)}

    def _joined(self, iou_type: str) -> Matches:
        self._matches[iou_type] = [concatenate_matches(self._matches[iou_type])]
        return self._matches[iou_type][0]


def _check_state(found: Matches, gt_counts: NDArray[Any], images: int, things: int) -> None:
    """ValueError where the arrays do not fit together."""
    expected_columns = NO_MATCHES._asdict()
    for name, column in found._asdict().items():
        expected = expected_columns[name]
        if column.dtype != expected.dtype or column.shape != (len(found.image), *expected.shape[1:]):
            raise ValueError(f"{name} is of another kind")
    if gt_counts.shape != (things, 4) or gt_counts.dtype != np.int64:
        raise ValueError("gt_counts is of another kind")
    for name, indices, number in (("image", found.image, images), ("thing", found.thing, things)):
        if len(indices) and not 0 <= indices.min() <= indices.max() < number:
            raise ValueError(f"{name} is out of range")
