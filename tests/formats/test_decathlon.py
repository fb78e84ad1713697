"""Decathlon tasks of tiny volumes, written by nibabel or byte by byte, as they are and damaged in every way."""

import gzip
import json
import logging
import os
import struct
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.formats import decathlon
from segkit.formats.decathlon import DecathlonSource, write_prediction
from segkit.structures import ConfigError, DatasetError

from .samples import JUNK, files_below, spoil

LABELS = {0: "background", 1: "anterior", 2: "posterior"}
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


@pytest.fixture
def nib():
    return pytest.importorskip("nibabel")


def save(nib, path, voxels, affine=AFFINE, kind="Nifti1Image"):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(getattr(nib, kind)(voxels, affine), path)


def add_volume(nib, root, name="v", image=None, label=None, affine=AFFINE):
    label = np.zeros((2, 3, 4), np.uint8) if label is None else label
    image = np.arange(label.size, dtype=np.int16).reshape(label.shape) if image is None else image
    save(nib, root / f"imagesTr/{name}.nii.gz", image, affine)
    save(nib, root / f"labelsTr/{name}.nii.gz", label, affine)


def write_table(root, names, **changes):
    table = {
        "labels": {str(label): name for label, name in LABELS.items()},
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names],
        "test": [],
    }
    (root / "dataset.json").write_text(json.dumps({**table, **changes}))


