"""Text of messages: lists cut short."""

from __future__ import annotations

from collections.abc import Iterable

MAX_LISTED = 5  # items in one message


def abbreviate(items: Iterable[object]) -> str:
    """The first items, for a message: `3, 7 and 12 more`."""
    items = list(items)
    more = f" and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
    return ", ".join(repr(item) for item in items[:MAX_LISTED]) + more
