from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO

from segkit.formats import coco
from segkit.formats.coco import instances
from segkit.formats.derive import build_coco_annotations
from segkit.structures import CategorySet
from segkit.utils.errors import DatasetError
from tests.helpers.coco_samples import CATEGORIES, JUNK, Dataset, count_accepted, files_below, first_image, spoil

IMAGES = [
    {"id": 11, "file_name": "a.jpg", "height": 3, "width": 4},
    {"id": 12, "file_name": "b.jpg", "height": 6, "width": 6},
]
POLYGON = {
    "id": 5,
    "image_id": 12,
    "category_id": 1,
    "iscrowd": 0,
    "area": 12.0,
    "bbox": [1, 1, 4, 3.0],
    "segmentation": [[1, 1, 5, 1, 5, 4, 1, 4]],
}
RLE = {**POLYGON, "id": 6, "segmentation": {"size": [6, 6], "counts": [30, 6]}}


@pytest.fixture
def things(categories: CategorySet) -> CategorySet:
    return CategorySet(categories.things)


@pytest.fixture
def json_path(tmp_path: Path, things: CategorySet) -> Path:
    path = tmp_path / "instances.json"
    coco.write_instances(path, IMAGES, [POLYGON], things)
    return path


def test_a_written_file_is_read_back(json_path: Path, things: CategorySet) -> None:
    file = coco.read_instances(json_path)
    assert file == coco.InstancesFile(json_path, things, tuple(IMAGES), (POLYGON,))


