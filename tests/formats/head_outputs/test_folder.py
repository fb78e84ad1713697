"""Saved head outputs: written files are read back, and damaged files raise a DatasetError."""

from __future__ import annotations

import contextlib
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.formats.head_outputs import arrays as head_arrays
from segkit.formats.head_outputs import folder as folder_module
from segkit.formats.head_outputs.folder import (
    SavedHeadOutputs,
    SavedImage,
    load,
    round_head_outputs,
    write_image,
    write_index,
)
from segkit.structures import CenterOffsets, HeadOutputs, InstanceMasks, SemanticScores
from segkit.utils.errors import DatasetError
from tests.helpers.coco_samples import CATEGORIES, JUNK, spoil

SPACE = CATEGORIES.build_semantic_space("per_class")  # person, cat, sky, grass: 4 channels
SIZE = (6, 9)
IMAGE = SavedImage(7, "sub/seven.jpg", SIZE, "seven.npz")


def build_masks(rng: np.random.Generator, count: int, class_ids: range, probs: bool = True) -> InstanceMasks:
    """Returns instances with random crops, which may be empty."""
    corners = rng.integers((0, 0), SIZE[::-1], (count, 2))
    sizes = [(rng.integers(0, SIZE[0] - y + 1), rng.integers(0, SIZE[1] - x + 1)) for x, y in corners]
    return InstanceMasks(
        SIZE,
        rng.normal(5, 9, (count, 4)).astype(np.float32),
        rng.random(count, dtype=np.float32),
        rng.choice([*class_ids], count).astype(np.int64),
        corners,
        tuple(rng.random(size) < 0.5 for size in sizes),
        rng.random((count, 3, 2), dtype=np.float32) if probs else None,
    )


def build_outputs(
    seed: int = 0, things: int = 4, probs: bool = True, logits: bool = True, all_parts: bool = True
) -> HeadOutputs:
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 4, (4, *SIZE)).astype(np.float32)
    semantic = SemanticScores(scores.argmax(axis=0), SPACE.stuff_ids, SPACE.thing_ids, scores if logits else None)
    instances = build_masks(rng, things, range(2), probs)
    if not all_parts:
        return HeadOutputs(instances, semantic)
    heatmap, offsets = rng.random(SIZE, dtype=np.float32), rng.normal(0, 9, (2, *SIZE)).astype(np.float32)
    return HeadOutputs(instances, semantic, build_masks(rng, 3, range(1, 3), probs), CenterOffsets(heatmap, offsets))


def flatten(outputs: HeadOutputs) -> dict[str, Any]:
    """Returns all arrays by name."""
    semantic, centers = outputs.semantic, outputs.centers
    result: dict[str, Any] = {name: getattr(semantic, name) for name in SemanticScores.__dataclass_fields__}
    for name, part in (("instances", outputs.instances), ("stuff", outputs.stuff_masks)):
        fields = [f for f in InstanceMasks.__dataclass_fields__ if f not in ("size_hw", "crops")]
        result |= {f"{name} {field}": None if part is None else getattr(part, field) for field in fields}
        for index, crop in enumerate(() if part is None else part.crops):
            result[f"{name} crop {index}"] = crop
    result["heatmap"] = None if centers is None else centers.heatmap
    result["offsets_yx"] = None if centers is None else centers.offsets_yx
    return {name: array for name, array in result.items() if array is not None}


def assert_equal(first: HeadOutputs, second: HeadOutputs, dtypes: bool = True) -> None:
    arrays, other_arrays = flatten(first), flatten(second)
    assert arrays.keys() == other_arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, other_arrays[name], err_msg=name, strict=dtypes)


def save(folder: Path, outputs: HeadOutputs, keep_logits: int = 4) -> SavedHeadOutputs:
    write_image(folder, IMAGE.outputs, outputs, keep_logits)
    write_index(folder, [IMAGE], CATEGORIES, SPACE)
    return load(folder)


def read_error(saved: SavedHeadOutputs) -> str:
    """Returns the message of the DatasetError that reading the image raises, without the location."""
    with pytest.raises(DatasetError) as caught:
        saved.read(IMAGE)
    location = f"{saved.folder / IMAGE.outputs}, image 7: "
    assert str(caught.value).startswith(location)
    assert str(caught.value).endswith("; save the predictions again")
    return str(caught.value).removeprefix(location)


