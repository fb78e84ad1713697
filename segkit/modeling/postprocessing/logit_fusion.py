"""UPSNet and EfficientPS on tensors: the best value of each pixel so far, one instance at a time.

The rules and their sources are in segkit/fusion/{upsnet,efficientps}.py. Nothing is read back and no
N x H x W is made. Values are computed in the order of the CPU's way, so that only pixels where two of them lie within
rounding of each other may fall otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from segkit.fusion.efficientps import EfficientPSFusion
from segkit.fusion.paste import MASK_THRESHOLD
from segkit.fusion.pixel_argmax import MIN_PROB
from segkit.fusion.upsnet import UPSNetFusion
from segkit.modeling.postprocessing.detections import (
    NO_CHANNEL,
    Detections,
    find_input_errors,
    select_candidate_rows,
    sort_by_score,
)
from segkit.modeling.postprocessing.panoptic_tensors import FusedTensors, build_fused_tensors
from segkit.modeling.postprocessing.paste import ROWS_PER_STEP, paste_probs, sampling_axes
from segkit.modeling.postprocessing.resampling import CHANNELS_PER_STEP
from segkit.structures import NO_THING, THING_CHANNEL

WORD = 63  # bits of an int64 that are used

Value = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Channels(NamedTuple):
    """What the C channels of the logits mean, on the device. stuff_ids, thing_ids: (C,) int64, see SemanticScores.
    of_stuff, of_things: int64, the channels whose stuff id is not 0, and the others. stuff_count: the highest id."""

    stuff_ids: torch.Tensor
    thing_ids: torch.Tensor
    of_stuff: torch.Tensor
    of_things: torch.Tensor
    stuff_count: int

    @classmethod
    def of(cls, stuff_ids: torch.Tensor, thing_ids: torch.Tensor) -> Channels:
        """From what SemanticScores says of them. Make it once: to look into the ids is a synchronisation."""
        is_stuff = stuff_ids != THING_CHANNEL
        return cls(stuff_ids, thing_ids, is_stuff.nonzero()[:, 0], (~is_stuff).nonzero()[:, 0], int(stuff_ids.max()))


def fuse_upsnet(
    found: Detections,
    logits: torch.Tensor,
    channels: Channels,
    rule: UPSNetFusion,
    nan_logits: torch.Tensor | None = None,
) -> FusedTensors:
    """UPSNetFusion. found: boxes in pixels of the (H, W) images. logits: (B, C, H, W). nan_logits: (B,) bool."""
    problems = find_input_errors(found, nan_logits)
    best, instance_ids = sort_by_score(found)
    good = select_candidate_rows(best, rule.instance_score_threshold, nms_threshold=rule.nms_threshold)
    values, channel = argmax_selected(logits, channels.of_stuff)
    contest = _Contest(best, logits, channels, values, channels.stuff_ids[channel])
    rivals = best.class_ids[:, :, None] == best.class_ids[:, None, :]
    kept = contest.run(good, rivals, rule.overlap_threshold, lambda of_class, of_mask, _: of_class + of_mask)
    if rule.unknown_class:
        of_things, _ = argmax_selected(logits, channels.of_things)
        unknown = of_things - torch.maximum(contest.class_logits, contest.zeros_outside(kept))
        contest.owners = contest.owners.masked_fill(unknown > contest.values, good.shape[1])
    problems = problems + contest.without_channel(kept)
    limit = max(rule.stuff_area_limit_px, 1)
    return build_fused_tensors(best, instance_ids, contest.owners, None, channels.stuff_count, limit, problems)


def fuse_efficientps(
    found: Detections,
    logits: torch.Tensor,
    channels: Channels,
    rule: EfficientPSFusion,
    nan_logits: torch.Tensor | None = None,
) -> FusedTensors:
    """EfficientPSFusion. found: boxes in pixels of the (H, W) images. logits: (B, C, H, W). nan_logits: (B,) bool."""
    best, instance_ids = sort_by_score(found)
    good = select_candidate_rows(best, rule.instance_score_threshold)
    values, _ = argmax_selected(logits, channels.of_stuff)
    contest = _Contest(best, logits, channels, values, channels.stuff_ids[logits.max(1).indices])
    rivals = torch.ones_like(good)[:, None, :].expand(*good.shape, good.shape[1])
    kept = contest.run(good, rivals, rule.overlap_threshold, _fused_logit)
    problems = find_input_errors(found, nan_logits) + contest.without_channel(kept)
    limit = max(rule.stuff_area_limit_px, 1)
    return build_fused_tensors(best, instance_ids, contest.owners, None, channels.stuff_count, limit, problems)


class _Contest:
    """values: (B, H, W), the best at each pixel. owners: see `build_fused_tensors`. class_logits: (B, H, W), the
    highest semantic logit of an instance's class at the pixels where it takes part, -infinity elsewhere."""

    def __init__(
        self, best: Detections, logits: torch.Tensor, channels: Channels, values: torch.Tensor, stuff_map: torch.Tensor
    ) -> None:
        self.best, self.logits = best, logits
        self.values, self.owners = values, stuff_map.int() + best.scores.shape[1]
        self.class_logits = torch.full_like(values, -torch.inf)
        own = channels.thing_ids == best.class_ids[:, :, None]
        shared = (channels.stuff_ids == THING_CHANNEL) & (channels.thing_ids == NO_THING)
        choice = own | (shared & ~own.any(2, keepdim=True))
        self.has_channel, self.channel = choice.any(2), choice.long().argmax(2)
        height, width = values.shape[1:]
        x0, y0, x1, y1 = best.boxes_xyxy.float().unbind(2)
        self.in_columns, self.in_rows = _centres_inside(x0, x1, width), _centres_inside(y0, y1, height)

    def run(self, good: torch.Tensor, rivals: torch.Tensor, overlap_threshold: float, value: Value) -> torch.Tensor:
        """(B, N) bool, who took part: the good ones of whose pixels no more than the share overlap_threshold lies under
        better ones that took part and are rivals, (B, N, N) bool. value: of the class's logit, the mask's logit and its
        probability."""
        cover = _Cover(rivals, self.owners)
        kept = []
        for rank, probs in pasted(self.best, (self.owners.shape[1], self.owners.shape[2])):
            mask = probs >= MASK_THRESHOLD
            area_px = mask.sum((1, 2))
            share = (mask & cover.of(rank)).sum((1, 2)).double() / area_px.double()
            keep = good[:, rank] & (area_px > 0) & (share <= overlap_threshold)
            cover.add(rank, mask & keep[:, None, None])
            self._challenge(rank, keep, probs, value)
            kept.append(keep)
        return torch.stack(kept, dim=1) if kept else good

    def zeros_outside(self, kept: torch.Tensor) -> torch.Tensor:
        """(B, H, W): 0 wherever the box of some instance that took part is not, -infinity where all are."""
        out = ~kept[:, :, None]
        inside = (self.in_rows | out).all(1)[:, :, None] & (self.in_columns | out).all(1)[:, None, :]
        inside = inside & kept.any(1)[:, None, None]
        return torch.zeros_like(self.values).masked_fill(inside, -torch.inf)

    def without_channel(self, kept: torch.Tensor) -> torch.Tensor:
        """(B,) int64: the problem of an instance that took part and whose class the semantic head does not know."""
        return (kept & ~self.has_channel).any(1) * NO_CHANNEL

    def _challenge(self, rank: int, keep: torch.Tensor, probs: torch.Tensor, value: Value) -> None:
        there = self.in_rows[:, rank, :, None] & self.in_columns[:, rank, None, :] & keep[:, None, None]
        of_class = self.logits[torch.arange(len(keep), device=keep.device), self.channel[:, rank]]
        probs = probs.clamp(float(MIN_PROB), float(1 - MIN_PROB))
        values = value(of_class, (probs / (1 - probs)).log(), probs)
        higher = there & (values > self.values)
        self.values = torch.where(higher, values, self.values)
        self.owners = self.owners.masked_fill(higher, rank)
        highest = torch.maximum(self.class_logits, of_class)
        self.class_logits = torch.where(there, highest, self.class_logits)


