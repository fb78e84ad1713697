from __future__ import annotations

import errno
import hashlib
import json
import logging
import multiprocessing
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.formats import coco
from segkit.formats.cache import annotations as cache
from segkit.formats.cache.annotations import AnnotatedImages, ImageRow
from segkit.utils.errors import DatasetError
from tests.helpers.coco_samples import Dataset, files_below
from tests.helpers.platforms import needs_fork

BOX = {"bbox": [1, 0.5, 3, 2.25], "area": 4}
POLYGONS = [[0, 0, 3, 0.1, 1e-7, 2], [1.0, 1, 2, 1, 2, 2]]
RUNS = {"size": [3, 4], "counts": [2, 10]}
COMPRESSED = {"counts": "26", "size": [2, 4]}
CONTENT: dict[str, Any] = {
    "images": [
        {"id": "ü/☂", "file_name": "Füße ☂.jpg", "height": 3, "width": 4, "license": 2},
        {"id": 7, "file_name": "half a pair \ud800.jpg", "height": 2, "width": 4},
        {"id": 2**70, "file_name": "empty.jpg", "height": 1, "width": 1},
    ],
    "categories": [{"id": 9, "name": "Größe"}, {"id": 2, "name": "cat", "color": [0, 0, 0]}],
    "annotations": [
        {"id": 5, "image_id": 7, "category_id": 2, **BOX, "segmentation": POLYGONS},
        {"id": 2**65, "image_id": "ü/☂", "category_id": 9, **BOX, "iscrowd": 1, "segmentation": RUNS},
        {"id": 1, "image_id": 7, "category_id": 9, **BOX, "segmentation": {**COMPRESSED, "x": float("nan")}},
        {"id": -3, "image_id": 7, "category_id": 9, **BOX, "segmentation": [[0, 0], *POLYGONS], "extra": 1},
    ],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SMALLEST_BYTES", 0)
    monkeypatch.setattr(cache, "_warned", set())
    return tmp_path / "cache" / "annotations"


@pytest.fixture
def json_path(tmp_path: Path) -> Path:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(CONTENT))
    return path


@pytest.fixture
def uncached(json_path: Path) -> AnnotatedImages:
    """The annotations as read without a cache."""
    return cache._parse_instances(json_path)


def is_cached(result: AnnotatedImages) -> bool:
    return all(isinstance(row, ImageRow) for row in result.annotations)


def are_equal(first_read: AnnotatedImages, second_read: AnnotatedImages) -> bool:
    """Compares the texts, in which 1 and 1.0 differ. Segment infos of a panoptic JSON may be tuples or lists."""
    texts = [
        repr(([*map(dict, f.images)], [[*r] for r in f.annotations], f.category_ids, f.categories.categories, f.path))
        for f in (first_read, second_read)
    ]
    return texts[0] == texts[1]


def get_entry(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def fail_to_parse(path: Path, *_: Any) -> None:
    raise AssertionError(f"{path} was parsed")


def test_values_are_equal_with_and_without_a_cache(json_path: Path, uncached: AnnotatedImages, folder: Path) -> None:
    first, second = cache.read_instances(json_path), cache.read_instances(str(json_path))
    assert is_cached(first)
    assert is_cached(second)
    assert are_equal(first, uncached)
    assert are_equal(second, uncached)
    assert [*map(len, second.annotations)] == [1, 3, 0]
    file = coco.read_instances(json_path)  # the values of the reader itself
    assert {**second.annotations[1][0], "image_id": 7} == file.annotations[0]
    assert second.annotations[1][-1]["segmentation"] == POLYGONS  # without the sliver
    assert files_below(folder.parent.parent) == {"instances.json", f"cache/annotations/{get_entry(folder).name}"}


def test_segments_info_of_a_panoptic_json_is_cached_unchanged(dataset: Dataset) -> None:
    content = dataset.load()
    content["annotations"][0]["segments_info"][0].update(extra={"a": [float("inf"), "\ud800"]}, area=2.0)
    dataset.store(content)
    uncached = cache._parse_panoptic(dataset.json_path)
    for _ in range(2):
        result = cache.read_panoptic(dataset.json_path)
        assert is_cached(result)
        assert are_equal(result, uncached)
    records = coco.read_panoptic(dataset.json_path).records
    assert [i["png_name"] for i in result.images] == [r.png_name for r in records]
    assert [[*row] for row in result.annotations] == [[*r.segments_info] for r in records]


NUMBER = st.integers(-(3 * 10**5), 3 * 10**5) | st.floats(-3e5, 3e5)  # so that no outline of six points is too long
POLYGON = st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=6).map(lambda points: [v for p in points for v in p])


