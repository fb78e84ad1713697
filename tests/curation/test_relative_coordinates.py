"""Polygons whose coordinates are shares of the image: conversion reports them, as the check does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segkit.cli.main import main
from segkit.curation.issues import RULES
from segkit.formats.base import DatasetReader
from segkit.formats.coco import RELATIVE, CocoInstancesReader, are_relative
from segkit.utils.errors import DatasetError
from tests.helpers.damaged_datasets import instances


@pytest.mark.parametrize(
    ("polygons", "expected"),
    [
        ([[0.1, 0.2, 0.5, 0.2, 0.5, 1]], True),
        ([[0, 0, 1, 0, 1, 1]], False),  # one pixel
        ([[0.1, 0.2, 0.5, 0.2, 0.5, 1], [1, 1, 4, 1, 4, 4]], False),
        ([[-0.1, 0.2, 0.5, 0.2, 0.5, 1]], False),
        ([], False),
    ],
)
def test_shares_of_the_image_are_recognized(polygons: list[list[float]], expected: bool) -> None:
    assert are_relative(polygons) is expected


def list_issues(reader: DatasetReader) -> list[tuple[str, str]]:
    issues: list[tuple[str, DatasetError]] = []
    for image in reader.images:
        reader.check_annotation(image, lambda code, error: issues.append((code, error)))
    return [(code, error.where) for code, error in issues]


def write_relative(data: Any) -> dict[str, Any]:
    """Gives an annotation shares of the image; returns the annotation."""
    content = data.load()
    annotation: dict[str, Any] = content["annotations"][2]
    annotation["segmentation"] = [[0.1, 0.2, 0.5, 0.2, 0.5, 1]]
    data.store(content)
    return annotation


def test_readers_of_instances_report_them(tmp_path: Path) -> None:
    data = instances(tmp_path)
    annotation = write_relative(data)
    where = f"{data.json_path}, image {annotation['image_id']}, annotation {annotation['id']}"
    assert list_issues(CocoInstancesReader(data.json_path, data.images)) == [("coordinates-relative", where)]
    assert "coordinates-relative" in RULES


@pytest.mark.parametrize("to", ["coco-instances", "coco-panoptic", "yolo"])
def test_convert_refuses_them(to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = instances(tmp_path / "set")
    annotation = write_relative(data)
    dataset = ["--from", "coco-instances", "--json", str(data.json_path), "--images", str(data.images)]
    assert main(["data", "convert", *dataset, "--to", to, "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert f"annotation {annotation['id']}: {RELATIVE}" in error
    assert RULES["coordinates-relative"].remedy in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