def test_saved_outputs_are_read_back(tmp_path: Path) -> None:
    folder = tmp_path / "deep/heads"
    saved = save(folder, build_outputs())
    assert {path.name for path in folder.iterdir()} == {"index.json", "seven.npz"}
    assert (saved.folder, saved.categories, saved.images, len(saved)) == (folder, CATEGORIES, (IMAGE,), 1)
    assert saved.channel_names == ("person", "cat", "sky", "grass")
    assert (saved.stuff_ids.tolist(), saved.thing_ids.tolist()) == ([0, 0, 1, 2], [0, 1, -1, -1])
    result = saved.read(saved.images[0])
    assert_equal(result, round_head_outputs(build_outputs(), 4))
    assert all(array.flags.writeable for array in flatten(result).values() if array is not saved.stuff_ids)


@pytest.mark.parametrize("thing_channels", ["one", "per_class"])
def test_both_semantic_spaces_are_read_back(tmp_path: Path, thing_channels: str) -> None:
    space = CATEGORIES.build_semantic_space(thing_channels)
    write_index(tmp_path, [], CATEGORIES, space)
    saved = load(tmp_path)
    assert len(saved) == 0
    assert saved.channel_names == space.names
    np.testing.assert_array_equal(saved.stuff_ids, space.stuff_ids, strict=True)
    np.testing.assert_array_equal(saved.thing_ids, space.thing_ids, strict=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 5), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 6))
def test_read_outputs_equal_round_head_outputs(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    things: int,
    probs: bool,
    logits: bool,
    all_parts: bool,
    keep: int,
) -> None:
    written = build_outputs(seed, things, probs, logits, all_parts)
    expected = round_head_outputs(written, keep)
    result = save(tmp_path_factory.mktemp("heads"), written, keep).read(IMAGE)
    assert_equal(result, expected)
    assert_equal(round_head_outputs(expected, keep), expected)
    exact = {"channels", "stuff_ids", "thing_ids"}
    exact |= {name for name in flatten(written) if "stuff " in name or "instances " in name}
    for name in exact - {"instances mask_probs", "stuff mask_probs"}:
        np.testing.assert_array_equal(flatten(result)[name], flatten(written)[name], err_msg=name)


def test_logits_are_rounded_and_clipped_to_float16(tmp_path: Path) -> None:
    # 0.25, 2.5, 1000 and 65504 are float16; 2049 is between 2048 and 2050 and is rounded to the even mantissa, 2048;
    # 1e6 and infinity are clipped to the largest float16, 65504.
    logits = np.array([0.25, -2.5, 1000, 65504, 2049, 1e6, np.inf, -np.inf], dtype=np.float32)
    semantic = SemanticScores(np.zeros((1, 8), np.int64), np.array([0]), np.array([-1]), logits.reshape(1, 1, 8))
    instances = InstanceMasks.from_full(np.zeros((0, 1, 8), np.bool_), *(np.zeros(s, np.float32) for s in ((0, 4), 0)),
                                        np.zeros(0, np.int64))  # fmt: skip
    result = round_head_outputs(HeadOutputs(instances, semantic), 1).semantic.logits
    assert result is not None
    assert result.dtype == np.float32
    assert result.ravel().tolist() == [0.25, -2.5, 1000, 65504, 2048, 65504, 65504, -65504]


@pytest.mark.parametrize("compiled", [True, False])
def test_the_highest_logits_of_each_pixel_are_selected(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    if compiled and not head_arrays.COMPILED:
        pytest.skip("numba is not installed")
    monkeypatch.setattr(head_arrays, "COMPILED", compiled)
    # Three pixels of four channels. The first: 3, 1, 3, 2 -> channels 0 and 2 are equal, then 3. The second: all are
    # equal, so the first three channels. The third: rising, so 3, 2, 1.
    columns = [[3, 1, 3, 2], [5, 5, 5, 5], [-4, -3, -2, -1]]
    logits = np.array(columns, dtype=np.float32).T.reshape(4, 1, 3)
    result, channels = head_arrays._select_highest(logits, None, 4, 3)
    assert channels is not None
    assert channels[:, 0].T.tolist() == [[0, 2, 3], [0, 1, 2], [3, 2, 1]]
    assert result[:, 0].T.tolist() == [[3, 3, 2], [5, 5, 5], [-1, -2, -3]]
    assert head_arrays._select_highest(logits, None, 4, 4)[1] is None
    # From logits of three channels, one or all three are selected.
    assert [len(part) for part in head_arrays._select_highest(result, channels, 4, 1)] == [1, 1]
    assert [len(part) for part in head_arrays._select_highest(result, channels, 4, 9)] == [3, 3]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 9), st.integers(1, 8), st.sampled_from([np.float32, np.float64]))
