"""Video files: frames in, one at a time, and frames out, with PyAV (the extra `video`)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats.pixel_limit import check_pixels
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.file_names import explain_missing
from segkit.utils.files import replacing

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")
DEFAULT_FPS = Fraction(25)  # of a file that does not say it
MAX_DENOMINATOR = 1001  # of frames a second: 30000/1001 is NTSC's
H264, MPEG4 = "libx264", "mpeg4"  # encoders; the second is in every build of FFmpeg
H264_OPTIONS = {"preset": "veryfast", "crf": "20"}
SLACK_SECONDS = 1  # between the last frame and the duration that a file states
BREAKS_OFF = "fetch or record it again"

OnBroken = Callable[[DatasetError], object]


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says about itself.

    Attributes:
        fps: Frames a second, on average.
        frames: Number of frames; None if the file does not say it.
    """

    fps: Fraction
    frames: int | None


def is_video(path: str | Path) -> bool:
    """Whether a file is a video, by the suffix of its name.

    Args:
        path: The file.

    Returns:
        Whether it is one of `VIDEO_SUFFIXES`.
    """
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def check_video_extra() -> None:
    """Check that videos can be read.

    Raises:
        ConfigError: PyAV is not installed.
    """
    _import_av()


def read_info(path: str | Path) -> VideoInfo:
    """Read frame rate and number of frames; nothing is decoded.

    Args:
        path: The video file.

    Returns:
        What the file says.

    Raises:
        ConfigError: PyAV is not installed.
        DatasetError: The file is missing or no video.
    """
    with _open(Path(path)) as container:
        stream = container.streams.video[0]
        return VideoInfo(_get_fps(stream), stream.frames or None)


def read_frames(path: str | Path, on_broken: OnBroken | None = None) -> Iterator[NDArray[np.uint8]]:
    """Decode a video frame by frame, turned as its metadata says. One frame is in memory.

    Args:
        path: The video file; its first video stream is read.
        on_broken: Takes, after the last frame that can be decoded, the error of a video that breaks off or has damaged
            parts; None raises the error there.

    Yields:
        (H, W, 3) uint8 RGB, all of the size of the first.

    Raises:
        ConfigError: PyAV is not installed.
        DatasetError: The file is missing, is no video, has no frame that can be decoded or too many pixels, or breaks
            off and `on_broken` is None.
    """
    path, av = Path(path), _import_av()
    decoded, packets, damaged = 0, 0, 0
    problem, size_wh, seconds = "", None, Fraction(0)
    with _open(path) as container:
        stream = container.streams.video[0]
        try:
            for packet in container.demux(stream):
                packets += packet.size > 0
                try:
                    frames = packet.decode()
                except (av.FFmpegError, EOFError) as error:
                    damaged, problem = damaged + 1, problem or _describe(error)
                    continue
                for frame in frames:
                    if size_wh is None:
                        check_pixels((frame.height, frame.width), path)
                        size_wh = frame.width, frame.height
                    decoded += 1
                    seconds = Fraction(frame.pts) * frame.time_base if frame.pts is not None else seconds
                    rgb = frame.to_ndarray(format="rgb24", width=size_wh[0], height=size_wh[1])
                    yield np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))
        except (av.FFmpegError, OSError) as error:
            damaged, problem = damaged + 1, problem or _describe(error)
        stated = _describe_stated_length(container, stream, packets, seconds)
    if not decoded:
        reason = f": {problem}" if problem else ""
        raise DatasetError(f"no frame of the video can be decoded{reason}", where=path, remedy=BREAKS_OFF)
    if damaged or stated:
        parts = [f"{damaged} damaged parts ({problem})"] if damaged else []
        problem = (
            f"the video breaks off or is damaged: {' and '.join([*parts, *stated])}; {decoded} frames were decoded"
        )
        broken = DatasetError(problem, where=path, remedy=BREAKS_OFF)
        if on_broken is None:
            raise broken
        on_broken(broken)


