"""The argmax over competitors at each pixel: the highest value wins, the first of equal ones.

The competitors are numbered: first the channels (or masks) of stuff, then the instances. Only two maps are kept, the
best values and their owners, and an instance is compared only within its own window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.candidates import Window, cut_to_window
from segkit.fusion.explanations import Rejection, RejectionLog
from segkit.fusion.paste import compute_crop_probs
from segkit.fusion.segments import build_segments_from_owners, fill_stuff
from segkit.structures import THING_CHANNEL, HeadOutputs, InstanceMasks, PanopticSegmentation, SemanticScores
from segkit.utils.compiled import COMPILED, compiled

NO_OWNER = -1  # of a pixel that no competitor owns
MIN_PROB = np.float32(1e-4)  # mask probabilities are clipped this far from 0 and 1, so that their logits are finite


@dataclass(frozen=True)
class PixelArgmax:
    """The best value at each pixel so far, and the competitor that has it.

    Attributes:
        values: (H, W) float32, the best values.
        owners: (H, W) int32: 0..S-1 a competitor of stuff, S + row an instance, or NO_OWNER.
        stuff_ids: (S,) int64, stuff contiguous id of each competitor of stuff. THING_CHANNEL for a channel of things,
            which owns nothing.
    """

    values: NDArray[np.float32]
    owners: NDArray[np.int32]
    stuff_ids: NDArray[np.int64]

    @classmethod
    def from_stuff_channels(cls, semantic: SemanticScores) -> PixelArgmax:
        """Start with the best stuff channel of each pixel, the first of equal ones. Raises ValueError without logits.

        If only the highest logits are known and none of them is of stuff, the pixel has no owner and the lowest value.
        """
        return cls(*argmax_selected_channels(semantic, semantic.stuff_ids != THING_CHANNEL), semantic.stuff_ids)

    @property
    def first_instance(self) -> int:
        """Number of the competitor at row 0 of the instances."""
        return len(self.stuff_ids)

    def update_where_higher(self, competitor: int, window: Window, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Give a competitor the pixels of the window where its values, (h, w), are higher; return where they are."""
        best = self.values[window]
        higher = values > best
        np.copyto(best, values, where=higher)
        np.copyto(self.owners[window], np.int32(competitor), where=higher)
        return higher

    def build_stuff_map(self) -> NDArray[np.int32]:
        """(H, W) int32: stuff contiguous ids of the pixels that stuff owns, 0 elsewhere."""
        class_of_owner = np.append(self.stuff_ids, THING_CHANNEL).astype(np.int32)
        stuff_map: NDArray[np.int32] = class_of_owner.take(np.minimum(self.owners, self.first_instance))
        return stuff_map

    def build_segmentation(
        self,
        instances: InstanceMasks,
        order: Sequence[int],
        stuff_map: NDArray[np.integer],
        area_limit_px: float,
        rejections: RejectionLog | None,
    ) -> PanopticSegmentation:
        """Build segments of the instances that own pixels, and fill the other pixels with stuff. None is empty.

        Args:
            instances: The instances.
            order: Their rows by falling score.
            stuff_map: (H, W) integers, stuff contiguous ids, 0 for none.
            area_limit_px: Stuff classes with fewer pixels are left out.
            rejections: Log for the classes that are left out, or None.

        Returns:
            The panoptic segmentation.
        """
        rows = self.owners - np.int32(self.first_instance)  # negative for stuff and for no owner
        segment_ids, segments = build_segments_from_owners(rows, order, instances)
        return fill_stuff(segment_ids, segments, stuff_map, max(area_limit_px, 1), rejections)


