"""Which results match a ground truth: COCOeval's matching of a block of images, by the fast library where it is
installed."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from segkit.metrics.boundary import DILATION_RATIO, boundary_dilation_px
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
BARELY = 1e-9
SETTINGS = len(AREAS_PX) * len(IOU_THRESHOLDS)
# The private functions of ultrafast-pycocotools that are used here: another release may lack them.
NEEDED = ("Evaluator", "load_compact_array", "OUTCOME_TRUE_POSITIVE", "OUTCOME_FALSE_POSITIVE")
ULTRAFAST = ultrafast is not None and all(hasattr(ultrafast, name) for name in NEEDED)


class Matches(NamedTuple):
    """Results after matching, a row each, in any order: the 100 best of each class and image.

    image: (N,) int32 index. thing: (N,) int32 contiguous id. rank: (N,) uint8, place by score within class and image,
    from 0. score: (N,) float64. true, false: (N, 5) uint8, 40 bits (np.packbits): does it count as a true or false
    positive, per area range (4) and IoU threshold (10); a bit in neither: it does not count.
    """

    image: NDArray[np.int32]
    thing: NDArray[np.int32]
    rank: NDArray[np.uint8]
    score: NDArray[np.float64]
    tp: NDArray[np.uint8]
    fp: NDArray[np.uint8]


NO_MATCHES = Matches(
    np.zeros(0, np.int32),
    np.zeros(0, np.int32),
    np.zeros(0, np.uint8),
    np.zeros(0, np.float64),
    np.zeros((0, SETTINGS // 8), np.uint8),
    np.zeros((0, SETTINGS // 8), np.uint8),
)


def get_library_name() -> str:
    """The package that matches: "ultrafast_pycocotools", or "pycocotools" where that is missing or another release."""
    return "ultrafast_pycocotools" if ULTRAFAST else "pycocotools"


def match(
    ground_truth: InstanceColumns,
    results: InstanceColumns,
    sizes_hw: Sequence[tuple[int, int]],
    things: int,
    iou_type: str,
) -> tuple[Matches, NDArray[np.int64]]:
    """The matches of images of these sizes, and (things, 4) int64: how many ground truth there are to find per area
    range.

    `truth.number` is the area that tells the size class, `results.number` the score. A result is sized by `box_area`
    for "bbox", else by `area_px`. "boundary": the IoU is the smaller of the masks' and their boundaries' (Cheng et al.
    2021, Boundary IoU, section 5; boundary-iou-api, coco_instance_api/cocoeval.py), but with a crowd the masks'.
    """
    of_truth, of_results = (columns.image * things + columns.thing for columns in (ground_truth, results))
    opposed, sought = np.isin(of_results, of_truth), np.isin(of_truth, of_results)
    found = _unopposed(results.select(np.flatnonzero(~opposed)), iou_type)
    if opposed.any():
        pair = ground_truth.select(np.flatnonzero(sought)), results.select(np.flatnonzero(opposed))
        if not ULTRAFAST:
            compared = [_by_pycocotools(*pair, sizes_hw, things, iou_type)]
        elif iou_type == "boundary":
            compared = _boundaries_by_ultrafast(*pair, sizes_hw, things)
        else:
            compared = [_by_ultrafast(*pair, sizes_hw, things, iou_type)]
        found = concatenate_matches([*compared, found])
    return found, _count_ground_truth(ground_truth, things)


def concatenate_matches(parts: Sequence[Matches]) -> Matches:
    """The rows of all parts."""
    columns: list[Any] = [np.concatenate(column) for column in zip(NO_MATCHES, *parts, strict=True)]
    return Matches(*columns)


def _count_ground_truth(ground_truth: InstanceColumns, things: int) -> NDArray[np.int64]:
    counts = []
    for low, high in AREAS_PX:
        counted = (ground_truth.iscrowd == 0) & (ground_truth.number >= low) & (ground_truth.number <= high)
        counts.append(np.bincount(ground_truth.thing[counted], minlength=things))
    return np.stack(counts, axis=1).astype(np.int64)


def _unopposed(results: InstanceColumns, iou_type: str) -> Matches:
    """Results of classes that the image's ground truth lacks: false positives wherever their size counts, as COCOeval
    has it. They are most of what a detector says, and no mask needs to be looked at."""
    order = np.lexsort((-results.number, results.image, results.thing))
    area = (results.box_area if iou_type == "bbox" else results.area_px)[order]
    false = np.stack([(area >= low) & (area <= high) for low, high in AREAS_PX], axis=1)
    found = _matches(
        results.image[order],
        results.thing[order],
        results.number[order],
        np.zeros((len(order), SETTINGS), dtype=np.bool_),
        np.repeat(false, len(IOU_THRESHOLDS), axis=1),
    )
    columns: dict[str, Any] = found._asdict()
    return Matches(**{name: column[found.rank < MAX_DETECTIONS[-1]] for name, column in columns.items()})


def _boundaries_by_ultrafast(
    ground_truth: InstanceColumns, results: InstanceColumns, sizes_hw: Sequence[tuple[int, int]], things: int
) -> list[Matches]:
    """Apart, images in which the library's rounding of a boundary's width, halves up, is not the reference's, halves
    to even: 12.5 pixels, of 375 x 500, are 12. A ratio that is less by nothing else than that half makes them so."""
    found = []
    rounded_up = np.array([_rounded_up(size_hw) for size_hw in sizes_hw])
    for apart, ratio in ((False, DILATION_RATIO), (True, DILATION_RATIO * (1 - BARELY))):
        of_truth, of_results = (
            one.select(np.flatnonzero(rounded_up[one.image] == apart)) for one in (ground_truth, results)
        )
        if len(of_results.image):
            found.append(_by_ultrafast(of_truth, of_results, sizes_hw, things, "boundary", ratio))
    return found


def _rounded_up(size_hw: tuple[int, int]) -> bool:
    """Whether halves up is not what `boundary_dilation_px` gives."""
    half_up = math.floor(DILATION_RATIO * math.sqrt(size_hw[0] ** 2 + size_hw[1] ** 2) + 0.5)
    return max(1, half_up) != boundary_dilation_px(size_hw)


def _by_ultrafast(
    ground_truth: InstanceColumns,
    results: InstanceColumns,
    sizes_hw: Sequence[tuple[int, int]],
    things: int,
    iou_type: str,
    boundary_ratio: float = DILATION_RATIO,
) -> Matches:
    sized_by_sides = iou_type == "bbox" and (results.boxes[:, 2] * results.boxes[:, 3] == results.box_area).all()
    found = _box_table(results) if sized_by_sides else _result_entries(results, iou_type)
    engine = ultrafast.Evaluator(
        _truth_entries(ground_truth, iou_type),
        found,
        dict(enumerate(sizes_hw)),
        list(range(len(sizes_hw))),
        list(range(things)),
        IOU_THRESHOLDS.tolist(),
        [0.0],  # recalls, of curves that are not asked for
        [MAX_DETECTIONS[-1]],
        AREAS_PX,
        True,  # within categories
        iou_type,
        [],  # keypoints' sigmas
        boundary_dilation=boundary_ratio,
    )
    areas = [engine.outcomes(area, MAX_DETECTIONS[-1]) for area in range(len(AREAS_PX))]
    outcome = np.concatenate([area["outcome"] for area in areas], axis=1)
    return _matches(
        areas[0]["image_id"],
        areas[0]["cat_slot"],
        areas[0]["score"],
        outcome == ultrafast.OUTCOME_TRUE_POSITIVE,
        outcome == ultrafast.OUTCOME_FALSE_POSITIVE,
    )


def _box_table(results: InstanceColumns) -> Any:
    """The rows [image, x, y, width, height, score, class]; the library takes a box's area from its sides."""
    columns = (results.image[:, None], results.boxes, results.number[:, None], results.thing[:, None])
    return ultrafast.load_compact_array(np.concatenate(columns, axis=1, dtype=np.float64))


