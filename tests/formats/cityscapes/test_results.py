"""Cityscapes' instance results: written files read back, and errors are reported."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segkit.formats.cityscapes.results import ResultFiles, read_result_lines, read_result_mask, write_results
from segkit.utils.errors import DatasetError

SIZE_HW = (6, 9)
CROP = np.array([[True, False, True], [False, True, True]])
IMAGE_ID = "ulm_000000_000001"


def read(path: Path, root: Path | None = None) -> tuple[list[tuple[str, int, float]], list[str]]:
    """Returns (mask name, category_id, score) of the instances, and the error messages."""
    errors: list[DatasetError] = []
    lines = read_result_lines(path, root or path.parent, errors.append)
    return [(line.mask_path.name, line.category_id, line.score) for line in lines], [str(error) for error in errors]


@given(st.lists(st.tuples(st.sampled_from([24, 26, 33]), st.floats(allow_nan=False, allow_infinity=False)), max_size=4))
@settings(deadline=None, max_examples=20)
def test_written_results_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, instances: list[tuple[int, float]]
) -> None:
    folder = tmp_path_factory.mktemp("results")
    masks = [(label, score, CROP, (i, i)) for i, (label, score) in enumerate(instances)]
    path = write_results(folder, IMAGE_ID, SIZE_HW, masks)
    assert path == ResultFiles(folder).find(IMAGE_ID)
    lines = read_result_lines(path, folder, pytest.fail)
    assert [(line.category_id, line.score) for line in lines] == instances
    for i, line in enumerate(lines):
        crop, corner_xy = read_result_mask(line.mask_path, SIZE_HW)
        assert corner_xy == (i, i)
        assert (crop == CROP).all()


def test_files_have_the_format_of_the_benchmark(tmp_path: Path) -> None:
    """Lines have path, label and confidence. The reference reads the masks with Pillow in mode L."""
    empty = np.zeros((2, 2), dtype=np.bool_)
    masks = [(24, 0.1, CROP, (6, 4)), (26, 0.9, empty, (0, 0)), (33, np.float32(0.1), CROP, (0, 0))]
    path = write_results(tmp_path, IMAGE_ID, SIZE_HW, masks)
    assert path.read_text() == f"{IMAGE_ID}/000.png 24 0.1\n{IMAGE_ID}/002.png 33 0.10000000149011612\n"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["000.png", "002.png", IMAGE_ID, f"{IMAGE_ID}_pred.txt"]
    mask = np.asarray(Image.open(tmp_path / IMAGE_ID / "000.png").convert("L"))
    assert mask.shape == SIZE_HW
    assert np.argwhere(mask).tolist() == [[4, 6], [4, 8], [5, 7], [5, 8]]
    assert write_results(tmp_path, IMAGE_ID, SIZE_HW, []).read_text() == ""


@pytest.mark.parametrize(
    ("image_id", "category_id", "score", "message"),
    [
        ("a b", 24, 0.5, "image_id must consist of"),
        ("..", 24, 0.5, "image_id must consist of"),
        ("a/b", 24, 0.5, "image_id must consist of"),
        ("a", 7, 0.5, "instance 0 must have a thing's id"),
        ("a", 29, 0.5, "instance 0 must have a thing's id"),
        ("a", 24, float("inf"), "finite score"),
    ],
)
def test_invalid_arguments_raise_an_error_and_write_nothing(
    tmp_path: Path, image_id: str, category_id: int, score: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_results(tmp_path, image_id, SIZE_HW, [(category_id, score, CROP, (0, 0))])
    assert not list(tmp_path.rglob("*"))


def test_result_files_are_found_by_the_start_of_their_names(tmp_path: Path) -> None:
    for name in ("a_1_10.txt", "x/a_1_2_pred.txt", "x/y/a_1_3.txt", "a_1_2_pred.png", "b_1_2.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files = ResultFiles(tmp_path)
    assert files.find("a_1_2") == tmp_path / "x/a_1_2_pred.txt"
    assert files.find("a_1_3") == tmp_path / "x/y/a_1_3.txt"
    assert files.find("a_1_10") == tmp_path / "a_1_10.txt"
    for image_id in ("a_1_4", "c", "A_1_2"):
        with pytest.raises(DatasetError, match="found none"):
            files.find(image_id)
    with pytest.raises(DatasetError, match=r"found 3: 'a_1_10.txt', 'x/a_1_2_pred.txt'"):
        files.find("a_1")
    with pytest.raises(DatasetError, match="the folder of results does not exist"):
        ResultFiles(tmp_path / "a_1_10.txt")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", "expected `mask.png label_id confidence`"),
        ("a.png 24", "expected `mask.png label_id confidence`"),
        ("a.png  24 0.5", "expected `mask.png label_id confidence`"),
        ("my mask.png 24 0.5", "expected `mask.png label_id confidence`"),
        ("/a.png 24 0.5", "expected a relative path to a mask below"),
        ("../a.png 24 0.5", "expected a relative path to a mask below"),
        ("../results2/a.png 24 0.5", "expected a relative path to a mask below"),
        ("a.png car 0.5", "expected a finite label id, got 'car'"),
        ("a.png 24.5 0.5", "got 24.5, which is no label"),
        ("a.png 34 0.5", "got 34, which is no label"),
        ("a.png -1 0.5", "got -1, which is no label"),
        ("a.png 0 0.5", "got 0, which has no instances"),
        ("a.png 11 0.5", "got 11, which has no instances"),
        ("a.png 24 high", "expected a finite confidence, got 'high'"),
        ("a.png 24 nan", "expected a finite confidence, got 'nan'"),
        ("a.png 24 -inf", "expected a finite confidence, got '-inf'"),
        ("good.png 26 1", "expected a mask for each line, got the mask of line 1 again"),
        ("./inner/../good.png 26 1", "expected a mask for each line, got the mask of line 1 again"),
    ],
)
def test_an_invalid_line_is_reported_and_valid_lines_are_read(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "results" / "a.txt"
    path.parent.mkdir()
    path.write_text(f"good.png 24 0.5\n{line}\r\nfine.png 26.0 -1e-3\n")
    lines, problems = read(path)
    assert lines == [("good.png", 24, 0.5), ("fine.png", 26, -0.001)]
    (message,) = problems
    assert message.startswith(f"{path}, line 2: ")
    assert problem in message


def test_masks_outside_a_relative_results_folder_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    Path("a.txt").write_text("../b.png 24 1\n")
    assert "relative path to a mask below" in read(Path("a.txt"), Path("."))[1][0]
    assert read(Path("../inner/a.txt"), Path(".."))[0] == [("b.png", 24, 1)]


def test_caravans_and_trailers_are_left_out_as_in_the_reference(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a.png 29 0.5\nb.png 24 0.5\nc.png 30 0.5")
    assert read(path) == ([("b.png", 24, 0.5)], [])


def test_files_that_are_no_text_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe 24 1")
    with pytest.raises(DatasetError, match=r"a.txt: expected text in UTF-8"):
        read(tmp_path / "a.txt")
    with pytest.raises(DatasetError, match="found nothing"):
        read(tmp_path / "b.txt")


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_masks_of_any_single_channel_mode_are_read(mode: str, tmp_path: Path) -> None:
    """Palettes are converted to grey by Pillow: index 2 is black here."""
    pixels = np.zeros(SIZE_HW, dtype=np.uint8)
    pixels[1:3, 4:6] = 1
    pixels[2, 5] = 0
    image = Image.fromarray(pixels)
    if mode == "P":
        pixels[5, 0] = 2
        image = Image.fromarray(pixels, "P")
        image.putpalette([0, 0, 0, 200, 0, 0, 0, 0, 0])
    elif mode == "1":
        image = Image.fromarray(pixels.astype(np.bool_))
    image.save(tmp_path / "a.png")
    crop, corner_xy = read_result_mask(tmp_path / "a.png", SIZE_HW)
    assert corner_xy == (4, 1)
    assert crop.tolist() == [[True, True], [True, False]]


def test_an_empty_mask_has_no_pixels(tmp_path: Path) -> None:
    Image.new("L", (9, 6)).save(tmp_path / "a.png")
    crop, corner_xy = read_result_mask(tmp_path / "a.png", SIZE_HW)
    assert (crop.shape, crop.dtype, corner_xy) == ((0, 0), np.bool_, (0, 0))


@pytest.mark.parametrize(
    ("mode", "size", "message"),
    [
        ("RGB", (9, 6), "expected a PNG of 8-bit greyscale or palette, got 8-bit RGB"),
        ("RGBA", (9, 6), "got 8-bit RGBA"),
        ("LA", (9, 6), "got 8-bit greyscale with alpha"),
        ("I;16", (9, 6), "got 16-bit greyscale"),
        ("L", (6, 9), r"expected 6 x 9 pixels \(height x width\), got 9 x 6"),
    ],
)
def test_masks_of_another_mode_or_size_raise_a_dataset_error(
    mode: str, size: tuple[int, int], message: str, tmp_path: Path
) -> None:
    Image.new(mode, size).save(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=f"a.png: .*{message}"):
        read_result_mask(tmp_path / "a.png", SIZE_HW)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damaged_pngs_raise_only_dataset_errors(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "broken.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 2, SIZE_HW).astype(np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(DatasetError):
        crop, (left, top) = read_result_mask(path, SIZE_HW)
        assert top + crop.shape[0] <= SIZE_HW[0]
        assert left + crop.shape[1] <= SIZE_HW[1]
