"""Tests of the readers that use predictions as ground truth: results lists and panoptic predictions."""

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
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segkit.curation.issues import RULES
from segkit.formats import coco
from segkit.formats.coco import CocoResultsReader, PanopticPredictionsReader, PanopticWriter
from segkit.structures import PanopticSegmentation, Segment, mask_to_rle
from segkit.utils.errors import DatasetError
from tests.helpers.coco_samples import CATEGORIES, JUNK, first_image, spoil

IMAGES = [
    {"id": 1, "file_name": "one.png", "height": 1, "width": 4},
    {"id": "two", "file_name": "sub/two.png", "height": 1, "width": 4},
]
DATASET = {"images": IMAGES, "categories": CATEGORIES.to_coco()}
PERSON, CAT, SKY = 1, 3, 10


def build_result(
    mask: list[int], score: object = 0.9, category_id: int = PERSON, image_id: object = 1
) -> dict[str, Any]:
    """Returns a result of a 1 x 4 image, with a box that does not belong to the mask."""
    rle = mask_to_rle(np.array([mask], dtype=np.bool_))
    return {"image_id": image_id, "category_id": category_id, "bbox": [0.25, 0, 9.5, 1], "score": score} | {
        "segmentation": rle
    }


def write_results(folder: Path, entries: object, dataset: object = DATASET, **options: Any) -> CocoResultsReader:
    (folder / "results.json").write_text(json.dumps(entries))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return CocoResultsReader(folder / "results.json", folder / "images", folder / "dataset.json", **options)


def read_first_map(reader: CocoResultsReader) -> tuple[list[list[int]], dict[int, tuple[int, int]]]:
    """Returns the map of the first image, and the category and area of each segment."""
    segmentation = reader.read_segmentation(reader.images[0])
    return segmentation.segment_ids.tolist(), {s.segment_id: (s.category_id, s.area_px) for s in segmentation.segments}


def test_results_are_read_as_things_without_scores(tmp_path: Path) -> None:
    """An image without results is void. Boxes are computed from the masks: columns 1 and 2, column 3."""
    reader = write_results(tmp_path, [build_result([0, 1, 1, 0], 0.9), build_result([0, 0, 0, 1], 0.8, CAT)])
    assert [(i.image_id, i.file_name, i.size_hw) for i in reader.images] == [
        (1, "one.png", (1, 4)),
        ("two", "sub/two.png", (1, 4)),
    ]
    assert reader.categories == CATEGORIES
    assert (reader.root, reader.image_root) == (tmp_path, tmp_path / "images")
    assert read_first_map(reader) == ([[0, 2, 2, 1]], {1: (CAT, 1), 2: (PERSON, 2)})
    assert [s.score for s in reader.read_segmentation(reader.images[0]).segments] == [None, None]
    cat, person = reader.read_annotations(reader.images[0])
    assert cat == {
        "image_id": 1,
        "category_id": CAT,
        "iscrowd": 0,
        "area": 1,
        "bbox": [3, 0, 1, 1],
        "segmentation": mask_to_rle(np.array([[0, 0, 0, 1]], dtype=np.bool_)),
    }
    assert (person["area"], person["bbox"]) == (2, [1, 0, 2, 1])
    assert reader.read_segmentation(reader.images[1]).segment_ids.tolist() == [[0, 0, 0, 0]]
    assert reader.read_annotations(reader.images[1]) == []
    assert reader.skipped == (f"{tmp_path}/results.json: 1 of 2 images have no result left: 'two'",)


def test_a_score_equal_to_min_score_is_kept_and_dropped_results_are_counted(tmp_path: Path) -> None:
    entries = [
        build_result([1, 0, 0, 0], 0.5),
        build_result([0, 1, 0, 0], 0.4999),
        build_result([0, 0, 0, 0], 1),
        build_result([0, 0, 1, 0], 0),
    ]
    reader = write_results(tmp_path, [*entries, build_result([1, 1, 1, 1], 1, image_id="two")])
    assert read_first_map(reader)[0] == [[1, 0, 0, 0]]
    assert reader.skipped == (
        f"{tmp_path}/results.json: 2 of 5 results have a score below 0.5",
        f"{tmp_path}/results.json: 1 of 5 results have a mask without a pixel",
    )
    assert read_first_map(write_results(tmp_path, entries, min_score=0.4999))[0] == [[2, 1, 0, 0]]
    assert read_first_map(write_results(tmp_path, entries, min_score=0))[0] == [[3, 2, 1, 0]]
    all_dropped = write_results(tmp_path, entries, min_score=2)
    assert read_first_map(all_dropped) == ([[0, 0, 0, 0]], {})
    assert all_dropped.skipped[1].endswith("2 of 2 images have no result left: 1, 'two'")