class _Cover:
    """Which ranks' masks lie at each pixel: a bit each, so that one map serves whatever the rivals of a rank are."""

    def __init__(self, rivals: torch.Tensor, like: torch.Tensor) -> None:
        total = rivals.shape[2]
        starts = range(0, total, WORD)
        bits = torch.arange(total, device=rivals.device) % WORD
        powers = torch.bitwise_left_shift(torch.ones_like(bits), bits)
        self.rivals = [(rivals[:, :, i : i + WORD] * powers[i : i + WORD]).sum(2) for i in starts]
        self.words = [torch.zeros_like(like, dtype=torch.int64) for _ in starts]

    def of(self, rank: int) -> torch.Tensor:
        """(B, H, W) bool: where a rival of the rank is."""
        parts = zip(self.words[: rank // WORD + 1], self.rivals, strict=False)
        there = [(word & rivals[:, rank, None, None]) != 0 for word, rivals in parts]
        return torch.stack(there).any(0) if len(there) > 1 else there[0]

    def add(self, rank: int, mask: torch.Tensor) -> None:
        """The rank's mask, (B, H, W) bool."""
        self.words[rank // WORD] = self.words[rank // WORD] | mask.long() * 2 ** (rank % WORD)


def pasted(best: Detections, size_hw: tuple[int, int]) -> Iterator[tuple[int, torch.Tensor]]:
    """Each rank and its mask, (B, H, W) float32."""
    xs, ys = sampling_axes(best.boxes_xyxy, size_hw)
    total = xs.shape[1]
    for start in range(0, total, ROWS_PER_STEP):
        rows = slice(start, min(start + ROWS_PER_STEP, total))
        probs = paste_probs(best.mask_probs[:, rows], xs[:, rows], ys[:, rows])
        for rank in range(rows.start, rows.stop):
            yield rank, probs[:, rank - start]


def argmax_selected(logits: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, H, W) each: the highest logit of the wanted channels, of equal ones the first, and its channel; -infinity
    and channel 0 where none is wanted."""
    values = torch.full_like(logits[:, 0], -torch.inf)
    channels = torch.zeros_like(values, dtype=torch.int64)
    for start in range(0, wanted.shape[0], CHANNELS_PER_STEP):
        part = wanted[start : start + CHANNELS_PER_STEP]
        highest, place = logits.index_select(1, part).max(1)
        higher = (highest > values) if start else torch.ones_like(highest, dtype=torch.bool)
        values, channels = torch.where(higher, highest, values), torch.where(higher, part[place], channels)
    return values, channels


def _fused_logit(of_class: torch.Tensor, of_mask: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    """FL of EfficientPS; sigmoid(of_mask) is the probability."""
    return (probs + of_class.sigmoid()) * (of_mask + of_class)


def _centres_inside(low: torch.Tensor, high: torch.Tensor, length: int) -> torch.Tensor:
    """(B, N, length) bool: pixels whose centre, pixel + 0.5, is in [low, high)."""
    pixels = torch.arange(length, dtype=torch.float64, device=low.device)
    return (pixels >= low.double()[:, :, None] - 0.5) & (pixels < high.double()[:, :, None] - 0.5)
