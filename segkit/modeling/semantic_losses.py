"""The losses of semantic heads, by name: what MODEL.SEM_SEG_HEAD.LOSSES lists."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from segkit.modeling.losses import dice_loss
from segkit.utils.errors import ConfigError
from segkit.utils.text import suggest

KEY = "MODEL.SEM_SEG_HEAD.LOSSES"
MAIN = "loss_sem_seg"  # Detectron2's name
EPSILON = 1e-6  # least 1 - p of the focal loss: its power has no finite gradient at 0 for exponents below 1


class CrossEntropy(nn.Module):
    """Mean cross entropy of the labelled pixels.

    Args:
        label_smoothing: share of each target that is spread over all classes, in [0, 1) (Szegedy et al. 2016).
        class_weights: C factors, one for each channel; the mean is weighted by them, as in torch; None: all 1.
    """

    weights: torch.Tensor | None

    def __init__(self, *, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.label_smoothing = _check("label_smoothing", label_smoothing, 0 <= label_smoothing < 1, "in [0, 1)")
        self.register_buffer("weights", _build_weights(class_weights), persistent=False)

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, ignore_value: int) -> torch.Tensor:
        """See `SemanticLosses`."""
        return F.cross_entropy(
            logits, targets, self.weights, ignore_index=ignore_value, label_smoothing=self.label_smoothing
        )


class HardPixelMining(nn.Module):
    """Cross entropy of the pixels where it is highest (Yang et al. 2019, DeeperLab), as Detectron2's `DeepLabCE`.

    Args:
        top_k: share of all pixels of the batch that count, in (0, 1].
        class_weights: C factors of the pixels' losses; None: all 1.
    """

    weights: torch.Tensor | None

    def __init__(self, *, top_k: float = 0.2, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.top_k = _check("top_k", top_k, 0 < top_k <= 1, "in (0, 1]")
        self.register_buffer("weights", _build_weights(class_weights), persistent=False)

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, ignore_value: int) -> torch.Tensor:
        """See `SemanticLosses`."""
        losses = F.cross_entropy(logits, targets, self.weights, ignore_index=ignore_value, reduction="none").flatten()
        return losses.topk(max(int(self.top_k * losses.numel()), 1)).values.mean()


class Dice(nn.Module):
    """Soft Dice loss, the mean over the classes in the batch: small classes weigh as much as large ones.

    Each class is one mask over the whole batch, see `dice_loss`.
    """

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, ignore_value: int) -> torch.Tensor:
        """See `SemanticLosses`."""
        probs, gt_masks = _split_classes(logits, targets, ignore_value)
        return dice_loss(probs, gt_masks, gt_masks.any(dim=1))


class Focal(nn.Module):
    """Focal loss, the mean of -w (1 - p)^gamma log p over the labelled pixels (Lin et al. 2017, equation 5).

    Args:
        gamma: the exponent, 0 or more; 0 is the cross entropy.
        class_weights: C factors w of the classes; None: all 1.
    """

    weights: torch.Tensor | None

    def __init__(self, *, gamma: float = 2.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.gamma = _check("gamma", gamma, 0 <= gamma < math.inf, "0 or more")
        self.register_buffer("weights", _build_weights(class_weights), persistent=False)

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, ignore_value: int) -> torch.Tensor:
        """See `SemanticLosses`."""
        is_labelled = targets != ignore_value
        entropies = F.cross_entropy(logits, targets, ignore_index=ignore_value, reduction="none")
        losses = (1 - (-entropies).exp()).clamp(min=EPSILON) ** self.gamma * entropies
        if self.weights is not None:
            losses = losses * self.weights[targets.where(is_labelled, 0)]
        return losses.sum() / is_labelled.sum().clamp(min=1)


class LovaszSoftmax(nn.Module):
    """Lovász-softmax loss, a surrogate of 1 - IoU, the mean over the classes in the batch (Berman et al. 2018)."""

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, ignore_value: int) -> torch.Tensor:
        """See `SemanticLosses`."""
        probs, gt_masks = _split_classes(logits, targets, ignore_value)
        # Ignored pixels have the error 0: they come last, where they change nothing.
        errors, order = (gt_masks - probs).abs().sort(dim=1, descending=True)
        is_class = gt_masks.gather(1, order)
        total = is_class.sum(dim=1, keepdim=True)
        # The Jaccard loss if the first i pixels are wrong; its steps are the weights of the errors (algorithm 1).
        jaccard = 1 - (total - is_class.cumsum(dim=1)) / (total + (1 - is_class).cumsum(dim=1))
        steps = torch.diff(jaccard, dim=1, prepend=torch.zeros_like(total))
        is_present = (total[:, 0] > 0).to(errors.dtype)
        return ((errors * steps).sum(dim=1) * is_present).sum() / is_present.sum().clamp(min=1)


# Name -> module with keyword options, called with logits (B, C, H, W), targets (B, H, W) and the ignored label.
# At least one pixel has a label.
LOSSES: dict[str, type[nn.Module]] = {
    "cross_entropy": CrossEntropy,
    "hard_pixel_mining": HardPixelMining,
    "dice": Dice,
    "focal": Focal,
    "lovasz": LovaszSoftmax,
}
MAIN_LOSSES = ("cross_entropy", "hard_pixel_mining")  # which Detectron2 names `MAIN`


class SemanticLosses(nn.Module):
    """The weighted losses of a semantic head, in full resolution.

    Without a labelled pixel every loss is 0, with a gradient of 0.

    Args:
        entries: names of `LOSSES`, or mappings {name, weight (1 by default), options of the loss}.
        stride: pixels of the network's image per logit.
        ignore_value: label of the pixels without a label.
        weight: factor of all losses.
        classes: C, which lists of class weights must have; None: not checked.

    Raises:
        ConfigError: an entry, an option or a value is unknown or out of range.
    """

    def __init__(
        self,
        entries: Sequence[str | Mapping[str, Any]],
        *,
        stride: int = 1,
        ignore_value: int = 255,
        weight: float = 1.0,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        self.stride, self.ignore_value = stride, ignore_value
        self.terms = nn.ModuleDict()
        self.weights: dict[str, float] = {}
        for entry in entries:
            name, factor, loss = _build_loss(entry, classes)
            key = MAIN if name in MAIN_LOSSES else f"{MAIN}_{name}"
            if key in self.terms:
                raise ConfigError(f"two entries give {key}, one of them {name!r}", where=KEY, remedy="keep one of them")
            self.terms[key], self.weights[key] = loss, factor * weight

    def forward(self, predictions: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the losses.

        Args:
            predictions: (B, C, h, w) logits, which may reach beyond the right and lower edge of the targets.
            targets: (B, H, W) int64 channels, `ignore_value` for pixels without a label.

        Returns:
            Scalar losses by name: "loss_sem_seg" for cross entropies, "loss_sem_seg_<name>" for others.
        """
        logits = predictions.float()  # sums over many pixels
        if self.stride != 1:
            logits = F.interpolate(logits, scale_factor=self.stride, mode="bilinear", align_corners=False)
        logits = logits[..., : targets.shape[-2], : targets.shape[-1]]
        is_labelled = targets.ne(self.ignore_value).any()
        targets = targets.where(is_labelled, 0)  # the mean over no pixel would be NaN
        losses = {key: loss(logits, targets, self.ignore_value) for key, loss in self.terms.items()}
        return {key: loss * self.weights[key] * is_labelled for key, loss in losses.items()}


