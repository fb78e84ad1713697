"""MaskFormer's panoptic inference: each pixel goes to the mask with the highest score times probability.

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
from segkit.fusion.paste import compute_crop_probs
from segkit.fusion.pixel_argmax import NO_OWNER, PixelArgmax, require_logits
from segkit.fusion.query_masks import compute_query_probs
from segkit.structures import (
    THING_CHANNEL,
    HeadOutputs,
    InstanceMasks,
    PanopticSegmentation,
    QueryLogits,
    SemanticScores,
)
from segkit.utils.options import check_fraction, check_numbers

OWN_PROB = np.float32(0.5)  # lowest probability of the pixels of a mask, as in the reference
WHOLE_IMAGE = slice(None), slice(None)
BLOCK_ROWS = 4  # rows of an image whose logits are in the cache together
FIXED_POINT = np.float32(2**24)  # exponentials are rounded to multiples of its inverse


@dataclass(frozen=True)
class MaskArgmaxFusion(FusionMethod):
    """Instances and stuff masks compete for each pixel: the highest score times probability wins.

    The own pixels of a mask have a probability of at least 0.5. A mask keeps the own pixels that it wins. The other
    pixels that it wins are void. All masks of a stuff class make one segment. Of equal values the first wins: stuff,
    then instances, each by falling score.

    The masks of queries (outputs.queries) fill the image, as in the reference; other masks take part only in the window
    of their crop. If outputs.stuff_masks is
    None (Mask R-CNN), each stuff channel is a mask of score 1 whose probability is the softmax over all channels. Its
    own pixels are those where it is the best channel. Neither threshold applies to stuff channels, since each
    class has only one such mask.

    Attributes:
        object_mask_threshold: In [0, 1]. Only masks with a higher score take part.
        overlap_threshold: In [0, 1]. A mask that wins fewer pixels than this share of its own is left out; the pixels
            that it won are void.
        stuff_area_limit_px: Pixels. Smaller stuff segments are void. The paper has no such limit.
    """

    needs: ClassVar[frozenset[str]] = frozenset({MASK_PROBS, LOGITS})

    object_mask_threshold: float = 0.8
    overlap_threshold: float = 0.8
    stuff_area_limit_px: float = 0.0

    def __post_init__(self) -> None:
        check_fraction(self, "object_mask_threshold", "overlap_threshold")
        check_numbers(self, "stuff_area_limit_px", least=0)

    def fuse(self, outputs: HeadOutputs, rejections: RejectionLog | None) -> PanopticSegmentation:
        """See base class. Logits are needed only without stuff_masks."""
        instances, stuff_masks = outputs.instances, outputs.stuff_masks
        if stuff_masks is None:
            masks = _Masks.from_channels(outputs.semantic)
        else:
            masks = _Masks.without_owners(stuff_masks)
            masks.add(stuff_masks, 0, self.object_mask_threshold, outputs.queries, len(instances))
        argmax = masks.argmax
        order = masks.add(instances, argmax.first_instance, self.object_mask_threshold, outputs.queries)
        masks.drop_overlapped(self.overlap_threshold)
        stuff_map = argmax.build_stuff_map()
        fused = argmax.build_segmentation(instances, order, stuff_map, self.stuff_area_limit_px, rejections)
        if rejections is not None:
            first = argmax.first_instance
            rejections.instances.update({i - first: r for i, r in masks.rejections.items() if i >= first})
            if stuff_masks is not None:
                _log_stuff(masks.rejections, stuff_masks, fused, rejections)
        return fused

    def _find_missing(self, outputs: HeadOutputs) -> str:
        """See base class. With stuff_masks, no logits are needed, but these masks need mask_probs or queries."""
        if outputs.stuff_masks is None:
            return super()._find_missing(outputs)
        if outputs.queries is not None:
            return ""
        for name, masks in (("instances", outputs.instances), ("stuff_masks", outputs.stuff_masks)):
            if len(masks) and masks.mask_probs is None:
                return f"{MASK_PROBS} of {name}"
        return ""


@dataclass
class _Masks:
    """The masks that compete.

    Attributes:
        argmax: Competitors are stuff masks (or channels) by row, then instances.
        is_own: (H, W) bool, whether a pixel is one of its owner's own pixels.
        own_px: Number of own pixels of each mask.
        rejections: Why masks are not in the result, by competitor.
    """

    argmax: PixelArgmax
    is_own: NDArray[np.bool_]
    own_px: dict[int, int] = field(default_factory=dict)
    rejections: dict[int, Rejection] = field(default_factory=dict)

    @classmethod
    def without_owners(cls, stuff_masks: InstanceMasks) -> _Masks:
        values = np.full(stuff_masks.size_hw, -np.inf, dtype=np.float32)
        owners = np.full(stuff_masks.size_hw, NO_OWNER, dtype=np.int32)
        return cls(PixelArgmax(values, owners, stuff_masks.class_ids), np.zeros(stuff_masks.size_hw, dtype=np.bool_))

    @classmethod
    def from_channels(cls, semantic: SemanticScores) -> _Masks:
        argmax = PixelArgmax.from_stuff_channels(semantic)
        has_stuff = (semantic.stuff_ids != THING_CHANNEL).any()  # without it, pixels without an owner have the value 0
        argmax.values[:] = _softmax(semantic, argmax.values) if has_stuff else 0
        return cls(argmax, semantic.stuff_map() != THING_CHANNEL)

    def add(
        self,
        masks: InstanceMasks,
        first: int,
        score_threshold: float,
        queries: QueryLogits | None = None,
        first_query: int = 0,
    ) -> list[int]:
        """Let the masks with a score above the threshold compete; return their rows by falling score.

        first: competitor number of row 0; first_query: its row of the queries.
        """
        order = np.argsort(-masks.scores, kind="stable")
        is_above = masks.scores[order] > np.float32(score_threshold)
        for row in order[~is_above].tolist():
            self.rejections[first + row] = Rejection("score", float(masks.scores[row]), score_threshold)
        for row in order[is_above].tolist():
            if queries is None:
                window, probs = masks.window(row), compute_crop_probs(masks, row)
            else:
                window, probs = WHOLE_IMAGE, compute_query_probs(queries, first_query + row, masks.size_hw)
            is_own = probs >= OWN_PROB
            is_won = self.argmax.update_where_higher(first + row, window, masks.scores[row] * probs)
            np.copyto(self.is_own[window], is_own, where=is_won)
            self.own_px[first + row] = int(np.count_nonzero(is_own))
        rows: list[int] = order[is_above].tolist()
        return rows

    def drop_overlapped(self, overlap_threshold: float) -> None:
        """Free the pixels that their owners do not keep."""
        owners = self.argmax.owners
        won_px = np.bincount(owners[owners >= 0], minlength=max(self.own_px, default=0) + 1)
        is_dropped = np.zeros(len(won_px) + 1, dtype=np.bool_)  # the last one is for NO_OWNER
        for competitor, own_px in self.own_px.items():
            share = int(won_px[competitor]) / own_px if own_px else 1.0
            if won_px[competitor] and share < overlap_threshold:
                is_dropped[competitor] = True
                self.rejections[competitor] = Rejection("overlap", share, overlap_threshold)
        owners[is_dropped[owners] | ~self.is_own] = NO_OWNER


def _log_stuff(
    by_row: dict[int, Rejection], stuff_masks: InstanceMasks, fused: PanopticSegmentation, rejections: RejectionLog
) -> None:
    """Log for each stuff class that is not in the result why its best mask was rejected."""
    fused_classes = {s.category_id for s in fused.segments if not s.isthing}
    by_score = np.argsort(-stuff_masks.scores, kind="stable").tolist()
    best_rows = {int(stuff_masks.class_ids[row]): row for row in reversed(by_score)}
    for class_id, row in best_rows.items():
        if class_id not in fused_classes and row in by_row:
            rejections.stuff.setdefault(class_id, by_row[row])


def _softmax(semantic: SemanticScores, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W): the probability of a channel with these logits; unknown channels count as the lowest known one."""
    logits = require_logits(semantic)
    unknown = 0 if semantic.logit_channels is None else len(semantic.stuff_ids) - len(logits)
    probs = np.empty_like(values)
    for first in range(0, len(values), BLOCK_ROWS):
        rows = slice(first, first + BLOCK_ROWS)
        highest = logits[:, rows].max(axis=0)
        powers = _exp_fixed_point(logits[:, rows], highest)
        total = powers.sum(axis=0, dtype=np.float64) + unknown * powers[-1].astype(np.float64)
        probs[rows] = _exp_fixed_point(values[rows], highest) / total
    return probs


def _exp_fixed_point(logits: NDArray[np.float32], highest: NDArray[np.float32]) -> NDArray[np.float32]:
    """2^24 exp(logits - highest), rounded to whole numbers, so that sums do not depend on the order."""
    with np.errstate(invalid="ignore"):  # the difference of two infinities counts as 0
        powers = logits - highest
    np.fmin(powers, 0, out=powers)
    np.exp(powers, out=powers)
    powers *= FIXED_POINT
    np.rint(powers, out=powers)
    return powers
