"""Video panoptic quality (VPQ): panoptic quality of tubes, which are segments followed over windows; and STQ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.metrics.panoptic import counts as counting
from segkit.metrics.panoptic.matching import MODES, match
from segkit.metrics.panoptic.overlaps import (
    ON_VOID,
    PAIR,
    TABLES,
    OverlapTable,
    check_overlaps,
    compute_overlaps,
    join,
)
from segkit.metrics.segmentation_tracking_quality import compute_stq
from segkit.metrics.state import ImageTablesMetric, Table
from segkit.structures import CategorySet, ImageId, PanopticSegmentation
from segkit.utils.errors import DatasetError

WINDOWS = (1, 2, 3, 4)  # frames (VIPSeg's script calls them k = 0, 5, 10, 15)
FRAME = np.dtype([(name, "i8") for name in TABLES])  # numbers of rows of a frame in the tables
ID_BITS = 24  # of a segment id
GROUPS = ("", "_th", "_st")

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class VideoOverlaps:
    """The segments of all frames of a video and the pixels that they share: `ImageOverlaps`, frame after frame.

    Attributes:
        ground_truth: (T,) `SEGMENT` rows.
        prediction: (P,) `SEGMENT` rows.
        pairs: (N,) `PAIR` rows, which hold rows of these tables.
        frames: (F,) `FRAME` rows.
    """

    ground_truth: Table
    prediction: Table
    pairs: Table
    frames: Table


class VideoPanopticQuality(ImageTablesMetric[VideoOverlaps]):
    """VPQ over videos (Kim et al. 2020, Video Panoptic Segmentation, section 4.2).

    A window of k frames slides over each video by one frame. Within it, all pixels of one id are a tube, and tubes are
    matched and counted as `PanopticQuality` does with the segments of one image: IoU > 0.5 over the window, crowds and
    void by the same rules. VPQ^k is the mean over the categories, and VPQ the mean over k. A video with fewer than k
    frames has no window of k frames. With one frame, VPQ^1 is the panoptic quality of the frames.

    `iscrowd` of a tube is that of its first frame in the window. Areas are those of the maps.
    """

    counts_name = "video panoptic quality"
    image_type = VideoOverlaps
    dtypes = {**TABLES, "frames": FRAME}

    def __init__(self, categories: CategorySet, windows: Sequence[int] = WINDOWS, *, mode: str = "reference") -> None:
        """Start without videos.

        Args:
            categories: The categories of ground truth and predictions.
            windows: Lengths of the windows in frames, each at least 1, ascending.
            mode: "reference": of several crowds of a category in a window only the last listed one hides false
                positives, as in VIPSeg's script; "corrected": all of them do.

        Raises:
            ValueError: `mode` is unknown, or `windows` is empty, not ascending or below 1.
        """
        if mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
        windows = tuple(windows)
        if not windows or min(windows) < 1 or list(windows) != sorted({*windows}):
            raise ValueError(f"windows must be ascending numbers of frames from 1, got {windows}")
        super().__init__(categories)
        self.windows = windows
        self.mode = mode

    def update(
        self,
        video_id: ImageId,
        ground_truth: Iterable[PanopticSegmentation],
        prediction: Iterable[PanopticSegmentation],
    ) -> None:
        """Count one video. Only one frame is in memory if the arguments are iterators.

        Args:
            video_id: The video's id.
            ground_truth: (H, W) maps of all frames in their order, 0 = void, one id per object over the whole video;
                category ids of the dataset.
            prediction: The same of the prediction.

        Raises:
            DatasetError: The video was counted before, the numbers of frames differ, an id has two categories, or as
                `compute_overlaps` raises. Nothing is counted then.
            ValueError: A map is not an (H, W) integer array.
        """
        frames = _pair_frames(video_id, ground_truth, prediction)
        self.add(video_id, compute_video_overlaps(video_id, frames, self.categories))

    def compute(self) -> dict[str, Any]:
        """Compute all metrics, in percent (float64); no order of videos or shards moves a bit.

        Returns:
            `VPQ`, and of things and stuff `VPQ_th`, `VPQ_st`: the means over the windows, None if one of them is None.
            `VPQ1`, `VPQ2`, ...: of each window.
            `STQ`, `AQ`, `STQ_IoU`: see `compute_stq`.
            `per_window`: str(frames) -> PQ, SQ, RQ of all categories, things (`_th`) and stuff (`_st`).
            `per_class`: str(category_id) -> VPQ, VPQ1, VPQ2, ...
            None stands for a metric over nothing: no video is long enough, or there is no segment.
        """
        table = join([(video_id, video) for video_id, video in self._images.in_order()])
        frames = [video.frames for _, video in self._images.in_order()]
        per_window, class_rows = {}, []
        for window in self.windows:
            tubes = build_tubes(table, frames, window)
            counts = counting.count(tubes, match(tubes, self.mode), self.categories, exact=True)
            per_window[str(window)] = dict(counting.averages(counts, self.categories, exact=True))
            class_rows.append(counting.build_rows(counts.quality(), (counts.tp, counts.fp, counts.fn)))
        results: dict[str, Any] = {
            f"VPQ{group}": _mean([row[f"PQ{group}"] for row in per_window.values()]) for group in GROUPS
        }
        results.update({f"VPQ{window}": row["PQ"] for window, row in per_window.items()})
        results.update(compute_stq(table, self.categories))
        per_class = {}
        for category, *rows in zip(self.categories.categories, *class_rows, strict=True):
            values = [row["PQ"] for row in rows]
            names = [f"VPQ{window}" for window in self.windows]
            per_class[str(category.category_id)] = {"VPQ": _mean(values), **dict(zip(names, values, strict=True))}
        return {**results, "per_window": per_window, "per_class": per_class}

    def _options(self) -> dict[str, Any]:
        return {"windows": [*self.windows], "mode": self.mode}

    def _check_image(self, image: VideoOverlaps) -> None:
        check_overlaps(image, self.categories)
        frames = {name: image.frames[name] for name in TABLES}
        if any((rows < 0).any() or rows.sum() != len(getattr(image, name)) for name, rows in frames.items()):
            raise ValueError("frames that do not fit the tables")
        frame_of = {name: np.repeat(np.arange(len(rows)), rows) for name, rows in frames.items()}
        for side in ("ground_truth", "prediction"):
            inside = image.pairs[side] != ON_VOID
            if (frame_of[side][image.pairs[side][inside]] != frame_of["pairs"][inside]).any():
                raise ValueError("pairs of segments of different frames")


def compute_video_overlaps(
    video_id: ImageId, frames: Iterable[tuple[PanopticSegmentation, PanopticSegmentation]], categories: CategorySet
) -> VideoOverlaps:
    """Count the shared pixels of all frames of a video, see `VideoPanopticQuality.update`.

    Args:
        video_id: The video's id, for messages.
        frames: (ground truth, prediction) of each frame in their order, (H, W) maps.
        categories: The categories of both.

    Returns:
        The segments and their pairs.

    Raises:
        DatasetError: An id has two categories, or as `compute_overlaps` raises.
        ValueError: A map is not an (H, W) integer array.
    """
    overlaps = [
        (number, compute_overlaps(*pair, categories, where=f"video {video_id!r}, frame {number}"))
        for number, pair in enumerate(frames)
    ]
    table = join(overlaps)
    for side in ("ground_truth", "prediction"):
        _check_one_category(getattr(table, side), f"video {video_id!r}, {side.replace('_', ' ')}")
    rows = np.array([tuple(len(getattr(item, name)) for name in TABLES) for _, item in overlaps], dtype=FRAME)
    return VideoOverlaps(table.ground_truth, table.prediction, table.pairs, rows)


def build_tubes(table: OverlapTable, frames: Sequence[Table], window: int) -> OverlapTable:
    """Join the segments of one id in every window into a tube.

    Args:
        table: The segments of all videos.
        frames: `FRAME` rows of each video.
        window: Frames of a window.

    Returns:
        The tubes; `image_ids` are the windows 0, 1, ...
    """
    lengths = np.array([len(rows) for rows in frames], dtype=np.int64)
    rows_of = np.concatenate([np.zeros(0, dtype=FRAME), *frames])
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)  # of the frame's video
    last_start = first + np.repeat(lengths, lengths) - window
    starts = np.flatnonzero(np.arange(len(first)) <= last_start)

    def spread(name: str) -> tuple[IntArray, IntArray]:
        """Every row once for each window that its frame is in: rows and windows, ordered by window, then row."""
        frame = np.repeat(np.arange(len(first)), rows_of[name])
        start = frame[:, None] - np.arange(window)
        row, column = np.nonzero((start >= first[frame][:, None]) & (start <= last_start[frame][:, None]))
        windows = np.searchsorted(starts, start[row, column])
        order = np.argsort(windows, kind="stable")
        return row[order], windows[order]

    pair_rows, pair_windows = spread("pairs")
    sides: dict[str, tuple[Table, IntArray]] = {}
    pair_tubes = {}
    for side in ("ground_truth", "prediction"):
        segments = getattr(table, side)
        rows, windows = spread(side)
        keys, first_at, tube = np.unique(
            _build_keys(windows, segments["segment_id"][rows]), return_index=True, return_inverse=True
        )
        rank = np.empty(len(keys), dtype=np.int64)  # tubes in the order of their first segment
        rank[np.argsort(first_at)] = np.arange(len(keys))
        tubes = segments[rows[np.sort(first_at)]]
        tubes["counted_px"] = np.bincount(rank[tube.reshape(-1)], segments["counted_px"][rows], len(keys))
        tubes["area_px"] = tubes["counted_px"]
        sides[side] = tubes, windows[np.sort(first_at)]
        segment = table.pairs[side][pair_rows]
        inside = segment != ON_VOID
        pair_tubes[side] = np.full(len(segment), ON_VOID, dtype=np.int64)
        pair_keys = _build_keys(pair_windows[inside], segments["segment_id"][segment[inside]])
        pair_tubes[side][inside] = rank[np.searchsorted(keys, pair_keys)]
    keys = (pair_tubes["ground_truth"] + 1) * (len(sides["prediction"][0]) + 1) + pair_tubes["prediction"] + 1
    _, first_at, pair = np.unique(keys, return_index=True, return_inverse=True)
    pairs = np.zeros(len(first_at), dtype=PAIR)
    for side, tube_of_pair in pair_tubes.items():
        pairs[side] = tube_of_pair[first_at]
    pairs["pixels"] = np.bincount(pair.reshape(-1), table.pairs["pixels"][pair_rows], len(first_at))
    (gt_rows, gt_windows), (pred_rows, pred_windows) = sides["ground_truth"], sides["prediction"]
    windows_of_pairs = pair_windows[first_at]
    return OverlapTable(
        tuple(range(len(starts))), gt_rows, pred_rows, pairs, gt_windows, pred_windows, windows_of_pairs
    )


def _pair_frames(
    video_id: ImageId, ground_truth: Iterable[PanopticSegmentation], prediction: Iterable[PanopticSegmentation]
) -> Iterator[tuple[PanopticSegmentation, PanopticSegmentation]]:
    for number, (gt_map, pred_map) in enumerate(zip_longest(ground_truth, prediction)):
        if gt_map is None or pred_map is None:
            missing, other = ("ground truth", "prediction") if gt_map is None else ("prediction", "ground truth")
            problem = f"the {missing} has no such frame, the {other} has"
            raise DatasetError(problem, where=f"video {video_id!r}, frame {number}")
        yield gt_map, pred_map


def _build_keys(windows: IntArray, segment_ids: IntArray) -> IntArray:
    """One number for each segment id in each window."""
    return (windows << ID_BITS) + segment_ids


def _check_one_category(segments: Table, where: str) -> None:
    category_by_id: dict[int, int] = {}
    for segment_id, category_id in segments[["segment_id", "category_id"]].tolist():
        if category_by_id.setdefault(segment_id, category_id) != category_id:
            problem = f"expected one category over the whole video, got {category_by_id[segment_id]} and {category_id}"
            remedy = "give another object another id"
            raise DatasetError(problem, where=f"{where}, segment {segment_id}", remedy=remedy)


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of the windows' values; None if one of them is None."""
    present = [value for value in values if value is not None]
    return sum(present) / len(values) if len(present) == len(values) else None
