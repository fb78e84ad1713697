"""NIfTI files as they are and damaged in every way, through the source that reads them."""

import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segkit.formats.decathlon import DecathlonReader, write_prediction
from segkit.formats.decathlon.nifti import read_header
from segkit.utils.errors import DatasetError
from tests.helpers.decathlon_tree import AFFINE, LABELS, add_volume, build_header, get_error, read_all


@pytest.fixture
def nib():
    return pytest.importorskip("nibabel")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "expected a NIfTI in one file"),
        (b"junk" * 200, "expected a NIfTI in one file"),
        (build_header((2, 3, 4), magic=b"ni1\0") + bytes(24), "expected a NIfTI in one file"),
        (build_header((2, 3, 4)) + bytes(23), "speaks of 376 bytes, which a file of 375 bytes cannot hold"),
        (build_header((2, 3, 4)) + bytes(25), "speaks of 376 bytes, the file holds more"),
        (gzip.compress(build_header((2, 3, 4)) + bytes(20), mtime=0), "speaks of 376 bytes, the file holds 372"),
        (gzip.compress(build_header((2, 3, 4)) + bytes(99), mtime=0), "speaks of 376 bytes, the file holds more"),
        (gzip.compress(build_header((300, 300, 300)), mtime=0), "speaks of 27000352 bytes, which a file of"),
        (
            gzip.compress(build_header((32000, 32000, 32000)), mtime=0),
            "expected at most 536870912 voxels, got 32000 x 32000",
        ),
        (build_header((2, 3)) + bytes(6), "expected x, y, z and at most one axis"),
        (build_header((2, 3, 4, 1, 3)) + bytes(72), "expected x, y, z and at most one axis"),
        (build_header((2, 0, 4)) + bytes(24), "expected x, y, z and at most one axis"),
        (build_header((2, -3, 4)) + bytes(24), "expected x, y, z and at most one axis"),
        (build_header((2, 3, 4), 32, 64) + bytes(192), "expected voxels that are one number .* got complex64"),
        (build_header((2, 3, 4), 128, 24) + bytes(72), "expected voxels that are one number"),
        (build_header((2, 3, 4), 77) + bytes(24), "cannot be read"),
        (build_header((2, 3, 4), vox_offset=0) + bytes(24), "expected voxels from byte 352"),
        (build_header((2, 3, 4), vox_offset=1e9) + bytes(24), "expected voxels from byte 352"),
        (build_header((2, 3, 4), vox_offset=np.nan) + bytes(24), "cannot be read"),
        (build_header((2, 3, 4), vox_offset=np.inf) + bytes(24), "cannot be read"),
        (build_header((2, 3, 4), sform=[0] * 12) + bytes(24), "expected an affine that spans three axes"),
        (build_header((2, 3, 4), sform=[np.nan] * 12) + bytes(24), "expected an affine that spans three axes"),
        (build_header((2, 3, 4), slope=0.3) + bytes([1]) * 24, "expected whole numbers as labels, got 0.3"),
        (build_header((2, 3, 4), slope=1, inter=-2) + bytes(24), r"expected labels in 0\.\.65535, got -2"),
        (build_header((2, 3, 4), slope=1e6) + bytes([1]) * 24, r"expected labels in 0\.\.65535"),
    ],
)
def test_damaged_volumes_raise_a_dataset_error(nib, tmp_path, content, problem):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v.nii.gz").write_bytes(content)
    with pytest.raises(DatasetError, match=rf"v\.nii\.gz.*: .*{problem}"):
        DecathlonReader(tmp_path)  # finds the labels, so it reads the voxels
    message = get_error(lambda: read_all(DecathlonReader(tmp_path, labels=LABELS)))
    assert message is not None
    assert "v.nii.gz" in message


