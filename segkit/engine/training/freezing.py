"""Layers that are not trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from segkit.utils.errors import ConfigError
from segkit.utils.text import suggest

logger = logging.getLogger(__name__)


def freeze_layers(model: torch.nn.Module, prefixes: Sequence[str]) -> None:
    """Freeze the weights of a model whose names begin with a prefix, in place.

    BatchNorm below a prefix normalises with its running statistics and does not change them.

    Args:
        model: the model.
        prefixes: whole parts of names, as "backbone.bottom_up.res2"; empty: nothing is frozen.

    Raises:
        ConfigError: a prefix is not in the model, or no weight is left to train.
    """
    if not prefixes:
        return
    parameters = dict(model.named_parameters())
    for prefix in prefixes:
        if not any(_is_below(name, prefix) for name in parameters):
            known = {".".join(name.split(".")[:n]) for name in parameters for n in range(1, name.count(".") + 2)}
            remedy = suggest(prefix, known, f"the model begins with {', '.join(n for n, _ in model.named_children())}")
            raise ConfigError(f"MODEL.FREEZE {prefix!r} is not in the model", remedy=remedy)
    frozen = [name for name in parameters if any(_is_below(name, prefix) for prefix in prefixes)]
    for name in frozen:
        parameters[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ConfigError("MODEL.FREEZE leaves no weight to train", remedy="name fewer layers")
    for name, module in model.named_modules():
        is_frozen = any(_is_below(name, prefix) for prefix in prefixes)
        if is_frozen and isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.train = _stay.__get__(module)  # type: ignore[method-assign]
    logger.info("%d of %d tensors of weights are frozen by MODEL.FREEZE", len(frozen), len(parameters))


def _is_below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _stay(module: Any, mode: bool = True) -> Any:
    """In place of `train`: the module stays in evaluation mode."""
    return module
