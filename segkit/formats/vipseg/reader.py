"""VIPSeg's panoptic videos as a dataset: an image for each frame."""

from __future__ import annotations

from pathlib import Path

from segkit.formats import png
from segkit.formats.base import DatasetImage
from segkit.formats.coco import PanopticPngReader
from segkit.formats.image_io import IMAGE_SUFFIXES
from segkit.formats.vipseg.files import (
    GT_FOLDER,
    IMAGES,
    PRED_FOLDER,
    UNREADABLE,
    VideoFrame,
    find_png_folder,
    read_videos,
)
from segkit.structures import ImageId
from segkit.utils.file_names import FolderNames
from segkit.utils.issues import IssueHandler, raise_issue, report_missing, try_read


class VipsegReader(PanopticPngReader):
    """Reads the frames of videos, ground truth or predictions; an object has one segment_id in all frames of its video.

    The image_id of a frame is VIDEO/FRAME, its file the one of this name in the folder of the images.

    Args:
        json: The JSON, such as panoptic_gt_VIPSeg_val.json or pred.json.
        masks: Folder of the PNGs; None is panomasksRGB, or pan_pred, beside the JSON.
        images: Folder of the images, a folder for each video; None is imgs beside the JSON.
        on_issue: Takes the code and error of an invalid video, and of a frame whose PNG is missing or damaged.

    Raises:
        DatasetError: The JSON is missing or of another kind, or there is no folder of PNGs.
    """

    format = "vipseg"
    marks_void = True

    def __init__(
        self,
        json: str | Path,
        masks: str | Path | None = None,
        images: str | Path | None = None,
        *,
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        file = read_videos(json, on_issue=on_issue)
        folder = find_png_folder(json, masks, (GT_FOLDER, PRED_FOLDER), "--masks")
        super().__init__(file.categories, folder)
        self.root = file.path.parent
        self.image_root = Path(images) if images is not None else self.root / IMAGES
        frames = {f"{video}/{frame.name}": (video, frame) for video, own in file.videos.items() for frame in own}
        paths = {image_id: self.locate_png(frame.png_name) for image_id, (_, frame) in frames.items()}
        remedy = "give the folder of the PNGs (--masks)"
        missing = report_missing(on_issue, "png-missing", "PNG", [*paths.values()], remedy)
        names, found = FolderNames(self.image_root), []
        for image_id, (video, frame) in frames.items():
            path = paths[image_id]
            header = None if path in missing else try_read(on_issue, UNREADABLE, png.read_header, path)
            if header is not None:
                found.append(DatasetImage(image_id, _find_image(names, video, frame), header.size_hw))
                self.records[image_id] = frame
        self.images = tuple(found)


def _find_image(names: FolderNames, video: ImageId, frame: VideoFrame) -> str:
    """The frame's image; JSONs may list the names of its PNGs."""
    listed = [frame.file_name, *(f"{frame.name}{suffix}" for suffix in IMAGE_SUFFIXES)]
    found = (names.find(f"{video}/{name}") for name in listed)
    return next((name for name in found if name), f"{video}/{listed[0]}")