def test_compiled_selection_equals_numpy(seed: int, channels: int, keep: int, dtype: type) -> None:
    if not head_arrays.COMPILED:
        pytest.skip("numba is not installed")
    rng = np.random.default_rng(seed)
    logits = rng.choice([-np.inf, -1, -0.0, 0, 1, 2, np.inf], (channels, 5, 4)).astype(dtype)
    result = head_arrays._select_highest(logits, None, channels, keep)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_arrays, "COMPILED", False)
        expected = head_arrays._select_highest(logits, None, channels, keep)
    for array, expected_array in zip(result, expected, strict=True):
        np.testing.assert_array_equal(array, expected_array)


def test_more_than_256_channels_are_stored_as_uint16(tmp_path: Path) -> None:
    channels = np.array([[0, 299]])
    instances = InstanceMasks.from_full(np.ones((1, 1, 2), np.bool_), np.zeros((1, 4), np.float32),
                                        np.ones(1, np.float32), np.zeros(1, np.int64))  # fmt: skip
    logits = np.zeros((300, 1, 2), dtype=np.float32)
    logits[299, 0, 1] = 1
    stuff_ids = np.arange(300)
    semantic = round_head_outputs(
        HeadOutputs(instances, SemanticScores(channels, stuff_ids, stuff_ids * 0 - 1, logits)), 2
    ).semantic
    assert semantic.channels.dtype == np.uint16
    assert semantic.channels.tolist() == channels.tolist()
    assert semantic.logit_channels is not None
    assert semantic.logit_channels[:, 0].tolist() == [[0, 299], [1, 0]]


def test_invalid_arguments_and_too_many_instances_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep_logits must be 0 or more, got -1"):
        write_image(tmp_path, "a.npz", build_outputs(), -1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(head_arrays.LIMITS, "N", 3)
        with pytest.raises(ValueError, match=r"instances_class_ids must be int64 of shape \(3,\), got int64 \(4,\)"):
            write_image(tmp_path, "a.npz", build_outputs(), 0)
    assert not [*tmp_path.iterdir()]


def test_a_failed_write_keeps_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = save(tmp_path, build_outputs())

    def raise_disk_full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(head_arrays.zipfile.ZipFile, "writestr", raise_disk_full)
    with pytest.raises(DatasetError, match="cannot be written: No space left"):
        write_image(tmp_path, IMAGE.outputs, build_outputs(1), 4)
    assert {path.name for path in tmp_path.iterdir()} == {"index.json", "seven.npz"}
    assert_equal(saved.read(IMAGE), round_head_outputs(build_outputs(), 4))


Arrays = dict[str, np.ndarray]


def change_array(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[Arrays], None]:
    def apply(arrays: Arrays) -> None:
        arrays[name] = np.asarray(change(arrays[name]))

    return apply


def set_value(name: str, index: Any, value: float) -> Callable[[Arrays], None]:
    def apply(arrays: Arrays) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name][index] = value

    return apply


def drop_arrays(*names: str) -> Callable[[Arrays], None]:
    return lambda arrays: [arrays.pop(name) for name in names] and None


