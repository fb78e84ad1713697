"""Predictions as truth: results lists and panoptic predictions of tiny images, by literal maps."""

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


def result(mask: list[int], score: object = 0.9, category_id: int = PERSON, image_id: object = 1) -> dict[str, Any]:
    """A result of a 1 x 4 image; its box is of no mask."""
    rle = mask_to_rle(np.array([mask], dtype=np.bool_))
    return {"image_id": image_id, "category_id": category_id, "bbox": [0.25, 0, 9.5, 1], "score": score} | {
        "segmentation": rle
    }


def results(folder: Path, entries: object, dataset: object = DATASET, **options: Any) -> CocoResultsReader:
    (folder / "results.json").write_text(json.dumps(entries))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return CocoResultsReader(folder / "results.json", folder / "images", folder / "dataset.json", **options)


def drawn(source: CocoResultsReader) -> tuple[list[list[int]], dict[int, tuple[int, int]]]:
    """The map of the first image, and class and area of each of its segments."""
    found = source.read_segmentation(source.images[0])
    return found.segment_ids.tolist(), {s.segment_id: (s.category_id, s.area_px) for s in found.segments}


def test_results_become_things_without_scores(tmp_path: Path) -> None:
    """The image without results is void. Boxes are those of the masks: columns 1 and 2, column 3."""
    source = results(tmp_path, [result([0, 1, 1, 0], 0.9), result([0, 0, 0, 1], 0.8, CAT)])
    assert [(i.image_id, i.file_name, i.size_hw) for i in source.images] == [
        (1, "one.png", (1, 4)),
        ("two", "sub/two.png", (1, 4)),
    ]
    assert source.categories == CATEGORIES
    assert (source.root, source.image_root) == (tmp_path, tmp_path / "images")
    assert drawn(source) == ([[0, 2, 2, 1]], {1: (CAT, 1), 2: (PERSON, 2)})
    assert [s.score for s in source.read_segmentation(source.images[0]).segments] == [None, None]
    cat, person = source.read_annotations(source.images[0])
    assert cat == {
        "image_id": 1,
        "category_id": CAT,
        "iscrowd": 0,
        "area": 1,
        "bbox": [3, 0, 1, 1],
        "segmentation": mask_to_rle(np.array([[0, 0, 0, 1]], dtype=np.bool_)),
    }
    assert (person["area"], person["bbox"]) == (2, [1, 0, 2, 1])
    assert source.read_segmentation(source.images[1]).segment_ids.tolist() == [[0, 0, 0, 0]]
    assert source.read_annotations(source.images[1]) == []
    assert source.skipped == (f"{tmp_path}/results.json: 1 of 2 images have no result left: 'two'",)


def test_a_score_of_just_min_score_is_kept_and_the_rest_is_counted(tmp_path: Path) -> None:
    entries = [
        result([1, 0, 0, 0], 0.5),
        result([0, 1, 0, 0], 0.4999),
        result([0, 0, 0, 0], 1),
        result([0, 0, 1, 0], 0),
    ]
    source = results(tmp_path, [*entries, result([1, 1, 1, 1], 1, image_id="two")])
    assert drawn(source)[0] == [[1, 0, 0, 0]]
    assert source.skipped == (
        f"{tmp_path}/results.json: 2 of 5 results have a score below 0.5",
        f"{tmp_path}/results.json: 1 of 5 results have a mask without a pixel",
    )
    assert drawn(results(tmp_path, entries, min_score=0.4999))[0] == [[2, 1, 0, 0]]
    assert drawn(results(tmp_path, entries, min_score=0))[0] == [[3, 2, 1, 0]]
    everything_low = results(tmp_path, entries, min_score=2)
    assert drawn(everything_low) == ([[0, 0, 0, 0]], {})
    assert everything_low.skipped[1].endswith("2 of 2 images have no result left: 1, 'two'")


def test_the_highest_score_is_on_top_whatever_the_order(tmp_path: Path) -> None:
    """Cat (0.8) and person (0.9) share pixel 1; the person has it. In the annotations, the person comes last."""
    person, cat = result([0, 1, 1, 0], 0.9), result([1, 1, 0, 0], 0.8, CAT)
    for entries in ([person, cat], [cat, person]):
        source = results(tmp_path, entries)
        assert drawn(source) == ([[1, 2, 2, 0]], {1: (CAT, 1), 2: (PERSON, 2)})
        assert [a["area"] for a in source.read_annotations(source.images[0])] == [2, 2]


