"""nnU-Net's raw datasets, through the readers `nnunet` and `decathlon`."""

import json

import numpy as np
import pytest

from segkit.formats.decathlon import DecathlonReader, NnunetReader
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers.decathlon_tree import AFFINE, save

LABELS = {"background": 0, "a": 1, "b": 2}


@pytest.fixture
def nib():
    return pytest.importorskip("nibabel")


def add_case(nib, root, name, channels=2, folder="imagesTr", ending=".nii.gz"):
    """Channels of one value each, which grows with the voxel's index."""
    for channel in range(channels):
        image = np.arange(24, dtype=np.float32).reshape(2, 3, 4) * (1 + 99 * channel)
        save(nib, root / f"{folder}/{name}_{channel:04d}{ending}", image)
    if folder == "imagesTr":
        label = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 3
        save(nib, root / f"labelsTr/{name}{ending}", label)


def write_table(root, channels=2, **changes):
    names = {str(channel): f"MR {channel}" for channel in range(channels)}
    table = {"channel_names": names, "labels": LABELS, "numTraining": 2, "file_ending": ".nii.gz", **changes}
    (root / "dataset.json").write_text(json.dumps(table))


@pytest.fixture
def tree(nib, tmp_path):
    for name in ("liver_0001", "liver_2"):  # a case may end in a number as a channel does
        add_case(nib, tmp_path, name)
    add_case(nib, tmp_path, "unseen", folder="imagesTs")
    write_table(tmp_path)
    return tmp_path


@pytest.mark.parametrize("reader_class", [NnunetReader, DecathlonReader])
@pytest.mark.parametrize("has_table", [True, False])
def test_channels_are_modalities_of_one_volume(tree, reader_class, has_table):
    if not has_table:
        (tree / "dataset.json").unlink()
    reader = reader_class(tree)
    assert [(v.name, v.modalities, v.label_path.name) for v in reader.volumes] == [
        ("liver_0001", 2, "liver_0001.nii.gz"),
        ("liver_2", 2, "liver_2.nii.gz"),
    ]
    assert [path.name for path in reader.volumes[1].image_paths] == ["liver_2_0000.nii.gz", "liver_2_0001.nii.gz"]
    names = ["background", "a", "b"] if has_table else ["background", "label 1", "label 2"]
    assert [(c.category_id, c.name) for c in reader.categories.categories] == [*enumerate(names)]
    assert reader.skipped == ()
    pixels = reader.read_image(reader.images[0])
    # Both channels rise alike, and each has its own scale; the second is also the third colour.
    assert pixels[..., 0].max() > 0
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 1])
    np.testing.assert_array_equal(pixels[..., 1], pixels[..., 2])
    labels = {s.category_id for image in reader.images for s in reader.read_segmentation(image).segments}
    assert labels == {0, 1, 2}
    tests = reader_class(tree, split="test", labels={1: "a", 2: "b"})
    assert [(v.name, v.modalities, v.label_path) for v in tests.volumes] == [("unseen", 2, None)]
    assert tests.read_image(tests.images[0]).shape == (3, 2, 3)


def test_the_chosen_modality_is_read_from_its_own_file(nib, tree):
    save(nib, tree / "imagesTr/liver_2_0001.nii.gz", np.zeros((2, 3, 4), np.float32))
    by_modality = [NnunetReader(tree, held_out=["liver_2"], split="val", modalities=[m]) for m in (0, 1)]
    assert [bool(reader.read_image(reader.images[-1]).any()) for reader in by_modality] == [True, False]
    reader = NnunetReader(tree, modalities=[2])
    with pytest.raises(ConfigError, match="expected modalities below 2, the number of the volume, got 2"):
        reader.read_image(reader.images[0])