INVALID_ARRAYS: dict[str, tuple[Callable[[Arrays], None], str]] = {
    "another size": (
        change_array("channels", lambda a: a[:, :-1]),
        r"channels must be uint8 of shape \(6, 9\), got .*8\)",
    ),
    "another type": (
        change_array("instances_scores", lambda a: a.astype(np.float64)),
        "scores must be float32 .*got float64",
    ),
    "objects": (
        change_array("instances_scores", lambda a: a.astype(object)),
        "instances_scores.npy must be row by row",
    ),
    "lengths": (
        change_array("instances_scores", lambda a: a[1:]),
        r"scores must be float32 of shape \(4,\), got .*\(3,\)",
    ),
    "probs": (
        change_array("instances_mask_probs", lambda a: a[1:]),
        r"mask_probs must be float16 of shape \(4, 3, 2\)",
    ),
    "axes": (change_array("instances_boxes_xyxy", lambda a: a[None]), r"boxes_xyxy must be float32 of shape"),
    "scalar": (change_array("instances_class_ids", lambda a: 5), r"class_ids must be int64 of shape"),
    "columns": (
        change_array("instances_corners_xy", lambda a: a[:, :1]),
        r"corners_xy must be int64 of shape \(4, 2\)",
    ),
    "crops lack": (
        change_array("instances_crops", lambda a: a[:-1]),
        r"instances_crops must hold \d+ pixels, got \d+ bytes",
    ),
    "crops too many": (
        change_array("instances_crops", lambda a: np.zeros(10**6, np.uint8)),
        "instances_crops must be uint8",
    ),
    "crop size": (set_value("instances_sizes_hw", 0, 7), "instances_sizes_hw must be of crops inside the 6 x 9 image"),
    "crop below 0": (set_value("stuff_sizes_hw", (0, 0), -1), "stuff_sizes_hw must be of crops inside"),
    "corner": (set_value("instances_corners_xy", (1, 0), 10), "crop .* leaves the 6 x 9 image"),
    "thing class": (set_value("instances_class_ids", 2, 2), r"class_ids of instances must be in 0\.\.1.*got 2"),
    "class below 0": (set_value("instances_class_ids", 2, -1), "class_ids of instances must not be negative, got -1"),
    "stuff class": (set_value("stuff_class_ids", 0, 3), r"class_ids of stuff_masks must be in 1\.\.2.*got 3"),
    "stuff class 0": (set_value("stuff_class_ids", 0, 0), "class_ids of stuff_masks must be at least 1, got 0"),
    "channel": (set_value("channels", (0, 0), 4), r"channels must be in 0\.\.3"),
    "logit channel": (set_value("logits_channels", (0, 0, 0), 4), r"logit_channels must be in 0\.\.3"),
    "NaN logit": (set_value("logits", (0, 0, 0), np.nan), "logits must be numbers, got NaN"),
    "NaN score": (set_value("instances_scores", 0, np.nan), "scores and mask_probs must be numbers, got NaN"),
    "NaN box": (set_value("stuff_boxes_xyxy", 0, np.nan), "boxes_xyxy and scores of stuff_masks must be finite"),
    "inf probability": (
        set_value("stuff_mask_probs", 0, np.inf),
        r"mask_probs of stuff_masks must be in \[0, 1\].*inf",
    ),
    "probability below 0": (set_value("instances_mask_probs", 0, -1), r"mask_probs of instances must be in \[0, 1\]"),
    "NaN heatmap": (set_value("centers_heatmap", 0, np.nan), "heatmap and offsets_yx must be numbers"),
    "more logits than channels": (
        change_array("logits", lambda a: np.repeat(a, 3, axis=0)),
        r"logits must be float16 of .*4,",
    ),
    "logits unlike channels": (
        change_array("logits", lambda a: a[:1]),
        r"logits_channels must be uint8 of shape \(1, 6, 9\)",
    ),
    "all logits": (drop_arrays("logits_channels"), r"logits must be float16 of shape \(4, 6, 9\)"),
    "no logits": (drop_arrays("logits"), "the arrays 'logits' are missing"),
    "no channels": (drop_arrays("channels"), "the arrays 'channels' are missing"),
    "no scores": (drop_arrays("instances_scores"), "the arrays 'instances_scores' are missing"),
    "probs alone": (
        drop_arrays(*(f"stuff_{n}" for n in ("scores", "crops"))),
        "'stuff_scores', 'stuff_crops' are missing",
    ),
    "less than named": (drop_arrays("instances_mask_probs"), "expected the arrays 'channels .* got"),
    "no names": (drop_arrays("names"), "the arrays 'names' are missing"),
    "offsets alone": (drop_arrays("centers_heatmap"), "the arrays 'centers_heatmap' are missing"),
    "nothing": (lambda arrays: arrays.clear(), "are missing"),
    "unknown array": (lambda arrays: arrays.update(code=np.zeros(1)), "head outputs have no arrays named 'code'"),
}


