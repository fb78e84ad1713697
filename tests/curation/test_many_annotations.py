"""Images with 256 and more annotations: pycocotools counts some lists in 8 bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.cli.main import main
from segkit.curation.checks.instances import check_instances
from segkit.curation.convert import convert
from segkit.curation.repair import repair_instances
from segkit.curation.stats import count_dataset
from segkit.formats.base import DatasetReader
from segkit.formats.coco import CocoInstancesReader
from segkit.formats.registry import WRITERS, open_reader, open_writer
from segkit.scoring.instances import score_instances
from segkit.scoring.panoptic import score_panoptic
from segkit.structures import compute_areas_px, segmentation_to_rle

SIDE = 40  # pixels: two in a square, of 2 x 2 squares
COUNT = 300


def _square(index: int) -> list[list[int]]:
    top, left = (2 * number for number in divmod(index, SIDE // 2))
    return [[left, top, left + 2, top, left + 2, top + 2, left, top + 2]]


@pytest.fixture
def json_path(tmp_path: Path) -> Path:
    """300 squares in one image; every second has its polygon twice."""
    annotations: list[dict[str, Any]] = [
        {
            "id": i + 1,
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 0,
            "area": 4,
            "segmentation": _square(i) * (1 + i % 2),
        }
        | {"bbox": [*_square(i)[0][:2], 2, 2]}
        for i in range(COUNT)
    ]
    content = {
        "images": [{"id": 1, "file_name": "1.png", "height": SIDE, "width": SIDE}],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": annotations,
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(tmp_path / "images/1.png")
    return path


@pytest.mark.parametrize(
    "name", sorted({*WRITERS} - {"two-channel-png", "cityscapes-submission", "decathlon", "vipseg"})
)
def test_every_format_that_has_room_gets_all_of_them(name: str, json_path: Path, tmp_path: Path) -> None:
    reader: DatasetReader = CocoInstancesReader(json_path, tmp_path / "images")
    losses = convert(reader, open_writer(name, tmp_path / "out", reader.categories, {}))
    assert not any("pixels under other masks" in loss.description for loss in losses)


def get_options(name: str, root: Path) -> dict[str, Path]:
    """The options that read what `WRITERS[name]` wrote to a folder."""
    if name == "coco-instances":
        return {"json": root / "instances.json", "images": root / "images"}
    if name in ("coco-panoptic", "panoptic-predictions"):
        return {"json": root / "panoptic.json", "masks": root / "panoptic", "images": root / "images"}
    return {"root": root}


@pytest.mark.parametrize(
    ("written", "read"),
    [(n, n) for n in ("ade20k", "cityscapes", "coco-instances", "coco-panoptic", "instance-maps", "labelme", "yolo")]
    + [("coco-panoptic", "panoptic-predictions")],
)
def test_every_reader_gives_all_of_them(written: str, read: str, json_path: Path, tmp_path: Path) -> None:
    reader: DatasetReader = CocoInstancesReader(json_path, tmp_path / "images")
    convert(reader, open_writer(written, tmp_path / "out", reader.categories, {}), copy_images=True)
    copy = open_reader(read, get_options(written, tmp_path / "out"))
    (image,) = copy.images
    assert sum(segment.isthing for segment in copy.read_segmentation(image).segments) == COUNT
    assert [annotation["area"] for annotation in copy.read_annotations(image)] == [4] * COUNT
    assert len(copy.read_stored_annotations(image)) == COUNT


def test_the_panoptic_scorer_counts_them(json_path: Path, tmp_path: Path) -> None:
    reader: DatasetReader = CocoInstancesReader(json_path, tmp_path / "images")
    convert(reader, open_writer("coco-panoptic", tmp_path / "out", reader.categories, {}))
    paths = [tmp_path / "out" / name for name in ("panoptic.json", "panoptic")]
    metric = score_panoptic(paths[0], paths[0], paths[1], paths[1], boundary=True, dagger=True).metric
    numbers = metric.compute()
    assert [numbers[name] for name in ("PQ", "PQ_th", "PQ_dagger", "BoundaryPQ")] == [100] * 4


def test_checks_repairs_and_counts_take_them(json_path: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    assert check_instances(json_path, images, map) == []
    copy, lines = repair_instances(json_path, images, tmp_path / "copy", map)
    assert lines == []
    assert len(json.loads(copy.read_text())["annotations"]) == COUNT
    assert count_dataset(CocoInstancesReader(json_path, images))["classes"]["car"]["segments"] == COUNT


def test_the_command_converts_and_checks_them(json_path: Path, tmp_path: Path) -> None:
    images = str(tmp_path / "images")
    output = tmp_path / "out"
    given = ["--from", "coco-instances", "--json", str(json_path), "--images", images]
    assert main(["data", "convert", *given, "--to", "coco-panoptic", "--output", str(output)]) == 0
    (entry,) = json.loads((output / "panoptic.json").read_text())["annotations"]
    assert [info["area"] for info in entry["segments_info"]] == [4] * COUNT


@pytest.mark.parametrize("crowd", [0, 1])
def test_the_scorer_counts_them(json_path: Path, tmp_path: Path, crowd: int) -> None:
    """Also an annotation of all their polygons."""
    content = json.loads(json_path.read_text())
    squares = content["annotations"]
    rles = [segmentation_to_rle(square["segmentation"], (SIDE, SIDE)) for square in squares]
    results = [
        {"image_id": 1, "category_id": 1, "bbox": square["bbox"], "segmentation": rle, "score": 0.5}
        for square, rle in zip(squares, rles, strict=True)
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    whole = {"id": COUNT + 1, "image_id": 1, "category_id": 1, "iscrowd": crowd, "area": 4 * COUNT}
    polygons = [polygon for square in squares for polygon in square["segmentation"]]
    content["annotations"].append(whole | {"bbox": [0, 0, 40, 30], "segmentation": polygons})
    json_path.write_text(json.dumps(content))
    kinds = ("bbox", "segm", "boundary")
    numbers = score_instances(json_path, tmp_path / "results.json", iou_types=kinds).compute()
    # COCO counts 100 results of an image; a crowd is no object that can be missed.
    expected = 100 * 100 / (COUNT + 1 - crowd)
    assert [numbers[kind]["AR100"] for kind in kinds] == pytest.approx([expected] * 3)
    assert compute_areas_px(rles) == [4] * COUNT
