"""VIPSeg's panoptic videos: what is read, what is refused, and that what is written is read back."""

import json

import numpy as np
import pytest
from PIL import Image

from segkit.formats import vipseg
from segkit.structures import CategorySet
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames
from tests.helpers.panoptic_scenes import CAR, CATEGORIES, DOG, SKY, panoptic
from tests.helpers.video_files import CLIP, vipseg_tree, write_videos

FRAMES = {
    "b/00000005.jpg": panoptic([[300, 300, 0]], s300=CAR),
    "b/00000006.jpg": panoptic([[0, 300, 65536]], s300=CAR, s65536=SKY),
}


def test_written_frames_are_read_back(tmp_path):
    with vipseg.VideoWriter(tmp_path, CATEGORIES) as writer:
        for name, frame in FRAMES.items():
            writer.add("clip é 1", name, frame)
    content = vipseg.read_videos(tmp_path / "pred.json")
    assert content.categories == CATEGORIES
    (frames,) = content.videos.values()
    assert [frame.png_name for frame in frames] == ["clip é 1/00000005.png", "clip é 1/00000006.png"]
    folder = FolderNames(tmp_path / "pan_pred")
    for frame, expected in zip(frames, FRAMES.values(), strict=True):
        read = vipseg.read_frame(folder, frame, content.categories)
        assert read.segment_ids.tolist() == expected.segment_ids.tolist()
        assert read.segments == expected.segments


def test_the_json_is_a_submission(tmp_path):
    with vipseg.VideoWriter(tmp_path, CATEGORIES) as writer:
        writer.add("7", "00000006.jpg", FRAMES["b/00000006.jpg"])
    (video,) = json.loads((tmp_path / "pred.json").read_text())["annotations"]
    assert video["video_id"] == "7"
    (frame,) = video["annotations"]
    assert frame["file_name"] == "00000006.png"
    assert [(info["id"], info["category_id"], info["bbox"]) for info in frame["segments_info"]] == [
        (300, CAR, [1, 0, 1, 1]),
        (65536, SKY, [2, 0, 1, 1]),
    ]
    # id = R + 256 G + 65536 B
    assert np.array(Image.open(tmp_path / "pan_pred/7/00000006.png")).tolist() == [[[0, 0, 0], [44, 1, 0], [0, 0, 1]]]


def test_names_of_frames_may_stand_in_the_table_of_videos(tmp_path):
    """As in ground truth whose annotations have no `file_name`; images of it are JPEGs."""
    gt_json, _ = vipseg_tree(tmp_path, {"a": CLIP}, {})
    content = json.loads(gt_json.read_text())
    for annotation in content["annotations"][0]["annotations"]:
        del annotation["file_name"]
    images = [{"id": name, "file_name": f"{name}.jpg", "height": 2, "width": 4} for name in CLIP]
    gt_json.write_text(json.dumps({**content, "videos": [{"video_id": "a", "images": images}]}))
    frames = vipseg.read_videos(gt_json).videos["a"]
    assert [frame.png_name for frame in frames] == [f"a/{name}.png" for name in CLIP]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda video: video.update(video_id="../a"), "annotation at index 0: expected `video_id` to be a path inside"),
        (lambda video: video.update(video_id="a/b"), "expected `video_id` to be the name of a folder, got 'a/b'"),
        (lambda video: video.pop("video_id"), "annotation at index 0: expected `video_id`"),
        (lambda video: video.update(annotations=3), "video 'a': expected `annotations` to be a list, got 3"),
        (lambda video: video["annotations"][1].pop("file_name"), "video 'a', frame 1: expected `file_name`"),
        (
            lambda video: video["annotations"][1].update(file_name="00000005.jpg"),
            "distinct names of frames, got '00000",
        ),
        (
            lambda video: video["annotations"][0]["segments_info"][0].update(category_id=5),
            "video 'a', frame 0, segment 1: expected",
        ),
        (lambda video: video["annotations"][0]["segments_info"][0].update(id=2), "frame 0, segment 2: expected"),
        (lambda video: video.update(segments_info=[]), "COCO's panoptic JSON of single images; evaluate single images"),
    ],
)
def test_invalid_videos(tmp_path, change, message):
    gt_json, _ = vipseg_tree(tmp_path, {"a": CLIP, "b": CLIP}, {})
    content = json.loads(gt_json.read_text())
    change(content["annotations"][0])
    gt_json.write_text(json.dumps(content))
    with pytest.raises(DatasetError) as error:
        vipseg.read_videos(gt_json)
    assert message in str(error.value)
    issues = []
    assert [*vipseg.read_videos(gt_json, on_issue=lambda code, _: issues.append(code)).videos] == ["b"]
    assert issues == ["annotation-unreadable"]


def test_a_png_that_contradicts_the_json_is_named(tmp_path):
    gt_json = write_videos(
        tmp_path / "gt.json", tmp_path / "pngs", {"a": {"1": ([[1, 2]], {1: CAR})}}, categories=CATEGORIES.to_coco()
    )
    content = vipseg.read_videos(gt_json)
    with pytest.raises(DatasetError, match=r"a/1.png: the PNG has segment ids that the JSON lacks: .*2"):
        vipseg.read_frame(FolderNames(tmp_path / "pngs"), content.videos["a"][0], content.categories)


@pytest.mark.parametrize(
    ("video_id", "name", "message"),
    [
        ("..", "1.png", "path inside its folder"),
        ("a/b", "1.png", "name of a folder"),
        ("a", "../1.png", "path inside its folder"),
        ("a", "0.jpg", "a frame with this name was added before"),
    ],
)
def test_the_writer_refuses_names(tmp_path, video_id, name, message):
    with vipseg.VideoWriter(tmp_path, CATEGORIES) as writer:
        writer.add("a", "0.png", FRAMES["b/00000005.jpg"])
        with pytest.raises(DatasetError, match=message):
            writer.add(video_id, name, FRAMES["b/00000005.jpg"])
    assert len(vipseg.read_videos(tmp_path / "pred.json").videos["a"]) == 1


def test_the_writer_refuses_unknown_categories_and_leaves_no_json_on_errors(tmp_path):
    with (
        pytest.raises(ValueError, match="category ids of the dataset"),
        vipseg.VideoWriter(tmp_path, CategorySet([CATEGORIES[DOG]])) as w,
    ):
        w.add("a", "0.png", FRAMES["b/00000005.jpg"])
    assert not [*tmp_path.iterdir()]