@pytest.mark.parametrize("case", INVALID_ARRAYS)
@pytest.mark.parametrize("save_as", [np.savez, np.savez_compressed])
def test_inconsistent_arrays_raise_a_dataset_error(tmp_path: Path, case: str, save_as: Callable[..., None]) -> None:
    saved = save(tmp_path, build_outputs(), keep_logits=2)
    path = tmp_path / IMAGE.outputs
    with np.load(path) as file:
        arrays = dict(file)
    save_as(path, **arrays)
    assert_equal(saved.read(IMAGE), round_head_outputs(build_outputs(), 2))
    change, expected = INVALID_ARRAYS[case]
    change(arrays)
    save_as(path, **arrays)
    assert re.search(expected, read_error(saved))


def npy(dtype: str, shape: str, content: bytes = b"", fortran: bool = False) -> bytes:
    header = f"{{'descr': {dtype!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def replace_member(path: Path, name: str, content: bytes, kind: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    members[name] = content
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data, kind if member == name else zipfile.ZIP_STORED)


def test_sizes_are_checked_before_arrays_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, path = save(tmp_path, build_outputs()), tmp_path / IMAGE.outputs
    read: list[int] = []
    read_zip = zipfile.ZipExtFile.read

    def read_and_count(self: zipfile.ZipExtFile, n: int | None = -1) -> bytes:
        result = read_zip(self, n)
        read.append(len(result))
        return result

    monkeypatch.setattr(zipfile.ZipExtFile, "read", read_and_count)
    huge = bytes(2 * 10**7)
    for name, dtype, shape in (
        ("channels", "|u1", "(4000, 5000)"),
        ("instances_crops", "|u1", "(20000000,)"),
        ("instances_class_ids", "<i8", "(2500000,)"),
        ("instances_mask_probs", "<f2", "(4, 5000, 500)"),
        ("logits", "<f2", "(185185, 6, 9)"),
    ):
        save(tmp_path, build_outputs())
        replace_member(path, f"{name}.npy", npy(dtype, shape, huge))
        read.clear()
        read_error(saved)
        assert sum(read) < 20_000, name
    # The header contradicts the data: one byte too many, one too few, and a shape far larger than the data.
    for content in (npy("|u1", "(6, 9)", bytes(55)), npy("|u1", "(6, 9)", bytes(53)), npy("|u1", "(9000000, 9000000)")):
        replace_member(path, "channels.npy", content)
        assert "channels.npy must be row by row and as large as" in read_error(saved)


@pytest.mark.parametrize(
    "content",
    [
        npy("|u1", "(6, 9)", bytes(54), fortran=True),
        npy("|u1", "(-6, -9)", bytes(54)),
        npy("|u1", "(54,)", bytes(54)),
        npy("|u1", "(6, 9.0)", bytes(54)),
        npy("|u1", "[" * 4000, bytes(54)),
        npy("|O", "(6, 9)", bytes(8 * 54)),
        npy("nonsense", "(6, 9)", bytes(54)),
        npy("|u1", "(6, 9)", bytes(54)).replace(b"\x01\x00", b"\x03\x00", 1),
        b"\x93NUMPY",
        b"cos\nsystem\n(S'false'\ntR.",
        b"",
    ],
)
def test_members_that_are_no_valid_arrays_raise_a_dataset_error(tmp_path: Path, content: bytes) -> None:
    saved = save(tmp_path, build_outputs())
    replace_member(tmp_path / IMAGE.outputs, "channels.npy", content)
    assert "expected the head outputs of this image, got something else" in read_error(saved)


