"""The heuristic fusion with classes that occlude others: a tie stays on the person who wears it.

Lazarow et al. 2020, "Learning Instance Occlusion for Panoptic Segmentation" (OCFusion), algorithm 1. A table of class
pairs, counted in annotations, replaces the learned head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from segkit.fusion.candidates import count_shared_px
from segkit.fusion.explanations import RejectionLog
from segkit.fusion.heuristic import Canvas, HeuristicFusion
from segkit.fusion.occlusion_priors import MIN_OVERLAP, OcclusionPriors
from segkit.structures import VOID, HeadOutputs, InstanceMasks, PanopticSegmentation
from segkit.utils.errors import ConfigError
from segkit.utils.options import check_fraction


@dataclass(frozen=True)
class PriorityFusion(HeuristicFusion):
    """Instances by falling score, each at the pixels that no better one holds or whose holder its class occludes.

    Instance i takes the pixels that it shares with a placed instance j, if its class occludes the class of j and they
    share at least min_overlap of the smaller mask. If other instances, which i does not occlude, hold more than
    overlap_threshold of i, it is left out and takes nothing. If others then hold more than overlap_threshold of j, j is
    dropped: its other pixels are free for later instances and stuff. Without priors the result is HeuristicFusion's.

    The other options are those of HeuristicFusion.

    Attributes:
        priors: Path of the file that `segkit fuse priors` writes, read when the method is built; "" for none.
        min_overlap: In [0, 1], share of the smaller mask.
        margin: In [0, 1], how far the occlusion probability must be above 0.5, see `OcclusionPriors.occluding_pairs`.
        min_count: Lowest number of pairs of objects that the priors were counted from.
    """

    priors: str = ""
    min_overlap: float = MIN_OVERLAP
    margin: float = 0.25
    min_count: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self, "min_overlap", "margin")
        _ = self._priors, self._occluding_pairs  # a broken file raises before the first image

    @cached_property
    def _priors(self) -> OcclusionPriors | None:
        return OcclusionPriors.read(self.priors) if self.priors else None

    @cached_property
    def _occluding_pairs(self) -> frozenset[tuple[int, int]]:
        return self._priors.occluding_pairs(self.margin, self.min_count) if self._priors else frozenset()

    def check_thing_names(self, names: Sequence[str]) -> None:
        """See base class. The priors must have been counted on these things."""
        if self._priors is None or [name for _, name in self._priors.things] == [*names]:
            return
        counted = ", ".join(name for _, name in self._priors.things[:5])
        problem = (
            f"expected priors of the {len(names)} things {', '.join(names[:5])}, ..., got priors of {counted}, ..."
        )
        raise ConfigError(problem, where=self.priors, remedy="count them on this dataset: segkit fuse priors")

    def fuse(self, outputs: HeadOutputs, rejections: RejectionLog | None) -> PanopticSegmentation:
        """See base class. Raises ConfigError for a thing class that the priors do not list."""
        self._check_classes(outputs.instances)
        return super().fuse(outputs, rejections)

    def _place(self, canvas: Canvas, row: int) -> None:
        occluded_px = self._count_occluded_px(canvas, row) if self._occluding_pairs else {}
        if canvas.place(row, occluded_px):
            for number in occluded_px:
                canvas.drop_if_overlapped(number)

    def _check_classes(self, instances: InstanceMasks) -> None:
        if self._priors is None or not len(instances):
            return
        count, largest = len(self._priors.things), int(instances.class_ids.max())
        if largest >= count:
            problem = f"these priors list {count} thing classes, but an instance has the contiguous id {largest}"
            raise ConfigError(problem, where=self.priors, remedy="count them on this dataset: segkit fuse priors")

    def _count_occluded_px(self, canvas: Canvas, row: int) -> dict[int, int]:
        """How many pixels the row takes from each placed number that it occludes."""
        instances, occluded_px = canvas.instances, {}
        numbers = canvas.numbers[instances.window(row)][instances.crops[row]]
        for number, pixels in enumerate(np.bincount(numbers[numbers != VOID]).tolist()):
            other = canvas.rows[number]
            classes = int(instances.class_ids[row]), int(instances.class_ids[other])
            if not pixels or classes not in self._occluding_pairs:
                continue
            smaller_px = min(canvas.areas_px[row], canvas.areas_px[other])
            if count_shared_px(instances, row, other) / smaller_px >= self.min_overlap:
                occluded_px[number] = pixels
        return occluded_px
