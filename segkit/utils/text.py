"""Texts of messages."""

from __future__ import annotations

from collections.abc import Iterable

MAX_LISTED = 5  # items in one message


def abbreviate(items: Iterable[object]) -> str:
    """List the first items for a message: `3, 7, 8, 9, 11 and 12 more`.

    Args:
        items: any objects, shown by repr.

    Returns:
        The text; empty without items.
    """
    items = list(items)
    more = f" and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
    return ", ".join(repr(item) for item in items[:MAX_LISTED]) + more
