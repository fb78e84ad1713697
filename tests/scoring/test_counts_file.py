"""Files of counts: they are read back, joined in any order, and other files are rejected."""

import contextlib
import json
import os
import re
import zipfile

import numpy as np
import pytest

from segkit.metrics import PanopticQuality, SemanticIoU
from segkit.scoring import counts_file
from segkit.scoring.counts_file import HEADER, SavedCounts, fingerprint, load, merge, save
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from segkit.utils.process_pool import Shard

CAR, SKY = 1, 90
CATEGORIES = CategorySet([Category(CAR, "car", True, (0, 0, 0)), Category(SKY, "sky", False, (0, 0, 1))])
IMAGES = (7, "b", 3, "a")  # another order than by id


def panoptic(image_ids=IMAGES, **options):
    """The prediction is the ground truth moved by one pixel in every second image."""
    metric = PanopticQuality(CATEGORIES, **options)
    ids = np.kron([[5, 5, 9, 9]], np.ones((4, 3), np.int32)).astype(np.int32)
    for image_id in image_ids:
        maps = [ids, np.roll(ids, IMAGES.index(image_id) % 2, axis=1)]
        segments = Segment(5, CAR, True, 24), Segment(9, SKY, False, 24)
        metric.update(image_id, *(PanopticSegmentation(one, segments) for one in maps))
    return metric


def semantic():
    metric = SemanticIoU(("road", "sky"))
    metric.update(np.array([[0, 1]]), np.array([[0, 0]]))
    return metric


def saved(path, image_ids=IMAGES, shard=Shard(), order=IMAGES, inputs="", **options):  # noqa: B008
    save(path, SavedCounts("panoptic", panoptic(image_ids, **options), order, shard, inputs))
    return path


def test_saved_counts_are_loaded(tmp_path):
    path = saved(tmp_path / "deep/counts", inputs="x")  # without .npz: the path is taken as it is
    loaded = load(path)
    assert (loaded.kind, loaded.image_order, loaded.shard, loaded.inputs) == ("panoptic", IMAGES, Shard(), "x")
    assert loaded.metric.compute(loaded.image_order) == panoptic().compute(IMAGES)
    assert [*path.parent.iterdir()] == [path]
    save(path, SavedCounts("semantic", semantic(), None, Shard(2, 3)))
    loaded = load(path)
    assert (loaded.kind, loaded.image_order, loaded.shard) == ("semantic", None, Shard(2, 3))
    assert loaded.metric.compute() == semantic().compute()


def test_shards_are_joined_in_any_order(tmp_path):
    parts = [saved(tmp_path / f"{i}", IMAGES[i - 1 :: 3], Shard(i, 3)) for i in (1, 2, 3)]
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        loaded = merge([parts[i] for i in order])
        assert loaded.shard == Shard()
        assert loaded.metric.compute(loaded.image_order) == panoptic().compute(IMAGES)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"order": (7, "b", 3)}, "expected the images of {first}, got others"),
        ({"inputs": "y"}, "got one of other files or options"),
        ({"shard": Shard(2, 3)}, "expected one of 2 shards as in {first}, got one of 3"),
        ({"shard": Shard(1, 2)}, "expected each shard once, got 1/2"),
        ({"mode": "corrected"}, "cannot be joined with {first}: other must have the same categories and options"),
        ({"image_ids": (7,)}, "cannot be joined with {first}: expected shards without common images, got 7 in both"),
    ],
)
def test_other_shards_are_not_merged(tmp_path, other, said):
    first = saved(tmp_path / "1", (7, 3), Shard(1, 2))
    second = saved(tmp_path / "2", **{"image_ids": ("b", "a"), "shard": Shard(2, 2), **other})
    with pytest.raises(DatasetError, match=re.escape(said.format(first=first))) as raised:
        merge([first, second])
    assert str(second) in str(raised.value)


def test_missing_and_repeated_shards_and_an_empty_list_are_rejected(tmp_path):
    path = saved(tmp_path / "1", (3,), Shard(2, 4))
    with pytest.raises(DatasetError, match="3 shards are missing: 1/4, 3/4, 4/4; evaluate them"):
        merge([path])
    with pytest.raises(DatasetError, match="name each file once"):
        merge([path, path])
    with pytest.raises(DatasetError, match="got none"):
        merge([])


