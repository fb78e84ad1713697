"""Slices of tiny Decathlon volumes."""

import numpy as np
import pytest

from segkit.formats.decathlon import DecathlonReader, write_prediction
from segkit.formats.decathlon import reader as decathlon
from segkit.formats.decathlon.nifti import read_voxels
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers.decathlon_tree import AFFINE, LABELS, add_volume, save, write_table


@pytest.fixture
def nib():
    return pytest.importorskip("nibabel")


def test_slices_are_read(nib, tmp_path):
    # x to the right (2 voxels), y to the front (3), z to the head (1). label[x, y]: column 0 is x = 0, the top row is
    # the last y. Axial slice 0: rows y = 2, 1, 0.
    label = np.array([[0, 1, 2], [0, 1, 1]], dtype=np.uint8)[..., None]
    image = np.array([[0, 10, 20], [30, 40, 50]], dtype=np.int16)[..., None]
    add_volume(nib, tmp_path, image=image, label=label)
    write_table(tmp_path, ["v"])
    reader = DecathlonReader(tmp_path, percentiles=(0, 100))
    (slice_0,) = reader.images
    assert (slice_0.image_id, slice_0.file_name, slice_0.size_hw) == ("v_000", "v_000.png", (3, 2))
    segmentation = reader.read_segmentation(slice_0)
    # Segments by label: 1 = background, 2 = anterior, 3 = posterior.
    np.testing.assert_array_equal(segmentation.segment_ids, [[3, 2], [2, 2], [1, 1]])
    assert segmentation.segment_ids.dtype == np.int32
    assert [(s.segment_id, s.category_id, s.isthing, s.area_px) for s in segmentation.segments] == [
        (1, 0, False, 2),
        (2, 1, False, 3),
        (3, 2, False, 1),
    ]
    # 0..50 to 0..255: times 5.1.
    pixels = reader.read_image(slice_0)
    assert pixels.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(pixels[..., channel], [[102, 255], [51, 204], [0, 153]])
    assert [c.name for c in reader.categories.categories] == ["background", "anterior", "posterior"]
    assert reader.categories.things == ()
    assert reader.read_annotations(slice_0) == []
    volume, index = reader.locate_slice(slice_0)
    assert (volume.name, volume.size_xyz, volume.modalities, index) == ("v", (2, 3, 1), 1, 0)


@pytest.mark.parametrize(("axis", "count", "size_hw"), [(0, 2, (4, 3)), (1, 3, (4, 2)), (2, 4, (3, 2))])
def test_slices_along_each_axis(nib, tmp_path, axis, count, size_hw):
    label = np.zeros((2, 3, 4), dtype=np.uint8)
    label[1, 2, 3] = 1  # right, front, head
    add_volume(nib, tmp_path, label=label)
    reader = DecathlonReader(tmp_path, labels=LABELS, axis=axis)
    assert [image.size_hw for image in reader.images] == [size_hw] * count
    last = reader.read_segmentation(reader.images[-1]).segment_ids
    assert np.argwhere(last == 2).tolist() == [[0, size_hw[1] - 1]]  # top right


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRA", "ILA", "PIR"])
def test_slices_do_not_depend_on_the_stored_orientation(nib, tmp_path, codes):
    label = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 3
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    affine = AFFINE @ nib.orientations.inv_ornt_aff(turn, label.shape)
    add_volume(nib, tmp_path / "a", image=image, label=label)
    turned = [nib.orientations.apply_orientation(voxels, turn) for voxels in (image, label)]
    add_volume(nib, tmp_path / "b", image=turned[0], label=turned[1], affine=affine)
    first, second = (DecathlonReader(tmp_path / name, labels=LABELS) for name in "ab")
    assert first.images == second.images
    for slice_ in first.images:
        np.testing.assert_array_equal(first.read_image(slice_), second.read_image(slice_))
        np.testing.assert_array_equal(
            first.read_segmentation(slice_).segment_ids, second.read_segmentation(slice_).segment_ids
        )
    maps = [
        second.read_segmentation(slice_).segment_ids - 1 for slice_ in second.images
    ]  # all three labels in each slice
    write_prediction(tmp_path / "out.nii", maps, like=tmp_path / "b/imagesTr/v.nii.gz")
    np.testing.assert_array_equal(nib.load(tmp_path / "out.nii").dataobj, turned[1])


def test_things_are_connected_pieces(nib, tmp_path):
    label = np.array([[1, 0, 1, 2], [0, 1, 0, 0], [0, 0, 0, 1], [2, 0, 2, 0]], dtype=np.uint8)[..., None]
    add_volume(nib, tmp_path, label=label)
    write_table(tmp_path, ["v"])
    reader = DecathlonReader(tmp_path, things=["anterior"])
    assert [c.name for c in reader.categories.things] == ["anterior"]
    # Seen from above, rows y = 3..0, columns x = 0..3; 8 neighbours join the corner.
    expected = [[4, 1, 2, 1], [3, 1, 1, 4], [1, 3, 1, 1], [3, 1, 1, 4]]
    segmentation = reader.read_segmentation(reader.images[0])
    np.testing.assert_array_equal(segmentation.segment_ids, expected)
    assert [(s.category_id, s.isthing, s.area_px) for s in segmentation.segments] == [
        (0, False, 9),
        (1, True, 1),
        (1, True, 3),
        (2, False, 3),
    ]
    assert [a["area"] for a in reader.read_annotations(reader.images[0])] == [1, 3]


