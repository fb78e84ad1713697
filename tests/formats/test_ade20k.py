from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from segkit.curation.convert import convert, list_lost_extras
from segkit.curation.issues import RULES
from segkit.formats import png
from segkit.formats.ade20k import N_CLASSES, THING_IDS, ADE20KReader, ADE20KWriter
from segkit.formats.base import DatasetImage
from segkit.formats.coco import CocoPanopticWriter
from segkit.formats.voc import VOCWriter
from segkit.structures import PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from tests.helpers.coco_samples import CATEGORIES, files_below, first_image, second_image

# Classes: 1 wall and 3 sky are stuff, 8 bed and 13 person are things; 0 is something else.
CLASSES = np.array([[1, 1, 3, 0], [8, 8, 13, 13], [1, 8, 13, 150]], dtype=np.uint8)
# Instance classes: 1 is the bed (class 8), 4 the person (class 13). Instance 2 occludes the sky. Blue has no meaning.
RED = [[0, 0, 4, 0], [1, 1, 4, 4], [0, 1, 4, 0]]
GREEN = [[0, 0, 2, 0], [1, 1, 2, 9], [0, 1, 0, 0]]
IMAGE = DatasetImage("ADE_val_00000001", "ADE_val_00000001.jpg", (3, 4))


def _rgb(red: object, green: object, blue: int = 7) -> NDArray[np.uint8]:
    return np.stack(np.broadcast_arrays(red, green, blue), axis=-1).astype(np.uint8)


def _write_tree(root: Path, name: str = "ADE_val_00000001", split: str = "validation") -> Path:
    image = root / f"images/{split}/{name}.jpg"
    png.write(image, np.zeros((3, 4, 3), dtype=np.uint8))
    png.write(root / f"annotations/{split}/{name}.png", CLASSES)
    png.write(root / f"annotations_instance/{split}/{name}.png", _rgb(RED, GREEN))
    return root


def test_semantic_maps_are_read(tmp_path: Path) -> None:
    _write_tree(_write_tree(tmp_path), "ADE_val_00000000")
    reader = ADE20KReader(tmp_path, annotations="semantic")
    assert reader.images == (DatasetImage("ADE_val_00000000", "ADE_val_00000000.jpg", (3, 4)), IMAGE)
    assert len(reader.categories) == N_CLASSES
    assert not reader.categories.things
    assert reader.categories[150].name == "class 150"
    segmentation = reader.read_segmentation(IMAGE)
    np.testing.assert_array_equal(segmentation.segment_ids, CLASSES)
    areas = [(s.segment_id, s.category_id, s.isthing, s.area_px) for s in segmentation.segments]
    assert areas == [(1, 1, False, 3), (3, 3, False, 1), (8, 8, False, 3), (13, 13, False, 3), (150, 150, False, 1)]


def test_instances_are_read(tmp_path: Path) -> None:
    reader = ADE20KReader(_write_tree(tmp_path), annotations="instances")
    assert [c.category_id for c in reader.categories.things] == [*THING_IDS]
    segmentation = reader.read_segmentation(IMAGE)
    # 256 + green. The sky is covered; the person without a number and class 150, a thing, are void.
    assert segmentation.segment_ids.tolist() == [[1, 1, 258, 0], [257, 257, 258, 265], [1, 257, 0, 0]]
    assert segmentation.segments == (
        Segment(1, 1, False, 3),
        Segment(257, 8, True, 3),
        Segment(258, 13, True, 2),
        Segment(265, 13, True, 1),
    )
    assert [a["area"] for a in reader.read_annotations(IMAGE)] == [3, 2, 1]