def header_of(shape, datatype=2, bitpix=8, **fields):
    """A NIfTI-1 header by the byte (nifti1.h), uint8 voxels, spacing 1 mm."""
    block = bytearray(352)
    struct.pack_into("<i", block, 0, 348)
    struct.pack_into("<8h", block, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<2h", block, 70, datatype, bitpix)
    struct.pack_into("<8f", block, 76, *[1.0] * 8)
    struct.pack_into("<f", block, 108, fields.get("vox_offset", 352))
    struct.pack_into("<2f", block, 112, fields.get("slope", 0), fields.get("inter", 0))
    struct.pack_into("<2h", block, 252, 0, fields.get("sform_code", 1))
    struct.pack_into("<12f", block, 280, *fields.get("sform", (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)))
    block[344:348] = fields.get("magic", b"n+1\0")
    return bytes(block)


def read_all(source):
    for image in source.images:
        assert source.picture(image).shape == (*image.size_hw, 3)
        assert source.segmentation(image).segment_ids.shape == image.size_hw


def refusal(action):
    """The DatasetError that the action ends in, or None."""
    try:
        action()
    except DatasetError as error:
        return str(error)
    return None


def test_slices_by_hand(nib, tmp_path):
    # x to the right (2 voxels), y to the front (3), z to the head (1). label[x, y]: column 0 is x = 0, the top row is
    # the last y. Axial slice 0: rows y = 2, 1, 0.
    label = np.array([[0, 1, 2], [0, 1, 1]], dtype=np.uint8)[..., None]
    image = np.array([[0, 10, 20], [30, 40, 50]], dtype=np.int16)[..., None]
    add_volume(nib, tmp_path, image=image, label=label)
    write_table(tmp_path, ["v"])
    source = DecathlonSource(tmp_path, percentiles=(0, 100))
    (slice_0,) = source.images
    assert (slice_0.image_id, slice_0.file_name, slice_0.size_hw) == ("v_000", "v_000.png", (3, 2))
    segmentation = source.segmentation(slice_0)
    # Segments by label: 1 = background, 2 = anterior, 3 = posterior.
    np.testing.assert_array_equal(segmentation.segment_ids, [[3, 2], [2, 2], [1, 1]])
    assert segmentation.segment_ids.dtype == np.int32
    assert [(s.segment_id, s.category_id, s.isthing, s.area_px) for s in segmentation.segments] == [
        (1, 0, False, 2),
        (2, 1, False, 3),
        (3, 2, False, 1),
    ]
    # 0..50 to 0..255: times 5.1.
    picture = source.picture(slice_0)
    assert picture.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(picture[..., channel], [[102, 255], [51, 204], [0, 153]])
    assert [c.name for c in source.categories.categories] == ["background", "anterior", "posterior"]
    assert source.categories.things == ()
    assert source.annotations(slice_0) == []
    volume, index = source.place(slice_0)
    assert (volume.name, volume.size_xyz, volume.modalities, index) == ("v", (2, 3, 1), 1, 0)


@pytest.mark.parametrize(("axis", "count", "size_hw"), [(0, 2, (4, 3)), (1, 3, (4, 2)), (2, 4, (3, 2))])
def test_axes(nib, tmp_path, axis, count, size_hw):
    label = np.zeros((2, 3, 4), dtype=np.uint8)
    label[1, 2, 3] = 1  # right, front, head
    add_volume(nib, tmp_path, label=label)
    source = DecathlonSource(tmp_path, labels=LABELS, axis=axis)
    assert [image.size_hw for image in source.images] == [size_hw] * count
    last = source.segmentation(source.images[-1]).segment_ids
    assert np.argwhere(last == 2).tolist() == [[0, size_hw[1] - 1]]  # top right


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRA", "ILA", "PIR"])
def test_stored_orientation_changes_nothing(nib, tmp_path, codes):
    label = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 3
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    affine = AFFINE @ nib.orientations.inv_ornt_aff(turn, label.shape)
    add_volume(nib, tmp_path / "a", image=image, label=label)
    turned = [nib.orientations.apply_orientation(voxels, turn) for voxels in (image, label)]
    add_volume(nib, tmp_path / "b", image=turned[0], label=turned[1], affine=affine)
    first, second = (DecathlonSource(tmp_path / name, labels=LABELS) for name in "ab")
    assert first.images == second.images
    for slice_ in first.images:
        np.testing.assert_array_equal(first.picture(slice_), second.picture(slice_))
        np.testing.assert_array_equal(first.segmentation(slice_).segment_ids, second.segmentation(slice_).segment_ids)
    maps = [second.segmentation(slice_).segment_ids - 1 for slice_ in second.images]  # all three labels in each slice
    write_prediction(tmp_path / "out.nii", maps, like=tmp_path / "b/imagesTr/v.nii.gz")
    np.testing.assert_array_equal(nib.load(tmp_path / "out.nii").dataobj, turned[1])


def test_things_are_connected_pieces(nib, tmp_path):
    label = np.array([[1, 0, 1, 2], [0, 1, 0, 0], [0, 0, 0, 1], [2, 0, 2, 0]], dtype=np.uint8)[..., None]
    add_volume(nib, tmp_path, label=label)
    write_table(tmp_path, ["v"])
    source = DecathlonSource(tmp_path, things=["anterior"])
    assert [c.name for c in source.categories.things] == ["anterior"]
    # Seen from above, rows y = 3..0, columns x = 0..3; 8 neighbours join the corner.
    expected = [[4, 1, 2, 1], [3, 1, 1, 4], [1, 3, 1, 1], [3, 1, 1, 4]]
    segmentation = source.segmentation(source.images[0])
    np.testing.assert_array_equal(segmentation.segment_ids, expected)
    assert [(s.category_id, s.isthing, s.area_px) for s in segmentation.segments] == [
        (0, False, 9),
        (1, True, 1),
        (1, True, 3),
        (2, False, 3),
    ]
    assert [a["area"] for a in source.annotations(source.images[0])] == [1, 3]


def test_labels_are_found_named_and_given(nib, tmp_path):
    add_volume(nib, tmp_path, "a", label=np.full((2, 2, 1), 7, np.uint8))
    add_volume(nib, tmp_path, "b", label=np.array([[[0], [300]]], np.int16))
    for split in ("all", "train", "val"):  # the categories of a split are those of the task
        found = DecathlonSource(tmp_path, split=split).categories
        assert [(c.category_id, c.name) for c in found.categories] == [
            (0, "background"),
            (7, "label 7"),
            (300, "label 300"),
        ]
    given = DecathlonSource(tmp_path, labels={"7": "x", 300: "y"}).categories
    assert [(c.category_id, c.name) for c in given.categories] == [(0, "background"), (7, "x"), (300, "y")]
    write_table(tmp_path, ["a"])
    assert [v.name for v in DecathlonSource(tmp_path).volumes] == ["a"]  # dataset.json decides
    source = DecathlonSource(tmp_path)
    problem = r"a\.nii\.gz: expected labels among 0, 1, 2, got 7 too"
    with pytest.raises(DatasetError, match=problem):
        source.segmentation(source.images[0])
    with pytest.raises(DatasetError, match=problem):
        DecathlonSource(tmp_path, keep_empty=False)


def test_empty_slices(nib, tmp_path):
    label = np.zeros((2, 3, 4), dtype=np.uint8)
    label[0, 0, 2] = 1
    add_volume(nib, tmp_path, label=label)
    assert len(DecathlonSource(tmp_path, labels=LABELS).images) == 4
    assert [i.image_id for i in DecathlonSource(tmp_path, labels=LABELS, keep_empty=False).images] == ["v_002"]
    add_volume(nib, tmp_path, label=label * 0)
    with pytest.raises(DatasetError, match="the split 'all' has no slice"):
        DecathlonSource(tmp_path, labels=LABELS, keep_empty=False)


def test_splits_share_no_volume(nib, tmp_path):
    names = [f"v{number}" for number in range(10)]
    for name in names:
        add_volume(nib, tmp_path, name)

    def volumes(**options):
        source = DecathlonSource(tmp_path, labels=LABELS, **options)
        assert {source.place(image)[0].name for image in source.images} == {v.name for v in source.volumes}
        return [v.name for v in source.volumes]

    assert volumes() == names
    for share, count in ((0.2, 2), (0.01, 1), (0.99, 9), (0.5, 5)):
        val, train = (volumes(split=split, val_share=share) for split in ("val", "train"))
        assert (len(val), sorted(val + train)) == (count, names)
        assert val == sorted(val)
    assert set(volumes(split="val", val_share=0.2)) < set(volumes(split="val", val_share=0.5))
    assert volumes(split="val", val_share=1) == volumes(split="train", val_share=0) == names
    with pytest.raises(DatasetError, match="the split 'val' has no slice; choose"):
        volumes(split="val", val_share=0)
    assert volumes(split="val", held_out=["v3", "v7"]) == ["v3", "v7"]
    assert volumes(split="train", held_out=["v3", "v7"]) == [n for n in names if n not in ("v3", "v7")]
    with pytest.raises(ConfigError, match="expected `held_out` to name volumes, there is no 'w'"):
        volumes(held_out=["w"])


@pytest.mark.parametrize("listed", [None, "./imagesTs/t.nii.gz", {"image": "imagesTs/t.nii.gz"}])
def test_volumes_without_labels(nib, tmp_path, listed):
    save(nib, tmp_path / "imagesTs/t.nii.gz", np.arange(6, dtype=np.float32).reshape(1, 2, 3))
    if listed:
        write_table(tmp_path, [], test=[listed])
    source = DecathlonSource(tmp_path, split="test", labels=None if listed else LABELS, keep_empty=False)
    assert [image.image_id for image in source.images] == ["t_000", "t_001", "t_002"]
    assert source.segmentation(source.images[0]).segments == ()
    assert not source.segmentation(source.images[0]).segment_ids.any()
    assert source.picture(source.images[2]).max() == 255


def test_modalities_are_colours(nib, tmp_path):
    image = np.zeros((1, 2, 1, 4), dtype=np.float32)
    image[0, 1, 0] = [1, 20, 300, 4000]  # every modality has its own range
    image[0, 0, 0] = [0, 10, 300, 2000]  # the third is constant
    add_volume(nib, tmp_path, image=image, label=np.zeros((1, 2, 1), np.uint8))

    def top(**options):
        source = DecathlonSource(tmp_path, labels=LABELS, percentiles=(0, 100), **options)
        assert source.volumes[0].modalities == 4
        return source.picture(source.images[0])[0, 0].tolist()

    assert top() == [255, 255, 0]
    assert top(modalities=[2]) == [0, 0, 0]
    assert top(modalities=[3, 2]) == [255, 0, 0]
    assert top(modalities=(2, 0, 3)) == [0, 255, 255]
    with pytest.raises(ConfigError, match=r"v\.nii\.gz: expected modalities below 4, which the volume has, got 4"):
        top(modalities=[4])


def test_percentiles_are_of_the_whole_volume(nib, tmp_path):
    image = np.arange(200, dtype=np.float32).reshape(2, 10, 10)
    add_volume(nib, tmp_path, image=image, label=np.zeros(image.shape, np.uint8))
    source = DecathlonSource(tmp_path, labels=LABELS, percentiles=(10, 90))
    low, high = np.percentile(image, (10, 90))
    expected = np.rint(255 * (np.clip(image, low, high) - low) / (high - low))
    for slice_ in source.images:
        seen = source.picture(slice_)[..., 0]
        np.testing.assert_array_equal(seen, np.rot90(expected[..., source.place(slice_)[1]]))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5, 5, 5], [0, 0, 0]),
        ([np.nan, np.inf, -np.inf], [0, 0, 0]),
        ([np.nan, 0, np.inf, 10], [0, 0, 0, 255]),
        ([-1.7e308, 1.7e308, 0], [0, 255, 128]),  # the difference is no float64; half of 255 is rounded to even
        (np.float32([-3e38, 3e38, 0]), [0, 255, 128]),
    ],
)
def test_strange_intensities(tmp_path, caplog, values, expected):
    assert decathlon._to_uint8(np.array([values]), (0, 100), tmp_path).tolist() == [expected]
    bad = len(values) - np.isfinite(values).sum()
    told = [f"{tmp_path}: {bad} voxels are NaN or infinite, shown as the lowest"] if bad else []
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == told


