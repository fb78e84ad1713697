"""Texts of messages."""

from __future__ import annotations

import difflib
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


def find_similar(name: object, known: Iterable[str], most: int = 1) -> list[str]:
    """Find the known names that are most like an unknown one, in whatever case.

    Args:
        name: what the user wrote.
        known: the names that exist.
        most: how many to return.

    Returns:
        Up to `most` of the known names, the most similar first.
    """
    by_lower_case = {text.lower(): text for text in sorted(known)}
    return [by_lower_case[match] for match in difflib.get_close_matches(str(name).lower(), by_lower_case, n=most)]


def suggest(name: object, known: Iterable[str], otherwise: str = "") -> str:
    """Ask whether a known name was meant.

    Args:
        name: what the user wrote.
        known: the names that exist.
        otherwise: the remedy if none is similar.

    Returns:
        `did you mean 'x'?`, or `otherwise`.
    """
    similar = find_similar(name, known)
    return f"did you mean {similar[0]!r}?" if similar else otherwise


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
