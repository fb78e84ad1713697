from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segkit.formats import cityscapes, png
from segkit.formats.cityscapes_source import CityscapesSource
from segkit.formats.cityscapes_writer import CityscapesWriter
from segkit.formats.source import SourceImage
from segkit.structures import CategorySet, DatasetError, PanopticSegmentation, Segment, mask_to_rle

from .cityscapes_tree import CITIES, make, prepare
from .samples import CATEGORIES as OTHERS
from .samples import files_below

AACHEN, ZURICH = CITIES


def test_labels_are_cityscapesscripts() -> None:
    theirs = pytest.importorskip("cityscapesscripts.helpers.labels", reason="cityscapesscripts is not installed").labels
    rows = [(x.id, x.name, x.trainId, x.hasInstances, x.ignoreInEval, x.color) for x in theirs]
    assert [tuple(label) for label in cityscapes.LABELS] == rows
    assert len(rows) == 35


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = make(tmp_path / "cityscapes")
    prepare(monkeypatch, made)
    return made


def test_polygons_by_hand(tmp_path: Path) -> None:
    source = CityscapesSource(make(tmp_path), annotations="polygons")
    first = SourceImage(AACHEN, f"aachen/{AACHEN}_leftImg8bit.png", (6, 8))
    assert source.images == (first, SourceImage(ZURICH, f"zurich/{ZURICH}_leftImg8bit.png", (5, 9)))
    got = source.segmentation(first)
    # The second car lies on the first; out of roi (row 2), polegroup (column 7) and the caravan (row 4) are void, the
    # license plate is not drawn, the person is deleted. The sky ends at 1.5, between two rows.
    assert got.segment_ids.tolist() == [
        [23, 23, 23, 23, 23, 23, 23, 0],
        [23, 23, 23, 23, 23, 23, 23, 0],
        [0, 26001, 26001, 26000, 0, 26, 26, 0],
        [7, 26001, 26001, 26000, 7, 26, 26, 0],
        [7, 26001, 26001, 26000, 0, 7, 7, 0],
        [7, 7, 7, 7, 7, 7, 7, 7],
    ]
    assert source.picture(first).shape == (6, 8, 3)
    crowds = [(a["category_id"], a["iscrowd"], a["area"]) for a in source.annotations(first)]
    assert crowds == [(26, 1, 4), (26, 0, 3), (26, 0, 6)]


def test_three_ways_give_one_segmentation(root: Path) -> None:
    ids, polygons, panoptic = (
        CityscapesSource(root, annotations=kind)  # type: ignore[arg-type]
        for kind in ("instanceIds", "polygons", "panoptic")
    )
    assert ids.images == polygons.images == panoptic.images
    assert ids.categories == panoptic.categories
    for image in ids.images:
        expected = ids.segmentation(image)
        assert expected.segments
        for other in (polygons, panoptic):
            got = other.segmentation(image)
            np.testing.assert_array_equal(got.segment_ids, expected.segment_ids)
            assert got.segments == expected.segments


def test_label_maps_are_cityscapesscripts_where_not_void(root: Path) -> None:
    source = CityscapesSource(root)
    for image in source.images:
        got = source.segmentation(image)
        stem = root / f"gtFine/val/{str(image.image_id).split('_')[0]}/{image.image_id}_gtFine"
        expected = np.asarray(Image.open(f"{stem}_labelIds.png"))
        ignored = [x.label_id for x in cityscapes.LABELS if x.ignored]
        np.testing.assert_array_equal(
            cityscapes.label_ids(got), np.where(np.isin(expected, ignored), 0, expected), strict=True
        )
        np.testing.assert_array_equal(
            cityscapes.train_ids(got), np.asarray(Image.open(f"{stem}_labelTrainIds.png")), strict=True
        )


def test_label_maps_refuse_what_is_not_cityscapes() -> None:
    one = np.array([[1]], dtype=np.int32)
    for write in (cityscapes.label_ids, cityscapes.train_ids):
        with pytest.raises(ValueError, match=r"Cityscapes label ids, got \[9\]"):
            write(PanopticSegmentation(one, (Segment(1, 9, False, 1),)))
        with pytest.raises(ValueError, match="ids of segments only, got 1"):
            write(PanopticSegmentation(one, ()))


def test_misuse(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"annotations must be one of .*'panoptic'.*, got 'labelIds'"):
        CityscapesSource(tmp_path, annotations="labelIds")  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=r"expected `split` to be a path inside its folder, got '\.\./val'"):
        CityscapesSource(tmp_path, "../val")