@settings(deadline=None)
@given(st.data())
def test_instances_equal_mask2former(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    root = tmp_path_factory.mktemp("ade")
    size_hw = (3, 4)
    classes = data.draw(hnp.arrays(np.uint8, size_hw, elements=st.sampled_from([0, 1, 3, 8, 13, 149, 150])))
    green = data.draw(hnp.arrays(np.uint8, size_hw, elements=st.sampled_from([0, 1, 2, 255])))
    class_by_instance = np.array([*data.draw(st.lists(st.integers(1, 100), min_size=256, max_size=256))])
    _write_tree(root)
    png.write(root / "annotations/validation/ADE_val_00000001.png", classes)
    png.write(
        root / "annotations_instance/validation/ADE_val_00000001.png",
        _rgb(class_by_instance[green] * (green > 0), green),
    )
    segmentation = ADE20KReader(root, annotations="instances").read_segmentation(IMAGE)
    # prepare_ade20k_pan_seg.py, pixel by pixel: the instance if there is one, else stuff, else void.
    for y, x in np.ndindex(size_hw):
        segment_id = segmentation.segment_ids[y, x]
        category_id = {s.segment_id: s.category_id for s in segmentation.segments}.get(int(segment_id), 0)
        if green[y, x]:
            assert category_id == THING_IDS[class_by_instance[green[y, x]] - 1]
            assert np.array_equal(segmentation.segment_ids == segment_id, green == green[y, x])
        else:
            assert category_id == (0 if classes[y, x] in THING_IDS else classes[y, x])
    assert sorted(s.segment_id for s in segmentation.segments) == sorted(
        {*segmentation.segment_ids.ravel().tolist()} - {0}
    )
    assert all(s.area_px == np.count_nonzero(segmentation.segment_ids == s.segment_id) for s in segmentation.segments)


def test_class_names_are_read_from_the_table(tmp_path: Path) -> None:
    _write_tree(tmp_path)
    head = "Idx\tRatio\tTrain\tVal\tName\n"
    rows = [f"{i}\t0.1576\t11664\t1172\tname {i}, other" for i in range(1, N_CLASSES + 1)]
    table = tmp_path / "objectInfo150.txt"
    table.write_text(head + "\n".join(rows) + "\n")
    assert ADE20KReader(tmp_path, annotations="semantic").categories[9].name == "name 9, other"
    for broken in (rows[:-1], [*rows[:-1], "151\tx"], [*rows[:-1], "9" * 5000 + "\tx"], []):
        table.write_text(head + "\n".join(broken))
        with pytest.raises(DatasetError, match=r"objectInfo150\.txt: expected a header and 150 rows"):
            ADE20KReader(tmp_path, annotations="semantic")


@pytest.mark.parametrize(
    ("red", "green", "message"),
    [
        ([[0, 0, 0, 0]] * 3, [[1, 0, 0, 0]] * 3, r"one class in 1..100 .* got 0 of instance 1"),
        ([[101, 0, 0, 0]] * 3, [[1, 0, 0, 0]] * 3, r"got 101 of instance 1"),
        ([[4, 5, 0, 0]] * 3, [[1, 1, 0, 0]] * 3, r"got 5 of instance 1"),
        ([[4, 5]], [[1, 1]], r"expected 3 x 4 pixels"),
    ],
)
def test_invalid_instance_maps_raise_a_dataset_error(tmp_path: Path, red: object, green: object, message: str) -> None:
    _write_tree(tmp_path)
    png.write(tmp_path / "annotations_instance/validation/ADE_val_00000001.png", _rgb(red, green))
    with pytest.raises(DatasetError, match=rf"annotations_instance.*png: .*{message}"):
        ADE20KReader(tmp_path, annotations="instances").read_segmentation(IMAGE)


def test_invalid_class_maps_and_missing_files_raise_a_dataset_error(tmp_path: Path) -> None:
    reader = ADE20KReader(_write_tree(tmp_path), annotations="semantic")
    path = tmp_path / "annotations/validation/ADE_val_00000001.png"
    png.write(path, np.full((3, 4), 151, dtype=np.uint8))
    with pytest.raises(DatasetError, match=r"expected 3 x 4 classes in 0..150, got .* up to 151"):
        reader.read_segmentation(IMAGE)
    png.write(path, np.zeros((4, 3), dtype=np.uint8))
    with pytest.raises(DatasetError, match=r"expected 3 x 4 classes in 0..150, got \(4, 3\)"):
        reader.read_segmentation(IMAGE)
    path.unlink()
    with pytest.raises(DatasetError, match=r"ADE_val_00000001\.png: the annotation is missing \(1 of 1 are\)"):
        ADE20KReader(tmp_path, annotations="instances")
    with pytest.raises(DatasetError, match=r"training: expected images \*\.jpg, found none"):
        ADE20KReader(tmp_path, "train", annotations="semantic")
    for options in ({"split": "test"}, {"annotations": "rgb"}):
        with pytest.raises(ValueError, match=r"must be one of \(.*\), got '(test|rgb)'"):
            ADE20KReader(tmp_path, **options)  # type: ignore[arg-type]


def _read_with_issues(root: Path, **options: Any) -> tuple[ADE20KReader, list[tuple[str, str]]]:
    """Returns the reader, whose images are all readable, and (code, file) of the reported issues."""
    messages: list[tuple[str, str]] = []
    reader = ADE20KReader(root, on_issue=lambda code, error: messages.append((code, Path(error.where).name)), **options)
    assert {code for code, _ in messages} <= {*RULES}
    for image in reader.images:
        assert reader.read_segmentation(image).segment_ids.shape == reader.read_image(image).shape[:2] == image.size_hw
    return reader, messages


def test_all_issues_of_the_maps_are_reported(tmp_path: Path) -> None:
    for name in "abcde":
        _write_tree(tmp_path, name)
    (tmp_path / "annotations/validation/b.png").unlink()
    (tmp_path / "annotations/validation/c.png").write_bytes(b"torn")
    (tmp_path / "annotations_instance/validation/d.png").unlink()
    (tmp_path / "annotations_instance/validation/b.png").unlink()
    reader, messages = _read_with_issues(tmp_path, annotations="instances")
    assert messages == [
        ("png-missing", "b.png"),
        ("png-missing", "b.png"),
        ("png-missing", "d.png"),
        ("png-unreadable", "c.png"),
    ]
    assert [image.image_id for image in reader.images] == ["a", "e"]
    reader, messages = _read_with_issues(tmp_path, annotations="semantic")
    assert messages == [("png-missing", "b.png"), ("png-unreadable", "c.png")]
    assert [image.image_id for image in reader.images] == ["a", "d", "e"]
    (tmp_path / "images/validation/a.jpg").unlink()
    reader, messages = _read_with_issues(tmp_path, annotations="instances")
    assert messages == [
        ("png-missing", "b.png"),
        ("image-missing", "a.png"),
        ("png-missing", "b.png"),
        ("png-missing", "d.png"),
        ("image-missing", "a.png"),
        ("png-unreadable", "c.png"),
    ]
    assert [image.image_id for image in reader.images] == ["e"]
    shutil.copy(tmp_path / "annotations/validation/e.png", tmp_path / "annotations/validation/b.png")
    with pytest.raises(DatasetError, match=r"a\.png: the annotation has no image \(1 of 5 files\); complete"):
        ADE20KReader(tmp_path, annotations="semantic")
    shutil.rmtree(tmp_path / "annotations")
    reader, messages = _read_with_issues(tmp_path, annotations="semantic")
    assert (reader.images, len(messages)) == ((), 4)
    with pytest.raises(DatasetError, match=r"expected images \*\.jpg, found none"):
        ADE20KReader(tmp_path / ("x" * 5000), annotations="semantic")


# ---------------------------------------------------------------------------------------------------------------------


def _samples() -> Iterator[tuple[DatasetImage, PanopticSegmentation]]:
    for name, segmentation in (("one", first_image()), ("two", second_image())):
        yield DatasetImage(name, f"{name}.jpg", segmentation.segment_ids.shape), segmentation


def _write_and_open(root: Path) -> ADE20KReader:
    with ADE20KWriter(root, CATEGORIES) as writer:
        for image, segmentation in _samples():
            assert writer.add(image, segmentation) == []
            png.write(root / "images/validation" / image.file_name, np.zeros((*image.size_hw, 3), dtype=np.uint8))
    return ADE20KReader(root)


def test_written_panoptic_files_are_read_back(tmp_path: Path) -> None:
    reader = _write_and_open(tmp_path)
    assert reader.categories == CATEGORIES
    assert reader.images == tuple(image for image, _ in _samples())
    for image, expected in _samples():
        segmentation = reader.read_segmentation(image)
        np.testing.assert_array_equal(segmentation.segment_ids, expected.segment_ids)
        assert segmentation.segments == expected.segments
        assert reader.read_image(image).shape == (*image.size_hw, 3)


def test_occluded_stuff_is_left_out_and_occluded_things_raise_a_dataset_error(tmp_path: Path) -> None:
    _write_and_open(tmp_path)
    path = tmp_path / "ade20k_panoptic_val.json"
    content = json.loads(path.read_text())
    infos = content["annotations"][1]["segments_info"]
    infos.append({"id": 99, "category_id": 10, "area": 3, "bbox": [0, 0, 3, 1], "iscrowd": 0})
    path.write_text(json.dumps(content))
    _, (image, expected) = _samples()
    assert ADE20KReader(tmp_path).read_segmentation(image).segments == expected.segments
    infos[-1]["category_id"] = (
        1  # a person: things occlude stuff in Mask2Former, so that a thing without a pixel is an error
    )
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="the JSON has segment ids that the PNG lacks: 99"):
        ADE20KReader(tmp_path).read_segmentation(image)