def test_percentiles_that_are_equal_make_a_step():
    # Both percentiles are among the many zeros: what is brighter is white.
    grey = decathlon._to_uint8(np.eye(100), (0.5, 50), "v")
    np.testing.assert_array_equal(grey, np.eye(100) * 255)
    # Percentiles that interpolate between extremes of opposite sign overflow the volume's type.
    grey = decathlon._to_uint8(np.float32([[-3e38, 3e38]]), (30, 60), "v")
    assert grey.tolist() == [[0, 255]]


@given(hnp.arrays(st.sampled_from([np.int16, np.uint8, np.float32, np.float64, np.int64]), (2, 3, 4)))
def test_normalisation_keeps_the_order(voxels):
    grey = decathlon._to_uint8(voxels, (5, 95), "v")
    finite = np.isfinite(voxels.astype(np.float64))
    order = np.argsort(voxels[finite], kind="stable")
    assert (np.diff(grey[finite][order].astype(int)) >= 0).all()
    assert not grey[~finite].any()


def test_a_volume_is_read_once(nib, tmp_path, monkeypatch):
    for name in "abc":
        add_volume(nib, tmp_path, name)
    source = DecathlonSource(tmp_path, labels=LABELS)
    reads = []
    read = decathlon.read_voxels
    monkeypatch.setattr(decathlon, "read_voxels", lambda path: reads.append(path) or read(path))
    for limit, expected in ((decathlon.CACHE_BYTES, 6), (0, 6)):  # slices in order: one volume is enough
        monkeypatch.setattr(decathlon, "CACHE_BYTES", limit)
        source._kept.clear()
        reads.clear()
        for slice_ in source.images:
            source.picture(slice_)
            source.segmentation(slice_)
        assert len(reads) == expected
    assert len(source._kept) == 2


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=hnp.arrays(np.int32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=4), elements=st.integers(0, 65535)),
    axis=st.integers(0, 2),
    flips=st.tuples(*[st.sampled_from([1.0, -1.0])] * 3),
    order=st.permutations(range(3)),
    kind=st.sampled_from(["Nifti1Image", "Nifti2Image"]),
)
def test_predictions_come_back(nib, tmp_path, labels, axis, flips, order, kind):
    rotation = np.zeros((4, 4))
    rotation[[*order], range(3)] = np.array(flips) * 1.5
    rotation[:, 3] = 4, -5, 6, 1
    for folder, dtype in (("imagesTr", np.float32), ("labelsTr", np.uint16)):
        save(nib, tmp_path / folder / "v.nii", labels.astype(dtype), rotation, kind)
    source = DecathlonSource(tmp_path, axis=axis)
    slices = [source._labels(source.volumes[0].label_path)[source.place(image)[1]] for image in source.images]
    for name in ("p.nii.gz", "p.nii"):
        write_prediction(tmp_path / "out" / name, slices, like=tmp_path / "imagesTr/v.nii", axis=axis)
        back = nib.load(tmp_path / "out" / name)
        np.testing.assert_array_equal(back.dataobj, labels)
        np.testing.assert_array_equal(back.affine, rotation)
        assert type(back).__name__ == kind
        assert back.get_data_dtype() == (np.uint8 if labels.max() < 256 else np.uint16)
    for image, seen in zip(source.images, slices, strict=True):
        segmentation = source.segmentation(image)
        assert seen.shape == image.size_hw
        for segment in segmentation.segments:
            mask = segmentation.segment_ids == segment.segment_id
            assert (seen[mask] == segment.category_id).all()
            assert np.count_nonzero(mask) == segment.area_px > 0


