from __future__ import annotations

import pytest

from segkit.formats.splits import check_split, is_validation, select_split
from segkit.utils.errors import ConfigError, DatasetError


def test_images_are_split_by_the_hash_of_their_names() -> None:
    # sha256sum of "cell" begins with 39d0, and 0x39d0 / 0x10000 = 0.2258.
    assert [is_validation("cell", share) for share in (0, 0.225, 0.226, 1)] == [False, False, True, True]
    assert is_validation("e\u0301", 0.5) == is_validation("\u00e9", 0.5)
    names = [str(number) for number in range(1000)]
    splits = [select_split(split, 0.25, names, "here") for split in ("train", "val")]
    assert sorted(splits[0] + splits[1], key=int) == select_split(None, 0.25, names, "here") == names
    assert 200 < len(splits[1]) < 300
    assert splits[1] == sorted(splits[1], key=int)


def test_invalid_and_empty_splits_raise_an_error() -> None:
    check_split(None, 0)
    with pytest.raises(ConfigError, match="expected split to be 'train', 'val' or nothing, got 'test'"):
        check_split("test", 0.5)
    for share in (-0.1, 1.5, float("nan"), True, "0.5", None):
        with pytest.raises(ConfigError, match="expected val_share to be a number in"):
            check_split("val", share)
    with pytest.raises(DatasetError, match="here: expected images in the split val, got none of 1; change val_share"):
        select_split("val", 0, ["a"], "here")
