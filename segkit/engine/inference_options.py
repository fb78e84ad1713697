"""TEST.INFERENCE: options that change how a model computes in evaluation and prediction, but not what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode

from segkit.config import with_segkit_keys
from segkit.engine.training.compiled import build_compiled_parts
from segkit.modeling.batch_norm_folding import fold_batch_norms
from segkit.modeling.memory_format import set_memory_format


def apply_inference_options(cfg: CfgNode, model: torch.nn.Module) -> Callable[[], None]:
    """Apply TEST.INFERENCE to a model, in place.

    Args:
        cfg: any config.
        model: in evaluation mode; DistributedDataParallel is unwrapped. Until the options are taken back, the model
            must be neither trained nor saved.

    Returns:
        A function that takes the options back: the weights are the same objects as before.

    Raises:
        ConfigError: MODEL.COMPILE.BACKEND is unknown.
    """
    cfg = with_segkit_keys(cfg)
    options, inner = cfg.TEST.INFERENCE, getattr(model, "module", model)
    undo = ExitStack()
    if options.FOLD_BATCH_NORMS:
        undo.callback(fold_batch_norms(inner))
    if options.CHANNELS_LAST and cfg.MODEL.DEVICE == "cpu" and not cfg.MODEL.CHANNELS_LAST:
        set_memory_format(inner, torch.channels_last)
        undo.callback(set_memory_format, inner, torch.contiguous_format)
        # Detectron2 resizes the map of one image four times slower if its channels are last.
        predictor = getattr(getattr(inner, "sem_seg_head", None), "predictor", None)
        if isinstance(predictor, torch.nn.Module):
            undo.callback(predictor.register_forward_hook(_make_contiguous).remove)
    if options.COMPILE:
        for part in build_compiled_parts(cfg, inner, training=False):
            undo.callback(part.remove)
    return undo.close


@contextmanager
def faster_inference(cfg: CfgNode, model: torch.nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode and apply TEST.INFERENCE to it, within a block.

    Args:
        cfg: any config.
        model: as for `apply_inference_options`.

    Yields:
        Nothing. At the end the model is in its mode of before, and computes as before.
    """
    training = model.training
    undo = apply_inference_options(cfg, model.eval())
    try:
        yield
    finally:
        undo()
        model.train(training)


def _make_contiguous(_module: torch.nn.Module, _inputs: Any, output: Any) -> Any:
    """A forward hook; the queries of a mask transformer are no map."""
    return output.contiguous() if isinstance(output, torch.Tensor) else output
