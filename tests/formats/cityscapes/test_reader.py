"""A split of Cityscapes, read from all kinds of annotations, valid and damaged."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.curation.issues import RULES
from segkit.formats import png
from segkit.formats.base import DatasetImage
from segkit.formats.cityscapes import CityscapesReader, label_pngs
from segkit.formats.cityscapes.label_pngs import LABELS
from segkit.structures import PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from tests.helpers.cityscapes_tree import CITIES, make, prepare

AACHEN, ZURICH = CITIES


def test_labels_equal_cityscapesscripts() -> None:
    reference_labels = pytest.importorskip(
        "cityscapesscripts.helpers.labels", reason="cityscapesscripts is not installed"
    ).labels
    rows = [(x.id, x.name, x.trainId, x.hasInstances, x.ignoreInEval, x.color) for x in reference_labels]
    assert [tuple(label) for label in LABELS] == rows
    assert len(rows) == 35


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root_folder = make(tmp_path / "cityscapes")
    prepare(monkeypatch, root_folder)
    return root_folder


def test_polygons_are_read(tmp_path: Path) -> None:
    reader = CityscapesReader(make(tmp_path), annotations="polygons")
    first = DatasetImage(AACHEN, f"aachen/{AACHEN}_leftImg8bit.png", (6, 8))
    assert reader.images == (first, DatasetImage(ZURICH, f"zurich/{ZURICH}_leftImg8bit.png", (5, 9)))
    segmentation = reader.read_segmentation(first)
    # The second car occludes the first; out of roi (row 2), polegroup (column 7) and the caravan (row 4) are void, the
    # license plate is not drawn, the person is deleted. The sky ends at 1.5, between two rows.
    assert segmentation.segment_ids.tolist() == [
        [23, 23, 23, 23, 23, 23, 23, 0],
        [23, 23, 23, 23, 23, 23, 23, 0],
        [0, 26001, 26001, 26000, 0, 26, 26, 0],
        [7, 26001, 26001, 26000, 7, 26, 26, 0],
        [7, 26001, 26001, 26000, 0, 7, 7, 0],
        [7, 7, 7, 7, 7, 7, 7, 7],
    ]
    assert reader.read_image(first).shape == (6, 8, 3)
    crowds = [(a["category_id"], a["iscrowd"], a["area"]) for a in reader.read_annotations(first)]
    assert crowds == [(26, 1, 4), (26, 0, 3), (26, 0, 6)]


def test_all_kinds_of_annotations_give_equal_segmentations(root: Path) -> None:
    ids, polygons, panoptic = (
        CityscapesReader(root, annotations=kind)  # type: ignore[arg-type]
        for kind in ("instanceIds", "polygons", "panoptic")
    )
    assert ids.images == polygons.images == panoptic.images
    assert ids.categories == panoptic.categories
    for image in ids.images:
        expected = ids.read_segmentation(image)
        assert expected.segments
        for other in (polygons, panoptic):
            segmentation = other.read_segmentation(image)
            np.testing.assert_array_equal(segmentation.segment_ids, expected.segment_ids)
            assert segmentation.segments == expected.segments


def test_label_maps_equal_cityscapesscripts_outside_void(root: Path) -> None:
    reader = CityscapesReader(root)
    for image in reader.images:
        segmentation = reader.read_segmentation(image)
        stem = root / f"gtFine/val/{str(image.image_id).split('_')[0]}/{image.image_id}_gtFine"
        expected = np.asarray(Image.open(f"{stem}_labelIds.png"))
        ignored = [x.label_id for x in LABELS if x.ignored]
        np.testing.assert_array_equal(
            label_pngs.encode_label_ids(segmentation), np.where(np.isin(expected, ignored), 0, expected), strict=True
        )
        np.testing.assert_array_equal(
            label_pngs.encode_train_ids(segmentation), np.asarray(Image.open(f"{stem}_labelTrainIds.png")), strict=True
        )


def test_label_maps_of_other_categories_raise_an_error() -> None:
    segment_ids = np.array([[1]], dtype=np.int32)
    for write in (label_pngs.encode_label_ids, label_pngs.encode_train_ids):
        with pytest.raises(ValueError, match=r"Cityscapes label ids, got \[9\]"):
            write(PanopticSegmentation(segment_ids, (Segment(1, 9, False, 1),)))
        with pytest.raises(ValueError, match="ids of segments only, got 1"):
            write(PanopticSegmentation(segment_ids, ()))


def test_invalid_arguments_raise_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"annotations must be one of .*'panoptic'.*, got 'color'"):
        CityscapesReader(tmp_path, annotations="color")  # type: ignore[arg-type]
    for split in ("../val", 3):
        with pytest.raises(DatasetError, match=rf"expected `split` to be a path inside its folder, got {split!r}"):
            CityscapesReader(tmp_path, split)  # type: ignore[arg-type]


def test_missing_annotations_raise_a_dataset_error(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(DatasetError, match=r"the ground truth is missing \(2 of 2 are\).*\*_gtFine_instanceIds\.png"):
        CityscapesReader(tmp_path)
    (tmp_path / f"gtFine/val/zurich/{ZURICH}_gtFine_polygons.json").unlink()
    with pytest.raises(
        DatasetError, match=rf"{ZURICH}_gtFine_polygons\.json: the ground truth is missing \(1 of 2 are\)"
    ):
        CityscapesReader(tmp_path, annotations="polygons")
    with pytest.raises(
        DatasetError, match=r"cityscapes_panoptic_val\.json: expected a panoptic JSON, found none; make"
    ):
        CityscapesReader(tmp_path, annotations="panoptic")


def test_equal_image_names_in_two_cities_raise_a_dataset_error(tmp_path: Path) -> None:
    make(tmp_path)
    for tree in ("leftImg8bit", "gtFine"):
        shutil.copytree(tmp_path / tree / "val/aachen", tmp_path / tree / "val/bochum")
    with pytest.raises(DatasetError, match=r"bochum.*: expected one file of a name, got .*aachen.* too; rename"):
        CityscapesReader(tmp_path, annotations="polygons")


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / f"leftImg8bit/val/aachen/._{AACHEN}_leftImg8bit.png").write_bytes(b"junk")
    assert len(CityscapesReader(tmp_path, annotations="polygons").images) == 2


def test_different_sizes_of_image_and_annotation_raise_a_dataset_error(root: Path) -> None:
    png.write(root / f"leftImg8bit/val/aachen/{AACHEN}_leftImg8bit.png", np.zeros((6, 7, 3), dtype=np.uint8))
    for kind in ("instanceIds", "polygons", "panoptic"):
        reader = CityscapesReader(root, annotations=kind)  # type: ignore[arg-type]
        with pytest.raises(DatasetError, match=rf"{AACHEN}_gtFine.*expected 6 x 7 pixels"):
            reader.read_segmentation(reader.images[0])


def _read_with_issues(root: Path, kind: Any) -> tuple[CityscapesReader, list[tuple[str, str]]]:
    """Returns the reader, whose images are all readable, and (code, file) of the reported issues."""
    issues: list[tuple[str, str]] = []
    reader = CityscapesReader(
        root, annotations=kind, on_issue=lambda code, error: issues.append((code, Path(error.where).name))
    )
    assert {code for code, _ in issues} <= {*RULES}
    for image in reader.images:
        assert reader.read_segmentation(image).segment_ids.shape == reader.read_image(image).shape[:2] == image.size_hw
    return reader, issues


def _add_damaged_images(root: Path) -> None:
    """Adds three images: bonn has the name of aachen, ulm has no ground truth, and weimar is truncated."""
    for tree in ("leftImg8bit", "gtFine"):
        shutil.copytree(root / tree / "val/aachen", root / tree / "val/bonn")
    image = (root / f"leftImg8bit/val/aachen/{AACHEN}_leftImg8bit.png").read_bytes()
    for city, content in (("ulm", image), ("weimar", b"torn")):
        (root / "leftImg8bit/val" / city).mkdir()
        (root / f"leftImg8bit/val/{city}/{city}_leftImg8bit.png").write_bytes(content)


@pytest.mark.parametrize("kind", ["instanceIds", "polygons"])
def test_all_issues_of_the_tree_are_reported(root: Path, kind: str) -> None:
    _add_damaged_images(root)
    for suffix in ("instanceIds.png", "polygons.json"):
        ground_truth = root / f"gtFine/val/weimar/weimar_gtFine_{suffix}"
        ground_truth.parent.mkdir(exist_ok=True)
        shutil.copy(root / f"gtFine/val/aachen/{AACHEN}_gtFine_{suffix}", ground_truth)
    suffix = "instanceIds.png" if kind == "instanceIds" else "polygons.json"
    for name in ("jena_gtFine_", "._jena_gtFine_"):  # files that macOS leaves are no ground truth
        (root / f"gtFine/val/weimar/{name}{suffix}").touch()
    reader, issues = _read_with_issues(root, kind)
    assert issues == [
        ("png-missing", f"ulm_gtFine_{suffix}"),
        ("image-missing", f"jena_gtFine_{suffix}"),
        ("image-id-twice", f"{AACHEN}_leftImg8bit.png"),
        ("image-unreadable", "weimar_leftImg8bit.png"),
    ]
    assert [image.file_name.split("/")[0] for image in reader.images] == ["aachen", "zurich"]


def test_all_issues_of_the_panoptic_files_are_reported(root: Path) -> None:
    _add_damaged_images(root)
    path = root / "gtFine/cityscapes_panoptic_val.json"
    content = json.loads(path.read_text())
    for name in ("absent", "bad", "weimar"):
        content["images"].append({**content["images"][0], "id": name})
        content["annotations"].append({**content["annotations"][0], "image_id": name})
    content["annotations"][3]["segments_info"] = [{"id": 0}]
    path.write_text(json.dumps(content))
    reader, issues = _read_with_issues(root, "panoptic")
    assert issues == [
        ("annotation-unreadable", "cityscapes_panoptic_val.json, image 'bad', segment 0"),
        ("image-id-twice", f"{AACHEN}_leftImg8bit.png"),
        ("image-without-annotation", "ulm_leftImg8bit.png"),
        ("image-missing", "cityscapes_panoptic_val.json, image 'absent'"),
        ("image-unreadable", "weimar_leftImg8bit.png"),
    ]
    assert [image.file_name.split("/")[0] for image in reader.images] == ["aachen", "zurich"]


def test_an_annotation_without_image_raises_a_dataset_error(root: Path) -> None:
    (root / f"leftImg8bit/val/aachen/{AACHEN}_leftImg8bit.png").unlink()
    for kind, message in (
        ("instanceIds", rf"{AACHEN}_gtFine_instanceIds\.png: the ground truth has no image \(1 of 2 files\)"),
        ("polygons", rf"{AACHEN}_gtFine_polygons\.json: the ground truth has no image \(1 of 2 files\)"),
        ("panoptic", r"the image is missing \(1 of 2 files\)"),
    ):
        with pytest.raises(DatasetError, match=message):
            CityscapesReader(root, annotations=kind)  # type: ignore[arg-type]


def test_pngs_that_the_panoptic_json_does_not_name_are_counted(root: Path) -> None:
    assert CityscapesReader(root, annotations="panoptic").skipped == ()
    (root / "gtFine/cityscapes_panoptic_val/lone.png").touch()
    reader, issues = _read_with_issues(root, "panoptic")
    assert (len(reader.images), issues) == (2, [])
    folder = root / "gtFine/cityscapes_panoptic_val"
    assert reader.skipped == (f"{folder}: 1 PNGs are of no annotation that is read: 'lone.png'",)


def test_an_image_whose_header_has_a_wrong_size_raises_a_dataset_error(root: Path) -> None:
    path = root / f"leftImg8bit/val/aachen/{AACHEN}_leftImg8bit.png"
    content = bytearray(path.read_bytes())
    content[16:24] = (60000).to_bytes(4, "big") * 2
    path.write_bytes(content)
    for kind in ("instanceIds", "polygons", "panoptic"):
        reader = CityscapesReader(root, annotations=kind)  # type: ignore[arg-type]
        with pytest.raises(DatasetError, match="expected 60000 x 60000 pixels"):
            reader.read_segmentation(reader.images[0])
    with pytest.raises(DatasetError, match="does not decode"):
        reader.read_image(reader.images[0])


def test_loops_of_symlinks_are_skipped_or_raise_a_dataset_error(tmp_path: Path) -> None:
    make(tmp_path)
    for folder in ("leftImg8bit/val", "gtFine/val"):
        os.symlink(tmp_path / folder, tmp_path / folder / "ulm")
        os.symlink(tmp_path / folder / "bonn", tmp_path / folder / "bonn")
    assert len(CityscapesReader(tmp_path, annotations="polygons").images) == 2
    image = tmp_path / f"leftImg8bit/val/aachen/{AACHEN}_leftImg8bit.png"
    image.unlink()
    os.symlink(image, image)
    with pytest.raises(DatasetError, match=f"{AACHEN}_leftImg8bit.png: the file cannot be read"):
        CityscapesReader(tmp_path, annotations="polygons")
