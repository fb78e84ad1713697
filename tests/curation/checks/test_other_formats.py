"""A layout of any kind: whatever its reading refuses is a finding of the image, and hides no other."""

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
from tests.helpers.damaged_datasets import CATEGORIES, PERSON, SIZE_HW, Broken, noise, panoptic, scene


class Drawn(DatasetReader):
    """One segmentation for each image; None is refused. Pictures are made, not read."""

    format = "drawn"

    def __init__(self, root: Path, *segmentations: PanopticSegmentation | None) -> None:
        self.root = self.image_root = root
        self.categories = CATEGORIES
        self.ground_truth = segmentations
        self.images = tuple(DatasetImage(i, f"{i}.png", SIZE_HW) for i in range(len(segmentations)))

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        found = self.ground_truth[int(image.image_id)]
        if found is None:
            raise DatasetError("damaged")
        return found

    def read_image(self, image: DatasetImage) -> np.ndarray:
        if image.image_id == 99:
            raise DatasetError("no slice")
        return noise(int(image.image_id))


@pytest.fixture
def data(tmp_path: Path) -> Broken:
    return panoptic(tmp_path)


def source_of(data: Broken) -> DatasetReader:
    return CocoPanopticReader(data.json_path, data.masks, data.images)


def codes(source: DatasetReader) -> list[str]:
    return [issue.code for issue in check_dataset(source, map)]


def changed(**of_person: object) -> PanopticSegmentation:
    segments = [replace(s, **of_person) if s.segment_id == PERSON else s for s in scene().segments]
    return PanopticSegmentation(scene().segment_ids, tuple(segments))


def test_nothing_is_wrong(data: Broken, tmp_path: Path) -> None:
    assert check_dataset(source_of(data), map) == []
    assert codes(Drawn(tmp_path, scene(), scene())) == []


def test_every_image_that_cannot_be_read_is_told(data: Broken) -> None:
    data.png(1).unlink()
    data.png(3).write_bytes(b"")
    data.image_path(4).write_bytes(b"no image")
    data.image_path(5).unlink()
    told = [(issue.code, issue.place) for issue in check_dataset(source_of(data), map)]
    assert told == [
        ("annotation-unreadable", str(data.png(1))),
        ("annotation-unreadable", str(data.png(3))),
        ("image-unreadable", f"{data.image_path(4)}, image 4"),
        ("image-unreadable", str(data.image_path(5))),
    ]


def test_pictures(data: Broken) -> None:
    Image.fromarray(noise(0)[:-1]).save(data.image_path(0))
    Image.fromarray(noise(1)).save(data.image_path(2))
    assert codes(source_of(data)) == ["size-differs", "image-twice"]


def test_segments(tmp_path: Path) -> None:
    one_pixel = scene().segment_ids.copy()
    one_pixel[one_pixel == PERSON] = 0
    empty = one_pixel.copy()
    one_pixel[1, 1] = PERSON
    source = Drawn(
        tmp_path,
        None,
        PanopticSegmentation(one_pixel, scene().segments),
        PanopticSegmentation(empty, scene().segments),
        PanopticSegmentation(np.zeros(SIZE_HW, dtype=np.int32), ()),
        PanopticSegmentation(scene().segment_ids, scene().segments[1:]),
        PanopticSegmentation(scene().segment_ids[:-1], scene().segments),
        changed(category_id=10, isthing=False),
        changed(category_id=20, isthing=False, iscrowd=True),
        changed(category_id=99, isthing=False),
    )
    told = [(issue.code, issue.place.split("image ")[1]) for issue in check_dataset(source, map)]
    assert told == [
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


def test_pictures_that_are_made_and_index_faults(tmp_path: Path) -> None:
    source = Drawn(tmp_path, *[scene()] * 3)
    source.images = (DatasetImage(99, "99.png", SIZE_HW), source.images[1], replace(source.images[2], image_id=1))
    source.ground_truth = (scene(),) * 100
    assert codes(source) == ["image-id-twice", "image-unreadable", "image-twice"]
    assert codes(Drawn(tmp_path)) == ["dataset-empty"]
    source = Drawn(tmp_path, scene(), scene())
    source.images = (source.images[0], replace(source.images[1], file_name="./0.png"))
    assert codes(source) == ["file-name-twice"]


def test_a_fault_of_a_volume_is_told_once(tmp_path: Path) -> None:
    class Sliced(Drawn):
        def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
            raise DatasetError("cut off", where=tmp_path / "labels.nii", remedy="fetch it")

        def read_image(self, image: DatasetImage) -> np.ndarray:
            raise DatasetError("cut off", where=tmp_path / "volume.nii", remedy="fetch it")

    told = [(f.code, f.place, f.message) for f in check_dataset(Sliced(tmp_path, *[scene()] * 9), map)]
    assert told == [
        ("image-unreadable", str(tmp_path / "volume.nii"), "cut off; fetch it"),
        ("annotation-unreadable", str(tmp_path / "labels.nii"), "cut off; fetch it"),
    ]


def test_what_is_not_read_is_noted(tmp_path: Path) -> None:
    source = Drawn(tmp_path, scene())
    source.skipped = ("a.json: a point has no area", "b.png: no JSON")
    told = [(f.code, f.severity, f.place, f.message) for f in check_dataset(source, map)]
    assert told == [("not-read", "note", str(tmp_path), line) for line in source.skipped]


def test_splits_that_share_images(data: Broken, tmp_path: Path) -> None:
    other = panoptic(tmp_path / "other")
    for index in range(1, 6):
        Image.fromarray(noise(100 + index)).save(other.image_path(index))
    found: IssueList = check_dataset(source_of(data), map, compute_dataset_digests(source_of(other), map))
    assert [(f.code, f.place) for f in found] == [("image-shared", str(data.image_path(0)))]


def test_splits_that_share_pictures_that_are_made(tmp_path: Path) -> None:
    others = compute_dataset_digests(Drawn(tmp_path, scene()), map)
    assert len(others) == 1
    found = check_dataset(Drawn(tmp_path, scene(), scene()), map, others)
    assert [(f.code, f.place) for f in found] == [("image-shared", str(tmp_path / "0.png"))]


def test_a_segment_of_an_overlapping_layout_without_pixel(tmp_path: Path) -> None:
    class Overlapping(Drawn):
        has_overlapping_masks = True

        def read_annotations(self, image: DatasetImage) -> list[dict]:
            return [{"area": 3}, {"area": 0}]

    assert codes(Overlapping(tmp_path, scene())) == ["segment-empty"]


def test_what_others_hide_is_not_small_and_a_picture_without_things_is_not_unlabelled(tmp_path: Path) -> None:
    class Overlapping(Drawn):
        has_overlapping_masks = True

        def read_annotations(self, image: DatasetImage) -> list[dict]:
            return [{"area": 25}, {"area": 1}]

    one_pixel = np.where(scene().segment_ids == PERSON, 70000, scene().segment_ids)
    one_pixel[0, 0] = PERSON
    assert codes(Overlapping(tmp_path, PanopticSegmentation(one_pixel, scene().segments))) == ["segment-tiny"]
    things = Drawn(tmp_path, PanopticSegmentation(np.zeros(SIZE_HW, dtype=np.int32), ()))
    things.categories = CategorySet(CATEGORIES.things)
    assert codes(things) == []
