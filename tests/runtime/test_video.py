"""Video files: what is written is read back, damaged files, rotation. PyAV is the extra `video`."""

import struct
import sys
from fractions import Fraction

import numpy as np
import pytest

from segkit.runtime import video
from segkit.utils.errors import ConfigError, DatasetError

try:
    import av
except ImportError:
    av = None
needs_av = pytest.mark.skipif(av is None, reason="PyAV (the extra video) is not installed: no video can be encoded")

GREYS = (20, 80, 140, 200, 240)
ROTATED = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)  # matrix of 90 degrees to the right
UPRIGHT = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def write(path, frames, fps=10):
    with video.VideoFileWriter(path, Fraction(fps)) as writer:
        for frame in frames:
            writer.add(frame)
    return path


def grey_clip(path, size_hw=(16, 32)):
    return write(path, [np.full((*size_hw, 3), grey, np.uint8) for grey in GREYS])


def test_without_pyav_one_line_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    for call in (lambda: [*video.read_frames("clip.mp4")], lambda: video.VideoFileWriter(tmp_path / "clip.mp4")):
        with pytest.raises(
            ConfigError, match=r"videos need PyAV, which is not installed; pip install 'segkit\[video\]'"
        ):
            call()


def test_videos_are_known_by_their_suffix():
    assert video.is_video("a/Clip.MP4")
    assert not video.is_video("a/clip.gif")


@needs_av
def test_written_frames_are_read_back_in_their_order(tmp_path):
    path = grey_clip(tmp_path / "new folder" / "clip é.mp4")
    assert video.read_info(path) == video.VideoInfo(Fraction(10), 5)
    frames = [*video.read_frames(path)]
    assert {(frame.shape, frame.dtype.name) for frame in frames} == {((16, 32, 3), "uint8")}
    assert [float(frame.mean()) for frame in frames] == pytest.approx(GREYS, abs=3)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@needs_av
def test_odd_sizes_are_padded(tmp_path):
    frames = [*video.read_frames(grey_clip(tmp_path / "clip.mp4", (15, 33)))]
    assert frames[0].shape == (16, 34, 3)


@needs_av
def test_frames_are_turned_as_the_metadata_says(tmp_path):
    frame = np.zeros((16, 32, 3), np.uint8)
    frame[:, :16] = 255  # white on the left; turned to the right, on top
    path = write(tmp_path / "clip.mp4", [frame] * 3)
    content = path.read_bytes()
    at = content.index(UPRIGHT, content.index(b"tkhd"))
    path.write_bytes(content[:at] + ROTATED + content[at + len(ROTATED) :])
    turned = next(video.read_frames(path))
    assert turned.shape == (32, 16, 3)
    assert turned[:12].mean() > 240
    assert turned[20:].mean() < 15


def noise_clip(path, fmt, frames=30):
    """Thirty frames that do not compress, so that every part of the file matters."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", format=fmt) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 32, "yuv420p"
        for _ in range(frames):
            pixels = rng.integers(0, 255, (16, 32, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


@needs_av
@pytest.mark.parametrize("fmt", ["avi", "matroska"])
def test_a_video_that_breaks_off_gives_the_frames_before(tmp_path, fmt):
    path = noise_clip(tmp_path / "clip", fmt)
    assert len([*video.read_frames(path)]) == 30
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    errors = []
    frames = [*video.read_frames(path, errors.append)]
    assert 0 < len(frames) < 30
    (error,) = errors
    assert str(error).startswith(f"{path}: the video breaks off or is damaged: ")
    assert f"{len(frames)} frames were decoded; fetch or record it again" in str(error)
    reader = video.read_frames(path)
    for expected in frames:
        assert np.array_equal(next(reader), expected)
    with pytest.raises(DatasetError, match="breaks off"):
        next(reader)


@needs_av
def test_files_that_are_no_videos(tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    half = grey_clip(tmp_path / "half.mp4")
    half.write_bytes(half.read_bytes()[:600])  # the index is at the end
    for path in (text, half):
        with pytest.raises(DatasetError, match=rf"{path.name}: expected a video, the file cannot be opened as one: "):
            [*video.read_frames(path)]
    with pytest.raises(DatasetError, match="expected a video file, found nothing"):
        [*video.read_frames(tmp_path / "none.mp4")]
    with pytest.raises(DatasetError, match="expected a video file, found nothing"):
        [*video.read_frames("http://localhost:9/clip.mp4")]


@needs_av
def test_an_exception_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="frame must"):
        write(tmp_path / "clip.mp4", [np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8)])
    with pytest.raises(ValueError, match="at least one frame"), video.VideoFileWriter(tmp_path / "clip.mp4"):
        pass
    assert not [*tmp_path.iterdir()]
    with video.VideoFileWriter(tmp_path / "clip.mp4") as writer:
        writer.add(np.zeros((16, 16, 3), np.uint8))
        for wrong in (np.zeros((16, 20, 3), np.uint8), np.zeros((16, 16), np.uint8), np.zeros((16, 16, 3))):
            with pytest.raises(ValueError, match="frame must"):
                writer.add(wrong)
    assert len([*video.read_frames(tmp_path / "clip.mp4")]) == 1
