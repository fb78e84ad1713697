"""A video in, overlays and VIPSeg's files out."""

from fractions import Fraction

import numpy as np
import pytest

from segkit.formats import vipseg
from segkit.report import draw_panoptic
from segkit.report.palette import choose_nth_color
from segkit.runtime import video
from segkit.runtime.video_prediction import predict_video
from segkit.structures import PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames
from tests.helpers.panoptic_scenes import CAR, CATEGORIES, panoptic

try:
    import av
except ImportError:
    av = None
needs_av = pytest.mark.skipif(av is None, reason="PyAV (the extra video) is not installed: no video can be encoded")


def segment_bright(frame):
    """One car where the frame is bright; its id changes from frame to frame, as a model's may."""
    mask = frame.mean(axis=2) > 128
    segment_id = 1 + int(mask[0].argmax()) % 3
    ids = np.where(mask, segment_id, 0).astype(np.int32)
    return PanopticSegmentation(ids, (Segment(segment_id, CAR, True, int(mask.sum())),))


def moving_square(path, frames=4):
    with video.VideoFileWriter(path, Fraction(10)) as writer:
        for step in range(frames):
            frame = np.zeros((32, 48, 3), np.uint8)
            frame[:, 4 * step : 4 * step + 20] = 255
            writer.add(frame)
    return path


@needs_av
def test_ids_persist_and_overlays_are_a_video(tmp_path):
    source, done = moving_square(tmp_path / "in.mp4"), []
    with vipseg.VideoWriter(tmp_path / "out", CATEGORIES) as writer:
        overlay = tmp_path / "out" / "overlays" / "in.mp4"
        frames = predict_video(source, segment_bright, writer, "in", overlay, progress=lambda *p: done.append(p))
    assert frames == 4
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    read = vipseg.read_videos(tmp_path / "out" / "pred.json").videos["in"]
    assert [frame.png_name for frame in read] == [f"in/{number:08d}.png" for number in range(4)]
    assert [[info["id"] for info in frame.segments_info] for frame in read] == [[1]] * 4
    last = vipseg.read_frame(FolderNames(tmp_path / "out" / "pan_pred"), read[-1], CATEGORIES)
    assert last.segment_ids[16, 10:14].tolist() == [0, 0, 1, 1]
    drawn = [*video.read_frames(overlay)]
    assert [frame.shape for frame in drawn] == [(32, 48, 3)] * 4
    assert drawn[0][16, 40].max() < 20, "no segment, black as the frame"


@needs_av
def test_a_broken_video_keeps_its_frames(tmp_path):
    source = tmp_path / "in.avi"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 32, "yuv420p"
        rng = np.random.default_rng(0)
        for _ in range(60):
            pixels = rng.integers(120, 255, (16, 32, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 3 // 4])
    errors = []
    with vipseg.VideoWriter(tmp_path / "out", CATEGORIES) as writer:
        frames = predict_video(source, segment_bright, writer, "in", on_broken=errors.append)
    assert len(errors) == 1
    assert len(vipseg.read_videos(tmp_path / "out" / "pred.json").videos["in"]) == frames > 0
    overlay = tmp_path / "overlay.mp4"
    with pytest.raises(DatasetError, match="breaks off"):
        predict_video(source, segment_bright, vipseg.VideoWriter(tmp_path / "b", CATEGORIES), "in", overlay)
    assert not overlay.exists()


def test_segments_are_drawn_in_given_colors():
    """Without PyAV too: what keeps the colour of an object in all frames."""
    image = np.zeros((20, 20, 3), np.uint8)
    segmentation = panoptic(np.ones((20, 20), np.int32), s1=CAR)
    drawn = draw_panoptic(image, segmentation, CATEGORIES, segment_colors={1: (200, 100, 50)}, alpha=1.0)
    assert drawn[10, 10].tolist() == [200, 100, 50]
    assert choose_nth_color((10, 20, 30), 0) == (10, 20, 30)
    assert len({choose_nth_color((10, 20, 30), index) for index in range(20)}) == 20
