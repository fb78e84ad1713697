"""VIPSeg's panoptic videos, written: a PNG per frame, and a JSON at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from segkit.formats import base, png
from segkit.formats.base import DatasetImage, DatasetWriter, UnfitImageError
from segkit.formats.coco import build_panoptic_annotation
from segkit.formats.image_files import build_image_path
from segkit.formats.vipseg.files import GT_FOLDER, IMAGES, PRED_FOLDER, PRED_JSON, check_video_id, locate
from segkit.structures import CategorySet, ImageId, PanopticSegmentation
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.files import FinishOnExit
from segkit.utils.json_fields import Entry, Location


class VipsegWriter(DatasetWriter):
    """Writes panoptic_gt_VIPSeg_<split>.json, panomasksRGB/VIDEO/FRAME.png and imgs/VIDEO/FRAME.*.

    Images must be named VIDEO/FRAME.*: the folder is the video. Segment ids are kept, since an object has one id, and
    one category, in all frames.

    Args:
        root: Folder to write to.
        categories: Categories of the segmentations.
        split: Name of the split, in the name of the JSON.

    Raises:
        DatasetError: `split` leads out of the folder.
    """

    def __init__(self, root: str | Path, categories: CategorySet, *, split: str = "train") -> None:
        super().__init__(root, categories)
        json_name = f"panoptic_gt_VIPSeg_{split}.json"
        json_fields.check_inside(json_name, "split", root)
        self._writer = VideoWriter(root, categories, json_name, GT_FOLDER)
        self._names: set[str] = set()
        self._category_ids: dict[tuple[str, int], int] = {}  # by video and segment_id

    def image_path(self, image: DatasetImage) -> Path:
        """See base class."""
        return build_image_path(self.root / IMAGES, image)

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """See base class; lost are segments without pixels, masks under others, and keys that segments lack."""
        where = Location(self._writer.json_path, image.image_id)
        json_fields.check_inside(image.file_name, "file_name", where)
        video, _, name = image.file_name.rpartition("/")
        if not video or "/" in video or video != video.strip():
            problem = f"expected a file_name VIDEO/FRAME, got {image.file_name!r}"
            raise UnfitImageError(problem, where=where, remedy="give each video a folder")
        stem = f"{video}/{PurePosixPath(name).stem}"
        if stem in self._names:
            raise UnfitImageError(f"a frame named {stem} was added before", where=where, remedy="rename the image")
        areas_px = base.compute_segment_areas(image, segmentation, self.categories)
        for s in segmentation.segments:
            earlier = self._category_ids.get((video, s.segment_id), s.category_id)
            if earlier != s.category_id:
                problem = f"segment {s.segment_id} has category {s.category_id}, and {earlier} in an earlier frame"
                remedy = "an object needs one id and one category in all frames"
                raise UnfitImageError(problem, where=where, remedy=remedy)
        self._writer.add(video, name, segmentation)
        self._category_ids |= {(video, s.segment_id): s.category_id for s in segmentation.segments}
        self._names.add(stem)
        losses = base.list_empty_segments(segmentation.segments, areas_px)
        return [*losses, *base.list_lost_annotations(annotations, segmentation)]

    def finish(self) -> None:
        """See base class."""
        self._writer.finish()


class VideoWriter(FinishOnExit):
    """Writes videos in VIPSeg's format: each PNG at once, the JSON at the end of the `with` block.

    On an exception no JSON is written. Beside `annotations` the JSON has `videos` and `categories`, as that of the
    ground truth, so that it can be read alone.

    Args:
        root: Folder to write to.
        categories: The categories of the dataset.
        json_name: The JSON in `root`.
        folder: The folder of PNGs in `root`.
    """

    def __init__(
        self, root: str | Path, categories: CategorySet, json_name: str = PRED_JSON, folder: str = PRED_FOLDER
    ) -> None:
        self.root = Path(root)
        self.categories = categories
        self.json_path, self._folder = self.root / json_name, self.root / folder
        self._frames: dict[ImageId, dict[str, tuple[Entry, Entry]]] = {}  # image and annotation by file name

    def add(self, video_id: ImageId, name: str, segmentation: PanopticSegmentation) -> None:
        """Write the PNG of a frame and remember its annotation.

        Args:
            video_id: The video's id, which names a folder.
            name: File name of the frame; the PNG has its stem.
            segmentation: The frame's segments, with category ids of the dataset. An object has one id in all frames.

        Raises:
            DatasetError: The frame was added before, or an id or name leads out of its folder.
            ValueError: A category is unknown, an id of the map has no segment, or a score is not finite.
        """
        where = locate(self.json_path, video_id)
        check_video_id(video_id, where)
        json_fields.check_inside(name, "file_name", where)
        unknown = {s.category_id for s in segmentation.segments if s.category_id not in self.categories}
        if unknown:
            raise ValueError(f"segments must have category ids of the dataset, got {sorted(unknown)}")
        file_name = f"{PurePosixPath(name).stem}.png"
        frames = self._frames.setdefault(video_id, {})
        if file_name in frames:
            raise DatasetError("a frame with this name was added before", where=f"{where}, frame {name!r}")
        annotation = build_panoptic_annotation(PurePosixPath(name).stem, file_name, segmentation)
        png.write_ids(self._folder / str(video_id) / file_name, segmentation.segment_ids)
        height, width = segmentation.segment_ids.shape
        image = {"id": annotation["image_id"], "file_name": file_name, "height": height, "width": width}
        frames[file_name] = image, annotation

    def get_frames(self, video_id: ImageId) -> list[tuple[Entry, Entry]]:
        """Get what the JSON will have of a video.

        Args:
            video_id: The video's id.

        Returns:
            The image and the annotation of each frame that was added, as JSON can hold them.
        """
        return [*self._frames.get(video_id, {}).values()]

    def restore(self, video_id: ImageId, frames: Iterable[Sequence[Entry]]) -> None:
        """Take the frames of a video whose PNGs are written already.

        Args:
            video_id: The video's id.
            frames: See `get_frames`.
        """
        self._frames[video_id] = {image["file_name"]: (image, annotation) for image, annotation in frames}

    def finish(self) -> None:
        """See base class."""
        videos: list[Entry] = []
        annotations: list[Entry] = []
        for video_id, frames in self._frames.items():
            videos.append({"video_id": video_id, "images": [image for image, _ in frames.values()]})
            annotations.append({"video_id": video_id, "annotations": [each for _, each in frames.values()]})
        content = {"videos": videos, "annotations": annotations, "categories": self.categories.to_coco()}
        files.dump_json(self.json_path, content)
