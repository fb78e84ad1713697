"""What every fusion method is: a frozen dataclass of options that turns HeadOutputs into a PanopticSegmentation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from segkit.fusion.explanations import DroppedSegment, RejectionLog, explain_segments
from segkit.structures import MAX_SEGMENT_ID, HeadOutputs, PanopticSegmentation
from segkit.utils.errors import ConfigError

# What a method may need beyond binary crops and the best semantic channel of each pixel.
MASK_PROBS, LOGITS, CENTERS = "mask_probs", "logits", "centers"


class FusionMethod(ABC):
    """A fusion method; a subclass is a frozen dataclass of its options with `needs` and `fuse`.

    The result of every method: ids 1..N, things first by falling score, of equal scores the earlier instance first,
    then stuff by rising stuff id; a pixel that nobody claims is void (0). `Segment.category_id` is contiguous,
    `Segment.instance_id` the row of the instance. The inputs are not changed.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    # Whether stuff_area_limit_px comes last: what one limit drops is then what another leaves, less its small classes.
    area_limit_is_last: ClassVar[bool] = True
    # Options that take their defaults from Detectron2's MODEL.PANOPTIC_FPN.COMBINE, where a config has it.
    combine_options: ClassVar[tuple[str, ...]] = ("stuff_area_limit_px",)

    def __call__(
        self, outputs: HeadOutputs, dropped_segments: list[DroppedSegment] | None = None
    ) -> PanopticSegmentation:
        """Fuse one image. fates: a list to which is added what became of every segment that was dropped or shrunk;
        None costs nothing. ConfigError where the outputs lack what the method needs, ValueError for more segments
        than ids that a PNG can hold."""
        if self.needs:
            self._check(outputs)
        rejections = None if dropped_segments is None else RejectionLog()
        fused = self.fuse(outputs, rejections)
        if len(fused.segments) > MAX_SEGMENT_ID:
            raise ValueError(f"expected at most {MAX_SEGMENT_ID} segments in an image, got {len(fused.segments)}")
        if dropped_segments is not None and rejections is not None:
            dropped_segments += explain_segments(outputs, fused, rejections)
        return fused

    def check_thing_names(self, names: Sequence[str]) -> None:  # noqa: B027 (most methods are for any classes)
        """ConfigError where the method was made for other thing classes than these, by contiguous id."""

    @abstractmethod
    def fuse(self, outputs: HeadOutputs, rejections: RejectionLog | None) -> PanopticSegmentation:
        """The method itself; verdicts: where given, told why instances and stuff are dropped."""

    def _check(self, outputs: HeadOutputs) -> None:
        has = {
            MASK_PROBS: outputs.instances.mask_probs is not None or not len(outputs.instances),
            LOGITS: outputs.semantic.logits is not None,
            CENTERS: outputs.centers is not None,
        }
        if missing := sorted(need for need in self.needs if not has[need]):
            raise ConfigError(
                f"{type(self).__name__} needs {missing}, which these predictions do not hold",
                remedy="choose another method, or save predictions that hold them",
            )
