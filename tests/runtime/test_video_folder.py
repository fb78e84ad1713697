"""Videos through a stand-in for a model: names of outputs, broken videos."""

from fractions import Fraction

import numpy as np
import pytest

from segkit.formats import vipseg
from segkit.runtime import video
from segkit.runtime.prediction import Prediction
from segkit.runtime.video_folder import VideoJob
from segkit.structures import InstanceMasks
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers.panoptic_scenes import CAR, CATEGORIES, panoptic

try:
    import av
except ImportError:
    av = None
needs_av = pytest.mark.skipif(av is None, reason="PyAV (the extra video) is not installed: no video can be encoded")


class Model:
    """Says that the whole frame is a car."""

    categories, outputs = CATEGORIES, ("panoptic", "instances")

    def __call__(self, frame, outputs):
        assert (frame.shape, frame.dtype) == ((16, 16, 3), np.uint8)
        assert outputs == ["panoptic"]
        size_hw = frame.shape[:2]
        return Prediction(size_hw, CATEGORIES, panoptic=panoptic(np.full(size_hw, 7), s7=CAR))


class InstanceModel:
    """Says that a column is a car, and with a low score the next one too."""

    categories, outputs = CATEGORIES, ("instances", "semantic")

    def __call__(self, frame, outputs):
        assert outputs == ["instances"]
        masks = np.zeros((2, 16, 16), bool)
        masks[0, :, 3] = masks[1, :, 4] = True
        car = CATEGORIES.thing_contiguous_ids[CAR]
        scores, boxes = np.array([0.75, 0.25], np.float32), np.zeros((2, 4), np.float32)
        instances = InstanceMasks.from_full(masks, boxes, scores, np.array([car, car]))
        return Prediction((16, 16), CATEGORIES, instances=instances)


class ClassModel:
    """Says that all pixels are of the class of channel 1."""

    categories, outputs = CATEGORIES, ("semantic",)

    def __call__(self, frame, outputs):
        space = CATEGORIES.build_semantic_space("per_class")
        return Prediction((16, 16), CATEGORIES, semantic=np.ones((16, 16), np.uint8), space=space)


class Counting(Model):
    """Counts frames; the process ends in the given one."""

    def __init__(self, ends_in=None):
        self.frames, self.ends_in = 0, ends_in

    def __call__(self, frame, outputs):
        if self.frames == self.ends_in:
            raise KeyboardInterrupt
        self.frames += 1
        return super().__call__(frame, outputs)


def write(path, frames=1):
    with video.VideoFileWriter(path, Fraction(5)) as writer:
        for _ in range(frames):
            writer.add(np.full((16, 16, 3), 100, np.uint8))
    return path


