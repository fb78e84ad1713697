from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segkit.formats.cityscapes import polygons
from segkit.formats.cityscapes.label_pngs import LABELS
from segkit.structures import Segment
from segkit.utils.errors import DatasetError
from tests.helpers.cityscapes_tree import box, reference_ids
from tests.helpers.coco_samples import JUNK, spoil

NAMES = [label.name for label in LABELS] + [
    "cargroup",
    "persongroup",
    "caravangroup",
    "roadgroup",
    "license plategroup",
]
COORDINATES = st.one_of(st.integers(-5, 20), st.floats(-5, 20, width=32))
OBJECTS = st.builds(
    dict,
    label=st.sampled_from(NAMES),
    polygon=st.lists(st.lists(COORDINATES, min_size=2, max_size=2), min_size=2, max_size=6),
    deleted=st.sampled_from([0, 0, 0, 1]),
)


def _write(folder: Path, objects: object, **fields: object) -> Path:
    path = folder / "x_gtFine_polygons.json"
    path.write_text(json.dumps({"imgHeight": 3, "imgWidth": 4, "objects": objects, **fields}))
    return path


def test_later_objects_occlude_earlier_ones(tmp_path: Path) -> None:
    # Corners belong to a polygon. The first car is hidden but has a number: the second is 26001.
    objects = [box("road", 0, 1, 3, 2), box("car", 0, 0, 1, 0), box("car", 0, 0, 1, 1), box("cargroup", 3, 0, 3, 0)]
    path = _write(tmp_path, [*objects, box("static", 3, 2, 3, 2), box("bus", 0, 0, 3, 2, deleted=True)])
    segmentation = polygons.read_polygon_segmentation(path, (3, 4))
    assert segmentation.segment_ids.tolist() == [[26001, 26001, 0, 26], [26001, 26001, 7, 7], [7, 7, 7, 0]]
    assert segmentation.segments == (
        Segment(7, 7, False, 5),
        Segment(26, 26, True, 1, iscrowd=True),
        Segment(26001, 26, True, 4),
    )


def test_a_file_without_objects_is_void(tmp_path: Path) -> None:
    segmentation = polygons.read_polygon_segmentation(_write(tmp_path, []))
    assert segmentation.segments == ()
    assert not segmentation.segment_ids.any()
    assert segmentation.segment_ids.shape == (3, 4)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(OBJECTS, max_size=8), st.integers(1, 12), st.integers(1, 12))
def test_polygons_equal_cityscapesscripts(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    objects: list[dict[str, Any]],
    height: int,
    width: int,
) -> None:
    path = _write(tmp_path, objects, imgHeight=height, imgWidth=width)
    np.testing.assert_array_equal(polygons.draw_polygons(path), reference_ids(monkeypatch, path), strict=True)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (
            [box("cart", 0, 0, 1, 1)],
            r"object 0: expected a label of Cityscapes, or one and 'group', got 'cart'; rename",
        ),
        ([box("group", 0, 0, 1, 1)], "got 'group'"),
        ([box("cargroupgroup", 0, 0, 1, 1)], "got 'cargroupgroup'"),
        ([box("car", 0, 0, float("nan"), 1)], "expected `polygon` to be at least 2 points"),
        ([box("car", 0, 0, 2**40, 1)], "within 1048576 pixels"),
        ([{"label": "car", "polygon": [[1, 1]]}], "expected `polygon` to be at least 2 points"),
        ([{"label": "car", "polygon": [[1, 1], [1, True]]}], "expected `polygon` to be at least 2 points"),
        ([box("car", 0, 0, 1, 1)] * 1001, "object 1000: expected at most 1000 instances of car"),
        ([box("car", 0, 0, 1, 1, deleted="no")], "object 0: expected `deleted` to be 0 or 1, got 'no'"),
        ([7], "expected `objects` to hold objects, got 7 at index 0"),
    ],
)
def test_invalid_objects_raise_a_dataset_error(tmp_path: Path, objects: list[Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        polygons.read_polygon_segmentation(_write(tmp_path, objects))
    assert "x_gtFine_polygons.json" in str(caught.value)


def test_unexpected_and_invalid_sizes_raise_a_dataset_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"expected 4 x 3 pixels .* got imgHeight 3 and imgWidth 4"):
        polygons.read_polygon_segmentation(_write(tmp_path, []), (4, 3))
    for height, width in ((0, 4), (-3, -4), (10**6, 10**6), (3, 10**400)):
        with pytest.raises(DatasetError, match=r"expected (an image of at least.*|at most 178956970 pixels)"):
            polygons.read_polygon_segmentation(_write(tmp_path, [], imgHeight=height, imgWidth=width))


def test_deep_large_and_looping_files_raise_a_dataset_error(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[" * 10**6)
    with pytest.raises(DatasetError, match=r"x\.json: expected JSON"):
        polygons.read_polygon_segmentation(path)
    with path.open("wb") as file:
        file.truncate(polygons.MAX_BYTES + 1)
    with pytest.raises(DatasetError, match="at most 67108864 bytes, got 67108865; is it the polygon file of one image"):
        polygons.read_polygon_segmentation(path)
    loop = tmp_path / "loop.json"
    os.symlink(loop, loop)
    with pytest.raises(DatasetError, match=r"loop\.json: the file cannot be read"):
        polygons.read_polygon_segmentation(loop)


def read_spoiled(path: Path, seed: int, junk: object) -> bool:
    """Returns whether a file with one junk value is read; an error must name the file."""
    content = {"imgHeight": 3, "imgWidth": 4, "objects": [box("car", 0, 0, 1, 1), box("road", 1, 1, 2, 2, deleted=0)]}
    path.write_text(json.dumps(spoil(content, random.Random(seed).randrange, junk)))
    message = None
    try:
        polygons.read_polygon_segmentation(path)
    except DatasetError as error:
        message = str(error)
    assert message is None or message.startswith(str(path))
    return message is None


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), junk=st.sampled_from(JUNK))
def test_junk_values_raise_only_dataset_errors(
    tmp_path_factory: pytest.TempPathFactory, seed: int, junk: object
) -> None:
    read_spoiled(tmp_path_factory.mktemp("spoiled") / "x.json", seed, junk)


def test_a_known_share_of_spoiled_files_is_accepted(tmp_path: Path) -> None:
    accepted = [read_spoiled(tmp_path / "x.json", seed, junk) for seed in range(20) for junk in JUNK]
    assert 0.02 < sum(accepted) / len(accepted) < 0.5