def test_missing_panoptic_files_and_paths_outside_the_folder_raise_a_dataset_error(tmp_path: Path) -> None:
    _write_and_open(tmp_path)
    (tmp_path / "ade20k_panoptic_val/two.png").unlink()
    with pytest.raises(DatasetError, match=r"ade20k_panoptic_val/two\.png: the annotation is missing \(1 of 2 are\)"):
        ADE20KReader(tmp_path)
    path = tmp_path / "ade20k_panoptic_val.json"
    content = json.loads(path.read_text())
    for name, message in (
        ("../../x.png", "a path inside its folder"),
        ("x" * 5000, r"xx\.\.\.: the annotation is missing"),
    ):
        content["annotations"][1]["file_name"] = name
        path.write_text(json.dumps(content))
        with pytest.raises(DatasetError, match=message):
            ADE20KReader(tmp_path)
    with pytest.raises(DatasetError, match=r"ade20k_panoptic_train\.json: expected a file"):
        ADE20KReader(tmp_path, "train")


def test_all_issues_of_the_panoptic_files_are_reported(tmp_path: Path) -> None:
    with ADE20KWriter(tmp_path, CATEGORIES) as writer:
        for name in "abcde":
            image = DatasetImage(name, f"{name}.jpg", (3, 4))
            writer.add(image, first_image())
            png.write(writer.image_path(image), np.zeros((3, 4, 3), dtype=np.uint8))
    path = tmp_path / "ade20k_panoptic_val.json"
    content = json.loads(path.read_text())
    content["annotations"][1]["segments_info"][0]["category_id"] = 99
    del content["annotations"][2]
    path.write_text(json.dumps(content))
    (tmp_path / "ade20k_panoptic_val/d.png").unlink()
    for name in "de":
        (tmp_path / f"images/validation/{name}.jpg").unlink()
    reader, messages = _read_with_issues(tmp_path)
    assert messages == [
        ("annotation-unreadable", "ade20k_panoptic_val.json, image 'b', segment 300"),
        ("annotation-unreadable", "ade20k_panoptic_val.json"),  # c has none
        ("image-missing", "d.jpg"),
        ("image-missing", "e.jpg"),
        ("png-missing", "d.png"),
    ]
    assert [image.image_id for image in reader.images] == ["a"]