def rewritten(path, change):
    """The file with `change(header, arrays)` made to its content."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays.pop(HEADER).tobytes())
    header = change(header, arrays) or header
    packed = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, **{HEADER: packed}, **arrays)
    return path


def setting(*keys, value):
    def change(header, arrays):
        for key in keys[:-1]:
            header = header[key]
        header[keys[-1]] = value

    return change


def array(name, value):
    def change(header, arrays):
        arrays[f"state_{name}"] = value(arrays[f"state_{name}"])

    return change


def field(name, column, value):
    def change(header, arrays):
        arrays[f"state_{name}"][column][-1] = value

    return change


HOSTILE = {
    "another format": setting("format", value=3),
    "another kind": setting("kind", value="depth"),
    "a kind that is no name": setting("kind", value=[]),
    "another metric's kind": setting("kind", value="semantic"),
    "AP": setting("kind", value="instances"),
    "Cityscapes": setting("kind", value="cityscapes"),
    "no state": setting("state", value=None),
    "state of a list": setting("state", value=[1]),
    "unknown options": setting("state", "options", value={"names": 3}),
    "options of another type": setting("state", "options", "mode", value=[]),
    "an unknown mode": setting("state", "options", "mode", value="best"),
    "no categories": setting("state", "categories", value=[]),
    "other categories": setting("state", "categories", value=[{"id": 3, "name": "x", "isthing": 1}]),
    "fewer images": setting("state", "image_ids", value=[7, "b", 3]),
    "images of a number": setting("state", "image_ids", value=4),
    "images that are lists": setting("state", "image_ids", value=[[1], [2], [3], [4]]),
    "images that are broken numbers": setting("state", "image_ids", value=[1.5, 2.5, 3.5, None]),
    "an image twice": setting("state", "image_ids", value=[7, 7, 3, 4]),
    "shard 0": setting("shard", value=[0, 1]),
    "shards of halves": setting("shard", value=[1.0, 2.0]),
    "no shard": setting("shard", value="1"),
    "image order of a text": setting("image_order", value="7b3a"),
    "image order of lists": setting("image_order", value=[[7]]),
    "a header of a list": lambda header, arrays: [1],
    "an array less": lambda header, arrays: {**header, "x": len(arrays.pop("state_pairs"))},
    "rows of numbers": array("ground_truth", lambda rows: np.zeros(len(rows))),
    "rows in a table": array("pairs", lambda rows: rows.reshape(2, -1)),
    "a scalar": array("ground_truth", lambda rows: rows[0]),
    "lengths below 0": array("ground_truth_per_image", lambda lengths: lengths + np.array([3, -3, 0, 0])),
    "lengths that are no whole numbers": array("ground_truth_per_image", lambda lengths: lengths + 0.0),
    "lengths of more": array("pairs_per_image", lambda lengths: lengths + 1),
    "a pair beyond the segments": field("pairs", "ground_truth", 2),
    "a pair far below": field("pairs", "prediction", -2),
    "pixels below 0": field("pairs", "pixels", -1),
    "a segment of another category": field("ground_truth", "category_id", 3),
    "a prediction of another category": field("prediction", "category_id", -(2**60)),
    "an area that is NaN": field("ground_truth", "area_px", np.nan),
    "a segment without pixels": field("prediction", "counted_px", 0),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_invalid_counts_are_a_clear_error(tmp_path, change):
    path = rewritten(saved(tmp_path / "counts.npz"), change)
    with pytest.raises(DatasetError, match=re.escape(f"{path}: expected ")):
        load(path)


def test_counts_of_an_earlier_version_are_to_be_made_again(tmp_path):
    """The arrays of AP had other names: no error about these."""
    path = rewritten(saved(tmp_path / "counts.npz"), setting("format", value=1))
    with pytest.raises(DatasetError) as raised:
        load(path)
    problem = "expected counts of format 2, got 1, of another version of segkit"
    assert str(raised.value) == f"{path}: {problem}; evaluate again"


def test_a_rewritten_file_is_still_valid(tmp_path):
    path = rewritten(saved(tmp_path / "counts.npz"), lambda header, arrays: None)
    assert load(path).metric.compute() == panoptic().compute()


def test_objects_are_never_unpickled(tmp_path):
    class Boom:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "harmed"),))

    path = tmp_path / "counts.npz"
    for name in (HEADER, "state_ground_truth"):
        np.savez(path, **{HEADER: np.zeros(1, np.uint8), name: np.array([Boom()], dtype=object)})
        with pytest.raises(DatasetError, match="expected saved counts, got something else"):
            load(path)
    assert not (tmp_path / "harmed").exists()


def test_a_shape_larger_than_the_file(tmp_path):
    """10^15 rows in the array's own header, which are made before they are read."""
    path, huge = saved(tmp_path / "counts.npz"), tmp_path / "huge.npz"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(huge, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "state_pairs_per_image.npy":
                content = content.replace(b"(4,), }" + b" " * 15, b"(1000000000000000,), }")
                assert content != old.read(name)
            new.writestr(name, content)
    with pytest.raises(DatasetError, match="expected saved counts"):
        load(huge)


def test_every_cut_and_every_damaged_byte_is_reported(tmp_path):
    content = saved(tmp_path / "counts.npz").read_bytes()
    path, whole = tmp_path / "broken.npz", panoptic().compute()
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(DatasetError, match=re.escape(f"{path}: expected ")):
            load(path)
    for offset in range(0, len(content), 53):
        path.write_bytes(content[:offset] + bytes([content[offset] ^ 0x55]) + content[offset + 1 :])
        with contextlib.suppress(DatasetError):
            assert load(path).metric.compute() == whole, "a byte without effect, such as a date"


@pytest.mark.parametrize("content", [b"", b"PK", b"{}", b"\x93NUMPY\x01\x00", b"\x80\x04N."])
def test_files_of_another_kind_are_rejected(tmp_path, content):
    path = tmp_path / "counts"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="give a file that --save-counts wrote"):
        load(path)
    with pytest.raises(DatasetError, match="found no file; check the path"):
        load(tmp_path / "absent")
    with pytest.raises(DatasetError, match="expected saved counts"):
        load(tmp_path)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(counts_file.np, "savez_compressed", full)
    with pytest.raises(DatasetError, match=r"counts\.npz: cannot be written: No space left on device"):
        saved(tmp_path / "counts.npz")
    assert [*tmp_path.iterdir()] == []