def _matches(
    image: NDArray[Any], thing: NDArray[Any], score: NDArray[np.float64], true: NDArray[Any], false: NDArray[Any]
) -> Matches:
    starts = np.flatnonzero((np.diff(image, prepend=-1) != 0) | (np.diff(thing.astype(np.int64), prepend=-1) != 0))
    rank = np.arange(len(image)) - np.repeat(starts, np.diff(starts, append=len(image)))
    return Matches(
        image.astype(np.int32),
        thing.astype(np.int32),
        np.minimum(rank, MAX_DETECTIONS[-1]).astype(np.uint8),
        np.asarray(score, dtype=np.float64),
        np.packbits(true, axis=1),
        np.packbits(false, axis=1),
    )


def _truth_entries(ground_truth: InstanceColumns, iou_type: str) -> list[dict[str, Any]]:
    """Numbered from 1, since COCOeval takes a match with id 0 for none."""
    shapes = ground_truth.boxes.tolist() if iou_type == "bbox" else ground_truth.masks
    rows = zip(
        ground_truth.image.tolist(),
        ground_truth.thing.tolist(),
        ground_truth.iscrowd.tolist(),
        ground_truth.number.tolist(),
        shapes,
        strict=True,
    )
    return [
        {"id": number, "image_id": image, "category_id": thing, "iscrowd": crowd, "area": area, FIELD[iou_type]: shape}
        for number, (image, thing, crowd, area, shape) in enumerate(rows, 1)
    ]


