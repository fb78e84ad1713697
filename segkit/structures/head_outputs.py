"""HeadOutputs: what the heads of a network say of one image, before fusion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segkit.structures.categories import NO_THING, THING_CHANNEL
from segkit.structures.instances import InstanceMasks
from segkit.structures.panoptic import MAX_SEGMENT_ID


@dataclass(frozen=True)
class SemanticScores:
    """The semantic head's best channel at each pixel of the (H, W) image and, where a method needs them, logits.

    channels: (H, W) unsigned or signed integers, the channel of the highest score, of equal ones the first.
    stuff_ids: (C,) int64, the stuff contiguous id of each channel, `THING_CHANNEL` (0) for a channel of things.
    thing_ids: (C,) int64, the thing contiguous id of each channel, `NO_THING` (-1) for stuff and for a channel that all
    things share.
    logits: (K, H, W) float32 or None. logit_channels: None where K = C and row k is channel k; else (K, H, W) integers,
    the channels of the K highest logits, highest first: the others are not known, and taken to be as low as the K-th.
    Raises ValueError where shapes or types disagree, a channel is none of 0..C-1, a class has several channels, a
    channel is both of stuff and of a thing, an id is negative, or a logit is NaN.
    """

    channels: NDArray[np.integer]
    stuff_ids: NDArray[np.int64]
    thing_ids: NDArray[np.int64]
    logits: NDArray[np.float32] | None = None
    logit_channels: NDArray[np.integer] | None = None

    @classmethod
    def from_stuff_ids(cls, stuff_ids: NDArray[np.integer]) -> SemanticScores:
        """Of an (H, W) map of stuff contiguous ids, 0 where there is some thing: channel = stuff id."""
        _check_map("stuff_ids", stuff_ids)
        if (largest := _largest(stuff_ids)) > MAX_SEGMENT_ID:
            raise ValueError(f"stuff_ids must not be negative nor above {MAX_SEGMENT_ID}, got {_range(stuff_ids)}")
        count = largest + 1
        return cls(stuff_ids, np.arange(count), np.full(count, NO_THING))

    def __post_init__(self) -> None:
        _check_map("channels", self.channels)
        if self.stuff_ids.ndim != 1 or self.stuff_ids.shape != self.thing_ids.shape:
            got = f"{self.stuff_ids.shape} and {self.thing_ids.shape}"
            raise ValueError(f"stuff_ids and thing_ids must be (C,), one per channel, got {got}")
        _check_classes("stuff_ids", self.stuff_ids, THING_CHANNEL)
        _check_classes("thing_ids", self.thing_ids, NO_THING)
        if (both := np.flatnonzero((self.stuff_ids != THING_CHANNEL) & (self.thing_ids != NO_THING))).size:
            raise ValueError(f"a channel must be of stuff or of a thing, got channel {both[0]} of both")
        _check_channels("channels", self.channels, len(self.stuff_ids))
        if self.logits is not None:
            self._check_logits(self.logits)
        elif self.logit_channels is not None:
            raise ValueError("logit_channels must come with logits, got none")

    def _check_logits(self, logits: NDArray[np.float32]) -> None:
        given, rows = self.logit_channels, len(self.stuff_ids)
        expected = (rows if given is None else max(len(given), 1), *self.channels.shape)
        if logits.shape != expected or (given is not None and given.shape != expected):
            got = f"{logits.shape}" if given is None else f"{logits.shape} and {given.shape}"
            raise ValueError(f"logits and logit_channels must have the shape {expected}, got {got}")
        if given is not None:
            _check_channels("logit_channels", given, rows)
        if np.isnan(np.min(logits, initial=0)):
            raise ValueError("logits must be numbers, got NaN: did the training diverge?")

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.channels.shape[0], self.channels.shape[1]

    def stuff_map(self) -> NDArray[np.integer]:
        """(H, W): the stuff contiguous id of each pixel, 0 where there is some thing."""
        if np.array_equal(self.stuff_ids, np.arange(len(self.stuff_ids))):
            return self.channels
        narrow = self.stuff_ids.astype(np.min_scalar_type(self.stuff_ids.max()))  # an eighth of the memory to write
        return narrow.take(self.channels)

    def thing_channel(self, class_id: int) -> int:
        """The channel of a thing contiguous id: its own, else the one that all things share.

        Raises ValueError where there is neither.
        """
        own = np.flatnonzero(self.thing_ids == class_id)
        found = own if len(own) else np.flatnonzero((self.stuff_ids == THING_CHANNEL) & (self.thing_ids == NO_THING))
        if not len(found):
            raise ValueError(f"the semantic map has no channel for the thing class {class_id}, nor one for all things")
        return int(found[0])

    def logit(self, channel: int, window: tuple[slice, slice]) -> NDArray[np.float32]:
        """(h, w) float32: the channel's logit at the pixels of the window. Raises ValueError without logits."""
        if self.logits is None:
            raise ValueError("logits are needed, but only the best channel of each pixel is known")
        if self.logit_channels is None:
            dense: NDArray[np.float32] = self.logits[channel][window]
            return dense
        found: NDArray[np.float32] = self.logits[-1][window].copy()
        for values, channels in zip(self.logits, self.logit_channels, strict=True):
            np.copyto(found, values[window], where=channels[window] == channel)
        return found