def attach_losses(head: nn.Module, losses: SemanticLosses) -> None:
    """Replace the method `losses` of a head.

    Args:
        head: calls `self.losses(logits, targets)`.
        losses: what it calls from now on; it moves with the head, and adds no weights.
    """
    head.loss_terms = losses
    vars(head)["losses"] = losses  # comes before the class's method, which nn.Module's own attributes do not


def _build_loss(entry: str | Mapping[str, Any], classes: int | None) -> tuple[str, float, nn.Module]:
    """(name, weight, loss) of an entry."""
    options: dict[str, Any] = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
    name, weight = options.pop("name", None), options.pop("weight", 1.0)
    if not isinstance(name, str) or name not in LOSSES:
        remedy = suggest(name, LOSSES, f"choose from {', '.join(LOSSES)}")
        problem = f"expected names of losses, or mappings with a name and options, got {entry!r}"
        raise ConfigError(problem, where=KEY, remedy=remedy)
    where = f"{KEY}, {name}"
    known = [key for key in inspect.signature(LOSSES[name]).parameters if key not in ("args", "kwargs")]
    if unknown := [key for key in options if key not in known]:
        remedy = suggest(unknown[0], known, f"its options are {', '.join(['weight', *known])}")
        raise ConfigError(f"the option {unknown[0]!r} is unknown", where=where, remedy=remedy)
    try:
        _check("weight", weight, 0 <= weight < math.inf, "0 or more")
        weights = options.get("class_weights")
        if isinstance(weights, Sequence) and not isinstance(weights, str) and classes not in (None, len(weights)):
            remedy = "give one for each channel of the semantic head"
            raise ConfigError(f"expected {classes} class_weights, got {len(weights)}", remedy=remedy)
        return name, float(weight), LOSSES[name](**options)
    except ConfigError as error:
        raise ConfigError(str(error), where=where) from None
    except TypeError as error:
        raise ConfigError(f"expected numbers, got {options | {'weight': weight}}", where=where) from error


def _check(name: str, value: Any, holds: bool, expected: str) -> float:
    if not holds:
        raise ConfigError(f"expected {name} {expected}, got {value}")
    return float(value)


def _build_weights(class_weights: Sequence[float] | None) -> torch.Tensor | None:
    if class_weights is None:
        return None
    if isinstance(class_weights, str):
        remedy = "read the config by segkit.prepare_config, which computes them, or give a list of numbers"
        raise ConfigError(f"class_weights {class_weights!r} are to be computed from a training dataset", remedy=remedy)
    weights = torch.tensor([*class_weights], dtype=torch.float32)
    if not ((weights >= 0) & weights.isfinite()).all() or not weights.any():
        raise ConfigError(f"expected class_weights of 0 or more, not all 0, got {[*class_weights]}")
    return weights


def _split_classes(logits: torch.Tensor, targets: torch.Tensor, ignore_value: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(C, B * H * W) probabilities and ground truth masks, 0 at pixels without a label."""
    is_labelled = targets != ignore_value
    gt_masks = F.one_hot(targets.where(is_labelled, 0), logits.shape[1]).movedim(-1, 1) * is_labelled[:, None]
    probs = logits.softmax(dim=1) * is_labelled[:, None]
    return probs.transpose(0, 1).flatten(1), gt_masks.transpose(0, 1).flatten(1).to(probs.dtype)