def test_of_equal_scores_the_earlier_is_on_top(tmp_path: Path) -> None:
    """All have pixel 1, the first keeps it; of the same mask as another's, the cat is hidden."""
    entries = [result([0, 1, 1, 0], 0.7), result([1, 1, 0, 0], 0.7), result([0, 1, 1, 0], 0.7, CAT)]
    source = results(tmp_path, entries)
    assert drawn(source) == ([[2, 3, 3, 0]], {2: (PERSON, 1), 3: (PERSON, 2)})
    assert [a["category_id"] for a in source.read_annotations(source.images[0])] == [CAT, PERSON, PERSON]


def test_other_overlaps(tmp_path: Path) -> None:
    """The first has 3 pixels and the higher score, the second 2 pixels; they share pixel 2."""
    entries = [result([1, 1, 1, 0], 0.9), result([0, 0, 1, 1], 0.6)]
    assert drawn(results(tmp_path, entries))[0] == [[2, 2, 2, 1]]
    assert drawn(results(tmp_path, entries, overlap="small_on_top"))[0] == [[1, 1, 2, 2]]
    assert drawn(results(tmp_path, entries[::-1], overlap="later_on_top"))[0] == [[2, 2, 2, 1]]
    with pytest.raises(ValueError, match=r"overlap must be one of \('score_on_top', 'small_on_top', 'later_on_top'\)"):
        results(tmp_path, entries, overlap="random")


def test_crowds_stay_crowds_below_all_others(tmp_path: Path) -> None:
    source = results(tmp_path, [{**result([1, 1, 0, 0], 1), "iscrowd": 1}, result([0, 1, 1, 0], 0.5)])
    found = source.read_segmentation(source.images[0])
    assert found.segment_ids.tolist() == [[2, 1, 1, 0]]
    assert [s.iscrowd for s in found.segments] == [False, True]
    assert [a["iscrowd"] for a in source.read_annotations(source.images[0])] == [0, 1]


def test_masks_of_any_coding(tmp_path: Path) -> None:
    """Run lengths that are not compressed, one with a run of nothing; a polygon around pixels 1 and 2."""
    runs = {**result([], CAT), "segmentation": {"size": [1, 4], "counts": [1, 1, 2]}}
    strange = {**runs, "segmentation": {"size": [1, 4], "counts": [0, 0, 3, 1]}}
    polygon = {**runs, "segmentation": [[1, 0, 3, 0, 3, 1, 1, 1], [0, 0]]}
    for entry, mask, box in (
        (runs, [[0, 1, 0, 0]], [1, 0, 1, 1]),
        (strange, [[0, 0, 0, 1]], [3, 0, 1, 1]),
        (polygon, [[0, 1, 1, 0]], [1, 0, 2, 1]),
    ):
        source = results(tmp_path, [{**entry, "score": 1}])
        assert drawn(source)[0] == mask
        (annotation,) = source.read_annotations(source.images[0])
        assert annotation["bbox"] == box
        assert annotation["segmentation"] == mask_to_rle(np.array(mask, dtype=np.bool_))


def test_no_results_at_all(tmp_path: Path) -> None:
    source = results(tmp_path, [])
    assert drawn(source) == ([[0, 0, 0, 0]], {})
    assert len(source.skipped) == 1


def test_categories_that_do_not_say_isthing_are_things(tmp_path: Path) -> None:
    bare = {**DATASET, "categories": [{"id": 1, "name": "nucleus"}]}
    assert results(tmp_path, [result([1, 0, 0, 0])], bare).categories[1].isthing
    half = {**DATASET, "categories": [{"id": 1, "name": "nucleus"}, {"id": 2, "name": "sky", "isthing": 0}]}
    with pytest.raises(DatasetError, match=r"dataset\.json, category 1: expected `isthing`"):
        results(tmp_path, [], half)


