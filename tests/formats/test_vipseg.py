"""VIPSeg's panoptic videos: what is read, what is refused, and that what is written is read back."""

import json

import numpy as np
import pytest
from PIL import Image

from segkit.cli.main import main
from segkit.formats import png, vipseg
from segkit.formats.base import DatasetImage, UnfitImageError
from segkit.formats.detection import detect_format
from segkit.formats.registry import open_reader
from segkit.structures import CategorySet, PanopticSegmentation, Segment
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


def write_tree(root, image_suffix=".jpg"):
    """Two videos in VIPSeg's tree, with images."""
    gt_json, _ = vipseg_tree(root, {"a": CLIP, "b é": CLIP}, {})
    for video in ("a", "b é"):
        for name in CLIP:
            path = root / "VIPSeg/imgs" / video / f"{name}{image_suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 2), (9, 99, 200)).save(path)
    return gt_json


def test_frames_are_the_images_of_a_dataset(tmp_path):
    reader = vipseg.VipsegReader(write_tree(tmp_path))
    assert [image.image_id for image in reader.images] == [f"{v}/{n}" for v in ("a", "b é") for n in CLIP]
    assert {(image.size_hw, image.file_name.endswith(".jpg")) for image in reader.images} == {((2, 4), True)}
    segmentation = reader.read_segmentation(reader.images[5])
    assert segmentation.segment_ids.tolist() == [[1] * 4, [2] * 4]
    assert [(s.category_id, s.isthing, s.area_px) for s in segmentation.segments] == [(CAR, True, 4), (SKY, False, 4)]
    assert reader.read_image(reader.images[5]).shape == (2, 4, 3)


def test_videos_are_converted_checked_and_viewed(tmp_path, capsys):
    gt_json, out = write_tree(tmp_path, ".png"), tmp_path / "out"
    command = ["data", "convert", "--from", "auto", "--json", str(gt_json), "--to", "vipseg"]
    assert main([*command, "--output", str(out)]) == 0
    assert "format: vipseg (panoptic_gt_VIPSeg_val.json)" in capsys.readouterr().out
    detection = detect_format({"root": str(out)})
    assert detection.format_name == "vipseg"
    copy, reader = open_reader("vipseg", detection.options), vipseg.VipsegReader(gt_json)
    assert (copy.images, copy.categories) == (reader.images, reader.categories)
    for image in reader.images:
        given, written = reader.read_segmentation(image), copy.read_segmentation(image)
        assert (written.segment_ids == given.segment_ids).all()
        assert written.segments == given.segments
        assert (copy.read_image(image) == reader.read_image(image)).all()
    copies = ["--pred", str(out / "panoptic_gt_VIPSeg_train.json"), "--pred-folder", str(out / "panomasksRGB")]
    assert main(["evaluate", "video", "--gt", str(gt_json), *copies]) == 0
    dataset = ["--format", "vipseg", "--json", str(gt_json)]
    assert main(["data", "view", *dataset, "--output", str(tmp_path / "view.png")]) == 0
    (tmp_path / "VIPSeg/panomasksRGB/a/00000006.png").unlink()
    png.write(tmp_path / "VIPSeg/panomasksRGB/a/00000007.png", np.full((2, 4, 3), 3, np.uint8))
    assert main(["data", "check", *dataset, "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert "error png-missing (1)" in printed
    assert "the PNG has segment ids that the JSON lacks: 197379" in printed  # 3 + 3 * 256 + 3 * 65536


def test_predictions_keep_their_scores(tmp_path):
    with vipseg.VideoWriter(tmp_path, CATEGORIES) as writer:
        segments = (Segment(7, CAR, True, 2, score=0.25),)
        writer.add("v", "0.png", PanopticSegmentation(np.array([[7, 7, 0]], np.int32), segments))
    reader = vipseg.VipsegReader(tmp_path / "pred.json")
    assert reader.read_segmentation(reader.images[0]).segments == segments
    with pytest.raises(DatasetError, match=r"imgs/v/0\.png"):
        reader.read_image(reader.images[0])


@pytest.mark.parametrize(
    ("name", "category", "message"),
    [
        ("x.png", CAR, "expected a file_name VIDEO/FRAME, got 'x.png'"),
        ("v/w/x.png", CAR, "expected a file_name VIDEO/FRAME, got 'v/w/x.png'"),
        ("v/0.jpg", CAR, "a frame named v/0 was added before"),
        ("v/1.png", DOG, f"segment 300 has category {DOG}, and {CAR} in an earlier frame"),
    ],
)
def test_images_that_are_no_frames_are_left_out(tmp_path, name, category, message):
    with vipseg.VipsegWriter(tmp_path, CATEGORIES) as writer:
        writer.add(DatasetImage(1, "v/0.png", (1, 3)), FRAMES["b/00000005.jpg"])
        with pytest.raises(UnfitImageError, match=message):
            writer.add(DatasetImage(2, name, (1, 3)), panoptic([[300, 300, 0]], s300=category))
    assert [*tmp_path.rglob("*.png")] == [tmp_path / "panomasksRGB/v/0.png"]
