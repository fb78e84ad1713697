"""The base class of fusion methods: a frozen dataclass of options that turns HeadOutputs into segments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from segkit.fusion.explanations import DroppedSegment, RejectionLog, explain_segments
from segkit.structures import MAX_SEGMENT_ID, HeadOutputs, PanopticSegmentation
from segkit.utils.errors import ConfigError

# What a method may need besides binary crops and the best semantic channel of each pixel.
MASK_PROBS, LOGITS, CENTERS = "mask_probs", "logits", "centers"


class FusionMethod(ABC):
    """A fusion method. A subclass is a frozen dataclass of its options, with `needs` and `fuse`.

    The result of every method has ids 1..N: first things by falling score (of equal scores the earlier instance first),
    then stuff by rising contiguous id. Pixels without an owner are void (0). `Segment.category_id` is contiguous,
    `Segment.instance_id` is the row of the instance. The inputs are not changed.

    Attributes:
        needs: Any of MASK_PROBS, LOGITS and CENTERS.
        area_limit_is_last: Whether stuff_area_limit_px is applied last: a higher limit then only removes stuff.
        stuff_area_limit_px: Every method has this option. Stuff with fewer pixels is left out.
        combine_options: Options that take their defaults from Detectron2's MODEL.PANOPTIC_FPN.COMBINE.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    area_limit_is_last: ClassVar[bool] = True
    combine_options: ClassVar[tuple[str, ...]] = ("stuff_area_limit_px",)
    stuff_area_limit_px: float

    def __call__(
        self, outputs: HeadOutputs, dropped_segments: list[DroppedSegment] | None = None
    ) -> PanopticSegmentation:
        """Fuse one image.

        Args:
            outputs: Outputs of the heads, with everything in `needs`.
            dropped_segments: List to extend with every segment that was dropped or lost pixels; None computes nothing.

        Returns:
            The panoptic segmentation, with contiguous category ids.

        Raises:
            ConfigError: The outputs lack something that the method needs.
            ValueError: There are more segments than ids in a PNG.
        """
        if missing := self._find_missing(outputs):
            raise ConfigError(
                f"{type(self).__name__} needs {missing}, which these predictions do not hold",
                remedy="choose another method, or save predictions that hold them",
            )
        rejections = None if dropped_segments is None else RejectionLog()
        fused = self.fuse(outputs, rejections)
        if len(fused.segments) > MAX_SEGMENT_ID:
            raise ValueError(f"expected at most {MAX_SEGMENT_ID} segments in an image, got {len(fused.segments)}")
        if dropped_segments is not None and rejections is not None:
            dropped_segments += explain_segments(outputs, fused, rejections)
        return fused

    def check_thing_names(self, names: Sequence[str]) -> None:  # noqa: B027 (most methods accept any classes)
        """Check that the method was made for these classes.

        Args:
            names: Names of the thing classes, by thing contiguous id.

        Raises:
            ConfigError: The method was made for other thing classes.
        """

    @abstractmethod
    def fuse(self, outputs: HeadOutputs, rejections: RejectionLog | None) -> PanopticSegmentation:
        """Fuse one image, whose outputs hold everything in `needs`.

        Args:
            outputs: Outputs of the heads.
            rejections: Log to fill with the reasons for dropped candidates; None needs no reasons.

        Returns:
            The panoptic segmentation, with contiguous category ids.
        """

    def _find_missing(self, outputs: HeadOutputs) -> str:
        """What the method needs but the outputs lack, for an error message; "" for nothing."""
        has = {
            MASK_PROBS: outputs.instances.mask_probs is not None or not len(outputs.instances),
            LOGITS: outputs.semantic.logits is not None,
            CENTERS: outputs.centers is not None,
        }
        missing = sorted(need for need in self.needs if not has[need])
        return str(missing) if missing else ""
