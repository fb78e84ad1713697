"""Weights that are published as differences from other weights, as EoMT's for DINOv3, are no weights to run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from segkit.utils.errors import CheckpointError
from segkit.utils.text import abbreviate

NORM = re.compile(r"(blocks|layers?)\.\d+\..*norm\d?\.weight$")  # of a transformer's block
MIN_NORMS = 8  # fewer say too little
LARGEST_MEAN = 0.2  # of the sizes of a norm's scales in a file of differences; trained norms have scales around 1
DINOV3 = (".attention.o_proj.weight", ".gamma_1")  # ends of names that the ViTs of DINOv3 alone have, ours the last


def are_deltas(weights: Mapping[str, Any]) -> bool:
    """Find out whether the norms of a file's transformer blocks all have scales around 0.

    Args:
        weights: name -> tensor or array.

    Returns:
        Whether the weights look like differences from others.
    """
    scales = _find_scales(weights)
    return len(scales) >= MIN_NORMS and max(scales.values()) < LARGEST_MEAN


def is_dinov3(names: Iterable[str]) -> bool:
    """Find out whether a plain ViT is of DINOv3 or of DINOv2.

    Args:
        names: in transformers, in official files or in our model.

    Returns:
        Whether the attention has rotary positions, as DINOv3's.
    """
    return any(name.endswith(DINOV3) for name in names)


def refuse_deltas(weights: Mapping[str, Any], where: object, remedy: str = "") -> None:
    """Refuse a file whose transformer blocks' norms all have scales around 0.

    Args:
        weights: name -> tensor or array.
        where: the file, for the error.
        remedy: "": to add the weights and to save the sum.

    Raises:
        CheckpointError: the weights look like differences.
    """
    if not are_deltas(weights):
        return
    scales = _find_scales(weights)
    problem = (
        f"expected weights, got differences from other weights: the scales of all {len(scales)} norms are around 0 "
        f"(at most {max(scales.values()):.3f} in the mean), trained ones are around 1: {abbreviate(scales)}"
    )
    remedy = remedy or "add them to the weights that they were computed from, and save the sum"
    raise CheckpointError(problem, where=where, remedy=remedy)


def _find_scales(weights: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(torch.as_tensor(weight).float().abs().mean())
        for name, weight in weights.items()
        if NORM.search(name) and weight.ndim == 1 and len(weight)
    }
