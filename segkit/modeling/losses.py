"""Losses that more than one head uses."""

from __future__ import annotations

import torch

DICE_SMOOTHING = 1.0  # pixels; the loss of an empty target is 0 if nothing is predicted


def dice_loss(probs: torch.Tensor, targets: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
    """Compute the mean soft Dice loss, 1 - 2 |P G| / (|P|^2 + |G|^2) (Milletari et al. 2016, V-Net, equation 3.1).

    Args:
        probs: (N, P) float in [0, 1], one mask per row.
        targets: (N, P) float in [0, 1].
        present: (N,) bool, the rows that count; None: all.

    Returns:
        Scalar. Without rows it is 0, with a gradient of 0.
    """
    overlap = (probs * targets).sum(dim=1)
    size = (probs * probs).sum(dim=1) + (targets * targets).sum(dim=1)
    loss = 1 - (2 * overlap + DICE_SMOOTHING) / (size + DICE_SMOOTHING)
    weight = torch.ones_like(loss) if present is None else present.to(loss.dtype)
    return (loss * weight).sum() / weight.sum().clamp(min=1)
