"""UPSNet and EfficientPS on tensors: the best value of each pixel so far, one instance at a time.

The methods and their sources are in segkit/fusion/{upsnet,efficientps}.py. Nothing is read back, and no N x H x W is
needed. Results equal the CPU's, except for pixels where two values are within rounding of each other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from segkit.fusion.efficientps import EfficientPSFusion
from segkit.fusion.pixel_argmax import MIN_PROB
from segkit.fusion.upsnet import UPSNetFusion
from segkit.modeling.postprocessing.detections import Detections, select_candidate_rows
from segkit.modeling.postprocessing.paste import paste_each
from segkit.modeling.postprocessing.resampling import argmax_selected
from segkit.structures import NO_THING, THING_CHANNEL
from segkit.structures.segment_table import NO_CHANNEL

WORD_BITS = 63  # bits of an int64 that are used

# The value with which an instance competes: of its class logit, mask logit and mask probability.
ComputeValue = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class SemanticChannels(nn.Module):
    """The classes of the C channels of the logits, on the device.

    Args:
        channels: C.
        stuff_ids: (C,) int64, stuff contiguous id of each channel, 0 for things; None: the channel itself.
        thing_ids: (C,) int64, thing contiguous id of each channel, -1 for none; None: all -1.

    Attributes:
        stuff_channels: int64, the channels whose stuff id is not 0.
        thing_channels: int64, the other channels.
        stuff_count: The highest stuff id.

    Raises:
        ValueError: stuff_ids or thing_ids do not have one id per channel.
    """

    stuff_ids: torch.Tensor
    thing_ids: torch.Tensor
    stuff_channels: torch.Tensor
    thing_channels: torch.Tensor

    def __init__(self, channels: int, stuff_ids: torch.Tensor | None, thing_ids: torch.Tensor | None) -> None:
        super().__init__()
        stuff_ids = torch.arange(channels) if stuff_ids is None else stuff_ids.long()
        thing_ids = torch.full((channels,), NO_THING) if thing_ids is None else thing_ids.long()
        if not stuff_ids.shape == thing_ids.shape == (channels,):
            got = f"{tuple(stuff_ids.shape)} and {tuple(thing_ids.shape)}"
            raise ValueError(f"stuff_ids and thing_ids must be one per channel, ({channels},), got {got}")
        is_stuff = stuff_ids != THING_CHANNEL
        self.stuff_count = int(stuff_ids.max())
        self.register_buffer("stuff_ids", stuff_ids, persistent=False)
        self.register_buffer("thing_ids", thing_ids, persistent=False)
        self.register_buffer("stuff_channels", is_stuff.nonzero()[:, 0], persistent=False)
        self.register_buffer("thing_channels", (~is_stuff).nonzero()[:, 0], persistent=False)


def fuse_upsnet(
    ranked: Detections, logits: torch.Tensor, channels: SemanticChannels, fusion: UPSNetFusion
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run UPSNetFusion on B images of one size.

    Args:
        ranked: Detections from `sort_by_score`, with boxes in pixels of the (H, W) images.
        logits: (B, C, H, W) float32.
        channels: The classes of the channels.
        fusion: The options.

    Returns:
        (B, H, W) int32 owners for `build_fused_tensors`, and (B,) int64 keys of `INPUT_ERRORS`, or 0.
    """
    candidates = select_candidate_rows(ranked, fusion.instance_score_threshold, nms_threshold=fusion.nms_threshold)
    values, best_channels = argmax_selected(logits, channels.stuff_channels)
    argmax = _PixelArgmax(ranked, logits, channels, values, channels.stuff_ids[best_channels])
    same_class = ranked.class_ids[:, :, None] == ranked.class_ids[:, None, :]
    selected = argmax.add_instances(
        candidates,
        same_class,
        fusion.overlap_threshold,
        lambda class_logits, mask_logits, _: class_logits + mask_logits,
    )
    if fusion.unknown_class:
        thing_logits, _ = argmax_selected(logits, channels.thing_channels)
        unknown_logits = thing_logits - torch.maximum(argmax.class_logits, argmax.zeros_outside_boxes(selected))
        argmax.owners = argmax.owners.masked_fill(unknown_logits > argmax.values, candidates.shape[1])
    return argmax.owners, argmax.find_missing_channels(selected)