def test_files_without_annotation_are_counted(tmp_path: Path) -> None:
    """One line for the images, one for the PNGs; the reader can be used."""
    _write_and_open(tmp_path)
    assert ADE20KReader(tmp_path).skipped == ()
    for name in ("images/validation/lone.jpg", "images/validation/lone2.jpg", "ade20k_panoptic_val/lone.png"):
        (tmp_path / name).touch()
    reader, messages = _read_with_issues(tmp_path)
    assert (len(reader.images), messages) == (2, [])
    assert reader.skipped == (
        f"{tmp_path}/images/validation: 2 images have no annotation that is read: 'lone.jpg', 'lone2.jpg'",
        f"{tmp_path}/ade20k_panoptic_val: 1 PNGs have no annotation that is read: 'lone.png'",
    )


def test_errors_of_the_writer_write_no_json(tmp_path: Path) -> None:
    image, segmentation = next(_samples())
    with_empty_segment = PanopticSegmentation(
        segmentation.segment_ids, (*segmentation.segments, Segment(8, 1, True, 0))
    )
    writer = ADE20KWriter(tmp_path, CATEGORIES, split="train")

    def write_twice() -> None:
        with writer:
            assert writer.add(image, with_empty_segment) == ["segment 8: it has no pixel"]
            writer.add(image, with_empty_segment)

    with pytest.raises(DatasetError, match="image 'one': an image with this id was added before"):
        write_twice()
    assert files_below(tmp_path) == {"ade20k_panoptic_train/one.png"}
    assert Image.open(tmp_path / "ade20k_panoptic_train/one.png").size == (4, 3)
    for file_name in ("../one.jpg", "/one.jpg"):
        for work in (writer.image_path, lambda image: writer.add(image, segmentation)):
            with pytest.raises(DatasetError, match="expected `file_name` to be a path inside its folder"):
                work(DatasetImage("other", file_name, image.size_hw))
    with pytest.raises(ValueError, match="of the image's size"):
        writer.add(DatasetImage("other", "other.jpg", (4, 3)), segmentation)
    assert files_below(tmp_path) == {"ade20k_panoptic_train/one.png"}
    with pytest.raises(ValueError, match="split must be one of"):
        ADE20KWriter(tmp_path, CATEGORIES, split="validation")


