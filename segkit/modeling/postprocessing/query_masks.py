"""The masks of queries as box crops on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from segkit.modeling.postprocessing.resampling import Sizes
from segkit.modeling.postprocessing.resized_masks import DEVICE_BYTES, ResizedMasks
from segkit.modeling.transfers import copy_to_device
from segkit.structures import InstanceMasks
from segkit.structures.segment_table import INPUT_ERRORS, NAN_LOGITS

MIN_PX = 1e-6  # added to the pixels of a mask, as in Mask2Former's instance_inference


@dataclass(frozen=True)
class QueryImage:
    """The predictions for one image.

    Attributes:
        class_logits: (Q, K + 1) float, the last channel is "no object".
        mask_logits: (Q, h, w) float, of the padded image.
        sizes: of the image.
    """

    class_logits: torch.Tensor
    mask_logits: torch.Tensor
    sizes: Sizes


def cut_masks(
    image: QueryImage,
    queries: NDArray[np.int64],
    class_ids: NDArray[np.int64],
    scores: NDArray[np.floating],
    scored: bool,
) -> InstanceMasks:
    """Cut the masks of queries to the boxes of their pixels with a positive logit, on the CPU.

    Only the window is resized in which a mask can be positive. DEVICE_BYTES of windows are read back at once.

    Args:
        image: the predictions.
        queries: (n,) rows of the queries, which may repeat.
        class_ids: (n,) contiguous ids.
        scores: (n,) in [0, 1].
        scored: multiply scores by the mean probability of the pixels, leave out masks without a pixel, and sort by
            score.

    Returns:
        The instances.

    Raises:
        ValueError: a score or mask logit is NaN or infinite.
    """
    unique, inverse = np.unique(queries, return_inverse=True)
    masks = ResizedMasks(
        image.mask_logits.index_select(0, copy_to_device(unique, image.mask_logits.device)), image.sizes
    )
    crops, corners, qualities = _read_crops(masks)
    scores = scores.astype(np.float64) * qualities[inverse] if scored else scores
    if not np.isfinite(scores).all():
        raise ValueError(INPUT_ERRORS[NAN_LOGITS])
    rows = np.arange(len(queries))
    if scored:
        rows = np.argsort(-scores, kind="stable")
        rows = rows[[crops[inverse[row]].size > 0 for row in rows]] if len(rows) else rows
    chosen = inverse[rows]
    selected = tuple(crops[row] for row in chosen)
    sizes = np.array([crop.shape[::-1] for crop in selected], dtype=np.int64).reshape(-1, 2)
    boxes = np.concatenate([corners[chosen], corners[chosen] + sizes], axis=1)
    return InstanceMasks(
        image.sizes.size_hw,
        boxes.astype(np.float32),
        scores[rows].astype(np.float32),
        class_ids[rows],
        corners[chosen],
        selected,
    )


def _read_crops(
    masks: ResizedMasks,
) -> tuple[list[NDArray[np.bool_]], NDArray[np.int64], NDArray[np.float64]]:
    """Of each mask its tight crop, its (left, top), and the mean probability inside; 0 x 0 at (0, 0) if it is empty."""
    count = len(masks.logits)
    corners, crops = np.zeros((count, 2), dtype=np.int64), [np.zeros((0, 0), dtype=np.bool_)] * count
    windows = masks.find_windows(_read_extents(masks.logits))
    sums = [torch.zeros(2, device=masks.logits.device)] * count
    waiting: list[tuple[int, torch.Tensor]] = []
    waiting_px = 0

    def read() -> None:
        for (row, _), pixels in zip(waiting, _read_together([mask for _, mask in waiting]), strict=True):
            left, top, width, height = cv2.boundingRect(pixels.view(np.uint8))
            crops[row] = pixels[top : top + height, left : left + width].copy()
            corners[row] = left + windows[row][1].start, top + windows[row][0].start
        waiting.clear()

    for row, (ys, xs) in enumerate(windows):
        if ys.stop <= ys.start or xs.stop <= xs.start:
            continue
        logits = masks.resize(masks.logits[row : row + 1], (ys, xs))[0]
        mask = logits > 0
        sums[row] = torch.stack([(logits.sigmoid() * mask).sum(), mask.sum()])
        waiting.append((row, mask))
        waiting_px += mask.numel()
        if waiting_px > DEVICE_BYTES:
            read()
            waiting_px = 0
    read()
    for row, crop in enumerate(crops):
        if not crop.size:
            corners[row] = 0
    totals = torch.stack(sums).double().cpu().numpy() if count else np.zeros((0, 2))
    return crops, corners, totals[:, 0] / (totals[:, 1] + MIN_PX)


def _read_together(masks: Sequence[torch.Tensor]) -> list[NDArray[np.bool_]]:
    """Copy (h, w) masks to the CPU in one transfer."""
    if not masks:
        return []
    if masks[0].device.type == "cpu":
        return [mask.numpy() for mask in masks]
    parts = torch.cat([mask.flatten() for mask in masks]).cpu().split([mask.numel() for mask in masks])
    return [part.reshape(mask.shape).numpy() for part, mask in zip(parts, masks, strict=True)]


def _read_extents(logits: torch.Tensor) -> list[list[int]]:
    """Of each (h, w) the first and last row and column with a positive logit; (1, 0, 1, 0) if there is none."""
    positive = logits > 0
    ends = []
    for dim in (2, 1):
        lines = positive.any(dim)
        last = lines.shape[1] - 1
        first = torch.where(lines.any(1), lines.float().argmax(1), last + 1)
        ends += [first, last - lines.flip(1).float().argmax(1)]
    return torch.stack(ends, dim=1).tolist() if len(logits) else []
