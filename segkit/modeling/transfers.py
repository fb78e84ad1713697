"""Copies to a device that do not wait for it."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray


def copy_to_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy an array, on a GPU without waiting for it.

    Args:
        array: of numbers.
        device: of the result.

    Returns:
        The same numbers.
    """
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
