"""Predict a video: overlays as a video, and ids that persist in VIPSeg's format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats.vipseg import VideoWriter
from segkit.report.overlay import draw_panoptic
from segkit.report.palette import Color, choose_nth_color, is_background, list_drawn_colors
from segkit.runtime.tracking import SegmentTracker
from segkit.runtime.video import OnBroken, VideoFileWriter, read_frames, read_info
from segkit.structures import CategorySet, ImageId, PanopticSegmentation

FRAME_DIGITS = 8  # of the names of frames, as in VIPSeg


def predict_video(
    source: str | Path,
    segment: Callable[[NDArray[np.uint8]], PanopticSegmentation],
    writer: VideoWriter,
    video_id: ImageId,
    overlay_path: str | Path | None = None,
    *,
    tracker: SegmentTracker | None = None,
    drawing: Mapping[str, Any] | None = None,
    on_broken: OnBroken | None = None,
    progress: Callable[[int, int | None], object] | None = None,
) -> int:
    """Segment the frames of a video, one at a time, and write them.

    Args:
        source: The video file.
        segment: Gives the segments of an (H, W, 3) uint8 RGB frame, with category ids of the writer's categories.
        writer: Takes the frames as 00000000.png, 00000001.png, ... with ids that persist.
        video_id: Of the video in `writer`, the name of its folder.
        overlay_path: MP4 to write with the segments drawn over the frames, an object in one colour; None writes none.
        tracker: What gives the ids; None is a `SegmentTracker` with its defaults. A tracker serves one video.
        drawing: Keyword arguments of `draw_panoptic`: alpha, names, scores.
        on_broken: As `read_frames` takes it. The frames before are written if it returns.
        progress: Called with (frames done, frames in all or None) after each frame.

    Returns:
        The number of frames.

    Raises:
        ConfigError: PyAV is not installed.
        DatasetError: The video cannot be read, see `read_frames`, or an output cannot be written.
    """
    info, tracker, colors = read_info(source), tracker or SegmentTracker(), _ObjectColors(writer.categories)
    done = 0
    with nullcontext() if overlay_path is None else VideoFileWriter(overlay_path, info.fps) as overlays:
        for frame in read_frames(source, on_broken):
            segmentation = tracker.update(segment(frame))
            writer.add(video_id, f"{done:0{FRAME_DIGITS}d}.png", segmentation)
            if overlays is not None:
                overlays.add(colors.draw(frame, segmentation, drawing or {}))
            done += 1
            if progress is not None:
                progress(done, info.frames)
    return done


class _ObjectColors:
    """Colours of classes and objects that stay the same in all frames."""

    def __init__(self, categories: CategorySet) -> None:
        self.categories = categories
        self.class_colors = list_drawn_colors(categories)
        self.all_hues = sum(not is_background(category) for category in categories.categories) == 1
        self._colors: dict[int, Color] = {}  # by persistent id
        self._counts: dict[int, int] = {}  # objects by category_id

    def draw(
        self, frame: NDArray[np.uint8], segmentation: PanopticSegmentation, drawing: Mapping[str, Any]
    ) -> NDArray[np.uint8]:
        for each in segmentation.segments:
            if each.isthing and each.segment_id not in self._colors:
                index = self._counts.get(each.category_id, 0)
                self._counts[each.category_id] = index + 1
                base = self.class_colors[each.category_id]
                self._colors[each.segment_id] = choose_nth_color(base, index, self.all_hues)
        options = {"colors": self.class_colors, "segment_colors": self._colors, **drawing}
        return draw_panoptic(frame, segmentation, self.categories, **options)
