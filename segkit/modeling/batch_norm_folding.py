"""Batch norms multiplied into the convolutions before them, for inference; undone without a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from timm.layers import BatchNormAct2d, Conv2dSame, FrozenBatchNormAct2d
from torch import fx, nn
from torchvision.ops.misc import FrozenBatchNorm2d as TorchvisionFrozenBatchNorm2d

# Other classes may compute their weights in the forward pass.
CONVOLUTIONS = (nn.Conv2d, Conv2d, Conv2dSame)
BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, BatchNormAct2d)
FROZEN_NORMS = (FrozenBatchNorm2d, TorchvisionFrozenBatchNorm2d, FrozenBatchNormAct2d)  # the second is in timm's
WITH_ACTIVATION = (BatchNormAct2d, FrozenBatchNormAct2d)
# Modules of timm whose classes apply a batch norm right after the convolution that they list before it.
TIMM_MODULES = tuple(
    f"timm.{name}"
    for name in (
        "layers.conv_bn_act",
        "models._efficientnet_blocks",
        "models.efficientnet",
        "models.mobilenetv3",
        "models.resnet",
    )
)


def fold_batch_norms(model: nn.Module) -> Callable[[], int]:
    """Fold frozen and evaluated batch norms into the convolutions whose outputs they take, in place.

    They are found in Detectron2's Conv2d, behind a convolution in nn.Sequential, in graphs of torch.fx (torchvision's
    feature extractors), and in timm's networks of `TIMM_MODULES`, whose batch norms may have an activation, which
    stays. Outputs change by rounding. Batch norms in training mode stay.

    Args:
        model: The model. Until the batch norms are back it must be neither trained nor saved.

    Returns:
        A function that puts the weights and batch norms back, the same objects, and returns their number.
    """
    folded: list[Any] = []  # (convolution, parent of the batch norm, its attribute, batch norm, weight, bias)
    for conv, parent, name in [*_find_pairs(model)]:
        norm = getattr(parent, name)
        folded.append((conv, parent, name, norm, conv.weight, conv.bias))
        conv.weight, conv.bias = _fold(conv, norm)
        rest = norm.act if isinstance(norm, WITH_ACTIVATION) else nn.Identity()
        setattr(parent, name, None if parent is conv else rest)

    def unfold() -> int:
        count = len(folded)
        while folded:
            conv, parent, name, norm, conv.weight, conv.bias = folded.pop()
            setattr(parent, name, norm)
        return count

    return unfold


def _find_pairs(model: nn.Module) -> Iterator[tuple[Any, Any, str]]:
    """Each convolution with a batch norm behind it: the convolution, and the module and attribute of the batch norm."""
    for module in model.modules():
        if type(module) is Conv2d and _is_fixed(module.norm):
            yield module, module, "norm"
        elif isinstance(module, nn.Sequential) or type(module).__module__ in TIMM_MODULES:
            for (_, first), (name, second) in pairwise(module._modules.items()):
                if _is_bare(first) and _is_fixed(second):
                    yield first, module, name
        elif isinstance(module, fx.GraphModule):
            yield from _find_pairs_of_graph(module)


def _find_pairs_of_graph(module: fx.GraphModule) -> Iterator[tuple[Any, Any, str]]:
    calls = [node for node in module.graph.nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    for node in calls:
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        conv, norm = module.get_submodule(str(source.target)), module.get_submodule(str(node.target))
        if _is_bare(conv) and _is_fixed(norm) and targets.count(source.target) == targets.count(node.target) == 1:
            parent, _, name = str(node.target).rpartition(".")
            yield conv, module.get_submodule(parent), name


def _is_bare(module: Any) -> bool:
    """Whether the output of a module is that of a convolution alone."""
    bare = getattr(module, "norm", None) is None and getattr(module, "activation", None) is None
    return type(module) in CONVOLUTIONS and bare


def _is_fixed(norm: Any) -> bool:
    """Whether a module is a batch norm whose statistics do not depend on the batch."""
    if isinstance(norm, WITH_ACTIVATION) and not isinstance(norm.drop, nn.Identity):
        return False
    if type(norm) in BATCH_NORMS:
        return not norm.training and norm.running_mean is not None
    return isinstance(norm, FROZEN_NORMS)


@torch.no_grad()
def _fold(conv: Any, norm: Any) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight and bias of one convolution in the place of both, computed in float64."""
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    bias = -mean * scale if conv.bias is None else (conv.bias.double() - mean) * scale
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    weight = (conv.weight.double() * scale[:, None, None, None]).to(conv.weight)
    if conv.weight.is_contiguous(memory_format=torch.channels_last):
        weight = weight.contiguous(memory_format=torch.channels_last)
    return nn.Parameter(weight, requires_grad=False), nn.Parameter(bias.to(conv.weight), requires_grad=False)
