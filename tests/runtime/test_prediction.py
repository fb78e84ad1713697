"""Prediction: segments, other forms, files, drawings."""

from __future__ import annotations

import io
import json
import pickle
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.formats import coco, png
from segkit.runtime.prediction import Prediction
from segkit.structures import Category, CategorySet, InstanceMasks, PanopticSegmentation, Segment, rle_to_mask
from segkit.utils.errors import DatasetError

CAT, DOG, SKY = 3, 7, 5
CATEGORIES = CategorySet(
    [
        Category(CAT, "cat", True, (200, 30, 30)),
        Category(SKY, "sky", False, (30, 30, 220)),
        Category(DOG, "dög", True, (30, 200, 30)),
    ]
)
IDS = np.array([[1, 1, 9, 9], [1, 0, 9, 9], [2, 2, 2, 9]], dtype=np.int32)
SEGMENTS = (Segment(1, CAT, True, 3, score=0.75), Segment(2, DOG, True, 3, score=0.5), Segment(9, SKY, False, 5))
SIZE = 3, 4


def build_instances() -> InstanceMasks:
    """A cat of 2 x 2, a better dog over its right half and the column beside it, and one without a pixel."""
    masks = np.zeros((3, *SIZE), dtype=np.bool_)
    masks[0, :2, :2], masks[1, :2, 1:3] = True, True
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3.5, 2], [0, 0, 1, 1]], dtype=np.float32)
    return InstanceMasks.from_full(masks, boxes, np.array([0.5, 0.75, 0.25], np.float32), np.array([0, 1, 0]))


def build_panoptic(**values: Any) -> Prediction:
    return Prediction(SIZE, CATEGORIES, PanopticSegmentation(IDS, SEGMENTS), build_instances(), **values)


def build_semantic() -> Prediction:
    space = CATEGORIES.build_semantic_space("one")  # things, sky
    return Prediction(SIZE, CATEGORIES, semantic=(IDS > 1).astype(np.uint8), space=space)


def test_segments_of_a_panoptic_map() -> None:
    prediction = build_panoptic()
    np.testing.assert_array_equal(prediction.segment_ids, IDS)
    cat, dog, sky = prediction.segments
    assert (cat.segment_id, cat.category_id, cat.name, cat.isthing, cat.score) == (1, CAT, "cat", True, 0.75)
    assert (dog.name, sky.name, sky.isthing, sky.score) == ("dög", "sky", False, None)
    assert [segment.area_px for segment in prediction.segments] == [3, 3, 5]
    assert [segment.box_xywh for segment in prediction.segments] == [(0, 0, 2, 2), (0, 2, 3, 1), (2, 0, 2, 3)]
    np.testing.assert_array_equal(cat.mask, [[True, True], [True, False]])
    ((outline,),) = dog.polygons
    assert {*map(tuple, outline.tolist())} == {(0, 2), (3, 2), (3, 3), (0, 3)}
    assert repr(prediction) == "Prediction(3 x 4, 3 segments: cat, dög, sky)"
    assert repr(cat) == "PredictedSegment(1, 'cat', score 0.75, 3 px, box (0, 0, 2, 2))"


def test_segments_of_instances_are_whole_and_the_map_shows_the_best() -> None:
    prediction = Prediction(SIZE, CATEGORIES, instances=build_instances())
    dog, cat = prediction.segments
    assert (dog.segment_id, dog.name, dog.area_px, dog.box_xywh) == (2, "dög", 4, (1, 0, 2, 2))
    assert (cat.segment_id, cat.name, cat.area_px, cat.box_xywh) == (1, "cat", 4, (0, 0, 2, 2))
    np.testing.assert_array_equal(prediction.segment_ids, [[1, 2, 2, 0], [1, 2, 2, 0], [0, 0, 0, 0]])


def test_segments_of_classes() -> None:
    prediction = build_semantic()
    (sky,) = prediction.segments  # the channel of all things is no class
    assert (sky.segment_id, sky.name, sky.area_px) == (2, "sky", 8)
    assert prediction.class_names == ("things", "sky")
    assert {*np.unique(prediction.segment_ids)} == {0, 2}


def test_coco_entries() -> None:
    content = build_panoptic(file_name="a/b.jpg").to_coco("x")
    assert content["image"] == {"id": "x", "file_name": "a/b.jpg", "height": 3, "width": 4}
    first, second, empty = content["instances"]
    assert (first["category_id"], second["category_id"], second["score"]) == (CAT, DOG, 0.75)
    assert second["bbox"] == [1, 0, 2.5, 2]  # that of the box head
    np.testing.assert_array_equal(rle_to_mask(first["segmentation"]), build_instances().to_full()[0])
    assert not rle_to_mask(empty["segmentation"]).any()
    assert (content["panoptic"]["image_id"], content["panoptic"]["file_name"]) == ("x", "b.png")
    assert [info["id"] for info in content["panoptic"]["segments_info"]] == [1, 2, 9]
    assert [category["name"] for category in content["categories"]] == ["cat", "sky", "dög"]
    assert build_semantic().to_coco().keys() == {"image", "categories"}
    json.dumps(content)


