"""Videos through a stand-in for a model: names of outputs, broken videos."""

from fractions import Fraction

import numpy as np
import pytest

from segkit.formats import vipseg
from segkit.runtime import video
from segkit.runtime.prediction import Prediction
from segkit.runtime.video_folder import predict_videos
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers.panoptic_scenes import CAR, CATEGORIES, panoptic

try:
    import av
except ImportError:
    av = None
needs_av = pytest.mark.skipif(av is None, reason="PyAV (the extra video) is not installed: no video can be encoded")


class Model:
    """Says that the whole frame is a car."""

    categories = CATEGORIES

    def __call__(self, frame, outputs):
        assert (frame.shape, frame.dtype) == ((16, 16, 3), np.uint8)
        assert outputs == ("panoptic",)
        size_hw = frame.shape[:2]
        return Prediction(size_hw, CATEGORIES, panoptic=panoptic(np.full(size_hw, 7), s7=CAR))


def write(path):
    with video.VideoFileWriter(path, Fraction(5)) as writer:
        writer.add(np.full((16, 16, 3), 100, np.uint8))
    return path


@needs_av
def test_equal_stems_get_their_own_outputs_and_broken_videos_are_reported(tmp_path):
    clips = [write(tmp_path / "a" / "clip.mp4"), write(tmp_path / "b" / "clip.mp4"), tmp_path / "text.mp4"]
    clips[2].write_text("no video")
    errors = []
    written = predict_videos(Model(), clips, tmp_path / "out", on_broken=errors.append)
    assert [path.name for path in written] == ["overlays", "pred.json", "pan_pred"]
    videos = vipseg.read_videos(tmp_path / "out" / "pred.json").videos
    assert len(videos) == 2
    assert {path.stem for path in (tmp_path / "out" / "overlays").iterdir()} == {*videos}
    assert {path.name for path in (tmp_path / "out" / "pan_pred").iterdir()} == {*videos}
    assert [info["id"] for frames in videos.values() for info in frames[0].segments_info] == [1, 1]
    assert len(errors) == 1
    with pytest.raises(DatasetError, match=r"text.mp4: expected a video"):
        predict_videos(Model(), clips[2:], tmp_path / "other")


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ConfigError, match=r"pip install 'segkit\[video\]'"):
        predict_videos(Model(), [tmp_path / "clip.mp4"], tmp_path / "out")
