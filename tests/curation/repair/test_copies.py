"""Repaired copies: errors are repaired, the original is not changed, and remaining errors are still reported."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.curation.checks.instances import check_instances
from segkit.curation.checks.panoptic import check_panoptic
from segkit.curation.repair import repair_instances, repair_panoptic
from segkit.formats import coco
from segkit.utils.errors import DatasetError
from tests.helpers.damaged_datasets import CROWD, GRASS, PERSON, SKY, Broken, instances, panoptic, scene
from tests.helpers.planted_instances_errors import INSTANCES_ERRORS, Change
from tests.helpers.planted_panoptic_errors import PANOPTIC_ERRORS

REPAIRED = {
    "no_area", "no_box", "no_iscrowd", "area_is_text", "area_is_nan", "box_is_infinite",
    "category_unknown", "a_segment_is_null", "an_image_id_twice", "size_in_json_differs",
    "an_image_without_annotation", "an_annotation_twice", "png_without_entry", "png_has_alpha", "png_has_a_palette",
    "segment_id_in_the_png_only", "segment_id_in_the_json_only", "an_empty_segment", "id_is_void",
    "id_is_too_large", "id_is_negative", "a_segment_id_twice", "stuff_in_two_segments", "area_is_off_by_one",
    "box_is_off_by_one", "box_beyond_the_image", "box_of_three_numbers", "box_of_negative_width",
}  # fmt: skip
ADDED = {  # new issues of the copy: infinity becomes null
    "another_annotation_of_the_same_png": {"type-wrong"},
}
ADDED_BY_DROPPING = {"an_image_without_annotation": {"image-orphan"}}


def test_all_names_of_errors_exist() -> None:
    assert {*REPAIRED, *ADDED, *ADDED_BY_DROPPING} <= {name for name, *_ in PANOPTIC_ERRORS}


def repair(data: Broken, folder: Path) -> Broken:
    json_path, masks, _lines = repair_panoptic(data.json_path, data.masks, data.images, folder, map)
    return Broken(json_path, masks, data.images)


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(("name", "expected", "plant"), PANOPTIC_ERRORS, ids=[name for name, *_ in PANOPTIC_ERRORS])
def test_planted_errors_are_repaired_and_no_error_is_added(
    tmp_path: Path, name: str, expected: str, plant: Callable[[Broken], None]
) -> None:
    data = panoptic(tmp_path / "data")
    plant(data)
    before = read_files(tmp_path / "data")
    try:
        copy = repair(data, tmp_path / "copy")
    except DatasetError:
        assert name.startswith("json_") or name in ("no_tables", "no_masks")
        assert not (tmp_path / "copy").exists()
        return
    codes = {issue.code for issue in check_panoptic(*copy, map)}
    assert read_files(tmp_path / "data") == before
    allowed = {*expected.split(), "image-orphan", "all-void", *ADDED.get(name, ())}
    assert codes <= (ADDED_BY_DROPPING.get(name, set()) if name in REPAIRED else allowed)


def test_the_pixels_of_a_repaired_copy(tmp_path: Path) -> None:
    """Grass labelled as sky joins the sky, the person with an unknown category becomes void, the crowd stays."""
    data = panoptic(tmp_path / "data")
    content = data.load()
    for info in content["annotations"][0]["segments_info"]:
        info["category_id"] = {PERSON: 99, GRASS: 10}.get(info["id"], info["category_id"])
    data.store(content)
    copy = repair(data, tmp_path / "copy")
    infos = copy.load()["annotations"][0]["segments_info"]
    assert [(i["id"], i["area"]) for i in infos] == [(CROWD, 8), (SKY, 20)]
    expected = scene().segment_ids.copy()
    expected[expected == PERSON] = 0
    expected[expected == GRASS] = SKY
    assert np.array_equal(coco.read_id_runs(copy.png()).to_map(), expected)
    assert copy.png(1).read_bytes() == data.png(1).read_bytes()
    assert not copy.png(1).samefile(data.png(1))


def test_a_segment_without_id_gets_the_id_of_its_area_and_box(tmp_path: Path) -> None:
    data = panoptic(tmp_path / "data")
    content = data.load()
    del content["annotations"][0]["segments_info"][0]["id"]
    content["annotations"][1]["segments_info"][0].update(id=0, area=8)  # its area is wrong: its id cannot be inferred
    data.store(content)
    copy = repair(data, tmp_path / "copy")
    first, second = copy.load()["annotations"][:2]
    assert first == panoptic(tmp_path / "clean").load()["annotations"][0]
    assert second == content["annotations"][1]
    assert copy.png(1).read_bytes() == data.png(1).read_bytes()


def test_nothing_is_written_outside_the_copy_or_overwritten(tmp_path: Path) -> None:
    data = panoptic(tmp_path / "data")
    content = data.load()
    content["annotations"][0]["file_name"] = "../../escaped.png"
    data.store(content)
    shutil.copy(data.png(), tmp_path / "escaped.png")
    before = read_files(tmp_path)
    copy = repair(data, tmp_path / "deep/copy")
    assert {*read_files(tmp_path)} - {*before} == {*read_files(tmp_path / "deep/copy")}
    with pytest.raises(DatasetError, match="empty or new folder"):
        repair(data, tmp_path / "deep/copy")
    with pytest.raises(DatasetError, match="empty or new folder"):
        repair(data, data.png(1))
    assert read_files(tmp_path / "data") == {k: v for k, v in before.items() if "escaped" not in k}
    assert copy.load()["annotations"][0] == content["annotations"][0]


def test_a_link_to_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    copy = repair(panoptic(tmp_path / "data"), tmp_path / "link")
    assert copy.json_path.samefile(tmp_path / "real/panoptic.json")
    (tmp_path / "dead").symlink_to("nowhere")
    with pytest.raises(DatasetError, match="empty or new folder"):
        repair_instances(instances(tmp_path / "more").json_path, tmp_path, tmp_path / "dead", map)


def test_errors_on_another_kind_or_deep_nesting_name_the_file(tmp_path: Path) -> None:
    things, scenes = instances(tmp_path / "a"), panoptic(tmp_path / "b")
    with pytest.raises(DatasetError, match=r"instances\.json: expected .*panoptic.*, this is instances"):
        repair_panoptic(things.json_path, scenes.masks, scenes.images, tmp_path / "copy", map)
    with pytest.raises(DatasetError, match=r"panoptic\.json: expected .*instances.*, this is panoptic"):
        repair_instances(scenes.json_path, scenes.images, tmp_path / "copy", map)
    text = things.json_path.read_text()
    things.json_path.write_text(text[:-1] + ', "deep": ' + "[" * 900 + "]" * 900 + "}")
    with pytest.raises(DatasetError) as caught:
        repair_instances(things.json_path, things.images, tmp_path / "copy", map)
    assert str(caught.value).startswith(f"{things.json_path}: ")
    assert ".tmp" not in str(caught.value)
    assert not (tmp_path / "copy").exists()


def test_copies_are_dropped_among_many_annotations_with_the_same_id(tmp_path: Path) -> None:
    """Copies are dropped, other annotations get ids of their own. benchmarks/curation_scaling.py measures the time."""
    data = instances(tmp_path / "data")
    content = data.load()
    first = content["annotations"][0]
    many = [{**first, "id": 1, "segmentation": "none", "number": i // 2} for i in range(20_000)]
    data.store({**content, "annotations": many})
    copy, lines = repair_instances(data.json_path, data.images, tmp_path / "copy", map)
    assert [entry["id"] for entry in Broken(copy, *data[1:]).load()["annotations"]] == [*range(1, 10_001)]
    assert lines == [
        "dropped 10000 of the annotations: each is a copy of an earlier one",
        "renumbered 9999 of the annotations: an earlier annotation has their id",
    ]


def test_an_interrupted_repair_leaves_nothing(tmp_path: Path) -> None:
    data = panoptic(tmp_path / "data")

    def stop(work, items):
        work(items[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repair_panoptic(data.json_path, data.masks, data.images, tmp_path / "copy", stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


INSTANCES_LEFT = {
    "type-wrong", "iscrowd-invalid", "mask-invalid", "rle-size", "size-differs", "image-orphan",
    "coordinates-relative", "crowds-only", "class-empty", "category-id-twice", "key-missing", "mask-twice",
    "isthing-invalid", "annotations-empty",
}  # fmt: skip


@pytest.mark.parametrize(("expected", "change"), INSTANCES_ERRORS)
def test_planted_errors_of_instances_are_repaired_or_stay(tmp_path: Path, expected: str, change: Change) -> None:
    data = instances(tmp_path / "data")
    content = data.load()
    change(content, content["annotations"][0], content["annotations"][1])
    data.store(content)
    before = read_files(tmp_path / "data")
    copy, _lines = repair_instances(data.json_path, data.images, tmp_path / "copy", map)
    assert read_files(tmp_path / "data") == before
    codes = {issue.code for issue in check_instances(copy, data.images, map)}
    assert codes - {"rle-size"} <= ({expected} & INSTANCES_LEFT)


def test_masks_of_instances_are_cut_off_and_missing_ids_filled_in(tmp_path: Path) -> None:
    """20 x 1 pixels from column 4 of 8: 4 pixels remain, at [4, 1, 4, 1]; the lowest free ids are 1 and 2."""
    data = instances(tmp_path / "data")
    content = data.load()
    first, crowd = content["annotations"][:2]
    first.update(segmentation=[[4, 1, 24, 1, 24, 2, 4, 2]], area=20, bbox=[4, 1, 20, 1])
    del first["id"], crowd["id"]
    data.store(content)
    copy = Broken(repair_instances(data.json_path, data.images, tmp_path / "copy", map)[0], *data[1:])
    first, crowd = copy.load()["annotations"][:2]
    assert (first["area"], first["bbox"], first["id"], crowd["id"]) == (4, [4, 1, 4, 1], 1, 2)
    assert first["segmentation"]["size"] == [6, 8]


def test_a_clean_dataset_is_copied_unchanged(tmp_path: Path) -> None:
    data = panoptic(tmp_path / "data")
    Image.fromarray(np.zeros((6, 8, 3), dtype=np.uint8)).save(data.images / "more.png")
    copy = repair(data, tmp_path / "copy")
    assert copy.load() == data.load()
    assert [path.read_bytes() for path in sorted(copy.masks.iterdir())] == [
        path.read_bytes() for path in sorted(data.masks.iterdir())
    ]
    data = instances(tmp_path / "more")
    copied = Broken(repair_instances(data.json_path, data.images, tmp_path / "b", map)[0], *data[1:])
    assert copied.load() == data.load()
