"""Label PNGs of every kind, written by Pillow, and Detectron2's result list."""

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from segkit.formats import image_files, label_images, png
from segkit.formats.coco import read_classes
from segkit.structures import CategorySet, mask_to_rle
from segkit.utils.errors import DatasetError

LABELS = np.array([[0, 1, 1], [3, 2, 0]], dtype=np.uint8)


def palette_image(labels, bits=8):
    image = Image.fromarray(labels).convert("L")
    palette = Image.frombytes("P", image.size, image.tobytes())
    palette.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
    return palette, {"bits": bits}


def test_kinds_of_label_pngs(tmp_path):
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
def test_values_of_few_bits_are_not_stretched(tmp_path, bit_depth, packed):
    row_bytes = len(packed) // 2
    rows = b"".join(b"\0" + bytes(packed[row * row_bytes : (row + 1) * row_bytes]) for row in range(2))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 3, 2, bit_depth, 0, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in [*chunks, (b"IEND", b"")]:
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    (tmp_path / "map.png").write_bytes(content)
    np.testing.assert_array_equal(png.read_labels(tmp_path / "map.png"), LABELS)


def test_what_is_written_is_read(tmp_path):
    for labels in (LABELS, LABELS.astype(np.int64) * 1000):
        png.write_labels(tmp_path / "a/map.png", labels)
        np.testing.assert_array_equal(png.read_labels(tmp_path / "a/map.png"), labels)
    for wrong in (-1, 65536):
        with pytest.raises(ValueError, match=f"labels must be in 0..65535, got .*{wrong}"):
            png.write_labels(tmp_path / "b.png", np.array([[0, wrong]]))
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_are_no_labels(tmp_path, mode):
    Image.fromarray(LABELS).convert(mode).save(tmp_path / "map.png")
    with pytest.raises(DatasetError, match=r"map\.png: expected a greyscale or palette PNG .*, got 8-bit .*colours"):
        png.read_labels(tmp_path / "map.png")


def test_broken_files_are_named(tmp_path):
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


def test_classes_from_json(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text('["background", "tumour"]')
    assert read_classes(path) == ("background", "tumour")
    entries = [{"id": 7, "name": "road", "isthing": 0}, {"id": 26, "name": "car", "isthing": 1}]
    for content in (entries, {"categories": entries, "images": []}):
        path.write_text(json.dumps(content))
        classes = read_classes(path)
        assert isinstance(classes, CategorySet)
        assert [(c.category_id, c.isthing) for c in classes.categories] == [(7, False), (26, True)]
    path.write_text('[{"id": 7, "name": "road"}]')
    assert read_classes(path).categories[0].isthing
    for wrong in ("{}", "[]", "3", '["a", 1]', '{"categories": 3}', '{"0": "a"}', '[{"id": 1}]'):
        path.write_text(wrong)
        with pytest.raises(DatasetError, match=r"classes\.json"):
            read_classes(path)


def entry(mask, category_id=1, name="a.jpg"):
    return {"file_name": name, "category_id": category_id, "segmentation": mask_to_rle(np.array(mask, dtype=bool))}


def raise_issue(error):
    raise error


def test_result_list_becomes_maps(tmp_path):
    path = tmp_path / "sem_seg_predictions.json"
    masks = {label: label == LABELS for label in range(4)}
    path.write_text(json.dumps([entry(mask, 10 + label) for label, mask in masks.items()] + [entry([[1]], 1, "b.jpg")]))
    results = label_images.read_semantic_predictions(path, raise_issue)
    assert {name: [*masks] for name, masks in results.items()} == {"a.jpg": [10, 11, 12, 13], "b.jpg": [1]}
    channels = label_images.build_semantic_map(results["a.jpg"], {10: 0, 11: 1, 12: 2, 13: 3}, (2, 3), "a")
    np.testing.assert_array_equal(channels, LABELS)


def test_masks_that_are_no_map_are_told(tmp_path):
    full, half = entry([[1, 1]])["segmentation"], entry([[1, 0]])["segmentation"]
    channel_of = {1: 0, 2: 1}
    for masks, problem in (
        ({1: half}, "expected every pixel in one class's mask, 1 pixels are in none"),
        ({1: half, 2: full}, "1 pixels are in a second one"),
        ({5: full}, "expected a category_id among 1, 2, got 5"),
        ({1: entry([[1], [1]])["segmentation"]}, r", category 1: expected RLE with a size of \[1, 2\]"),
        ({1: {"size": [1, 2], "counts": "~~"}}, "run lengths"),
    ):
        with pytest.raises(DatasetError, match=f"^place.*{problem}"):
            label_images.build_semantic_map(masks, channel_of, (1, 2), "place")


def test_other_result_lists_are_refused(tmp_path):
    path = tmp_path / "results.json"
    for content, problem in (
        ({"annotations": []}, "expected Detectron2's list .*, got a dict"),
        ([{"image_id": 1, "category_id": 1, "segmentation": {}}], "this is a list of instance results"),
        ([3], "expected the list to hold objects, got 3 at index 0"),
        ([{"file_name": 3}], "entry 0: expected `file_name` to be a string"),
        ([entry([[1]]) | {"category_id": "1"}], "expected `category_id` to be an integer"),
        ([entry([[1]]), entry([[1]])], r"entry 1: expected one mask per class of a\.jpg, got two of 1"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(DatasetError, match=rf"results\.json.*{problem}"):
            label_images.read_semantic_predictions(path, raise_issue)
    told = []
    path.write_text(json.dumps([{"file_name": 3}, entry([[1]]), {"file_name": "a.jpg"}]))
    assert [*label_images.read_semantic_predictions(path, told.append)["a.jpg"]] == [1]
    assert len(told) == 2
