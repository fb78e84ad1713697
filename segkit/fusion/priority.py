"""The heuristic fusion with classes that ride over others: a tie stays on the person who wears it.

Lazarow et al. 2020, "Learning Instance Occlusion for Panoptic Segmentation" (OCFusion), algorithm 1, with a table of
class pairs, counted in annotations, in place of the learned head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.candidates import count_shared_px, select_candidates
from segkit.fusion.explanations import Rejection, RejectionLog
from segkit.fusion.heuristic import HeuristicFusion
from segkit.fusion.occlusion_priors import MIN_OVERLAP, OcclusionPriors
from segkit.fusion.options import check_fraction
from segkit.fusion.segments import build_thing_segment, fill_stuff
from segkit.structures import VOID, HeadOutputs, InstanceMasks, PanopticSegmentation, Segment
from segkit.utils.errors import ConfigError


@dataclass(frozen=True)
class PriorityFusion(HeuristicFusion):
    """Instances by falling score, each where no better one is and where its class rides over the better one's.

    priors: path of the file that `segkit fuse priors` writes, read when the method is made (DatasetError where it is
    missing or broken); "" for none, which gives HeuristicFusion's result. A class rides over another where margin and
    min_count say so, see `OcclusionPriors.occluding_pairs`.

    An instance i takes from a placed instance j the pixels that both masks hold where its class rides over j's and the
    masks share at least min_overlap of the smaller one. overlap_threshold: i is left out where more than this share of
    it is held by others whom it does not ride over, and then takes nothing; and j goes where, of its own mask, others
    hold more than this share once i has taken its pixels: what was left of j is free again, for later instances and
    stuff. The other options are the heuristic's.
    """

    priors: str = ""
    min_overlap: float = MIN_OVERLAP
    margin: float = 0.25
    min_count: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self, "min_overlap", "margin")
        _ = self._table, self._on_top  # a broken file is told before the first image

    @cached_property
    def _table(self) -> OcclusionPriors | None:
        return OcclusionPriors.read(self.priors) if self.priors else None

    @cached_property
    def _on_top(self) -> frozenset[tuple[int, int]]:
        return self._table.occluding_pairs(self.margin, self.min_count) if self._table else frozenset()

    def check_thing_names(self, names: Sequence[str]) -> None:
        """ConfigError where the priors were counted on other things."""
        if self._table is None or [name for _, name in self._table.things] == [*names]:
            return
        listed = ", ".join(name for _, name in self._table.things[:5])
        problem = f"expected priors of the {len(names)} things {', '.join(names[:5])}, ..., got some of {listed}, ..."
        raise ConfigError(problem, where=self.priors, remedy="count them on this dataset: segkit fuse priors")

    def fuse(self, outputs: HeadOutputs, rejections: RejectionLog | None) -> PanopticSegmentation:
        """See the class; outputs: crops and the best channel of each pixel. ConfigError for a thing class that the
        priors do not list."""
        instances = outputs.instances
        self._check_classes(instances)
        order = select_candidates(
            instances,
            self.instance_score_threshold,
            self.class_score_thresholds,
            self.nms,
            self.nms_threshold,
            rejections,
        )
        canvas = _Canvas(instances, self.overlap_threshold, rejections)
        for row in order:
            below = self._below(canvas, row) if self._on_top else {}
            if canvas.place(row, below):
                for number in below:
                    canvas.drop_if_taken(number)
        segment_ids, segments = canvas.result()
        return fill_stuff(segment_ids, segments, outputs.semantic.stuff_map(), self.stuff_area_limit_px, rejections)

    def _check_classes(self, instances: InstanceMasks) -> None:
        if self._table is None or not len(instances):
            return
        count, largest = len(self._table.things), int(instances.class_ids.max())
        if largest >= count:
            problem = f"these priors list {count} thing classes, but an instance has the contiguous id {largest}"
            raise ConfigError(problem, where=self.priors, remedy="were they counted on another dataset?")

    def _below(self, canvas: _Canvas, row: int) -> dict[int, int]:
        """From which placed numbers the row takes pixels, and how many."""
        instances, found = canvas.instances, {}
        held = canvas.numbers[instances.window(row)][instances.crops[row]]
        for number, pixels in enumerate(np.bincount(held[held != VOID]).tolist()):
            other = canvas.rows[number]
            if not pixels or (int(instances.class_ids[row]), int(instances.class_ids[other])) not in self._on_top:
                continue
            smaller_px = min(canvas.areas_px[row], canvas.areas_px[other])
            if count_shared_px(instances, row, other) / smaller_px >= self.min_overlap:
                found[number] = pixels
        return found


class _Canvas:
    """Who holds which pixel: (H, W) int32 numbers, from 1 in order of placing, VOID for nobody; of each number its row,
    and the pixels that it holds while it stays."""

    def __init__(self, instances: InstanceMasks, limit: float, rejections: RejectionLog | None) -> None:
        self.instances, self.limit, self.rejections = instances, limit, rejections
        self.areas_px = [int(np.count_nonzero(crop)) for crop in instances.crops]
        self.numbers: NDArray[np.int32] = np.full(instances.size_hw, VOID, dtype=np.int32)
        self.rows = [-1]  # of the number VOID
        self.held_px: dict[int, int] = {}

    def place(self, row: int, below: Mapping[int, int]) -> bool:
        """Give the row what is free of its mask and what those below hold; nothing where too much of it is taken."""
        mask, window = self.instances.crops[row], self.numbers[self.instances.window(row)]
        free = mask & (window == VOID)
        won_px = int(np.count_nonzero(free)) + sum(below.values())
        if self.areas_px[row] == 0 or self._is_taken(row, won_px):
            return False
        for number, pixels in below.items():
            free |= mask & (window == number)
            self.held_px[number] -= pixels
        window[free] = len(self.rows)
        self.held_px[len(self.rows)] = won_px
        self.rows.append(row)
        return True

    def drop_if_taken(self, number: int) -> None:
        """Free the pixels of a number of whose mask too much is taken by now."""
        row = self.rows[number]
        if self._is_taken(row, self.held_px[number]):
            window = self.numbers[self.instances.window(row)]
            window[window == number] = VOID
            del self.held_px[number]

    def _is_taken(self, row: int, held_px: int) -> bool:
        taken = (self.areas_px[row] - held_px) / self.areas_px[row]
        if taken > self.limit and self.rejections is not None:
            self.rejections.instances[row] = Rejection("overlap", taken, self.limit)
        return taken > self.limit

    def result(self) -> tuple[NDArray[np.int32], list[Segment]]:
        """The map and the segments of those that stay, ids 1..N in order of placing."""
        segments = [
            build_thing_segment(segment_id, self.instances, self.rows[number], area_px)
            for segment_id, (number, area_px) in enumerate(self.held_px.items(), 1)
        ]
        if len(segments) == len(self.rows) - 1:
            return self.numbers, segments
        segment_of = np.full(len(self.rows), VOID, dtype=np.int32)
        segment_of[[*self.held_px]] = [s.segment_id for s in segments]
        segment_ids: NDArray[np.int32] = segment_of[self.numbers]
        return segment_ids, segments