def test_an_instances_json_with_scores_needs_no_dataset(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    entries = [{"id": 1, "area": 3.5, **result([1, 1, 0, 0], 0.6)}, {"id": 2, "area": 1, **result([0, 1, 1, 0], 0.4)}]
    path.write_text(json.dumps({**DATASET, "annotations": entries}))
    source = CocoResultsReader(path, tmp_path)
    assert drawn(source) == ([[1, 1, 0, 0]], {1: (PERSON, 2)})
    assert source.read_annotations(source.images[0])[0]["area"] == 2
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


@pytest.mark.parametrize(("spoil_it", "code", "message"), BAD_RESULTS)
def test_bad_results_are_told_and_left_out(
    tmp_path: Path, spoil_it: Callable[[dict[str, Any]], Any], code: str, message: str
) -> None:
    """It lies between two sound ones, which stay."""
    entry = result([1, 0, 0, 0])
    spoil_it(entry)
    entries = [result([0, 1, 0, 0]), entry, result([0, 0, 1, 0])]
    with pytest.raises(DatasetError, match=message):
        results(tmp_path, entries)
    told: list[tuple[str, DatasetError]] = []
    source = results(tmp_path, entries, on_issue=lambda code, error: told.append((code, error)))
    assert [code for code, _ in told] == [code]
    assert code in RULES
    assert re.search(message, str(told[0][1]))
    assert drawn(source)[0] == [[0, 2, 1, 0]]
    assert source.skipped == (f"{tmp_path}/results.json: 1 of 2 images have no result left: 'two'",)


def test_all_bad_results_are_told(tmp_path: Path) -> None:
    entries = [result([1, 0, 0, 0]) for _ in BAD_RESULTS]
    for entry, (spoil_it, *_) in zip(entries, BAD_RESULTS, strict=True):
        spoil_it(entry)
    told: list[str] = []
    results(tmp_path, [*entries, result([1, 0, 0, 0], 0.1)], on_issue=lambda code, error: told.append(code))
    assert sorted(told) == sorted(code for _, code, _ in BAD_RESULTS)


def test_a_panoptic_json_is_no_list_of_results(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"got a panoptic JSON; use the format panoptic-predictions"):
        results(tmp_path, [{"segments_info": []}], on_issue=lambda code, error: None)


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
def test_bad_files_are_told(tmp_path: Path, entries: object, dataset: object, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        results(tmp_path, entries, dataset)


def test_files_that_are_missing_cut_off_nested_or_in_need_of_a_dataset(tmp_path: Path) -> None:
    results(tmp_path, [])
    places = tmp_path / "images", tmp_path / "dataset.json"
    with pytest.raises(DatasetError, match=r"none\.json: expected a file"):
        CocoResultsReader(tmp_path / "none.json", *places)
    with pytest.raises(DatasetError, match=r"results\.json: .*a results list has no images and categories"):
        CocoResultsReader(tmp_path / "results.json", places[0])
    for text in ('[{"image_id": 1', "[" * 10**6):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(DatasetError, match=r"results\.json: expected JSON"):
            CocoResultsReader(tmp_path / "results.json", *places)


@pytest.mark.parametrize("min_score", [float("nan"), float("inf"), "0.5", True, None, 10**400])
def test_a_min_score_that_is_no_number(tmp_path: Path, min_score: Any) -> None:
    with pytest.raises(ValueError, match="min_score must be a finite number"):
        results(tmp_path, [], min_score=min_score)
    with pytest.raises(ValueError, match="min_score must be a finite number"):
        panoptic(tmp_path, first_image(), min_score=min_score)


def panoptic(folder: Path, *predicted: PanopticSegmentation, **options: Any) -> PanopticPredictionsReader:
    """Images 0.png, 1.png, ... with these predictions."""
    with PanopticWriter(folder / "p.json", folder / "p", CATEGORIES) as writer:
        for image_id, segmentation in enumerate(predicted):
            writer.add(image_id, f"sub/{image_id}.png", segmentation)
    return PanopticPredictionsReader(folder / "p.json", folder / "p", folder / "images", **options)


def scored(*scores: float | None) -> PanopticSegmentation:
    """Things 1, 2, ... of these scores, a pixel each, and a last pixel of sky whose score is 0.1."""
    ids = np.arange(1, len(scores) + 2, dtype=np.int32)[np.newaxis]
    things = [Segment(i, PERSON, True, 1, score=score) for i, score in enumerate(scores, 1)]
    return PanopticSegmentation(ids, (*things, Segment(len(scores) + 1, SKY, False, 1, score=0.1)))


def test_things_of_low_scores_become_void_and_all_else_stays(tmp_path: Path) -> None:
    source = panoptic(tmp_path, scored(0.9, 0.4999, 0.5, None))
    (image,) = source.images
    assert (image.image_id, image.file_name, image.size_hw) == (0, "sub/0.png", (1, 5))
    assert (source.categories, source.root, source.image_root) == (CATEGORIES, tmp_path, tmp_path / "images")
    found = source.read_segmentation(image)
    assert found.segment_ids.tolist() == [[1, 0, 3, 4, 5]]
    assert found.segments == (
        Segment(1, PERSON, True, 1),
        Segment(3, PERSON, True, 1),
        Segment(4, PERSON, True, 1),
        Segment(5, SKY, False, 1),
    )
    assert source.skipped == (
        f"{tmp_path}/p.json: 1 of 4 things have a score below 0.5 and are void",
        f"{tmp_path}/p.json: 1 of 4 things have no score and are kept",
    )
    assert [a["bbox"] for a in source.read_annotations(image)] == [[0, 0, 1, 1], [2, 0, 1, 1], [3, 0, 1, 1]]


def test_all_and_none_of_the_things(tmp_path: Path) -> None:
    everything = panoptic(tmp_path, scored(0.9, 0.1), min_score=0)
    assert everything.read_segmentation(everything.images[0]).segment_ids.tolist() == [[1, 2, 3]]
    assert everything.skipped == ()
    nothing = panoptic(tmp_path, scored(0.9, 0.1), scored(), min_score=0.91)
    assert nothing.read_segmentation(nothing.images[0]).segment_ids.tolist() == [[0, 0, 3]]
    assert nothing.read_segmentation(nothing.images[1]).segments == (Segment(1, SKY, False, 1),)


def test_stuff_of_one_class_is_one_segment_and_no_crowd(tmp_path: Path) -> None:
    """Sky has the ids 9 and 4, of which 9 is listed first; grass keeps its own, the crowd of things its flag."""
    ids = np.array([[9, 4, 4, 7, 5]], dtype=np.int32)
    segments = (
        Segment(9, SKY, False, 1, iscrowd=True),
        Segment(7, 20, False, 1),
        Segment(4, SKY, False, 2),
        Segment(5, CAT, True, 1, iscrowd=True, score=1),
    )
    source = panoptic(tmp_path, PanopticSegmentation(ids, segments))
    found = source.read_segmentation(source.images[0])
    assert found.segment_ids.tolist() == [[9, 9, 9, 7, 5]]
    assert found.segments == (Segment(9, SKY, False, 3), Segment(7, 20, False, 1), Segment(5, CAT, True, 1, True))


def test_a_submission_takes_images_and_categories_from_a_dataset(tmp_path: Path) -> None:
    panoptic(tmp_path, scored(0.9), scored(0.3))
    content = json.loads((tmp_path / "p.json").read_text())
    first, second = content["annotations"]
    images = [*content["images"], {"id": "c", "file_name": "c.png", "height": 1, "width": 1}]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": images, "categories": content["categories"]}))
    (tmp_path / "p.json").write_text(json.dumps({"annotations": [second, first]}))
    places = tmp_path / "p.json", tmp_path / "p", tmp_path / "images"
    with pytest.raises(DatasetError, match=r"p\.json: .* without `images` and `categories`; .*`dataset`, beside this"):
        PanopticPredictionsReader(*places)
    source = PanopticPredictionsReader(*places, tmp_path / "dataset.json")
    assert [image.image_id for image in source.images] == [1, 0]
    assert [source.read_segmentation(image).segment_ids.tolist() for image in source.images] == [[[0, 2]], [[1, 2]]]
    assert source.skipped[-1] == f"{tmp_path}/p.json: 1 images have no prediction: 'c'"


def test_no_predictions_at_all(tmp_path: Path) -> None:
    assert panoptic(tmp_path).images == ()


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


@pytest.mark.parametrize(("spoil_it", "code", "message"), BAD_PREDICTIONS)
def test_bad_predictions_are_told_and_left_out(
    tmp_path: Path, spoil_it: Callable[[dict[str, Any]], Any], code: str, message: str
) -> None:
    """It lies between two sound ones, which stay; but of two of one image, neither is taken."""
    panoptic(tmp_path, scored(0.9), scored(0.9), scored(0.9))
    content = json.loads((tmp_path / "p.json").read_text())
    spoil_it(content["annotations"][1])
    (tmp_path / "p.json").write_text(json.dumps(content))
    places = tmp_path / "p.json", tmp_path / "p", tmp_path / "images"
    with pytest.raises(DatasetError, match=message):
        PanopticPredictionsReader(*places)
    told: list[tuple[str, DatasetError]] = []
    source = PanopticPredictionsReader(*places, on_issue=lambda code, error: told.append((code, error)))
    assert [code for code, _ in told] == [code]
    assert code in RULES
    assert re.search(message, str(told[0][1]))
    assert [image.image_id for image in source.images] == ([2] if "got two" in message else [0, 2])
    for image in source.images:
        assert source.read_segmentation(image).segment_ids.tolist() == [[1, 2]]


def test_all_bad_segments_are_told(tmp_path: Path) -> None:
    panoptic(tmp_path, scored(0.9, 0.8))
    content = json.loads((tmp_path / "p.json").read_text())
    content["annotations"][0]["segments_info"][0] |= {"iscrowd": 3, "score": "high"}
    content["annotations"][0]["segments_info"][1] |= {"score": float("nan")}
    content["annotations"][0] |= {"image_id": 5}
    (tmp_path / "p.json").write_text(json.dumps(content))
    told: list[str] = []
    PanopticPredictionsReader(
        tmp_path / "p.json", tmp_path / "p", tmp_path, on_issue=lambda code, error: told.append(f"{code} {error.where}")
    )
    assert [line.replace(f"{tmp_path}/", "") for line in told] == [
        "annotation-without-image p.json, image 5",
        "iscrowd-invalid p.json, image 5, segment 1",
        "type-wrong p.json, image 5, segment 1",
        "number-not-finite p.json, image 5, segment 2",
    ]


def test_an_instances_json_is_no_panoptic_one(tmp_path: Path) -> None:
    panoptic(tmp_path, scored(0.9))
    content = json.loads((tmp_path / "p.json").read_text())
    del content["annotations"][0]["segments_info"]
    content["annotations"][0]["bbox"] = [0, 0, 1, 1]
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="this is an instances JSON"):
        PanopticPredictionsReader(tmp_path / "p.json", tmp_path / "p", tmp_path, on_issue=lambda code, error: None)


def test_pngs_that_are_missing_or_of_something_else(tmp_path: Path) -> None:
    source = panoptic(tmp_path, scored(0.9))
    (image,) = source.images
    path = tmp_path / "p" / "0.png"
    coco.write_png(path, np.array([[1, 7]], dtype=np.int32))
    with pytest.raises(DatasetError, match=r"0\.png, image 0: the PNG has segment ids that the JSON lacks: 7"):
        source.read_segmentation(image)
    coco.write_png(path, np.array([[1], [2]], dtype=np.int32))
    with pytest.raises(DatasetError, match=r"0\.png"):
        source.read_segmentation(image)
    Image.fromarray(np.ones((1, 2), dtype=np.uint8)).save(path)
    with pytest.raises(DatasetError, match="greyscale"):
        source.read_segmentation(image)
    path.unlink()
    with pytest.raises(DatasetError, match=r"0\.png: expected a file"):
        source.read_segmentation(image)


def test_a_results_list_is_no_panoptic_json(tmp_path: Path) -> None:
    source = results(tmp_path, [result([1, 0, 0, 0])])
    with pytest.raises(DatasetError, match="expected an object"):
        PanopticPredictionsReader(source.root / "results.json", tmp_path, tmp_path, tmp_path / "dataset.json")


@given(seed=st.integers(0, 2**32), what=st.sampled_from(["results", "dataset", "panoptic"]))
@settings(max_examples=200, deadline=None)
def test_whatever_is_in_a_file_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, seed: int, what: str
) -> None:
    random, folder = Random(seed), tmp_path_factory.getbasetemp() / "spoilt"
    folder.mkdir(exist_ok=True)
    junk = random.choice(JUNK)
    contents: dict[str, Any] = {"results": [result([1, 1, 0, 0], 0.9), result([0, 1, 1, 0])], "dataset": DATASET}
    if not (folder / "p.json.kept").exists():
        panoptic(folder, scored(0.9, 0.3))
        (folder / "p.json").rename(folder / "p.json.kept")
    contents["panoptic"] = json.loads((folder / "p.json.kept").read_text())
    contents[what] = spoil(contents[what], random.randrange, junk)
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    places = folder / "panoptic.json", folder / "p", folder
    dataset = folder / "dataset.json"
    for make in (
        lambda: CocoResultsReader(folder / "results.json", folder, dataset),
        lambda: PanopticPredictionsReader(*places),
        lambda: PanopticPredictionsReader(*places, dataset),
    ):
        with contextlib.suppress(DatasetError):
            source = make()
            for image in source.images:
                found = source.read_segmentation(image)
                assert found.runs.areas_px().keys() - {0} == {s.segment_id for s in found.segments}
                source.read_annotations(image)


def test_the_slow_json_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [result([1, 1, 0, 0], 0.5), result([0, 1, 1, 0], 0.75, CAT)]
    fast = drawn(results(tmp_path, entries))
    monkeypatch.setattr("segkit.formats.coco.instances.FAST_JSON", False)
    assert drawn(results(tmp_path, entries)) == fast
