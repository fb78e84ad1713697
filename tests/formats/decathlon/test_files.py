"""Which volumes a Decathlon task has, in which split; issues are reported."""

import json
import os
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segkit.curation.issues import RULES
from segkit.formats.decathlon import DecathlonReader
from segkit.formats.decathlon import files as decathlon_files
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers.coco_samples import JUNK, spoil
from tests.helpers.decathlon_tree import (
    AFFINE,
    LABELS,
    add_volume,
    build_header,
    get_error,
    read_all,
    save,
    write_table,
)


@pytest.fixture
def nib():
    return pytest.importorskip("nibabel")


def test_splits_share_no_volume(nib, tmp_path):
    names = [f"v{number}" for number in range(10)]
    for name in names:
        add_volume(nib, tmp_path, name)

    def volumes(**options):
        reader = DecathlonReader(tmp_path, labels=LABELS, **options)
        assert {reader.locate_slice(image)[0].name for image in reader.images} == {v.name for v in reader.volumes}
        return [v.name for v in reader.volumes]

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


def test_a_label_must_have_the_size_and_grid_of_its_image(nib, tmp_path):
    image = np.zeros((2, 3, 4), np.float32)

    def check_error(problem, label, affine):
        save(nib, tmp_path / "imagesTr/v.nii.gz", image)
        save(nib, tmp_path / "labelsTr/v.nii.gz", label, affine)
        with pytest.raises(DatasetError, match=rf"labelsTr/v\.nii\.gz: {problem}"):
            DecathlonReader(tmp_path, labels=LABELS)

    label = image.astype(np.uint8)
    check_error(
        "expected a label of the size of its image, 2 x 3 x 4 x 1, got 2 x 4 x 3 x 1", label.swapaxes(1, 2), AFFINE
    )
    check_error(".* got 2 x 3 x 4 x 2", np.stack([label] * 2, -1), AFFINE)
    shifted = AFFINE.copy()
    shifted[0, 3] = 0.5  # half a voxel of 1 mm
    check_error(
        "expected a label on the grid .* puts a corner 0.5 voxels off; if .* label_affine=image", label, shifted
    )
    check_error("expected a label on the grid", label, AFFINE @ np.diag([-1, 1, 1, 1]))
    rounded_affine = AFFINE + np.full((4, 4), 1e-5) * [[1], [1], [1], [0]]  # rounding of the tool that wrote it
    save(nib, tmp_path / "labelsTr/v.nii.gz", label, rounded_affine)
    assert len(DecathlonReader(tmp_path, labels=LABELS).images) == 4


def test_labels_may_take_the_affine_of_their_image(nib, tmp_path):
    label = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 3
    flipped = AFFINE @ np.diag([-1, 1, 1, 1])
    add_volume(nib, tmp_path, label=label, affine=flipped)
    expected = [
        DecathlonReader(tmp_path, labels=LABELS).read_segmentation(image).segment_ids
        for image in DecathlonReader(tmp_path, labels=LABELS).images
    ]
    for affine, text in ((np.eye(4), "it is the identity"), (None, "it has no affine of its own")):
        save(nib, tmp_path / "labelsTr/v.nii.gz", label, affine)
        with pytest.raises(DatasetError, match=f"{text}.*label_affine=image takes the image's"):
            DecathlonReader(tmp_path, labels=LABELS)
        reader = DecathlonReader(tmp_path, labels=LABELS, label_affine="image")
        np.testing.assert_array_equal([reader.read_segmentation(i).segment_ids for i in reader.images], expected)
    with pytest.raises(ConfigError, match="expected `label_affine` to be own or image, got 'mine'"):
        DecathlonReader(tmp_path, label_affine="mine")


