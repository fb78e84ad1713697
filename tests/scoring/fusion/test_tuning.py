"""Tuning: splits, best setting, class thresholds, Pareto front; the held-out split is not used for the choice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segkit.fusion import FusionMethod, HeuristicFusion
from segkit.metrics import PanopticQuality
from segkit.metrics.panoptic.bootstrap import compare, confidence_intervals
from segkit.scoring.fusion import tuning as fusion_choice
from segkit.scoring.fusion.options import Setting, build_grid
from segkit.scoring.fusion.sweep import SweepData
from segkit.scoring.fusion.tuning import (
    NUMBERS,
    choose_tuning_split,
    find_best_setting,
    find_pareto_front,
    search,
    tune_class_thresholds,
)
from segkit.structures import HeadOutputs, PanopticSegmentation
from segkit.utils.errors import DatasetError
from tests.helpers.saved_heads import CATEGORIES, write

TEXTS = ["stuff_area_limit_px=1,60", "overlap_threshold=0.5,0.8", "instance_score_threshold=0.3,0.4,0.6", "nms=none"]
image_ids = st.lists(st.one_of(st.integers(0, 999), st.text(max_size=3)), min_size=2, unique=True)


@pytest.fixture(scope="module")
def sweep_data(tmp_path_factory: pytest.TempPathFactory) -> SweepData:
    return SweepData.open(*write(tmp_path_factory.mktemp("fusion"), 9))


@given(ids=image_ids, seed=st.integers(0, 9), data=st.data())
def test_splits_do_not_depend_on_the_order(ids: list[Any], seed: int, data: Any) -> None:
    chosen = choose_tuning_split(ids, seed)
    assert chosen == choose_tuning_split(data.draw(st.permutations(ids)), seed)
    assert chosen < {*ids}
    assert len(chosen) == len(ids) // 2


def test_splits_are_always_the_same_and_differ_by_seed() -> None:
    """By the sha256 of "0 1", "0 2", ...; a change would make old and new sweeps disagree."""
    assert sorted(choose_tuning_split(range(1, 9), 0)) == [1, 2, 4, 6]
    splits = {frozenset(choose_tuning_split(range(20), seed)) for seed in range(5)}
    assert len(splits) == 5
    assert choose_tuning_split([1, "1"], 0) != {1, "1"}


@pytest.mark.parametrize("ids", [[], [7]])
def test_one_image_cannot_be_halved(ids: list[int]) -> None:
    with pytest.raises(DatasetError, match=f"at least 2 images, .* got {len(ids)}"):
        choose_tuning_split(ids)


def test_the_best_setting_has_the_highest_pq_then_fewest_changes_then_comes_first() -> None:
    default, changed = Setting("heuristic", HeuristicFusion()), Setting("heuristic", HeuristicFusion(0.3))
    two = Setting("heuristic", HeuristicFusion(0.3, nms="box"))
    pq = [{"PQ": 40.0}, {"PQ": 50.0}, {"PQ": 50.0}, {"PQ": 50.0}, {"PQ": None}]
    assert find_best_setting([default, two, changed, changed, default], pq) == 2
    none = [{"PQ": None}, {"PQ": None}]
    assert find_best_setting([default, two], none) == 0
    assert (
        find_best_setting([two, default], none) == 0
    )  # the first is what is used today, whatever the method's defaults


def test_the_pareto_front_holds_undominated_settings() -> None:
    """(2, 2) is beaten by (3, 2); the twins (1, 5) stay both; NaN counts as below all, and (NaN, 6) leads in one."""
    points = np.array([[1, 5], [2, 2], [3, 2], [1, 5], [0, 0], [np.nan, 6], [np.nan, 5]])
    assert find_pareto_front(points).tolist() == [True, False, True, True, False, True, False]
    assert find_pareto_front(np.zeros((0, 2))).tolist() == []
    assert find_pareto_front(np.full((2, 2), np.nan)).tolist() == [True, True]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_the_pareto_front_equals_the_definition(points: list[tuple[int, int]]) -> None:
    beaten = [any(o != p and o[0] >= p[0] and o[1] >= p[1] for o in points) for p in points]
    assert find_pareto_front(np.array(points, dtype=float).reshape(-1, 2)).tolist() == [not one for one in beaten]


def build_metric(sweep_data: SweepData, fusion: Any, ids: set[Any]) -> PanopticQuality:
    metric = PanopticQuality(sweep_data.categories)
    for record in sweep_data.ground_truth.records:
        if record.image_id in ids:
            metric.add(record.image_id, sweep_data.overlaps(record, [fusion])[0])
    return metric


def test_the_search_equals_its_steps_done_one_by_one(sweep_data: SweepData) -> None:
    tried = build_grid(["heuristic"], TEXTS, CATEGORIES)
    result = search(sweep_data, tried, seed=3)
    every = {record.image_id for record in sweep_data.ground_truth.records}
    order = [record.image_id for record in sweep_data.ground_truth.records]
    chosen = choose_tuning_split(order, 3)
    assert result["images"] == {"all": 9, "tuning": 4, "held_out": 5}
    assert len(result["settings"]) == 13
    for setting, messages in zip(tried["heuristic"], result["settings"], strict=True):
        assert messages["options"] == setting.options()
        for name, ids in (("all", every), ("tuning", chosen), ("held_out", every - chosen)):
            expected = build_metric(sweep_data, setting.fusion, ids).compute([i for i in order if i in ids])
            assert messages[name] == {key: expected[key] for key in NUMBERS}
    assert [one["default"] for one in result["settings"]] == [True] + [False] * 12
    best = max(one["tuning"]["PQ"] for one in result["settings"])
    steps = result["methods"]["heuristic"]
    assert steps["tuned"]["tuning"]["PQ"] == best > steps["default"]["tuning"]["PQ"]
    assert steps["per_class"] is None
    assert result["best"] == {"method": "heuristic", "step": "tuned"}
    tuned = next(s for s in tried["heuristic"] if s.options() == steps["tuned"]["options"])
    tables = [
        build_metric(sweep_data, s.fusion, every - chosen).table([i for i in order if i in every - chosen])
        for s in (tried["heuristic"][0], tuned)
    ]
    for table, step in zip(tables, ("default", "tuned"), strict=True):
        intervals = confidence_intervals(table, sweep_data.categories, seed=3)
        assert {key: steps[step]["held_out"][key] for key in NUMBERS} == {key: intervals[key] for key in NUMBERS}
    gain = compare(*tables, sweep_data.categories, seed=3)
    assert {key: steps["tuned"]["gain"][key] for key in (*NUMBERS, "images")} == {
        key: gain[key] for key in (*NUMBERS, "images")
    }
    assert "gain" not in steps["default"]


def test_the_held_out_split_does_not_influence_the_choice(
    sweep_data: SweepData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the held-out ground truth is all void, the same setting is chosen."""
    tried = build_grid(["heuristic"], TEXTS, CATEGORIES)
    chosen = choose_tuning_split([record.image_id for record in sweep_data.ground_truth.records], 0)
    before = search(sweep_data, tried, per_class=True)
    real = SweepData.overlaps

    def blind(self: SweepData, record: Any, fusions: Any) -> Any:
        result = real(self, record, fusions)
        if record.image_id in chosen:
            return result
        return [replace(one, ground_truth=one.ground_truth[:0], pairs=one.pairs[:0]) for one in result]

    monkeypatch.setattr(SweepData, "overlaps", blind)
    after = search(sweep_data, tried, per_class=True)
    assert after["methods"]["heuristic"]["tuned"]["held_out"]["PQ"]["value"] == 0
    for step in ("default", "tuned", "per_class"):
        one, other = (result["methods"]["heuristic"][step] for result in (before, after))
        assert (one is None) == (other is None)
        if one is not None:
            assert (one["options"], one["tuning"]) == (other["options"], other["tuning"])


