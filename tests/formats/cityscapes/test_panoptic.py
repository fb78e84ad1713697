"""Panoptic files of label ids and of train ids, written by cityscapesscripts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from segkit.formats import cityscapes
from segkit.formats.cityscapes import CityscapesReader
from segkit.formats.cityscapes.label_pngs import LABELS
from segkit.formats.coco import CocoPanopticReader
from segkit.utils.errors import DatasetError
from tests.helpers.cityscapes_tree import CITIES, make, prepare

AACHEN, ZURICH = CITIES


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root_folder = make(tmp_path / "cityscapes")
    prepare(monkeypatch, root_folder)
    return root_folder


def test_images_without_annotation_and_annotations_without_image_raise_a_dataset_error(root: Path) -> None:
    path = root / "gtFine/cityscapes_panoptic_val.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "images": content["images"][:1], "annotations": content["annotations"][:1]}))
    with pytest.raises(
        DatasetError,
        match=rf"{ZURICH}_leftImg8bit\.png: .*has no valid annotation of the image .1 of 2 files\); make",
    ):
        CityscapesReader(root, annotations="panoptic")
    path.write_text(json.dumps(content))
    shutil.rmtree(root / "leftImg8bit/val/aachen")
    with pytest.raises(DatasetError, match=rf"image '{AACHEN}': the image is missing \(1 of 2 files\)"):
        CityscapesReader(root, annotations="panoptic")
    shutil.rmtree(root / "leftImg8bit/val/zurich")
    with pytest.raises(DatasetError, match="the split has no image"):
        CityscapesReader(root, annotations="panoptic")


@pytest.mark.parametrize("name", ["cityscapes_panoptic_val", "cityscapes_panoptic_val_trainId"])
def test_panoptic_files_of_train_ids_are_read(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Names of recent cityscapesscripts, and names of older versions, which Detectron2 expects."""
    expected = CityscapesReader(root)
    prepare(monkeypatch, make(tmp_path / "train"), useTrainId=True)
    folder = tmp_path / "train/gtFine"
    for path in sorted(folder.glob("cityscapes_panoptic_val_trainId*")):
        path.rename(folder / path.name.replace("cityscapes_panoptic_val_trainId", name))
    reader = CityscapesReader(tmp_path / "train", annotations="panoptic")
    assert reader.images == expected.images
    for image in reader.images:
        segmentation, expected_segmentation = reader.read_segmentation(image), expected.read_segmentation(image)
        assert segmentation.segments == expected_segmentation.segments
        np.testing.assert_array_equal(segmentation.segment_ids, expected_segmentation.segment_ids)


def test_label_ids_are_preferred_to_train_ids(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, root, useTrainId=True)
    (root / "gtFine/cityscapes_panoptic_val_trainId.json").write_text("junk")
    assert len(CityscapesReader(root, annotations="panoptic").images) == 2


@pytest.mark.parametrize("train_ids", [False, True])
def test_the_coco_reader_reads_panoptic_files_of_cityscapes(
    root: Path, monkeypatch: pytest.MonkeyPatch, train_ids: bool
) -> None:
    """All except the images: the JSON has no valid file names of images."""
    prepare(monkeypatch, root, useTrainId=train_ids)
    base = root / f"gtFine/cityscapes_panoptic_val{'_trainId' if train_ids else ''}"
    coco = CocoPanopticReader(f"{base}.json", base, root / "leftImg8bit/val")
    ids = {x.name: x.train_id if train_ids else x.label_id for x in LABELS if not x.ignored}
    assert {c.name: c.category_id for c in coco.categories.categories} == ids
    for coco_image, cityscapes_image in zip(coco.images, CityscapesReader(root).images, strict=True):
        assert (coco_image.image_id, coco_image.size_hw) == (cityscapes_image.image_id, cityscapes_image.size_hw)
        segmentation = coco.read_segmentation(coco_image)
        expected_segmentation = CityscapesReader(root).read_segmentation(cityscapes_image)
        np.testing.assert_array_equal(segmentation.segment_ids, expected_segmentation.segment_ids)
        names = [coco.categories[s.category_id].name for s in segmentation.segments]
        assert names == [cityscapes.CATEGORIES[s.category_id].name for s in expected_segmentation.segments]


def test_other_categories_raise_a_dataset_error(root: Path) -> None:
    path = root / "gtFine/cityscapes_panoptic_val.json"
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "street"
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"expected the 19 categories .*got others: .*'street'.*; make it with"):
        CityscapesReader(root, annotations="panoptic")


def test_png_names_outside_the_folder_raise_a_dataset_error(root: Path) -> None:
    path = root / "gtFine/cityscapes_panoptic_val.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["file_name"] = "../../secret.png"
    path.write_text(json.dumps(content))
    with pytest.raises(
        DatasetError, match=r"expected `file_name` to be a path inside its folder, got '\.\./\.\./secret"
    ):
        CityscapesReader(root, annotations="panoptic")