def test_missing_files_raise_a_dataset_error_and_hidden_files_are_skipped(nib, tmp_path):
    with pytest.raises(DatasetError, match=r"expected the folder of a task, found none"):
        DecathlonReader(tmp_path / ("x" * 5000))
    with pytest.raises(DatasetError, match=r"nowhere: expected the folder of a task, found none"):
        DecathlonReader(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="imagesTr: no such folder; expected imagesTr/<volume>"):
        DecathlonReader(tmp_path)
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "._v.nii.gz").write_bytes(b"Mac OS X")
    with pytest.raises(DatasetError, match=r"expected files that end in \.nii\.gz, found none"):
        DecathlonReader(tmp_path)
    add_volume(nib, tmp_path)
    (tmp_path / "imagesTr/loop.nii.gz").symlink_to("loop.nii.gz")
    assert [v.name for v in DecathlonReader(tmp_path, labels=LABELS).volumes] == ["v"]
    save(nib, tmp_path / "imagesTr/w.nii.gz", np.zeros((2, 3, 4), np.float32))
    with pytest.raises(DatasetError, match=r"labelsTr/w\.nii\.gz: the label is missing \(1 of 2 are\); complete"):
        DecathlonReader(tmp_path)
    (tmp_path / "imagesTr/w.nii.gz").rename(tmp_path / "labelsTr/u.nii.gz")
    with pytest.raises(DatasetError, match=r"imagesTr/u\.nii\.gz: the volume is missing \(1 of 2 are\)"):
        DecathlonReader(tmp_path)
    write_table(tmp_path, ["v"])
    reader = DecathlonReader(tmp_path)
    (tmp_path / "imagesTr/v.nii.gz").unlink()
    with pytest.raises(DatasetError, match="expected a NIfTI, found nothing"):
        reader.read_image(reader.images[0])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"training": [{"image": "../v.nii.gz", "label": "labelsTr/v.nii.gz"}]}, "to be a path inside its folder"),
        ({"training": [{"image": "/v.nii.gz", "label": "labelsTr/v.nii.gz"}]}, "to be a path inside its folder"),
        ({"training": [{"image": "imagesTr/v.png", "label": "labelsTr/v.nii.gz"}]}, "expected the path of a .nii.gz"),
        (
            {"training": [{"image": "imagesTr/w.nii.gz", "label": "labelsTr/v.nii.gz"}]},
            "is missing .1 of 1 are.; complete",
        ),
        (
            {"training": [{"image": "i" * 5000 + ".nii.gz", "label": "labelsTr/v.nii.gz"}]},
            r"i\.\.\.: the volume is",
        ),
        ({"training": [{"image": "imagesTr/v.nii.gz"}]}, "expected `label` to be a string, got none"),
        ({"training": [{"image": "imagesTr/v.nii.gz", "label": "labelsTr/v.nii.gz"}] * 2}, "got 'v' twice"),
        ({"training": "v"}, "expected `training` to be a list"),
        ({"training": []}, "the split 'all' has no slice"),
        ({"labels": None}, "expected `labels` to be {label: name}, got None"),
        ({"labels": {}}, "expected `labels` to be {label: name}"),
        ({"labels": {"a": "b"}}, "expected a different integer in 0..65535 and a name"),
        ({"labels": {"65536": "a"}}, "expected a different integer in 0..65535 and a name"),
        ({"labels": {"1": "a", "01": "b"}}, "expected a different integer in 0..65535 and a name"),
        ({"labels": {"1": None}}, "expected a different whole number for each name"),
        ({"labels": {"a": 5, "b": 5}}, "expected a different whole number for each name, got {'b': 5}"),
        ({"labels": {"a": 5, "": 6}}, "expected a different integer in 0..65535 and a name"),
        ({"labels": {"1": "\ud800"}}, "valid Unicode"),
    ],
)
def test_invalid_tables_raise_an_error(nib, tmp_path, changes, problem):
    add_volume(nib, tmp_path)
    write_table(tmp_path, ["v"], **changes)
    with pytest.raises(DatasetError, match=problem):
        DecathlonReader(tmp_path)