def test_the_header_is_kept(nib, tmp_path):
    image = nib.Nifti1Image(np.zeros((2, 3, 4, 2), np.float32), AFFINE)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"from a scanner"
    image.set_sform(AFFINE, code=1)
    image.set_qform(AFFINE, code=2)
    nib.save(image, tmp_path / "image.nii.gz")
    for _ in range(2):
        write_prediction(tmp_path / "p.nii.gz", np.ones((4, 3, 2), int), like=tmp_path / "image.nii.gz")
    header = nib.load(tmp_path / "p.nii.gz").header
    assert header.get_data_shape() == (2, 3, 4)
    assert (header["descrip"], header.get_xyzt_units()[0]) == (b"from a scanner", "mm")
    assert (header["sform_code"], header["qform_code"]) == (1, 2)
    assert files_below(tmp_path) == {"image.nii.gz", "p.nii.gz"}


@pytest.mark.parametrize(
    ("slices", "name", "problem"),
    [
        (np.zeros((3, 3, 2), int), "p.nii", r"slices must be 4 maps of \(3, 2\) integers, got 3 of \[\(3, 2\)\] int64"),
        (np.zeros((4, 2, 3), int), "p.nii", r"slices must be 4 maps of \(3, 2\) integers"),
        (np.zeros((4, 3, 2)), "p.nii", r"slices must be .* integers, got .*float64"),
        ([], "p.nii", r"slices must be .*, got 0 of \[\]"),
        ([np.zeros((3, 2), int), np.zeros(3, int)], "p.nii", "slices must be .*, got 2 of"),
        (np.full((4, 3, 2), -1), "p.nii", r"labels must be in 0\.\.65535, got -1\.\.-1"),
        (np.full((4, 3, 2), 65536), "p.nii", r"labels must be in 0\.\.65535, got 65536"),
        (np.zeros((4, 3, 2), int), "p.png", r"path must end in \.nii\.gz or \.nii, got 'p\.png'"),
    ],
)
def test_wrong_predictions(nib, tmp_path, slices, name, problem):
    save(nib, tmp_path / "image.nii.gz", np.zeros((2, 3, 4), np.float32))
    with pytest.raises(ValueError, match=problem):
        write_prediction(tmp_path / "out" / name, slices, like=tmp_path / "image.nii.gz")
    assert files_below(tmp_path) == {"image.nii.gz"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "expected a NIfTI in one file"),
        (b"junk" * 200, "expected a NIfTI in one file"),
        (header_of((2, 3, 4), magic=b"ni1\0") + bytes(24), "expected a NIfTI in one file"),
        (header_of((2, 3, 4)) + bytes(23), "speaks of 376 bytes, which a file of 375 bytes cannot hold"),
        (header_of((2, 3, 4)) + bytes(25), "speaks of 376 bytes, the file holds more"),
        (gzip.compress(header_of((2, 3, 4)) + bytes(20)), "speaks of 376 bytes, the file holds 372"),
        (gzip.compress(header_of((2, 3, 4)) + bytes(99)), "speaks of 376 bytes, the file holds more"),
        (gzip.compress(header_of((300, 300, 300))), "speaks of 27000352 bytes, which a file of"),
        (gzip.compress(header_of((32000, 32000, 32000))), "expected at most 536870912 voxels, got 32000 x 32000"),
        (header_of((2, 3)) + bytes(6), "expected x, y, z and at most one axis"),
        (header_of((2, 3, 4, 1, 3)) + bytes(72), "expected x, y, z and at most one axis"),
        (header_of((2, 0, 4)) + bytes(24), "expected x, y, z and at most one axis"),
        (header_of((2, -3, 4)) + bytes(24), "expected x, y, z and at most one axis"),
        (header_of((2, 3, 4), 32, 64) + bytes(192), "expected voxels that are one number .* got complex64"),
        (header_of((2, 3, 4), 128, 24) + bytes(72), "expected voxels that are one number"),
        (header_of((2, 3, 4), 77) + bytes(24), "cannot be read"),
        (header_of((2, 3, 4), vox_offset=0) + bytes(24), "expected voxels from byte 352"),
        (header_of((2, 3, 4), vox_offset=1e9) + bytes(24), "expected voxels from byte 352"),
        (header_of((2, 3, 4), vox_offset=np.nan) + bytes(24), "cannot be read"),
        (header_of((2, 3, 4), vox_offset=np.inf) + bytes(24), "cannot be read"),
        (header_of((2, 3, 4), sform=[0] * 12) + bytes(24), "expected an affine that spans three axes"),
        (header_of((2, 3, 4), sform=[np.nan] * 12) + bytes(24), "expected an affine that spans three axes"),
        (header_of((2, 3, 4), slope=0.3) + bytes([1]) * 24, "expected whole numbers as labels, got 0.3"),
        (header_of((2, 3, 4), slope=1, inter=-2) + bytes(24), r"expected labels in 0\.\.65535, got -2"),
        (header_of((2, 3, 4), slope=1e6) + bytes([1]) * 24, r"expected labels in 0\.\.65535"),
    ],
)
def test_damaged_volumes(nib, tmp_path, content, problem):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v.nii.gz").write_bytes(content)
    with pytest.raises(DatasetError, match=rf"v\.nii\.gz.*: .*{problem}"):
        DecathlonSource(tmp_path)  # finds the labels, so it reads the voxels
    told = refusal(lambda: read_all(DecathlonSource(tmp_path, labels=LABELS)))
    assert told is not None
    assert "v.nii.gz" in told