def test_the_highest_score_occludes_in_any_order_of_the_results(tmp_path: Path) -> None:
    """Cat (0.8) and person (0.9) share pixel 1, which becomes person. The person is the last annotation."""
    person, cat = build_result([0, 1, 1, 0], 0.9), build_result([1, 1, 0, 0], 0.8, CAT)
    for entries in ([person, cat], [cat, person]):
        reader = write_results(tmp_path, entries)
        assert read_first_map(reader) == ([[1, 2, 2, 0]], {1: (CAT, 1), 2: (PERSON, 2)})
        assert [a["area"] for a in reader.read_annotations(reader.images[0])] == [2, 2]


def test_the_first_of_equal_scores_occludes(tmp_path: Path) -> None:
    """All masks have pixel 1, which the first result gets. The cat has the mask of the first person and is hidden."""
    entries = [build_result([0, 1, 1, 0], 0.7), build_result([1, 1, 0, 0], 0.7), build_result([0, 1, 1, 0], 0.7, CAT)]
    reader = write_results(tmp_path, entries)
    assert read_first_map(reader) == ([[2, 3, 3, 0]], {2: (PERSON, 1), 3: (PERSON, 2)})
    assert [a["category_id"] for a in reader.read_annotations(reader.images[0])] == [CAT, PERSON, PERSON]


def test_overlap_options(tmp_path: Path) -> None:
    """The first has 3 pixels and the higher score, the second 2 pixels; they share pixel 2."""
    entries = [build_result([1, 1, 1, 0], 0.9), build_result([0, 0, 1, 1], 0.6)]
    assert read_first_map(write_results(tmp_path, entries))[0] == [[2, 2, 2, 1]]
    assert read_first_map(write_results(tmp_path, entries, overlap="small_on_top"))[0] == [[1, 1, 2, 2]]
    assert read_first_map(write_results(tmp_path, entries[::-1], overlap="later_on_top"))[0] == [[2, 2, 2, 1]]
    with pytest.raises(ValueError, match=r"overlap must be one of \('score_on_top', 'small_on_top', 'later_on_top'\)"):
        write_results(tmp_path, entries, overlap="random")


def test_crowds_stay_crowds_and_are_occluded_by_all_other_results(tmp_path: Path) -> None:
    reader = write_results(tmp_path, [{**build_result([1, 1, 0, 0], 1), "iscrowd": 1}, build_result([0, 1, 1, 0], 0.5)])
    segmentation = reader.read_segmentation(reader.images[0])
    assert segmentation.segment_ids.tolist() == [[2, 1, 1, 0]]
    assert [s.iscrowd for s in segmentation.segments] == [False, True]
    assert [a["iscrowd"] for a in reader.read_annotations(reader.images[0])] == [0, 1]


def test_uncompressed_rle_and_polygons_are_read(tmp_path: Path) -> None:
    """Uncompressed run lengths, also with an empty run, and a polygon around pixels 1 and 2."""
    runs = {**build_result([], CAT), "segmentation": {"size": [1, 4], "counts": [1, 1, 2]}}
    rle_with_empty_run = {**runs, "segmentation": {"size": [1, 4], "counts": [0, 0, 3, 1]}}
    polygon = {**runs, "segmentation": [[1, 0, 3, 0, 3, 1, 1, 1], [0, 0]]}
    for entry, mask, box in (
        (runs, [[0, 1, 0, 0]], [1, 0, 1, 1]),
        (rle_with_empty_run, [[0, 0, 0, 1]], [3, 0, 1, 1]),
        (polygon, [[0, 1, 1, 0]], [1, 0, 2, 1]),
    ):
        reader = write_results(tmp_path, [{**entry, "score": 1}])
        assert read_first_map(reader)[0] == mask
        (annotation,) = reader.read_annotations(reader.images[0])
        assert annotation["bbox"] == box
        assert annotation["segmentation"] == mask_to_rle(np.array(mask, dtype=np.bool_))