def test_two_files_of_equal_names_raise_a_dataset_error(nib, tmp_path):
    add_volume(nib, tmp_path)
    save(nib, tmp_path / "labelsTr/v.nii", np.zeros((2, 3, 4), np.uint8))
    problem = r"labelsTr/v\.nii\.gz: expected one file of a name, got v\.nii and v\.nii\.gz; remove one"
    with pytest.raises(DatasetError, match=problem):
        DecathlonReader(tmp_path)


def test_a_single_volume_is_for_training(nib, tmp_path):
    add_volume(nib, tmp_path, os.fsdecode(b"v\xff"))
    assert len(DecathlonReader(tmp_path, labels=LABELS, split="train").volumes) == 1
    with pytest.raises(DatasetError, match="the split 'val' has no slice"):
        DecathlonReader(tmp_path, labels=LABELS, split="val")


def test_tables_that_are_too_large_or_too_deep_raise_a_dataset_error(tmp_path, monkeypatch):
    (tmp_path / "dataset.json").write_text("[" * 100_000)
    with pytest.raises(DatasetError, match=r"dataset\.json: expected JSON"):
        DecathlonReader(tmp_path)
    monkeypatch.setattr(decathlon_files, "MAX_JSON_BYTES", 1000)
    with pytest.raises(DatasetError, match=r"dataset\.json: expected at most 1000 bytes, got 100000"):
        DecathlonReader(tmp_path)


def read_spoiled(root, seed, junk):
    """Returns, for two splits, whether a task with one junk value in its table is read; errors must name the task."""
    write_table(root, ["v"])
    table = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(spoil(table, Random(seed).randrange, junk)))
    messages = [get_error(lambda split=split: DecathlonReader(root, split=split)) for split in ("all", "test")]
    assert all(message is None or str(root) in message for message in messages)
    return [message is None for message in messages]


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.sampled_from(JUNK))
def test_junk_in_the_table_raises_only_dataset_errors(nib, tmp_path, seed, junk):
    if not (tmp_path / "imagesTr").exists():
        add_volume(nib, tmp_path)
    read_spoiled(tmp_path, seed, junk)


def test_some_spoiled_tables_are_read(nib, tmp_path):
    add_volume(nib, tmp_path)
    accepted = [read for seed in range(10) for junk in JUNK for read in read_spoiled(tmp_path, seed, junk)]
    assert 0.1 < sum(accepted) / len(accepted) < 0.5


def write_invalid_tree(nib, root):
    """Two valid volumes, and one volume for each issue of a tree without dataset.json."""
    zeros = np.zeros((2, 3, 4), np.uint8)
    valid = zeros.copy()
    valid[0] = 1
    for name in ("a", "far", "half", "odd", "size", "torn", "z"):
        add_volume(nib, root, name, label=valid)
    save(nib, root / "imagesTr/bare.nii.gz", zeros)
    save(nib, root / "labelsTr/lone.nii.gz", zeros)
    save(nib, root / "labelsTr/a.nii.gz", zeros + 1)
    save(nib, root / "imagesTr/z.nii", zeros)  # comes first: the .nii.gz is reported
    save(nib, root / "labelsTr/size.nii.gz", zeros[:1])
    save(nib, root / "labelsTr/far.nii.gz", valid, AFFINE @ np.diag([-1, 1, 1, 1]))
    save(nib, root / "labelsTr/half.nii.gz", valid / 2)
    (root / "imagesTr/torn.nii.gz").write_bytes(b"torn")
    (root / "labelsTr/odd.nii.gz").write_bytes(build_header((2, 3, 4)) + bytes(9))


def read_with_issues(root, **options):
    """Returns the reader, and (code, file) of the issues, which a second run must report again."""
    runs = []
    for _ in range(2):
        issues = []
        reader = DecathlonReader(
            root, on_issue=lambda code, error, issues=issues: issues.append((code, error)), **options
        )
        runs.append([(code, Path(error.where).name) for code, error in issues])
    assert runs[0] == runs[1]
    assert {code for code, _ in runs[0]} <= {*RULES}
    return reader, runs[0]


