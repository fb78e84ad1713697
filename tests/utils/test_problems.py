"""All errors of a run's files are reported at once, up to a limit."""

import pytest

from segkit.utils.errors import DatasetError
from segkit.utils.issues import DEFAULT_LIMIT, LINE_START, ErrorCollector


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


def collect(*errors):
    """Returns the message of several errors, line by line."""
    problems = ErrorCollector()
    for error in errors:
        problems.add(error)
    with pytest.raises(DatasetError) as caught:
        problems.check()
    return str(caught.value).split(LINE_START)


def test_several_kinds_have_a_line_each_in_order():
    lines = collect(*(DatasetError(problem, where=name) for name, problem in (("c", "wrong"), ("a", "worse"))))
    assert lines == ["2 problems:", "c: wrong", "a: worse"]


def test_many_errors_of_a_kind_are_one_line_with_the_first_places():
    empty = [DatasetError(f"expected 'x', got '{n}' in [{n}, 2]", where=f"{n}.png", remedy="draw it") for n in range(7)]
    lines = collect(empty[0], DatasetError("missing", where="a"), *empty[1:], DatasetError("missing", where="b"))
    assert lines == [
        "9 problems:",
        "7 times: 0.png: expected 'x', got '0' in [0, 2]; draw it (also at 1.png, 2.png and 4 more)",
        "2 times: a: missing (also at b)",
    ]


def test_errors_of_one_text_and_two_codes_are_two_kinds():
    assert len(collect(DatasetError("wrong", where="a", code="x"), DatasetError("wrong", where="a", code="y"))) == 3


def test_errors_without_a_place_are_one_kind_only_if_they_are_equal():
    lines = collect(DatasetError("a.json: got 1"), DatasetError("a.json: got 2"), DatasetError("a.json: got 1"))
    assert lines == ["3 problems:", "2 times: a.json: got 1", "a.json: got 2"]


def test_collecting_stops_at_the_limit():
    problems = ErrorCollector(limit=2)
    problems.add(DatasetError("first"))
    with pytest.raises(DatasetError, match=r"^2 problems found, the search stopped here:\n- first\n- second$"):
        problems.add(DatasetError("second"))
    guarded = ErrorCollector(limit=1)
    with pytest.raises(DatasetError, match=r"^1 problems found, .*:\n- first$"), guarded.guard():
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
