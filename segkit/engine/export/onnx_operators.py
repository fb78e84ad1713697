"""The operators of `operators.py`, and one of torch, in ONNX. Import it only to export: it needs onnxscript."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxscript import opset18

import segkit.engine.export.operators  # noqa: F401  (registers torch.ops.segkit)

op: Any = opset18  # its types are narrower than what it takes
NO_LIMIT = 2**62  # NonMaxSuppression selects no box without a number


def nms_mask(boxes: Any, scores: Any, iou_threshold: float, score_threshold: float) -> Any:
    """See `segkit.engine.export.operators.nms_mask`."""
    limits = (
        op.Constant(value_ints=[NO_LIMIT]),
        *(op.Constant(value_floats=[v]) for v in (iou_threshold, score_threshold)),
    )
    grouped = op.Unsqueeze(scores, op.Constant(value_ints=[1]))
    selected = op.NonMaxSuppression(boxes, grouped, *limits)  # (M, 3): group, 0, row
    places = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)
    ones = op.Expand(op.Constant(value_ints=[1]), op.Shape(selected, end=1))
    none = op.Expand(op.Constant(value_ints=[0]), op.Shape(scores))
    return op.Cast(op.ScatterND(none, places, ones), to=9)  # BOOL


def pool_levels(
    features: Sequence[Any],
    boxes: Any,
    levels: Any,
    scales: Sequence[float],
    side: int,
    sampling_ratio: int,
    aligned: bool,
) -> Any:
    """See `segkit.engine.export.operators.pool_levels`."""
    images = op.Cast(op.Gather(boxes, op.Constant(value_int=0), axis=1), to=7)  # INT64
    corners = op.Gather(boxes, op.Constant(value_ints=[1, 2, 3, 4]), axis=1)
    mode = "half_pixel" if aligned else "output_half_pixel"
    shape = op.Concat(
        op.Shape(boxes, end=1), op.Shape(features[0], start=1, end=2), op.Constant(value_ints=[side, side]), axis=0
    )
    pooled = op.Expand(op.Constant(value_floats=[0.0]), shape)
    for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        rows = op.Transpose(op.NonZero(op.Equal(levels, op.Constant(value_int=level))))  # (R of the level, 1)
        flat = op.Squeeze(rows, op.Constant(value_ints=[1]))
        crops = op.RoiAlign(
            feature,
            op.Gather(corners, flat, axis=0),
            op.Gather(images, flat, axis=0),
            output_height=side,
            output_width=side,
            spatial_scale=scale,
            sampling_ratio=max(sampling_ratio, 0),
            coordinate_transformation_mode=mode,
        )
        pooled = op.ScatterND(pooled, rows, crops)
    return pooled


def slice_copy(maps: Any, dim: int, start: Any, end: Any) -> Any:
    """See `torch.slice_copy`, which torch's exporter lacks; `start` and `end` are numbers or tensors."""
    ends = (op.Reshape(op.Cast(each, to=7), op.Constant(value_ints=[1])) for each in (start, end))  # INT64
    return op.Slice(maps, *ends, op.Constant(value_ints=[dim]))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.segkit.nms_mask.default: nms_mask,
    torch.ops.segkit.pool_levels.default: pool_levels,
    torch.ops.aten.slice_copy.Tensor: slice_copy,
}