def test_labels_are_counted_given_or_read_from_the_table(nib, tmp_path):
    add_volume(nib, tmp_path, "a", label=np.full((2, 2, 1), 7, np.uint8))
    add_volume(nib, tmp_path, "b", label=np.array([[[0], [300]]], np.int16))
    for split in ("all", "train", "val"):  # the categories of a split are those of the task
        categories = DecathlonReader(tmp_path, split=split).categories
        assert [(c.category_id, c.name) for c in categories.categories] == [
            (0, "background"),
            (7, "label 7"),
            (300, "label 300"),
        ]
    given_categories = DecathlonReader(tmp_path, labels={"7": "x", 300: "y"}).categories
    assert [(c.category_id, c.name) for c in given_categories.categories] == [(0, "background"), (7, "x"), (300, "y")]
    write_table(tmp_path, ["a"])
    assert [v.name for v in DecathlonReader(tmp_path).volumes] == ["a"]  # dataset.json decides
    reader = DecathlonReader(tmp_path)
    problem = r"a\.nii\.gz: expected labels among 0, 1, 2, got 7 too"
    with pytest.raises(DatasetError, match=problem):
        reader.read_segmentation(reader.images[0])
    with pytest.raises(DatasetError, match=problem):
        DecathlonReader(tmp_path, keep_empty=False)


def test_empty_slices_can_be_left_out(nib, tmp_path):
    label = np.zeros((2, 3, 4), dtype=np.uint8)
    label[0, 0, 2] = 1
    add_volume(nib, tmp_path, label=label)
    assert len(DecathlonReader(tmp_path, labels=LABELS).images) == 4
    assert [i.image_id for i in DecathlonReader(tmp_path, labels=LABELS, keep_empty=False).images] == ["v_002"]
    add_volume(nib, tmp_path, label=label * 0)
    with pytest.raises(DatasetError, match="the split 'all' has no slice"):
        DecathlonReader(tmp_path, labels=LABELS, keep_empty=False)


@pytest.mark.parametrize("entry", [None, "./imagesTs/t.nii.gz", {"image": "imagesTs/t.nii.gz"}])
def test_volumes_without_labels_are_void(nib, tmp_path, entry):
    save(nib, tmp_path / "imagesTs/t.nii.gz", np.arange(6, dtype=np.float32).reshape(1, 2, 3))
    if entry:
        write_table(tmp_path, [], test=[entry])
    reader = DecathlonReader(tmp_path, split="test", labels=None if entry else LABELS, keep_empty=False)
    assert [image.image_id for image in reader.images] == ["t_000", "t_001", "t_002"]
    assert reader.read_segmentation(reader.images[0]).segments == ()
    assert not reader.read_segmentation(reader.images[0]).segment_ids.any()
    assert reader.read_image(reader.images[2]).max() == 255


def test_modalities_become_colour_channels(nib, tmp_path):
    image = np.zeros((1, 2, 1, 4), dtype=np.float32)
    image[0, 1, 0] = [1, 20, 300, 4000]  # every modality has its own range
    image[0, 0, 0] = [0, 10, 300, 2000]  # the third is constant
    add_volume(nib, tmp_path, image=image, label=np.zeros((1, 2, 1), np.uint8))

    def read_top_pixel(**options):
        reader = DecathlonReader(tmp_path, labels=LABELS, percentiles=(0, 100), **options)
        assert reader.volumes[0].modalities == 4
        return reader.read_image(reader.images[0])[0, 0].tolist()

    assert read_top_pixel() == [255, 255, 0]
    assert read_top_pixel(modalities=[2]) == [0, 0, 0]
    assert read_top_pixel(modalities=[3, 2]) == [255, 0, 0]
    assert read_top_pixel(modalities=(2, 0, 3)) == [0, 255, 255]
    for options, expected in (({}, [255, 255, 0, 255]), ({"modalities": [3, 2, 0, 0, 1]}, [255, 0, 255, 255, 255])):
        reader = DecathlonReader(tmp_path, labels=LABELS, percentiles=(0, 100), **options)
        assert reader.channels == len(expected)
        assert reader.read_channels(reader.images[0])[0, 0].tolist() == expected
    with pytest.raises(ConfigError, match=r"v\.nii\.gz: expected modalities below 4, the number of the volume, got 4"):
        read_top_pixel(modalities=[4])


