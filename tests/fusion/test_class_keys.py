"""Class names in options are converted to contiguous ids."""

from __future__ import annotations

import pytest

from segkit.fusion.class_keys import resolve_class_keys
from segkit.utils.errors import ConfigError

THINGS = {0: "person", 1: "tie", 2: "7"}


def test_class_names_and_ids_become_contiguous_ids() -> None:
    """The class named "7" is found by its name, though 7 looks like an id."""
    given = {"class_score_thresholds": {"tie": 0.3, 0: 0.6, "7": 0.1}, "overlap_threshold": 0.4}
    assert resolve_class_keys(given, THINGS) == {
        "class_score_thresholds": {1: 0.3, 0: 0.6, 2: 0.1},
        "overlap_threshold": 0.4,
    }
    assert resolve_class_keys({}, THINGS) == {}


@pytest.mark.parametrize(("key", "remedy"), [("tye", "did you mean 'tie'"), (3, "the things"), (True, "the things")])
def test_unknown_classes_are_rejected(key: object, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        resolve_class_keys({"class_score_thresholds": {key: 0.5}}, THINGS)


@pytest.mark.parametrize("key", ["²", "01", "1" * 5000, 1.0, None])
def test_invalid_class_keys_are_rejected(key: object) -> None:
    with pytest.raises(ConfigError, match="option 'class_score_thresholds' has no thing class"):
        resolve_class_keys({"class_score_thresholds": {key: 0.5}}, THINGS)


def test_a_class_named_twice_is_rejected() -> None:
    with pytest.raises(ConfigError, match="option 'class_score_thresholds' has the thing class 'tie' twice"):
        resolve_class_keys({"class_score_thresholds": {"tie": 0.3, 1: 0.4}}, THINGS)


def test_an_ambiguous_class_name_is_rejected() -> None:
    twins = {0: "bat", 1: "bat"}
    with pytest.raises(ConfigError, match=r"several things have the name 'bat'; give an id of \[0, 1\]"):
        resolve_class_keys({"class_score_thresholds": {"bat": 0.3}}, twins)
    assert resolve_class_keys({"class_score_thresholds": {"1": 0.3}}, twins) == {"class_score_thresholds": {1: 0.3}}
