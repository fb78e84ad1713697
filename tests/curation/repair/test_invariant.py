"""A repair neither drops nor changes valid entries, their pixels or categories, whatever else is wrong."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.curation.checks.instances import check_instances
from segkit.curation.checks.panoptic import check_panoptic
from segkit.curation.issues import IssueList
from segkit.curation.repair import repair_instances, repair_panoptic
from segkit.formats import coco
from segkit.utils.errors import DatasetError
from tests.helpers.damaged_datasets import CROWD, GRASS, IMAGES, PERSON, SKY, Broken, instances, junk, panoptic, scene
from tests.helpers.planted_instances_errors import INSTANCES_ERRORS
from tests.helpers.planted_panoptic_errors import PANOPTIC_ERRORS
from tests.helpers.wrong_ids import WRONG_IDS

CHANGES = [change for _expected, change in INSTANCES_ERRORS]
WHOLE_IMAGE = ("annotation-without-image", "annotation-twice", "png-name-twice", "type-wrong", "name-outside")
KINDS = st.sampled_from(
    [str, float, lambda _: None, lambda value: [value], lambda value: -value, lambda value: value + 1]
)
ANNOTATION_KEYS = ("id", "image_id", "category_id", "segmentation", "area", "bbox", "iscrowd")
SEGMENT_KEYS = ["id", "category_id", "area", "bbox", "iscrowd"]


def list_named(issues: IssueList) -> tuple[set[object], set[tuple[object, object]]]:
    """Images, and (image, id) of segments and annotations, that an issue names."""
    images, parts = set[object](), set[tuple[object, object]]()
    for issue in issues:
        image = re.search(r", image (\S+?)(?:,|$)", issue.place)
        part = re.search(r", (?:segment|annotation) (\S+)$", issue.place)
        if image and part:
            parts.add((image[1], part[1]))
        elif image and issue.code in WHOLE_IMAGE:
            images.add(image[1])
    return images, parts


def check_segments(data: Broken, copy: Broken, issues: IssueList) -> None:
    """The copy has every clean segment of the broken data that no issue names: id, category and pixels."""
    images, parts = list_named(issues)
    before, after = ({str(a.get("image_id")): a for a in b.load()["annotations"]} for b in (data, copy))
    for image, annotation in before.items():
        clean = [i for i in annotation["segments_info"] if isinstance(i, dict) and is_clean(i)]
        clean = [] if image in images else [i for i in clean if (image, str(i["id"])) not in parts]
        if not clean:
            continue
        infos = [info for info in after[image]["segments_info"] if isinstance(info, dict)]
        for info in clean:
            key = [info["id"], info["category_id"], info["iscrowd"]]
            assert key in [[i.get("id"), i.get("category_id"), i.get("iscrowd")] for i in infos]
        check_pixels(data.masks / annotation["file_name"], copy.masks / annotation["file_name"], clean)


def is_clean(info: dict[str, Any]) -> bool:
    expected = {PERSON: (1, 0), CROWD: (3, 1), SKY: (10, 0), GRASS: (20, 0)}
    are_integers = all(type(info.get(key)) is int for key in ("id", "category_id", "iscrowd"))
    return are_integers and expected.get(info["id"]) == (info["category_id"], info["iscrowd"])


def check_pixels(before: Path, after: Path, clean: list[dict[str, Any]]) -> None:
    try:
        ids = coco.read_id_runs(before).to_map()
    except DatasetError:
        return
    repaired_ids = coco.read_id_runs(after).to_map()
    for info in clean:
        assert np.array_equal(repaired_ids[ids == info["id"]], ids[ids == info["id"]])


def change_values(data: Broken, changes: list[tuple[int, int, str, Any]]) -> None:
    content = data.load()
    for image, segment, key, kind in changes:
        info = content["annotations"][image]["segments_info"][segment]
        if key in info and not isinstance(info[key], list):
            info[key] = kind(info[key]) if isinstance(info[key], int) else None
        elif key in info:
            info[key] = info[key][1:]
    data.store(content)


@pytest.mark.parametrize("plant", [pytest.param(plant, id=name) for name, _expected, plant in PANOPTIC_ERRORS])
def test_each_planted_error_changes_no_other_segment(tmp_path: Path, plant: Callable[[Broken], None]) -> None:
    data = panoptic(tmp_path / "data")
    plant(data)
    run_panoptic(data, tmp_path)


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.sampled_from(SEGMENT_KEYS), KINDS), max_size=4),
    copied_ids=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 3)), max_size=2),
    repainted=st.lists(st.tuples(st.integers(0, 2), st.sampled_from([PERSON, CROWD, SKY, GRASS, 0])), max_size=2),
)
def test_several_errors_change_no_other_segment(changes, copied_ids, repainted) -> None:
    """Values of other types, ids copied from another segment of the image, changed PNG ids."""
    with tempfile.TemporaryDirectory() as name:
        data = panoptic(Path(name) / "data")
        for image, old in repainted:
            ids = coco.read_id_runs(data.png(image)).to_map()
            ids[ids == old] = 12345
            coco.write_png(data.png(image), ids)
        content = data.load()
        for image, to_segment, from_segment in copied_ids:
            infos = content["annotations"][image]["segments_info"]
            infos[to_segment]["id"] = infos[from_segment]["id"]
        data.store(content)
        change_values(data, changes)
        run_panoptic(data, Path(name))


def run_panoptic(data: Broken, folder: Path) -> None:
    issues = check_panoptic(*data, map)
    try:
        copy, masks, _lines = repair_panoptic(*data, folder / "copy", map)
    except DatasetError:
        return
    copied = Broken(copy, masks, data.images)
    check_segments(data, copied, issues)
    again = repair_panoptic(*copied, folder / "again", map)
    assert again[0].read_bytes() == copy.read_bytes()


@settings(max_examples=60, deadline=None)
@given(picked=st.lists(st.sampled_from(range(len(CHANGES))), min_size=1, max_size=3, unique=True))
def test_several_errors_of_instances_change_no_other_annotation(picked: list[int]) -> None:
    """No annotation is lost or changed if no issue names it."""
    with tempfile.TemporaryDirectory() as name:
        data = instances(Path(name) / "data")
        content = data.load()
        for index in picked:
            try:
                CHANGES[index](content, content["annotations"][0], content["annotations"][1])
            except (LookupError, AttributeError, TypeError):  # an earlier change removed the value
                continue
        data.store(content)
        issues = check_instances(data.json_path, data.images, map)
        images, parts = list_named(issues)
        keys = ANNOTATION_KEYS[any(issue.code == "annotation-id-twice" for issue in issues) :]  # ids change then
        copy, _lines = repair_instances(data.json_path, data.images, Path(name) / "copy", map)
        copied = [get_values(entry, keys) for entry in Broken(copy, data.masks, data.images).load()["annotations"]]
        for annotation in content["annotations"]:
            if not isinstance(annotation, dict) or str(annotation["image_id"]) in images or "id" not in annotation:
                continue
            if (str(annotation["image_id"]), str(annotation["id"])) not in parts:
                assert get_values(annotation, keys) in copied
        again, _lines = repair_instances(copy, data.images, Path(name) / "again", map)
        assert again.read_bytes() == copy.read_bytes()


TABLES = st.lists(st.sampled_from([change for change, _panoptic, _instances in WRONG_IDS.values()]), max_size=3)
SIZES = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["height", "width"]), st.integers(-1, 20)), max_size=3)


@settings(max_examples=60, deadline=None)
@given(changes=TABLES, sizes=SIZES)
def test_wrong_ids_and_sizes_in_the_tables_change_nothing_else(changes, sizes) -> None:
    """Annotations, PNGs and images are valid, so that none of them changes."""
    for write, repair in ((panoptic, repair_scenes), (instances, repair_things)):
        with tempfile.TemporaryDirectory() as name:
            data = write(Path(name) / "data")
            content = data.load()
            for change in changes:
                change(content)
            for index, key, value in sizes:
                content["images"][index][key] = value
            data.store(content)
            copy = repair(data, Path(name) / "copy")
            assert copy.load()["annotations"] == content["annotations"]
            assert {image["id"] for image in copy.load()["images"]} == {image["id"] for image in content["images"]}
            again = repair(copy, Path(name) / "again")
            assert again.json_path.read_bytes() == copy.json_path.read_bytes()
            if write is panoptic:
                assert [copy.png(i).read_bytes() for i in range(IMAGES)] == [
                    data.png(i).read_bytes() for i in range(IMAGES)
                ]


def repair_scenes(data: Broken, folder: Path) -> Broken:
    json_path, masks, _lines = repair_panoptic(*data, folder, map)
    return Broken(json_path, masks, data.images)


def repair_things(data: Broken, folder: Path) -> Broken:
    return Broken(repair_instances(data.json_path, data.images, folder, map)[0], data.masks, data.images)


def get_values(annotation: Any, keys: tuple[str, ...]) -> Any:
    return {key: annotation.get(key) for key in keys} if isinstance(annotation, dict) else annotation


def test_all_segments_of_the_sample_are_clean() -> None:
    """Otherwise `check_segments` would check nothing."""
    assert all(
        is_clean({"id": s.segment_id, "category_id": s.category_id, "iscrowd": int(s.iscrowd)})
        for s in scene().segments
    )


def test_junk_values_are_repaired_or_raise_a_dataset_error(tmp_path: Path) -> None:
    outcomes = Counter[str]()
    for number, data in enumerate((panoptic(tmp_path / "a"), instances(tmp_path / "b"))):
        content = data.load()
        for table in ("images", "annotations", "categories"):
            content[table] = content[table][:1]
        for index, damaged in enumerate(junk(content)):
            data.store(damaged)
            output = tmp_path / f"{number} {index}"
            try:
                if number:
                    repair_instances(data.json_path, data.images, output, map)
                else:
                    repair_panoptic(*data, output, map)
                outcomes["repaired"] += 1
            except DatasetError:
                assert not output.exists()
                outcomes["rejected"] += 1
    assert outcomes["rejected"] > 50
    assert outcomes["repaired"] > 0.9 * outcomes.total()
