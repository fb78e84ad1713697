from __future__ import annotations

import contextlib
import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segkit.formats import coco
from segkit.formats.coco import PanopticWriter
from segkit.structures import MAX_SEGMENT_ID, CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from tests.helpers.coco_samples import (
    CATEGORIES,
    JUNK,
    Dataset,
    count_accepted,
    files_below,
    first_image,
    second_image,
    spoil,
)


def test_a_written_dataset_is_read_back(dataset: Dataset, categories: CategorySet) -> None:
    file = coco.read_panoptic(dataset.json_path)
    assert file.path == dataset.json_path
    assert file.categories == categories
    assert [r.image_id for r in file.records] == [11, "twelve"]
    assert [(r.file_name, r.png_name) for r in file.records] == [
        ("eleven.jpg", "eleven.png"),
        ("sub/twelve.jpg", "twelve.png"),
    ]
    for record, expected in zip(file.records, (first_image(), second_image()), strict=True):
        png_path, size_hw = dataset.png_folder / record.png_name, (record.height, record.width)
        segmentation = coco.read_segmentation(png_path, record.segments_info, file.categories, size_hw, record.image_id)
        np.testing.assert_array_equal(segmentation.segment_ids, expected.segment_ids)
        assert segmentation.segment_ids.dtype == np.int32
        assert segmentation.segments == expected.segments


def test_the_json_has_the_entries_of_coco(dataset: Dataset) -> None:
    content = dataset.load()
    assert content["images"][0] == {"id": 11, "file_name": "eleven.jpg", "height": 3, "width": 4}
    person = {"id": 7, "category_id": 1, "isthing": 1, "iscrowd": 0, "area": 4, "bbox": [0, 1, 2, 2], "score": 0.5}
    crowd = {"id": 300, "category_id": 3, "isthing": 1, "iscrowd": 1, "area": 2, "bbox": [2, 2, 2, 1]}
    sky = {"id": 70000, "category_id": 10, "isthing": 0, "iscrowd": 0, "area": 4, "bbox": [0, 0, 3, 2]}
    assert content["annotations"][0] == {
        "image_id": 11,
        "file_name": "eleven.png",
        "segments_info": [crowd, person, sky],
    }


def test_panopticapi_reads_written_files(dataset: Dataset) -> None:
    evaluation = pytest.importorskip("panopticapi.evaluation", reason="panopticapi-lite is not installed")
    utils = pytest.importorskip("panopticapi.utils", reason="panopticapi-lite is not installed")
    ids = utils.rgb2id(np.asarray(Image.open(dataset.png_folder / "eleven.png")))
    np.testing.assert_array_equal(ids, first_image().segment_ids)
    content = dataset.load()
    pairs = [(annotation, annotation) for annotation in content["annotations"]]
    categories = {category["id"]: category for category in content["categories"]}
    folder = str(dataset.png_folder)
    score = evaluation.pq_compute_single_core(0, pairs, folder, folder, categories)
    results, _ = score.pq_average(categories, isthing=None)
    assert results == {"pq": 1.0, "sq": 1.0, "rq": 1.0, "n": 3}  # person, sky, grass; the crowd is not scored


