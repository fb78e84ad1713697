"""MaskFormer's panoptic inference: each pixel to the mask with the highest score times probability.

Cheng et al. 2021, "Per-Pixel Classification is Not All You Need for Semantic Segmentation", section 3.4, as
`panoptic_inference` in mask2former/maskformer_model.py of Mask2Former (Cheng et al. 2022) does it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.explanations import Rejection, RejectionLog
from segkit.fusion.method import LOGITS, MASK_PROBS, FusionMethod
from segkit.fusion.options import check_fraction, check_numbers
from segkit.fusion.paste import compute_crop_probs
from segkit.fusion.pixel_argmax import NO_OWNER, PixelArgmax, require_logits
from segkit.structures import THING_CHANNEL, HeadOutputs, InstanceMasks, PanopticSegmentation, SemanticScores
from segkit.utils.errors import ConfigError

SOLID = np.float32(0.5)  # probability from which a pixel is of a mask's own, as in the reference
BLOCK_ROWS = 4  # of an image, whose logits are in the cache together
FIXED_POINT = np.float32(2**24)  # exponentials are rounded to multiples of its inverse


@dataclass(frozen=True)
class MaskArgmaxFusion(FusionMethod):
    """Instances and masks of stuff compete alike: each pixel to the highest score x probability.

    object_mask_threshold: only masks with a higher score take part. A mask's own pixels are those where its probability
    is at least 0.5. It keeps the pixels that it wins and that are its own; the others that it wins are void.
    overlap_threshold: where it wins fewer pixels than this share of the number of its own, it is left out and the
    pixels that it won are void. All masks of a stuff class make one segment. Of equal values the first wins: stuff,
    then instances, each by falling score. stuff_area_limit_px: smaller stuff segments are void; the paper has no limit.

    A mask takes part in the window of its crop only; in the reference, whose masks fill the image, everywhere. Where
    outputs.stuff_masks is None (Mask R-CNN) each stuff channel is a mask of score 1 whose probability is the softmax
    over all channels. Its own pixels are those of which it is the best channel: what 0.5 is to a sigmoid. Neither
    threshold applies to it: there is one such mask for each class, so none is there twice.
    """

    needs: ClassVar[frozenset[str]] = frozenset({MASK_PROBS, LOGITS})

    object_mask_threshold: float = 0.8
    overlap_threshold: float = 0.8
    stuff_area_limit_px: float = 0.0

    def __post_init__(self) -> None:
        check_fraction(self, "object_mask_threshold", "overlap_threshold")
        check_numbers(self, "stuff_area_limit_px", least=0)

    def fuse(self, outputs: HeadOutputs, rejections: RejectionLog | None) -> PanopticSegmentation:
        """See the class; outputs: mask_probs of instances, and of stuff_masks or else logits."""
        instances, stuff_masks = outputs.instances, outputs.stuff_masks
        if stuff_masks is None:
            masks = _Masks.of_channels(outputs.semantic)
        else:
            masks = _Masks.of_nothing(stuff_masks)
            masks.enter(stuff_masks, 0, self.object_mask_threshold)
        first_thing = len(masks.contest.stuff_ids)
        order = masks.enter(instances, first_thing, self.object_mask_threshold)
        masks.settle(self.overlap_threshold)
        contest = masks.contest
        fused = contest.result(instances, order, contest.stuff_map(), self.stuff_area_limit_px, rejections)
        if rejections is not None:
            rejections.instances.update({i - first_thing: v for i, v in masks.reasons.items() if i >= first_thing})
            if stuff_masks is not None:
                _tell_of_stuff(masks.reasons, stuff_masks, fused, rejections)
        return fused

    def _check(self, outputs: HeadOutputs) -> None:
        """Logits are needed for want of stuff_masks only, and then those need mask_probs."""
        if outputs.stuff_masks is None:
            super()._check(outputs)
            return
        for name, masks in (("instances", outputs.instances), ("stuff_masks", outputs.stuff_masks)):
            if len(masks) and masks.mask_probs is None:
                raise ConfigError(
                    f"{type(self).__name__} needs {MASK_PROBS} of {name}, which these predictions do not hold",
                    remedy="choose another method, or save predictions that hold them",
                )


@dataclass
class _Masks:
    """contest: stuff masks (or channels) by row, then instances. solid: (H, W) bool, whether the pixel is its owner's
    own. own_px: of each mask in the contest, how many pixels are. reasons: why masks are not in the result."""

    contest: PixelArgmax
    solid: NDArray[np.bool_]
    own_px: dict[int, int] = field(default_factory=dict)
    reasons: dict[int, Rejection] = field(default_factory=dict)

    @classmethod
    def of_nothing(cls, stuff_masks: InstanceMasks) -> _Masks:
        values = np.full(stuff_masks.size_hw, -np.inf, dtype=np.float32)
        owners = np.full(stuff_masks.size_hw, NO_OWNER, dtype=np.int32)
        return cls(PixelArgmax(values, owners, stuff_masks.class_ids), np.zeros(stuff_masks.size_hw, dtype=np.bool_))

    @classmethod
    def of_channels(cls, semantic: SemanticScores) -> _Masks:
        contest = PixelArgmax.from_stuff_channels(semantic)
        any_stuff = (semantic.stuff_ids != THING_CHANNEL).any()  # else nobody's probability is 0, whatever the logits
        contest.values[:] = _softmax(semantic, contest.values) if any_stuff else 0
        return cls(contest, semantic.stuff_map() != THING_CHANNEL)

    def enter(self, masks: InstanceMasks, first: int, score_threshold: float) -> list[int]:
        """Let the masks with a score above the threshold compete, as competitors from `first` on; their rows by
        falling score."""
        order = np.argsort(-masks.scores, kind="stable")
        good = masks.scores[order] > np.float32(score_threshold)
        for row in order[~good].tolist():
            self.reasons[first + row] = Rejection("score", float(masks.scores[row]), score_threshold)
        for row in order[good].tolist():
            window, probs = masks.window(row), compute_crop_probs(masks, row)
            own = probs >= SOLID
            won = self.contest.update_where_higher(first + row, window, masks.scores[row] * probs)
            np.copyto(self.solid[window], own, where=won)
            self.own_px[first + row] = int(np.count_nonzero(own))
        kept: list[int] = order[good].tolist()
        return kept

    def settle(self, overlap_threshold: float) -> None:
        """Take from the masks what they do not keep."""
        owners = self.contest.owners
        won_px = np.bincount(owners[owners >= 0], minlength=max(self.own_px, default=0) + 1)
        lost = np.zeros(len(won_px) + 1, dtype=np.bool_)  # the last is NOBODY's
        for competitor, own_px in self.own_px.items():
            share = int(won_px[competitor]) / own_px if own_px else 1.0
            if won_px[competitor] and share < overlap_threshold:
                lost[competitor] = True
                self.reasons[competitor] = Rejection("overlap", share, overlap_threshold)
        owners[lost[owners] | ~self.solid] = NO_OWNER


def _tell_of_stuff(
    reasons: dict[int, Rejection], stuff_masks: InstanceMasks, fused: PanopticSegmentation, rejections: RejectionLog
) -> None:
    """A class that is not in the result: why its best mask is not."""
    there = {s.category_id for s in fused.segments if not s.isthing}
    falling = np.argsort(-stuff_masks.scores, kind="stable").tolist()
    best = {int(stuff_masks.class_ids[row]): row for row in reversed(falling)}
    for class_id, row in best.items():
        if class_id not in there and row in reasons:
            rejections.stuff.setdefault(class_id, reasons[row])


def _softmax(semantic: SemanticScores, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W): the probability of a channel with these logits; channels that are not known count as the last known."""
    logits = require_logits(semantic)
    unknown = 0 if semantic.logit_channels is None else len(semantic.stuff_ids) - len(logits)
    probs = np.empty_like(values)
    for first in range(0, len(values), BLOCK_ROWS):
        rows = slice(first, first + BLOCK_ROWS)
        highest = logits[:, rows].max(axis=0)
        powers = _powers(logits[:, rows], highest)
        total = powers.sum(axis=0, dtype=np.float64) + unknown * powers[-1].astype(np.float64)
        probs[rows] = _powers(values[rows], highest) / total
    return probs


def _powers(logits: NDArray[np.float32], highest: NDArray[np.float32]) -> NDArray[np.float32]:
    """2^24 exp(logits - highest), rounded to whole numbers, so that their sum is the same in every order."""
    with np.errstate(invalid="ignore"):  # the difference of two infinities counts as none
        powers = logits - highest
    np.fmin(powers, 0, out=powers)
    np.exp(powers, out=powers)
    powers *= FIXED_POINT
    np.rint(powers, out=powers)
    return powers
