"""Build the augmentations that cfg.INPUT asks for, and check its values before the first image is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.data import DatasetFromList
from detectron2.data import transforms as T

from segkit.data.augmentations.copy_paste import CopyPaste
from segkit.data.augmentations.jitter import ColorJitter, LargeScaleJitter
from segkit.data.augmentations.resize import SafeResize
from segkit.data.dataset import Dataset
from segkit.runtime.images import ALL_CHANNELS
from segkit.structures.architecture_spec import get_architecture_spec
from segkit.utils.errors import ConfigError

FLIPS = {"none": (), "horizontal": ("horizontal",), "vertical": ("vertical",), "both": ("horizontal", "vertical")}
FORMATS = ("BGR", "RGB", "L", "YUV-BT.601", ALL_CHANNELS)  # of images in the network
SAMPLINGS = ("choice", "range")
CROPS = {  # INPUT.CROP.TYPE: what its SIZE must be
    "relative": "height and width as shares of the image, above 0 and up to 1",
    "relative_range": "the least height and width as shares of the image, above 0 and up to 1",
    "absolute": "height and width in pixels",
    "absolute_range": "the least and the largest side in pixels",
}
JITTERED_FORMATS = ("RGB", "BGR", "L", ALL_CHANNELS)  # image formats of uint8 whose channels can be jittered


class SafeCrop(T.RandomCrop):
    """Detectron2's crop with at least one pixel: a share of a small image may round to 0."""

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """See base class."""
        height, width = super().get_crop_size(image_size)
        return max(height, 1), max(width, 1)


def build_augmentations(cfg: Any, is_train: bool, has_semantics: bool = True) -> list[T.Augmentation]:
    """Build crop, resize, flips and colour jitter from cfg.INPUT; for evaluation only the resize.

    Without segkit's keys they are those of Detectron2's `build_augmentation`, in its order. If INPUT.CROP.AFTER_RESIZE
    or the architecture asks for it, the crop is the second, as in Detectron2's DeepLab projects. INPUT.LSJ replaces the
    resize and excludes INPUT.CROP.

    Args:
        cfg: a config with segkit's keys.
        is_train: False: for evaluation.
        has_semantics: the dataset has semantic maps, which CROP.SINGLE_CATEGORY_MAX_AREA needs.

    Returns:
        The augmentations, in the order in which they are applied.

    Raises:
        ConfigError: a value is out of range, or keys contradict each other.
    """
    inputs = cfg.INPUT
    _check(inputs.FORMAT in FORMATS, "INPUT.FORMAT", f"one of {', '.join(FORMATS)}", inputs.FORMAT)
    if not is_train:
        return [SafeResize(inputs.MIN_SIZE_TEST, inputs.MAX_SIZE_TEST, "choice")]
    augmentations: list[T.Augmentation] = [_large_scale_jitter(cfg) if inputs.LSJ.ENABLED else _resize(cfg)]
    if inputs.CROP.ENABLED:
        is_last = inputs.CROP.AFTER_RESIZE or get_architecture_spec(cfg.MODEL.META_ARCHITECTURE).crops_after_resize
        augmentations.insert(is_last, _crop(cfg, has_semantics))
    _check(inputs.RANDOM_FLIP in FLIPS, "INPUT.RANDOM_FLIP", f"one of {', '.join(FLIPS)}", inputs.RANDOM_FLIP)
    for way in FLIPS[inputs.RANDOM_FLIP]:
        augmentations.append(T.RandomFlip(horizontal=way == "horizontal", vertical=way == "vertical"))
    spreads = {key: float(inputs.COLOR_JITTER[key]) for key in ("BRIGHTNESS", "CONTRAST", "SATURATION")}
    for key, spread in spreads.items():
        _check(0 <= spread <= 1, f"INPUT.COLOR_JITTER.{key}", "a number in [0, 1]", spread)
    if any(spreads.values()):
        _check(inputs.FORMAT in JITTERED_FORMATS, "INPUT.FORMAT", "another format with COLOR_JITTER", inputs.FORMAT)
        has_colors = inputs.FORMAT != ALL_CHANNELS or spreads["SATURATION"] == 0
        expected = f"0, as {ALL_CHANNELS} of INPUT.FORMAT are no colours"
        _check(has_colors, "INPUT.COLOR_JITTER.SATURATION", expected, spreads["SATURATION"])
        augmentations.append(ColorJitter(inputs.FORMAT, *spreads.values()))
    return augmentations