@dataclass(frozen=True)
class CenterOffsets:
    """What Panoptic-DeepLab's instance head says (Cheng et al. 2020, section 3.2).

    heatmap: (H, W) float32 in [0, 1], how likely a pixel is the centre of an instance. offsets_yx: (2, H, W) float32,
    pixels from each pixel down and right to the centre of its instance. ValueError where shapes disagree or one is NaN.
    """

    heatmap: NDArray[np.float32]
    offsets_yx: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.heatmap.ndim != 2 or self.offsets_yx.shape != (2, *self.heatmap.shape):
            got = f"{self.heatmap.shape} and {self.offsets_yx.shape}"
            raise ValueError(f"heatmap must be (H, W) and offsets_yx (2, H, W), got {got}")
        if np.isnan(np.min(self.heatmap, initial=0)) or np.isnan(np.min(self.offsets_yx, initial=0)):
            raise ValueError("heatmap and offsets_yx must be numbers, got NaN: did the training diverge?")


@dataclass(frozen=True)
class HeadOutputs:
    """All that fusion methods may use of one image; what a network does not have is None.

    instances: class_ids are thing contiguous ids. semantic: the semantic head. stuff_masks: masks of stuff, as query
    models predict them (MaskFormer), class_ids are stuff contiguous ids. centers: Panoptic-DeepLab's.
    Raises ValueError where sizes disagree, an id is negative, or there are things and no semantic channel of things.
    """

    instances: InstanceMasks
    semantic: SemanticScores
    stuff_masks: InstanceMasks | None = None
    centers: CenterOffsets | None = None

    def __post_init__(self) -> None:
        size_hw = self.semantic.size_hw
        others = {"instances": self.instances.size_hw}
        if self.stuff_masks is not None:
            others["stuff_masks"] = self.stuff_masks.size_hw
        if self.centers is not None:
            others["centers"] = self.centers.heatmap.shape
        for name, other in others.items():
            if other != size_hw:
                raise ValueError(f"{name} must be of the semantic map's size {size_hw}, got {other}")
        if len(self.instances) and self.instances.class_ids.min() < 0:
            raise ValueError(f"class_ids of instances must not be negative, got {self.instances.class_ids.min()}")
        if self.stuff_masks is not None and len(self.stuff_masks) and self.stuff_masks.class_ids.min() <= THING_CHANNEL:
            raise ValueError(f"class_ids of stuff_masks must be from 1, got {self.stuff_masks.class_ids.min()}")
        if len(self.instances) and not (self.semantic.stuff_ids == THING_CHANNEL).any():
            raise ValueError("the semantic map has no channel of things, but there are instances")


def _check_map(name: str, values: NDArray[np.integer]) -> None:
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{name} must be (H, W) integers, got {values.shape} {values.dtype}")


def _check_classes(name: str, class_ids: NDArray[np.int64], none: int) -> None:
    if class_ids.size and class_ids.min() < none:
        raise ValueError(f"{name} must be from {none}, got {class_ids.min()}")
    classes, counts = np.unique(class_ids[class_ids != none], return_counts=True)
    if repeated := classes[counts > 1].tolist():
        raise ValueError(f"{name} must name a class once, got {repeated[0]} for several channels")


def _check_channels(name: str, channels: NDArray[np.integer], count: int) -> None:
    if not np.issubdtype(channels.dtype, np.integer):
        raise ValueError(f"{name} must be integers, got {channels.dtype}")
    if channels.size and _largest(channels) >= count:
        raise ValueError(f"{name} must be in 0..{count - 1}, got {_range(channels)}")


def _largest(values: NDArray[np.integer]) -> int:
    """The largest, read without signs: a negative number is a huge one then, and one pass finds both."""
    return int(values.view(values.dtype.str.replace("i", "u")).max(initial=0))


def _range(values: NDArray[np.integer]) -> str:
    return f"{values.min()}..{values.max()}"
