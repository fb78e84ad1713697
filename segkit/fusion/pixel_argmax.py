"""A contest for each pixel: the competitor with the highest value has it, the first of equal ones.

The competitors stand in a line: first the channels (or masks) of stuff, then the instances. One map of best values and
one of their owners are kept, and an instance is looked at in its own window only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.explanations import Rejection, RejectionLog
from segkit.fusion.paste import compute_crop_probs
from segkit.fusion.segments import build_segments_from_owners, fill_stuff
from segkit.structures import THING_CHANNEL, HeadOutputs, InstanceMasks, PanopticSegmentation, SemanticScores
from segkit.utils.compiled import COMPILED, compiled

NO_OWNER = -1  # owner of a pixel that no competitor has
MIN_PROB = np.float32(1e-4)  # mask probabilities are kept this far from 0 and 1, so that their logits are finite

Window = tuple[slice, slice]


@dataclass(frozen=True)
class PixelArgmax:
    """values: (H, W) float32, the best value at each pixel. owners: (H, W) int32, who has it: 0..S-1 a competitor of
    stuff, S + row an instance, `NOBODY`. stuff_ids: (S,) int64, the stuff contiguous id of each competitor of stuff,
    `THING_CHANNEL` of a channel of things, which owns nothing."""

    values: NDArray[np.float32]
    owners: NDArray[np.int32]
    stuff_ids: NDArray[np.int64]

    @classmethod
    def from_stuff_channels(cls, semantic: SemanticScores) -> PixelArgmax:
        """Each pixel to its best stuff channel, of equal ones the first. Raises ValueError without logits.

        Where only the highest logits are known and none is of stuff, NOBODY holds the pixel with the lowest of them.
        """
        return cls(*argmax_selected_channels(semantic, semantic.stuff_ids != THING_CHANNEL), semantic.stuff_ids)

    def update_instance(self, row: int, window: Window, values: NDArray[np.float32]) -> None:
        """The instance takes the pixels of the window where its values, (h, w), are above the best so far."""
        self.update_where_higher(len(self.stuff_ids) + row, window, values)

    def update_where_higher(self, competitor: int, window: Window, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        """As `challenge`, for any competitor; returns where it took a pixel, (h, w)."""
        best = self.values[window]
        higher = values > best
        np.copyto(best, values, where=higher)
        np.copyto(self.owners[window], np.int32(competitor), where=higher)
        return higher

    def stuff_map(self) -> NDArray[np.int32]:
        """(H, W): the stuff contiguous id of pixels that stuff owns, 0 elsewhere."""
        stuff_of = np.append(self.stuff_ids, THING_CHANNEL).astype(np.int32)
        found: NDArray[np.int32] = stuff_of.take(np.minimum(self.owners, len(self.stuff_ids)))
        return found

    def result(
        self,
        instances: InstanceMasks,
        order: Sequence[int],
        stuff_map: NDArray[np.integer],
        area_limit_px: float,
        rejections: RejectionLog | None,
    ) -> PanopticSegmentation:
        """The instances of `order`, rows by falling score, with the pixels that they own; elsewhere stuff_map, (H, W)
        stuff contiguous ids, 0 for none, without the classes of fewer pixels than area_limit_px. Nobody gets an empty
        segment."""
        rows = self.owners - np.int32(len(self.stuff_ids))  # negative for stuff and nobody
        segment_ids, segments = build_segments_from_owners(rows, order, instances)
        return fill_stuff(segment_ids, segments, stuff_map, max(area_limit_px, 1), rejections)


def argmax_selected_channels(
    semantic: SemanticScores, wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The highest logit at each pixel among some channels, (H, W) float32, and its channel, of equal ones the first.

    wanted: (C,). Where none of the K known logits is of a wanted channel, the value is the lowest of them and the
    channel NOBODY; where no channel is wanted at all, -infinity and NOBODY. Raises ValueError without logits.
    """
    logits = require_logits(semantic)
    values = np.full(semantic.size_hw, -np.inf, dtype=np.float32)
    channels = np.full(semantic.size_hw, NO_OWNER, dtype=np.int32)
    if wanted.any():
        if semantic.logit_channels is None:
            dense = _search_dense if COMPILED else _search_dense_plainly
            dense(logits, np.flatnonzero(wanted), values, channels)
        else:
            listed = _search_listed if COMPILED else _search_listed_plainly
            listed(logits, semantic.logit_channels, wanted, values, channels)
            np.copyto(values, logits[-1], where=channels == NO_OWNER)
    return values, channels


def require_logits(semantic: SemanticScores) -> NDArray[np.float32]:
    """The logits; ValueError without."""
    if semantic.logits is None:
        raise ValueError("logits are needed, but only the best channel of each pixel is known")
    return semantic.logits


