"""Weights of an RGB network in a network of another number of input channels."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from timm.models import adapt_input_conv

BEGINNINGS = ("backbone.bottom_up.", "backbone.net.", "backbone.")  # of names of the network below a pyramid
RGB = 3

logger = logging.getLogger(__name__)


def adapt_first_convolution(weights: dict[str, torch.Tensor], model: Mapping[str, torch.Tensor], where: object) -> None:
    """Fit the first convolution of weights to start from to the input channels of a model, in place, with a log line.

    As timm does: the three channels are repeated, times 3 / channels; for one channel they are added.

    Args:
        weights: tensors of a file by name, in any naming.
        model: tensors of the model by name. The first of its network with four axes tells the input channels.
        where: the file, for the log.
    """
    shapes = {name: tensor.shape for name, tensor in model.items() if tensor.ndim == 4}
    ordered = (shape for beginning in BEGINNINGS for name, shape in shapes.items() if name.startswith(beginning))
    shape = next(ordered, None)
    if shape is None or shape[1] == RGB:
        return
    for name, tensor in weights.items():
        if tensor.ndim == 4 and tensor.shape == (shape[0], RGB, *shape[2:]):
            weights[name] = adapt_input_conv(shape[1], tensor)
            logger.info("%s: the first convolution, %s, is adapted from %d to %d channels", where, name, RGB, shape[1])