def test_pycocotools_reads_written_files(
    tmp_path: Path, things: CategorySet, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = build_coco_annotations(11, first_image())
    coco.write_instances(tmp_path / "i.json", IMAGES, annotations, things)
    file = coco.read_instances(tmp_path / "i.json")
    assert file.annotations == ({"id": 1, **annotations[0]}, {"id": 2, **annotations[1]})
    reference = COCO(str(tmp_path / "i.json"))
    np.testing.assert_array_equal(reference.annToMask(reference.anns[2]), first_image().segment_ids == 7)
    assert reference.getAnnIds(imgIds=[11], iscrowd=True) == [1]
    results = [{"image_id": 11, "category_id": 1, "score": 0.5, "segmentation": annotations[1]["segmentation"]}]
    (tmp_path / "r.json").write_text(json.dumps(results))
    assert coco.read_results(tmp_path / "r.json") == results
    assert reference.loadRes(str(tmp_path / "r.json")).anns[1]["area"] == 4
    capsys.readouterr()  # pycocotools prints


def test_iscrowd_defaults_to_0_and_tables_may_be_empty(tmp_path: Path, things: CategorySet) -> None:
    without_iscrowd = {key: value for key, value in POLYGON.items() if key != "iscrowd"}
    coco.write_instances(tmp_path / "a.json", IMAGES, [without_iscrowd], things)
    assert coco.read_instances(tmp_path / "a.json").annotations[0]["iscrowd"] == 0
    coco.write_instances(tmp_path / "b.json", [], [], things)
    assert coco.read_instances(tmp_path / "b.json").annotations == ()


def test_all_categories_become_things(json_path: Path) -> None:
    content = json.loads(json_path.read_text())
    content["categories"] = [{"id": 1, "name": "sky", "isthing": 0}, {"id": 2, "name": "cat"}]
    json_path.write_text(json.dumps(content))
    assert [c.isthing for c in coco.read_instances(json_path).categories.categories] == [True, True]


def test_polygons_without_area_are_left_out(json_path: Path) -> None:
    content = json.loads(json_path.read_text())
    content["annotations"][0]["segmentation"].insert(0, [1, 1, 2, 2])
    json_path.write_text(json.dumps(content))
    assert coco.read_instances(json_path).annotations[0]["segmentation"] == POLYGON["segmentation"]


def _update(**changes: object) -> Callable[[dict], None]:
    return lambda content: content["annotations"][0].update(changes)


def _remove(key: str) -> Callable[[dict], None]:
    return lambda content: content["annotations"][0].pop(key)


ERRORS = {
    "unknown image": (_update(image_id=13), "image 13: expected an image_id of `images` \\(11, 12\\), got 13"),
    "unknown category": (_update(category_id=10), r"image 12, annotation 5: expected a category_id .* got 10"),
    "no id": (_remove("id"), "image 12, annotation.*: expected `id` to be an integer, got none"),
    "id of text": (_update(id="5"), "expected `id` to be an integer, got '5'"),
    "same id": (
        lambda c: c["annotations"].append(c["annotations"][0]),
        "annotation 5: expected distinct annotation ids",
    ),
    "no bbox": (_remove("bbox"), "annotation 5: expected `bbox` to be a list, got none"),
    "bbox of three": (_update(bbox=[1, 2, 3]), r"annotation 5: expected `bbox` to be \[x, y, width, height\]"),
    "bbox of text": (_update(bbox=[1, 2, 3, "4"]), "annotation 5: expected `bbox`"),
    "bbox NaN": (_update(bbox=[1, float("nan"), 3, 4]), "annotation 5: expected `bbox`"),
    "bbox xyxy turned": (_update(bbox=[1, 2, -3, 4]), "annotation 5: expected `bbox`"),
    "no area": (_remove("area"), "annotation 5: expected `area` to be an integer or a number, got none"),
    "negative area": (_update(area=-1), "annotation 5: expected `area` to be 0 or more"),
    "iscrowd null": (_update(iscrowd=None), "annotation 5: expected `iscrowd` to be 0 or 1"),
    "no segmentation": (_remove("segmentation"), "annotation 5: expected `segmentation` to be a list or an object"),
    "no polygon": (_update(segmentation=[]), "annotation 5: bad segmentation: .* got an empty one"),
    "only slivers": (_update(segmentation=[[1, 1, 2, 2]]), "annotation 5: bad segmentation: expected RLE or polygons"),
    "odd polygon": (_update(segmentation=[[1, 1, 2, 2, 3, 3, 4]]), "annotation 5: bad segmentation: .* got 7 numbers"),
    "RLE of another image": (
        _update(segmentation={"size": [3, 4], "counts": [12]}),
        r"a size of \[6, 6\], got \[3, 4\]",
    ),
    "RLE too short": (_update(segmentation={"size": [6, 6], "counts": [12]}), "add up to 36 pixels, got 12"),
    "no file name": (lambda c: c["images"][0].pop("file_name"), "image 11: expected `file_name`"),
    "image twice": (lambda c: c["images"].append(c["images"][0]), "image 11: expected distinct image ids"),
    "no categories": (lambda c: c.pop("categories"), "expected `categories` to be a list"),
}


@pytest.mark.parametrize("error_name", ERRORS)
def test_each_error_raises_a_dataset_error_that_names_the_file(json_path: Path, error_name: str) -> None:
    change, message = ERRORS[error_name]
    content = json.loads(json_path.read_text())
    change(content)
    json_path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=message) as caught:
        coco.read_instances(json_path)
    assert str(caught.value).startswith(str(json_path))


def test_the_error_message_names_a_panoptic_json(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match=r"this is a panoptic JSON .* an instances JSON is expected"):
        coco.read_instances(dataset.json_path)


def test_the_error_message_names_a_results_list(tmp_path: Path, json_path: Path) -> None:
    (tmp_path / "r.json").write_text("[]")
    assert coco.read_results(tmp_path / "r.json") == []
    with pytest.raises(DatasetError, match="got a list; a results list has no images"):
        coco.read_instances(tmp_path / "r.json")
    with pytest.raises(DatasetError, match="expected a list of results, got a dict; is it a dataset's JSON"):
        coco.read_results(json_path)