def test_all_issues_are_reported_and_the_valid_volumes_stay(nib, tmp_path):
    write_invalid_tree(nib, tmp_path)
    issues_of_files = [
        ("image-id-twice", "z.nii.gz"),
        ("image-missing", "lone.nii.gz"),
        ("png-missing", "bare.nii.gz"),
        ("annotation-unreadable", "half.nii.gz, 12 voxels"),  # labels are read if they are listed or counted
        ("annotation-unreadable", "odd.nii.gz"),
    ]
    issues_of_headers = [
        ("affine-differs", "far.nii.gz"),
        ("size-differs", "size.nii.gz"),
        ("image-unreadable", "torn.nii.gz"),
    ]
    reader, issues = read_with_issues(tmp_path)
    assert issues == issues_of_files + issues_of_headers
    assert [volume.name for volume in reader.volumes] == ["a", "z"]
    assert [(c.category_id, c.name) for c in reader.categories.categories] == [(0, "background"), (1, "label 1")]
    read_all(reader)
    with pytest.raises(DatasetError, match=r"labelsTr/|imagesTr/"):
        DecathlonReader(tmp_path)

    reader_with_labels, issues = read_with_issues(tmp_path, labels=LABELS, keep_empty=False)
    assert issues == [
        *issues_of_files[:3],
        issues_of_headers[0],
        *issues_of_files[3:],
        *issues_of_headers[1:],
    ]  # by volume
    assert [volume.name for volume in reader_with_labels.volumes] == ["a", "z"]
    read_all(reader_with_labels)

    all_slices, issues = read_with_issues(tmp_path, labels=LABELS)  # the header of half is valid
    assert issues == [*issues_of_files[:3], issues_of_headers[0], issues_of_files[4], *issues_of_headers[1:]]
    assert [volume.name for volume in all_slices.volumes] == ["a", "half", "z"]


def test_labels_without_name_are_reported_if_empty_slices_are_left_out(nib, tmp_path):
    add_volume(nib, tmp_path, "a", label=np.full((2, 3, 4), 1, np.uint8))
    add_volume(nib, tmp_path, "b", label=np.full((2, 3, 4), 7, np.uint8))
    reader, issues = read_with_issues(tmp_path, labels=LABELS, keep_empty=False)
    assert issues == [("annotation-unreadable", "b.nii.gz")]
    assert [volume.name for volume in reader.volumes] == ["a"]


def test_issues_of_a_split_and_of_its_held_out_volumes(nib, tmp_path):
    """A reported held-out volume is not an unknown name. A split is empty if all its volumes are reported."""
    add_volume(nib, tmp_path, "a")
    add_volume(nib, tmp_path, "b")
    (tmp_path / "labelsTr/b.nii.gz").unlink()
    reader, issues = read_with_issues(tmp_path, labels=LABELS, split="train", held_out=["b"])
    assert ([v.name for v in reader.volumes], issues) == (["a"], [("png-missing", "b.nii.gz")])
    reader, issues = read_with_issues(tmp_path, labels=LABELS, split="val", held_out=["b"])
    assert (reader.images, reader.volumes, issues) == ((), (), [("png-missing", "b.nii.gz")])


@pytest.mark.parametrize("split", ["all", "test"])
def test_all_issues_of_a_table_are_reported(nib, tmp_path, split):
    add_volume(nib, tmp_path, "a")
    save(nib, tmp_path / "imagesTs/a.nii.gz", np.zeros((2, 3, 4), np.uint8))
    folder = "imagesTr" if split == "all" else "imagesTs"
    images = ["../b.nii.gz", 7, f"{folder}/b.png", f"{folder}/b.nii.gz", f"{folder}/a.nii.gz", f"./{folder}/a.nii.gz"]
    entries = [{"image": image, "label": "labelsTr/a.nii.gz"} for image in images]
    entries.append({"label": "labelsTr/a.nii.gz"})
    write_table(tmp_path, [], training=entries, test=entries)
    reader, issues = read_with_issues(tmp_path, split=split)
    assert issues == [
        ("name-outside", f"dataset.json, {'training' if split == 'all' else 'test'}"),
        *[(code, issues[0][1]) for code in ("type-wrong", "type-wrong")],
        ("image-id-twice", "dataset.json"),
        ("key-missing", issues[0][1]),
        ("image-missing", "b.nii.gz"),
    ]
    assert [volume.name for volume in reader.volumes] == ["a"]
    read_all(reader)