def test_thresholds_by_class_raise_each_class_and_the_whole(sweep_data: SweepData) -> None:
    every = {record.image_id for record in sweep_data.ground_truth.records}
    poor = Setting("heuristic", HeuristicFusion(stuff_area_limit_px=1, instance_score_threshold=0.7))
    setting_with_thresholds = tune_class_thresholds(sweep_data, poor, every)
    assert setting_with_thresholds is not None
    setting, numbers = setting_with_thresholds
    scores = setting.options()["class_score_thresholds"]
    assert scores
    assert setting.options() == {**poor.options(), "class_score_thresholds": scores}
    before, after = (build_metric(sweep_data, s.fusion, every).compute([*every]) for s in (poor, setting))
    assert numbers["PQ"] == pytest.approx(after["PQ"])
    assert after["PQ"] > before["PQ"]
    for class_id, thing in enumerate(CATEGORIES.things):
        one, other = (result["per_class"][str(thing.category_id)]["PQ"] for result in (before, after))
        assert other > one or class_id not in scores


def test_thresholds_by_class_without_gain_are_not_used(sweep_data: SweepData) -> None:
    """Nothing gets better for a method without such an option, nor where every threshold gives the same."""

    @dataclass(frozen=True)
    class OfNoOptions(FusionMethod):
        def fuse(self, outputs: HeadOutputs, rejections: Any) -> PanopticSegmentation:
            return HeuristicFusion()(outputs)

    every = {record.image_id for record in sweep_data.ground_truth.records}
    assert tune_class_thresholds(sweep_data, Setting("heuristic", OfNoOptions()), every) is None
    fixed = HeuristicFusion(stuff_area_limit_px=1, class_score_thresholds={0: 0.4, 1: 0.4, 2: 0.4})
    assert tune_class_thresholds(sweep_data, Setting("heuristic", fixed), every) is None
    result = search(sweep_data, {"heuristic": [Setting("heuristic", fixed)]}, per_class=True)
    assert result["methods"]["heuristic"]["per_class"] is None
    assert result["best"]["step"] == "tuned"


def test_the_nearest_of_equal_thresholds_is_chosen() -> None:
    """Class 0: 0.6 and 0.8 are best, 0.6 is nearer to 0.5. Class 1: none beats the common one. Columns: common, then
    0.1 to 0.9."""
    quality = np.array([[0.5, 0, 0, 0, 0.5, 0.5, 0.7, 0.6, 0.7, 0], [0.9, 0, 0, 0, 0, 0.9, 0.9, 0, 0, 0]]).T
    assert fusion_choice._find_best_thresholds(quality, 0.5) == {0: 0.6}


def test_two_images_are_enough_for_numbers_but_not_for_intervals(tmp_path: Path) -> None:
    sweep_data = SweepData.open(*write(tmp_path, 2))
    result = search(sweep_data, build_grid(["heuristic"], TEXTS, CATEGORIES))
    tuned = result["methods"]["heuristic"]["tuned"]
    assert tuned["held_out"]["PQ"]["value"] is not None
    assert tuned["held_out"]["PQ"]["low"] is None
    assert "at least 2" in tuned["gain"]["reason"]