def drop_occluded(
    instances: InstanceMasks, order: Sequence[int], overlap_threshold: float, rejections: RejectionLog | None
) -> list[int]:
    """The rows of `order` of which at most the share overlap_threshold lies under those kept before; an instance
    without a pixel is left out."""
    taken = np.zeros(instances.size_hw, dtype=np.bool_)
    kept = []
    for row in order:
        mask, canvas = instances.crops[row], taken[instances.window(row)]
        area_px = int(np.count_nonzero(mask))
        if area_px == 0:
            continue
        share = int(np.count_nonzero(mask & canvas)) / area_px
        if share > overlap_threshold:
            if rejections is not None:
                rejections.instances[row] = Rejection("overlap", share, overlap_threshold)
            continue
        canvas |= mask
        kept.append(row)
    return kept


def window_in_box(instances: InstanceMasks, row: int) -> Window:
    """The pixels of the crop whose centres lie in the instance's box, the right and the lower edge not included."""
    rows, columns = instances.window(row)
    left, top, right, bottom = instances.boxes_xyxy[row].tolist()
    return _inside(rows, top, bottom), _inside(columns, left, right)


def instance_logits(
    outputs: HeadOutputs, row: int, window: Window
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """What both heads say of an instance at the pixels of `window_in_box`, (h, w) float32 each: the semantic logit of
    its class, the logit of its mask and the mask's probability.

    The probability is resampled, as Detectron2 pastes masks, not the logit, and then kept between MIN_PROB and
    1 - MIN_PROB. Raises ValueError without logits or mask_probs.
    """
    instances, semantic = outputs.instances, outputs.semantic
    rows, columns = instances.window(row)
    part = tuple(slice(w.start - o.start, w.stop - o.start) for w, o in zip(window, (rows, columns), strict=True))
    probs = np.clip(compute_crop_probs(instances, row)[part], MIN_PROB, 1 - MIN_PROB)
    class_logits = semantic.logit(semantic.thing_channel(int(instances.class_ids[row])), window)
    return class_logits, np.log(probs / (1 - probs)), probs


def _inside(pixels: slice, low: float, high: float) -> slice:
    """Those whose centre, pixel + 0.5, is in [low, high)."""
    first, stop = (int(np.ceil(np.clip(edge - 0.5, pixels.start, pixels.stop))) for edge in (low, high))
    return slice(first, stop)


@compiled
def _search_dense(
    logits: NDArray[np.float32],
    wanted: NDArray[np.int64],
    values: NDArray[np.float32],
    channels: NDArray[np.int32],
) -> None:
    """Row by row, so that what is compared and written to stays in the nearest cache."""
    for y in range(values.shape[0]):
        best, owner = values[y], channels[y]
        best[:] = logits[wanted[0], y]
        owner[:] = wanted[0]
        for place in range(1, wanted.size):
            channel = np.int32(wanted[place])
            given = logits[channel, y]
            for x in range(best.size):
                higher = given[x] > best[x]
                best[x] = given[x] if higher else best[x]
                owner[x] = channel if higher else owner[x]


def _search_dense_plainly(
    logits: NDArray[np.float32],
    wanted: NDArray[np.int64],
    values: NDArray[np.float32],
    channels: NDArray[np.int32],
) -> None:
    values[:] = logits[wanted[0]]
    channels[:] = wanted[0]
    for channel in wanted[1:].tolist():
        higher = logits[channel] > values
        np.copyto(values, logits[channel], where=higher)
        np.copyto(channels, np.int32(channel), where=higher)


@compiled
def _search_listed(
    logits: NDArray[np.float32],
    listed: NDArray[np.integer],
    wanted: NDArray[np.bool_],
    values: NDArray[np.float32],
    channels: NDArray[np.int32],
) -> None:
    """Equal logits may be listed in any order: the lower channel counts as the first."""
    for y in range(values.shape[0]):
        best, owner = values[y], channels[y]
        for place in range(logits.shape[0]):
            for x in range(best.size):
                channel, value = np.int32(listed[place, y, x]), logits[place, y, x]
                higher = value > best[x] or owner[x] == NO_OWNER or (value == best[x] and channel < owner[x])
                if wanted[channel] and higher:
                    best[x], owner[x] = value, channel


def _search_listed_plainly(
    logits: NDArray[np.float32],
    listed: NDArray[np.integer],
    wanted: NDArray[np.bool_],
    values: NDArray[np.float32],
    channels: NDArray[np.int32],
) -> None:
    for value, channel in zip(logits, listed, strict=True):
        higher = (value > values) | (channels == NO_OWNER) | ((value == values) & (channel < channels))
        higher &= wanted[channel]
        np.copyto(values, value, where=higher)
        np.copyto(channels, channel, where=higher, casting="unsafe")