def test_missing_annotations(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(DatasetError, match=r"2 of 2 images have no ground truth: .*\*_gtFine_instanceIds\.png"):
        CityscapesSource(tmp_path)
    (tmp_path / f"gtFine/val/zurich/{ZURICH}_gtFine_polygons.json").unlink()
    with pytest.raises(DatasetError, match=r"1 of 2 images have no ground truth: .*_gtFine_polygons\.json"):
        CityscapesSource(tmp_path, annotations="polygons")
    with pytest.raises(
        DatasetError, match=r"cityscapes_panoptic_val\.json: expected a panoptic JSON, found none; make"
    ):
        CityscapesSource(tmp_path, annotations="panoptic")


def test_one_name_in_two_cities(tmp_path: Path) -> None:
    make(tmp_path)
    for tree in ("leftImg8bit", "gtFine"):
        shutil.copytree(tmp_path / tree / "val/aachen", tmp_path / tree / "val/bochum")
    with pytest.raises(DatasetError, match=r"bochum.*: expected names of their own, .*aachen.* has the same; rename"):
        CityscapesSource(tmp_path, annotations="polygons")


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / f"leftImg8bit/val/aachen/._{AACHEN}_leftImg8bit.png").write_bytes(b"junk")
    assert len(CityscapesSource(tmp_path, annotations="polygons").images) == 2


def test_sizes_that_disagree(root: Path) -> None:
    png.write(root / f"leftImg8bit/val/aachen/{AACHEN}_leftImg8bit.png", np.zeros((6, 7, 3), dtype=np.uint8))
    for kind in ("instanceIds", "polygons", "panoptic"):
        source = CityscapesSource(root, annotations=kind)  # type: ignore[arg-type]
        with pytest.raises(DatasetError, match=rf"{AACHEN}_gtFine.*expected 6 x 7 pixels"):
            source.segmentation(source.images[0])


def test_panoptic_and_pictures_disagree(root: Path) -> None:
    path = root / "gtFine/cityscapes_panoptic_val.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "images": content["images"][:1], "annotations": content["annotations"][:1]}))
    with pytest.raises(DatasetError, match=f"1 of 2 images are not in the panoptic JSON: '{ZURICH}'; make it"):
        CityscapesSource(root, annotations="panoptic")
    path.write_text(json.dumps(content))
    shutil.rmtree(root / "leftImg8bit/val/aachen")
    with pytest.raises(DatasetError, match=f"1 images of the panoptic JSON are missing: '{AACHEN}'"):
        CityscapesSource(root, annotations="panoptic")
    shutil.rmtree(root / "leftImg8bit/val/zurich")
    with pytest.raises(DatasetError, match="the split has no image"):
        CityscapesSource(root, annotations="panoptic")


def test_panoptic_of_train_ids_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, make(tmp_path), useTrainId=True)
    made = tmp_path / "gtFine/cityscapes_panoptic_val_trainId.json"
    made.rename(tmp_path / "gtFine/cityscapes_panoptic_val.json")
    with pytest.raises(DatasetError, match=r"expected the 19 categories of Cityscapes by label id.*--use-train-id"):
        CityscapesSource(tmp_path, annotations="panoptic")


def test_panoptic_names_that_climb_out(root: Path) -> None:
    path = root / "gtFine/cityscapes_panoptic_val.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["file_name"] = "../../secret.png"
    path.write_text(json.dumps(content))
    with pytest.raises(
        DatasetError, match=r"expected `file_name` to be a path inside its folder, got '\.\./\.\./secret"
    ):
        CityscapesSource(root, annotations="panoptic")


def test_picture_that_lies_about_its_size(root: Path) -> None:
    path = root / f"leftImg8bit/val/aachen/{AACHEN}_leftImg8bit.png"
    content = bytearray(path.read_bytes())
    content[16:24] = (60000).to_bytes(4, "big") * 2
    path.write_bytes(content)
    for kind in ("instanceIds", "polygons", "panoptic"):
        source = CityscapesSource(root, annotations=kind)  # type: ignore[arg-type]
        with pytest.raises(DatasetError, match="expected 60000 x 60000 pixels"):
            source.segmentation(source.images[0])
    with pytest.raises(DatasetError, match="does not decode"):
        source.picture(source.images[0])


# ---------------------------------------------------------------------------------------------------------------------


