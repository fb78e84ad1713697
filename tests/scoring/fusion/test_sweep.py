"""The counts of a sweep are bit-equal to fusing, writing and evaluating each setting separately."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.formats import head_outputs
from segkit.fusion import FUSION_METHODS, FusionMethod, build_fusion
from segkit.metrics import PanopticQuality
from segkit.metrics.panoptic import counts as counting
from segkit.scoring.fusion import sweep as fusion_sweep
from segkit.scoring.fusion.options import Setting, build_grid
from segkit.scoring.fusion.run import fuse_to_dataset, run_fusion
from segkit.scoring.fusion.sweep import SweepData, count_settings
from segkit.scoring.panoptic import score_panoptic
from segkit.structures import VOID
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers.saved_heads import CATEGORIES, outputs, write

AREA = "stuff_area_limit_px"
# Of each: values that differ on these small images.
VALUES = ("instance_score_threshold=0.3,0.5", "object_mask_threshold=0.3,0.6", "overlap_threshold=0.4,0.8")


def small_grid(name: str) -> list[Setting]:
    option_names = {field.name for field in fields(FUSION_METHODS[name])}  # type: ignore[arg-type]
    texts = [text for text in VALUES if text.partition("=")[0] in option_names]
    return build_grid([name], [*texts, *([f"{AREA}=0,30,150,350"] if AREA in option_names else [])], CATEGORIES)[name]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write(tmp_path_factory.mktemp("fusion"), 7)


@pytest.fixture(scope="module")
def sweep_data(files: tuple[Path, Path]) -> SweepData:
    return SweepData.open(*files)


@pytest.mark.parametrize("name", sorted(FUSION_METHODS))
def test_a_sweep_scores_the_same_as_run_and_evaluate(
    name: str, files: Any, sweep_data: SweepData, tmp_path: Path
) -> None:
    tried = small_grid(name)
    image_ids = {record.image_id for record in sweep_data.ground_truth.records}
    result = count_settings(sweep_data, tried, {"all": image_ids})["all"]
    numbers = set()
    for place, setting in enumerate(tried):
        run_fusion(sweep_data.saved, setting.fusion, tmp_path / str(place))
        scored = score_panoptic(files[1], tmp_path / str(place) / "panoptic.json")
        expected = scored.metric.compute(scored.image_order)
        averages = counting.averages(result[place], sweep_data.categories)
        assert averages == {key: expected[key] for key in averages}
        for row, category in enumerate(sweep_data.categories.categories):
            per_class = expected["per_class"][str(category.category_id)]
            assert [per_class[key] for key in ("tp", "fp", "fn")] == [
                getattr(result[place], key)[row] for key in ("tp", "fp", "fn")
            ]
        numbers.add(averages["PQ"])
    assert len(numbers) > 1  # the settings are no copies of one another


@pytest.mark.parametrize("name", sorted(FUSION_METHODS))
@given(seed=st.integers(0, 10**6), limit=st.integers(0, 400), smaller=st.integers(0, 400))
@settings(max_examples=25, deadline=None)
def test_the_area_limit_is_applied_last(name: str, seed: int, limit: int, smaller: int) -> None:
    """Fusion with the smaller limit, after which small stuff is made void, equals fusion with the larger limit.

    This holds for every method that does not opt out.
    """
    method = FUSION_METHODS[name]
    if AREA not in {field.name for field in fields(method)} or not getattr(method, "area_limit_is_last", True):
        pytest.skip("has no such limit, or says so")
    low, high = sorted((smaller, limit))
    one = outputs(seed)
    loose, strict = (
        fuse_to_dataset(build_fusion(name, **{AREA: float(value)}), one, CATEGORIES) for value in (low, high)
    )
    remaining = [s for s in loose.segments if s.isthing or s.area_px >= high]
    ids = loose.segment_ids
    derived = (
        np.select([ids == s.segment_id for s in remaining], range(1, len(remaining) + 1), VOID)
        if remaining
        else ids * 0
    )
    assert np.array_equal(derived, strict.segment_ids)
    renumbered = tuple(replace(s, segment_id=i) for i, s in enumerate(remaining, 1))
    assert renumbered == strict.segments


def test_a_method_can_declare_that_it_applies_the_limit_earlier(
    sweep_data: SweepData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fusion is used for both limits, unless the method declares that it does not apply the limit last."""
    tried = build_grid(
        ["heuristic"],
        [f"{AREA}=5,200", "nms=none", "overlap_threshold=0.5", "instance_score_threshold=0.4"],
        CATEGORIES,
    )
    fused: list[float] = []

    def counted(fusion: Any, *rest: Any, **where: Any) -> Any:
        fused.append(fusion.stuff_area_limit_px)
        return fuse_to_dataset(fusion, *rest, **where)

    monkeypatch.setattr(fusion_sweep, "fuse_to_dataset", counted)
    image_id = sweep_data.ground_truth.records[0].image_id
    once = count_settings(sweep_data, tried["heuristic"][1:], {"all": {image_id}})["all"]
    assert fused == [5]
    monkeypatch.setattr(FUSION_METHODS["heuristic"], "area_limit_is_last", False, raising=False)
    fused.clear()
    twice = count_settings(sweep_data, tried["heuristic"][1:], {"all": {image_id}})["all"]
    assert fused == [5, 200]
    for one, other in zip(once, twice, strict=True):
        assert all(np.array_equal(getattr(one, key), getattr(other, key)) for key in ("iou", "tp", "fp", "fn"))


