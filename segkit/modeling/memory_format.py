"""The order of the axes of feature maps in memory."""

from __future__ import annotations

from typing import Any

import torch


def set_memory_format(model: torch.nn.Module, memory_format: torch.memory_format) -> None:
    """Store the weights of convolutions, in place, so that feature maps get this format.

    Args:
        model: any model.
        memory_format: `torch.channels_last` or `torch.contiguous_format`.
    """
    untyped: Any = model  # the types of torch 2.4 do not know this argument
    untyped.to(memory_format=memory_format)