def _store(writer: CityscapesWriter, image: SourceImage, segmentation: PanopticSegmentation) -> list[str]:
    png.write(writer.picture_path(image), np.zeros((*image.size_hw, 3), dtype=np.uint8))
    return writer.add(image, segmentation)


def _same_up_to_ids(first: PanopticSegmentation, second: PanopticSegmentation) -> None:
    def partition(x: PanopticSegmentation) -> set[tuple[int, bool, bool, bytes]]:
        return {(s.category_id, s.isthing, s.iscrowd, (x.segment_ids == s.segment_id).tobytes()) for s in x.segments}

    assert partition(first) == partition(second)


@st.composite
def segmentations(draw: st.DrawFn) -> PanopticSegmentation:
    """Of Cityscapes' categories, ids as they come, one segment per stuff class and crowd: what the layout holds."""
    shape = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)
    segment_ids = draw(hnp.arrays(np.int32, shape, elements=st.integers(0, 6)))
    segments: list[Segment] = []
    taken: set[tuple[int, bool]] = set()
    for segment_id in np.unique(segment_ids).tolist():
        category = draw(st.sampled_from(cityscapes.CATEGORIES.categories))
        iscrowd = category.isthing and draw(st.booleans())
        merges = iscrowd or not category.isthing
        if segment_id == 0 or (merges and (category.category_id, iscrowd) in taken):
            segment_ids[segment_ids == segment_id] = 0
            continue
        taken.add((category.category_id, iscrowd))
        area_px = np.count_nonzero(segment_ids == segment_id)
        segments.append(Segment(segment_id, category.category_id, category.isthing, area_px, iscrowd))
    return PanopticSegmentation(segment_ids, tuple(segments))


@settings(deadline=None)
@given(segmentations())
def test_write_and_read(tmp_path_factory: pytest.TempPathFactory, segmentation: PanopticSegmentation) -> None:
    root = tmp_path_factory.mktemp("written")
    height, width = segmentation.segment_ids.shape
    image = SourceImage("ulm_000001_000019", "ulm/ulm_000001_000019_leftImg8bit.png", (height, width))
    with CityscapesWriter(root, "train", train_ids=True) as writer:
        assert _store(writer, image, segmentation) == []
    source = CityscapesSource(root, "train")
    assert source.images == (image,)
    got = source.segmentation(image)
    _same_up_to_ids(got, segmentation)
    stem = root / "gtFine/train/ulm/ulm_000001_000019_gtFine"
    for name, expected in (
        ("labelIds", cityscapes.label_ids(segmentation)),
        ("labelTrainIds", cityscapes.train_ids(segmentation)),
    ):
        np.testing.assert_array_equal(np.asarray(Image.open(f"{stem}_{name}.png")), expected, strict=True)


def test_a_dataset_written_again_is_the_same_to_the_id(root: Path, tmp_path: Path) -> None:
    source = CityscapesSource(root)
    with CityscapesWriter(tmp_path / "again") as writer:
        for image in source.images:
            assert _store(writer, image, source.segmentation(image)) == []
    again = CityscapesSource(tmp_path / "again")
    assert again.images == source.images
    for image in source.images:
        assert again.segmentation(image).segments == source.segmentation(image).segments
        np.testing.assert_array_equal(again.segmentation(image).segment_ids, source.segmentation(image).segment_ids)
    assert not any("TrainIds" in name for name in files_below(tmp_path / "again"))


def test_categories_are_taken_by_name_and_losses_told(tmp_path: Path) -> None:
    # COCO's car is 3, a person 1; here the road is 7 as things, cars of 4 are stuff, trees are unknown.
    categories = CategorySet.from_coco(
        [
            {"id": 1, "name": "person", "isthing": 1},
            {"id": 4, "name": "car", "isthing": 0},
            {"id": 7, "name": "road", "isthing": 1},
            {"id": 26, "name": "tree", "isthing": 1},
        ],
        "x",
    )
    segments = (
        Segment(1, 1, True, 1, score=0.5),
        Segment(2, 4, False, 1),
        Segment(3, 7, True, 1),
        Segment(4, 7, True, 1, iscrowd=True),
        Segment(5, 26, True, 1),
        Segment(6, 1, True, 0),
        Segment(7, 1, True, 1, iscrowd=True),
        Segment(8, 1, True, 1, iscrowd=True),
    )
    segmentation = PanopticSegmentation(np.array([[1, 2, 3, 4, 5, 7, 8, 0]], dtype=np.int32), segments)
    writer = CityscapesWriter(tmp_path, categories=categories)
    masks = [np.array([[1, 1, 0, 0, 0, 0, 0, 0]], dtype=bool), np.array([[1, 0, 0, 0, 0, 0, 0, 0]], dtype=bool)]
    lost = writer.add(SourceImage(9, "9.jpg", (1, 8)), segmentation, [{"segmentation": mask_to_rle(m)} for m in masks])
    assert lost == [
        "segment 2: car without instances is held as a crowd",
        "segment 4: road is stuff, it cannot be held as a crowd",
        "segment 5: no label of Cityscapes' is named 'tree', its pixels become unlabeled",
        "segment 1: its score cannot be held",
        "segment 4: road, it becomes one with segment 3",
        "segment 6: it has no pixel",
        "segment 8: a crowd of person, it becomes one with segment 7",
        "1 pixels are of several instances, one is held",
    ]
    written = np.asarray(Image.open(tmp_path / "gtFine/val/val/9_gtFine_instanceIds.png"))
    assert written.tolist() == [[24000, 26, 7, 7, 0, 24, 24, 0]]


