"""The names of the PNGs of predicted images."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import count
from pathlib import Path


def choose_output_names(file_names: Sequence[str]) -> list[str]:
    """Choose the name of the PNG of each image: its path with the suffix .png, so that no two are one file anywhere.

    Args:
        file_names: paths relative to a folder; parts that lead out of it are written as "_".

    Returns:
        The names. If images differ in suffix, case or form of accents alone, later ones get a number.
    """
    taken: set[str] = set()
    names = []
    for file_name in file_names:
        pure = Path(file_name)
        stem = "/".join(["_" if part in ("..", "/", pure.anchor) else part for part in pure.parent.parts] + [pure.stem])
        candidates = (f"{stem}{f'_{number}' if number > 1 else ''}.png" for number in count(1))
        name = next(name for name in candidates if _normalize(name) not in taken)
        taken.add(_normalize(name))
        names.append(name)
    return names


def _normalize(name: str) -> str:
    """Equal for names that are one file on some system: of another case, or of composed and decomposed accents."""
    return unicodedata.normalize("NFC", name).casefold()
