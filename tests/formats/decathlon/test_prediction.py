"""Labels of slices are written as a volume on the grid of the image and read back."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segkit.formats.decathlon import DecathlonReader, write_prediction
from tests.helpers.coco_samples import files_below
from tests.helpers.decathlon_tree import AFFINE, save


@pytest.fixture
def nib():
    return pytest.importorskip("nibabel")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=hnp.arrays(np.int32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=4), elements=st.integers(0, 65535)),
    axis=st.integers(0, 2),
    flips=st.tuples(*[st.sampled_from([1.0, -1.0])] * 3),
    order=st.permutations(range(3)),
    kind=st.sampled_from(["Nifti1Image", "Nifti2Image"]),
)
def test_written_predictions_are_read_back(nib, tmp_path, labels, axis, flips, order, kind):
    rotation = np.zeros((4, 4))
    rotation[[*order], range(3)] = np.array(flips) * 1.5
    rotation[:, 3] = 4, -5, 6, 1
    for folder, dtype in (("imagesTr", np.float32), ("labelsTr", np.uint16)):
        save(nib, tmp_path / folder / "v.nii", labels.astype(dtype), rotation, kind)
    reader = DecathlonReader(tmp_path, axis=axis)
    slices = [
        reader._get_labels(reader.volumes[0].label_path, reader.volumes[0].image_path)[reader.locate_slice(image)[1]]
        for image in reader.images
    ]
    for name in ("p.nii.gz", "p.nii"):
        write_prediction(tmp_path / "out" / name, slices, like=tmp_path / "imagesTr/v.nii", axis=axis)
        back = nib.load(tmp_path / "out" / name)
        np.testing.assert_array_equal(back.dataobj, labels)
        np.testing.assert_array_equal(back.affine, rotation)
        assert type(back).__name__ == kind
        assert back.get_data_dtype() == (np.uint8 if labels.max() < 256 else np.uint16)
    for image, seen in zip(reader.images, slices, strict=True):
        segmentation = reader.read_segmentation(image)
        assert seen.shape == image.size_hw
        for segment in segmentation.segments:
            mask = segmentation.segment_ids == segment.segment_id
            assert (seen[mask] == segment.category_id).all()
            assert np.count_nonzero(mask) == segment.area_px > 0


def test_the_header_of_the_image_is_kept(nib, tmp_path):
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
def test_invalid_predictions_raise_an_error(nib, tmp_path, slices, name, problem):
    save(nib, tmp_path / "image.nii.gz", np.zeros((2, 3, 4), np.float32))
    with pytest.raises(ValueError, match=problem):
        write_prediction(tmp_path / "out" / name, slices, like=tmp_path / "image.nii.gz")
    assert files_below(tmp_path) == {"image.nii.gz"}
