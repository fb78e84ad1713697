"""All errors of a run's files are reported at once, up to a limit."""

import pytest

from segkit.utils.errors import DatasetError
from segkit.utils.issues import DEFAULT_LIMIT, ErrorCollector


def test_no_error_raises_nothing():
    problems = ErrorCollector()
    with problems.guard():
        pass
    problems.check()
    assert len(problems) == 0


def test_a_single_error_is_raised_unchanged():
    problems = ErrorCollector()
    with problems.guard():
        raise DatasetError("expected a, got b", where="x.png", remedy="write it again")
    with pytest.raises(DatasetError) as caught:
        problems.check()
    assert str(caught.value) == "x.png: expected a, got b; write it again"


def test_several_errors_are_numbered_in_order():
    problems = ErrorCollector()
    for name in "cab":
        with problems.guard():
            raise DatasetError("wrong", where=name)
    assert len(problems) == 3
    with pytest.raises(DatasetError, match=r"^3 problems: \[1\] c: wrong \[2\] a: wrong \[3\] b: wrong$"):
        problems.check()


def test_collecting_stops_at_the_limit():
    problems = ErrorCollector(limit=2)
    problems.add(DatasetError("first"))
    with pytest.raises(DatasetError, match=r"^2 problems found, the search stopped here: \[1\] first \[2\] second$"):
        problems.add(DatasetError("second"))
    guarded = ErrorCollector(limit=1)
    with pytest.raises(DatasetError, match=r"^1 problems found, .*: \[1\] first$"), guarded.guard():
        raise DatasetError("first")


def test_there_is_a_default_limit():
    problems = ErrorCollector()
    for _ in range(DEFAULT_LIMIT - 1):
        problems.add(DatasetError("wrong"))
    with pytest.raises(DatasetError, match=f"^{DEFAULT_LIMIT} problems found"):
        problems.add(DatasetError("wrong"))


def test_other_errors_pass_through():
    problems = ErrorCollector()
    with pytest.raises(ValueError, match="misuse"), problems.guard():
        raise ValueError("misuse")
    problems.check()


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_at_least_one(limit):
    with pytest.raises(ValueError, match=f"limit must be at least 1, got {limit}"):
        ErrorCollector(limit)