# ---------------------------------------------------------------------------------------------------------------------
# As Mask2Former's preparation writes it: a stuff class has its colour as segment id.
# ---------------------------------------------------------------------------------------------------------------------

GREY = 140 + 256 * 140 + 65536 * 140  # road and skyscraper have this colour
SKY_ID, BED_ID = 1000, 2000


def _write_mask2former(root: Path) -> dict[str, Any]:
    """A road at the left, a skyscraper above, sky, and a bed that hides some of the road."""
    ids = np.array([[SKY_ID, GREY, GREY], [GREY, BED_ID, 0]], np.int32)
    classes = np.array([[3, 49, 49], [7, 7, 0]], np.uint8)
    png.write_ids(root / "ade20k_panoptic_val/a.png", ids)
    png.write(root / "annotations/validation/a.png", classes)
    png.write(root / "images/validation/a.jpg", np.zeros((2, 3, 3), np.uint8))
    segments = [(SKY_ID, 2, 1), (GREY, 6, 1), (GREY, 48, 2), (BED_ID, 7, 1)]
    infos = [{"id": i, "category_id": c, "area": area, "bbox": [0, 0, 1, 1], "iscrowd": 0} for i, c, area in segments]
    categories = [
        {"id": 2, "name": "sky", "isthing": 0, "color": [6, 230, 230]},
        {"id": 6, "name": "road", "isthing": 0, "color": [140, 140, 140]},
        {"id": 48, "name": "skyscraper", "isthing": 0, "color": [140, 140, 140]},
        {"id": 7, "name": "bed", "isthing": 1, "color": [204, 5, 255]},
    ]
    content = {
        "info": {"year": 2017},
        "licenses": [{"id": 3, "name": "BSD"}],
        "images": [{"id": "a", "file_name": "a.jpg", "height": 2, "width": 3, "license": 3}],
        "annotations": [{"image_id": "a", "file_name": "a.png", "segments_info": infos}],
        "categories": categories,
    }
    (root / "ade20k_panoptic_val.json").write_text(json.dumps(content))
    return content


