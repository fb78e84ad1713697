"""The panoptic files that cityscapesscripts makes, of label ids and of train ids."""

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


def test_panoptic_and_images_disagree(root: Path) -> None:
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
def test_panoptic_of_train_ids(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As cityscapesscripts name them today, and as older versions did and Detectron2 expects them."""
    expected = CityscapesReader(root)
    prepare(monkeypatch, make(tmp_path / "train"), useTrainId=True)
    folder = tmp_path / "train/gtFine"
    for path in sorted(folder.glob("cityscapes_panoptic_val_trainId*")):
        path.rename(folder / path.name.replace("cityscapes_panoptic_val_trainId", name))
    reader = CityscapesReader(tmp_path / "train", annotations="panoptic")
    assert reader.images == expected.images
    for image in reader.images:
        got, wanted = reader.read_segmentation(image), expected.read_segmentation(image)
        assert got.segments == wanted.segments
        np.testing.assert_array_equal(got.segment_ids, wanted.segment_ids)


def test_label_ids_are_preferred_to_train_ids(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, root, useTrainId=True)
    (root / "gtFine/cityscapes_panoptic_val_trainId.json").write_text("junk")
    assert len(CityscapesReader(root, annotations="panoptic").images) == 2


@pytest.mark.parametrize("train_ids", [False, True])
def test_panoptic_files_are_coco_panoptic_too(root: Path, monkeypatch: pytest.MonkeyPatch, train_ids: bool) -> None:
    """All but the images, whose names in the JSON are names of no file."""
    prepare(monkeypatch, root, useTrainId=train_ids)
    base = root / f"gtFine/cityscapes_panoptic_val{'_trainId' if train_ids else ''}"
    coco = CocoPanopticReader(f"{base}.json", base, root / "leftImg8bit/val")
    ids = {x.name: x.train_id if train_ids else x.label_id for x in LABELS if not x.ignored}
    assert {c.name: c.category_id for c in coco.categories.categories} == ids
    for theirs, ours in zip(coco.images, CityscapesReader(root).images, strict=True):
        assert (theirs.image_id, theirs.size_hw) == (ours.image_id, ours.size_hw)
        got = coco.read_segmentation(theirs)
        wanted = CityscapesReader(root).read_segmentation(ours)
        np.testing.assert_array_equal(got.segment_ids, wanted.segment_ids)
        names = [coco.categories[s.category_id].name for s in got.segments]
        assert names == [cityscapes.CATEGORIES[s.category_id].name for s in wanted.segments]


def test_other_categories_are_refused(root: Path) -> None:
    path = root / "gtFine/cityscapes_panoptic_val.json"
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "street"
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"expected the 19 categories .*got others: .*'street'.*; make it with"):
        CityscapesReader(root, annotations="panoptic")


def test_panoptic_names_that_leave_the_folder(root: Path) -> None:
    path = root / "gtFine/cityscapes_panoptic_val.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["file_name"] = "../../secret.png"
    path.write_text(json.dumps(content))
    with pytest.raises(
        DatasetError, match=r"expected `file_name` to be a path inside its folder, got '\.\./\.\./secret"
    ):
        CityscapesReader(root, annotations="panoptic")
