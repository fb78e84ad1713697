"""A model whose forward pass raises FloatingPointError gives a loss of NaN instead."""

from __future__ import annotations

from typing import Any

import torch


class _Guarded(torch.nn.Module):
    def forward(self, *args: Any, **options: Any) -> Any:
        try:
            return super().forward(*args, **options)
        except FloatingPointError as error:
            if not self.training:
                raise
            # All weights take part, so that the other processes, which wait for their gradients, go on.
            total = torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum()
            return {" ".join(str(error).split()): total * float("nan")}


def guard_divergence(model: torch.nn.Module) -> None:
    """Let a model give a loss of NaN where its forward pass raises FloatingPointError, as Detectron2's RPN does.

    An error of one process would leave the others waiting; a loss is known to all of them. The name of the loss is the
    error's message.

    Args:
        model: changed in place; its weights and their names stay.
    """
    kind = type(model)
    model.__class__ = type(kind.__name__, (_Guarded, kind), {})
