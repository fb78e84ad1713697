"""A small Cityscapes tree, and its preparation by cityscapesscripts."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segkit.formats import png
from segkit.formats.cityscapes import encode_instance_ids
from segkit.structures import PanopticSegmentation, Segment
from tests.helpers.cityscapes_reference import import_reference

CITIES = {"aachen_000000_000002": (6, 8), "zurich_000000_000001": (5, 9)}


def box(label: str, left: float, top: float, right: float, bottom: float, **more: object) -> dict[str, Any]:
    return {"label": label, "polygon": [[left, top], [right, top], [right, bottom], [left, bottom]], **more}


OBJECTS = [
    box("out of roi", 0, 0, 9, 6),
    box("road", 0, 3, 8, 5),
    box("sky", 0, 0, 8, 1.5),
    box("car", 1, 2, 3, 4),
    box("car", 1, 2, 2, 4),
    box("license plate", 1, 3, 1, 3),
    box("cargroup", 5, 2, 6, 3),
    box("polegroup", 7, 0, 7, 4),
    box("caravan", 4, 4, 4, 4),
    box("person", 0, 0, 8, 5, deleted=1),
]


def make(root: Path, split: str = "val") -> Path:
    """Writes images and polygons; OBJECTS are in every image."""
    for name, (height, width) in CITIES.items():
        city = name.split("_")[0]
        rgb = np.full((height, width, 3), len(city), dtype=np.uint8)
        png.write(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", rgb)
        path = root / "gtFine" / split / city / f"{name}_gtFine_polygons.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"imgHeight": height, "imgWidth": width, "objects": OBJECTS}))
    return root


def preparation(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """Imports a module of cityscapesscripts.preparation; skips the test if it is missing."""
    import_reference(monkeypatch)
    return importlib.import_module(f"cityscapesscripts.preparation.{name}")


def reference_ids(monkeypatch: pytest.MonkeyPatch, polygons_path: Path) -> NDArray[np.int32]:
    """Returns the instance ids drawn by cityscapesscripts, whose PNG writer fails with recent versions of Pillow."""
    create = preparation(monkeypatch, "json2instanceImg")
    annotation = create.Annotation()
    annotation.fromJsonFile(str(polygons_path))
    return np.array(create.createInstanceImage(annotation, "ids"))


def prepare(monkeypatch: pytest.MonkeyPatch, root: Path, **options: object) -> None:
    """Writes instance ids, label ids, train ids and panoptic files of the tree with cityscapesscripts."""
    to_labels = preparation(monkeypatch, "json2labelImg").json2labelImg
    for path in sorted(root.glob("gtFine/*/*/*_polygons.json")):
        stem = str(path).removesuffix("_polygons.json")
        png.write(Path(f"{stem}_instanceIds.png"), reference_ids(monkeypatch, path).astype(np.uint16))
        to_labels(str(path), f"{stem}_labelIds.png")
        to_labels(str(path), f"{stem}_labelTrainIds.png", "trainIds")
    with contextlib.redirect_stdout(io.StringIO()):
        convert = preparation(monkeypatch, "createPanopticImgs").convert2panoptic
        convert(cityscapesPath=str(root / "gtFine"), setNames=["val"], **options)


def write_instance_ids(root: Path) -> None:
    """Two 4 x 4 images: road (7), a person group (24, a crowd), a car instance (26), and void (0)."""
    ids = np.array([[7, 7, 24, 24], [7, 7, 24, 24], [26001, 26001, 7, 7], [0, 0, 7, 7]], dtype=np.int32)
    segments = (
        Segment(7, 7, False, 8),
        Segment(24, 24, True, 4, iscrowd=True),
        Segment(26001, 26, True, 2),
    )
    for name in ("aachen_000000_000019", "aachen_000001_000019"):
        image = root / f"cityscapes/leftImg8bit/train/aachen/{name}_leftImg8bit.png"
        png.write(image, np.full((4, 4, 3), 9, dtype=np.uint8))
        labels = root / f"cityscapes/gtFine/train/aachen/{name}_gtFine_instanceIds.png"
        png.write(labels, encode_instance_ids(PanopticSegmentation(ids, segments)))