@settings(deadline=None, max_examples=60)
@given(outlines=st.lists(st.lists(POLYGON, min_size=1, max_size=3), max_size=5), area=st.floats(0, 1e300))
def test_cached_numbers_are_bitwise_equal(
    outlines: list[Any], area: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("numbers") / "instances.json"
    valid_outlines = [outline for outline in outlines if any(len(polygon) >= 6 for polygon in outline)]
    annotations = [
        {**CONTENT["annotations"][0], "area": area, "id": i, "segmentation": o} for i, o in enumerate(valid_outlines, 1)
    ]
    path.write_text(json.dumps({**CONTENT, "annotations": annotations}))
    cache.read_instances(path)
    result = cache.read_instances(path)
    assert is_cached(result)
    assert are_equal(result, cache._parse_instances(path))


def test_a_cached_json_is_not_parsed_again(
    json_path: Path, uncached: AnnotatedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.read_instances(json_path)
    monkeypatch.setattr(coco, "read_instances", fail_to_parse)
    assert are_equal(cache.read_instances(json_path), uncached)


def test_changed_bytes_are_noticed_if_size_and_date_are_equal(json_path: Path, folder: Path) -> None:
    cache.read_instances(json_path)
    stat, before, text = json_path.stat(), get_entry(folder).read_bytes(), json_path.read_text()
    json_path.write_text(text.replace("0.5", "0.7"))
    os.utime(json_path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (json_path.stat().st_size, json_path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert cache.read_instances(json_path).annotations[0][0]["bbox"] == [1, 0.7, 3, 2.25]
    assert get_entry(folder).read_bytes() != before  # the old one is replaced


@pytest.mark.parametrize("change", [("RULES", 99), ("segkit.__version__", "0.0")])
def test_entries_of_other_versions_are_replaced(
    json_path: Path, folder: Path, change: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.read_instances(json_path)
    before = get_entry(folder).read_bytes()
    monkeypatch.setattr(f"segkit.formats.cache.annotations.{change[0]}", change[1])
    assert is_cached(cache.read_instances(json_path))
    assert get_entry(folder).read_bytes() != before


def test_damaged_entries_are_replaced(json_path: Path, uncached: AnnotatedImages, folder: Path) -> None:
    cache.read_instances(json_path)
    entry = get_entry(folder)
    content_before = entry.read_bytes()
    positions = [*range(0, len(content_before), 7), *range(len(content_before) - 70, len(content_before))]
    damaged = [content_before[:i] for i in positions] + [
        content_before[:i] + bytes([content_before[i] ^ 255]) + content_before[i + 1 :] for i in positions
    ]
    for content in [*damaged, content_before + b"x", b"\x80\x04N."]:
        entry.write_bytes(content)
        assert are_equal(cache.read_instances(json_path), uncached)
        assert entry.read_bytes() == content_before


def test_an_entry_of_another_json_is_not_used(json_path: Path, uncached: AnnotatedImages, folder: Path) -> None:
    other_json = json_path.with_name("other.json")
    other_json.write_text(json.dumps({**CONTENT, "annotations": []}))
    cache.read_instances(other_json)
    entry_of_other = get_entry(folder)
    cache.read_instances(json_path)
    (entry_of_json,) = set(folder.iterdir()) - {entry_of_other}
    entry_of_json.write_bytes(entry_of_other.read_bytes())
    assert are_equal(cache.read_instances(json_path), uncached)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"images": []}'])
def test_an_invalid_json_raises_an_error_each_time_and_is_not_cached(
    json_path: Path, folder: Path, content: bytes
) -> None:
    json_path.write_bytes(content)
    with pytest.raises(DatasetError) as expected:
        coco.read_instances(json_path)
    for _ in range(2):
        with pytest.raises(DatasetError) as error:
            cache.read_instances(json_path)
        assert str(error.value) == str(expected.value)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["missing.json", ".", "nul\0.json"])
def test_paths_that_are_no_file_raise_a_dataset_error_as_without_a_cache(tmp_path: Path, name: str) -> None:
    for read in (coco.read_instances, cache.read_instances):
        with pytest.raises(DatasetError, match=r"expected a file|cannot be read"):
            read(tmp_path / name)


def test_a_json_that_is_replaced_while_it_is_read_is_not_cached(
    json_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = coco.read_instances

    def read_and_replace(path: Path) -> coco.InstancesFile:
        file = read(path)
        path.write_text(json.dumps({**CONTENT, "annotations": []}))
        return file

    monkeypatch.setattr(coco, "read_instances", read_and_replace)
    assert sum(map(len, cache.read_instances(json_path).annotations)) == 4
    assert not folder.exists()


def test_a_small_json_is_not_cached(json_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SMALLEST_BYTES", json_path.stat().st_size + 1)
    assert not is_cached(cache.read_instances(json_path))
    assert not folder.exists()


def test_an_unwritable_folder_gives_one_warning(
    json_path: Path, uncached: AnnotatedImages, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.parent.write_text("a file stands here")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert are_equal(cache.read_instances(json_path), uncached)
    (message,) = caplog.messages
    assert "parsed annotations are not cached in" in message
    assert "SEGKIT_CACHE" in message


@pytest.mark.parametrize("call", ["write", "replace"])
def test_a_full_disk_gives_one_warning_and_leaves_no_file(
    json_path: Path,
    uncached: AnnotatedImages,
    folder: Path,
    call: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def raise_disk_full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "replace":
        monkeypatch.setattr("segkit.utils.files.os.replace", raise_disk_full)
    else:
        monkeypatch.setattr(cache, "_INSTANCES", cache._INSTANCES._replace(encode=raise_disk_full))
    for _ in range(2):
        assert are_equal(cache.read_instances(json_path), uncached)
    assert files_below(folder) == set()
    (message,) = caplog.messages
    assert "cannot be written: No space left on device" in message


def test_nothing_is_cached_without_a_home_folder(
    json_path: Path, uncached: AnnotatedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_no_home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", raise_no_home)
    result = cache.read_instances(json_path)
    assert not is_cached(result)
    assert are_equal(result, uncached)


def test_the_default_folder_and_the_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGKIT_CACHE")
    assert cache._get_folder() == Path.home() / ".cache/segkit/annotations"
    monkeypatch.setenv("SEGKIT_CACHE", "~/x")
    assert cache._get_folder() == Path.home() / "x/annotations"
    monkeypatch.setenv("SEGKIT_CACHE", "here")
    assert cache._get_folder() == Path.cwd() / "here/annotations"


def read_in_process(json_path: Path, smallest: int, barrier: Any, answers: Any) -> None:
    cache.SMALLEST_BYTES = smallest
    barrier.wait()
    result = cache.read_instances(json_path)
    answers.put((is_cached(result), repr([[*row] for row in result.annotations])))


@needs_fork
def test_concurrent_processes_write_one_valid_entry(json_path: Path, uncached: AnnotatedImages, folder: Path) -> None:
    fork = multiprocessing.get_context("fork")
    for _ in range(5):
        barrier, answers = fork.Barrier(4), fork.Queue()
        processes = [fork.Process(target=read_in_process, args=(json_path, 0, barrier, answers)) for _ in range(4)]
        for process in processes:
            process.start()
        result = {answers.get(timeout=60) for _ in processes}
        for process in processes:
            process.join()
        assert result == {(True, repr(uncached.annotations))}
        get_entry(folder).unlink()  # there is one entry and no other file


def test_unused_entries_and_temporary_files_are_removed(json_path: Path, tmp_path: Path, folder: Path) -> None:
    def age(path: Path, days: float) -> Path:
        then = time.time() - days * 86400
        os.utime(path, (then, then))
        return path

    entries = {}
    for name in ("used", "recent", "old"):
        path = tmp_path / f"{name}.json"
        path.write_text(json_path.read_text())
        cache.read_instances(path)
        (entries[name],) = {*folder.iterdir()} - {*entries.values()}
    age(entries["used"], 31), age(entries["recent"], 29), age(entries["old"], 31)
    left_over, fresh, notes = folder / ".ab.tmp", folder / ".cd.tmp", folder / "notes.txt"
    left_over.touch(), fresh.touch(), notes.touch()
    age(left_over, 2), age(notes, 100)
    assert is_cached(cache.read_instances(tmp_path / "used.json"))
    assert len({*folder.iterdir()}) == 6  # files are removed when an entry is written
    cache.read_instances(json_path)
    remaining = {*folder.iterdir()}
    assert {entries["used"], entries["recent"], fresh, notes} < remaining
    assert len(remaining) == 5  # and the entry of json_path


def test_a_row_is_a_sequence(json_path: Path, uncached: AnnotatedImages) -> None:
    row, expected = cache.read_instances(json_path).annotations[1], uncached.annotations[1]
    assert [*row] == expected
    assert (row[0], row[-1], row[1:]) == (expected[0], expected[-1], expected[1:])
    assert [*reversed(row)] == [*reversed(expected)]
    assert row[0] is not row[0]  # built at each use, so that a change does not affect other users


def row_in_process(pickled: bytes, answers: Any) -> None:
    answers.put([*pickle.loads(pickled)])


@pytest.mark.parametrize("method", [pytest.param("fork", marks=needs_fork), "spawn"])
def test_a_row_is_pickled_as_a_list(json_path: Path, uncached: AnnotatedImages, folder: Path, method: str) -> None:
    pickled = pickle.dumps(cache.read_instances(json_path).annotations[1])
    get_entry(folder).unlink()
    assert type(pickle.loads(pickled)) is list
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    process = context.Process(target=row_in_process, args=(pickled, answers))
    process.start()
    assert answers.get(timeout=60) == uncached.annotations[1]
    process.join()


def test_rows_are_read_without_pread(
    json_path: Path, uncached: AnnotatedImages, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pread")
    for _ in range(2):
        cached = cache.read_instances(json_path)
        assert is_cached(cached)
        assert are_equal(cached, uncached)
    rows = [[*cached.annotations[index]] for index in (2, 0, 1)]
    assert rows == [uncached.annotations[index] for index in (2, 0, 1)]
    with ThreadPoolExecutor(4) as threads:  # the threads share the position in the file
        results = threads.map(lambda index: [*cached.annotations[index % 3]], range(3000))
        assert all(row == uncached.annotations[index % 3] for index, row in enumerate(results))
    get_entry(folder).write_bytes(b"cut")
    with pytest.raises(DatasetError, match="changed while the file was in use; start again"):
        cached.annotations[1][0]


def test_an_open_entry_can_be_read_after_it_is_deleted(
    json_path: Path, uncached: AnnotatedImages, folder: Path
) -> None:
    cached = cache.read_instances(json_path)
    get_entry(folder).unlink()
    assert are_equal(cached, uncached)


@pytest.mark.parametrize("is_fast", [True, False])
def test_an_entry_that_is_truncated_while_it_is_open_raises_a_dataset_error(
    json_path: Path, folder: Path, is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_fast:
        monkeypatch.setattr(cache, "_INSTANCES", cache._Kind("instances", cache._parse_instances))
    row = cache.read_instances(json_path).annotations[1]
    entry = get_entry(folder)
    entry.write_bytes(entry.read_bytes()[:-200])
    with pytest.raises(DatasetError, match="changed while the file was in use; start again"):
        row[0]


def test_folders_and_pipes_with_the_name_of_an_entry_do_not_matter(
    json_path: Path, uncached: AnnotatedImages, folder: Path
) -> None:
    cache.read_instances(json_path)
    entry = get_entry(folder)
    for replace in (os.mkdir, os.mkfifo):
        entry.unlink()
        replace(entry)
        assert are_equal(cache.read_instances(json_path), uncached)
        if entry.is_dir():
            entry.rmdir()
            cache.read_instances(json_path)


@pytest.mark.parametrize(
    "header",
    [
        *(b"[]", b"{}", b"7", b'{"counts": 7}', b'{"counts": [0]}', b"\x80\x04N.", b"[" * 9999),
        *({"counts": 7}, {"counts": [0]}, {"categories": 7}, {"categories": [{"id": 1}]}, {"category_ids": [[]]}),
        *({"label": 7}, {"label": {}}),
    ],
)
def test_entries_with_a_valid_checksum_but_invalid_content_are_replaced(
    json_path: Path, uncached: AnnotatedImages, folder: Path, header: bytes | dict[str, Any]
) -> None:
    cache.read_instances(json_path)
    entry = get_entry(folder)
    content_before = entry.read_bytes()
    lines = content_before.split(b"\n")[:-1]
    lines[0] = header if isinstance(header, bytes) else json.dumps({**json.loads(lines[0]), **header}).encode()
    changed = b"".join(line + b"\n" for line in lines)
    entry.write_bytes(changed + hashlib.sha256(changed).hexdigest().encode())
    assert are_equal(cache.read_instances(json_path), uncached)
    assert entry.read_bytes() == content_before