def test_a_cut_off_gzip_and_a_wrong_checksum(nib, tmp_path):
    rng = np.random.default_rng(0)
    add_volume(nib, tmp_path, label=np.zeros((9, 9, 9), np.uint8), image=rng.random((9, 9, 9)))
    path = tmp_path / "imagesTr/v.nii.gz"
    whole = path.read_bytes()
    for damaged in (whole[:-1000], whole[:-4], whole[:3000] + b"\0" * 9 + whole[3009:], whole[:-8] + bytes(8)):
        path.write_bytes(damaged)
        source = DecathlonSource(tmp_path, labels=LABELS)
        with pytest.raises(DatasetError, match=r"imagesTr/v\.nii\.gz: the (file cannot be read|header speaks)"):
            source.picture(source.images[0])
        source.segmentation(source.images[0])
    path.write_bytes(gzip.decompress(whole))  # as some browsers store it
    assert DecathlonSource(tmp_path, labels=LABELS).picture(source.images[0]).any()


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 375), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_any_byte_may_be_wrong(nib, tmp_path, changes, zipped):
    content = bytearray(header_of((2, 3, 4)) + bytes(range(24)))
    for place, value in changes:
        content[place] = value
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "v.nii.gz").write_bytes(gzip.compress(content) if zipped else content)
    told = refusal(lambda: read_all(DecathlonSource(tmp_path)))
    assert told is None or "v.nii.gz" in told


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 567), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_byte_of_a_nifti_2_may_be_wrong(nib, tmp_path, changes):
    content = bytearray(nib.Nifti2Image(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), AFFINE).to_bytes())
    for place, value in changes:
        content[place] = value
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "v.nii").write_bytes(content)
    told = refusal(lambda: read_all(DecathlonSource(tmp_path)))
    assert told is None or "v.nii" in told


