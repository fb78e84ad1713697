"""Video panoptic quality of files in VIPSeg's format: ground truth and predictions are a JSON and a folder of PNGs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from segkit.formats import vipseg
from segkit.formats.vipseg import VideoFrame
from segkit.metrics import VideoPanopticQuality
from segkit.metrics.video_panoptic_quality import WINDOWS, VideoOverlaps, compute_video_overlaps
from segkit.scoring.panoptic import report_unmatched
from segkit.structures import ImageId, PanopticSegmentation
from segkit.utils.file_names import FolderNames
from segkit.utils.issues import DEFAULT_LIMIT, ErrorCollector
from segkit.utils.process_pool import EVERYTHING, Progress, Shard, map_and_collect_errors


def score_videos(
    gt_json: str | Path,
    pred_json: str | Path,
    gt_folder: str | Path | None = None,
    pred_folder: str | Path | None = None,
    *,
    windows: Sequence[int] = WINDOWS,
    mode: str = "reference",
    allow_missing: bool = False,
    allow_extra: bool = False,
    workers: int = 1,
    shard: Shard = EVERYTHING,
    progress: Progress | None = None,
    limit: int = DEFAULT_LIMIT,
) -> VideoPanopticQuality:
    """Count the predictions of every video of the ground truth. Frames belong together by the stems of their names.

    Args:
        gt_json: JSON of the ground truth, such as panoptic_gt_VIPSeg_val.json.
        pred_json: JSON of the predictions, pred.json; only its `annotations` are read.
        gt_folder: PNGs of the ground truth; None is panomasksRGB beside its JSON.
        pred_folder: PNGs of the predictions; None is pan_pred beside their JSON.
        windows: Lengths of the windows in frames, ascending.
        mode: The mode of `VideoPanopticQuality`.
        allow_missing: Count videos and frames without a prediction as empty predictions.
        allow_extra: Skip predictions of videos and frames that the ground truth lacks.
        workers: Number of processes, at least 1.
        shard: The part of the videos to count.
        progress: Called with (videos done, all) after each video.
        limit: Number of errors at which the search for errors stops, at least 1.

    Returns:
        The counts of the shard's videos.

    Raises:
        DatasetError: The files have errors; lists up to `limit` of them.
        ValueError: `mode` is unknown, `windows` is not ascending, or a number is below 1.
    """
    errors = ErrorCollector(limit)
    ground_truth = vipseg.read_videos(gt_json, on_issue=errors.add_issue)
    predictions = vipseg.read_videos(pred_json, ground_truth.categories, on_issue=errors.add_issue)
    metric = VideoPanopticQuality(ground_truth.categories, windows, mode=mode)
    if not len(errors):  # videos with errors are neither missing nor extra
        _report_unmatched(errors, ground_truth.videos, predictions, allow_missing, allow_extra)
    gt_root = pred_root = Path()
    with errors.guard():
        gt_root = vipseg.find_png_folder(gt_json, gt_folder, [vipseg.GT_FOLDER], "--gt-folder")
    with errors.guard():
        pred_root = vipseg.find_png_folder(pred_json, pred_folder, [vipseg.PRED_FOLDER], "--pred-folder")
    errors.check()
    gt_pngs, pred_pngs = FolderNames(gt_root), FolderNames(pred_root)

    def count(video_id: ImageId) -> VideoOverlaps:
        gt_frames = ground_truth.videos[video_id]
        pred_frames = {frame.name: frame for frame in predictions.videos.get(video_id, ())}
        pairs = _read_pairs(gt_frames, pred_frames)
        return compute_video_overlaps(video_id, pairs, metric.categories)

    def _read_pairs(
        gt_frames: Sequence[VideoFrame], pred_frames: dict[str, VideoFrame]
    ) -> Iterator[tuple[PanopticSegmentation, PanopticSegmentation]]:
        for frame in gt_frames:
            gt_map = vipseg.read_frame(gt_pngs, frame, metric.categories)
            if frame.name in pred_frames:
                size_hw = gt_map.runs.size_hw
                yield gt_map, vipseg.read_frame(pred_pngs, pred_frames[frame.name], metric.categories, size_hw)
            else:
                yield gt_map, PanopticSegmentation(np.zeros(gt_map.runs.size_hw, np.int32), ())

    video_ids = shard.select([*ground_truth.videos])
    for video_id, overlaps in map_and_collect_errors(count, video_ids, errors, workers, progress):
        metric.add(video_id, overlaps)
    return metric


def _report_unmatched(
    errors: ErrorCollector,
    gt_videos: dict[ImageId, tuple[VideoFrame, ...]],
    predictions: vipseg.VideoFile,
    allow_missing: bool,
    allow_extra: bool,
) -> None:
    """Report videos, and frames of the videos that both have, that only one side has."""
    path, pred_videos = predictions.path, predictions.videos
    missing = [video_id for video_id in gt_videos if video_id not in pred_videos]
    extra = [video_id for video_id in pred_videos if video_id not in gt_videos]
    remedies = {
        "missing_remedy": "predict them, or count them as empty (--allow-missing)",
        "extra_remedy": "is it the right file? Skip them with --allow-extra",
    }
    may_miss, may_add = allow_missing and len(missing) < len(gt_videos), allow_extra and len(missing) < len(gt_videos)
    shown = (() if may_miss else missing), (() if may_add else extra)
    report_unmatched(errors, path, len(gt_videos), *shown, what="videos", **remedies)
    gt_frames, pred_frames = (
        {
            f"{video_id}/{frame.name}": None
            for video_id in gt_videos
            if video_id in pred_videos
            for frame in own[video_id]
        }
        for own in (gt_videos, pred_videos)
    )
    frames = (
        () if allow_missing else [name for name in gt_frames if name not in pred_frames],
        () if allow_extra else [name for name in pred_frames if name not in gt_frames],
    )
    report_unmatched(errors, path, len(gt_frames), *frames, what="frames", **remedies)
