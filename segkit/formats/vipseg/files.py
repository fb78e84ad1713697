"""VIPSeg's panoptic videos: a JSON of videos and frames, and an RGB PNG of segment ids per frame in a folder per video.

Ground truth is `panoptic_gt_VIPSeg_<split>.json` and `panomasksRGB/<video_id>/*.png`, a prediction `pred.json` and
`pan_pred/<video_id>/*.png`. An object has one id in all frames.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segkit.formats.coco import read_categories, read_segmentation
from segkit.formats.coco.validation import get_category_id, get_file_name, get_segment_id
from segkit.structures import CategorySet, ImageId, PanopticSegmentation
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames
from segkit.utils.issues import IssueHandler, raise_issue, try_read
from segkit.utils.json_fields import Entry

GT_FOLDER, PRED_FOLDER, PRED_JSON = "panomasksRGB", "pan_pred", "pred.json"
IMAGES = "imgs"
UNREADABLE = "annotation-unreadable"


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a panoptic JSON.

    Attributes:
        name: Stem of the frame's files, which is distinct in its video.
        png_name: Path in the folder of PNGs.
        segments_info: `{id, category_id, iscrowd, score}` of each segment; `iscrowd` is 0 if the file lacks it, and
            `score` is missing then.
        file_name: Name of the image in the folder of its video, as the file lists it; it may be that of the PNG.
    """

    name: str
    png_name: str
    segments_info: tuple[Entry, ...]
    file_name: str


@dataclass(frozen=True)
class VideoFile:
    """A valid panoptic JSON of videos.

    Attributes:
        path: The JSON.
        categories: The categories of the dataset.
        videos: The frames of each video in their order, by video_id.
    """

    path: Path
    categories: CategorySet
    videos: dict[ImageId, tuple[VideoFrame, ...]]


@files.no_garbage_collection()
def read_videos(
    json_path: str | Path, categories: CategorySet | None = None, on_issue: IssueHandler = raise_issue
) -> VideoFile:
    """Read and validate a panoptic JSON of videos without opening any PNG.

    Args:
        json_path: The JSON, of ground truth or of predictions.
        categories: The categories of the dataset; None reads those of the file.
        on_issue: Takes the code `annotation-unreadable` and the error of an invalid video, which is then left out.

    Returns:
        The content of the file.

    Raises:
        DatasetError: The file is missing, is not such a JSON, or its categories are invalid.
    """
    path = Path(json_path)
    content = json_fields.load_object(path)
    categories = read_categories(content, path) if categories is None else categories
    names = _read_image_names(content, path)
    videos: dict[ImageId, tuple[VideoFrame, ...]] = {}

    def add(entry: Entry, where: str) -> None:
        if "segments_info" in entry:
            problem = "expected videos, each with its `annotations`, got COCO's panoptic JSON of single images"
            raise DatasetError(problem, where=path, remedy="evaluate single images with `segkit evaluate panoptic`")
        video_id: ImageId = json_fields.get_field(entry, "video_id", json_fields.IMAGE_ID, where)
        check_video_id(video_id, where)
        if video_id in videos:
            raise DatasetError("expected each video once, got it a second time", where=locate(path, video_id))
        table = json_fields.get_table(entry, "annotations", locate(path, video_id))
        videos[video_id] = _read_frames(table, video_id, names.get(video_id, ()), categories.isthing_by_id, path)

    for index, entry in enumerate(json_fields.get_table(content, "annotations", path)):
        try_read(on_issue, UNREADABLE, add, entry, f"{path}, annotation at index {index}")
    return VideoFile(path, categories, videos)


def find_png_folder(json_path: str | Path, folder: str | Path | None, names: Sequence[str], option: str) -> Path:
    """Find the folder of the PNGs of a JSON.

    Args:
        json_path: The JSON.
        folder: The folder that the user names, or None.
        names: Folders that it may be beside the JSON.
        option: The user's option, for the message.

    Returns:
        The folder.

    Raises:
        DatasetError: There is no such folder.
    """
    parent = Path(json_path).parent
    places = [parent / name for name in names] if folder is None else [Path(folder)]
    place = next((place for place in places if place.is_dir()), None)
    if place is None:
        where = " or ".join(map(str, places))
        raise DatasetError("no such folder of PNGs", where=where, remedy=f"name the folder ({option})")
    return place


def read_frame(
    folder: FolderNames, frame: VideoFrame, categories: CategorySet, size_hw: tuple[int, int] | None = None
) -> PanopticSegmentation:
    """Read the segmentation of one frame.

    Args:
        folder: The folder of PNGs.
        frame: The frame.
        categories: The categories of the dataset.
        size_hw: Expected (height, width) in pixels; None accepts any.

    Returns:
        The segments, with category ids of the dataset; areas are counted in the PNG.

    Raises:
        DatasetError: As `segkit.formats.coco.read_segmentation`.
    """
    return read_segmentation(folder.locate(frame.png_name), frame.segments_info, categories, size_hw)


def _read_image_names(content: Entry, path: Path) -> dict[ImageId, list[str]]:
    """The file names of the table `videos`, by video_id; annotations without a `file_name` follow their order."""
    names = {}
    for video in json_fields.get_table(content, "videos", path) if "videos" in content else ():
        video_id = json_fields.get_field(video, "video_id", json_fields.IMAGE_ID, f"{path}, `videos`")
        where = locate(path, video_id)
        images = json_fields.get_table(video, "images", where) if "images" in video else []
        names[video_id] = [get_file_name(image, where) for image in images]
    return names


def _read_frames(
    table: Iterable[Entry], video_id: ImageId, names: Collection[str], category_ids: Collection[int], path: Path
) -> tuple[VideoFrame, ...]:
    """The frames of one video."""
    frames: dict[str, VideoFrame] = {}
    listed = [*names]
    for index, annotation in enumerate(table):
        where = f"{locate(path, video_id)}, frame {index}"
        if "file_name" in annotation or index >= len(listed):
            file_name = get_file_name(annotation, where)
        else:
            file_name = listed[index]
        stem = _get_stem(file_name)
        if stem in frames:
            raise DatasetError(f"expected distinct names of frames, got {stem!r} twice", where=where)
        segments: dict[int, Entry] = {}
        for info in json_fields.get_table(annotation, "segments_info", where):
            here = f"{where}, segment {info.get('id')!r}"
            segment_id = get_segment_id(info, segments, here)
            category_id = get_category_id(info, here, category_ids)
            iscrowd = json_fields.get_flag(info, "iscrowd", here)
            segments[segment_id] = {"id": segment_id, "category_id": category_id, "iscrowd": iscrowd}
            if info.get("score") is not None:
                segments[segment_id]["score"] = json_fields.get_finite(info, "score", here)
        image_name = next((name for name in names if _get_stem(name) == stem), file_name)
        frames[stem] = VideoFrame(stem, f"{video_id}/{stem}.png", tuple(segments.values()), image_name)
    return tuple(frames.values())


def _get_stem(file_name: str) -> str:
    return PurePosixPath(file_name.replace("\\", "/")).stem


def check_video_id(video_id: ImageId, where: object) -> None:
    """Raise DatasetError if the id cannot name a folder."""
    name = json_fields.check_inside(str(video_id), "video_id", where)
    if "/" in name or "\\" in name or name == "." or name != name.strip():
        raise DatasetError(f"expected `video_id` to be the name of a folder, got {name!r}", where=where)


def locate(path: Path, video_id: ImageId) -> str:
    """Name a video in messages."""
    return f"{path}, video {video_id!r}"
