"""File names that another system spelled: in every format that names image files they are found, and checks report it.

The image of 6 x 8 pixels is `my photo.png` in the folder `sub`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.curation.checks.instances import check_instances
from segkit.curation.checks.other_formats import check_dataset
from segkit.curation.checks.panoptic import check_panoptic
from segkit.curation.convert import convert
from segkit.curation.image_files import digest_split
from segkit.curation.repair import repair_instances, repair_panoptic
from segkit.formats import coco
from segkit.formats.registry import open_reader, open_writer

NAME = "sub/my photo.png"
SPELLINGS = ["sub\\my photo.png", "sub/my%20photo.png", "Sub/My Photo.PNG"]
CATEGORIES = [{"id": 1, "name": "cat", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0}]
SQUARE = {"image_id": 1, "category_id": 1, "iscrowd": 0, "area": 9, "bbox": [1, 1, 3, 3]}
POLYGON = [1, 1, 4, 1, 4, 4, 1, 4]


def write_dataset(root: Path, spelling: str) -> None:
    """instances.json, results.json, panoptic.json and labelme.json name the image, and panoptic.json its PNG."""
    pixels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    for folder in ("images", "masks"):
        (root / folder / "sub").mkdir(parents=True)
    Image.fromarray(pixels).save(root / "images" / NAME)
    ids = np.zeros((6, 8), dtype=np.int32)
    ids[1:4, 1:4] = 7
    coco.write_png(root / "masks" / NAME, ids)
    images = [{"id": 1, "file_name": spelling, "height": 6, "width": 8}]
    annotation = {**SQUARE, "id": 1, "segmentation": [POLYGON]}
    result = {**SQUARE, "score": 0.9, "segmentation": {"size": [6, 8], "counts": [7, 3, 3, 3, 3, 3, 26]}}
    panoptic = {"image_id": 1, "file_name": spelling, "segments_info": [{**SQUARE, "id": 7}]}
    labelme = {
        "imagePath": spelling, "imageHeight": 6, "imageWidth": 8,
        "shapes": [{"label": "cat", "shape_type": "polygon", "points": [[1, 1], [3, 1], [3, 3], [1, 3]]}],
    }  # fmt: skip
    write_json(root / "instances.json", {"images": images, "annotations": [annotation], "categories": CATEGORIES[:1]})
    write_json(root / "results.json", [result])
    write_json(root / "panoptic.json", {"images": images, "annotations": [panoptic], "categories": CATEGORIES})
    write_json(root / "images" / "labelme.json", labelme)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def get_options(format_name: str, root: Path) -> dict[str, Any]:
    images = {"images": str(root / "images")}
    return {
        "coco-instances": {"json": root / "instances.json", **images},
        "coco-panoptic": {"json": root / "panoptic.json", "masks": root / "masks", **images},
        "coco-results": {"json": root / "results.json", "dataset": root / "instances.json", **images},
        "panoptic-predictions": {"json": root / "panoptic.json", "masks": root / "masks", **images},
        "labelme": {"root": root / "images"},
    }[format_name]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    "format_name", ["coco-instances", "coco-panoptic", "coco-results", "panoptic-predictions", "labelme"]
)
def test_images_and_pngs_are_found_and_converted(tmp_path: Path, format_name: str, spelling: str) -> None:
    write_dataset(tmp_path / "data", spelling)
    reader = open_reader(format_name, get_options(format_name, tmp_path / "data"))
    assert [image.file_name for image in reader.images] == [NAME]
    assert reader.read_image(reader.images[0]).shape == (6, 8, 3)
    assert not check_dataset(reader, map).has_errors()
    target = "voc" if format_name == "labelme" else "labelme"
    convert(reader, open_writer(target, tmp_path / "out", reader.categories, {}))
    assert [path.name for path in (tmp_path / "out").rglob("my photo.*")]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_names_of_instances_are_reported_and_repaired(tmp_path: Path, spelling: str) -> None:
    write_dataset(tmp_path / "data", spelling)
    json_path, images = tmp_path / "data" / "instances.json", tmp_path / "data" / "images"
    assert [issue.code for issue in check_instances(json_path, images, map)] == ["name-spelling"]
    copy, lines = repair_instances(json_path, images, tmp_path / "copy", map)
    assert check_instances(copy, images, map) == []
    assert json.loads(copy.read_text())["images"][0]["file_name"] == NAME
    assert lines == ["corrected 1 of the names of images: the files are spelled otherwise"]
    assert digest_split(json_path, images, map) == digest_split(copy, images, map) != {}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_names_of_a_panoptic_json_are_reported_and_repaired(tmp_path: Path, spelling: str) -> None:
    write_dataset(tmp_path / "data", spelling)
    paths = (tmp_path / "data" / name for name in ("panoptic.json", "masks", "images"))
    json_path, masks, images = paths
    codes = [issue.code for issue in check_panoptic(json_path, masks, images, map)]
    assert codes == ["name-spelling", "class-empty", "name-spelling"]
    copy, copied_masks, lines = repair_panoptic(json_path, masks, images, tmp_path / "copy", map)
    assert [issue.code for issue in check_panoptic(copy, copied_masks, images, map)] == ["class-empty"]
    assert len(lines) == 2


def change_first(content: Any) -> None:
    content["images"][0]["file_name"] = "images/sub/My photo.png"


def name_absolutely(content: Any) -> None:
    content["images"][0]["file_name"] = "C:\\photos\\sub\\my photo.png"


def add_twin(content: Any) -> None:
    content["images"].append({**content["images"][0], "id": 2, "file_name": NAME})


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (change_first, "image-missing", "is it sub/my photo.png, without images/?"),
        (name_absolutely, "name-outside", "(is it sub/my photo.png, without C:/photos/?)"),
        (add_twin, "file-name-twice", "image 1 has the file sub/my photo.png too"),
    ],
)
def test_what_is_not_certain_is_only_named(
    tmp_path: Path, change: Callable[[Any], None], code: str, message: str
) -> None:
    write_dataset(tmp_path / "data", SPELLINGS[0])
    json_path, images = tmp_path / "data" / "instances.json", tmp_path / "data" / "images"
    content = json.loads(json_path.read_text())
    change(content)
    write_json(json_path, content)
    issues = check_instances(json_path, images, map)
    assert message in next(issue.message for issue in issues if issue.code == code)
    copy, _lines = repair_instances(json_path, images, tmp_path / "copy", map)
    assert json.loads(copy.read_text())["images"] == content["images"]
