"""Names of classes in options become contiguous ids."""

from __future__ import annotations

import pytest

from segkit.fusion.class_keys import by_contiguous_id
from segkit.structures import ConfigError

THINGS = {0: "person", 1: "tie", 2: "7"}


def test_names_and_ids_become_contiguous_ids_and_other_options_stay() -> None:
    """The class named "7" is found by its name, though 7 looks like an id."""
    given = {"score_threshold_of": {"tie": 0.3, 0: 0.6, "7": 0.1}, "overlap_threshold": 0.4}
    assert by_contiguous_id(given, THINGS) == {"score_threshold_of": {1: 0.3, 0: 0.6, 2: 0.1}, "overlap_threshold": 0.4}
    assert by_contiguous_id({}, THINGS) == {}


@pytest.mark.parametrize(("key", "remedy"), [("tye", "did you mean 'tie'"), (3, "the things"), (True, "the things")])
def test_unknown_classes_are_refused(key: object, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        by_contiguous_id({"score_threshold_of": {key: 0.5}}, THINGS)
