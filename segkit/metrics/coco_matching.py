"""Which results match the ground truth: COCOeval's matching of a block of images, by the fast library if installed."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from segkit.metrics.boundary import DILATION_RATIO, boundary_dilation_px, boundary_pixels
from segkit.structures import InstanceColumns

try:
    from ultrafast_pycocotools import _ufcoco as ultrafast
except ImportError:
    ultrafast = None

# What each kind of IoU compares.
FIELD = {"bbox": "bbox", "segm": "segmentation", "boundary": "segmentation"}
IOU_THRESHOLDS = Params("bbox").iouThrs  # 0.50, 0.55 ... 0.95
RECALLS = Params("bbox").recThrs  # 0.00, 0.01 ... 1.00
MAX_DETECTIONS = tuple(Params("bbox").maxDets)  # 1, 10, 100 per class and image
AREAS_PX = [[float(limit) for limit in limits] for limits in Params("bbox").areaRng]  # all, small, medium, large
BARELY = 1e-9  # lowers a boundary ratio so that halves of pixels are rounded down
SETTINGS = len(AREAS_PX) * len(IOU_THRESHOLDS)
# The private functions of ultrafast-pycocotools that are used here; another release may lack them.
NEEDED = ("Evaluator", "load_compact_array", "OUTCOME_TRUE_POSITIVE", "OUTCOME_FALSE_POSITIVE")
SizesHW: TypeAlias = Sequence[tuple[int, int]]  # (height, width) of each image in pixels
ULTRAFAST = ultrafast is not None and all(hasattr(ultrafast, name) for name in NEEDED)


class Matches(NamedTuple):
    """Results after matching, one row each, in any order: the 100 best of each class and image.

    image: (N,) int32 index. thing: (N,) int32 contiguous id. rank: (N,) uint8 rank by score within class and image,
    from 0. score: (N,) float64. tp, fp: (N, 5) uint8, 40 bits (np.packbits): whether the result is a true or a false
    positive per area range (4) and IoU threshold (10); a result with neither bit does not count.
    """

    image: NDArray[np.int32]
    thing: NDArray[np.int32]
    rank: NDArray[np.uint8]
    score: NDArray[np.float64]
    tp: NDArray[np.uint8]
    fp: NDArray[np.uint8]


class ObjectCounts(NamedTuple):
    """Ground truth instances that count, one row per image and class that has any, in any order.

    image: (M,) int32 index. thing: (M,) int32 contiguous id. number: (M, 4) int64 instances per area range.
    """

    image: NDArray[np.int32]
    thing: NDArray[np.int32]
    number: NDArray[np.int64]


NO_INDEX, NO_BITS = np.zeros(0, np.int32), np.zeros((0, SETTINGS // 8), np.uint8)
NO_MATCHES = Matches(NO_INDEX, NO_INDEX, np.zeros(0, np.uint8), np.zeros(0), NO_BITS, NO_BITS)
NO_OBJECTS = ObjectCounts(NO_INDEX, NO_INDEX, np.zeros((0, len(AREAS_PX)), np.int64))


def get_library_name() -> str:
    """The package that matches: "ultrafast_pycocotools", or "pycocotools" if that is missing or another release."""
    return "ultrafast_pycocotools" if ULTRAFAST else "pycocotools"


def match(
    ground_truth: InstanceColumns, results: InstanceColumns, sizes_hw: SizesHW, things: int, iou_type: str
) -> Matches:
    """Match images of these sizes.

    `ground_truth.number` is the area that decides the size class, `results.number` the score. The size of a result is
    its `box_area` for "bbox", else its `area_px`. For "boundary" the IoU is the smaller of the masks' and of their
    boundaries' (Cheng et al. 2021, Boundary IoU, section 5; boundary-iou-api, coco_instance_api/cocoeval.py), but with
    a crowd that of the masks.
    """
    gt_keys, result_keys = (columns.image * things + columns.thing for columns in (ground_truth, results))
    has_gt, has_results = np.isin(result_keys, gt_keys), np.isin(gt_keys, result_keys)
    matches = [_match_without_ground_truth(results.select(np.flatnonzero(~has_gt)), iou_type)]
    if has_gt.any():
        pair = ground_truth.select(np.flatnonzero(has_results)), results.select(np.flatnonzero(has_gt))
        if not ULTRAFAST:
            matches.append(_match_by_pycocotools(*pair, sizes_hw, things, iou_type))
        elif iou_type == "boundary":
            matches += _match_boundaries_by_ultrafast(*pair, sizes_hw, things)
        else:
            matches.append(_match_by_ultrafast(*pair, sizes_hw, things, iou_type))
    return concatenate_matches(matches)


def concatenate_matches(parts: Sequence[Matches]) -> Matches:
    """The rows of all parts."""
    columns: list[Any] = [np.concatenate(column) for column in zip(NO_MATCHES, *parts, strict=True)]
    return Matches(*columns)


def count_objects(ground_truth: InstanceColumns, things: int) -> ObjectCounts:
    """Count the instances that are no crowds, by image, class and area range; `ground_truth.number` is the area."""
    single = ground_truth.iscrowd == 0
    keys, rows = np.unique((ground_truth.image * things + ground_truth.thing)[single], return_inverse=True)
    area, number = ground_truth.number[single], np.zeros((len(keys), len(AREAS_PX)), np.int64)
    for column, (low, high) in enumerate(AREAS_PX):
        number[:, column] = np.bincount(rows[(area >= low) & (area <= high)], minlength=len(keys))
    image, thing = np.divmod(keys, max(things, 1))
    return ObjectCounts(image.astype(np.int32), thing.astype(np.int32), number)


def concatenate_objects(parts: Sequence[ObjectCounts]) -> ObjectCounts:
    """The rows of all parts."""
    columns: list[Any] = [np.concatenate(column) for column in zip(NO_OBJECTS, *parts, strict=True)]
    return ObjectCounts(*columns)


def _match_without_ground_truth(results: InstanceColumns, iou_type: str) -> Matches:
    """Results of classes that the image's ground truth lacks: false positives if their size counts, as in COCOeval.

    They are most of a detector's results, and no mask has to be decoded.
    """
    order = np.lexsort((-results.number, results.image, results.thing))
    area = (results.box_area if iou_type == "bbox" else results.area_px)[order]
    in_range = np.stack([(area >= low) & (area <= high) for low, high in AREAS_PX], axis=1)
    fp = np.repeat(in_range, len(IOU_THRESHOLDS), axis=1)
    matches = _build_matches(results.image[order], results.thing[order], results.number[order], np.zeros_like(fp), fp)
    columns: list[Any] = [column[matches.rank < MAX_DETECTIONS[-1]] for column in matches]
    return Matches(*columns)


def _match_boundaries_by_ultrafast(
    ground_truth: InstanceColumns, results: InstanceColumns, sizes_hw: SizesHW, things: int
) -> list[Matches]:
    """Match the images apart in which the library rounds a boundary's width up and the reference does not.

    The library rounds halves up, the reference to even: 12.5 pixels, of 375 x 500, are 12. A ratio that is smaller by
    nothing but that half gives the reference's width.
    """
    matches = []
    rounded_up = np.array([_rounded_up(size_hw) for size_hw in sizes_hw])
    for apart, ratio in ((False, DILATION_RATIO), (True, DILATION_RATIO * (1 - BARELY))):
        gt_part, result_part = (
            columns.select(np.flatnonzero(rounded_up[columns.image] == apart)) for columns in (ground_truth, results)
        )
        if len(result_part.image):
            matches.append(_match_by_ultrafast(gt_part, result_part, sizes_hw, things, "boundary", ratio))
    return matches


def _rounded_up(size_hw: tuple[int, int]) -> bool:
    """Whether rounding halves up differs from `boundary_dilation_px`."""
    half_up = math.floor(DILATION_RATIO * math.sqrt(size_hw[0] ** 2 + size_hw[1] ** 2) + 0.5)
    return max(1, half_up) != boundary_dilation_px(size_hw)


def _match_by_ultrafast(
    ground_truth: InstanceColumns,
    results: InstanceColumns,
    sizes_hw: SizesHW,
    things: int,
    iou_type: str,
    boundary_ratio: float = DILATION_RATIO,
) -> Matches:
    sized_by_sides = iou_type == "bbox" and (results.boxes[:, 2] * results.boxes[:, 3] == results.box_area).all()
    engine = ultrafast.Evaluator(
        _build_entries(ground_truth, iou_type, scored=False),
        _build_box_table(results) if sized_by_sides else _build_entries(results, iou_type, scored=True),
        dict(enumerate(sizes_hw)),
        list(range(len(sizes_hw))),
        list(range(things)),
        IOU_THRESHOLDS.tolist(),
        [0.0],  # recalls, of curves that are not used
        [MAX_DETECTIONS[-1]],
        AREAS_PX,
        True,  # within categories
        iou_type,
        [],  # keypoints' sigmas
        boundary_dilation=boundary_ratio,
    )
    areas = [engine.outcomes(area, MAX_DETECTIONS[-1]) for area in range(len(AREAS_PX))]
    outcome = np.concatenate([area["outcome"] for area in areas], axis=1)
    return _build_matches(
        areas[0]["image_id"],
        areas[0]["cat_slot"],
        areas[0]["score"],
        outcome == ultrafast.OUTCOME_TRUE_POSITIVE,
        outcome == ultrafast.OUTCOME_FALSE_POSITIVE,
    )


def _build_box_table(results: InstanceColumns) -> Any:
    """The rows [image, x, y, width, height, score, class]; the library takes a box's area from its sides."""
    columns = (results.image[:, None], results.boxes, results.number[:, None], results.thing[:, None])
    return ultrafast.load_compact_array(np.concatenate(columns, axis=1, dtype=np.float64))