def test_an_empty_results_list_gives_void_maps(tmp_path: Path) -> None:
    reader = write_results(tmp_path, [])
    assert read_first_map(reader) == ([[0, 0, 0, 0]], {})
    assert len(reader.skipped) == 1


def test_categories_without_isthing_are_things(tmp_path: Path) -> None:
    without_isthing = {**DATASET, "categories": [{"id": 1, "name": "nucleus"}]}
    assert write_results(tmp_path, [build_result([1, 0, 0, 0])], without_isthing).categories[1].isthing
    partly_with_isthing = {
        **DATASET,
        "categories": [{"id": 1, "name": "nucleus"}, {"id": 2, "name": "sky", "isthing": 0}],
    }
    with pytest.raises(DatasetError, match=r"dataset\.json, category 1: expected `isthing`"):
        write_results(tmp_path, [], partly_with_isthing)


def test_an_instances_json_with_scores_needs_no_dataset(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    entries = [
        {"id": 1, "area": 3.5, **build_result([1, 1, 0, 0], 0.6)},
        {"id": 2, "area": 1, **build_result([0, 1, 1, 0], 0.4)},
    ]
    path.write_text(json.dumps({**DATASET, "annotations": entries}))
    reader = CocoResultsReader(path, tmp_path)
    assert read_first_map(reader) == ([[1, 1, 0, 0]], {1: (PERSON, 2)})
    assert reader.read_annotations(reader.images[0])[0]["area"] == 2
    entries[0].pop("score")
    path.write_text(json.dumps({**DATASET, "annotations": entries}))
    with pytest.raises(
        DatasetError, match=r"instances\.json, image 1, result 0: expected `score` to be an integer or a number"
    ):
        CocoResultsReader(path, tmp_path)


BAD_RESULTS: list[tuple[Callable[[dict[str, Any]], Any], str, str]] = [
    (
        lambda r: r.update(image_id=7),
        "annotation-without-image",
        r"results\.json, image 7, result 1: expected an image_id of .*\(1, 'two'\), got 7",
    ),
    (lambda r: r.update(image_id="1"), "annotation-without-image", r"got '1'"),
    (
        lambda r: r.update(image_id=True),
        "type-wrong",
        r"result 1: expected `image_id` to be an integer or a string, got True",
    ),
    (lambda r: r.pop("image_id"), "key-missing", r"result 1: expected `image_id`"),
    (
        lambda r: r.update(category_id=7),
        "category-unknown",
        r"image 1, result 1: expected a category_id .*\(1, 3, 10, 20\), got 7",
    ),
    (
        lambda r: r.update(category_id=SKY),
        "category-unknown",
        "expected the category_id of a thing, got 10, which is stuff",
    ),
    (lambda r: r.update(category_id="cat"), "type-wrong", "expected `category_id` to be an integer, got 'cat'"),
    (lambda r: r.pop("category_id"), "key-missing", "expected `category_id` to be an integer, got none"),
    (lambda r: r.pop("segmentation"), "key-missing", "expected a mask in `segmentation`, got none; export masks"),
    (
        lambda r: r.update(segmentation=None),
        "type-wrong",
        "expected `segmentation` to be a list or an object, got None",
    ),
    (
        lambda r: r.update(segmentation=[[0, 0]]),
        "mask-invalid",
        "expected RLE or polygons of three or more points, got none",
    ),
    (lambda r: r.update(score=float("nan")), "number-not-finite", "expected `score` to be a finite number, got nan"),
    (lambda r: r.update(score=float("inf")), "number-not-finite", "expected `score` to be a finite number, got inf"),
    (lambda r: r.update(score="0.9"), "type-wrong", "expected `score` to be an integer or a number, got '0.9'"),
    (lambda r: r.update(score=None), "type-wrong", "expected `score` to be an integer or a number, got None"),
    (lambda r: r.pop("score"), "key-missing", "expected `score` to be an integer or a number, got none"),
    (lambda r: r.update(iscrowd=2), "iscrowd-invalid", "expected `iscrowd` to be 0 or 1, got 2"),
    (
        lambda r: r["segmentation"].update(size=[4, 1]),
        "rle-size",
        r"bad segmentation: .* size of \[1, 4\], got \[4, 1\]",
    ),
    (lambda r: r["segmentation"].update(counts=[1, 1]), "mask-invalid", "add up to 4 pixels, got 2"),
    (lambda r: r["segmentation"].update(counts="\x00"), "mask-invalid", "expected RLE counts to be run lengths"),
]


@pytest.mark.parametrize(("damage", "code", "message"), BAD_RESULTS)
def test_each_kind_of_invalid_result_is_reported_and_left_out(
    tmp_path: Path, damage: Callable[[dict[str, Any]], Any], code: str, message: str
) -> None:
    """The invalid result stands between two valid results, which are read."""
    entry = build_result([1, 0, 0, 0])
    damage(entry)
    entries = [build_result([0, 1, 0, 0]), entry, build_result([0, 0, 1, 0])]
    with pytest.raises(DatasetError, match=message):
        write_results(tmp_path, entries)
    reported: list[tuple[str, DatasetError]] = []
    reader = write_results(tmp_path, entries, on_issue=lambda code, error: reported.append((code, error)))
    assert [code for code, _ in reported] == [code]
    assert code in RULES
    assert re.search(message, str(reported[0][1]))
    assert read_first_map(reader)[0] == [[0, 2, 1, 0]]
    assert reader.skipped == (f"{tmp_path}/results.json: 1 of 2 images have no result left: 'two'",)


def test_all_invalid_results_are_reported(tmp_path: Path) -> None:
    entries = [build_result([1, 0, 0, 0]) for _ in BAD_RESULTS]
    for entry, (damage, *_) in zip(entries, BAD_RESULTS, strict=True):
        damage(entry)
    reported: list[str] = []
    write_results(
        tmp_path, [*entries, build_result([1, 0, 0, 0], 0.1)], on_issue=lambda code, error: reported.append(code)
    )
    assert sorted(reported) == sorted(code for _, code, _ in BAD_RESULTS)


def test_the_results_reader_rejects_a_panoptic_json(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"got a panoptic JSON; use the format panoptic-predictions"):
        write_results(tmp_path, [{"segments_info": []}], on_issue=lambda code, error: None)


@pytest.mark.parametrize(
    ("entries", "dataset", "message"),
    [
        ({"annotations": []}, DATASET, r"results\.json: expected a list of results, got a dict"),
        ([3], DATASET, r"results\.json: expected the list to hold objects"),
        ([], {"images": IMAGES}, r"dataset\.json: .* without `categories`; give one that has both as `dataset`$"),
        ([], {}, r"without `images` and `categories`"),
        ([], [], r"dataset\.json: expected an object with images"),
        ([], {**DATASET, "images": [{**IMAGES[0], "file_name": "../x.png"}]}, "a path inside its folder"),
        ([], {**DATASET, "images": [{**IMAGES[0], "height": 10**6, "width": 10**3}]}, "expected at most .* pixels"),
        ([], {**DATASET, "images": [{**IMAGES[0], "height": 10**6, "width": 10**6}]}, "4294967295 pixels in all"),
        ([], {**DATASET, "images": [IMAGES[0]] * 2}, "expected distinct image ids"),
        ([], {**DATASET, "categories": []}, "expected at least one category"),
    ],
)
def test_invalid_files_raise_a_dataset_error(tmp_path: Path, entries: object, dataset: object, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        write_results(tmp_path, entries, dataset)


def test_missing_truncated_or_nested_files_and_a_missing_dataset_raise_a_dataset_error(tmp_path: Path) -> None:
    write_results(tmp_path, [])
    paths = tmp_path / "images", tmp_path / "dataset.json"
    with pytest.raises(DatasetError, match=r"none\.json: expected a file"):
        CocoResultsReader(tmp_path / "none.json", *paths)
    with pytest.raises(DatasetError, match=r"results\.json: .*a results list has no images and categories"):
        CocoResultsReader(tmp_path / "results.json", paths[0])
    for text in ('[{"image_id": 1', "[" * 10**6):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(DatasetError, match=r"results\.json: expected JSON"):
            CocoResultsReader(tmp_path / "results.json", *paths)


@pytest.mark.parametrize("min_score", [float("nan"), float("inf"), "0.5", True, 10**400])
def test_min_score_must_be_a_finite_number(tmp_path: Path, min_score: Any) -> None:
    with pytest.raises(ValueError, match="min_score must be a finite number"):
        write_results(tmp_path, [], min_score=min_score)
    with pytest.raises(ValueError, match="min_score must be a finite number"):
        write_predictions(tmp_path, first_image(), min_score=min_score)


def write_predictions(folder: Path, *predicted: PanopticSegmentation, **options: Any) -> PanopticPredictionsReader:
    """Writes the predictions of the images 0.png, 1.png, ... and opens them."""
    with PanopticWriter(folder / "p.json", folder / "p", CATEGORIES) as writer:
        for image_id, segmentation in enumerate(predicted):
            writer.add(image_id, f"sub/{image_id}.png", segmentation)
    return PanopticPredictionsReader(folder / "p.json", folder / "p", folder / "images", **options)


def build_prediction(*scores: float | None) -> PanopticSegmentation:
    """Returns one-pixel things 1, 2, ... with these scores, and a last pixel of sky with a score of 0.1."""
    ids = np.arange(1, len(scores) + 2, dtype=np.int32)[np.newaxis]
    things = [Segment(i, PERSON, True, 1, score=score) for i, score in enumerate(scores, 1)]
    return PanopticSegmentation(ids, (*things, Segment(len(scores) + 1, SKY, False, 1, score=0.1)))


def test_things_with_low_scores_become_void_and_other_segments_stay(tmp_path: Path) -> None:
    reader = write_predictions(tmp_path, build_prediction(0.9, 0.4999, 0.5, None))
    (image,) = reader.images
    assert (image.image_id, image.file_name, image.size_hw) == (0, "sub/0.png", (1, 5))
    assert (reader.categories, reader.root, reader.image_root) == (CATEGORIES, tmp_path, tmp_path / "images")
    segmentation = reader.read_segmentation(image)
    assert segmentation.segment_ids.tolist() == [[1, 0, 3, 4, 5]]
    assert segmentation.segments == (
        Segment(1, PERSON, True, 1),
        Segment(3, PERSON, True, 1),
        Segment(4, PERSON, True, 1),
        Segment(5, SKY, False, 1),
    )
    assert reader.skipped == (
        f"{tmp_path}/p.json: 1 of 4 things have a score below 0.5 and are void",
        f"{tmp_path}/p.json: 1 of 4 things have no score and are kept",
    )
    assert [a["bbox"] for a in reader.read_annotations(image)] == [[0, 0, 1, 1], [2, 0, 1, 1], [3, 0, 1, 1]]


def test_min_score_may_keep_all_or_none_of_the_things(tmp_path: Path) -> None:
    unfiltered = write_predictions(tmp_path, build_prediction(0.9, 0.1), min_score=0)
    assert unfiltered.read_segmentation(unfiltered.images[0]).segment_ids.tolist() == [[1, 2, 3]]
    assert unfiltered.skipped == ()
    filtered = write_predictions(tmp_path, build_prediction(0.9, 0.1), build_prediction(), min_score=0.91)
    assert filtered.read_segmentation(filtered.images[0]).segment_ids.tolist() == [[0, 0, 3]]
    assert filtered.read_segmentation(filtered.images[1]).segments == (Segment(1, SKY, False, 1),)


def test_stuff_segments_of_one_class_are_joined_and_are_no_crowd(tmp_path: Path) -> None:
    """Sky has the ids 9 and 4 and gets id 9, which is listed first. Grass and the crowd of cats do not change."""
    ids = np.array([[9, 4, 4, 7, 5]], dtype=np.int32)
    segments = (
        Segment(9, SKY, False, 1, iscrowd=True),
        Segment(7, 20, False, 1),
        Segment(4, SKY, False, 2),
        Segment(5, CAT, True, 1, iscrowd=True, score=1),
    )
    reader = write_predictions(tmp_path, PanopticSegmentation(ids, segments))
    segmentation = reader.read_segmentation(reader.images[0])
    assert segmentation.segment_ids.tolist() == [[9, 9, 9, 7, 5]]
    assert segmentation.segments == (
        Segment(9, SKY, False, 3),
        Segment(7, 20, False, 1),
        Segment(5, CAT, True, 1, True),
    )


def test_predictions_without_images_and_categories_take_them_from_a_dataset(tmp_path: Path) -> None:
    write_predictions(tmp_path, build_prediction(0.9), build_prediction(0.3))
    content = json.loads((tmp_path / "p.json").read_text())
    first, second = content["annotations"]
    images = [*content["images"], {"id": "c", "file_name": "c.png", "height": 1, "width": 1}]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": images, "categories": content["categories"]}))
    (tmp_path / "p.json").write_text(json.dumps({"annotations": [second, first]}))
    paths = tmp_path / "p.json", tmp_path / "p", tmp_path / "images"
    with pytest.raises(DatasetError, match=r"p\.json: .* without `images` and `categories`; .*`dataset`, beside this"):
        PanopticPredictionsReader(*paths)
    reader = PanopticPredictionsReader(*paths, tmp_path / "dataset.json")
    assert [image.image_id for image in reader.images] == [1, 0]
    assert [reader.read_segmentation(image).segment_ids.tolist() for image in reader.images] == [[[0, 2]], [[1, 2]]]
    assert reader.skipped[-1] == f"{tmp_path}/p.json: 1 images have no prediction: 'c'"


def test_an_empty_panoptic_json_has_no_images(tmp_path: Path) -> None:
    assert write_predictions(tmp_path).images == ()


BAD_PREDICTIONS: list[tuple[Callable[[dict[str, Any]], Any], str, str]] = [
    (
        lambda a: a.update(image_id=7),
        "annotation-without-image",
        r"p\.json, image 7: expected an image_id of .*p\.json \(0, 1, 2\), got 7",
    ),
    (lambda a: a.update(image_id=0), "annotation-unreadable", "image 0: expected one prediction, got two"),
    (lambda a: a.update(file_name="../0.png"), "annotation-unreadable", "a path inside its folder"),
    (lambda a: a.update(file_name="x.png"), "png-missing", r"x\.png: the PNG is missing \(1 of 3 are\); give"),
    (
        lambda a: a["segments_info"][0].update(category_id=7),
        "annotation-unreadable",
        "segment 1: expected a category_id",
    ),
    (
        lambda a: a["segments_info"][0].update(score=float("nan")),
        "number-not-finite",
        "segment 1: expected `score` to be a finite number",
    ),
    (
        lambda a: a["segments_info"][0].update(score="high"),
        "type-wrong",
        "segment 1: expected `score` to be an integer or a number, got 'high'",
    ),
    (
        lambda a: a["segments_info"][0].update(iscrowd=3),
        "iscrowd-invalid",
        "segment 1: expected `iscrowd` to be 0 or 1",
    ),
    (lambda a: a["segments_info"][0].update(id=2), "annotation-unreadable", "expected distinct segment ids"),
    (lambda a: a["segments_info"][0].update(id=0), "annotation-unreadable", "expected a segment id in 1"),
    (lambda a: a.pop("segments_info"), "annotation-unreadable", "expected `segments_info` to be a list"),
]


@pytest.mark.parametrize(("damage", "code", "message"), BAD_PREDICTIONS)
def test_each_kind_of_invalid_prediction_is_reported_and_left_out(
    tmp_path: Path, damage: Callable[[dict[str, Any]], Any], code: str, message: str
) -> None:
    """The valid predictions before and after it are read. Two predictions of one image are both dropped."""
    write_predictions(tmp_path, build_prediction(0.9), build_prediction(0.9), build_prediction(0.9))
    content = json.loads((tmp_path / "p.json").read_text())
    damage(content["annotations"][1])
    (tmp_path / "p.json").write_text(json.dumps(content))
    paths = tmp_path / "p.json", tmp_path / "p", tmp_path / "images"
    with pytest.raises(DatasetError, match=message):
        PanopticPredictionsReader(*paths)
    reported: list[tuple[str, DatasetError]] = []
    reader = PanopticPredictionsReader(*paths, on_issue=lambda code, error: reported.append((code, error)))
    assert [code for code, _ in reported] == [code]
    assert code in RULES
    assert re.search(message, str(reported[0][1]))
    assert [image.image_id for image in reader.images] == ([2] if "got two" in message else [0, 2])
    for image in reader.images:
        assert reader.read_segmentation(image).segment_ids.tolist() == [[1, 2]]


def test_all_invalid_segments_are_reported(tmp_path: Path) -> None:
    write_predictions(tmp_path, build_prediction(0.9, 0.8))
    content = json.loads((tmp_path / "p.json").read_text())
    content["annotations"][0]["segments_info"][0] |= {"iscrowd": 3, "score": "high"}
    content["annotations"][0]["segments_info"][1] |= {"score": float("nan")}
    content["annotations"][0] |= {"image_id": 5}
    (tmp_path / "p.json").write_text(json.dumps(content))
    reported: list[str] = []
    PanopticPredictionsReader(
        tmp_path / "p.json",
        tmp_path / "p",
        tmp_path,
        on_issue=lambda code, error: reported.append(f"{code} {error.where}"),
    )
    assert [line.replace(f"{tmp_path}/", "") for line in reported] == [
        "annotation-without-image p.json, image 5",
        "iscrowd-invalid p.json, image 5, segment 1",
        "type-wrong p.json, image 5, segment 1",
        "number-not-finite p.json, image 5, segment 2",
    ]


def test_the_panoptic_reader_rejects_an_instances_json(tmp_path: Path) -> None:
    write_predictions(tmp_path, build_prediction(0.9))
    content = json.loads((tmp_path / "p.json").read_text())
    del content["annotations"][0]["segments_info"]
    content["annotations"][0]["bbox"] = [0, 0, 1, 1]
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="this is an instances JSON"):
        PanopticPredictionsReader(tmp_path / "p.json", tmp_path / "p", tmp_path, on_issue=lambda code, error: None)


def test_missing_or_invalid_pngs_raise_a_dataset_error(tmp_path: Path) -> None:
    reader = write_predictions(tmp_path, build_prediction(0.9))
    (image,) = reader.images
    path = tmp_path / "p" / "0.png"
    coco.write_png(path, np.array([[1, 7]], dtype=np.int32))
    with pytest.raises(DatasetError, match=r"0\.png, image 0: the PNG has segment ids that the JSON lacks: 7"):
        reader.read_segmentation(image)
    coco.write_png(path, np.array([[1], [2]], dtype=np.int32))
    with pytest.raises(DatasetError, match=r"0\.png"):
        reader.read_segmentation(image)
    Image.fromarray(np.ones((1, 2), dtype=np.uint8)).save(path)
    with pytest.raises(DatasetError, match="greyscale"):
        reader.read_segmentation(image)
    path.unlink()
    with pytest.raises(DatasetError, match=r"0\.png: expected a file"):
        reader.read_segmentation(image)


def test_the_panoptic_reader_rejects_a_results_list(tmp_path: Path) -> None:
    reader = write_results(tmp_path, [build_result([1, 0, 0, 0])])
    with pytest.raises(DatasetError, match="expected an object"):
        PanopticPredictionsReader(reader.root / "results.json", tmp_path, tmp_path, tmp_path / "dataset.json")


@given(seed=st.integers(0, 2**32), damaged_name=st.sampled_from(["results", "dataset", "panoptic"]))
@settings(max_examples=200, deadline=None)
def test_files_with_junk_values_are_read_or_raise_a_dataset_error(
    tmp_path_factory: pytest.TempPathFactory, seed: int, damaged_name: str
) -> None:
    random, folder = Random(seed), tmp_path_factory.getbasetemp() / "spoilt"
    folder.mkdir(exist_ok=True)
    junk = random.choice(JUNK)
    contents: dict[str, Any] = {
        "results": [build_result([1, 1, 0, 0], 0.9), build_result([0, 1, 1, 0])],
        "dataset": DATASET,
    }
    if not (folder / "valid.json").exists():
        write_predictions(folder, build_prediction(0.9, 0.3))
        (folder / "p.json").rename(folder / "valid.json")
    contents["panoptic"] = json.loads((folder / "valid.json").read_text())
    contents[damaged_name] = spoil(contents[damaged_name], random.randrange, junk)
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    paths = folder / "panoptic.json", folder / "p", folder
    dataset = folder / "dataset.json"
    for open_reader in (
        lambda: CocoResultsReader(folder / "results.json", folder, dataset),
        lambda: PanopticPredictionsReader(*paths),
        lambda: PanopticPredictionsReader(*paths, dataset),
    ):
        with contextlib.suppress(DatasetError):
            reader = open_reader()
            for image in reader.images:
                segmentation = reader.read_segmentation(image)
                assert segmentation.runs.areas_px().keys() - {0} == {s.segment_id for s in segmentation.segments}
                reader.read_annotations(image)


def test_results_are_equal_without_the_fast_json_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [build_result([1, 1, 0, 0], 0.5), build_result([0, 1, 1, 0], 0.75, CAT)]
    fast = read_first_map(write_results(tmp_path, entries))
    monkeypatch.setattr("segkit.formats.coco.instances.FAST_JSON", False)
    assert read_first_map(write_results(tmp_path, entries)) == fast
