"""Box, mask and boundary AP of a COCO results file."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from segkit.formats import coco
from segkit.formats.coco import ImageEntries, read_annotation_columns, read_result_columns
from segkit.formats.derive import build_coco_annotations
from segkit.metrics import AveragePrecision
from segkit.metrics.average_precision import check_iou_types
from segkit.structures import CategorySet, ImageId
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.issues import DEFAULT_LIMIT, ErrorCollector
from segkit.utils.json_fields import Entry
from segkit.utils.process_pool import Progress, Shard, ordered_map
from segkit.utils.text import abbreviate

EVERYTHING = Shard()
IMAGES_AT_ONCE = 128
log = logging.getLogger(__name__)


@files.no_garbage_collection()
def score_instances(
    gt_json: str | Path,
    results_json: str | Path,
    *,
    gt_folder: str | Path | None = None,
    iou_types: Sequence[str] = ("bbox", "segm"),
    categories: CategorySet | None = None,
    shard: Shard = EVERYTHING,
    workers: int = 1,
    progress: Progress | None = None,
    limit: int = DEFAULT_LIMIT,
) -> AveragePrecision:
    """The metric, filled, of a COCO results list against an instances JSON (polygons or RLE), or against the things of
    a panoptic JSON with the folder of its PNGs (`gt_folder`).

    iou_types: "bbox", "segm", "boundary". Masks are sized by their own area also where results have boxes (Detectron2
    drops these; pycocotools alone sizes by the box). Results without any box get one around the mask and are sized by
    the mask, as COCO.loadRes does. Where no result has a mask, boxes alone are scored, with a warning.
    categories: which to score, by category_id; None is all things of the ground truth. The ground truth's others are
    left out. shard: part of the images, by ascending id; `AveragePrecision.merge` joins parts. workers: threads that
    read PNGs; the matching library has its own (RAYON_NUM_THREADS). progress: called with (images done, all).
    An image without results has missed all its ground truth (COCO's rule); an empty list scores 0.

    Raises DatasetError with up to `limit` problems: what the formats refuse, results that name an image or
    category that the ground truth lacks, invalid entries, masks asked for where there
    are none; ValueError for other iou_types or fewer than one worker.
    """
    results = coco.read_results(results_json)
    kinds = _comparable(check_iou_types(iou_types), results, results_json)
    ground_truth = _Truth.of_instances(gt_json, kinds) if gt_folder is None else _Truth.of_panoptic(gt_json, gt_folder)
    metric = AveragePrecision(ground_truth.categories if categories is None else categories, kinds)
    problems = ErrorCollector(limit)
    found = _by_image(results, ground_truth.sizes_hw, problems, Path(results_json))
    boxes_from_masks = "bbox" in kinds and not any("bbox" in result for result in results)
    del results
    read = _Reader(ground_truth, found, ground_truth.left_out(metric.categories))
    image_ids = shard.select([*_ascending(ground_truth.sizes_hw)])
    blocks = [image_ids[start : start + IMAGES_AT_ONCE] for start in range(0, len(image_ids), IMAGES_AT_ONCE)]
    done = 0
    for block, images in zip(blocks, ordered_map(read.block, blocks, workers), strict=True):
        _add(metric, images, boxes_from_masks, problems, f"{gt_json} with {results_json}")
        done += len(block)
        if progress is not None:
            progress(done, len(image_ids))
    problems.check()
    return metric


class _ImagePair(NamedTuple):
    """The annotations and results of one image."""

    image_id: ImageId
    ground_truth: ImageEntries
    results: ImageEntries


class _Truth(NamedTuple):
    """sizes_hw: image_id -> (height, width). annotations: those of an image, asked for once."""

    categories: CategorySet
    sizes_hw: Mapping[ImageId, tuple[int, int]]
    annotations: Callable[[ImageId], Sequence[Entry]]

    @classmethod
    def of_instances(cls, json_path: str | Path, iou_types: Sequence[str]) -> _Truth:
        masks = any(iou_type != "bbox" for iou_type in iou_types)
        file = coco.read_instances(json_path, masks)
        sizes_hw = {image["id"]: (image["height"], image["width"]) for image in file.images}
        by_image: dict[ImageId, list[Entry]] = defaultdict(list)
        for annotation in file.annotations:
            by_image[annotation["image_id"]].append(annotation)
        return cls(file.categories, sizes_hw, lambda image_id: by_image.pop(image_id, []))

    @classmethod
    def of_panoptic(cls, json_path: str | Path, pngs: str | Path) -> _Truth:
        file = coco.read_panoptic(json_path)
        records = {record.image_id: record for record in file.records}
        sizes_hw = {image_id: (record.height, record.width) for image_id, record in records.items()}

        def annotations(image_id: ImageId) -> list[Entry]:
            path, infos = Path(pngs) / records[image_id].png_name, records[image_id].segments_info
            found = coco.read_segmentation(path, infos, file.categories, sizes_hw[image_id], image_id)
            return build_coco_annotations(image_id, found)

        return cls(file.categories, sizes_hw, annotations)

    def left_out(self, scored: CategorySet) -> set[int]:
        return {one.category_id for one in self.categories.categories if one.category_id not in scored}


class _Reader(NamedTuple):
    """What an image's ground truth and results are; an image is read once, and then forgotten."""

    ground_truth: _Truth
    found: dict[ImageId, list[Entry]]
    left_out: set[int]

    def block(self, image_ids: Sequence[ImageId]) -> list[_ImagePair | DatasetError]:
        return [self.image(image_id) for image_id in image_ids]

    def image(self, image_id: ImageId) -> _ImagePair | DatasetError:
        results = self._kept(self.found.pop(image_id, []))
        try:
            annotations = self._kept(self.ground_truth.annotations(image_id))
        except DatasetError as error:
            return error
        size_hw = self.ground_truth.sizes_hw[image_id]
        return _ImagePair(
            image_id,
            ImageEntries(annotations, size_hw, f"image {image_id!r}, ground truth"),
            ImageEntries(results, size_hw, f"image {image_id!r}, results"),
        )

    def _kept(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        if not self.left_out:
            return entries
        ids = [entry.get("category_id") for entry in entries]
        return [entry for entry, i in zip(entries, ids, strict=True) if type(i) is not int or i not in self.left_out]


def _comparable(iou_types: tuple[str, ...], results: Sequence[Entry], path: str | Path) -> tuple[str, ...]:
    """Without "segm" and "boundary" where no result has a mask."""
    if not results or any("segmentation" in result for result in results):
        return iou_types
    if "bbox" not in iou_types:
        remedy = "score boxes only (bbox), or export masks"
        raise DatasetError("expected results with a segmentation, none has one", where=path, remedy=remedy)
    if len(iou_types) > 1:
        log.warning("%s: no result has a segmentation: only boxes are scored", path)
    return ("bbox",)


def _by_image(
    results: Sequence[Entry], known: Mapping[ImageId, object], problems: ErrorCollector, path: Path
) -> dict[ImageId, list[Entry]]:
    image_ids: list[Any] = [result.get("image_id") for result in results]
    found: dict[ImageId, list[Entry]] = defaultdict(list)
    if not {*map(type, image_ids)} <= {*json_fields.IMAGE_ID} or not {*image_ids} <= known.keys():
        for index, result in enumerate(results):
            with problems.guard():
                _check_image(result, known, f"{path}, result {index}")
        problems.check()
    for image_id, result in zip(image_ids, results, strict=True):
        found[image_id].append(result)
    return found


def _check_image(result: Entry, known: Mapping[ImageId, object], where: str) -> None:
    image_id = json_fields.get_field(result, "image_id", json_fields.IMAGE_ID, where)
    if image_id not in known:
        raise DatasetError(
            f"expected an image_id of the ground truth ({abbreviate(known)}), got {image_id!r}",
            where=where,
            remedy="score the results of these images only",
        )


def _ascending(image_ids: Mapping[ImageId, object]) -> list[ImageId]:
    numbers = sorted(image_id for image_id in image_ids if not isinstance(image_id, str))
    return [*numbers, *sorted(image_id for image_id in image_ids if isinstance(image_id, str))]


def _add(
    metric: AveragePrecision,
    read: Sequence[_ImagePair | DatasetError],
    boxes_from_masks: bool,
    problems: ErrorCollector,
    where: str,
) -> None:
    for error in (one for one in read if isinstance(one, DatasetError)):
        problems.add(error)
    images = [image for image in read if not isinstance(image, DatasetError)]
    try:
        _update(metric, images, boxes_from_masks)
    except DatasetError:
        for image in images:
            try:
                _update(metric, [image], boxes_from_masks)
            except DatasetError as error:
                problems.add(DatasetError(str(error), where=where))


def _update(metric: AveragePrecision, images: Sequence[_ImagePair], boxes_from_masks: bool) -> None:
    ground_truth, results = [image.ground_truth for image in images], [image.results for image in images]
    metric.update_images(
        [image.image_id for image in images],
        [image.ground_truth.size_hw for image in images],
        read_annotation_columns(ground_truth, metric.fields, metric.categories),
        read_result_columns(results, metric.fields, metric.categories, boxes_from_masks),
    )
