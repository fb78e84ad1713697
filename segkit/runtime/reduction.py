"""Predictions of large images at a smaller size, to draw them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from segkit.runtime.prediction import Prediction
from segkit.structures import InstanceMasks, PanopticSegmentation


def reduce_prediction(prediction: Prediction, max_px: int) -> Prediction:
    """Keep every Nth row and column of a prediction and its image.

    Args:
        prediction: of one image.
        max_px: the most pixels of the result.

    Returns:
        The prediction itself if its image is that small; otherwise with the least N whose result is. Segments that no
        kept pixel shows stay listed.
    """
    height, width = prediction.size_hw
    step = math.ceil(math.sqrt(height * width / max_px))
    while -(-height // step) * -(-width // step) > max_px:  # sides are rounded up
        step += 1
    if step == 1:
        return prediction
    panoptic, instances, load_image = prediction.panoptic, prediction.instances, prediction.load_image
    return replace(
        prediction,
        size_hw=(-(-height // step), -(-width // step)),
        panoptic=panoptic and PanopticSegmentation(panoptic.segment_ids[::step, ::step].copy(), panoptic.segments),
        instances=instances and _reduce_instances(instances, step),
        semantic=None if prediction.semantic is None else prediction.semantic[::step, ::step].copy(),
        load_image=load_image and (lambda: np.ascontiguousarray(load_image()[::step, ::step])),
    )


def _reduce_instances(instances: InstanceMasks, step: int) -> InstanceMasks:
    firsts = -instances.corners_xy % step  # of each crop, the first kept column and row
    # Copies: views would keep the whole crops in memory.
    crops = [crop[y::step, x::step].copy() for crop, (x, y) in zip(instances.crops, firsts.tolist(), strict=True)]
    return InstanceMasks(
        (-(-instances.size_hw[0] // step), -(-instances.size_hw[1] // step)),
        instances.boxes_xyxy / np.float32(step),
        instances.scores,
        instances.class_ids,
        (instances.corners_xy + firsts) // step,
        tuple(crops),
    )
