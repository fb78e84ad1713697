"""Videos for `segkit predict`: overlays as videos, and one submission in VIPSeg's format."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats import coco, vipseg
from segkit.runtime.conversion import paint_instances, segment_classes
from segkit.runtime.drawing import MIN_SCORE
from segkit.runtime.folder import MASKS, SAVED
from segkit.runtime.image_inputs import find_root
from segkit.runtime.image_model import OUTPUTS, ImageModel
from segkit.runtime.prediction import JSON, OVERLAYS
from segkit.runtime.records import OTHER
from segkit.runtime.run_description import describe_run
from segkit.runtime.selection import find_category_ids, select_segments
from segkit.runtime.tracking import MAX_GAP, MIN_IOU, SegmentTracker
from segkit.runtime.video_prediction import predict_video
from segkit.structures import PanopticSegmentation
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.files import convert_write_errors
from segkit.utils.progress import track

RECORDS = "videos.jsonl"
Segmenter = Callable[[NDArray[np.uint8]], PanopticSegmentation]


class VideoJob:
    """Videos and the folder of their results, checked before the model is loaded.

    `run` writes overlays/*.mp4, pan_pred/<video>/*.png and pred.json (VIPSeg's format). An object has one id in all
    frames of its video, see `SegmentTracker`. A video has a line in videos.jsonl when its files are complete; if the
    process is ended, an equal job goes on with the others, and does the video that was cut off from its start.

    Args:
        description: what describes the model, see `ImageModel.description`.
        videos: video files; their stems are the ids, if two are equal with the folders below the one that all share.
        output: folder to write to.
        drawing: keyword arguments of `draw_panoptic`: alpha, names, scores.
        min_score: things of a lower score are left out, [0, 1]; None: none.
        classes: names of the classes that are written; empty: all.
        save: what is written, "overlays", "masks", "json"; masks and JSON belong together.
        min_iou: of `SegmentTracker`.
        max_gap: of `SegmentTracker`, in frames.
        overwrite: results of another run in the folder are replaced.

    Raises:
        ConfigError: `save` has masks or JSON alone.
        DatasetError: the folder has results of another run, or cannot be read.
        ValueError: an option of the tracker is outside its range.
    """

    def __init__(
        self,
        description: Mapping[str, Any],
        videos: Sequence[str | Path],
        output: str | Path,
        drawing: Mapping[str, Any] | None = None,
        *,
        min_score: float | None = None,
        classes: Collection[str] = (),
        save: Collection[str] = SAVED,
        min_iou: float = MIN_IOU,
        max_gap: int = MAX_GAP,
        overwrite: bool = False,
    ) -> None:
        if (MASKS in save) != (JSON in save):
            problem = "the masks and the JSON of videos belong together"
            raise ConfigError(problem, where="--save", remedy="give both masks and json, or overlays alone")
        SegmentTracker(min_iou, max_gap)  # checks them
        self.output, self.drawing, self.save = Path(output), dict(drawing or {}), {*save}
        self.min_score, self.classes, self.min_iou, self.max_gap = min_score, sorted({*classes}), min_iou, max_gap
        root = find_root(map(str, videos))
        names = coco.choose_png_names(enumerate(os.path.relpath(video, root) for video in videos))
        self.videos = {Path(names[number]).stem: Path(path) for number, path in enumerate(videos)}
        run = describe_run(
            description,
            [*map(os.path.abspath, self.videos.values())],
            drawing=self.drawing,
            score_threshold=min_score,
            classes=self.classes or None,
            save=sorted(self.save),
            tracker=[min_iou, max_gap],
        )
        self._header = json.dumps(run, sort_keys=True)
        self.done = {} if overwrite else self._read_records()

    def run(self, model: ImageModel, on_broken: Callable[[DatasetError], object] | None = None) -> list[Path]:
        """Predict the videos that have no record.

        Args:
            model: a model with a panoptic map; or with instances, which are painted, by default from a score of 0.5 on;
                or with classes, each of which is a segment.
            on_broken: takes the error of a video that cannot be read or breaks off, and the others go on; None raises
                it. The frames before are written; the video has no record.

        Returns:
            The files and folders that were written.

        Raises:
            ConfigError: the model lacks a class, or PyAV is not installed.
            DatasetError: a video cannot be read, see `on_broken`, or an output cannot be written.
        """
        category_ids = find_category_ids(self.classes, model.categories) if self.classes else None

        output = next(name for name in OUTPUTS if name in model.outputs)
        least = MIN_SCORE if output == "instances" and self.min_score is None else self.min_score or 0.0

        def segment(frame: NDArray[np.uint8]) -> PanopticSegmentation:
            prediction = select_segments(model(frame, outputs=[output]), least, category_ids)
            if prediction.instances is not None:
                return paint_instances(prediction.instances, model.categories)
            if prediction.semantic is not None and prediction.space is not None:
                return segment_classes(prediction.semantic, model.categories, prediction.space)
            assert prediction.panoptic is not None  # it gives the output that it has
            return prediction.panoptic

        has_masks, has_overlays = MASKS in self.save, OVERLAYS in self.save
        with (vipseg.VideoWriter if has_masks else _NoFiles)(self.output, model.categories) as writer:
            if not self.done:
                for name in (RECORDS, vipseg.PRED_JSON):  # of another run
                    (self.output / name).unlink(missing_ok=True)
                self._append(self._header)
            for video_id in track([*self.videos], "predicting videos"):
                if video_id in self.done:
                    writer.restore(video_id, self.done[video_id])
                    continue
                for error in self._predict(video_id, segment, writer):
                    if on_broken is None:
                        raise error
                    on_broken(error)
        files = [vipseg.PRED_JSON, vipseg.PRED_FOLDER] if has_masks else []
        return [self.output / name for name in ([OVERLAYS] * has_overlays + files)]

    def _predict(self, video_id: str, segment: Segmenter, writer: vipseg.VideoWriter) -> list[DatasetError]:
        """Predict a video and record it; its errors, with which it has no record."""
        broken: list[DatasetError] = []
        if MASKS in self.save:  # frames of a run that was ended
            shutil.rmtree(self.output / vipseg.PRED_FOLDER / video_id, ignore_errors=True)
        overlay = self.output / OVERLAYS / f"{video_id}.mp4" if OVERLAYS in self.save else None
        tracker = SegmentTracker(self.min_iou, self.max_gap)
        options: dict[str, Any] = {"tracker": tracker, "drawing": self.drawing, "on_broken": broken.append}
        try:
            predict_video(self.videos[video_id], segment, writer, video_id, overlay, **options)
        except DatasetError as error:
            broken.append(error)
        if not broken:
            self._append(json.dumps({"video_id": video_id, "frames": writer.get_frames(video_id)}))
        return broken

    def _append(self, line: str) -> None:
        path = self.output / RECORDS
        with convert_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    def _read_records(self) -> dict[str, list[Any]]:
        """The frames of the finished videos by video_id; DatasetError if the folder has those of another run."""
        path = self.output / RECORDS
        if not path.is_file():
            if os.path.lexists(self.output / vipseg.PRED_JSON):
                problem = f"the folder has {vipseg.PRED_JSON}, but no {RECORDS} that says of which run"
                raise DatasetError(problem, where=self.output, remedy=OTHER)
            return {}
        with convert_write_errors(path):
            text = path.read_text(encoding="utf-8")
        header, *lines = text.splitlines(keepends=True) or [""]
        if header.strip() != self._header:
            raise DatasetError("the folder has videos of another run", where=self.output, remedy=OTHER)
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) < len(lines):  # the process was killed while it wrote this line
            with convert_write_errors(path):
                path.write_text("".join([header, *whole]), encoding="utf-8")
        records = [json.loads(line) for line in whole]
        return {record["video_id"]: record["frames"] for record in records if record["video_id"] in self.videos}


class _NoFiles(vipseg.VideoWriter):
    """Writes nothing, if overlays alone are wanted."""

    def add(self, video_id: Any, name: str, segmentation: PanopticSegmentation) -> None:
        """Write nothing."""

    def finish(self) -> None:
        """Write nothing."""
