"""Videos for `segkit predict`: overlays as videos, and one submission in VIPSeg's format."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segkit.formats import coco, vipseg
from segkit.runtime.image_model import ImageModel
from segkit.runtime.prediction import OVERLAYS
from segkit.runtime.selection import find_category_ids, select_segments
from segkit.runtime.video_prediction import predict_video
from segkit.structures import PanopticSegmentation
from segkit.utils.errors import DatasetError
from segkit.utils.progress import track

PANOPTIC: tuple[Literal["panoptic"]] = ("panoptic",)


def predict_videos(
    model: ImageModel,
    videos: Sequence[str | Path],
    output: str | Path,
    drawing: Mapping[str, Any] | None = None,
    on_broken: Callable[[DatasetError], object] | None = None,
    *,
    min_score: float | None = None,
    classes: Collection[str] = (),
    overlays: bool = True,
) -> list[Path]:
    """Predict videos and write overlays/*.mp4, pan_pred/<video>/*.png and pred.json (VIPSeg's format) below `output`.

    An object has one id in all frames of its video, see `segkit.runtime.tracking.SegmentTracker`.

    Args:
        model: a model with a panoptic output.
        videos: video files; their stems are the ids, longer names where two are equal.
        output: folder to write to.
        drawing: keyword arguments of `draw_panoptic`: alpha, names, scores.
        on_broken: takes the error of a video that cannot be read or breaks off, and the others go on; None raises it.
        min_score: things of a lower score are left out, [0, 1]; None: none.
        classes: names of the classes that are written; empty: all.
        overlays: whether overlays are written.

    Returns:
        The files and folders that were written.

    Raises:
        ConfigError: the model has no panoptic output or lacks a class, or PyAV is not installed.
        DatasetError: a video cannot be read, see `on_broken`, or an output cannot be written.
    """
    category_ids = find_category_ids(classes, model.categories) if classes else None

    def segment(frame: np.ndarray) -> PanopticSegmentation:
        panoptic = select_segments(model(frame, outputs=PANOPTIC), min_score or 0.0, category_ids).panoptic
        assert panoptic is not None  # the model raises ConfigError if it has no panoptic output
        return panoptic

    output, names = Path(output), coco.choose_png_names(enumerate(map(str, videos)))
    with vipseg.VideoWriter(output, model.categories) as writer:
        for number, path in enumerate(track([*videos], "predicting videos")):
            video_id = Path(names[number]).stem
            overlay = output / OVERLAYS / f"{video_id}.mp4" if overlays else None
            try:
                predict_video(path, segment, writer, video_id, overlay, drawing=drawing, on_broken=on_broken)
            except DatasetError as error:
                if on_broken is None:
                    raise
                on_broken(error)
    return [output / name for name in (*([OVERLAYS] * overlays), vipseg.PRED_JSON, vipseg.PRED_FOLDER)]