def argmax_selected_channels(
    semantic: SemanticScores, is_selected: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Compute the highest logit at each pixel among some channels, and its channel, the first of equal ones.

    Args:
        semantic: Scores with logits.
        is_selected: (C,) bool.

    Returns:
        (H, W) float32 values and (H, W) int32 channels. If none of the K known logits of a pixel is of a selected
        channel, the value is the lowest of them and the channel NO_OWNER. If no channel is selected, the values are
        -infinity.

    Raises:
        ValueError: There are no logits.
    """
    logits = require_logits(semantic)
    values = np.full(semantic.size_hw, -np.inf, dtype=np.float32)
    channels = np.full(semantic.size_hw, NO_OWNER, dtype=np.int32)
    listed = semantic.logit_channels
    if not is_selected.any():
        return values, channels
    if COMPILED and listed is None:
        _search_dense(logits, np.flatnonzero(is_selected), values, channels)
        return values, channels
    if listed is None:
        listed = np.broadcast_to(np.arange(len(logits))[:, None, None], logits.shape)
    (_search_listed if COMPILED else _search_listed_numpy)(logits, listed, is_selected, values, channels)
    np.copyto(values, logits[-1], where=channels == NO_OWNER)
    return values, channels


def require_logits(semantic: SemanticScores) -> NDArray[np.float32]:
    """The logits; raises ValueError without."""
    if semantic.logits is None:
        raise ValueError("logits are needed, but only the best channel of each pixel is known")
    return semantic.logits


def drop_occluded(
    instances: InstanceMasks, order: Sequence[int], overlap_threshold: float, rejections: RejectionLog | None
) -> list[int]:
    """Select the rows of `order` that better ones do not occlude.

    Args:
        instances: The instances.
        order: Their rows, best first.
        overlap_threshold: Largest share of a mask, in [0, 1], that the masks selected before it may cover.
        rejections: Log for the instances that are left out, or None.

    Returns:
        The selected rows in the same order. An instance without a pixel is left out.
    """
    covered = np.zeros(instances.size_hw, dtype=np.bool_)
    selected = []
    for row in order:
        mask, window = instances.crops[row], covered[instances.window(row)]
        area_px = int(np.count_nonzero(mask))
        if area_px == 0:
            continue
        share = int(np.count_nonzero(mask & window)) / area_px
        if share > overlap_threshold:
            if rejections is not None:
                rejections.instances[row] = Rejection("overlap", share, overlap_threshold)
            continue
        window |= mask
        selected.append(row)
    return selected


def window_in_box(instances: InstanceMasks, row: int) -> Window:
    """The pixels of the crop whose centers are in the box of the instance, without its right and lower edges."""
    rows, columns = instances.window(row)
    left, top, right, bottom = instances.boxes_xyxy[row].tolist()
    return _clip_to_box(rows, top, bottom), _clip_to_box(columns, left, right)


def instance_logits(
    outputs: HeadOutputs, row: int, window: Window
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Get the logits of both heads for an instance.

    The probability is resampled, not the logit, as Detectron2 pastes masks. It is clipped to [MIN_PROB, 1 - MIN_PROB].

    Args:
        outputs: Outputs with logits and mask_probs.
        row: Row of the instance.
        window: Rows and columns from `window_in_box`.

    Returns:
        (h, w) float32 each: the semantic logit of its class, the logit of its mask, the probability of its mask.

    Raises:
        ValueError: There are no logits or no mask_probs.
    """
    instances, semantic = outputs.instances, outputs.semantic
    probs = cut_to_window(compute_crop_probs(instances, row), instances.window(row), window)
    probs = np.clip(probs, MIN_PROB, 1 - MIN_PROB)
    class_logits = semantic.logit(semantic.thing_channel(int(instances.class_ids[row])), window)
    return class_logits, np.log(probs / (1 - probs)), probs


def _clip_to_box(pixels: slice, low: float, high: float) -> slice:
    """The pixels whose center, pixel + 0.5, is in [low, high)."""
    first, stop = (int(np.ceil(np.clip(edge - 0.5, pixels.start, pixels.stop))) for edge in (low, high))
    return slice(first, stop)


@compiled  # 5 times as fast as numpy
def _search_dense(
    logits: NDArray[np.float32],
    selected: NDArray[np.int64],
    values: NDArray[np.float32],
    channels: NDArray[np.int32],
) -> None:
    """Row by row, so that the arrays that are compared stay in the nearest cache."""
    for y in range(values.shape[0]):
        best, owner = values[y], channels[y]
        best[:] = logits[selected[0], y]
        owner[:] = selected[0]
        for index in range(1, selected.size):
            channel = np.int32(selected[index])
            row = logits[channel, y]
            for x in range(best.size):
                higher = row[x] > best[x]
                best[x] = row[x] if higher else best[x]
                owner[x] = channel if higher else owner[x]


@compiled  # 3 times as fast as numpy
def _search_listed(
    logits: NDArray[np.float32],
    logit_channels: NDArray[np.integer],
    is_selected: NDArray[np.bool_],
    values: NDArray[np.float32],
    channels: NDArray[np.int32],
) -> None:
    """Equal logits may be listed in any order: the lowest channel counts as the first."""
    for y in range(values.shape[0]):
        best, owner = values[y], channels[y]
        for k in range(logits.shape[0]):
            for x in range(best.size):
                channel, value = np.int32(logit_channels[k, y, x]), logits[k, y, x]
                higher = value > best[x] or owner[x] == NO_OWNER or (value == best[x] and channel < owner[x])
                if is_selected[channel] and higher:
                    best[x], owner[x] = value, channel


def _search_listed_numpy(
    logits: NDArray[np.float32],
    logit_channels: NDArray[np.integer],
    is_selected: NDArray[np.bool_],
    values: NDArray[np.float32],
    channels: NDArray[np.int32],
) -> None:
    for value, channel in zip(logits, logit_channels, strict=True):
        higher = (value > values) | (channels == NO_OWNER) | ((value == values) & (channel < channels))
        higher &= is_selected[channel]
        np.copyto(values, value, where=higher)
        np.copyto(channels, channel, where=higher, casting="unsafe")