def test_other_tables_of_the_file_are_kept(tmp_path: Path, things: CategorySet) -> None:
    info = {"licenses": [{"id": 1}], "info": {"year": 2017}}
    coco.write_instances(tmp_path / "a.json", IMAGES, [POLYGON], things, {**info, "images": "ignored"})
    file = coco.read_instances(tmp_path / "a.json")
    assert (file.info, file.images) == (info, tuple(IMAGES))


@pytest.mark.parametrize(("outline", "is_valid"), [([0, 0, 1e6, 0, 1e6, 1], True), ([0, 0, 1e6, 0] * 3, False)])
def test_outlines_up_to_the_maximum_length_are_accepted(json_path: Path, outline: list[float], is_valid: bool) -> None:
    """The valid outline is 2 000 001 pixels long: a check of its coordinates cannot show that it is short enough."""
    content = json.loads(json_path.read_text())
    content["annotations"][0]["segmentation"] = [outline]
    images = {image["id"]: image for image in IMAGES}
    assert (
        instances._are_all_valid(content["annotations"], images, CATEGORIES, fields=("bbox", "segmentation"))
        == is_valid
    )
    json_path.write_text(json.dumps(content))
    if is_valid:
        assert coco.read_instances(json_path).annotations[0]["segmentation"] == [outline]
        return
    with pytest.raises(DatasetError, match=r"annotation 5: bad segmentation: expected an outline of at most 4e\+06"):
        coco.read_instances(json_path)


def test_equal_annotation_ids_are_not_written(tmp_path: Path, things: CategorySet) -> None:
    unnumbered = {key: value for key, value in POLYGON.items() if key != "id"}
    with pytest.raises(ValueError, match="distinct ids"):
        coco.write_instances(tmp_path / "a.json", IMAGES, [{**POLYGON, "id": 2}, unnumbered], things)
    assert files_below(tmp_path) == set()


def test_numbers_that_are_not_finite_are_not_written(tmp_path: Path, things: CategorySet) -> None:
    with pytest.raises(ValueError, match="JSON"):
        coco.write_instances(tmp_path / "a.json", IMAGES, [{**POLYGON, "area": float("nan")}], things)
    assert files_below(tmp_path) == set()


RESULT = {"image_id": "x", "category_id": 3, "score": 1, "bbox": [0, 0, 2, 2]}
RLE_OF_4 = {"size": [2, 2], "counts": "4"}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (5, "expected the list to hold objects, got 5 at index 1"),
        ({**RESULT, "score": float("nan")}, "r.json[1]: expected `score` to be a finite number, got nan"),
        ({**RESULT, "score": None}, "r.json[1]: expected `score` to be an integer or a number, got None"),
        ({**RESULT, "category_id": "3"}, "r.json[1]: expected `category_id` to be an integer"),
        ({**RESULT, "category_id": 4}, "r.json[1]: expected a category_id of `categories` (1, 3, 10, 20), got 4"),
        ({**RESULT, "bbox": [0, 0, 2]}, "r.json[1]: expected `bbox`"),
        ({**RESULT, "segmentation": RLE_OF_4}, ""),
        ({**RESULT, "segmentation": {**RLE_OF_4, "counts": "5"}}, "r.json[1]: bad segmentation: "),
        ({**RESULT, "segmentation": {**RLE_OF_4, "counts": "5"}}, "4 pixels, got 5"),
        ({k: v for k, v in RESULT.items() if k != "bbox"}, "r.json[1]: expected `bbox` to be a list, got none"),
    ],
)
def test_each_error_of_results_raises_a_dataset_error(tmp_path: Path, result: Any, message: str) -> None:
    path = tmp_path / "r.json"
    entries = [{**RESULT, "segmentation": RLE_OF_4}, result]
    path.write_text(json.dumps(entries))
    fields = ("bbox", "segmentation") if "segmentation" in (result if isinstance(result, dict) else {}) else ("bbox",)
    if not message:
        results = coco.read_results(path)
        assert results == entries
        read = coco.read_result_columns([coco.ImageEntries(results, (2, 2), str(path))], fields, CATEGORIES)
        assert read.masks == [RLE_OF_4, RLE_OF_4]
        return
    with pytest.raises(DatasetError, match=re.escape(message)):
        coco.read_result_columns([coco.ImageEntries(coco.read_results(path), (2, 2), str(path))], fields, CATEGORIES)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        '[{"score": NaN}]',
        '[{"score": 1e400, "x": [1, 1.0, -0.0, 5e-324, 123456789012345678901234567890, 0.1, 1e22]}]',
        '[{"x": "\\ud800", "x": 2, "\u00e9": null, "y": true}]',
        "[1",
        "",
        "{}",
    ],
)
def test_results_are_equal_with_and_without_msgspec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool, text: str
) -> None:
    monkeypatch.setattr(instances, "FAST_JSON", fast and instances.FAST_JSON)
    (tmp_path / "r.json").write_text(text, encoding="utf-8")
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(DatasetError, match="expected JSON, got"):
            coco.read_results(tmp_path / "r.json")
        return
    if not isinstance(expected, list):
        with pytest.raises(DatasetError, match="expected a list of results, got a dict"):
            coco.read_results(tmp_path / "r.json")
        return
    results = coco.read_results(tmp_path / "r.json")
    assert repr(results) == repr(expected)  # repr distinguishes 1 from 1.0, and equals for NaN