def test_invalid_archives_raise_a_dataset_error(tmp_path: Path) -> None:
    saved, path = save(tmp_path, build_outputs()), tmp_path / IMAGE.outputs
    with zipfile.ZipFile(path) as archive:
        channels = archive.read("channels.npy")
    replace_member(path, "channels.npy", channels, zipfile.ZIP_LZMA)
    assert "channels.npy must be stored or deflated" in read_error(saved)
    save(tmp_path, build_outputs())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("channels.npy", channels)
    assert "expected each array once, got one twice" in read_error(saved)
    for content in (b"", b"PK", b"{}", b"\x93NUMPY\x01\x00", io.BytesIO().getvalue()):
        path.write_bytes(content)
        assert "BadZipFile" in read_error(saved)
    path.unlink()
    assert read_error(saved) == "expected a file, found nothing; save the predictions again"


def test_an_image_size_that_contradicts_the_index_raises_a_dataset_error(tmp_path: Path) -> None:
    save(tmp_path, build_outputs())
    write_index(tmp_path, [SavedImage(7, "a.jpg", (9, 6), IMAGE.outputs)], CATEGORIES, SPACE)
    saved = load(tmp_path)
    with pytest.raises(DatasetError, match=r"image 7: .*channels must be uint8 of shape \(9, 6\), got uint8 \(6, 9\)"):
        saved.read(saved.images[0])


def test_instances_without_a_thing_channel_raise_a_dataset_error(tmp_path: Path) -> None:
    write_image(
        tmp_path,
        IMAGE.outputs,
        HeadOutputs(build_outputs().instances, SemanticScores.from_stuff_ids(np.eye(*SIZE, dtype=np.int64))),
        0,
    )
    space = folder_module.SemanticSpace(("sky", "grass"), {}, np.array([1, 2]), np.array([-1, -1]))
    write_index(tmp_path, [IMAGE], CATEGORIES, space)
    assert "no channel of things" in read_error(load(tmp_path))


def test_truncated_files_and_damaged_bytes_raise_a_dataset_error_or_change_nothing(tmp_path: Path) -> None:
    saved, path = save(tmp_path, build_outputs(), keep_logits=2), tmp_path / IMAGE.outputs
    valid, expected, rng = path.read_bytes(), round_head_outputs(build_outputs(), 2), np.random.default_rng(0)
    for length in range(0, len(valid), 61):
        path.write_bytes(valid[:length])
        read_error(saved)
    for position in [*range(0, len(valid), 17), *range(len(valid) - 900, len(valid))]:
        damaged = bytearray(valid)
        damaged[position] = (damaged[position] + rng.integers(1, 256)) % 256
        path.write_bytes(damaged)
        with contextlib.suppress(
            DatasetError
        ):  # some bytes of a zip file have no meaning for us, for example its dates
            assert_equal(saved.read(IMAGE), expected)


def test_paths_that_are_no_folder_of_head_outputs_raise_a_dataset_error(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match="absent: expected a folder of saved head outputs, found none; check the path"
    ):
        load(tmp_path / "absent")
    with pytest.raises(DatasetError, match="found none"):
        load("\0")
    write_image(tmp_path, "seven.npz", build_outputs(), 0)
    with pytest.raises(DatasetError, match=r"found no index\.json: was saving them cut short\?; save the predictions"):
        load(tmp_path)
    with pytest.raises(DatasetError, match="found none"):
        load(tmp_path / "seven.npz")
    (tmp_path / "index.json").mkdir()
    with pytest.raises(DatasetError, match="cannot be read"):
        load(tmp_path)


def test_all_missing_files_are_reported_in_one_error(tmp_path: Path) -> None:
    images = [SavedImage(i, f"{i}.jpg", SIZE, f"{i}.npz") for i in range(9)]
    write_image(tmp_path, "4.npz", build_outputs(), 0)
    write_index(tmp_path, images, CATEGORIES, SPACE)
    with pytest.raises(DatasetError, match=r"8 of the 9 files .* missing: '0.npz', '1.npz', .* and 3 more; save"):
        load(tmp_path)