def test_sizes_beyond_64_bits_do_not_wrap(nib, tmp_path):
    header = nib.Nifti2Header()
    header["dim"] = [3, 2**32, 2**32, 2**32, 1, 1, 1, 1]  # the product is 2^96, 0 in 64 bits
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v.nii").write_bytes(header.binaryblock + bytes(4))
    with pytest.raises(DatasetError, match="expected at most 536870912 voxels, got 4294967296 x"):
        DecathlonSource(tmp_path)


def test_big_endian_volumes(nib, tmp_path):
    label = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        image = nib.Nifti1Image(label, AFFINE, nib.Nifti1Header(endianness=">"), dtype=np.int16)
        nib.save(image, tmp_path / folder / "v.nii")
    source = DecathlonSource(tmp_path)
    maps = [source.segmentation(image).segment_ids for image in source.images]
    assert source.picture(source.images[-1]).max() == 255
    write_prediction(tmp_path / "p.nii", maps, like=tmp_path / "imagesTr/v.nii")
    # Six labels a slice, numbered by label: by x, then y.
    np.testing.assert_array_equal(nib.load(tmp_path / "p.nii").dataobj, label // 4 + 1)


def test_one_file_may_be_image_and_label(nib, tmp_path):
    add_volume(nib, tmp_path, label=np.ones((2, 3, 1), np.uint8))
    both = {"image": "labelsTr/v.nii.gz", "label": "labelsTr/v.nii.gz"}
    write_table(tmp_path, [], training=[both])
    read_all(DecathlonSource(tmp_path))


def test_label_and_image_must_fit(nib, tmp_path):
    image = np.zeros((2, 3, 4), np.float32)

    def refused(problem, label, affine):
        save(nib, tmp_path / "imagesTr/v.nii.gz", image)
        save(nib, tmp_path / "labelsTr/v.nii.gz", label, affine)
        with pytest.raises(DatasetError, match=rf"labelsTr/v\.nii\.gz: {problem}"):
            DecathlonSource(tmp_path, labels=LABELS)

    label = image.astype(np.uint8)
    refused("expected a label of the size of its image, 2 x 3 x 4 x 1, got 2 x 4 x 3 x 1", label.swapaxes(1, 2), AFFINE)
    refused(".* got 2 x 3 x 4 x 2", np.stack([label] * 2, -1), AFFINE)
    shifted = AFFINE.copy()
    shifted[0, 3] = 0.5  # half a voxel of 1 mm
    refused("expected a label on the grid .* puts a corner 0.5 voxels off; resample", label, shifted)
    refused("expected a label on the grid", label, AFFINE @ np.diag([-1, 1, 1, 1]))
    nearly = AFFINE + np.full((4, 4), 1e-5) * [[1], [1], [1], [0]]  # rounding of the tool that wrote it
    save(nib, tmp_path / "labelsTr/v.nii.gz", label, nearly)
    assert len(DecathlonSource(tmp_path, labels=LABELS).images) == 4


def test_files_that_are_missing_or_litter(nib, tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere: expected the folder of a task, found none"):
        DecathlonSource(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="imagesTr: no such folder; expected imagesTr/<volume>"):
        DecathlonSource(tmp_path)
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "._v.nii.gz").write_bytes(b"Mac OS X")
    with pytest.raises(DatasetError, match=r"expected files that end in \.nii\.gz, found none"):
        DecathlonSource(tmp_path)
    add_volume(nib, tmp_path)
    (tmp_path / "imagesTr/loop.nii.gz").symlink_to("loop.nii.gz")
    assert [v.name for v in DecathlonSource(tmp_path, labels=LABELS).volumes] == ["v"]
    save(nib, tmp_path / "imagesTr/w.nii.gz", np.zeros((2, 3, 4), np.float32))
    with pytest.raises(DatasetError, match=r"imagesTr/w\.nii\.gz: 1 of 2 volumes have no label: 'w'"):
        DecathlonSource(tmp_path)
    (tmp_path / "imagesTr/w.nii.gz").rename(tmp_path / "labelsTr/u.nii.gz")
    with pytest.raises(DatasetError, match=r"labelsTr/u\.nii\.gz: 1 of 2 volumes have no image: 'u'"):
        DecathlonSource(tmp_path)
    write_table(tmp_path, ["v"])
    source = DecathlonSource(tmp_path)
    (tmp_path / "imagesTr/v.nii.gz").unlink()
    with pytest.raises(DatasetError, match="expected a NIfTI, found nothing"):
        source.picture(source.images[0])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"training": [{"image": "../v.nii.gz", "label": "labelsTr/v.nii.gz"}]}, "to be a path inside its folder"),
        ({"training": [{"image": "/v.nii.gz", "label": "labelsTr/v.nii.gz"}]}, "to be a path inside its folder"),
        ({"training": [{"image": "imagesTr/v.png", "label": "labelsTr/v.nii.gz"}]}, "expected the path of a .nii.gz"),
        ({"training": [{"image": "imagesTr/w.nii.gz", "label": "labelsTr/v.nii.gz"}]}, "no such file; complete"),
        ({"training": [{"image": "i" * 5000 + ".nii.gz", "label": "labelsTr/v.nii.gz"}]}, "no such file"),
        ({"training": [{"image": "imagesTr/v.nii.gz"}]}, "expected `label` to be a string, got none"),
        ({"training": [{"image": "imagesTr/v.nii.gz", "label": "labelsTr/v.nii.gz"}] * 2}, "got 'v' twice"),
        ({"training": "v"}, "expected `training` to be a list"),
        ({"training": []}, "the split 'all' has no slice"),
        ({"labels": None}, "expected `labels` to be {label: name}, got None"),
        ({"labels": {}}, "expected `labels` to be {label: name}"),
        ({"labels": {"background": 0}}, "expected a different integer in 0..65535 and a name"),
        ({"labels": {"65536": "a"}}, "expected a different integer in 0..65535 and a name"),
        ({"labels": {"1": "a", "01": "b"}}, "expected a different integer in 0..65535 and a name"),
        ({"labels": {"1": 5}}, "expected a different integer in 0..65535 and a name"),
        ({"labels": {"1": "\ud800"}}, "valid Unicode"),
    ],
)
def test_tables_that_are_wrong(nib, tmp_path, changes, problem):
    add_volume(nib, tmp_path)
    write_table(tmp_path, ["v"], **changes)
    with pytest.raises(DatasetError, match=problem):
        DecathlonSource(tmp_path)


