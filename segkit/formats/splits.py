"""Splits of datasets without split lists: the hash of an image's name says whether it is for training or validation."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

from segkit.formats.base import DatasetImage
from segkit.formats.image_files import strip_suffix
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.text import suggest

Split = Literal["train", "val"]
SPLITS = ("train", "val")
HASH_BYTES = 8  # of the SHA-256 of a name, which decides on its split
VAL_SHARE = 0.25  # of the names in "val", by default
Item = TypeVar("Item")
AnyImage = TypeVar("AnyImage", bound=DatasetImage)


def check_split(split: object, val_share: object) -> None:
    """Check the options of a split.

    Args:
        split: "train", "val" or None.
        val_share: share of the images in "val", in [0, 1].

    Raises:
        ConfigError: one of them is something else.
    """
    if split not in (None, *SPLITS):
        problem = f"expected split to be 'train', 'val' or nothing, got {split!r}"
        raise ConfigError(problem, remedy=suggest(split, SPLITS))
    if not isinstance(val_share, (int, float)) or isinstance(val_share, bool) or not 0 <= val_share <= 1:
        raise ConfigError(f"expected val_share to be a number in [0, 1], got {val_share!r}")


def select_split(
    split: str | None, val_share: float, items: Iterable[Item], where: object, get_name: Callable[[Item], str] = str
) -> list[Item]:
    """Select the images of a split.

    Args:
        split: "train" or "val"; None selects all.
        val_share: share of the images in "val", in [0, 1].
        items: the images, by name or with one.
        where: the dataset, for messages.
        get_name: gives the name of an item, by default the item itself.

    Returns:
        The items in the split, in their order; without `split` there may be none.

    Raises:
        DatasetError: the split is empty.
    """
    items = list(items)
    selected = [i for i in items if split is None or (split == "val") == is_validation(get_name(i), val_share)]
    if not selected and split is not None:
        problem = f"expected images in the split {split}, got none of {len(items)}"
        raise DatasetError(problem, where=where, remedy="change val_share, or add images")
    return selected


def select_images(
    split: Split | None, val_share: float, images: Sequence[AnyImage], where: object
) -> tuple[AnyImage, ...]:
    """Select the images of a split by their file names without suffix.

    Args:
        split: "train" or "val"; None selects all.
        val_share: share of the images in "val", in [0, 1].
        images: all images of the dataset.
        where: the dataset, for messages.

    Returns:
        The images in the split, in their order.

    Raises:
        ConfigError: `split` or `val_share` is something else.
        DatasetError: the split is empty.
    """
    check_split(split, val_share)
    return tuple(select_split(split, val_share, images, where, lambda image: strip_suffix(image.file_name)))


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