def fuse_efficientps(
    ranked: Detections, logits: torch.Tensor, channels: SemanticChannels, fusion: EfficientPSFusion
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run EfficientPSFusion on B images of one size. Arguments and result are those of `fuse_upsnet`."""
    candidates = select_candidate_rows(ranked, fusion.instance_score_threshold)
    values, _ = argmax_selected(logits, channels.stuff_channels)
    argmax = _PixelArgmax(ranked, logits, channels, values, channels.stuff_ids[logits.max(1).indices])
    all_pairs = torch.ones_like(candidates)[:, None, :].expand(*candidates.shape, candidates.shape[1])
    selected = argmax.add_instances(candidates, all_pairs, fusion.overlap_threshold, _compute_fused_logits)
    return argmax.owners, argmax.find_missing_channels(selected)


class _PixelArgmax:
    """The best value at each pixel so far.

    Attributes:
        values: (B, H, W), the best values.
        owners: (B, H, W) int32, see `build_fused_tensors`.
        class_logits: (B, H, W), the highest class logit of the instances that take part at a pixel, else -infinity.
    """

    def __init__(
        self,
        ranked: Detections,
        logits: torch.Tensor,
        channels: SemanticChannels,
        values: torch.Tensor,
        stuff: torch.Tensor,
    ) -> None:
        self.ranked, self.logits = ranked, logits
        self.values, self.owners = values, stuff.int() + ranked.scores.shape[1]
        self.class_logits = torch.full_like(values, -torch.inf)
        is_own = channels.thing_ids == ranked.class_ids[:, :, None]
        is_shared = (channels.stuff_ids == THING_CHANNEL) & (channels.thing_ids == NO_THING)
        is_choice = is_own | (is_shared & ~is_own.any(2, keepdim=True))
        self.has_channel, self.channel = is_choice.any(2), is_choice.long().argmax(2)
        height, width = values.shape[1:]
        x0, y0, x1, y1 = ranked.boxes_xyxy.float().unbind(2)
        self.in_columns, self.in_rows = _find_centers_inside(x0, x1, width), _find_centers_inside(y0, y1, height)

    def add_instances(
        self, candidates: torch.Tensor, pairs: torch.Tensor, overlap_threshold: float, compute_value: ComputeValue
    ) -> torch.Tensor:
        """Let the candidates compete that better ones do not occlude.

        Args:
            candidates: (B, N) bool.
            pairs: (B, N, N) bool, whether two rows can occlude each other.
            overlap_threshold: Largest share of a mask that better selected ones may cover.
            compute_value: The value with which an instance competes.

        Returns:
            (B, N) bool, the rows that took part.
        """
        covers = _MaskBits(pairs, self.owners)
        selected = []
        for rank, probs, mask, area_px in paste_each(self.ranked, (self.owners.shape[1], self.owners.shape[2])):
            share = (mask & covers.find_covered(rank)).sum((1, 2)).double() / area_px.double()
            is_selected = candidates[:, rank] & (area_px > 0) & (share <= overlap_threshold)
            covers.add(rank, mask & is_selected[:, None, None])
            selected.append(is_selected)
            inside = self.in_rows[:, rank, :, None] & self.in_columns[:, rank, None, :] & is_selected[:, None, None]
            class_logits = self.logits[torch.arange(probs.shape[0], device=probs.device), self.channel[:, rank]]
            probs = probs.clamp(float(MIN_PROB), float(1 - MIN_PROB))
            values = compute_value(class_logits, (probs / (1 - probs)).log(), probs)
            higher = inside & (values > self.values)
            self.values = torch.where(higher, values, self.values)
            self.owners = self.owners.masked_fill(higher, rank)
            self.class_logits = torch.where(inside, torch.maximum(self.class_logits, class_logits), self.class_logits)
        return torch.stack(selected, dim=1) if selected else candidates

    def zeros_outside_boxes(self, selected: torch.Tensor) -> torch.Tensor:
        """(B, H, W): 0 at pixels outside the box of any selected instance, -infinity at pixels that all boxes cover."""
        ignored = ~selected[:, :, None]
        inside = (self.in_rows | ignored).all(1)[:, :, None] & (self.in_columns | ignored).all(1)[:, None, :]
        inside = inside & selected.any(1)[:, None, None]
        return torch.zeros_like(self.values).masked_fill(inside, -torch.inf)

    def find_missing_channels(self, selected: torch.Tensor) -> torch.Tensor:
        """(B,) int64: NO_CHANNEL if the class of a selected instance has no semantic channel, else 0."""
        return (selected & ~self.has_channel).any(1) * NO_CHANNEL


class _MaskBits:
    """The ranks whose masks cover each pixel, one bit each, so that one map serves any pairs of ranks."""

    def __init__(self, pairs: torch.Tensor, like: torch.Tensor) -> None:
        total = pairs.shape[2]
        starts = range(0, total, WORD_BITS)
        bits = torch.arange(total, device=pairs.device) % WORD_BITS
        powers = torch.bitwise_left_shift(torch.ones_like(bits), bits)
        self.pairs = [(pairs[:, :, i : i + WORD_BITS] * powers[i : i + WORD_BITS]).sum(2) for i in starts]
        self.words = [torch.zeros_like(like, dtype=torch.int64) for _ in starts]

    def find_covered(self, rank: int) -> torch.Tensor:
        """(B, H, W) bool: the pixels that a mask covers which can occlude the rank."""
        parts = zip(self.words[: rank // WORD_BITS + 1], self.pairs, strict=False)
        covered = [(word & pairs[:, rank, None, None]) != 0 for word, pairs in parts]
        return torch.stack(covered).any(0) if len(covered) > 1 else covered[0]

    def add(self, rank: int, mask: torch.Tensor) -> None:
        """Add the mask of the rank, (B, H, W) bool."""
        self.words[rank // WORD_BITS] = self.words[rank // WORD_BITS] | mask.long() * 2 ** (rank % WORD_BITS)


def _compute_fused_logits(class_logits: torch.Tensor, mask_logits: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    """FL of EfficientPS; the probability is sigmoid(mask_logits)."""
    return (probs + class_logits.sigmoid()) * (mask_logits + class_logits)


def _find_centers_inside(low: torch.Tensor, high: torch.Tensor, length: int) -> torch.Tensor:
    """(B, N, length) bool: pixels whose center, pixel + 0.5, is in [low, high)."""
    pixels = torch.arange(length, dtype=torch.float64, device=low.device)
    return (pixels >= low.double()[:, :, None] - 0.5) & (pixels < high.double()[:, :, None] - 0.5)