def test_volumes_of_another_number_of_modalities_are_refused_when_all_channels_are_read(nib, tmp_path):
    for name, modalities in (("a", 2), ("b", 4)):
        image = np.arange(2 * 3 * modalities, dtype=np.float32).reshape(2, 3, 1, modalities)
        add_volume(nib, tmp_path, name, image=image, label=np.zeros((2, 3, 1), np.uint8))
    reader = DecathlonReader(tmp_path, labels=LABELS)
    assert reader.channels == 4
    assert reader.read_image(reader.images[0]).shape == (3, 2, 3)
    problem = r"a\.nii\.gz: expected 4 modalities, as other volumes have, got 2; choose those .* by `modalities`"
    with pytest.raises(DatasetError, match=problem):
        reader.read_channels(reader.images[0])


def test_percentiles_are_computed_over_the_whole_volume(nib, tmp_path):
    image = np.arange(200, dtype=np.float32).reshape(2, 10, 10)
    add_volume(nib, tmp_path, image=image, label=np.zeros(image.shape, np.uint8))
    reader = DecathlonReader(tmp_path, labels=LABELS, percentiles=(10, 90))
    low, high = np.percentile(image, (10, 90))
    expected = np.rint(255 * (np.clip(image, low, high) - low) / (high - low))
    for slice_ in reader.images:
        pixels_read = reader.read_image(slice_)[..., 0]
        np.testing.assert_array_equal(pixels_read, np.rot90(expected[..., reader.locate_slice(slice_)[1]]))


def test_a_volume_is_read_once(nib, tmp_path, monkeypatch):
    for name in "abc":
        add_volume(nib, tmp_path, name)
    reader = DecathlonReader(tmp_path, labels=LABELS)
    reads = []
    read = decathlon.read_voxels
    monkeypatch.setattr(decathlon, "read_voxels", lambda path, *axes: reads.append(path) or read(path, *axes))
    for limit, expected in ((decathlon.CACHE_BYTES, 6), (0, 6)):  # slices in order: one volume is enough
        monkeypatch.setattr(decathlon, "CACHE_BYTES", limit)
        reader._cached.clear()
        reads.clear()
        for slice_ in reader.images:
            reader.read_image(slice_)
            reader.read_segmentation(slice_)
        assert len(reads) == expected
    assert len(reader._cached) == 2


def test_a_file_may_be_both_image_and_label(nib, tmp_path):
    add_volume(nib, tmp_path, label=np.ones((2, 3, 1), np.uint8))
    table_entry = {"image": "labelsTr/v.nii.gz", "label": "labelsTr/v.nii.gz"}
    write_table(tmp_path, [], training=[table_entry])
    reader = DecathlonReader(tmp_path)
    (slice_,) = reader.images
    assert (
        reader.locate_slice(slice_)[0].image_path
        == reader.locate_slice(slice_)[0].label_path
        == tmp_path / table_entry["label"]
    )
    # Two columns of three voxels, all of label 1, and of one intensity.
    assert not reader.read_image(slice_).any()
    assert [(s.category_id, s.area_px) for s in reader.read_segmentation(slice_).segments] == [(1, 6)]


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
        ({"modalities": [-1]}, "expected `modalities` to be a list of numbers from 0"),
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
def test_invalid_options_raise_a_config_error(tmp_path, options, problem):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v.nii.gz").write_bytes(b"")
    with pytest.raises(ConfigError, match=problem):
        DecathlonReader(tmp_path, **{"labels": LABELS, **options})


def test_a_damaged_volume_is_read_once(nib, tmp_path, monkeypatch):
    """Each slice of it raises the same error. The other volume can be read."""
    for name in ("intact", "torn"):
        add_volume(nib, tmp_path, name)
    reader = DecathlonReader(tmp_path, labels=LABELS)
    for folder in ("imagesTr", "labelsTr"):
        path = tmp_path / folder / "torn.nii.gz"
        path.write_bytes(path.read_bytes()[:-9])
    reads = []

    def read(path, *axes):
        reads.append(path.name)
        return read_voxels(path, *axes)

    monkeypatch.setattr(decathlon, "read_voxels", read)
    slices = [image for image in reader.images if reader.locate_slice(image)[0].name == "torn"]
    assert len(slices) == 4
    for read_slice in (reader.read_image, reader.read_segmentation):
        messages = set()
        for image in slices:
            with pytest.raises(DatasetError) as raised:
                read_slice(image)
            messages.add((str(raised.value), raised.value.where, raised.value.problem))
        assert len(messages) == 1
        assert "torn.nii.gz" in messages.pop()[0]
    assert reads == ["torn.nii.gz"] * 2
    for image in reader.images[:4]:
        assert reader.read_image(image).shape == (*reader.read_segmentation(image).segment_ids.shape, 3)


@pytest.mark.parametrize("keep_empty", [3, 1, None, "yes"])
def test_keep_empty_is_true_or_false(tmp_path, keep_empty):
    with pytest.raises(ConfigError, match="expected `keep_empty` to be true or false, got"):
        DecathlonReader(tmp_path, keep_empty=keep_empty)