def _build_matches(
    image: NDArray[Any], thing: NDArray[Any], score: NDArray[np.float64], tp: NDArray[Any], fp: NDArray[Any]
) -> Matches:
    """The rows are sorted by image and class, then by score; tp, fp: (N, 40) bool."""
    starts = np.flatnonzero((np.diff(image, prepend=-1) != 0) | (np.diff(thing.astype(np.int64), prepend=-1) != 0))
    rank = np.arange(len(image)) - np.repeat(starts, np.diff(starts, append=len(image)))
    return Matches(
        image.astype(np.int32),
        thing.astype(np.int32),
        np.minimum(rank, MAX_DETECTIONS[-1]).astype(np.uint8),
        np.asarray(score, dtype=np.float64),
        np.packbits(tp, axis=1),
        np.packbits(fp, axis=1),
    )


def _build_entries(columns: InstanceColumns, iou_type: str, *, scored: bool) -> list[dict[str, Any]]:
    """COCO's entries, results if `scored`; numbered from 1, since COCOeval takes a match with id 0 for none."""
    is_box = iou_type == "bbox"
    areas = (columns.box_area if is_box else columns.area_px) if scored else columns.number
    rows = zip(
        columns.image.tolist(),
        columns.thing.tolist(),
        [0] * len(areas) if scored else columns.iscrowd.tolist(),
        areas.tolist(),
        columns.boxes.tolist() if is_box else columns.masks,
        columns.number.tolist(),
        strict=True,
    )
    field = FIELD[iou_type]
    return [
        {"id": i, "image_id": image, "category_id": thing, "iscrowd": crowd, "area": area, field: shape, "score": score}
        for i, (image, thing, crowd, area, shape, score) in enumerate(rows, 1)
    ]