def read_all(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@needs_av
def test_equal_stems_get_their_own_outputs_and_broken_videos_are_reported(tmp_path):
    clips = [write(tmp_path / "a" / "clip.mp4"), write(tmp_path / "b" / "clip.mp4"), tmp_path / "text.mp4"]
    clips[2].write_text("no video")
    errors = []
    written = VideoJob({}, clips, tmp_path / "out").run(Model(), errors.append)
    assert [path.name for path in written] == ["overlays", "pred.json", "pan_pred"]
    videos = vipseg.read_videos(tmp_path / "out" / "pred.json").videos
    assert {*videos} == {"clip", "b_clip"}
    assert {path.stem for path in (tmp_path / "out" / "overlays").iterdir()} == {*videos}
    assert {path.name for path in (tmp_path / "out" / "pan_pred").iterdir()} == {*videos}
    assert [info["id"] for frames in videos.values() for info in frames[0].segments_info] == [1, 1]
    assert len(errors) == 1
    with pytest.raises(DatasetError, match=r"text.mp4: expected a video"):
        VideoJob({}, clips[2:], tmp_path / "other").run(Model())


@needs_av
def test_a_run_that_was_ended_goes_on_with_the_video_that_was_cut_off(tmp_path):
    clips, out = [write(tmp_path / f"{name}.mp4", 3) for name in "abc"], tmp_path / "out"
    VideoJob({}, clips, tmp_path / "whole").run(Model())
    with pytest.raises(KeyboardInterrupt):
        VideoJob({}, clips, out).run(Counting(ends_in=5))  # in the last frame of b
    assert not (out / "pred.json").exists()
    assert [path.name for path in (out / "overlays").iterdir()] == ["a.mp4"]
    assert len([*(out / "pan_pred/b").iterdir()]) == 2
    (out / "pan_pred/b/00000009.png").write_bytes(b"of an earlier version of the video")
    with (out / "videos.jsonl").open("a") as file:
        file.write('{"video_id": "b", "fra')  # as if killed in the line
    model = Counting()
    VideoJob({}, clips, out).run(model)
    assert model.frames == 6  # b and c
    names = {path for path in read_all(out) if path.suffix != ".mp4"}
    assert {path: read_all(out)[path] for path in names} == {path: read_all(tmp_path / "whole")[path] for path in names}
    assert {*read_all(out)} == {*read_all(tmp_path / "whole")}
    VideoJob({}, clips, out).run(model)
    assert model.frames == 6


@needs_av
@pytest.mark.parametrize("options", [{"max_gap": 9}, {"min_score": 0.5}, {"save": ["masks", "json"]}])
def test_another_run_in_the_folder_is_refused_or_replaced(tmp_path, options):
    clip, out = write(tmp_path / "a.mp4"), tmp_path / "out"
    VideoJob({}, [clip], out).run(Model())
    with pytest.raises(DatasetError, match=r"videos of another run; name another output folder, or give --overwrite"):
        VideoJob({}, [clip], out, **options)
    model = Counting()
    VideoJob({}, [clip], out, overwrite=True, **options).run(model)
    assert model.frames == 1
    (out / "videos.jsonl").unlink()
    with pytest.raises(DatasetError, match=r"the folder has pred\.json, but no videos\.jsonl"):
        VideoJob({}, [clip], out)


@needs_av
@pytest.mark.parametrize(
    ("model", "options", "segments"),
    [(InstanceModel, {}, 1), (InstanceModel, {"min_score": 0.0}, 2), (ClassModel, {}, 1)],
)
def test_models_without_a_panoptic_map_predict_videos(model, options, segments, tmp_path):
    VideoJob({}, [write(tmp_path / "a.mp4")], tmp_path / "out", **options).run(model())
    videos = vipseg.read_videos(tmp_path / "out" / "pred.json").videos
    assert len(videos["a"][0].segments_info) == segments


@needs_av
def test_what_is_saved(tmp_path):
    clip = write(tmp_path / "a.mp4")
    VideoJob({}, [clip], tmp_path / "drawn", save=["overlays"]).run(Model())
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"overlays", "videos.jsonl"}
    VideoJob({}, [clip], tmp_path / "masks", save=["masks", "json"]).run(Model())
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {"pan_pred", "pred.json", "videos.jsonl"}
    with pytest.raises(ConfigError, match="masks and the JSON of videos belong together; give both masks and json, or"):
        VideoJob({}, [clip], tmp_path / "out", save=["json"])


@needs_av
def test_a_video_that_breaks_off_keeps_its_frames_and_is_tried_again(tmp_path, monkeypatch):
    clips, errors = [write(tmp_path / "a.mp4", 2), write(tmp_path / "b.mp4")], []

    def read_frames(path, on_broken):
        yield np.zeros((16, 16, 3), np.uint8)
        if path.name == "a.mp4":
            on_broken(DatasetError("it breaks off", where=path))

    monkeypatch.setattr("segkit.runtime.video_prediction.read_frames", read_frames)
    for runs in (1, 2):
        model = Counting()
        VideoJob({}, clips, tmp_path / "out").run(model, errors.append)
        videos = vipseg.read_videos(tmp_path / "out/pred.json").videos
        assert {name: len(frames) for name, frames in videos.items()} == {"a": 1, "b": 1}
        assert (len(errors), model.frames) == (runs, 2 if runs == 1 else 1)


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ConfigError, match=r"pip install 'segkit\[video\]'"):
        VideoJob({}, [tmp_path / "clip.mp4"], tmp_path / "out").run(Model())
