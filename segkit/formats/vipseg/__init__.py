"""VIPSeg's panoptic videos: a JSON of videos and frames, and a PNG of segment ids per frame in a folder per video."""

from segkit.formats.vipseg.files import (
    GT_FOLDER,
    PRED_FOLDER,
    PRED_JSON,
    VideoFile,
    VideoFrame,
    find_png_folder,
    read_frame,
    read_videos,
)
from segkit.formats.vipseg.reader import VipsegReader
from segkit.formats.vipseg.writers import VideoWriter, VipsegWriter

__all__ = [
    "GT_FOLDER",
    "PRED_FOLDER",
    "PRED_JSON",
    "VideoFile",
    "VideoFrame",
    "VideoWriter",
    "VipsegReader",
    "VipsegWriter",
    "find_png_folder",
    "read_frame",
    "read_videos",
]
