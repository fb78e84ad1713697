"""Segment ids that persist over the frames of a video: segments are matched to those before by mask IoU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.label_pairs import count_run_pairs
from segkit.structures import VOID, IdRuns, PanopticSegmentation, Segment

MIN_IOU = 0.3  # of a match; lower than 0.5, since objects move between frames
MAX_GAP = 5  # frames


@dataclass
class _Memory:
    """The last frame in which some objects were seen.

    Attributes:
        age: Frames since then; 1 is the frame before.
        runs: Map of persistent ids.
        category_by_id: category_id of the objects that were last seen then.
        areas_px: Pixels of every id of the map.
    """

    age: int
    runs: IdRuns
    category_by_id: dict[int, int]
    areas_px: dict[int, int]


class SegmentTracker:
    """Gives the segments of a video's frames ids that persist, one frame after another.

    Each thing is matched to an object of its class by the IoU of both masks, the object's being that of the frame in
    which it was last seen. Pairs match greedily by falling IoU above `min_iou`; of equal ones the object seen last is
    first, then the one with the lower id, then the segment listed first. An object that is not seen for more than
    `max_gap` frames is forgotten. Stuff has one id per class; several segments of a class of stuff become one.

    Only masks are compared, no pixels of the image and no motion. So an object gets another id if it moves further than
    about half its size between frames (fast motion, a low frame rate, a cut), if it is hidden for more than `max_gap`
    frames or comes back at another place, or if its class changes. Objects of one class that swap places while both are
    hidden swap their ids.

    The memory is that of the maps of at most `max_gap` + 1 frames.

    Args:
        min_iou: In [0, 1), a match is above.
        max_gap: Frames in which an object may be missing, from 0.

    Raises:
        ValueError: An argument is outside its range.
    """

    def __init__(self, min_iou: float = MIN_IOU, max_gap: int = MAX_GAP) -> None:
        if not 0 <= min_iou < 1:
            raise ValueError(f"min_iou must be in [0, 1), got {min_iou}")
        if max_gap < 0:
            raise ValueError(f"max_gap must be at least 0, got {max_gap}")
        self.min_iou = min_iou
        self.max_gap = max_gap
        self._memories: list[_Memory] = []  # newest first
        self._stuff_ids: dict[int, int] = {}  # by category_id
        self._last_id = VOID

    def update(self, segmentation: PanopticSegmentation) -> PanopticSegmentation:
        """Take the next frame.

        Args:
            segmentation: (H, W) map of the frame with ids of its own; all frames are of one size.

        Returns:
            The same segments with ids that persist, from 1; an id is given to one object only.

        Raises:
            DatasetError: The frame is of another size than those before.
        """
        runs = segmentation.runs
        matches = self._match(segmentation)
        id_by_segment: dict[int, int] = {}
        segments: dict[int, Segment] = {}
        for segment in segmentation.segments:
            if segment.isthing:
                persistent = matches[segment.segment_id] if segment.segment_id in matches else self._new_id()
            else:
                if segment.category_id not in self._stuff_ids:
                    self._stuff_ids[segment.category_id] = self._new_id()
                persistent = self._stuff_ids[segment.category_id]
            id_by_segment[segment.segment_id] = persistent
            area_px = segment.area_px + (segments[persistent].area_px if persistent in segments else 0)
            segments[persistent] = replace(segment, segment_id=persistent, area_px=area_px)
        tracked = IdRuns(runs.size_hw, runs.starts, _rename(runs, id_by_segment))
        self._remember(tracked, segments)
        return PanopticSegmentation.from_runs(tracked, tuple(segments.values()))

    def _match(self, segmentation: PanopticSegmentation) -> dict[int, int]:
        """Id of the object by segment_id of the frame's things."""
        things = {s.segment_id: (order, s.category_id) for order, s in enumerate(segmentation.segments) if s.isthing}
        areas_px = segmentation.runs.areas_px()
        candidates = []
        for memory in self._memories:
            pairs = count_run_pairs(memory.runs, segmentation.runs, "frames of a video")
            for track, segment_id, shared_px in zip(*(column.tolist() for column in pairs), strict=True):
                if track not in memory.category_by_id or segment_id not in things:
                    continue
                order, category_id = things[segment_id]
                iou = shared_px / (memory.areas_px[track] + areas_px[segment_id] - shared_px)
                if category_id == memory.category_by_id[track] and iou > self.min_iou:
                    candidates.append((-iou, memory.age, track, order, segment_id))
        matches: dict[int, int] = {}
        taken: set[int] = set()
        for _, _, track, _, segment_id in sorted(candidates):
            if track not in taken and segment_id not in matches:
                matches[segment_id] = track
                taken.add(track)
        return matches

    def _remember(self, runs: IdRuns, segments: dict[int, Segment]) -> None:
        """Put the frame in front, and forget objects that it shows in older frames, and old ones."""
        areas_px = runs.areas_px()
        shown = {i: s.category_id for i, s in segments.items() if s.isthing and i in areas_px}
        for memory in self._memories:
            memory.age += 1
            memory.category_by_id = {i: c for i, c in memory.category_by_id.items() if i not in shown}
        memories = [_Memory(1, runs, shown, areas_px), *self._memories]
        # The newest stays without objects too, since it says which size frames have.
        is_needed = [m.age == 1 or (m.age <= self.max_gap + 1 and bool(m.category_by_id)) for m in memories]
        self._memories = [memory for memory, needed in zip(memories, is_needed, strict=True) if needed]

    def _new_id(self) -> int:
        self._last_id += 1
        return self._last_id


def track(
    frames: Iterable[PanopticSegmentation], tracker: SegmentTracker | None = None
) -> Iterator[PanopticSegmentation]:
    """Give the segments of all frames ids that persist.

    Args:
        frames: Of one video, of one size.
        tracker: What gives the ids; None is a `SegmentTracker` with its defaults.

    Yields:
        The frames, see `SegmentTracker.update`.

    Raises:
        DatasetError: A frame is of another size than those before.
    """
    tracker = SegmentTracker() if tracker is None else tracker
    for frame in frames:
        yield tracker.update(frame)


def _rename(runs: IdRuns, id_by_segment: dict[int, int]) -> NDArray[np.int32]:
    """The persistent id of each run."""
    names = {VOID: VOID, **id_by_segment}
    ids, inverse = np.unique(runs.ids, return_inverse=True)
    return np.array([names[i] for i in ids.tolist()], dtype=np.int32)[inverse.reshape(-1)]