def test_fingerprints_depend_on_contents_not_paths(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder / "inner").mkdir(parents=True)
        (tmp_path / folder / "x.json").write_text("{}")
        (tmp_path / folder / "inner/1.png").write_bytes(b"png")
        (tmp_path / folder / f"{folder}.npz").write_bytes(b"the counts may lie there")

    def compute_fingerprint(folder, **more):
        return fingerprint({"gt": tmp_path / folder, "pred": tmp_path / folder / "x.json", "mode": None, **more})

    assert compute_fingerprint("a") == compute_fingerprint("b") != compute_fingerprint("a", mode="x")
    (tmp_path / "b/x.json").write_text("[]")
    assert compute_fingerprint("a") != compute_fingerprint("b")
    (tmp_path / "b/x.json").write_text("{}")
    (tmp_path / "b/inner/2.png").write_bytes(b"png")
    assert compute_fingerprint("a") != compute_fingerprint("b")
    with pytest.raises(DatasetError, match="absent: cannot be read"):
        fingerprint({"gt": tmp_path / "absent"})


def test_damaged_bytes_give_only_dataset_errors(tmp_path):
    metric = PanopticQuality(CategorySet([Category(1, "thing", True, (0, 0, 0))]))
    path = tmp_path / "a.npz"
    counts_file.save(path, counts_file.SavedCounts("panoptic", metric, (), Shard()))
    sound, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(sound)
        damaged[rng.integers(len(sound))] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(DatasetError):  # some bytes of a zip file have no effect
            counts_file.load(path)


def test_counts_that_unpack_to_too_much_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "counts.npz"
    np.savez_compressed(path, state_x=np.zeros(2_000_000, dtype=np.uint8))
    monkeypatch.setenv("SEGKIT_MAX_UNPACKED_BYTES", "1000000")
    message = r"counts\.npz: expected at most 1000000 bytes, unpacked, in a file of \d+, got 2000\d+"
    with pytest.raises(DatasetError, match=message):
        counts_file.load(path)