class VideoFileWriter:
    """Writes frames as an MP4 (H.264, or MPEG-4 where the encoder is missing), whole or not at all, in a `with` block.

    Args:
        path: The file.
        fps: Frames a second.
    """

    def __init__(self, path: str | Path, fps: Fraction = DEFAULT_FPS) -> None:
        self.path = Path(path)
        self.fps = fps.limit_denominator(MAX_DENOMINATOR)
        self._av = _import_av()
        self._stack = ExitStack()
        self._temporary = self.path
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> VideoFileWriter:
        """Start a temporary file beside the path."""
        self._temporary = self._stack.enter_context(replacing(self.path))
        return self

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Encode a frame.

        Args:
            frame: (H, W, 3) uint8 RGB, of the size of the first. The video repeats the last row or column of odd sizes.

        Raises:
            ValueError: The frame has another shape or dtype.
        """
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
            raise ValueError(f"frame must be (H, W, 3) uint8, not empty, got {frame.shape} {frame.dtype}")
        height, width = frame.shape[0] + frame.shape[0] % 2, frame.shape[1] + frame.shape[1] % 2
        if self._stream is None:
            self._open_stream(height, width)
        elif (height, width) != (self._stream.height, self._stream.width):
            raise ValueError(f"frame must have the size of the first, {self._stream.height} x {self._stream.width}")
        even = np.pad(frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)), mode="edge")
        self._mux(self._av.VideoFrame.from_ndarray(even, format="rgb24"))

    def __exit__(self, *exception: Any) -> None:
        """Finish the file; after an exception there is none."""
        try:
            if exception[0] is None:
                self._finish()
        except BaseException:
            exception = sys.exc_info()
            raise
        finally:
            if self._container is not None:
                self._container.close()
            self._stack.__exit__(*exception)

    def _finish(self) -> None:
        if self._stream is None:
            raise ValueError("a video needs at least one frame")
        self._mux(None)

    def _open_stream(self, height: int, width: int) -> None:
        self._container = self._av.open(str(self._temporary), "w", format="mp4")
        codec = H264 if H264 in self._av.codecs_available else MPEG4
        self._stream = self._container.add_stream(codec, rate=self.fps)
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"
        if codec == H264:
            self._stream.options = dict(H264_OPTIONS)

    def _mux(self, frame: Any) -> None:
        """Write the packets of a frame; of None, those that the encoder still holds."""
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        problem = "videos need PyAV, which is not installed"
        raise ConfigError(problem, remedy="pip install 'segkit[video]'") from None
    return av


def _open(path: Path) -> Any:
    """The opened container; DatasetError if the file is missing or no video."""
    av = _import_av()
    if not path.is_file():  # PyAV would take it for an address
        problem = f"expected a video file, found nothing{explain_missing(path)}"
        raise DatasetError(problem, where=path, remedy="check the path")
    try:
        container = av.open(str(path.resolve()))
    except (av.FFmpegError, OSError) as error:
        problem = f"expected a video, the file cannot be opened as one: {_describe(error)}"
        raise DatasetError(problem, where=path, remedy=BREAKS_OFF) from None
    if not container.streams.video:
        container.close()
        raise DatasetError("expected a video, got a file without a video stream", where=path)
    return container


def _get_fps(stream: Any) -> Fraction:
    rate = stream.average_rate or stream.guessed_rate
    return Fraction(rate) if rate else DEFAULT_FPS


def _describe_stated_length(container: Any, stream: Any, packets: int, seconds: Fraction) -> list[str]:
    """What the file states beyond its last frame; nothing if all is there, or it states nothing."""
    if stream.frames:
        return [f"the file states {stream.frames} frames and has {packets}"] if packets < stream.frames else []
    if len(container.streams) > 1 or not container.duration:  # of several streams another one may be longer
        return []
    stated = container.duration / 1_000_000  # microseconds
    is_short = seconds + 1 / _get_fps(stream) + SLACK_SECONDS < stated
    return [f"the file states {stated:.1f} seconds and ends at {float(seconds):.1f}"] if is_short else []


def _describe(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