def _result_entries(results: InstanceColumns, iou_type: str) -> list[dict[str, Any]]:
    shapes = results.boxes.tolist() if iou_type == "bbox" else results.masks
    areas = results.box_area if iou_type == "bbox" else results.area_px
    rows = zip(
        results.image.tolist(), results.thing.tolist(), results.number.tolist(), areas.tolist(), shapes, strict=True
    )
    return [
        {
            "id": number,
            "image_id": image,
            "category_id": thing,
            "iscrowd": 0,
            "score": score,
            "area": area,
            FIELD[iou_type]: shape,
        }
        for number, (image, thing, score, area, shape) in enumerate(rows, 1)
    ]


def _by_pycocotools(
    ground_truth: InstanceColumns,
    results: InstanceColumns,
    sizes_hw: Sequence[tuple[int, int]],
    things: int,
    iou_type: str,
) -> Matches:
    images = [{"id": image, "height": height, "width": width} for image, (height, width) in enumerate(sizes_hw)]
    with contextlib.redirect_stdout(io.StringIO()):
        scorer = (_BoundaryEval if iou_type == "boundary" else COCOeval)(
            _indexed(images, _truth_entries(ground_truth, iou_type), things),
            _indexed(images, _result_entries(results, iou_type), things),
            "segm" if iou_type == "boundary" else iou_type,
        )
        scorer.evaluate()
    by_area = [scorer.evalImgs[start :: len(sizes_hw)] for start in range(len(sizes_hw))]  # image -> class x area
    pairs = [
        (image, thing, by_area[image][thing * len(AREAS_PX) : (thing + 1) * len(AREAS_PX)])
        for thing in range(things)
        for image in range(len(sizes_hw))
    ]
    found = [(image, thing, areas) for image, thing, areas in pairs if areas[0] and areas[0]["dtScores"]]
    numbers = [len(areas[0]["dtScores"]) for _, _, areas in found]
    counted = [~np.concatenate([area["dtIgnore"] for area in areas]) for _, _, areas in found]
    matched = [np.concatenate([area["dtMatches"] for area in areas]) > 0 for _, _, areas in found]
    nothing = np.zeros((SETTINGS, 0), dtype=np.bool_)
    return _matches(
        np.repeat(np.array([image for image, _, _ in found], dtype=np.int64), numbers),
        np.repeat(np.array([thing for _, thing, _ in found], dtype=np.int64), numbers),
        np.array([score for _, _, areas in found for score in areas[0]["dtScores"]], dtype=np.float64),
        np.concatenate([nothing, *(m & c for m, c in zip(matched, counted, strict=True))], axis=1).T,
        np.concatenate([nothing, *(~m & c for m, c in zip(matched, counted, strict=True))], axis=1).T,
    )


def _indexed(images: list[dict[str, int]], entries: list[dict[str, Any]], things: int) -> COCO:
    coco = COCO()
    coco.dataset = {"images": images, "annotations": entries, "categories": [{"id": thing} for thing in range(things)]}
    coco.createIndex()
    return coco


class _BoundaryEval(COCOeval):  # type: ignore[misc]
    """COCOeval of masks with the smaller of mask and boundary IoU."""

    def computeIoU(self, imgId: int, catId: int) -> Any:
        ground_truth, results = self._gts[imgId, catId], self._dts[imgId, catId]
        ious = super().computeIoU(imgId, catId)
        if not len(ground_truth) or not len(results):
            return ious
        order = np.argsort([-result["score"] for result in results], kind="mergesort")[: MAX_DETECTIONS[-1]]
        boundaries = [
            [_boundary(one["segmentation"]) for one in part] for part in (ground_truth, [results[i] for i in order])
        ]
        crowds = np.array([one["iscrowd"] for one in ground_truth])
        of_boundaries = coco_mask.iou(boundaries[1], boundaries[0], crowds.tolist())
        return np.where(crowds == 1, ious, np.minimum(ious, of_boundaries))


def _boundary(rle: dict[str, Any]) -> dict[str, Any]:
    """What erosion by the dilation distance takes of a mask; outside of the image is background (boundary-iou-api,
    utils/boundary_utils.py, mask_to_boundary)."""
    mask = coco_mask.decode(rle)
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    dilation_px = boundary_dilation_px(mask.shape)
    eroded = cv2.erode(padded, np.ones((3, 3), dtype=np.uint8), iterations=dilation_px)
    boundary: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask - eroded[1:-1, 1:-1]))
    return boundary