def _match_by_pycocotools(
    ground_truth: InstanceColumns, results: InstanceColumns, sizes_hw: SizesHW, things: int, iou_type: str
) -> Matches:
    images = [{"id": image, "height": height, "width": width} for image, (height, width) in enumerate(sizes_hw)]
    with contextlib.redirect_stdout(io.StringIO()):
        scorer = (_BoundaryEval if iou_type == "boundary" else COCOeval)(
            _build_coco(images, _build_entries(ground_truth, iou_type, scored=False), things),
            _build_coco(images, _build_entries(results, iou_type, scored=True), things),
            "segm" if iou_type == "boundary" else iou_type,
        )
        scorer.evaluate()
    evaluated = np.array(scorer.evalImgs, dtype=object).reshape(things, len(AREAS_PX), len(sizes_hw))
    pairs = [
        (image, thing)
        for thing, image in np.ndindex(things, len(sizes_hw))
        if evaluated[thing, 0, image] and evaluated[thing, 0, image]["dtScores"]
    ]

    def join(name: str) -> NDArray[Any]:
        """(N, 40) column of all results."""
        tables = [np.concatenate([area[name] for area in evaluated[thing, :, image]]) for image, thing in pairs]
        column: NDArray[Any] = np.concatenate([np.zeros((SETTINGS, 0)), *tables], axis=1).T
        return column

    scores = [evaluated[thing, 0, image]["dtScores"] for image, thing in pairs]
    matched, counted = join("dtMatches") > 0, join("dtIgnore") == 0
    image, thing = np.repeat(np.array(pairs, dtype=np.int64).reshape(-1, 2), [*map(len, scores)], axis=0).T
    return _build_matches(image, thing, np.array([*chain(*scores)]), matched & counted, ~matched & counted)


def _build_coco(images: list[dict[str, int]], entries: list[dict[str, Any]], things: int) -> COCO:
    coco = COCO()
    coco.dataset = {"images": images, "annotations": entries, "categories": [{"id": thing} for thing in range(things)]}
    coco.createIndex()
    return coco


class _BoundaryEval(COCOeval):  # type: ignore[misc]
    """COCOeval of masks with the smaller of mask and boundary IoU."""

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802 (a method of pycocotools)
        ground_truth, results = self._gts[imgId, catId], self._dts[imgId, catId]
        ious = super().computeIoU(imgId, catId)
        if not len(ground_truth) or not len(results):
            return ious
        order = np.argsort([-result["score"] for result in results], kind="mergesort")[: MAX_DETECTIONS[-1]]
        boundaries = [
            [_compute_boundary(entry["segmentation"]) for entry in entries]
            for entries in (ground_truth, [results[i] for i in order])
        ]
        crowds = np.array([entry["iscrowd"] for entry in ground_truth])
        boundary_ious = coco_mask.iou(boundaries[1], boundaries[0], crowds.tolist())
        return np.where(crowds == 1, ious, np.minimum(ious, boundary_ious))


def _compute_boundary(rle: dict[str, Any]) -> dict[str, Any]:
    """The pixels that erosion by the dilation distance removes; outside of the image is background.

    As boundary-iou-api, utils/boundary_utils.py, mask_to_boundary.
    """
    mask = coco_mask.decode(rle)
    on_boundary = boundary_pixels(mask, boundary_dilation_px(mask.shape))
    boundary: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask & on_boundary))
    return boundary
