"""Which augmentations a config asks for: cfg.INPUT, checked before the first image is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.data import transforms as T

from segkit.data.augment_copy_paste import CopyPaste
from segkit.data.augment_jitter import ColorJitter, LargeScaleJitter
from segkit.data.catalog import Dataset
from segkit.structures import ConfigError

FLIPS = {"none": (), "horizontal": ("horizontal",), "vertical": ("vertical",), "both": ("horizontal", "vertical")}
SMALL_WHOLE_BYTES = ("RGB", "BGR", "L")  # image formats of uint8 whose channels can be jittered


def build_augmentations(cfg: Any, is_train: bool, has_semantics: bool = True) -> list[T.Augmentation]:
    """Crop, resize, flips, then colours, as cfg.INPUT says; for evaluation the resize alone.

    Without keys of ours they are those of Detectron2's `build_augmentation`, in its order. INPUT.LSJ takes the place of
    the resize and excludes INPUT.CROP. has_semantics: whether the dataset has semantic maps, which
    CROP.SINGLE_CATEGORY_MAX_AREA looks at. Raises ConfigError for a value out of range or keys that contradict.
    """
    given = cfg.INPUT
    if not is_train:
        return [T.ResizeShortestEdge(given.MIN_SIZE_TEST, given.MAX_SIZE_TEST, "choice")]
    augmentations: list[T.Augmentation] = [_crop(cfg, has_semantics)] if given.CROP.ENABLED else []
    if given.LSJ.ENABLED:
        augmentations.append(_large_scale_jitter(cfg))
    else:
        sizes = given.MIN_SIZE_TRAIN, given.MAX_SIZE_TRAIN, given.MIN_SIZE_TRAIN_SAMPLING
        augmentations.append(T.ResizeShortestEdge(*sizes))
    augmentations += _flips(given.RANDOM_FLIP)
    color = given.COLOR_JITTER
    spreads = {key: float(color[key]) for key in ("BRIGHTNESS", "CONTRAST", "SATURATION")}
    for key, spread in spreads.items():
        _check(0 <= spread <= 1, f"INPUT.COLOR_JITTER.{key}", "a number in [0, 1]", spread)
    if any(spreads.values()):
        _check(given.FORMAT in SMALL_WHOLE_BYTES, "INPUT.FORMAT", "RGB, BGR or L with COLOR_JITTER", given.FORMAT)
        augmentations.append(ColorJitter(given.FORMAT, *spreads.values()))
    return augmentations


def build_copy_paste(cfg: Any, datasets: Sequence[Dataset], is_train: bool) -> CopyPaste | None:
    """Pasting from all records of the datasets, which share their categories; None where it is off."""
    probability = float(cfg.INPUT.COPY_PASTE.PROBABILITY)
    _check(0 <= probability <= 1, "INPUT.COPY_PASTE.PROBABILITY", "a probability in [0, 1]", probability)
    if not is_train or probability == 0:
        return None
    records = [record for dataset in datasets for record in dataset.records]
    return CopyPaste(probability, records, datasets[0].categories)


def _crop(cfg: Any, has_semantics: bool) -> T.Augmentation:
    crop = cfg.INPUT.CROP
    if cfg.INPUT.LSJ.ENABLED:
        raise ConfigError(
            "INPUT.CROP and INPUT.LSJ are both enabled, and the latter crops too", remedy="disable one of them"
        )
    largest = crop.get("SINGLE_CATEGORY_MAX_AREA", 1.0)  # a key of Detectron2's DeepLab project
    if largest == 1.0:
        return T.RandomCrop(crop.TYPE, crop.SIZE)
    if not has_semantics:
        raise ConfigError(
            "looks at semantic maps, which the training dataset has not",
            where="INPUT.CROP.SINGLE_CATEGORY_MAX_AREA",
            remedy="set it to 1.0",
        )
    ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    return T.RandomCrop_CategoryAreaConstraint(crop.TYPE, crop.SIZE, largest, ignored)


def _large_scale_jitter(cfg: Any) -> T.Augmentation:
    jitter = cfg.INPUT.LSJ
    scales = f"{jitter.MIN_SCALE}..{jitter.MAX_SCALE}"
    _check(jitter.SIZE > 0, "INPUT.LSJ.SIZE", "pixels above 0", jitter.SIZE)
    _check(0 < jitter.MIN_SCALE <= jitter.MAX_SCALE, "INPUT.LSJ", "0 < MIN_SCALE <= MAX_SCALE", scales)
    _check(cfg.INPUT.FORMAT != "YUV-BT.601", "INPUT.FORMAT", "whole numbers, as RGB has, with LSJ", cfg.INPUT.FORMAT)
    return LargeScaleJitter(jitter.SIZE, jitter.MIN_SCALE, jitter.MAX_SCALE)


def _flips(kind: str) -> list[T.Augmentation]:
    _check(kind in FLIPS, "INPUT.RANDOM_FLIP", f"one of {', '.join(FLIPS)}", kind)
    return [T.RandomFlip(horizontal=way == "horizontal", vertical=way == "vertical") for way in FLIPS[kind]]


def _check(holds: bool, key: str, expected: str, got: object) -> None:
    if not holds:
        raise ConfigError(f"expected {expected}, got {got}", where=key)
