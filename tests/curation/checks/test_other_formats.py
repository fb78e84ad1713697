"""Checks of any format: an error of the reader becomes an issue of the image and hides no other issue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.curation.checks.other_formats import check_dataset, compute_dataset_digests
from segkit.curation.issues import IssueList
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.coco import CocoPanopticReader
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler
from tests.helpers.damaged_datasets import CATEGORIES, PERSON, SIZE_HW, Broken, noise, panoptic, scene


class ReaderInMemory(DatasetReader):
    """Reads segmentations from memory (None raises a DatasetError) and generates the images."""

    format = "drawn"

    def __init__(self, root: Path, *segmentations: PanopticSegmentation | None) -> None:
        self.root = self.image_root = root
        self.categories = CATEGORIES
        self.ground_truth = segmentations
        self.images = tuple(DatasetImage(i, f"{i}.png", SIZE_HW) for i in range(len(segmentations)))

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        segmentation = self.ground_truth[int(image.image_id)]
        if segmentation is None:
            raise DatasetError("damaged")
        return segmentation

    def read_image(self, image: DatasetImage) -> np.ndarray:
        if image.image_id == 99:
            raise DatasetError("no slice")
        return noise(int(image.image_id))


@pytest.fixture
def data(tmp_path: Path) -> Broken:
    return panoptic(tmp_path)


def open_panoptic(data: Broken) -> DatasetReader:
    return CocoPanopticReader(data.json_path, data.masks, data.images)


def get_codes(reader: DatasetReader) -> list[str]:
    return [issue.code for issue in check_dataset(reader, map)]


def change_person(**fields: object) -> PanopticSegmentation:
    segments = [replace(s, **fields) if s.segment_id == PERSON else s for s in scene().segments]
    return PanopticSegmentation(scene().segment_ids, tuple(segments))


def test_clean_datasets_have_no_issue(data: Broken, tmp_path: Path) -> None:
    assert check_dataset(open_panoptic(data), map) == []
    assert get_codes(ReaderInMemory(tmp_path, scene(), scene())) == []


def test_all_unreadable_files_are_reported(data: Broken) -> None:
    data.png(1).unlink()
    data.png(3).write_bytes(b"")
    data.image_path(4).write_bytes(b"no image")
    data.image_path(5).unlink()
    reported = [(issue.code, issue.place) for issue in check_dataset(open_panoptic(data), map)]
    assert reported == [
        ("annotation-unreadable", str(data.png(1))),
        ("annotation-unreadable", str(data.png(3))),
        ("image-unreadable", f"{data.image_path(4)}, image 4"),
        ("image-unreadable", str(data.image_path(5))),
    ]


def test_image_files_of_another_size_and_duplicates_are_reported(data: Broken) -> None:
    Image.fromarray(noise(0)[:-1]).save(data.image_path(0))
    Image.fromarray(noise(1)).save(data.image_path(2))
    assert get_codes(open_panoptic(data)) == ["size-differs", "image-twice"]


def test_each_error_of_segments_is_reported(tmp_path: Path) -> None:
    one_pixel_ids = scene().segment_ids.copy()
    one_pixel_ids[one_pixel_ids == PERSON] = 0
    empty_ids = one_pixel_ids.copy()
    one_pixel_ids[1, 1] = PERSON
    reader = ReaderInMemory(
        tmp_path,
        None,
        PanopticSegmentation(one_pixel_ids, scene().segments),
        PanopticSegmentation(empty_ids, scene().segments),
        PanopticSegmentation(np.zeros(SIZE_HW, dtype=np.int32), ()),
        PanopticSegmentation(scene().segment_ids, scene().segments[1:]),
        PanopticSegmentation(scene().segment_ids[:-1], scene().segments),
        change_person(category_id=10, isthing=False),
        change_person(category_id=20, isthing=False, iscrowd=True),
        change_person(category_id=99, isthing=False),
    )
    reported = [(issue.code, issue.place.split("image ")[1]) for issue in check_dataset(reader, map)]
    assert reported == [
        ("annotation-unreadable", "0"),
        ("segment-tiny", "1, segment 7"),
        ("segment-empty", "2, segment 7"),
        ("all-void", "3"),
        ("png-id-unknown", "4"),
        ("size-differs", "5"),
        ("stuff-split", "6, segment 70000"),
        ("crowd-of-stuff", "7, segment 7"),
        ("stuff-split", "7, segment 5"),
        ("category-unknown", "8, segment 7"),
    ]


def test_generated_images_and_errors_of_the_index_are_reported(tmp_path: Path) -> None:
    reader = ReaderInMemory(tmp_path, *[scene()] * 3)
    reader.images = (DatasetImage(99, "99.png", SIZE_HW), reader.images[1], replace(reader.images[2], image_id=1))
    reader.ground_truth = (scene(),) * 100
    assert get_codes(reader) == ["image-id-twice", "image-unreadable", "image-twice"]
    assert get_codes(ReaderInMemory(tmp_path)) == ["dataset-empty"]
    reader = ReaderInMemory(tmp_path, scene(), scene())
    reader.images = (reader.images[0], replace(reader.images[1], file_name="./0.png"))
    assert get_codes(reader) == ["file-name-twice"]


def test_an_error_of_a_volume_is_reported_once(tmp_path: Path) -> None:
    class VolumeReader(ReaderInMemory):
        def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
            raise DatasetError("cut off", where=tmp_path / "labels.nii", remedy="fetch it")

        def read_image(self, image: DatasetImage) -> np.ndarray:
            raise DatasetError("cut off", where=tmp_path / "volume.nii", remedy="fetch it")

    reported = [
        (issue.code, issue.place, issue.message) for issue in check_dataset(VolumeReader(tmp_path, *[scene()] * 9), map)
    ]
    assert reported == [
        ("image-unreadable", str(tmp_path / "volume.nii"), "cut off; fetch it"),
        ("annotation-unreadable", str(tmp_path / "labels.nii"), "cut off; fetch it"),
    ]


def test_skipped_files_are_reported_as_notes(tmp_path: Path) -> None:
    reader = ReaderInMemory(tmp_path, scene())
    reader.skipped = ("a.json: a point has no area", "b.png: no JSON")
    reported = [(issue.code, issue.severity, issue.place, issue.message) for issue in check_dataset(reader, map)]
    assert reported == [("not-read", "note", str(tmp_path), line) for line in reader.skipped]


def test_an_image_shared_with_another_split_is_reported(data: Broken, tmp_path: Path) -> None:
    other = panoptic(tmp_path / "other")
    for index in range(1, 6):
        Image.fromarray(noise(100 + index)).save(other.image_path(index))
    issues: IssueList = check_dataset(open_panoptic(data), map, compute_dataset_digests(open_panoptic(other), map))
    assert [(issue.code, issue.place) for issue in issues] == [("image-shared", str(data.image_path(0)))]


def test_a_generated_image_shared_with_another_split_is_reported(tmp_path: Path) -> None:
    digests = compute_dataset_digests(ReaderInMemory(tmp_path, scene()), map)
    assert len(digests) == 1
    issues = check_dataset(ReaderInMemory(tmp_path, scene(), scene()), map, digests)
    assert [(issue.code, issue.place) for issue in issues] == [("image-shared", str(tmp_path / "0.png"))]


def test_an_empty_mask_of_a_format_with_overlaps_is_reported(tmp_path: Path) -> None:
    class OverlappingReader(ReaderInMemory):
        has_overlapping_masks = True

        def read_annotations(self, image: DatasetImage) -> list[dict]:
            return [{"category_id": 1, "area": 3}, {"category_id": 1, "area": 0}]

    assert get_codes(OverlappingReader(tmp_path, scene())) == ["segment-empty"]


def test_occluded_masks_are_not_tiny_and_images_without_things_are_not_unlabelled(tmp_path: Path) -> None:
    class OverlappingReader(ReaderInMemory):
        has_overlapping_masks = True

        def read_annotations(self, image: DatasetImage) -> list[dict]:
            return [{"category_id": 1, "area": 25}, {"category_id": 1, "area": 1}]

    one_pixel_ids = np.where(scene().segment_ids == PERSON, 70000, scene().segment_ids)
    one_pixel_ids[0, 0] = PERSON
    assert get_codes(OverlappingReader(tmp_path, PanopticSegmentation(one_pixel_ids, scene().segments))) == [
        "segment-tiny"
    ]
    things_reader = ReaderInMemory(tmp_path, PanopticSegmentation(np.zeros(SIZE_HW, dtype=np.int32), ()))
    things_reader.categories = CategorySet(CATEGORIES.things)
    assert get_codes(things_reader) == ["class-empty"]


def test_classes_without_a_pixel_are_named_once(tmp_path: Path) -> None:
    class OtherReader(ReaderInMemory):
        void_remedy = "name its value"

        def check_annotation(self, image: DatasetImage, on_issue: IssueHandler) -> None:
            on_issue("mask-twice", DatasetError("it is there twice", where=f"{image.file_name}, shape 3"))

    segmentation = scene()
    ids = np.where(segmentation.segment_ids == PERSON, 0, segmentation.segment_ids)
    segments = tuple(s for s in segmentation.segments if s.segment_id != PERSON)
    person = next(s for s in segmentation.segments if s.segment_id == PERSON)
    name = CATEGORIES[person.category_id].name
    reader = OtherReader(tmp_path, *[PanopticSegmentation(ids, segments)] * 2, None)
    issues = check_dataset(reader, map)
    assert [issue.code for issue in issues] == ["mask-twice", "mask-twice", "annotation-unreadable", "class-empty"]
    void_px = 2 * int((ids == 0).sum())
    problem = f"1 of {len(CATEGORIES.categories)} classes has no pixel: {name!r}"
    assert issues[-1].message == f"{problem}; {void_px} pixels are void: name its value"
    assert (issues[0].place, issues[0].message) == ("0.png, shape 3", "it is there twice")
    # Nothing is known of a class if no image could be read.
    assert get_codes(OtherReader(tmp_path, None)) == ["annotation-unreadable"]


def test_a_dataset_of_crowds_only_is_an_error(tmp_path: Path) -> None:
    crowds = [replace(segment, iscrowd=True) for segment in scene().segments if segment.isthing]
    ids = np.where(np.isin(scene().segment_ids, [s.segment_id for s in crowds]), scene().segment_ids, 0)
    issues = check_dataset(ReaderInMemory(tmp_path, PanopticSegmentation(ids, tuple(crowds))), map)
    (message,) = [issue.message for issue in issues if issue.code == "crowds-only"]
    assert message == "all 2 segments are crowds (iscrowd 1), on which no object is trained or scored"
    assert "crowds-only" not in get_codes(ReaderInMemory(tmp_path, scene()))
