"""Options as text: values, grids, class names, and errors for invalid input."""

import pytest

from segkit.fusion import FUSION_METHODS
from segkit.scoring.fusion.options import GRIDS, build_grid, build_setting, get_defaults, to_plain_options
from segkit.structures import Category, CategorySet
from segkit.utils.errors import ConfigError
from tests.helpers.saved_heads import CATEGORIES


def test_values_are_yaml_and_classes_are_names_or_contiguous_ids() -> None:
    """cat, dog, cow are the things 0, 1, 2. YAML 1.1 takes 1e-1 for text: here it is a number."""
    texts = [
        "overlap_threshold=1e-1",
        "stuff_area_limit_px=10",
        "class_score_thresholds={cow: 0.6, 0: 7e-1}",
        "nms=mask",
    ]
    setting = build_setting("heuristic", texts, CATEGORIES)
    assert setting.changed() == {
        "overlap_threshold": 0.1,
        "stuff_area_limit_px": 10,
        "class_score_thresholds": {2: 0.6, 0: 0.7},
        "nms": "mask",
    }
    assert build_setting("heuristic", ["heuristic.nms=box"], CATEGORIES).changed() == {"nms": "box"}
    assert build_setting("heuristic", [], CATEGORIES).changed() == {}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["overlap=0.3"], r"no option \['overlap'\]"),
        (["overlap_threshold"], "expected option=value"),
        (["=3"], "expected option=value"),
        (["overlap_threshold=high"], "must be of type float"),
        (["overlap_threshold="], "must be of type float"),
        (["overlap_threshold=2"], r"\[0, 1\]"),
        (["nms={"], "expected a number"),
        (["nms=mask", "nms=box"], "twice"),
        (["other.nms=mask"], "is for the method 'other'"),
        (["class_score_thresholds={cowl: 0.5}"], "did you mean 'cow'"),
        (["class_score_thresholds={sky: 0.5}"], "no thing class 'sky'"),
    ],
)
def test_wrong_options_are_rejected(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_setting("heuristic", texts, CATEGORIES)


def test_the_grid_is_the_product_with_the_default_first() -> None:
    """2 x 2 values; the default (0.5, 4096) is not among them: 5 settings. stuff_area_limit_px has one value: the
    default has it too."""
    texts = ["overlap_threshold=0.3,0.4", "instance_score_threshold=0.6,0.7", "stuff_area_limit_px=8", "nms=none"]
    settings = build_grid(["heuristic"], texts, CATEGORIES)["heuristic"]
    assert [setting.changed() for setting in settings] == [
        {"stuff_area_limit_px": 8},
        {"overlap_threshold": 0.3, "stuff_area_limit_px": 8, "instance_score_threshold": 0.6},
        {"overlap_threshold": 0.3, "stuff_area_limit_px": 8, "instance_score_threshold": 0.7},
        {"overlap_threshold": 0.4, "stuff_area_limit_px": 8, "instance_score_threshold": 0.6},
        {"overlap_threshold": 0.4, "stuff_area_limit_px": 8, "instance_score_threshold": 0.7},
    ]


def test_options_of_one_method_override_common_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FUSION_METHODS, "twin", FUSION_METHODS["heuristic"])
    texts = ["twin.nms=box", "nms=none", "overlap_threshold=0.5", "stuff_area_limit_px=1", "instance_score_threshold=0"]
    settings = build_grid(["heuristic", "twin"], texts, CATEGORIES)
    assert [
        [option_setting.options()["nms"] for option_setting in settings[name]] for name in ("heuristic", "twin")
    ] == [["none"], ["box"]]


def test_every_method_has_a_grid_with_its_default() -> None:
    for name, settings in build_grid([*FUSION_METHODS], [], CATEGORIES).items():
        assert settings[0].changed() == {}
        searched = [option for option in get_defaults(name) if option in GRIDS]
        product = 1
        for option in searched:
            product *= len(GRIDS[option])
        assert product <= len(settings) <= product + 1
    assert len(build_grid(["heuristic"], [], CATEGORIES)["heuristic"]) == 200  # 5 scores x 5 overlaps x 4 areas x 2


def test_values_of_a_mapping_keep_their_commas() -> None:
    texts = ["class_score_thresholds={cow: 0.5, dog: 0.6},{}"]
    values = {
        str(option_setting.options()["class_score_thresholds"])
        for option_setting in build_grid(["heuristic"], texts, CATEGORIES)["heuristic"]
    }
    assert values == {"{2: 0.5, 1: 0.6}", "{}"}


@pytest.mark.parametrize(
    ("names", "texts", "message"),
    [
        (["nothing"], [], "unknown fusion method 'nothing'"),
        (["heuristic", "heuristic"], [], "each method once"),
        (["heuristic"], ["overlap=1"], "none of the methods .* has this option; heuristic has"),
        (["heuristic"], ["upsnet.nms=box"], "none of the methods"),
        (["heuristic"], ["nms="], "got no value"),
        (["heuristic"], ["nms=box", "nms=mask"], "twice"),
        (["heuristic"], ["nms=box,boxes"], "nms must be one of"),
    ],
)
def test_wrong_grids_are_rejected(names: list[str], texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_grid(names, texts, CATEGORIES)


def test_options_are_reported_with_names_that_read_back() -> None:
    """Two thing classes with the same name are distinguished by their contiguous ids."""
    color = (0, 0, 0)
    twins = CategorySet(
        [Category(3, "cup", True, color), Category(4, "bowl", True, color), Category(9, "cup", True, color)]
    )
    options = {"class_score_thresholds": {0: 0.1, 1: 0.2, 2: 0.3}, "nms": "box"}
    messages = to_plain_options(options, twins)
    assert messages == {"class_score_thresholds": {"0": 0.1, "bowl": 0.2, "2": 0.3}, "nms": "box"}
    text = f"class_score_thresholds={messages['class_score_thresholds']}"
    assert build_setting("heuristic", [text], twins).options()["class_score_thresholds"] == {0: 0.1, 1: 0.2, 2: 0.3}