def test_groups_count_only_their_images_and_equal_settings_twice(sweep_data: SweepData) -> None:
    tried = [*small_grid("heuristic")[:3], small_grid("heuristic")[0]]
    ids = [record.image_id for record in sweep_data.ground_truth.records]
    groups = {"all": {*ids}, "first": {*ids[:3]}, "rest": {*ids[3:]}, "none": set()}
    result = count_settings(sweep_data, tried, groups)
    for place, setting in enumerate(tried):
        metric = PanopticQuality(sweep_data.categories)
        for record in sweep_data.ground_truth.records[:3]:
            metric.add(record.image_id, sweep_data.overlaps(record, [setting.fusion])[0])
        expected = metric.compute(ids[:3])
        averages = counting.averages(result["first"][place], sweep_data.categories)
        assert averages == {key: expected[key] for key in averages}
        total, parts = result["all"][place], (result["first"][place], result["rest"][place])
        assert all(np.array_equal(getattr(total, k), sum(getattr(p, k) for p in parts)) for k in ("tp", "fp", "fn"))
        assert not any(getattr(result["none"][place], k).any() for k in ("iou", "tp", "fp", "fn"))


def test_the_number_of_workers_changes_no_result(sweep_data: SweepData) -> None:
    ids = {record.image_id for record in sweep_data.ground_truth.records}
    one, two = (count_settings(sweep_data, small_grid("heuristic"), {"all": ids}, workers=n)["all"] for n in (1, 2))
    for first, second in zip(one, two, strict=True):
        assert all(np.array_equal(getattr(first, key), getattr(second, key)) for key in ("iou", "tp", "fp", "fn"))


def test_each_image_is_read_once(sweep_data: SweepData, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    real = head_outputs.SavedHeadOutputs.read
    monkeypatch.setattr(
        head_outputs.SavedHeadOutputs, "read", lambda self, image: (read.append(image.image_id), real(self, image))[1]
    )
    ids = {record.image_id for record in sweep_data.ground_truth.records}
    seen: list[tuple[int, int]] = []
    count_settings(sweep_data, small_grid("heuristic"), {"a": ids, "b": ids}, progress=lambda *at: seen.append(at))
    assert sorted(map(str, read)) == sorted(map(str, ids))
    assert seen == [(i, 7) for i in range(1, 8)]


@pytest.fixture
def broken(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path, 4)


def change(path: Path, how: Any) -> None:
    content = json.loads(path.read_text())
    how(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda c: c["categories"][0].update(name="cloud"), r"same categories in both, 2 differ: .*'cloud'"),
        (lambda c: c["categories"][0].update(isthing=1), "same categories in both, 1 differ: .*'sky'"),
        (lambda c: (c["annotations"].pop(), c["images"].pop(_last(c))), "1 of the 4 saved images have no ground truth"),
        (lambda c: _rename(c, "image 0", "no image"), "1 of the 4 ground-truth images are not saved: 'no image'"),
    ],
)
def test_ground_truth_and_predictions_of_different_data(broken: Any, how: Any, message: str) -> None:
    change(broken[1], how)
    with pytest.raises(DatasetError, match=message):
        SweepData.open(*broken)


def _last(content: Any) -> int:
    left = {annotation["image_id"] for annotation in content["annotations"]}
    return next(i for i, image in enumerate(content["images"]) if image["id"] not in left)


def _rename(content: Any, old: str, new: str) -> None:
    for table, key in (("images", "id"), ("annotations", "image_id")):
        for entry in content[table]:
            entry[key] = new if entry[key] == old else entry[key]


def test_categories_with_other_colours_are_equal(broken: Any) -> None:
    change(broken[1], lambda content: [category.update(color=[1, 2, 3]) for category in content["categories"]])
    assert len(SweepData.open(*broken).ground_truth.records) == 4


def test_missing_files_are_reported(broken: Any, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder of PNGs"):
        SweepData.open(*broken, tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="nowhere"):
        SweepData.open(tmp_path / "nowhere", broken[1])
    sweep_data = SweepData.open(*broken)
    ids = {record.image_id for record in sweep_data.ground_truth.records}
    (broken[0] / "0.npz").write_bytes(b"PK")
    next((broken[1].parent / "ground_truth").glob("1.png")).unlink()
    with pytest.raises(DatasetError, match=r"2 problems:\n- .*1\.png.*\n- .*0\.npz"):
        count_settings(sweep_data, small_grid("heuristic"), {"all": ids})


def test_a_map_of_another_size_is_reported(broken: Any) -> None:
    from PIL import Image

    path = broken[1].parent / "ground_truth/0.png"
    Image.open(path).resize((64, 48), 0).save(path)
    sweep_data = SweepData.open(*broken)
    with pytest.raises(DatasetError, match=r"48 x 64.*24 x 32"):
        count_settings(sweep_data, small_grid("heuristic"), {"all": {"image 0"}})


def test_missing_inputs_of_a_method_are_not_dataset_errors(
    sweep_data: SweepData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_issue(self: FusionMethod, one: Any, rejections: Any) -> Any:
        raise ConfigError("needs more")

    tried = small_grid("heuristic")
    monkeypatch.setattr(FUSION_METHODS["heuristic"], "fuse", raise_issue)
    with pytest.raises(ConfigError, match=r"0\.npz, image 'image 0': needs more"):
        count_settings(sweep_data, tried, {"all": {"image 0"}})