@given(
    hnp.arrays(
        np.int32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.sampled_from([0, 1, 255, 256, 65536, MAX_SEGMENT_ID]),
    )
)
def test_any_map_is_read_back(tmp_path_factory: pytest.TempPathFactory, segment_ids: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("maps")
    present = [i for i in np.unique(segment_ids).tolist() if i]
    categories = CategorySet.from_coco([{"id": 1, "name": "thing", "isthing": 1}], "here")
    segments = tuple(Segment(i, 1, True, int((segment_ids == i).sum())) for i in present)
    with PanopticWriter(folder / "a.json", folder / "png", categories) as writer:
        writer.add(1, "a.jpg", PanopticSegmentation(segment_ids, segments))
    (record,) = coco.read_panoptic(folder / "a.json").records
    segmentation = coco.read_segmentation(folder / "png" / record.png_name, record.segments_info, categories)
    np.testing.assert_array_equal(segmentation.segment_ids, segment_ids)
    assert segmentation.segments == segments


def test_a_dataset_without_images_is_read_back(tmp_path: Path, categories: CategorySet) -> None:
    with PanopticWriter(tmp_path / "a.json", tmp_path / "png", categories):
        pass
    assert coco.read_panoptic(tmp_path / "a.json").records == ()


def test_iscrowd_defaults_to_0(dataset: Dataset) -> None:
    content = dataset.load()
    for info in content["annotations"][0]["segments_info"]:
        del info["iscrowd"], info["area"], info["bbox"], info["isthing"]
    record = coco.read_panoptic(dataset.store(content)).records[0]
    assert [info["iscrowd"] for info in record.segments_info] == [0, 0, 0]


def _set(*keys_and_value: object) -> Callable[[dict], None]:
    *keys, last, value = keys_and_value

    def change(content: dict) -> None:
        for key in keys:
            content = content[key]
        content[last] = value

    return change


def _drop(*keys: object) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def _repeat(*keys: object) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for key in keys:
            content = content[key]
        content.append(copy.deepcopy(content[0]))

    return change


SEGMENT = ("annotations", 0, "segments_info", 0)
JSON_ERRORS = {
    "no annotations": (_drop("annotations"), "expected `annotations` to be a list, got none"),
    "annotations an object": (_set("annotations", {}), "expected `annotations` to be a list"),
    "an annotation a list": (_set("annotations", 1, []), "`annotations` to hold objects, got .* at index 1"),
    "no images": (_drop("images"), "expected `images` to be a list"),
    "no categories": (_drop("categories"), "expected `categories` to be a list"),
    "empty categories": (_set("categories", []), "at least one category"),
    "category without isthing": (_drop("categories", 0, "isthing"), "category 1: expected `isthing` .* got none"),
    "isthing of 2": (_set("categories", 0, "isthing", 2), "category 1: expected `isthing` to be 0 or 1, got 2"),
    "category without id": (_drop("categories", 0, "id"), "every category to have id and name"),
    "category twice": (_repeat("categories"), "distinct category ids"),
    "odd colour": (_set("categories", 0, "color", "red"), "category 1: expected `color`"),
    "short colour": (_set("categories", 0, "color", [1, 2]), "category 1: expected `color`"),
    "loud colour": (_set("categories", 0, "color", [1, 2, 256]), "category 1: expected `color`"),
    "image id of null": (_set("images", 0, "id", None), "expected `id` to be an integer or a string, got None"),
    "image id of true": (_set("images", 0, "id", True), "expected `id` to be an integer or a string, got True"),
    "image id twice": (_repeat("images"), "image 11: expected distinct image ids"),
    "no file name": (_drop("images", 0, "file_name"), "image 11: expected `file_name` to be a string, got none"),
    "no height": (_drop("images", 0, "height"), "image 11: expected `height` to be an integer, got none"),
    "width of text": (_set("images", 0, "width", "4"), "image 11: expected `width` to be an integer, got '4'"),
    "width of 0": (_set("images", 0, "width", 0), "image 11: expected height and width of at least 1 .* 3 x 0"),
    "climbing image": (_set("images", 0, "file_name", "../x.jpg"), "image 11: .* inside its folder, got '../x.jpg'"),
    "absolute image": (_set("images", 0, "file_name", "/x.jpg"), "image 11: .* inside its folder"),
    "drive image": (_set("images", 0, "file_name", "C:\\x.jpg"), "image 11: .* inside its folder"),
    "empty image": (_set("images", 0, "file_name", ""), "image 11: .* inside its folder"),
    "climbing png": (_set("annotations", 0, "file_name", "a\\..\\..\\x.png"), "image 11: .* inside its folder"),
    "folder png": (_set("annotations", 0, "file_name", "a/"), "image 11: .* inside its folder"),
    "nul png": (_set("annotations", 0, "file_name", "a\0.png"), "image 11: .* inside its folder"),
    "no png": (_drop("annotations", 0, "file_name"), "image 11: expected `file_name` to be a string"),
    "unknown image": (
        _set("annotations", 0, "image_id", "11"),
        "image '11': expected an image_id of `images` .*, got '11'",
    ),
    "no image id": (_drop("annotations", 0, "image_id"), "expected `image_id` to be an integer or a string, got none"),
    "image id of 11.0": (_set("annotations", 0, "image_id", 11.0), "expected `image_id` .* got 11.0"),
    "bare image": (_drop("annotations", 1), "1 images have no annotation: 'twelve'"),
    "annotated twice": (_repeat("annotations"), "image 11: expected one annotation, got two"),
    "no segments_info": (_drop("annotations", 0, "segments_info"), "image 11: expected `segments_info` to be a list"),
    "segment a number": (_set(*SEGMENT, 7), "image 11: expected `segments_info` to hold objects, got 7 at index 0"),
    "no segment id": (_drop(*SEGMENT, "id"), "image 11.*: expected `id` to be an integer, got none"),
    "segment id text": (_set(*SEGMENT, "id", "300"), "image 11, segment '300': expected `id` to be an integer"),
    "segment 0": (_set(*SEGMENT, "id", 0), "image 11, segment 0: expected a segment id in 1..16777215"),
    "segment 2^24": (_set(*SEGMENT, "id", 2**24), "image 11, segment 16777216: expected a segment id in"),
    "negative segment": (_set(*SEGMENT, "id", -1), "image 11, segment -1: expected a segment id in"),
    "segment twice": (_repeat("annotations", 0, "segments_info"), "image 11, segment 300: expected distinct"),
    "unknown category": (
        _set(*SEGMENT, "category_id", 4),
        r"image 11, segment 300: expected a category_id of `categories` \(1, 3, 10, 20\), got 4",
    ),
    "category true": (_set(*SEGMENT, "category_id", True), "segment 300: expected `category_id` to be an integer"),
    "iscrowd of 2": (_set(*SEGMENT, "iscrowd", 2), "segment 300: expected `iscrowd` to be 0 or 1, got 2"),
    "iscrowd null": (_set(*SEGMENT, "iscrowd", None), "segment 300: expected `iscrowd` to be 0 or 1, got None"),
    "area text": (_set(*SEGMENT, "area", "2"), "segment 300: expected `area` to be an integer or a number"),
    "area NaN": (_set(*SEGMENT, "area", float("nan")), "segment 300: expected `area` to be a finite number"),
    "bbox of three": (_set(*SEGMENT, "bbox", [1, 2, 3]), "segment 300: expected `bbox`"),
    "score NaN": (_set(*SEGMENT, "score", float("nan")), "segment 300: expected `score` to be a finite number"),
}


@pytest.mark.parametrize("error_name", JSON_ERRORS)
def test_each_error_raises_a_dataset_error_that_names_the_file(dataset: Dataset, error_name: str) -> None:
    change, message = JSON_ERRORS[error_name]
    content = dataset.load()
    change(content)
    with pytest.raises(DatasetError, match=message) as caught:
        coco.read_panoptic(dataset.store(content))
    assert str(caught.value).startswith(str(dataset.json_path))
    assert "\n" not in str(caught.value)


def test_the_error_message_names_an_instances_json(dataset: Dataset) -> None:
    content = dataset.load()
    content["annotations"] = [{"id": 1, "image_id": 11, "category_id": 1, "bbox": [0, 0, 1, 1], "segmentation": []}]
    del content["categories"][0]["isthing"]
    with pytest.raises(
        DatasetError, match=r"this is an instances JSON \(.*segmentation\), a panoptic JSON is expected"
    ):
        coco.read_panoptic(dataset.store(content))


@pytest.mark.parametrize("content", [[], [{"image_id": 1}], "text", 5, None])
def test_a_json_that_is_no_object_raises_a_dataset_error(dataset: Dataset, content: object) -> None:
    with pytest.raises(DatasetError, match="expected an object with images, annotations and categories, got a"):
        coco.read_panoptic(dataset.store(content))


def test_png_and_json_must_hold_the_same_ids(dataset: Dataset, categories: CategorySet) -> None:
    png_path = dataset.png_folder / "eleven.png"
    infos = coco.read_panoptic(dataset.json_path).records[0].segments_info
    with pytest.raises(DatasetError, match=r"eleven\.png, image 11: the PNG has .* the JSON lacks: 300; "):
        coco.read_segmentation(png_path, infos[1:], categories, image_id=11)
    more = [{**infos[0], "id": i} for i in range(1, 7)]
    with pytest.raises(DatasetError, match=r"the JSON has .* the PNG lacks: 1, 2, 3, 4, 5 and 1 more; "):
        coco.read_segmentation(png_path, [*infos, *more], categories)


def test_an_unknown_category_raises_a_dataset_error(dataset: Dataset, categories: CategorySet) -> None:
    infos = coco.read_panoptic(dataset.json_path).records[0].segments_info
    things = CategorySet(categories.things)
    with pytest.raises(DatasetError, match=r"eleven\.png, image 11, segment 70000: .* got 10"):
        coco.read_segmentation(dataset.png_folder / "eleven.png", infos, things, image_id=11)


def test_errors_of_the_png_are_raised(dataset: Dataset, categories: CategorySet) -> None:
    with pytest.raises(DatasetError, match="expected 4 x 3 pixels"):
        coco.read_segmentation(dataset.png_folder / "eleven.png", [], categories, (4, 3))
    with pytest.raises(DatasetError, match="found nothing"):
        coco.read_segmentation(dataset.png_folder / "none.png", [], categories)


def test_segments_without_a_pixel_are_dropped() -> None:
    with_empty_segment = replace(second_image(), segments=(*second_image().segments, Segment(6, 1, True, 0)))
    annotation = coco.build_panoptic_annotation(1, "a.png", with_empty_segment)
    assert [info["id"] for info in annotation["segments_info"]] == [5]


def test_areas_are_counted_in_the_map() -> None:
    with_wrong_area = replace(second_image(), segments=(Segment(5, 20, False, area_px=99999),))
    assert coco.build_panoptic_annotation(1, "a.png", with_wrong_area)["segments_info"][0]["area"] == 10


def test_numpy_numbers_become_json(tmp_path: Path, categories: CategorySet) -> None:
    segments = (Segment(np.int32(5), np.int64(20), False, 10, np.bool_(True), np.float32(0.25)),)
    with PanopticWriter(tmp_path / "a.json", tmp_path / "png", categories) as writer:
        writer.add(1, "a.jpg", replace(second_image(), segments=segments))
    info = coco.read_panoptic(tmp_path / "a.json").records[0].segments_info[0]
    assert (info["id"], info["category_id"], info["iscrowd"], info["score"]) == (5, 20, 1, 0.25)


@pytest.mark.parametrize(
    ("image_id", "segments", "message"),
    [
        (np.int64(1), (Segment(5, 20, False, 10),), "image_id must be an int or a str, got int64"),
        (1, (), "segment_ids must hold ids of segments only, got 5"),
        (1, (Segment(5, 21, False, 10),), r"category ids of the dataset, got \[21\]"),
        (1, (Segment(5, 20, False, 10, score=float("nan")),), "score must be finite, got nan for segment 5"),
    ],
)
def test_misuse_of_the_writer_writes_nothing(
    tmp_path: Path, categories: CategorySet, image_id: object, segments: tuple[Segment, ...], message: str
) -> None:
    with (
        pytest.raises(ValueError, match=message),
        PanopticWriter(tmp_path / "a.json", tmp_path / "png", categories) as writer,
    ):
        writer.add(image_id, "a.jpg", replace(second_image(), segments=segments))
    assert files_below(tmp_path) == set()


def test_an_exception_keeps_the_earlier_json(dataset: Dataset, categories: CategorySet) -> None:
    before = dataset.json_path.read_bytes()
    writer = PanopticWriter(*dataset, categories)
    writer.add(1, "other.jpg", second_image())
    with pytest.raises(KeyboardInterrupt), writer:
        raise KeyboardInterrupt
    assert dataset.json_path.read_bytes() == before
    assert files_below(dataset.png_folder.parent) == {
        "panoptic.json",
        "panoptic/eleven.png",
        "panoptic/twelve.png",
        "panoptic/other.png",
    }


def test_write_png_raises_an_error_for_ids_above_three_bytes(tmp_path: Path) -> None:
    for value in (-1, MAX_SEGMENT_ID + 1):
        with pytest.raises(ValueError, match="segment ids must be in"):
            coco.write_png(tmp_path / "a.png", np.array([[value]]))
    assert files_below(tmp_path) == set()


def test_pngs_of_equal_stems_get_the_names_of_their_folders(tmp_path: Path, categories: CategorySet) -> None:
    names = ["a/1.jpg", "b/1.jpg", "c/d/1.jpg"]
    with PanopticWriter(tmp_path / "a.json", tmp_path / "png", categories) as writer:
        for image_id, name in enumerate(names):
            writer.add(image_id, name, second_image())
    records = coco.read_panoptic(tmp_path / "a.json").records
    assert [record.png_name for record in records] == ["1.png", "b_1.png", "c_d_1.png"]
    assert coco.choose_png_names(enumerate(names)) == dict(enumerate(["1.png", "b_1.png", "c_d_1.png"]))


def test_png_names_of_absolute_images() -> None:
    assert coco.choose_png_names([(1, "/a/x.jpg"), (2, "/b/x.jpg")]) == {1: "x.png", 2: "b_x.png"}


@pytest.mark.parametrize(
    ("images", "pngs"),
    [
        (["a.jpg", "a.png"], ["a.png", "a.png.png"]),
        (["masks/a.png", "labels/a.png", "a.png"], ["a.png", "labels_a.png", "a.png.png"]),
        # "a.b.png" would be the PNG of the first and of the third image: the third gets the number of PNGs before it.
        (["a.b.png", "a.png", "a.b", "a.b"], ["a.b.png", "a.png", "a.b_2.png", "a.b_3.png"]),
    ],
)
def test_images_of_equal_stems_get_different_pngs(
    tmp_path: Path, categories: CategorySet, images: list[str], pngs: list[str]
) -> None:
    assert [*coco.choose_png_names(enumerate(images)).values()] == pngs
    with PanopticWriter(tmp_path / "a.json", tmp_path / "png", categories) as writer:
        for image_id, name in enumerate(images):
            writer.add(image_id, name, second_image())
    assert files_below(tmp_path / "png") == {*pngs}


def test_other_tables_and_keys_of_images_are_kept(tmp_path: Path, categories: CategorySet) -> None:
    with PanopticWriter(tmp_path / "a.json", tmp_path / "png", categories) as writer:
        writer.add(1, "a.jpg", second_image(), {"license": 4, "height": "ignored"})
        writer.info = {"licenses": [{"id": 4}]}
    file = coco.read_panoptic(tmp_path / "a.json")
    assert file.info == {"licenses": [{"id": 4}]}
    assert file.images == {1: {"id": 1, "file_name": "a.jpg", "height": 2, "width": 5, "license": 4}}


@pytest.mark.parametrize(("image_id", "name", "message"), [(1, "b.jpg", "added before"), (2, "../b.jpg", "inside its")])
def test_repeated_image_ids_and_paths_outside_the_folder_raise_a_dataset_error(
    tmp_path: Path, categories: CategorySet, image_id: int, name: str, message: str
) -> None:
    writer = PanopticWriter(tmp_path / "a.json", tmp_path / "png", categories)
    writer.add(1, "a.jpg", second_image())
    with pytest.raises(DatasetError, match=message):
        writer.add(image_id, name, second_image())
    assert files_below(tmp_path) == {"png/a.png"}


def test_a_panoptic_file_can_be_pickled(dataset: Dataset) -> None:
    file = coco.read_panoptic(dataset.json_path)
    assert pickle.loads(pickle.dumps(file)) == file


@given(st.randoms(use_true_random=False), st.sampled_from(JUNK))
def test_junk_values_raise_only_dataset_errors(
    tmp_path_factory: pytest.TempPathFactory, random: Random, junk: object
) -> None:
    path = tmp_path_factory.mktemp("spoiled") / "a.json"
    records = [coco.build_panoptic_annotation(1, "a.png", first_image())]
    images = [{"id": 1, "file_name": "a.jpg", "height": 3, "width": 4}]
    content = {"images": images, "annotations": records, "categories": CATEGORIES.to_coco()}
    path.write_text(json.dumps(spoil(content, random.randrange, junk)))
    with contextlib.suppress(DatasetError):
        coco.read_panoptic(path)


def test_a_known_share_of_spoiled_files_is_accepted(tmp_path: Path) -> None:
    """Keys that are not read, or whose junk is valid, are accepted: an area of 7, a name "a/b"."""
    records = [coco.build_panoptic_annotation(1, "a.png", first_image())]
    images = [{"id": 1, "file_name": "a.jpg", "height": 3, "width": 4}]
    content = {"images": images, "annotations": records, "categories": CATEGORIES.to_coco()}
    assert count_accepted(coco.read_panoptic, content, tmp_path / "a.json") == 18
