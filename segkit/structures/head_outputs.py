"""HeadOutputs: what the heads of a network say of one image, before fusion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segkit.structures.categories import NO_THING, THING_CHANNEL
from segkit.structures.instances import InstanceMasks


@dataclass(frozen=True)
class SemanticScores:
    """The semantic head's best channel at each pixel of the (H, W) image and, where a method needs them, logits.

    channels: (H, W) unsigned or signed integers, the channel of the highest score, of equal ones the first.
    stuff_ids: (C,) int64, the stuff contiguous id of each channel, `THING_CHANNEL` (0) for a channel of things.
    thing_ids: (C,) int64, the thing contiguous id of each channel, `NO_THING` (-1) for stuff and for a channel that all
    things share.
    logits: (K, H, W) float32 or None. logit_channels: None where K = C and row k is channel k; else (K, H, W) integers,
    the channels of the K highest logits, highest first: the others are not known, and taken to be as low as the K-th.
    Raises ValueError where shapes disagree, a channel is none of 0..C-1, or a logit is NaN.
    """

    channels: NDArray[np.integer]
    stuff_ids: NDArray[np.int64]
    thing_ids: NDArray[np.int64]
    logits: NDArray[np.float32] | None = None
    logit_channels: NDArray[np.integer] | None = None

    @classmethod
    def of_stuff_ids(cls, stuff_ids: NDArray[np.integer]) -> SemanticScores:
        """Of an (H, W) map of stuff contiguous ids, 0 where there is some thing: channel = stuff id."""
        if stuff_ids.size and stuff_ids.min() < 0:
            raise ValueError(f"stuff_ids must not be negative, got {stuff_ids.min()}")
        count = int(stuff_ids.max(initial=THING_CHANNEL)) + 1
        return cls(stuff_ids, np.arange(count), np.full(count, NO_THING))

    def __post_init__(self) -> None:
        if self.channels.ndim != 2 or not np.issubdtype(self.channels.dtype, np.integer):
            raise ValueError(f"channels must be (H, W) integers, got {self.channels.shape} {self.channels.dtype}")
        if self.stuff_ids.ndim != 1 or self.stuff_ids.shape != self.thing_ids.shape:
            got = f"{self.stuff_ids.shape} and {self.thing_ids.shape}"
            raise ValueError(f"stuff_ids and thing_ids must be (C,), one per channel, got {got}")
        _check_channels("channels", self.channels, len(self.stuff_ids))
        if self.logits is not None:
            self._check_logits(self.logits)

    def _check_logits(self, logits: NDArray[np.float32]) -> None:
        given, rows = self.logit_channels, len(self.stuff_ids)
        expected = (rows if given is None else len(given), *self.channels.shape)
        if logits.shape != expected or (given is not None and given.shape != expected):
            raise ValueError(f"logits and logit_channels must have the shape {expected}, got {logits.shape}")
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
        mapped: NDArray[np.integer] = self.stuff_ids[self.channels]
        return mapped

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


def _check_channels(name: str, channels: NDArray[np.integer], count: int) -> None:
    if channels.size and (channels.min() < 0 or channels.max() >= count):
        raise ValueError(f"{name} must be in 0..{count - 1}, got {channels.min()}..{channels.max()}")
