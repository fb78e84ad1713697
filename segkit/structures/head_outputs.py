"""HeadOutputs: the outputs of a network's heads for one image, before fusion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segkit.structures.categories import NO_THING, THING_CHANNEL
from segkit.structures.instances import InstanceMasks, has_nan
from segkit.structures.panoptic import MAX_SEGMENT_ID


@dataclass(frozen=True)
class SemanticScores:
    """The best channel of the semantic head at each pixel and, for the methods that need them, logits.

    Attributes:
        channels: (H, W) signed or unsigned integers, channel of the highest score; of equal scores the first channel.
        stuff_ids: (C,) int64, stuff contiguous id of each channel, `THING_CHANNEL` (0) for a channel of things.
        thing_ids: (C,) int64, thing contiguous id of each channel, `NO_THING` (-1) for stuff and for a channel that all
            things share.
        logits: (K, H, W) float32 or None.
        logit_channels: None if row k of logits is channel k (then K = C). Otherwise (K, H, W) integers, the channels of
            the K highest logits, highest first; the logits of the other channels are assumed to equal the K-th.

    Raises:
        ValueError: Shapes or types disagree, a channel is not in 0..C-1, a class has several channels, a channel
            belongs to stuff and to a thing, an id is too low, or a logit is NaN.
    """

    channels: NDArray[np.integer]
    stuff_ids: NDArray[np.int64]
    thing_ids: NDArray[np.int64]
    logits: NDArray[np.float32] | None = None
    logit_channels: NDArray[np.integer] | None = None

    @classmethod
    def from_stuff_ids(cls, stuff_ids: NDArray[np.integer]) -> SemanticScores:
        """Build from a map of stuff contiguous ids; the channel of a pixel is its stuff id.

        Args:
            stuff_ids: (H, W) integers, 0 for any thing.

        Returns:
            Scores without logits.

        Raises:
            ValueError: The map has another shape or dtype, or an id is negative or above MAX_SEGMENT_ID.
        """
        _check_map("stuff_ids", stuff_ids)
        if (largest := _largest(stuff_ids)) > MAX_SEGMENT_ID:
            raise ValueError(f"stuff_ids must be in 0..{MAX_SEGMENT_ID}, got {_format_range(stuff_ids)}")
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
            raise ValueError(f"a channel must belong to stuff or to a thing, got channel {both[0]} for both")
        _check_channels("channels", self.channels, len(self.stuff_ids))
        if self.logits is not None:
            self._check_logits(self.logits)
        elif self.logit_channels is not None:
            raise ValueError("logit_channels must come with logits, got none")

    def _check_logits(self, logits: NDArray[np.float32]) -> None:
        channels, count = self.logit_channels, len(self.stuff_ids)
        expected = (count if channels is None else max(len(channels), 1), *self.channels.shape)
        if logits.shape != expected or (channels is not None and channels.shape != expected):
            got = f"{logits.shape}" if channels is None else f"{logits.shape} and {channels.shape}"
            raise ValueError(f"logits and logit_channels must have the shape {expected}, got {got}")
        if channels is not None:
            _check_channels("logit_channels", channels, count)
        if has_nan(logits):
            raise ValueError("logits must be numbers, got NaN: did the training diverge?")

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.channels.shape[0], self.channels.shape[1]

    def stuff_map(self) -> NDArray[np.integer]:
        """Look up the stuff contiguous id of each pixel.

        Returns:
            (H, W) integers, 0 for any thing.
        """
        if np.array_equal(self.stuff_ids, np.arange(len(self.stuff_ids))):
            return self.channels
        narrow = np.min_scalar_type(self.stuff_ids.max())  # int64 would write eight times the memory
        return self.stuff_ids.astype(narrow).take(self.channels)

    def thing_channel(self, class_id: int) -> int:
        """Find the channel of a thing: its own, or the channel that all things share.

        Args:
            class_id: Thing contiguous id.

        Returns:
            The channel, 0..C-1.

        Raises:
            ValueError: There is neither.
        """
        is_shared = (self.stuff_ids == THING_CHANNEL) & (self.thing_ids == NO_THING)
        for channel in (*np.flatnonzero(self.thing_ids == class_id), *np.flatnonzero(is_shared)):
            return int(channel)
        raise ValueError(f"the semantic map has no channel for the thing class {class_id}, nor one for all things")

    def logit(self, channel: int, window: tuple[slice, slice]) -> NDArray[np.float32]:
        """Get the logits of one channel in a part of the image.

        Args:
            channel: 0..C-1.
            window: (rows, columns) of the image.

        Returns:
            (h, w) float32.

        Raises:
            ValueError: There are no logits.
        """
        if self.logits is None:
            raise ValueError("logits are needed, but only the best channel of each pixel is known")
        if self.logit_channels is None:
            dense: NDArray[np.float32] = self.logits[channel][window]
            return dense
        logits: NDArray[np.float32] = self.logits[-1][window].copy()
        for values, channels in zip(self.logits, self.logit_channels, strict=True):
            np.copyto(logits, values[window], where=channels[window] == channel)
        return logits


@dataclass(frozen=True)
class CenterOffsets:
    """The outputs of Panoptic-DeepLab's instance head (Cheng et al. 2020, section 3.2).

    Attributes:
        heatmap: (H, W) float32 in [0, 1], probability that a pixel is the centre of an instance.
        offsets_yx: (2, H, W) float32, pixels from each pixel down and right to the centre of its instance.

    Raises:
        ValueError: Shapes disagree or a value is NaN.
    """

    heatmap: NDArray[np.float32]
    offsets_yx: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.heatmap.ndim != 2 or self.offsets_yx.shape != (2, *self.heatmap.shape):
            got = f"{self.heatmap.shape} and {self.offsets_yx.shape}"
            raise ValueError(f"heatmap must be (H, W) and offsets_yx (2, H, W), got {got}")
        if has_nan(self.heatmap) or has_nan(self.offsets_yx):
            raise ValueError("heatmap and offsets_yx must be numbers, got NaN: did the training diverge?")

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.heatmap.shape[0], self.heatmap.shape[1]


@dataclass(frozen=True)
class QueryLogits:
    """The mask logits of the queries of a mask transformer, as its network gives them.

    They are resized twice, bilinearly, as in Mask2Former: to the padded image, `scale` times as large, and then the
    part without padding to the output. Only then the sigmoid is taken.

    Attributes:
        logits: (N, h, w) float32.
        image_size: (height, width) in pixels of the network's image without padding.
        scale: Pixels of the network's image per logit.

    Raises:
        ValueError: Shapes disagree or a value is NaN.
    """

    logits: NDArray[np.float32]
    image_size: tuple[int, int]
    scale: int

    def __post_init__(self) -> None:
        if self.logits.ndim != 3 or self.scale < 1:
            raise ValueError(f"logits must be (N, h, w) and scale at least 1, got {self.logits.shape} and {self.scale}")
        padded_hw = self.logits.shape[1] * self.scale, self.logits.shape[2] * self.scale
        if not all(1 <= length <= padded for length, padded in zip(self.image_size, padded_hw, strict=True)):
            raise ValueError(f"image_size must be inside the padded image {padded_hw}, got {self.image_size}")
        if has_nan(self.logits):
            raise ValueError("logits must be numbers, got NaN: did the training diverge?")


@dataclass(frozen=True)
class HeadOutputs:
    """All inputs of the fusion methods for one image; outputs that a network does not have are None.

    Attributes:
        instances: Things; class_ids are thing contiguous ids.
        semantic: Output of the semantic head.
        stuff_masks: Masks of stuff, as query models (MaskFormer) predict them; class_ids are stuff contiguous ids.
        centers: Output of Panoptic-DeepLab's instance head.
        queries: Mask logits of the instances, then of the stuff masks, whose crops are their positive pixels.

    Raises:
        ValueError: Sizes or lengths disagree, an id is too low, or there are things but no semantic channel for things.
    """

    instances: InstanceMasks
    semantic: SemanticScores
    stuff_masks: InstanceMasks | None = None
    centers: CenterOffsets | None = None
    queries: QueryLogits | None = None

    def __post_init__(self) -> None:
        expected = self.semantic.size_hw
        parts = {"instances": self.instances, "stuff_masks": self.stuff_masks, "centers": self.centers}
        for name, part in parts.items():
            if part is not None and part.size_hw != expected:
                raise ValueError(f"{name} must have the semantic map's size {expected}, got {part.size_hw}")
        if len(self.instances) and self.instances.class_ids.min() < 0:
            raise ValueError(f"class_ids of instances must not be negative, got {self.instances.class_ids.min()}")
        if self.stuff_masks is not None and len(self.stuff_masks) and self.stuff_masks.class_ids.min() <= THING_CHANNEL:
            raise ValueError(f"class_ids of stuff_masks must be at least 1, got {self.stuff_masks.class_ids.min()}")
        if len(self.instances) and not (self.semantic.stuff_ids == THING_CHANNEL).any():
            raise ValueError("the semantic map has no channel of things, but there are instances")
        masks = len(self.instances) + (0 if self.stuff_masks is None else len(self.stuff_masks))
        if self.queries is not None and len(self.queries.logits) != masks:
            raise ValueError(
                f"queries must be of the {masks} instances and stuff masks, got {len(self.queries.logits)}"
            )


def _check_map(name: str, values: NDArray[np.integer]) -> None:
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{name} must be (H, W) integers, got {values.shape} {values.dtype}")


def _check_classes(name: str, class_ids: NDArray[np.int64], none: int) -> None:
    if class_ids.size and class_ids.min() < none:
        raise ValueError(f"{name} must be at least {none}, got {class_ids.min()}")
    classes, counts = np.unique(class_ids[class_ids != none], return_counts=True)
    if repeated := classes[counts > 1].tolist():
        raise ValueError(f"{name} must be distinct, got {repeated[0]} for several channels")


def _check_channels(name: str, channels: NDArray[np.integer], count: int) -> None:
    if not np.issubdtype(channels.dtype, np.integer):
        raise ValueError(f"{name} must be integers, got {channels.dtype}")
    if channels.size and _largest(channels) >= count:
        raise ValueError(f"{name} must be in 0..{count - 1}, got {_format_range(channels)}")


def _largest(values: NDArray[np.integer]) -> int:
    """The largest value read as unsigned: negative values become huge, so that one pass finds both faults."""
    return int(values.view(values.dtype.str.replace("i", "u")).max(initial=0))


def _format_range(values: NDArray[np.integer]) -> str:
    return f"{values.min()}..{values.max()}"
