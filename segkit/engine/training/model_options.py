"""Options that change how a model computes, but not what: memory format, recomputation, SyncBN, determinism."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import detectron2.utils.comm as comm
import torch
from detectron2.config import CfgNode
from detectron2.modeling import ResNet
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from segkit.engine.training.freezing import freeze_layers
from segkit.modeling.backbones.timm_network import TimmBackbone
from segkit.modeling.memory_format import set_memory_format
from segkit.utils.errors import ConfigError

logger = logging.getLogger(__name__)

CUBLAS_VARIABLE, CUBLAS_VALUES = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")  # of cuBLAS's documentation


def prepare_model(cfg: CfgNode, model: torch.nn.Module) -> None:
    """Apply MODEL.SYNC_BN, FREEZE, CHANNELS_LAST and ACTIVATION_CHECKPOINTING to a model, in place.

    The names of the weights stay.

    Args:
        cfg: config with segkit's keys.
        model: before DistributedDataParallel.

    Raises:
        ConfigError: an option does not fit the model.
    """
    if cfg.MODEL.SYNC_BN:
        _synchronize_batch_norm(model)
    if next(model.parameters()).device.type == "cpu":
        _replace_sync_batch_norm(model)
    freeze_layers(model, cfg.MODEL.FREEZE)
    if cfg.MODEL.CHANNELS_LAST:
        set_memory_format(model, torch.channels_last)
        _log_memory_format(model)
    if cfg.MODEL.ACTIVATION_CHECKPOINTING:
        stages = _find_stages(getattr(model, "backbone", model))
        if not stages:
            problem = "MODEL.ACTIVATION_CHECKPOINTING finds no stages in the backbone"
            remedy = "it knows Detectron2's ResNets, timm's networks, and backbones with modules named blocks"
            raise ConfigError(problem, remedy=remedy)
        for stage in stages:
            stage.forward = partial(_recompute, stage, stage.forward)
        logger.info("%d stages of the backbone are computed again in the backward pass", len(stages))


def set_deterministic() -> None:
    """Let torch choose deterministic algorithms; operations that have none are named by a warning of torch.

    Every further step of this process is affected. Call it before the first computation on a GPU.
    """
    if os.environ.setdefault(CUBLAS_VARIABLE, CUBLAS_VALUES[0]) not in CUBLAS_VALUES:
        text = "SOLVER.DETERMINISTIC: %s is %s; cuBLAS is deterministic with %s"
        logger.warning(text, CUBLAS_VARIABLE, os.environ[CUBLAS_VARIABLE], " or ".join(CUBLAS_VALUES))
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def check_static_graph(cfg: CfgNode) -> bool:
    """Check that SOLVER.STATIC_GRAPH fits the config.

    Args:
        cfg: config with segkit's keys.

    Returns:
        SOLVER.STATIC_GRAPH.

    Raises:
        ConfigError: gradients are accumulated, which DistributedDataParallel does not plan.
    """
    if cfg.SOLVER.STATIC_GRAPH and cfg.SOLVER.ACCUMULATION_STEPS > 1:
        problem = "SOLVER.STATIC_GRAPH cannot be combined with SOLVER.ACCUMULATION_STEPS"
        raise ConfigError(problem, remedy="set STATIC_GRAPH False or ACCUMULATION_STEPS 1")
    return bool(cfg.SOLVER.STATIC_GRAPH)


def _synchronize_batch_norm(model: torch.nn.Module) -> None:
    if next(model.parameters()).device.type == "cpu":
        logger.warning("MODEL.SYNC_BN is not possible on the CPU: BatchNorm sees the images of its own process")
    elif comm.get_world_size() > 1:
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)


def _replace_sync_batch_norm(model: torch.nn.Module) -> None:
    """Put BatchNorm with the same weights in the place of SyncBatchNorm (NORM "SyncBN"), which CPUs do not have."""
    layers = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, torch.nn.SyncBatchNorm)
    ]
    for parent, name, layer in layers:
        plain = torch.nn.BatchNorm2d(layer.num_features, layer.eps, layer.momentum, layer.affine)
        plain.weight, plain.bias = layer.weight, layer.bias
        plain.load_state_dict(layer.state_dict())
        setattr(parent, name, plain)
    if layers:
        text = "%d layers of SyncBN are not possible on the CPU: BatchNorm sees the images of its own process"
        logger.warning(text, len(layers))


def _log_memory_format(model: torch.nn.Module) -> None:
    """Log, after the first forward pass, whether the backbone's feature maps have the format."""

    def log(_module: torch.nn.Module, _inputs: Any, features: Any) -> None:
        handle.remove()
        maps = [f for f in (features.values() if isinstance(features, dict) else [features]) if f.dim() == 4]
        count = sum(f.is_contiguous(memory_format=torch.channels_last) for f in maps)
        logger.info("MODEL.CHANNELS_LAST: %d of %d feature maps of the backbone are channels_last", count, len(maps))

    handle = getattr(model, "backbone", model).register_forward_hook(log)


def _find_stages(backbone: torch.nn.Module) -> Sequence[torch.nn.Module]:
    """The stages of a ResNet, or the blocks of a transformer; of timm's networks without blocks the stages."""
    stages: list[torch.nn.Module] = []
    for name, module in backbone.named_modules():
        if isinstance(module, ResNet):
            stages += module.stages
        elif name.rpartition(".")[2] == "blocks" and isinstance(module, (torch.nn.ModuleList, torch.nn.Sequential)):
            stages += [*module]
    timm = next((module for module in backbone.modules() if isinstance(module, TimmBackbone)), None)
    if timm is not None and not stages:
        modules = [timm.network.get_submodule(name) for name in timm.stage_names]
        stages = [module for module in modules if next(module.children(), None)]  # but the stem's activation
    return stages


def _recompute(stage: torch.nn.Module, forward: Any, *inputs: Any, **options: Any) -> Any:
    if not (stage.training and torch.is_grad_enabled()):
        return forward(*inputs, **options)
    contexts = partial(_build_contexts, stage)
    return checkpoint(partial(forward, **options), *inputs, use_reentrant=False, context_fn=contexts)


def _build_contexts(stage: torch.nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """For the forward pass and its repetition."""
    return nullcontext(), _keeping_statistics(stage)


@contextmanager
def _keeping_statistics(stage: torch.nn.Module) -> Iterator[None]:
    """The repetition must not add its batch to the running statistics a second time."""
    layers = [m for m in stage.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(setattr, layer, "momentum", layer.momentum)
            stack.callback(setattr, layer, "num_batches_tracked", layer.num_batches_tracked)
            layer.momentum, layer.num_batches_tracked = 0.0, None
        yield
