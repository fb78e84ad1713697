"""YAML of plain values. Reading it ends soon, with a value or an error of one line, whoever has written it."""

from __future__ import annotations

from typing import Any

from segkit.utils.errors import ConfigError

MAX_DEPTH = 50  # mappings and lists inside of each other
MAX_VALUES = 100_000  # after aliases are replaced by what they stand for


def parse_yaml(text: str | bytes, where: object = "") -> Any:
    """Parse YAML without running code.

    Args:
        text: one YAML document; bytes are UTF-8 or UTF-16.
        where: the file or option, for the message.

    Returns:
        Mappings, lists, texts, numbers, bools, dates and None.

    Raises:
        ConfigError: the text is no YAML, has tags that would run code, is nested too deeply or holds too much.
    """
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count_nodes(node, 0, MAX_DEPTH)  # before values are built: keys that are merged (<<) multiply them
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-99-99
        is_deep = isinstance(error, RecursionError)
        detail = f"more than {MAX_DEPTH} levels of nesting" if is_deep else " ".join(str(error).split())
        raise ConfigError(f"expected YAML of plain values: {detail}", where=where) from None


def _count_nodes(node: Any, count: int, depth: int) -> int:
    """The number of values, added to `count`. RecursionError or ValueError if they are too deep or too many."""
    if depth < 0:
        raise RecursionError
    if count > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values, with aliases replaced")
    if isinstance(node.value, str):
        return count + 1
    for item in node.value:
        for child in item if isinstance(item, tuple) else (item,):
            count = _count_nodes(child, count, depth - 1)
    return count + 1
