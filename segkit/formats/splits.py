"""Splits of datasets without split lists: the hash of an image's name says whether it is for training or validation."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from typing import Literal

from segkit.utils.errors import ConfigError, DatasetError

Split = Literal["train", "val"]
HASH_BYTES = 8  # of the SHA-256 of a name, which decides on its split
VAL_SHARE = 0.25  # of the names in "val", by default


def check_split(split: object, val_share: object) -> None:
    """Check the options of a split.

    Args:
        split: "train", "val" or None.
        val_share: share of the images in "val", in [0, 1].

    Raises:
        ConfigError: one of them is something else.
    """
    if split not in (None, "train", "val"):
        raise ConfigError(f"expected split to be 'train', 'val' or nothing, got {split!r}")
    if not isinstance(val_share, (int, float)) or isinstance(val_share, bool) or not 0 <= val_share <= 1:
        raise ConfigError(f"expected val_share to be a number in [0, 1], got {val_share!r}")


def select_split(split: str | None, val_share: float, names: Iterable[str], where: object) -> list[str]:
    """Select the images of a split.

    Args:
        split: "train" or "val"; None selects all.
        val_share: share of the images in "val", in [0, 1].
        names: names of the images.
        where: the dataset, for messages.

    Returns:
        The names in the split, in their order.

    Raises:
        DatasetError: the split is empty.
    """
    names = list(names)
    selected = [name for name in names if split is None or (split == "val") == is_validation(name, val_share)]
    if not selected:
        problem = f"expected images in the split {split}, got none of {len(names)}"
        raise DatasetError(problem, where=where, remedy="change val_share, or add images")
    return selected


def is_validation(name: str, share: float) -> bool:
    """Whether an image belongs to the validation split.

    It does if the SHA-256 of its name, as a fraction of 1, is below `share`. So its split does not depend on the other
    images, and the share is met only roughly.

    Args:
        name: name of the image.
        share: share of the images in the validation split, in [0, 1].

    Returns:
        True for the validation split.
    """
    normal = unicodedata.normalize("NFC", name)  # file systems differ in how they spell an accent
    digest = hashlib.sha256(normal.encode("utf-8", "surrogateescape")).digest()[:HASH_BYTES]
    return bool(int.from_bytes(digest, "big") < share * 256**HASH_BYTES)