def test_names_of_version_1_have_channel_numbers_in_files_only(tree):
    entries = [
        {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in ("liver_0001", "liver_2")
    ]
    table = {"modality": {"0": "T1", "1": "T2"}, "labels": {"0": "background", "1": "a", "2": "b"}, "training": entries}
    (tree / "dataset.json").write_text(json.dumps(table))
    reader = DecathlonReader(tree)
    assert [(v.name, v.modalities) for v in reader.volumes] == [("liver_0001", 2), ("liver_2", 2)]
    assert [c.name for c in reader.categories.categories] == ["background", "a", "b"]


def test_names_of_the_decathlon_may_end_in_four_digits(nib, tmp_path):
    for name in ("case_0000", "case_0001"):
        for folder in ("imagesTr", "labelsTr"):
            save(nib, tmp_path / f"{folder}/{name}.nii.gz", np.ones((2, 3, 4), np.uint8))
    reader = DecathlonReader(tmp_path)
    assert [(v.name, v.modalities) for v in reader.volumes] == [("case_0000", 1), ("case_0001", 1)]


def test_another_number_of_cases_is_noted_and_all_channels_are_read(nib, tree):
    add_case(nib, tree, "liver_2", channels=5)
    (tree / "imagesTr/liver_0001_0000.nii.gz").unlink()
    (tree / "imagesTr/liver_0001_0001.nii.gz").unlink()
    (tree / "labelsTr/liver_0001.nii.gz").unlink()
    write_table(tree, channels=5)
    reader = NnunetReader(tree)
    (line,) = reader.skipped
    assert "numTraining is 2, and there are 1 training volumes" in line
    assert reader.read_channels(reader.images[0]).shape[2] == reader.channels == 5


def test_the_label_ignore_is_void(tree):
    write_table(tree, labels={"background": 0, "a": 1, "ignore": 2})
    reader = NnunetReader(tree)
    assert [c.name for c in reader.categories.categories] == ["background", "a"]
    segmentation = reader.read_segmentation(reader.images[0])
    named = NnunetReader(tree, labels={1: "a", 2: "ignore"})
    whole = named.read_segmentation(named.images[0])
    np.testing.assert_array_equal(segmentation.segment_ids == 0, whole.segment_ids == 3)
    assert (segmentation.segment_ids == 0).any()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"labels": {"background": 0, "whole": [1, 2]}}, "'whole' is a region of several; name the labels .* --set"),
        ({"file_ending": ".mha"}, "expected `file_ending` to be .nii.gz or .nii, got '.mha'; convert the files"),
        ({"file_ending": ".png"}, "2-D images are read as `semantic-maps`"),
        ({"file_ending": 7}, "expected `file_ending` to be .nii.gz or .nii, got 7"),
        ({"labels": {"a": True}}, "expected a different whole number for each name"),
        ({"labels": None}, "expected `labels` to be"),
    ],
)
def test_tables_that_cannot_be_read_raise_a_dataset_error(tree, changes, problem):
    write_table(tree, **changes)
    with pytest.raises(DatasetError, match=f"dataset.json: .*{problem}"):
        NnunetReader(tree)


def test_a_region_of_one_label_is_that_label(tree):
    write_table(tree, labels={"background": 0, "a": [1], "b": 2})
    assert [c.name for c in NnunetReader(tree).categories.categories] == ["background", "a", "b"]


def test_channels_without_file_or_on_another_grid_are_reported(nib, tree):
    add_case(nib, tree, "short")
    add_case(nib, tree, "far")
    add_case(nib, tree, "gone")
    save(nib, tree / "imagesTr/short_0001.nii.gz", np.zeros((2, 3, 5), np.float32))
    save(nib, tree / "imagesTr/far_0001.nii.gz", np.zeros((2, 3, 4), np.float32), AFFINE @ np.diag([-1, 1, 1, 1]))
    (tree / "imagesTr/gone_0001.nii.gz").unlink()
    issues = []
    reader = NnunetReader(tree, on_issue=lambda code, error: issues.append((code, str(error.where).rsplit("/")[-1])))
    assert sorted(issues) == [
        ("affine-differs", "far_0001.nii.gz"),
        ("image-missing", "gone_0001.nii.gz"),
        ("size-differs", "short_0001.nii.gz"),
    ]
    assert [v.name for v in reader.volumes] == ["liver_0001", "liver_2"]


def test_a_file_without_channel_number_is_reported(nib, tree):
    save(nib, tree / "imagesTr/extra.nii.gz", np.zeros((2, 3, 4), np.float32))
    with pytest.raises(DatasetError, match=r"extra\.nii\.gz: expected names of files with the number of their channel"):
        NnunetReader(tree)
