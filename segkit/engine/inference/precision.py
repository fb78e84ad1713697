"""The type in which the convolutions and matrices of a model are computed; results stay float32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from torch import nn

from segkit.utils.errors import ConfigError

PRECISIONS = ("float32", "bfloat16", "float16", "auto")
# Detectron2's names of modules, and their methods, that take tensors and give tensors. What chooses boxes, pastes masks
# or fuses stays in float32.
PARTS = {
    "backbone": "forward",
    "proposal_generator.rpn_head": "forward",
    "roi_heads.res5": "forward",
    "roi_heads.box_head": "forward",
    "roi_heads.mask_head": "layers",
    "sem_seg_head": "layers",
    "ins_embed_head": "layers",
    "head": "forward",  # EoMT's runs the backbone too, and the blocks with queries
}


def select_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Select the type of mixed precision.

    Args:
        precision: one of `PRECISIONS`; "auto" is bfloat16 on a GPU that computes in it, float16 on other GPUs, and
            float32 elsewhere.
        device: of the model.

    Returns:
        The type; None for float32.

    Raises:
        ConfigError: the precision is unknown, or the device cannot compute in it.
    """
    if precision not in PRECISIONS:
        remedy = f"choose one of {', '.join(PRECISIONS)}"
        raise ConfigError(f"the precision {precision!r} is unknown", remedy=remedy)
    if precision == "auto" and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if precision == "float16" and device.type == "cpu":
        raise ConfigError("float16 needs a GPU, got the device cpu", remedy="choose float32 or bfloat16")
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)


def set_precision(model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Compute the `PARTS` of a model in mixed precision, in place.

    Args:
        model: in evaluation mode. Its weights stay as they are.
        dtype: bfloat16 or float16.
        device: of the model.
    """
    for part, method in find_parts(model):
        setattr(part, method, _in_precision(getattr(part, method), dtype, device.type))


def find_parts(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Find the `PARTS` of a model.

    Args:
        model: the model.

    Yields:
        A module and the name of its method that takes and gives tensors.
    """
    for name, method in PARTS.items():
        try:
            part = attrgetter(name)(model)
        except AttributeError:
            continue
        for each in part if isinstance(part, nn.ModuleList) else [part]:  # Cascade R-CNN has three of some
            is_method = callable(getattr(type(each), method, None))
            yield each, method if is_method else "forward"


def _in_precision(compute: Any, dtype: torch.dtype, device_type: str) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device_type, dtype):
            return _to_float(compute(*args, **kwargs))

    return run


def _to_float(outputs: Any) -> Any:
    if isinstance(outputs, torch.Tensor):
        return outputs.float() if outputs.is_floating_point() else outputs
    if isinstance(outputs, dict):
        return {key: _to_float(value) for key, value in outputs.items()}
    if hasattr(outputs, "_fields"):  # a NamedTuple
        return type(outputs)(*map(_to_float, outputs))
    if isinstance(outputs, (list, tuple)):
        return type(outputs)(map(_to_float, outputs))
    if is_dataclass(outputs) and not isinstance(outputs, type):
        values = {field.name: _to_float(getattr(outputs, field.name)) for field in fields(outputs)}
        return replace(outputs, **values)
    return outputs
