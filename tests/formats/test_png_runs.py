"""PNGs of segment ids, compared with Pillow: all filters, random chunks, and damaged files."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from segkit.formats import png, png_runs
from segkit.structures import MAX_SEGMENT_ID, ids_to_rgb, rgb_to_ids
from segkit.utils.compiled import COMPILED
from segkit.utils.errors import DatasetError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
needs_numba = pytest.mark.skipif(not COMPILED, reason="needs numba")
SLOW_DRAWS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture(params=["zlib", "zlib_ng"])
def zlib_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    library = zlib if request.param == "zlib" else pytest.importorskip("zlib_ng.zlib_ng")
    monkeypatch.setattr(png_runs, "decompressobj", library.decompressobj)
    monkeypatch.setattr(png_runs, "compressobj", library.compressobj)


@pytest.fixture(params=[False, pytest.param(True, marks=needs_numba)])
def with_and_without_numba(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "COMPILED", request.param)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def header(width: int, height: int, *kind: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, *(kind or (8, 2, 0, 0, 0))))


def paeth(left: int, above: int, upper_left: int) -> int:
    estimate = left + above - upper_left
    return min((left, above, upper_left), key=lambda value: abs(estimate - value))  # the first of equal values


def filter_rows(rgb: NDArray[np.uint8], filters: Sequence[int]) -> bytes:
    """Returns the filtered rows, each after its filter type, as in section 9 of the PNG specification."""
    height, width, _ = rgb.shape
    rows = rgb.reshape(height, 3 * width).astype(int).tolist()
    data = bytearray()
    above = [0] * (3 * width)
    for kind, row in zip(filters, rows, strict=True):
        data.append(kind)
        left, upper_left = [0, 0, 0, *row], [0, 0, 0, *above]
        for x, value in enumerate(row):
            a, b, c = left[x], above[x], upper_left[x]
            data.append((value - (0, a, b, (a + b) // 2, paeth(a, b, c))[kind]) % 256)
        above = row
    return bytes(data)


def encode(ids: NDArray[np.int32], filters: Sequence[int], cuts: Sequence[int] = (), level: int = 6) -> bytes:
    """Returns a PNG of (H, W) ids; `cuts` split the compressed data into IDAT chunks, which may be empty."""
    packed = zlib.compress(filter_rows(ids_to_rgb(ids), filters), level)
    ends = [*sorted(cut % (len(packed) + 1) for cut in cuts), len(packed)]
    data = b"".join(chunk(b"IDAT", packed[a:b]) for a, b in zip([0, *ends], ends, strict=False))
    text = chunk(b"tEXt", b"note\0ids")
    return SIGNATURE + header(*ids.shape[::-1]) + text + data + text + chunk(b"IEND", b"")


def decode_with_pillow(content: bytes) -> NDArray[np.int32]:
    return rgb_to_ids(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


def build_map(seed: int, height: int, width: int, kind: str) -> NDArray[np.int32]:
    rng = np.random.default_rng(seed)
    ids = rng.choice([0, 1, 255, 256, 65536, MAX_SEGMENT_ID, 127 + (128 << 8), rng.integers(2**24)], (height, width))
    if kind == "flat":
        ids = np.kron(ids, np.ones((5, 9), dtype=int))[:height, :width]
    elif kind == "noise":
        ids = rng.integers(0, 2**24, (height, width))
    elif kind == "one":
        ids = np.full((height, width), ids[0, 0])
    return ids.astype(np.int32)


KINDS = ["few", "flat", "noise", "one"]


@needs_numba
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("filters", [[0], [1], [2], [3], [4], [4, 1, 3, 0, 2]])
def test_every_filter_equals_pillow(zlib_library: None, filters: list[int], kind: str) -> None:
    for height, width in ((1, 1), (1, 9), (9, 1), (2, 2), (23, 31)):
        ids = build_map(height, height, width, kind)
        content = encode(ids, [filters[y % len(filters)] for y in range(height)])
        np.testing.assert_array_equal(decode_with_pillow(content), ids)
        runs = png_runs.decode(content)
        assert runs is not None
        assert (runs.starts.dtype, runs.ids.dtype) == (np.int32, np.int32)
        np.testing.assert_array_equal(runs.to_map(), ids)


@settings(deadline=None, max_examples=80, suppress_health_check=SLOW_DRAWS)
@given(
    st.data(),
    st.integers(0, 2**32),
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from(KINDS),
    st.lists(st.integers(0, 2**20), max_size=4),
    st.sampled_from([0, 1, 9]),
)
def test_random_filters_and_chunks_are_read(
    tmp_path_factory: pytest.TempPathFactory,
    with_and_without_numba: None,
    zlib_library: None,
    data: st.DataObject,
    seed: int,
    height: int,
    width: int,
    kind: str,
    cuts: list[int],
    level: int,
) -> None:
    ids = build_map(seed, height, width, kind)
    filters = data.draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
    content = encode(ids, filters, cuts, level)
    path = tmp_path_factory.mktemp("png") / "x.png"
    path.write_bytes(content)
    np.testing.assert_array_equal(png.read_id_runs(path, ids.shape).to_map(), ids)
    runs = png.read_id_runs(path)
    np.testing.assert_array_equal(runs.to_map(), ids)
    assert {*range(0, ids.size, width)} <= {*runs.starts.tolist()}
    if png.COMPILED:
        assert png_runs.decode(content) is not None  # the fast decoder was used


@settings(deadline=None, max_examples=60, suppress_health_check=SLOW_DRAWS)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 40), st.sampled_from(KINDS))
def test_encoded_ids_are_read_by_pillow(
    with_and_without_numba: None, zlib_library: None, seed: int, height: int, width: int, kind: str
) -> None:
    ids = build_map(seed, height, width, kind)
    content = png_runs.encode(ids)
    np.testing.assert_array_equal(decode_with_pillow(content), ids)
    assert content == png_runs.encode(np.asfortranarray(ids))
    if png.COMPILED:
        runs = png_runs.decode(content)
        assert runs is not None
        np.testing.assert_array_equal(runs.to_map(), ids)


def test_large_files_are_inflated_in_pieces(with_and_without_numba: None, zlib_library: None, tmp_path: Path) -> None:
    # 401 x 337 pixels: four pieces of 128 KiB that end within words, pixels and rows.
    ids = build_map(1, 401, 337, "flat")
    for name, array in (("flat", ids), ("noise", build_map(2, 401, 337, "noise"))):
        Image.fromarray(ids_to_rgb(array)).save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(png.read_id_runs(tmp_path / f"{name}.png").to_map(), array)


def build_other_kinds() -> dict[str, bytes]:
    ids = build_map(3, 7, 9, "flat")
    rgb = Image.fromarray(ids_to_rgb(ids))
    kinds: dict[str, Callable[[io.BytesIO], None]] = {
        "palette": lambda file: rgb.quantize(16).save(file, "PNG"),
        "RGBA": lambda file: rgb.convert("RGBA").save(file, "PNG"),
        "tRNS": lambda file: rgb.save(file, "PNG", transparency=(0, 0, 0)),
        "grey": lambda file: rgb.convert("L").save(file, "PNG"),
        "one bit": lambda file: rgb.convert("1").save(file, "PNG"),
        "grey 16": lambda file: Image.fromarray((ids & 65535).astype(np.uint16)).save(file, "PNG"),
        "animated": lambda file: rgb.save(file, "PNG", save_all=True, append_images=[rgb.rotate(180)]),
    }
    contents = {}
    for name, save in kinds.items():
        file = io.BytesIO()
        save(file)
        contents[name] = file.getvalue()
    wide = struct.pack(">9H", *range(9))
    contents["RGB 16"] = (
        SIGNATURE + header(3, 1, 16, 2, 0, 0, 0) + chunk(b"IDAT", zlib.compress(b"\0" + wide)) + chunk(b"IEND", b"")
    )
    # One pixel: interlacing has one pass, of the same bytes.
    pixel = chunk(b"IDAT", zlib.compress(b"\0\1\2\3")) + chunk(b"IEND", b"")
    contents["interlaced"] = SIGNATURE + header(1, 1, 8, 2, 0, 0, 1) + pixel
    return contents


OTHER_KINDS = build_other_kinds()


@needs_numba
@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_the_fast_decoder_returns_none_for_other_kinds(kind: str) -> None:
    runs = png_runs.decode(OTHER_KINDS[kind])
    if kind in ("tRNS", "animated"):  # plain RGB with a chunk that does not change the ids
        assert runs is not None
        np.testing.assert_array_equal(runs.to_map(), decode_with_pillow(OTHER_KINDS[kind]))
    else:
        assert runs is None


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_other_kinds_are_read_or_raise_a_dataset_error(with_and_without_numba: None, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(OTHER_KINDS[kind])
    if kind in ("grey", "one bit", "grey 16", "RGB 16"):
        with pytest.raises(DatasetError, match=r"x\.png: expected a PNG of 8-bit RGB or RGBA or palette, got"):
            png.read_id_runs(path).to_map()
    else:
        np.testing.assert_array_equal(png.read_id_runs(path).to_map(), decode_with_pillow(OTHER_KINDS[kind]))


REJECTED = "rejected"


def read_or_reject(path: Path, content: bytes) -> list[list[int]] | str:
    """Returns the ids, or REJECTED for a DatasetError that names the file."""
    path.write_bytes(content)
    try:
        ids: list[list[int]] = png.read_id_runs(path).to_map().tolist()
    except DatasetError as error:
        return REJECTED if str(error).startswith(str(path)) else str(error)
    return ids


def read_or_reject_both_ways(path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> list[list[int]] | str:
    result = []
    for compiled in (False, COMPILED):
        monkeypatch.setattr(png, "COMPILED", compiled)
        result.append(read_or_reject(path, content))
    assert result[0] == result[1]
    return result[0]


VALID_IDS = build_map(5, 6, 8, "flat")
VALID = encode(VALID_IDS, [0, 1, 2, 3, 4, 2], cuts=[20])


def test_files_truncated_at_any_byte_are_rejected_or_complete(
    zlib_library: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for length in range(len(VALID)):
        assert read_or_reject_both_ways(tmp_path / "x.png", VALID[:length], monkeypatch) in (
            REJECTED,
            VALID_IDS.tolist(),
        )
    inside_data = VALID.index(b"IDAT") + 12
    assert read_or_reject(tmp_path / "x.png", VALID[:inside_data]) == REJECTED
    assert read_or_reject(tmp_path / "x.png", VALID) == VALID_IDS.tolist()


@pytest.mark.parametrize("mask", [1, 0x20, 0xFF])
def test_both_decoders_agree_on_files_with_a_changed_byte(
    zlib_library: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: int
) -> None:
    for position in range(len(VALID)):
        content = bytearray(VALID)
        content[position] ^= mask
        result = read_or_reject_both_ways(tmp_path / "x.png", bytes(content), monkeypatch)
        assert result == REJECTED or type(result) is list


@needs_numba
def test_the_fast_decoder_returns_none_for_invalid_files(zlib_library: None) -> None:
    ids = build_map(5, 6, 8, "flat")
    data = filter_rows(ids_to_rgb(ids), [2] * 6)
    packed, end = zlib.compress(data), chunk(b"IEND", b"")

    def decode(packed: bytes, head: bytes = header(8, 6)) -> object:
        return png_runs.decode(SIGNATURE + head + chunk(b"IDAT", packed) + end)

    assert decode(packed) is not None
    assert decode(packed[:-1] + bytes([packed[-1] ^ 1])) is None
    assert decode(packed[:-1]) is None
    assert decode(packed[:-9]) is None
    assert decode(b"") is None
    assert decode(zlib.compress(data[:-1])) is None
    assert decode(zlib.compress(data + b"\0")) is None
    assert decode(zlib.compress(b"\5" + data[1:])) is None  # no such filter
    for size in ((8, 5), (8, 7), (7, 6), (0, 6), (8, 0), (2**31 - 1, 2**31 - 1), (2**32 - 1, 1), (60_000, 60_000)):
        assert decode(packed, header(*size)) is None
    assert png_runs.decode(SIGNATURE + header(8, 6) + chunk(b"IDAT", packed)) is None  # no end


def test_a_header_with_too_many_pixels_raises_a_dataset_error(with_and_without_numba: None, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    bomb = zlib.compress(bytes(10**6), 9)
    for size in ((60_000, 60_000), (2**31 - 1, 2**31 - 1), (70_000, 20)):
        path.write_bytes(SIGNATURE + header(*size) + chunk(b"IDAT", bomb) + chunk(b"IEND", b""))
        with pytest.raises(DatasetError, match=r"x\.png: (expected at most|the PNG cannot be decoded)"):
            png.read_id_runs(path)


def test_an_unexpected_size_raises_a_dataset_error(with_and_without_numba: None, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(VALID)
    with pytest.raises(DatasetError, match=r"x\.png: expected 8 x 6 pixels \(height x width\), got 6 x 8"):
        png.read_id_runs(tmp_path / "x.png", (8, 6))


def test_the_error_names_a_missing_file(with_and_without_numba: None, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"x\.png: expected a file, found nothing"):
        png.read_id_runs(tmp_path / "x.png")
