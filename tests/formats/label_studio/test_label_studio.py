"""Label Studio's tasks: decoded by its rules, bit by bit, and by its own SDK, they have the masks that were written."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from segkit.cli.main import main
from segkit.formats.label_studio import encode_brush
from segkit.structures import rle_to_mask, segmentation_to_rle
from tests.helpers import predicted_run
from tests.helpers.predicted_run import CATEGORIES, DOT_MASK, LOW_DOT, SIZE_HW, WHOLE_CELL, build_map


def decode_brush(stream: list[int], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask of a brush RLE, one bit after the other, as @thi.ng/rle-pack reads it."""
    bits = "".join(f"{byte:08b}" for byte in stream)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    count, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    elements: list[int] = []
    while len(elements) < count:
        is_run, size = read(1), sizes[read(2)]
        length = read(size) + 1
        elements += [read(word)] * length if is_run else [read(word) for _ in range(length)]
    assert len(elements) == count
    assert set(bits[place:]) <= {"0"}
    assert len(bits) - place < 8
    rgba = np.array(elements, dtype=np.uint8).reshape(*size_hw, 4)
    assert (rgba == rgba[..., :1]).all()
    return rgba[..., 0] == 255


@settings(max_examples=100, deadline=None)
@given(mask=hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 40))))
def test_brush_masks_are_decoded_by_the_rules(mask: NDArray[np.bool_]) -> None:
    assert np.array_equal(decode_brush(encode_brush(mask), mask.shape), mask)


@pytest.mark.parametrize("run", [1, 2, 4, 5, 64, 65, 16384, 16385, 40000])
def test_runs_of_every_length_are_decoded(run: int) -> None:
    """A pixel is four elements: the sizes of lengths change at 8, 16 and 256 elements, and 65536 are the most."""
    mask = np.zeros((1, 40001), dtype=np.bool_)
    mask[0, :run] = True
    assert np.array_equal(decode_brush(encode_brush(mask), mask.shape), mask)


def test_the_sdk_decodes_the_same_mask() -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    mask = np.random.default_rng(0).random((37, 53)) < 0.4
    image = np.reshape(brush.decode_rle(encode_brush(mask)), (*mask.shape, 4))
    assert np.array_equal(image[..., 3] > 0, mask)


def convert(tmp_path: Path, *options: str) -> list[dict]:
    root = predicted_run.write_run(tmp_path / "run")
    command = ["data", "convert", "--from", "run", "--root", root, "--to", "label-studio", "--set", "min_score=null"]
    assert main([*map(str, [*command, "--output", tmp_path / "out", "--skip-images"]), *options]) == 0
    return json.loads((tmp_path / "out/tasks.json").read_text())


EXPECTED = (
    ("water", None, build_map() == 9),
    ("dot", 0.125, LOW_DOT),
    ("dot", 0.25, DOT_MASK),
    ("Zelle ü 细胞", 0.75, WHOLE_CELL),
)


def test_brush_tasks_have_masks_names_scores_and_ids(tmp_path: Path) -> None:
    first, second = convert(tmp_path, "--to-set", "url=/data/local-files/?d=")
    assert first["data"] == {"image": "/data/local-files/?d=a/eins.png", "image_id": "s-1"}
    assert second["data"]["image"] == "/data/local-files/?d=b/zwei%20%C3%B6.png"
    (prediction,) = first["predictions"]
    assert prediction["score"] == 0.375
    results = prediction["result"]
    assert {(r["type"], r["original_width"], r["original_height"], r["value"]["format"]) for r in results} == {
        ("brushlabels", 9, 6, "rle")
    }
    rows = [
        (r["value"]["brushlabels"], r.get("score"), decode_brush(r["value"]["rle"], SIZE_HW).tobytes()) for r in results
    ]
    assert rows == [([name], score, mask.tobytes()) for name, score, mask in EXPECTED]
    assert second["predictions"] == [{"model_version": "segkit", "result": []}]


def test_polygons_in_percent_have_exactly_the_pixels(tmp_path: Path) -> None:
    first, _ = convert(tmp_path, "--to-set", "shapes=polygons")
    results = first["predictions"][0]["result"]
    for result, (name, _, mask) in zip(results, EXPECTED, strict=True):
        points = np.array(result["value"]["points"]) * [SIZE_HW[1], SIZE_HW[0]] / 100
        rle = segmentation_to_rle([np.rint(points).ravel().tolist()], SIZE_HW)
        assert np.abs(points - np.rint(points)).max() < 1e-9
        assert np.array_equal(rle_to_mask(rle), mask)
        assert result["value"]["polygonlabels"] == [name]


def test_the_configuration_has_the_labels_and_colours(tmp_path: Path) -> None:
    convert(tmp_path)
    view = ElementTree.parse(tmp_path / "out/label_config.xml").getroot()
    labels = [(label.get("value"), label.get("background")) for label in view.iter("Label")]
    assert labels == [(c.name, "#" + "".join(f"{x:02x}" for x in c.color)) for c in CATEGORIES.categories]
    assert [element.get("name") for element in view if element.tag in ("Image", "BrushLabels")] == ["image", "label"]


def test_other_shapes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = predicted_run.write_run(tmp_path / "run")
    command = ["data", "convert", "--from", "run", "--root", root, "--to", "label-studio", "--output", tmp_path / "o"]
    assert main([*map(str, command), "--skip-images", "--to-set", "shapes=boxes"]) == 1
    assert "expected shapes to be one of brush, polygons, got 'boxes'" in capsys.readouterr().err