def test_classes_of_one_colour_have_a_segment_each(tmp_path: Path) -> None:
    _write_mask2former(tmp_path)
    reader = ADE20KReader(tmp_path)
    segmentation = reader.read_segmentation(reader.images[0])
    assert segmentation.segment_ids.tolist() == [[SKY_ID, 1, 1], [GREY, BED_ID, 0]]
    assert segmentation.segments == (
        Segment(SKY_ID, 2, False, 1),
        Segment(GREY, 6, False, 1),
        Segment(1, 48, False, 2),
        Segment(BED_ID, 7, True, 1),
    )


def test_stuff_of_one_colour_that_things_hide_is_left_out(tmp_path: Path) -> None:
    _write_mask2former(tmp_path)
    png.write_ids(tmp_path / "ade20k_panoptic_val/a.png", np.array([[SKY_ID, GREY, GREY], [BED_ID, BED_ID, 0]]))
    reader = ADE20KReader(tmp_path)
    segments = reader.read_segmentation(reader.images[0]).segments
    assert [(s.segment_id, s.category_id) for s in segments] == [(SKY_ID, 2), (1, 48), (BED_ID, 7)]


def test_classes_of_one_colour_need_the_map_of_classes(tmp_path: Path) -> None:
    _write_mask2former(tmp_path)
    (tmp_path / "annotations/validation/a.png").unlink()
    reader, messages = _read_with_issues(tmp_path)
    assert (reader.images, messages) == ((), [("png-missing", "a.png")])
    with pytest.raises(DatasetError, match=r"annotations/validation/a\.png: the map of the classes, which tells two"):
        ADE20KReader(tmp_path)


def test_other_repeated_ids_are_an_error(tmp_path: Path) -> None:
    """Twice the same class is no matter of colours."""
    content = _write_mask2former(tmp_path)
    content["annotations"][0]["segments_info"][2]["category_id"] = 6
    (tmp_path / "ade20k_panoptic_val.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="expected distinct segment ids in an image, got this one twice"):
        ADE20KReader(tmp_path)


def test_conversion_to_coco_keeps_ids_licences_and_keys(tmp_path: Path) -> None:
    content = _write_mask2former(tmp_path / "ade")
    reader = ADE20KReader(tmp_path / "ade")
    assert convert(reader, CocoPanopticWriter(tmp_path / "coco", reader.categories), copy_images=True) == []
    written = json.loads((tmp_path / "coco/panoptic.json").read_text())
    assert {key: written[key] for key in ("info", "licenses", "images")} == {
        key: content[key] for key in ("info", "licenses", "images")
    }
    ids = [info["id"] for info in written["annotations"][0]["segments_info"]]
    assert len({*ids}) == 4
    assert [c["name"] for c in written["categories"]] == ["sky", "road", "bed", "skyscraper"]
    assert list_lost_extras(reader, VOCWriter(tmp_path / "voc", reader.categories)) == [
        "keys of the dataset and its images: 'info', 'license', 'licenses'"
    ]
    back = ADE20KWriter(tmp_path / "back", reader.categories)
    assert convert(reader, back) == []
    assert json.loads((tmp_path / "back/ade20k_panoptic_val.json").read_text())["licenses"] == content["licenses"]