def test_two_files_of_one_name(nib, tmp_path):
    add_volume(nib, tmp_path)
    save(nib, tmp_path / "labelsTr/v.nii", np.zeros((2, 3, 4), np.uint8))
    problem = r"labelsTr/v\.nii\.gz: expected one file for a volume, got v\.nii too; remove one"
    with pytest.raises(DatasetError, match=problem):
        DecathlonSource(tmp_path)


def test_a_single_volume_is_for_training(nib, tmp_path):
    add_volume(nib, tmp_path, os.fsdecode(b"v\xff"))
    assert len(DecathlonSource(tmp_path, labels=LABELS, split="train").volumes) == 1
    with pytest.raises(DatasetError, match="the split 'val' has no slice"):
        DecathlonSource(tmp_path, labels=LABELS, split="val")


def test_tables_too_large_or_too_deep(tmp_path, monkeypatch):
    (tmp_path / "dataset.json").write_text("[" * 100_000)
    with pytest.raises(DatasetError, match=r"dataset\.json: expected JSON"):
        DecathlonSource(tmp_path)
    monkeypatch.setattr(decathlon, "MAX_JSON_BYTES", 1000)
    with pytest.raises(DatasetError, match=r"dataset\.json: expected a table of at most 1000 bytes, got 100000 bytes"):
        DecathlonSource(tmp_path)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(JUNK))
