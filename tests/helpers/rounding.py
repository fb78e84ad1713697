"""Comparison of outputs of PanopticRCNN up to rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.paste import MASK_THRESHOLD, ROUNDING, compute_crop_probs
from segkit.fusion.semantic_argmax import TOLERANCE
from segkit.structures import InstanceMasks


def find_unsure_channels(sem_seg: Any) -> NDArray[np.bool_]:
    """(H, W) bool: pixels whose two highest (C, H, W) logits are within rounding of each other."""
    logits = sem_seg.detach().float()
    best, second = logits.topk(2, dim=0).values.cpu().numpy()
    return np.asarray(best - second <= TOLERANCE * float(logits.abs().max()))


def find_unsure_mask_pixels(masks: InstanceMasks) -> NDArray[np.bool_]:
    """(N, H, W) bool: the pixels whose mask probability is within rounding of the threshold."""
    unsure = np.zeros((len(masks), *masks.size_hw), dtype=np.bool_)
    for row in range(len(masks)):
        unsure[row][masks.window(row)] = np.abs(compute_crop_probs(masks, row) - MASK_THRESHOLD) < ROUNDING
    return unsure


def assert_equal_panoptic(first: dict[str, Any], second: dict[str, Any], ours: dict[str, Any]) -> None:
    """panoptic_seg of two outputs may differ only at unsure pixels. ours: the output that has instance_masks."""
    (first_ids, first_info), (second_ids, second_info) = first["panoptic_seg"], second["panoptic_seg"]
    assert first_ids.dtype == second_ids.dtype
    differs = (first_ids != second_ids).cpu().numpy()
    unsure = find_unsure_mask_pixels(ours["instance_masks"]).any(axis=0) | find_unsure_channels(ours["sem_seg"])
    assert not (differs & ~unsure).any()
    if differs.any():  # areas of stuff may differ too
        first_info, second_info = ([{**s, "area": None} for s in info] for info in (first_info, second_info))
    assert repr(first_info) == repr(
        second_info
    )  # the types must be equal too, because the infos may be written as JSON