def test_supervision_is_given_all_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        import supervision
    except ImportError:
        supervision = SimpleNamespace(Detections=SimpleNamespace)
        monkeypatch.setitem(sys.modules, "supervision", supervision)
    detections = build_panoptic().to_supervision()
    assert isinstance(detections, supervision.Detections)
    np.testing.assert_array_equal(detections.xyxy, [[0, 0, 2, 2], [0, 2, 3, 3], [2, 0, 4, 3]])
    np.testing.assert_array_equal(detections.mask, [IDS == 1, IDS == 2, IDS == 9])
    np.testing.assert_array_equal(detections.confidence, [0.75, 0.5, np.nan])
    np.testing.assert_array_equal(detections.class_id, [CAT, DOG, SKY])
    assert [*detections.data["class_name"]] == ["cat", "dög", "sky"]
    empty = Prediction(SIZE, CATEGORIES).to_supervision()
    assert (empty.xyxy.shape, empty.mask.shape) == ((0, 4), (0, *SIZE))


def test_without_supervision_one_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r"^to_supervision needs the package supervision: pip install supervision$"):
        build_panoptic().to_supervision()


def test_saved_files_are_read_back(tmp_path: Path) -> None:
    written = build_panoptic(file_name="in/ä b.jpg").save(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "overlays/ä b.png",
        "panoptic/ä b.png",
        "json/ä b.json",
    ]
    content = json.loads(written[-1].read_text(encoding="utf-8"))
    infos = content["panoptic"]["segments_info"]
    path = tmp_path / "panoptic" / content["panoptic"]["file_name"]
    np.testing.assert_array_equal(coco.read_segmentation(path, infos, CATEGORIES, SIZE).segment_ids, IDS)
    overlay, labels, described = build_semantic().save(tmp_path, "other")
    np.testing.assert_array_equal(png.read_labels(labels), IDS > 1)
    assert json.loads(described.read_text())["classes"] == ["things", "sky"]
    assert Image.open(overlay).size == (4, 3)
    for name in ("", "..", "a/b", "a\\b"):
        with pytest.raises(DatasetError, match="expected the name of a file"):
            build_semantic().save(tmp_path, name)
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="cannot be written"):
        build_semantic().save(tmp_path / "file")


@pytest.mark.parametrize("build", [build_panoptic, build_semantic, partial(Prediction, SIZE, CATEGORIES)])
def test_drawings_and_notebooks(build: Any) -> None:
    prediction = build()
    plain, faint, listed = (prediction.plot(**options) for options in ({}, {"alpha": 0}, {"legend": True}))
    assert plain.size == faint.size == (4, 3)
    has_segments = bool(prediction.segments)
    assert (np.asarray(plain) != np.asarray(faint)).any() == has_segments
    assert (listed.width > 4) == has_segments
    shown = Image.open(io.BytesIO(prediction._repr_png_()))
    assert shown.size == listed.size
    copy = pickle.loads(pickle.dumps(prediction))
    np.testing.assert_array_equal(copy.segment_ids, prediction.segment_ids)


def test_the_legend_names_what_is_drawn_in_its_colours() -> None:
    """The colours of the classes stand beside the image, one below the other; a score below 0.5 is not drawn."""
    colors = [{*map(tuple, np.asarray(p.plot(legend=True))[:, 4:].reshape(-1, 3).tolist())} for p in legends()]
    cat, dog, sky = (c.color for c in (CATEGORIES[CAT], CATEGORIES[DOG], CATEGORIES[SKY]))
    assert colors[0] >= {cat, dog, sky}
    assert colors[1] >= {cat, dog}
    assert sky not in colors[1]
    assert colors[2] >= {sky}
    assert not colors[2] & {cat, dog}


def legends() -> list[Prediction]:
    return [build_panoptic(), Prediction(SIZE, CATEGORIES, instances=build_instances()), build_semantic()]


def test_an_empty_prediction_works_everywhere(tmp_path: Path) -> None:
    no_masks = np.zeros((0, *SIZE), dtype=np.bool_)
    nothing = np.zeros(0, np.float32)
    instances = InstanceMasks.from_full(no_masks, nothing.reshape(0, 4), nothing, np.zeros(0, np.int64))
    panoptic = PanopticSegmentation(np.zeros(SIZE, dtype=np.int32), ())
    prediction = Prediction(SIZE, CATEGORIES, panoptic, instances, file_name="x.png")
    assert prediction.segments == ()
    assert not prediction.segment_ids.any()
    content = prediction.to_coco()
    assert content["instances"] == content["panoptic"]["segments_info"] == []
    assert len(prediction.save(tmp_path)) == 3
    assert repr(prediction) == "Prediction('x.png', 3 x 4, 0 segments)"
    assert prediction.plot(legend=True).size == (4, 3)


def test_an_image_is_read_when_it_is_drawn() -> None:
    reads: list[int] = []

    def load_image() -> Any:
        reads.append(1)
        return np.full((*SIZE, 3), 99, np.uint8)

    prediction = build_panoptic(load_image=load_image)
    assert prediction.segments
    assert not reads
    assert np.asarray(prediction.plot())[1, 1].tolist() == [99, 99, 99]  # void
    prediction.plot()
    assert len(reads) == 1
    wrong = build_panoptic(load_image=lambda: np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="must have the image's shape"):
        wrong.plot()