def build_copy_paste(cfg: Any, datasets: Sequence[Dataset], is_train: bool) -> CopyPaste | None:
    """Build copy-paste from all records of the datasets.

    Args:
        cfg: a config with segkit's keys.
        datasets: the training datasets, of equal categories.
        is_train: False: for evaluation.

    Returns:
        The augmentation; None if it is off.

    Raises:
        ConfigError: the probability is out of range.
    """
    probability = float(cfg.INPUT.COPY_PASTE.PROBABILITY)
    _check(0 <= probability <= 1, "INPUT.COPY_PASTE.PROBABILITY", "a probability in [0, 1]", probability)
    if not is_train or probability == 0:
        return None
    records = [record for dataset in datasets for record in dataset.records]
    # One array, which worker processes share; a list of dicts would become a copy in each of them.
    return CopyPaste(probability, DatasetFromList(records, copy=False), datasets[0].categories)


def _crop(cfg: Any, has_semantics: bool) -> T.Augmentation:
    crop = cfg.INPUT.CROP
    if cfg.INPUT.LSJ.ENABLED:
        raise ConfigError("INPUT.CROP and INPUT.LSJ are both enabled, but LSJ crops too", remedy="disable one of them")
    _check(crop.TYPE in CROPS, "INPUT.CROP.TYPE", f"one of {', '.join(CROPS)}", crop.TYPE)
    _check(_is_crop_size(crop.TYPE, crop.SIZE), "INPUT.CROP.SIZE", CROPS[crop.TYPE], crop.SIZE)
    largest = crop.get("SINGLE_CATEGORY_MAX_AREA", 1.0)  # a key of Detectron2's DeepLab project
    if largest == 1.0:
        return SafeCrop(crop.TYPE, crop.SIZE)
    if not has_semantics:
        raise ConfigError(
            "the training dataset has no semantic labels, which this key needs",
            where="INPUT.CROP.SINGLE_CATEGORY_MAX_AREA",
            remedy="set it to 1.0",
        )
    ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    return T.RandomCrop_CategoryAreaConstraint(crop.TYPE, crop.SIZE, largest, ignored)


def _is_crop_size(kind: str, size: Any) -> bool:
    if not isinstance(size, (list, tuple)) or len(size) != 2:
        return False
    if kind.startswith("relative"):
        return all(type(side) in (int, float) and 0 < side <= 1 for side in size)
    whole = all(type(side) is int and side > 0 for side in size)
    return whole and (kind == "absolute" or size[0] <= size[1])


def _resize(cfg: Any) -> T.Augmentation:
    inputs, sampling, sizes = cfg.INPUT, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING, cfg.INPUT.MIN_SIZE_TRAIN
    sizes = [*sizes] if isinstance(sizes, (list, tuple)) else [sizes]
    whole = bool(sizes) and all(type(size) is int and size >= 0 for size in sizes)
    _check(whole, "INPUT.MIN_SIZE_TRAIN", "one or more lengths in pixels, 0 for no resize", inputs.MIN_SIZE_TRAIN)
    _check(sampling in SAMPLINGS, "INPUT.MIN_SIZE_TRAIN_SAMPLING", f"one of {', '.join(SAMPLINGS)}", sampling)
    two = sampling == "choice" or (len(sizes) == 2 and sizes[0] <= sizes[1])
    _check(two, "INPUT.MIN_SIZE_TRAIN", "a least and a largest length with the sampling range", inputs.MIN_SIZE_TRAIN)
    _check(inputs.MAX_SIZE_TRAIN > 0, "INPUT.MAX_SIZE_TRAIN", "a length above 0", inputs.MAX_SIZE_TRAIN)
    return SafeResize(inputs.MIN_SIZE_TRAIN, inputs.MAX_SIZE_TRAIN, sampling)


def _large_scale_jitter(cfg: Any) -> T.Augmentation:
    jitter = cfg.INPUT.LSJ
    scales = f"{jitter.MIN_SCALE}..{jitter.MAX_SCALE}"
    _check(jitter.SIZE > 0, "INPUT.LSJ.SIZE", "pixels above 0", jitter.SIZE)
    _check(0 < jitter.MIN_SCALE <= jitter.MAX_SCALE, "INPUT.LSJ", "0 < MIN_SCALE <= MAX_SCALE", scales)
    _check(cfg.INPUT.FORMAT != "YUV-BT.601", "INPUT.FORMAT", "whole numbers, as RGB has, with LSJ", cfg.INPUT.FORMAT)
    _check(0 <= jitter.PAD <= 255, "INPUT.LSJ.PAD", "a number in [0, 255]", jitter.PAD)
    return LargeScaleJitter(jitter.SIZE, jitter.MIN_SCALE, jitter.MAX_SCALE, pad=jitter.PAD)


def _check(holds: bool, key: str, expected: str, got: object) -> None:
    if not holds:
        raise ConfigError(f"expected {expected}, got {got}", where=key)
