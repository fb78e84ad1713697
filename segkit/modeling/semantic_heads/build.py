"""Semantic heads from a config: checked, with the losses and auxiliary heads that it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from detectron2.projects.deeplab import DeepLabV3Head, DeepLabV3PlusHead
from torch import nn

from segkit.config import with_segkit_keys
from segkit.modeling.semantic_heads.auxiliary import AuxiliaryHeads
from segkit.modeling.semantic_heads.checks import check_semantic_head
from segkit.modeling.semantic_heads.unet import UNetHead
from segkit.modeling.semantic_losses import SemanticLosses, attach_losses
from segkit.utils.errors import ConfigError

# Heads whose `layers` give the logits that `forward` enlarges by `common_stride`.
COARSE_HEADS = (SemSegFPNHead, DeepLabV3PlusHead, UNetHead)


def build_semantic_head(cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> nn.Module:
    """Build MODEL.SEM_SEG_HEAD.NAME with MODEL.SEM_SEG_HEAD.LOSSES and AUXILIARY.

    Args:
        cfg: complete config; segkit's keys may be missing.
        input_shape: level -> channels and stride, of the backbone.

    Returns:
        The head, see `complete_head`.

    Raises:
        ConfigError: the head, a level or a loss is unknown, or keys do not fit together.
    """
    cfg = with_segkit_keys(cfg)
    check_semantic_head(cfg, input_shape)
    name = cfg.MODEL.SEM_SEG_HEAD.NAME
    try:
        head = SEM_SEG_HEADS_REGISTRY.get(name)(cfg, input_shape)
    except (AssertionError, KeyError, ValueError) as error:
        problem = f"the semantic head {name} cannot be built: {error}"
        raise ConfigError(problem, where="MODEL.SEM_SEG_HEAD", remedy="see its keys in segkit/config.py") from error
    return complete_head(cfg, head, input_shape)


def complete_head(cfg: CfgNode, head: nn.Module, input_shape: Mapping[str, ShapeSpec]) -> nn.Module:
    """Attach losses and auxiliary heads to a head, in place.

    Without MODEL.SEM_SEG_HEAD.LOSSES the losses stay those of the head. The losses of PointRend's points stay too.

    Args:
        cfg: config with segkit's keys.
        head: called with (features, targets), returns (logits, losses).
        input_shape: level -> channels and stride, of the backbone.

    Returns:
        The head, whose losses are 0 for a batch without a labelled pixel.

    Raises:
        ConfigError: a loss is unknown, or the head takes no other losses.
    """
    options = cfg.MODEL.SEM_SEG_HEAD
    values: dict[str, Any] = {"ignore_value": options.IGNORE_VALUE, "classes": options.NUM_CLASSES}
    coarse_head: Any = getattr(head, "coarse_sem_seg_head", head)  # PointRend's
    entries = [*options.LOSSES] or _get_own_losses(coarse_head)
    if options.LOSSES and not (hasattr(coarse_head, "losses") and hasattr(coarse_head, "common_stride")):
        problem = f"{options.NAME} has losses of its own, got MODEL.SEM_SEG_HEAD.LOSSES {[*options.LOSSES]}"
        raise ConfigError(problem, remedy="leave MODEL.SEM_SEG_HEAD.LOSSES empty")
    if entries:
        losses = SemanticLosses(entries, stride=coarse_head.common_stride, weight=options.LOSS_WEIGHT, **values)
        attach_losses(coarse_head, losses)
    if options.AUXILIARY.IN_FEATURES:
        shapes = {level: input_shape[level] for level in options.AUXILIARY.IN_FEATURES}
        head.auxiliary = AuxiliaryHeads(
            shapes,
            entries or ["cross_entropy"],
            conv_dims=options.CONVS_DIM,
            norm=options.NORM,
            weight=options.AUXILIARY.LOSS_WEIGHT,
            **values,
        )
    return guard_unlabelled(head)


def guard_unlabelled(head: nn.Module) -> nn.Module:
    """Let the losses of a head be 0, with a gradient of 0, for a batch without a labelled pixel: not NaN.

    Auxiliary heads, if `head.auxiliary` is there, add their losses.

    Args:
        head: called with (features, targets), returns (logits, losses); changed in place, once.

    Returns:
        The head.
    """
    if "forward" not in vars(head):
        vars(head)["forward"] = partial(_forward, head, type(head).forward)
    return head


def compute_coarse_logits(head: nn.Module, features: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
    """Compute logits before they are enlarged, if the head is one of `COARSE_HEADS`.

    Args:
        head: in evaluation.
        features: level -> (B, C, h, w).

    Returns:
        (B, C, h, w) logits, and the pixels of the network's image per logit.
    """
    for kind in COARSE_HEADS:
        if isinstance(head, kind) and type(head).forward is kind.forward:
            return head.layers(features), head.common_stride
    return head(features, None)[0], 1


def _get_own_losses(head: Any) -> list[str]:
    """The entries that compute the same as the head's own losses; empty if they are not known."""
    own = getattr(type(head), "losses", None)
    if own in (DeepLabV3Head.losses, DeepLabV3PlusHead.losses):
        return [head.loss_type]
    return ["cross_entropy"] if own is SemSegFPNHead.losses or isinstance(head, UNetHead) else []


def _forward(
    head: Any,
    forward: Callable[..., Any],
    features: dict[str, torch.Tensor],
    targets: torch.Tensor | None = None,
) -> Any:
    if not head.training or targets is None:
        return forward(head, features, targets)
    is_labelled = targets.ne(head.ignore_value).any()
    targets = targets.where(is_labelled, 0)
    logits, losses = forward(head, features, targets)
    if hasattr(head, "auxiliary"):
        losses = {**losses, **head.auxiliary(features, targets)}
    return logits, {name: loss * is_labelled for name, loss in losses.items()}
