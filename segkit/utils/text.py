"""Texts of messages."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_LISTED = 5  # items in one message
LOW_SURROGATES = 0xDC00  # Python reads byte b of a name that is not UTF-8 as the character LOW_SURROGATES + b
# Control characters, marks and overrides of the writing direction, other line ends, the byte order mark, and halves of
# surrogate pairs, which no encoding has.
UNPRINTABLE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff\\ud800-\\udfff]"
)


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


def make_printable(text: object, keep: str = "") -> str:
    r"""Escape what could command a terminal or hide text: names of files and classes are written by strangers.

    Control characters become `\x1b` and the like, marks of the writing direction `\u202e`, and a byte of a file name
    that is not UTF-8 `\xff`. All other characters stay as they are, backslashes too.

    Args:
        text: any object, shown by str.
        keep: characters that stay, such as line ends.

    Returns:
        The text, which every UTF-8 terminal shows as it is.
    """
    return UNPRINTABLE.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), str(text))


def _escape(character: str) -> str:
    byte = ord(character) - LOW_SURROGATES
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape", "surrogatepass").decode()
