"""YAML of strangers: a value, or an error of one line, and soon."""

from __future__ import annotations

import pytest

from segkit.utils.errors import ConfigError
from segkit.utils.yaml_text import MAX_DEPTH, parse_yaml

BOMB = "\n".join(["k0: &k0 [x]", *(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9)}]" for i in range(1, 30))])

MERGED = "\n".join(["k0: &k0 {a: 1}", *(f"k{i}: &k{i} {{<<: [*k{i - 1}, *k{i - 1}]}}" for i in range(1, 30))])


@pytest.mark.parametrize("text", ["a: {b: [1, 2.5, x]}", b"a: {b: [1, 2.5, x]}"])
def test_plain_values(text: str | bytes) -> None:
    assert parse_yaml(text) == {"a": {"b": [1, 2.5, "x"]}}


def test_aliases_merged_keys_and_an_empty_document_are_read() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a]") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": [{"x": 1}],
    }
    assert parse_yaml("") is None
    assert parse_yaml("# a comment") is None


def test_nesting_up_to_the_limit_is_read() -> None:
    assert parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "expected YAML of plain values: while parsing"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: 2024-99-99", "month must be in"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), f"more than {MAX_DEPTH} levels of nesting"),
        ("[" * 20_000, f"more than {MAX_DEPTH} levels of nesting"),
        ("a: &a [*a, *a]", f"more than {MAX_DEPTH} levels of nesting"),
        (BOMB, "with aliases replaced"),
        (MERGED, "with aliases replaced"),
        (b"a: \xff\xfe\x00", "expected YAML of plain values"),
    ],
    ids=["syntax", "code", "date", "deep", "very deep", "circle", "many aliases", "many merged keys", "encoding"],
)
def test_errors_are_one_line_that_names_the_file(text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        parse_yaml(text, "c.yaml")
    assert str(raised.value).startswith("c.yaml: ")
    assert "\n" not in str(raised.value)
