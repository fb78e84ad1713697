"""Optimizers by name, with few parameter groups and one kernel a step, and the clipping of gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params, reduce_param_groups
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from segkit.engine.training.layer_decay import BACKBONE, compute_layer_factors
from segkit.engine.training.two_stage import IS_BACKBONE, TWO_STAGE
from segkit.utils.errors import ConfigError
from segkit.utils.text import suggest

POSITIONS = ("relative_position_bias_table", "pos_embed")  # ends of the names of weights without an Embedding
NORM, VALUE, FULL_MODEL = "norm", "value", "full_model"  # of SOLVER.CLIP_GRADIENTS.CLIP_TYPE


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Build SOLVER.OPTIMIZER over Detectron2's parameter groups, merged: one for each learning rate and weight decay.

    The step is fused: one kernel for all weights of a group, which leaves the weights unchanged if its attribute
    `found_inf` is 1, without reading it back.

    Args:
        cfg: config with segkit's keys.
        model: whose parameters are trained.

    Returns:
        The optimizer.

    Raises:
        ConfigError: the name is unknown, or learning rates contradict each other.
    """
    name = cfg.SOLVER.OPTIMIZER.upper()
    if name not in OPTIMIZERS:
        remedy = suggest(name, [*OPTIMIZERS], f"choose one of {', '.join(OPTIMIZERS)}")
        raise ConfigError(f"SOLVER.OPTIMIZER {cfg.SOLVER.OPTIMIZER!r} is unknown", remedy=remedy)
    keys = "base_lr", "weight_decay_norm", "bias_lr_factor", "weight_decay_bias"
    options = {key: cfg.SOLVER[key.upper()] for key in keys}
    if factors := _compute_factors(cfg, model):
        options["lr_factor_func"] = factors.__getitem__
    groups = get_default_optimizer_params(model, **options)
    if cfg.SOLVER.WEIGHT_DECAY_EMBED >= 0:
        groups = _set_decay_of_embeddings(model, groups, cfg.SOLVER.WEIGHT_DECAY_EMBED)
    if cfg.SOLVER.LR_SCHEDULER_NAME == TWO_STAGE:
        groups = _split_backbone(model, groups)
    return OPTIMIZERS[name](cfg, groups)


def clip_gradients(cfg: CfgNode, parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    """Clip the gradients as SOLVER.CLIP_GRADIENTS says, without reading anything back.

    Args:
        cfg: config with segkit's keys. CLIP_TYPE is "value", "norm" (of each tensor by itself, as in Detectron2), or
            "full_model" (the norm of all of them, as in DETR and Mask2Former).
        parameters: those that have gradients.

    Returns:
        () float32, the norm of all gradients before, not finite if one of them is not.

    Raises:
        ConfigError: the type is unknown.
    """
    options = cfg.SOLVER.CLIP_GRADIENTS
    if options.ENABLED and options.CLIP_TYPE == FULL_MODEL:
        return clip_grad_norm_(parameters, options.CLIP_VALUE, options.NORM_TYPE, foreach=True)
    norm = _compute_norm([p.grad for p in parameters if p.grad is not None])
    if not options.ENABLED:
        return norm
    if options.CLIP_TYPE == VALUE:
        clip_grad_value_(parameters, options.CLIP_VALUE, foreach=True)
    elif options.CLIP_TYPE == NORM:
        for parameter in parameters:
            clip_grad_norm_(parameter, options.CLIP_VALUE, options.NORM_TYPE)
    else:
        problem = f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE {options.CLIP_TYPE!r} is unknown"
        raise ConfigError(problem, remedy=f"choose one of {VALUE}, {NORM}, {FULL_MODEL}")
    return norm


def _compute_factors(cfg: CfgNode, model: torch.nn.Module) -> dict[str, float]:
    """Name of a weight -> factor of its learning rate; empty if all are 1."""
    solver = cfg.SOLVER
    if solver.LAYER_DECAY == solver.BACKBONE_MULTIPLIER == 1:
        return {}
    if solver.BIAS_LR_FACTOR != 1:  # Detectron2 drops the factors of biases then
        problem = "SOLVER.BIAS_LR_FACTOR cannot be combined with LAYER_DECAY or BACKBONE_MULTIPLIER"
        raise ConfigError(problem, remedy="set it to 1.0")
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    if not any(name.startswith(BACKBONE) for name in names):
        raise ConfigError("SOLVER.BACKBONE_MULTIPLIER needs a model with a backbone", remedy="set it to 1.0")
    factors = compute_layer_factors(names, solver.LAYER_DECAY, solver.LAYER_DECAY_TOP, solver.LAYER_DECAY_FULL_BLOCKS)
    multiplier = solver.BACKBONE_MULTIPLIER
    return {name: factor * multiplier if name.startswith(BACKBONE) else factor for name, factor in factors.items()}


def _set_decay_of_embeddings(
    model: torch.nn.Module, groups: Iterable[dict[str, Any]], decay: float
) -> list[dict[str, Any]]:
    """Groups in which the weights of embeddings and positions have their own weight decay."""
    embeddings = {id(p) for m in model.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    embeddings |= {id(p) for name, p in model.named_parameters() if name.endswith(POSITIONS)}
    own = {"weight_decay": decay}
    split = [
        {**group, "params": [p], **(own if id(p) in embeddings else {})} for group in groups for p in group["params"]
    ]
    merged: list[dict[str, Any]] = reduce_param_groups(split)
    return merged


def _split_backbone(model: torch.nn.Module, groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups of the backbone and of other weights, with `IS_BACKBONE`, by which the schedule tells them apart."""
    backbone = {id(p) for name, p in model.named_parameters() if name.startswith(BACKBONE)}
    split = []
    for group in groups:
        for is_backbone in (True, False):
            if own := [p for p in group["params"] if (id(p) in backbone) == is_backbone]:
                split.append({**group, "params": own, IS_BACKBONE: is_backbone})
    return split


def _compute_norm(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    if not gradients:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm([*gradients])))


def _build_sgd(cfg: CfgNode, groups: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
    solver = cfg.SOLVER
    options = {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV, "weight_decay": solver.WEIGHT_DECAY}
    optimizer = torch.optim.SGD(groups, lr=solver.BASE_LR, fused=True, **options)
    if solver.MOMENTUM:  # otherwise a first step that is skipped would leave the momentum uninitialised
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _build_adam(cfg: CfgNode, groups: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY, fused=True)


def _build_adamw(cfg: CfgNode, groups: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY, fused=True)


OPTIMIZERS: dict[str, Callable[[CfgNode, Iterable[dict[str, Any]]], torch.optim.Optimizer]] = {
    "SGD": _build_sgd,
    "ADAM": _build_adam,
    "ADAMW": _build_adamw,
}
