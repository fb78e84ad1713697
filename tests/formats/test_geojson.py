"""GeoJSON in pixels: read by the even-odd rule, it has the pixels, parts, holes and scores that were written."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segkit.cli.main import main
from tests.helpers import predicted_run
from tests.helpers.predicted_run import CELL, DOT, DOT_MASK, LOW_DOT, SIZE_HW, WATER, WHOLE_CELL, build_map


def fill(feature: dict[str, Any]) -> NDArray[np.bool_]:
    """The pixels whose centre is inside: a line to the right crosses the rings an odd number of times."""
    geometry = feature["geometry"]
    polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    rings = [ring for rings in polygons for ring in rings]
    mask = np.zeros(SIZE_HW, dtype=np.bool_)
    for row, column in np.ndindex(*SIZE_HW):
        x, y, crossings = column + 0.5, row + 0.5, 0
        for ring in rings:
            assert ring[0] == ring[-1]
            for (x0, y0), (x1, y1) in pairwise(ring):
                crossings += x0 == x1 and x0 > x and min(y0, y1) < y < max(y0, y1)
        mask[row, column] = crossings % 2
    return mask


def convert(tmp_path: Path, *options: str) -> Path:
    root = predicted_run.write_run(tmp_path / "run")
    command = ["data", "convert", "--from", "run", "--root", root, "--to", "geojson", "--output", tmp_path / "out"]
    assert main([*map(str, command), "--skip-images", *options]) == 0
    return tmp_path / "out"


def test_instances_and_stuff_keep_pixels_names_and_scores(tmp_path: Path) -> None:
    output = convert(tmp_path, "--set", "min_score=null")
    content = json.loads((output / "a/eins.geojson").read_text())
    assert (content["image_id"], content["file_name"]) == ("s-1", "a/eins.png")
    water, *things = content["features"]
    assert (water["properties"]["category_id"], "score" in water["properties"]) == (WATER, False)
    assert np.array_equal(fill(water), build_map() == 9)
    rows = [(f["properties"]["category_id"], f["properties"]["score"], fill(f).tobytes()) for f in things]
    masks = ((DOT, 0.125, LOW_DOT), (DOT, 0.25, DOT_MASK), (CELL, 0.75, WHOLE_CELL))
    assert rows == [(category_id, score, mask.tobytes()) for category_id, score, mask in masks]
    assert things[-1]["geometry"]["type"] == "MultiPolygon"
    assert things[-1]["properties"]["classification"] == {"name": "Zelle ü 细胞", "color": [200, 10, 10]}
    assert json.loads((output / "b/zwei ö.geojson").read_text())["features"] == []


def test_a_map_keeps_holes_as_inner_rings(tmp_path: Path) -> None:
    predicted_run.write_panoptic(tmp_path / "map")
    command = ["data", "convert", "--from", "run", "--root", tmp_path / "map", "--to", "geojson", "--skip-images"]
    assert main([*map(str, command), "--output", str(tmp_path / "out"), "--set", "min_score=null"]) == 0
    features = json.loads((tmp_path / "out/a/eins.geojson").read_text())["features"]
    cell = next(feature for feature in features if feature["properties"]["category_id"] == CELL)
    assert sorted(len(rings) for rings in cell["geometry"]["coordinates"]) == [1, 2]
    assert np.array_equal(fill(cell), build_map() == 5)


def test_low_scores_are_left_out_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = convert(tmp_path)
    features = json.loads((output / "a/eins.geojson").read_text())["features"]
    assert [feature["properties"].get("score") for feature in features] == [None, 0.75]
    assert "2 of 3 results have a score below 0.5" in capsys.readouterr().out


def test_shapely_reads_valid_polygons(tmp_path: Path) -> None:
    shapely = pytest.importorskip("shapely")
    output = convert(tmp_path, "--set", "min_score=null")
    shapes = shapely.from_geojson((output / "a/eins.geojson").read_text())
    assert shapes.is_valid
    assert [shape.area for shape in shapes.geoms] == [9, 2, 1, 11]