def test_names_of_cities(tmp_path: Path) -> None:
    writer = CityscapesWriter(tmp_path, "train")
    for file_name, expected in (
        ("ulm/ulm_000001_000019_leftImg8bit.png", "ulm/ulm_000001_000019"),
        ("ulm_000001_000019_leftImg8bit.png", "ulm/ulm_000001_000019"),
        ("deep/folder/a.jpg", "folder/a"),
        ("000000000139.jpg", "train/000000000139"),
        ("my_photo.png", "train/my_photo"),
    ):
        path = writer.picture_path(SourceImage(1, file_name, (1, 1)))
        assert path == tmp_path / "leftImg8bit/train" / f"{expected}_leftImg8bit.png"


def test_the_writer_refuses_and_writes_nothing(tmp_path: Path) -> None:
    one = PanopticSegmentation(np.array([[1]], dtype=np.int32), (Segment(1, 24, True, 1),))
    many = PanopticSegmentation(one.segment_ids, tuple(Segment(i, 24, True, 1) for i in range(1, 1002)))
    image = SourceImage("a", "a.png", (1, 1))
    writer = CityscapesWriter(tmp_path)
    for file_name in ("../a.png", "/a.png", "..\\a.png", "", "a/"):
        with pytest.raises(DatasetError, match="expected `file_name` to be a path inside its folder"):
            writer.add(SourceImage("a", file_name, (1, 1)), one)
    with pytest.raises(DatasetError, match="image 'a': an image must have at most 1000 instances of person"):
        writer.add(image, many)
    with pytest.raises(ValueError, match=r"category ids of the dataset, got \[99\]"):
        writer.add(image, PanopticSegmentation(one.segment_ids, (Segment(1, 99, True, 1),)))
    with pytest.raises(ValueError, match="ids of segments only, got 1"):
        writer.add(image, PanopticSegmentation(one.segment_ids, ()))
    with pytest.raises(DatasetError, match=r"expected `split`"):
        CityscapesWriter(tmp_path, "../up")
    assert files_below(tmp_path) == set()
    writer.add(image, one)
    for file_name in ("a.jpg", "other/a.png"):
        with pytest.raises(DatasetError, match=r"image 'b': labels of the name 'a' were written before.*; rename"):
            writer.add(SourceImage("b", file_name, (1, 1)), one)


def test_loops_of_symlinks(tmp_path: Path) -> None:
    make(tmp_path)
    for folder in ("leftImg8bit/val", "gtFine/val"):
        os.symlink(tmp_path / folder, tmp_path / folder / "ulm")
        os.symlink(tmp_path / folder / "bonn", tmp_path / folder / "bonn")
    assert len(CityscapesSource(tmp_path, annotations="polygons").images) == 2
    picture = tmp_path / f"leftImg8bit/val/aachen/{AACHEN}_leftImg8bit.png"
    picture.unlink()
    os.symlink(picture, picture)
    with pytest.raises(DatasetError, match=f"{AACHEN}_leftImg8bit.png: the file cannot be read"):
        CityscapesSource(tmp_path, annotations="polygons")


def test_foreign_categories_are_refused(tmp_path: Path) -> None:
    stranger = CategorySet([c for c in OTHERS.categories if c.name in ("cat", "grass")])
    with pytest.raises(DatasetError, match="expected categories with names of Cityscapes', got 'cat', 'grass'; rename"):
        CityscapesWriter(tmp_path, categories=stranger)
