"""Label PNGs of every kind, written by Pillow."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from segkit.formats import image_files, png
from segkit.utils.errors import DatasetError

LABELS = np.array([[0, 1, 1], [3, 2, 0]], dtype=np.uint8)


def palette_image(labels, bits=8):
    image = Image.fromarray(labels).convert("L")
    palette = Image.frombytes("P", image.size, image.tobytes())
    palette.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
    return palette, {"bits": bits}


def test_all_kinds_of_label_pngs_are_read(tmp_path):
    path = tmp_path / "map.png"
    Image.fromarray(LABELS).save(path)
    assert png.read_labels(path).dtype == np.uint8
    np.testing.assert_array_equal(png.read_labels(path), LABELS)
    for bits in (2, 4, 8):
        image, options = palette_image(LABELS, bits)
        image.save(path, **options)
        np.testing.assert_array_equal(png.read_labels(path), LABELS)
    Image.fromarray(LABELS.astype(np.uint16) * 20000).save(path)
    assert png.read_labels(path).dtype == np.uint16
    np.testing.assert_array_equal(png.read_labels(path), LABELS.astype(np.uint16) * 20000)
    Image.fromarray(LABELS > 0).save(path)
    np.testing.assert_array_equal(png.read_labels(path), LABELS > 0)


@pytest.mark.parametrize(("bit_depth", "packed"), [(2, [0b00010100, 0b11100000]), (4, [0x01, 0x10, 0x32, 0x00])])
def test_values_of_2_and_4_bits_are_not_scaled(tmp_path, bit_depth, packed):
    row_bytes = len(packed) // 2
    rows = b"".join(b"\0" + bytes(packed[row * row_bytes : (row + 1) * row_bytes]) for row in range(2))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 3, 2, bit_depth, 0, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in [*chunks, (b"IEND", b"")]:
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    (tmp_path / "map.png").write_bytes(content)
    np.testing.assert_array_equal(png.read_labels(tmp_path / "map.png"), LABELS)


def test_written_labels_are_read_back(tmp_path):
    for labels in (LABELS, LABELS.astype(np.int64) * 1000):
        png.write_labels(tmp_path / "a/map.png", labels)
        np.testing.assert_array_equal(png.read_labels(tmp_path / "a/map.png"), labels)
    for label_out_of_range in (-1, 65536):
        with pytest.raises(ValueError, match=f"labels must be in 0..65535, got .*{label_out_of_range}"):
            png.write_labels(tmp_path / "b.png", np.array([[0, label_out_of_range]]))
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colour_pngs_raise_a_dataset_error(tmp_path, mode):
    Image.fromarray(LABELS).convert(mode).save(tmp_path / "map.png")
    with pytest.raises(DatasetError, match=r"map\.png: expected a greyscale or palette PNG .*, got 8-bit .*colours"):
        png.read_labels(tmp_path / "map.png")


def test_the_error_names_an_invalid_file(tmp_path):
    path = tmp_path / "map.png"
    with pytest.raises(DatasetError, match=r"map\.png: expected a file, found nothing"):
        png.read_labels(path)
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (50, 50)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DatasetError, match=r"map\.png: the PNG cannot be decoded"):
        png.read_labels(path)
    path.write_bytes(b"JPEG")
    with pytest.raises(DatasetError, match=r"map\.png: expected a PNG"):
        png.read_labels(path)


def test_files_are_found_in_sub_folders(tmp_path):
    hidden = ("a/._one_ids.png", ".checkpoints/x_ids.png")
    for name in ("b/two_ids.png", "a/one_ids.png", "a/one_color.png", "three_ids.png", *hidden):
        png.write_labels(tmp_path / name, LABELS)
    assert [*image_files.find_by_suffix(tmp_path, "_ids.png")] == ["a/one", "b/two", "three"]
    assert image_files.find_by_suffix(tmp_path)["a/one_color"] == tmp_path / "a/one_color.png"
    with pytest.raises(DatasetError, match=r"names end in '\.tif', found none"):
        image_files.find_by_suffix(tmp_path, ".tif")
    with pytest.raises(DatasetError, match="nowhere: expected a folder of label PNGs, found none"):
        image_files.find_by_suffix(tmp_path / "nowhere")
