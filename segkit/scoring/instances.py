"""Box, mask and boundary AP of a COCO results file."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from segkit.formats import coco
from segkit.formats.coco import ImageEntries, read_annotation_columns, read_result_columns
from segkit.formats.derive import build_coco_annotations
from segkit.metrics import AveragePrecision
from segkit.metrics.average_precision import check_iou_types
from segkit.metrics.state import sort_image_ids
from segkit.scoring.image_ids import describe_rewritten, find_rewritten
from segkit.scoring.png_folders import find_png_folder
from segkit.structures import CategorySet, ImageId, InstanceColumns
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames
from segkit.utils.issues import DEFAULT_LIMIT, ErrorCollector
from segkit.utils.json_fields import Entry
from segkit.utils.process_pool import EVERYTHING, Progress, Shard, ordered_map
from segkit.utils.text import abbreviate

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
    """Count a COCO results list against an instances JSON, or against the things of a panoptic JSON with its PNGs.

    Masks are sized by their own area also if results have boxes (Detectron2 drops these; pycocotools alone sizes by the
    box). Results without any box get one around the mask and are sized by the mask, as in COCO.loadRes. If no result
    has a mask, only boxes are scored, with a warning. An image without results misses all its ground truth (COCO's
    rule); an empty list scores 0.

    Args:
        gt_json: Instances JSON (polygons or RLE), or panoptic JSON.
        results_json: COCO results list.
        gt_folder: PNGs of the panoptic JSON; None finds them, see `find_png_folder`.
        iou_types: Of "bbox", "segm" and "boundary".
        categories: Categories to score, by category_id; None is all things of the ground truth.
        shard: The part of the images, by ascending id; `AveragePrecision.merge` joins parts.
        workers: Processes that read PNGs, at least 1; the matching library has its own threads (RAYON_NUM_THREADS).
        progress: Called with (images done, all).
        limit: Number of errors at which the search for errors stops, at least 1.

    Returns:
        The counts of the shard's images.

    Raises:
        DatasetError: A file or an entry has errors, results name an image or category that the ground truth lacks, or
            masks are compared and no result has one; lists up to `limit` errors.
        ValueError: iou_types has an unknown kind, or `workers` or `limit` is below 1.
    """
    results = coco.read_results(results_json)
    iou_types = _select_iou_types(check_iou_types(iou_types), results, results_json)
    is_panoptic = gt_folder is not None or _is_panoptic(gt_json)
    ground_truth = _open_panoptic(gt_json, gt_folder) if is_panoptic else _open_instances(gt_json, iou_types)
    metric = AveragePrecision(ground_truth.categories if categories is None else categories, iou_types)
    errors = ErrorCollector(limit)
    results_by_image = _group_by_image(results, ground_truth.sizes_hw, errors, Path(results_json))
    boxes_from_masks = "bbox" in iou_types and not any("bbox" in result for result in results)
    del results
    skipped = {c.category_id for c in ground_truth.categories.categories if c.category_id not in metric.categories}

    def read_block(image_ids: Sequence[ImageId]) -> list[_ImagePair | DatasetError]:
        return [_read_pair(image_id, ground_truth, results_by_image, skipped) for image_id in image_ids]

    mistakes = _Mistakes(gt_json, results_json)

    def update(images: Sequence[_ImagePair]) -> None:
        gt_entries, result_entries = [image.ground_truth for image in images], [image.results for image in images]
        annotations = read_annotation_columns(gt_entries, metric.fields, metric.categories)
        detections = read_result_columns(result_entries, metric.fields, metric.categories, boxes_from_masks)
        metric.update_images(
            [image.image_id for image in images],
            [entries.size_hw for entries in gt_entries],
            annotations,
            detections,
        )
        mistakes.update(annotations, detections)

    image_ids = shard.select(sort_image_ids(ground_truth.sizes_hw))
    blocks = [image_ids[start : start + IMAGES_AT_ONCE] for start in range(0, len(image_ids), IMAGES_AT_ONCE)]
    done = 0
    for block, images in zip(blocks, ordered_map(read_block, blocks, workers), strict=True):
        _update_and_collect_errors(update, images, errors, f"{gt_json} with {results_json}")
        done += len(block)
        if progress is not None:
            progress(done, len(image_ids))
    errors.check()
    if shard == EVERYTHING:
        mistakes.warn()
    return metric


def describe_no_objects(what: str, crowds: int) -> str:
    """Say why a ground truth has no object to find.

    Args:
        what: text for what an object is in the file, such as "annotation".
        crowds: number of crowds in the ground truth.

    Returns:
        Text such as `all 12 annotations are crowds (iscrowd 1)`.
    """
    return f"all {crowds} {what}s are crowds (iscrowd 1)" if crowds else f"no {what} is of a class that is scored"


class _Mistakes:
    """What is probably wrong with the files, noted while their images are scored."""

    def __init__(self, gt_json: str | Path, results_json: str | Path) -> None:
        self._paths = gt_json, results_json
        self._labels = Counter[bool]()  # objects by whether they are crowds
        self._largest = [0.0, 0.0]  # coordinate of a box of the ground truth and of the results

    def update(self, annotations: InstanceColumns, detections: InstanceColumns) -> None:
        """Note the objects and boxes of some images."""
        self._labels.update((annotations.iscrowd > 0).tolist())
        for index, columns in enumerate((annotations, detections)):
            self._largest[index] = max(self._largest[index], float(columns.boxes.max(initial=0)))

    def warn(self) -> None:
        """Log a line for each mistake."""
        if not self._labels[False]:
            log.warning("%s: %s", self._paths[0], describe_no_objects("annotation", self._labels[True]))
        for path, largest in zip(self._paths, self._largest, strict=True):
            if 0 < largest < 1:
                log.warning("%s: all boxes are in 0..1, expected pixels: are they shares of the image?", path)


class _ImagePair(NamedTuple):
    """The annotations and results of one image."""

    image_id: ImageId
    ground_truth: ImageEntries
    results: ImageEntries


class _GroundTruth(NamedTuple):
    """sizes_hw: image_id -> (height, width). read: the annotations of an image, which is read once."""

    categories: CategorySet
    sizes_hw: Mapping[ImageId, tuple[int, int]]
    read: Callable[[ImageId], Sequence[Entry]]


def _open_instances(json_path: str | Path, iou_types: Sequence[str]) -> _GroundTruth:
    file = coco.read_instances(json_path, any(iou_type != "bbox" for iou_type in iou_types))
    sizes_hw = {image["id"]: (image["height"], image["width"]) for image in file.images}
    annotations: dict[ImageId, list[Entry]] = defaultdict(list)
    for annotation in file.annotations:
        annotations[annotation["image_id"]].append(annotation)
    return _GroundTruth(file.categories, sizes_hw, lambda image_id: annotations.pop(image_id, []))


def _is_panoptic(json_path: str | Path) -> bool:
    """Whether the file names the key of panoptic JSONs: a search in its bytes, many times as fast as parsing."""
    path = Path(json_path)
    return path.is_file() and b'"segments_info"' in files.read_bytes(path)


def _open_panoptic(json_path: str | Path, folder: str | Path | None) -> _GroundTruth:
    file = coco.read_panoptic(json_path)
    pngs = FolderNames(find_png_folder(json_path, folder, (record.png_name for record in file.records)))
    records = {record.image_id: record for record in file.records}
    sizes_hw = {image_id: (record.height, record.width) for image_id, record in records.items()}

    def read(image_id: ImageId) -> list[Entry]:
        path, infos = pngs.locate(records[image_id].png_name), records[image_id].segments_info
        segmentation = coco.read_segmentation(path, infos, file.categories, sizes_hw[image_id], image_id)
        return build_coco_annotations(image_id, segmentation)

    return _GroundTruth(file.categories, sizes_hw, read)


def _read_pair(
    image_id: ImageId, ground_truth: _GroundTruth, results: dict[ImageId, list[Entry]], skipped: set[int]
) -> _ImagePair | DatasetError:
    """Read an image once, without the categories `skipped`, which are not scored."""
    size_hw, where = ground_truth.sizes_hw[image_id], f"image {image_id!r}"
    selected = _select(results.pop(image_id, []), skipped)
    try:
        annotations = _select(ground_truth.read(image_id), skipped)
    except DatasetError as error:
        return error
    gt_entries = ImageEntries(annotations, size_hw, f"{where}, ground truth")
    return _ImagePair(image_id, gt_entries, ImageEntries(selected, size_hw, f"{where}, results"))


def _select(entries: Sequence[Entry], skipped: set[int]) -> Sequence[Entry]:
    if not skipped:
        return entries
    return [e for e in entries if type(i := e.get("category_id")) is not int or i not in skipped]


def _select_iou_types(iou_types: tuple[str, ...], results: Sequence[Entry], path: str | Path) -> tuple[str, ...]:
    """Without "segm" and "boundary" if no result has a mask."""
    if not results or any("segmentation" in result for result in results):
        return iou_types
    if "bbox" not in iou_types:
        remedy = "score boxes only (bbox), or export masks"
        raise DatasetError("expected results with a segmentation, none has one", where=path, remedy=remedy)
    if len(iou_types) > 1:
        log.warning("%s: no result has a segmentation: only boxes are scored", path)
    return ("bbox",)


def _group_by_image(
    results: Sequence[Entry], images: Mapping[ImageId, object], errors: ErrorCollector, path: Path
) -> dict[ImageId, list[Entry]]:
    image_ids: list[Any] = [result.get("image_id") for result in results]
    if not {*map(type, image_ids)} <= {*json_fields.IMAGE_ID} or not {*image_ids} <= images.keys():
        readable = dict.fromkeys(i for i in image_ids if type(i) in json_fields.IMAGE_ID)
        extra = [image_id for image_id in readable if image_id not in images]
        rewritten = find_rewritten((image_id for image_id in images if image_id not in readable), extra)
        if rewritten:
            errors.add(describe_rewritten(path, rewritten, readable))
        for index, result in enumerate(results):
            with errors.guard():
                where = f"{path}, result {index}"
                image_id = json_fields.get_field(result, "image_id", json_fields.IMAGE_ID, where)
                if image_id not in images and image_id not in rewritten:
                    problem = f"expected an image_id of the ground truth ({abbreviate(images)}), got {image_id!r}"
                    raise DatasetError(problem, where=where, remedy="score the results of these images only")
        errors.check()
    by_image: dict[ImageId, list[Entry]] = defaultdict(list)
    for image_id, result in zip(image_ids, results, strict=True):
        by_image[image_id].append(result)
    return by_image


def _update_and_collect_errors(
    update: Callable[[Sequence[_ImagePair]], None],
    block: Sequence[_ImagePair | DatasetError],
    errors: ErrorCollector,
    where: str,
) -> None:
    """Add the images of a block, all at once or, if one has an error, one by one."""
    for item in block:
        if isinstance(item, DatasetError):
            errors.add(item)
    images = [item for item in block if not isinstance(item, DatasetError)]
    try:
        update(images)
    except DatasetError:
        for image in images:
            try:
                update([image])
            except DatasetError as error:
                errors.add(DatasetError(str(error), where=where))