def test_all_issues_of_the_table_are_reported(nib, tmp_path):
    """An entry that is no object hides neither the next issue nor the valid volumes."""
    for name in "ab":
        add_volume(nib, tmp_path, name)
    valid = [{"image": f"imagesTr/{n}.nii.gz", "label": f"labelsTr/{n}.nii.gz"} for n in "ab"]
    write_table(tmp_path, [], training=[valid[0], 3, "imagesTr/c.nii.gz", {"image": 3}, valid[1]], test=[3])
    issues = []
    reader = DecathlonReader(tmp_path, on_issue=lambda code, error: issues.append((code, Path(error.where).name)))
    assert issues == [
        ("type-wrong", "dataset.json, training, index 1"),
        ("type-wrong", "dataset.json, training, index 2"),
        ("type-wrong", "dataset.json, training"),
        ("key-missing", "dataset.json, training"),
    ]
    assert [volume.name for volume in reader.volumes] == ["a", "b"]
    with pytest.raises(DatasetError, match="training, index 1: expected an object, got 3"):
        DecathlonReader(tmp_path)


def test_volumes_that_the_table_does_not_list_are_counted(nib, tmp_path):
    for name in ("a", "b", "c", "._c"):
        add_volume(nib, tmp_path, name)
    write_table(tmp_path, ["a"])
    reader = DecathlonReader(tmp_path)
    assert [volume.name for volume in reader.volumes] == ["a"]
    assert reader.skipped == tuple(
        f"{tmp_path}/{folder}: 2 volumes are not listed: 'b.nii.gz', 'c.nii.gz'" for folder in ("imagesTr", "labelsTr")
    )
    (tmp_path / "dataset.json").unlink()
    assert DecathlonReader(tmp_path, labels=LABELS).skipped == ()


@pytest.mark.parametrize(("unit", "millimetres"), [("mm", 1), ("unknown", 1), ("meter", 1000), ("micron", 0.001)])
def test_the_spacing_is_in_mm_along_right_front_and_head(nib, tmp_path, unit, millimetres):
    # The stored axes run to the front, to the left and up: by 2, 3 and 4 units.
    affine = np.array([[0, -3, 0, 0], [2, 0, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1.0]])
    for kind in ("imagesTr", "labelsTr"):
        image = nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), affine)
        image.header.set_xyzt_units(unit)
        (tmp_path / kind).mkdir()
        nib.save(image, tmp_path / kind / "v.nii.gz")
    (volume,) = DecathlonReader(tmp_path, labels=LABELS).volumes
    assert volume.size_xyz == (3, 2, 4)
    assert volume.spacing_mm == pytest.approx((3 * millimetres, 2 * millimetres, 4 * millimetres))


def test_the_tolerance_is_that_of_the_task(nib, tmp_path):
    for folder, tolerance in (
        ("Task03_Liver", 7),
        ("Dataset004_Hippocampus", 1),
        ("Task004_Hippocampus", 1),
        ("Task11_Kidney", None),
        ("Liver", None),
    ):
        add_volume(nib, tmp_path / folder)
        reader = DecathlonReader(tmp_path / folder, labels=LABELS)
        assert (reader.tolerance_mm, reader.metrics) == (tolerance, ("volume_dice",))
    assert DecathlonReader(tmp_path / "Liver", labels=LABELS, tolerance_mm=2).tolerance_mm == 2
    for value in (-1, "2", float("nan"), True):
        with pytest.raises(ConfigError, match="expected `tolerance_mm` to be millimetres, 0 or more, got"):
            DecathlonReader(tmp_path / "Liver", labels=LABELS, tolerance_mm=value)