def change_index(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda index: index | changes


def change_image(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda index: index | {"images": [index["images"][0] | changes]}


INVALID_INDEXES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another version": (change_index(format=2), "of format 1, got 2; save the predictions again with this version"),
    "no version": (
        lambda index: {k: v for k, v in index.items() if k != "format"},
        "`format` to be an integer, got none",
    ),
    "a bool": (change_index(format=True), "`format` to be an integer"),
    "a list": (lambda index: [index], "got a list"),
    "categories": (change_index(categories=[]), "at least one category"),
    "lengths": (change_index(stuff_ids=[0]), "of one length in 1..65536, got 4, 1 and 4"),
    "no channels": (change_index(channel_names=[], stuff_ids=[], thing_ids=[]), "got 0, 0 and 0"),
    "stuff id": (
        change_index(stuff_ids=[0, 0, 1, 3]),
        "channel 3: expected a name and contiguous ids .* got 'grass', 3, -1",
    ),
    "thing id": (change_index(thing_ids=[0, 2, -1, -1]), "channel 1: expected a name and contiguous ids"),
    "number": (change_index(stuff_ids=[0, 0.0, 1, 2]), "channel 1: expected a name and contiguous ids"),
    "both": (
        change_index(thing_ids=[0, -1, 1, -1]),
        "channels contradict each other: a channel must belong to stuff or to a thing, got channel 2 for both",
    ),
    "twice": (lambda index: index | {"images": index["images"] * 2}, "image 7: expected distinct image ids"),
    "one file of two": (
        lambda index: index | {"images": [*index["images"], index["images"][0] | {"id": "b"}]},
        "image 'b': expected `outputs` to name a file of this image alone, got 'seven.npz'",
    ),
    "outputs": (change_image(outputs="../seven.npz"), "image 7: expected `outputs` to be a path inside its folder"),
    "outputs abroad": (change_image(outputs="/etc/passwd"), "expected `outputs` to be a path inside its folder"),
    "outputs below": (change_image(outputs="a/b.npz"), "to name a file of this image alone, got 'a/b.npz'"),
    "outputs no name": (change_image(outputs=3), "`outputs` to be a string, got 3"),
    "file_name": (change_image(file_name="../../x.jpg"), "expected `file_name` to be a path inside its folder"),
    "size": (change_image(height=0), "height and width of at least 1 pixel"),
}


@pytest.mark.parametrize("case", INVALID_INDEXES)
def test_an_inconsistent_index_raises_a_dataset_error(tmp_path: Path, case: str) -> None:
    save(tmp_path, build_outputs())
    path = tmp_path / "index.json"
    change, expected = INVALID_INDEXES[case]
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(DatasetError, match=re.escape(str(path)) + ".*" + expected):
        load(tmp_path)


def test_an_invalid_index_is_not_written(tmp_path: Path) -> None:
    saved = save(tmp_path, build_outputs())
    other = CATEGORIES.build_semantic_space("one")
    space_with_unknown_ids = folder_module.SemanticSpace(
        other.names, other.channel_by_category, other.stuff_ids + 5, other.thing_ids
    )
    for images, space in (
        ([IMAGE, IMAGE], SPACE),
        ([SavedImage(1, "../a", SIZE, "a.npz")], SPACE),
        ([IMAGE], space_with_unknown_ids),
    ):
        with pytest.raises(DatasetError):
            write_index(tmp_path, images, CATEGORIES, space)
    assert load(tmp_path).images == saved.images


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_junk_in_the_index_raises_only_dataset_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "junk"
    if not (folder / "good.json").exists():
        save(folder, build_outputs())
        (folder / "index.json").rename(folder / "good.json")
    index = json.loads((folder / "good.json").read_text())
    spoilt = spoil(index, lambda n: data.draw(st.integers(0, n - 1)), data.draw(st.sampled_from(JUNK)))
    (folder / "index.json").write_text(json.dumps(spoilt))
    with contextlib.suppress(DatasetError):
        saved = load(folder)
        for image in saved.images:
            assert saved.read(image).semantic.size_hw == SIZE


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damaged_files_raise_only_dataset_errors(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "damage"
    if not (folder / "good").exists():
        save(folder, build_outputs(), keep_logits=2)
        (folder / "good").write_bytes((folder / IMAGE.outputs).read_bytes())
    damaged = bytearray((folder / "good").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    (folder / IMAGE.outputs).write_bytes(damaged[:cut] if data.draw(st.booleans()) else damaged + damaged[:cut])
    with contextlib.suppress(DatasetError):
        assert_equal(load(folder).read(IMAGE), round_head_outputs(build_outputs(), 2))