def test_masks_are_not_checked_if_they_are_not_read(tmp_path: Path, json_path: Path) -> None:
    content = json.loads(json_path.read_text())
    content["annotations"][0]["segmentation"] = "nonsense"
    content["annotations"].append(
        {k: v for k, v in POLYGON.items() if k not in ("segmentation", "iscrowd")} | {"id": 6}
    )
    json_path.write_text(json.dumps(content))
    first, second = coco.read_instances(json_path, masks=False).annotations
    assert (first["segmentation"], second["iscrowd"], "segmentation" in second) == ("nonsense", 0, False)
    content["annotations"][1]["bbox"] = [0, 0, 5]
    json_path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="annotation 6: expected `bbox`"):
        coco.read_instances(json_path, masks=False)


@given(st.randoms(use_true_random=False), st.sampled_from(JUNK), st.booleans())
def test_checks_of_all_annotations_at_once_equal_checks_of_each(
    tmp_path_factory: pytest.TempPathFactory, random: Random, junk: object, masks: bool
) -> None:
    path = tmp_path_factory.mktemp("spoiled") / "a.json"
    content = {"images": IMAGES, "annotations": [POLYGON, RLE], "categories": CATEGORIES.to_coco()}
    path.write_text(json.dumps(spoil(content, random.randrange, junk)))
    outcomes = []
    for check in (instances._are_all_valid, lambda *_: False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(instances, "_are_all_valid", check)
            try:
                file = coco.read_instances(path, masks)
                outcomes.append((file.categories.to_coco(), file.images, file.annotations))
            except DatasetError as error:
                outcomes.append(str(error))
    assert repr(outcomes[0]) == repr(outcomes[1])


@given(st.randoms(use_true_random=False), st.sampled_from(JUNK))
def test_junk_values_raise_only_dataset_errors(
    tmp_path_factory: pytest.TempPathFactory, random: Random, junk: object
) -> None:
    path = tmp_path_factory.mktemp("spoiled") / "a.json"
    content = {"images": IMAGES, "annotations": [POLYGON, RLE], "categories": CATEGORIES.to_coco()}
    path.write_text(json.dumps(spoil(content, random.randrange, junk)))
    with contextlib.suppress(DatasetError):
        coco.read_instances(path)


def test_a_known_share_of_spoiled_files_is_accepted(tmp_path: Path) -> None:
    """Keys that are not read, or whose junk is valid, are accepted: an id of 7, a name "a/b", no iscrowd."""
    content = {"images": IMAGES, "annotations": [POLYGON, RLE], "categories": CATEGORIES.to_coco()}
    assert count_accepted(coco.read_instances, content, tmp_path / "a.json") == 24