def test_any_part_of_the_table_may_be_junk(nib, tmp_path, data, junk):
    if not (tmp_path / "imagesTr").exists():
        add_volume(nib, tmp_path)
    write_table(tmp_path, ["v"])
    table = json.loads((tmp_path / "dataset.json").read_text())
    spoiled = spoil(table, lambda n: data.draw(st.integers(0, n - 1)), junk)
    (tmp_path / "dataset.json").write_text(json.dumps(spoiled))
    for split in ("all", "test"):
        told = refusal(lambda split=split: DecathlonSource(tmp_path, split=split))
        assert told is None or str(tmp_path) in told


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"axis": 3}, "expected `axis` to be 0, 1 or 2, got 3"),
        ({"axis": True}, "expected `axis`"),
        ({"split": "valid"}, "expected `split` to be one of train, val, all, test, got 'valid'"),
        ({"split": ["val"]}, "expected `split`"),
        ({"val_share": 1.5}, r"expected `val_share` to be in 0\.\.1, got 1\.5"),
        ({"val_share": float("nan")}, "expected `val_share`"),
        ({"val_share": "0.2"}, "expected `val_share`"),
        ({"held_out": "v"}, "expected `held_out` to be a list of names, got 'v'"),
        ({"things": "anterior"}, "expected `things` to be a list of names"),
        ({"things": ["tail"]}, "expected `things` to be among the labels 'anterior', 'posterior', got 'tail'"),
        ({"things": ["background"]}, "expected `things` to be among the labels"),
        ({"modalities": [0, 1, 2, 3]}, "expected `modalities` to be a list of up to three numbers from 0"),
        ({"modalities": [-1]}, "expected `modalities`"),
        ({"modalities": 1}, "expected `modalities`"),
        ({"modalities": {1}}, "expected `modalities`"),
        ({"percentiles": [99, 1]}, "expected `percentiles` to be two rising numbers in 0..100"),
        ({"percentiles": [0, 101]}, "expected `percentiles`"),
        ({"percentiles": 5}, "expected `percentiles`"),
        ({"percentiles": [1, float("nan")]}, "expected `percentiles`"),
        ({"labels": ["background"]}, "`labels`: expected `labels` to be {label: name}"),
        ({"labels": {-1: "a"}}, "`labels`: expected a different integer"),
        ({"labels": {True: "a"}}, "`labels`: expected a different integer"),
    ],
)
def test_options_that_make_no_sense(tmp_path, options, problem):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v.nii.gz").write_bytes(b"")
    with pytest.raises(ConfigError, match=problem):
        DecathlonSource(tmp_path, **{"labels": LABELS, **options})


def test_without_nibabel(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v.nii.gz").write_bytes(header_of((1, 1, 1)) + b"\0")
    for action in (
        lambda: DecathlonSource(tmp_path),
        lambda: write_prediction(tmp_path / "p.nii", np.zeros((1, 1, 1), int), like=tmp_path / "imagesTr/v.nii.gz"),
    ):
        with pytest.raises(ConfigError, match="NIfTI files need nibabel, which is not installed; pip install nibabel"):
            action()
