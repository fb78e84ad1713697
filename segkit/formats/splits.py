"""Splits of datasets that come without any: by the hash of each image's name."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from typing import Literal

from segkit.utils.errors import ConfigError, DatasetError

Split = Literal["train", "val"]
HASH_BYTES = 8


def check_split(split: Split | None, val_share: object) -> None:
    """ConfigError where split is neither "train", "val" nor None, or val_share is no number in [0, 1]."""
    if split not in (None, "train", "val"):
        raise ConfigError(f"expected split to be 'train', 'val' or nothing, got {split!r}")
    if not isinstance(val_share, (int, float)) or isinstance(val_share, bool) or not 0 <= val_share <= 1:
        raise ConfigError(f"expected val_share to be a number in [0, 1], got {val_share!r}")


def select_split(split: Split | None, val_share: float, names: Iterable[str], where: object) -> list[str]:
    """The names in the split, all of them in that of None, in their order; DatasetError where there is none."""
    names = list(names)
    chosen = [name for name in names if split is None or (split == "val") == is_validation(name, val_share)]
    if not chosen:
        problem = f"expected images in the split {split}, got none of {len(names)}"
        raise DatasetError(problem, where=where, remedy="change val_share, or add images")
    return chosen


def is_validation(name: str, share: float) -> bool:
    """Whether an image belongs to the validation half: the name's SHA-256, as a fraction of 1, is below `share`.

    A name's half does not depend on the other names, so that the share is met only roughly.
    """
    normal = unicodedata.normalize("NFC", name)  # file systems differ in how they spell an accent
    digest = hashlib.sha256(normal.encode("utf-8", "surrogateescape")).digest()[:HASH_BYTES]
    return bool(int.from_bytes(digest, "big") < share * 256**HASH_BYTES)
