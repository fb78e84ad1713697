"""Predictions converted to datasets: the check reports no error, and the dataset holds the predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.curation.checks.instances import check_instances
from segkit.curation.checks.panoptic import check_panoptic
from segkit.curation.convert import convert
from segkit.curation.issues import IssueList
from segkit.formats.base import DatasetReader
from segkit.formats.coco import (
    CocoInstancesReader,
    CocoPanopticReader,
    CocoResultsReader,
    PanopticPredictionsReader,
    PanopticWriter,
)
from segkit.formats.registry import WRITERS
from segkit.structures import CategorySet, PanopticSegmentation, Segment, mask_to_rle
from segkit.utils.errors import DatasetError
from tests.helpers.damaged_datasets import CATEGORIES, SIZE_HW, write_images

IMAGES = [{"id": f"i{n}", "file_name": f"{n}.png", "height": SIZE_HW[0], "width": SIZE_HW[1]} for n in range(6)]
PERSON, CAT, SKY = 1, 3, 10
SegmentSet = set[tuple[int, bool, tuple[int, ...]]]


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, dtype=np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def build_result(mask: np.ndarray, score: float, category_id: int = PERSON, image_id: str = "i0") -> dict[str, Any]:
    """A result with a box that fits no mask, as detection heads predict them."""
    entry = {"image_id": image_id, "category_id": category_id, "bbox": [-0.5, 0.5, 3.25, 99], "score": score}
    return {**entry, "segmentation": mask_to_rle(mask)}


def open_results(folder: Path, entries: list[dict[str, Any]], **options: Any) -> CocoResultsReader:
    write_images(folder / "images")
    (folder / "results.json").write_text(json.dumps(entries))
    (folder / "dataset.json").write_text(json.dumps({"images": IMAGES, "categories": CATEGORIES.to_coco()}))
    return CocoResultsReader(folder / "results.json", folder / "images", folder / "dataset.json", **options)


def open_predictions(folder: Path, predicted: list[PanopticSegmentation], **options: Any) -> DatasetReader:
    write_images(folder / "images")
    with PanopticWriter(folder / "panoptic.json", folder / "panoptic", CATEGORIES) as writer:
        for image, segmentation in zip(IMAGES, predicted, strict=False):
            writer.add(image["id"], image["file_name"], segmentation)
    return PanopticPredictionsReader(folder / "panoptic.json", folder / "panoptic", folder / "images", **options)


def to_panoptic(reader: DatasetReader, output: Path) -> tuple[CocoPanopticReader, IssueList, list[str]]:
    """Returns the converted dataset, its issues, and the losses."""
    losses = convert(reader, WRITERS["coco-panoptic"](output, reader.categories), copy_images=True)
    paths = output / "panoptic.json", output / "panoptic", output / "images"
    return CocoPanopticReader(*paths), check_panoptic(*paths, map), [loss.description for loss in losses]


def to_instances(reader: DatasetReader, output: Path) -> tuple[CocoInstancesReader, IssueList, list[str]]:
    losses = convert(reader, WRITERS["coco-instances"](output, reader.categories), copy_images=True)
    paths = output / "instances.json", output / "images"
    written = CocoInstancesReader(*paths, overlap="later_on_top")
    return written, check_instances(*paths, map), [loss.description for loss in losses]


def get_segments(ground_truth: PanopticSegmentation, kinds: tuple[bool, ...] = (True, False)) -> SegmentSet:
    """Returns (category_id, iscrowd, pixel indices) of each segment; kinds: True for things, False for stuff."""
    ids = ground_truth.segment_ids.ravel()
    segments = [s for s in ground_truth.segments if s.isthing in kinds]
    return {(s.category_id, s.iscrowd, tuple(np.flatnonzero(ids == s.segment_id))) for s in segments}


def get_pixel_indices(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(mask))


LOWER, UPPER, WEAK = box(0, 0, 4, 4), box(2, 2, 6, 6), box(0, 5, 2, 8)


def test_results_are_converted_to_panoptic(tmp_path: Path) -> None:
    """The cat (0.9) gets the 4 pixels that it shares with the person; the weak one is dropped; five images are void."""
    reader = open_results(tmp_path, [build_result(UPPER, 0.9, CAT), build_result(LOWER, 0.5), build_result(WEAK, 0.49)])
    written, issues, losses = to_panoptic(reader, tmp_path / "out")
    assert not issues.has_errors()
    assert {issue.code for issue in issues} == {"all-void", "class-empty"}  # two classes of stuff
    assert losses == ["annotations: 4 pixels under other masks cannot be held"]
    assert (written.images, written.categories) == (reader.images, CATEGORIES)
    ground_truth = written.read_segmentation(written.images[0])
    assert get_segments(ground_truth) == {
        (CAT, False, get_pixel_indices(UPPER)),
        (PERSON, False, get_pixel_indices(LOWER & ~UPPER)),
    }
    assert [s.score for s in ground_truth.segments] == [None, None]
    assert '"score"' not in (tmp_path / "out" / "panoptic.json").read_text()
    assert np.array_equal(written.read_image(written.images[0]), reader.read_image(reader.images[0]))


def test_results_converted_to_instances_keep_whole_masks(tmp_path: Path) -> None:
    reader = open_results(tmp_path, [build_result(UPPER, 0.9, CAT), build_result(LOWER, 0.5), build_result(WEAK, 0.49)])
    written, issues, losses = to_instances(reader, tmp_path / "out")
    assert (issues, losses) == ([], [])
    assert written.categories == CategorySet(CATEGORIES.things)
    person, cat = written.read_annotations(written.images[0])
    assert (person["segmentation"], cat["segmentation"]) == (mask_to_rle(LOWER), mask_to_rle(UPPER))
    assert (person["bbox"], cat["bbox"]) == ([0, 0, 4, 4], [2, 2, 4, 4])
    assert (person["area"], cat["area"]) == (16, 16)
    assert '"score"' not in (tmp_path / "out" / "instances.json").read_text()
    assert written.read_annotations(written.images[1]) == []


def test_images_without_results_are_void(tmp_path: Path) -> None:
    reader = open_results(tmp_path, [])
    written, issues, losses = to_panoptic(reader, tmp_path / "p")
    assert losses == []
    assert {issue.code for issue in issues} == {"all-void"}
    assert len(written.images) == len(IMAGES)
    _, issues, losses = to_instances(reader, tmp_path / "i")
    assert ([issue.code for issue in issues], losses) == (["annotations-empty"], [])


def test_equal_scores_agree_in_both_formats(tmp_path: Path) -> None:
    """The earlier result gets the 4 pixels; painting the instances in their order gives the same."""
    reader = open_results(tmp_path, [build_result(LOWER, 0.7), build_result(UPPER, 0.7)])
    expected = {(PERSON, False, get_pixel_indices(LOWER)), (PERSON, False, get_pixel_indices(UPPER & ~LOWER))}
    for written, issues, _ in (to_panoptic(reader, tmp_path / "p"), to_instances(reader, tmp_path / "i")):
        assert not issues.has_errors()
        assert get_segments(written.read_segmentation(written.images[0])) == expected


def test_an_invalid_result_is_reported_before_anything_is_written(tmp_path: Path) -> None:
    invalid_result = {**build_result(LOWER, 0.9, image_id="i5"), "segmentation": {"size": [2, 2], "counts": [4]}}
    with pytest.raises(DatasetError, match="image 'i5', result 1: bad segmentation"):
        open_results(tmp_path, [build_result(LOWER, 0.9), invalid_result])


def scene() -> PanopticSegmentation:
    """A person of 9 pixels, a cat of 6 with a low score, sky in two segments (rows 0 and 5), else void."""
    ids = np.zeros(SIZE_HW, dtype=np.int32)
    ids[1:4, 0:3], ids[1:4, 5:7], ids[0], ids[5] = 1, 2, 3, 4
    segments = (
        Segment(1, PERSON, True, 9, score=0.75),
        Segment(2, CAT, True, 6, score=0.25),
        Segment(3, SKY, False, 8),
        Segment(4, SKY, False, 8, score=0.1),
    )
    return PanopticSegmentation(ids, segments)


def test_panoptic_predictions_are_converted_to_panoptic(tmp_path: Path) -> None:
    reader = open_predictions(tmp_path, [scene()] * 6)
    written, issues, losses = to_panoptic(reader, tmp_path / "out")
    assert ([issue.code for issue in issues], losses) == (["class-empty"], [])  # cats and grass
    sky = box(0, 0, 1, 8) | box(5, 0, 6, 8)
    for image in written.images:
        assert get_segments(written.read_segmentation(image)) == {
            (PERSON, False, get_pixel_indices(box(1, 0, 4, 3))),
            (SKY, False, get_pixel_indices(sky)),
        }
    assert (written.images, written.categories) == (reader.images, CATEGORIES)
    assert '"score"' not in (tmp_path / "out" / "panoptic.json").read_text()


def test_panoptic_predictions_are_converted_to_instances(tmp_path: Path) -> None:
    reader = open_predictions(tmp_path, [scene()] * 6, min_score=0.25)
    written, issues, losses = to_instances(reader, tmp_path / "out")
    assert issues == []
    assert losses == ["1 segments of stuff cannot be held"] * 6
    things = {(PERSON, False, get_pixel_indices(box(1, 0, 4, 3))), (CAT, False, get_pixel_indices(box(1, 5, 4, 7)))}
    assert all(get_segments(written.read_segmentation(image)) == things for image in written.images)


@given(seed=st.integers(0, 10**6), min_score=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
@settings(max_examples=15, deadline=None)
def test_any_predictions_make_datasets_without_errors(
    tmp_path_factory: pytest.TempPathFactory, seed: int, min_score: float
) -> None:
    """Both formats agree with the predictions; a second conversion of the converted dataset changes nothing."""
    folder, rng = tmp_path_factory.mktemp("any"), np.random.default_rng(seed)
    masks = [rng.random(SIZE_HW) < share for share in (0, 0.1, 0.5, 0.5, 1)]
    entries = [
        build_result(mask, float(rng.choice([0.2, 0.3, 0.6])), int(rng.choice([PERSON, CAT])), f"i{rng.integers(6)}")
        for mask in masks
    ]
    results_reader: DatasetReader = open_results(folder / "r", entries, min_score=min_score)
    ids = rng.integers(0, 6, SIZE_HW).astype(np.int32)
    classes = rng.choice([PERSON, CAT, SKY], 6).tolist()
    segments = tuple(
        Segment(i, classes[i], classes[i] != SKY, 0, score=float(rng.random())) for i in range(1, 6) if (ids == i).any()
    )
    predicted = PanopticSegmentation(ids, segments)
    for name, reader in (
        ("r", results_reader),
        ("p", open_predictions(folder / "p", [predicted], min_score=min_score)),
    ):
        panoptic, issues, _ = to_panoptic(reader, folder / name / "panoptic-out")
        instances, instance_issues, _ = to_instances(reader, folder / name / "instances-out")
        is_empty = not any(instances.read_annotations(image) for image in instances.images)
        errors = {issue.code for issue in issues + instance_issues if issue.severity == "error"}
        assert errors <= ({"annotations-empty"} if is_empty else set())
        for image, panoptic_image, instances_image in zip(
            reader.images, panoptic.images, instances.images, strict=True
        ):
            ground_truth = reader.read_segmentation(image)
            assert get_segments(panoptic.read_segmentation(panoptic_image)) == get_segments(ground_truth)
            assert get_segments(instances.read_segmentation(instances_image)) == get_segments(ground_truth, (True,))
        out = folder / name / "panoptic-out"
        reread = PanopticPredictionsReader(out / "panoptic.json", out / "panoptic", out / "images", min_score=9)
        assert [get_segments(reread.read_segmentation(i)) for i in reread.images] == [
            get_segments(panoptic.read_segmentation(i)) for i in panoptic.images
        ]