def test_a_truncated_gzip_and_a_wrong_checksum_raise_a_dataset_error(nib, tmp_path):
    rng = np.random.default_rng(0)
    add_volume(nib, tmp_path, label=np.zeros((9, 9, 9), np.uint8), image=rng.random((9, 9, 9)))
    path = tmp_path / "imagesTr/v.nii.gz"
    whole = path.read_bytes()
    for damaged in (whole[:-1000], whole[:-4], whole[:3000] + b"\0" * 9 + whole[3009:], whole[:-8] + bytes(8)):
        path.write_bytes(damaged)
        reader = DecathlonReader(tmp_path, labels=LABELS)
        with pytest.raises(DatasetError, match=r"imagesTr/v\.nii\.gz: the (file cannot be read|header speaks)"):
            reader.read_image(reader.images[0])
        reader.read_segmentation(reader.images[0])
    path.write_bytes(gzip.decompress(whole))  # as some browsers store it
    assert DecathlonReader(tmp_path, labels=LABELS).read_image(reader.images[0]).any()


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 375), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_changed_bytes_raise_only_dataset_errors(nib, tmp_path, changes, zipped):
    content = bytearray(build_header((2, 3, 4)) + bytes(range(24)))
    for offset, value in changes:
        content[offset] = value
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "v.nii.gz").write_bytes(gzip.compress(content) if zipped else content)
    message = get_error(lambda: read_all(DecathlonReader(tmp_path)))
    assert message is None or "v.nii.gz" in message


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 567), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_of_a_nifti_2_raise_only_dataset_errors(nib, tmp_path, changes):
    content = bytearray(nib.Nifti2Image(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), AFFINE).to_bytes())
    for offset, value in changes:
        content[offset] = value
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "v.nii").write_bytes(content)
    message = get_error(lambda: read_all(DecathlonReader(tmp_path)))
    assert message is None or "v.nii" in message


def test_sizes_above_64_bits_do_not_overflow(nib, tmp_path):
    header = nib.Nifti2Header()
    header["dim"] = [3, 2**32, 2**32, 2**32, 1, 1, 1, 1]  # the product is 2^96, 0 in 64 bits
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v.nii").write_bytes(header.binaryblock + bytes(4))
    with pytest.raises(DatasetError, match="expected at most 536870912 voxels, got 4294967296 x"):
        DecathlonReader(tmp_path)


def test_big_endian_volumes_are_read(nib, tmp_path):
    label = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        image = nib.Nifti1Image(label, AFFINE, nib.Nifti1Header(endianness=">"), dtype=np.int16)
        nib.save(image, tmp_path / folder / "v.nii")
    reader = DecathlonReader(tmp_path)
    maps = [reader.read_segmentation(image).segment_ids for image in reader.images]
    assert reader.read_image(reader.images[-1]).max() == 255
    write_prediction(tmp_path / "p.nii", maps, like=tmp_path / "imagesTr/v.nii")
    # Six labels a slice, numbered by label: by x, then y.
    np.testing.assert_array_equal(nib.load(tmp_path / "p.nii").dataobj, label // 4 + 1)


def test_limits_of_volumes_can_be_raised(tmp_path, monkeypatch):
    """The headers fit the files: 300 million voxels of zeros are 300 kB, and unpack to 300 MB."""
    monkeypatch.setenv("SEGKIT_MAX_VOXELS", "20")
    path = tmp_path / "v.nii"
    path.write_bytes(build_header((2, 3, 4)) + bytes(24))
    with pytest.raises(DatasetError, match="expected at most 20 voxels, got 2 x 3 x 4; crop it, or set SEGKIT_MAX_VOX"):
        read_header(path)
    monkeypatch.setenv("SEGKIT_MAX_VOXELS", "24")
    assert read_header(path).shape == (2, 3, 4)
    monkeypatch.delenv("SEGKIT_MAX_VOXELS")
    path = tmp_path / "v.nii.gz"
    path.write_bytes(gzip.compress(build_header((1000, 1000, 300))) + bytes(300_000))
    with pytest.raises(DatasetError, match=r"unpacked.*if you trust it, set SEGKIT_MAX_UNPACKED_BYTES=300000352"):
        read_header(path)
    monkeypatch.setenv("SEGKIT_MAX_UNPACKED_BYTES", "300000352")
    assert read_header(path).shape == (1000, 1000, 300)
