"""The channels of a network's input: as many as the images of the dataset have, with their mean and deviation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.data.dataset import Dataset, Record
from segkit.data.label_counts import THREADS
from segkit.data.mapper import read_image
from segkit.formats.bands import RGB
from segkit.runtime.images import ALL_CHANNELS, COLOR_FORMATS
from segkit.structures.architecture_spec import get_architecture_spec
from segkit.utils.errors import ConfigError

SAMPLE = 100  # images from which mean and standard deviation are computed
DECIMALS = 3
MEAN, STD = "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"
RUN_CONFIG = "evaluate on images like those of the training, with the config.yaml of the run"

logger = logging.getLogger(__name__)


def resolve_input_channels(cfg: Any, datasets: Sequence[Dataset], training: Sequence[Dataset]) -> None:
    """Fit INPUT.FORMAT, MODEL.PIXEL_MEAN and PIXEL_STD to the datasets, in place.

    Images of more than three channels make INPUT.FORMAT "CHANNELS", and constants of three numbers do not count any
    more. For this format, constants that are empty are computed from up to `SAMPLE` images of the training datasets,
    spread evenly. An architecture that is tuned rather than trained stays with RGB.

    Args:
        cfg: a config with segkit's keys.
        datasets: at least one, all that the model is trained and evaluated on.
        training: those of them that it is trained on; empty if it is only evaluated.

    Raises:
        ConfigError: the datasets have different numbers of channels, or the config's constants or format do not fit.
    """
    counts = {dataset.name: dataset.channels for dataset in datasets}
    is_tuned = get_architecture_spec(cfg.MODEL.META_ARCHITECTURE).training == "grid"
    if cfg.INPUT.FORMAT != ALL_CHANNELS and (is_tuned or max(counts.values()) <= RGB):
        if cfg.INPUT.FORMAT in COLOR_FORMATS and len(cfg.MODEL.PIXEL_MEAN) != RGB:
            problem = f"expected {RGB} numbers, as INPUT.FORMAT {cfg.INPUT.FORMAT} has channels, "
            raise ConfigError(f"{problem}got {len(cfg.MODEL.PIXEL_MEAN)}", where=MEAN, remedy="set it to []")
        return
    if len({*counts.values()}) > 1:
        stated = ", ".join(f"{name} has {count}" for name, count in counts.items())
        remedy = "choose channels that all have (`modalities` of volumes)"
        raise ConfigError(f"expected datasets of one number of channels, {stated}", where="DATASETS", remedy=remedy)
    name, channels = next(iter(counts.items()))
    if cfg.INPUT.FORMAT != ALL_CHANNELS:
        if cfg.INPUT.FORMAT not in COLOR_FORMATS:
            problem = f"the images of {name} have {channels} channels, INPUT.FORMAT {cfg.INPUT.FORMAT} has fewer"
            raise ConfigError(problem, remedy=f"set it to {ALL_CHANNELS}")
        if not training:
            problem = f"the images of {name} have {channels} channels, the config is for {RGB}"
            raise ConfigError(problem, where=MEAN, remedy=f"{RUN_CONFIG}, or choose three of `modalities`")
        for key in ("PIXEL_MEAN", "PIXEL_STD"):
            cfg.MODEL[key] = [] if len(cfg.MODEL[key]) == RGB else cfg.MODEL[key]
        cfg.INPUT.FORMAT = ALL_CHANNELS
    if cfg.VIS_PERIOD > 0:
        raise ConfigError(f"it draws RGB images only, those of {name} have {channels} channels", where="VIS_PERIOD")
    if not (cfg.MODEL.PIXEL_MEAN and cfg.MODEL.PIXEL_STD):
        _set_constants(cfg, training, name)
    for key, values in ((MEAN, cfg.MODEL.PIXEL_MEAN), (STD, cfg.MODEL.PIXEL_STD)):
        if len(values) != channels:
            problem = f"expected {channels} numbers, as the images of {name} have channels, got {len(values)}"
            remedy = "set it to [], to compute it from training images" if training else RUN_CONFIG
            raise ConfigError(problem, where=key, remedy=remedy)


def compute_constants(datasets: Sequence[Dataset], limit: int = SAMPLE) -> tuple[list[float], list[float], int]:
    """Compute mean and standard deviation of each channel over the pixels of some images.

    Args:
        datasets: with images of one number of channels.
        limit: how many images are read, spread evenly over all.

    Returns:
        (means, standard deviations, number of images); the deviation of a constant channel is 1.

    Raises:
        DatasetError: an image cannot be read.
    """
    records = [record for dataset in datasets for record in dataset.records]
    rows = np.unique(np.linspace(0, len(records) - 1, min(limit, len(records))).round().astype(int)).tolist()
    with ThreadPoolExecutor(THREADS) as pool:
        counts, sums, squares = zip(*pool.map(_add_up, [records[row] for row in rows]), strict=True)
    mean = np.sum(sums, axis=0) / sum(counts)
    std = np.sqrt(np.maximum(np.sum(squares, axis=0) / sum(counts) - np.square(mean), 0)).round(DECIMALS)
    return mean.round(DECIMALS).tolist(), np.where(std > 0, std, 1.0).tolist(), len(rows)


def _add_up(record: Record) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """Of an image the number of pixels, and of each channel the sum and the sum of squares."""
    image: NDArray[np.float64] = read_image(record, ALL_CHANNELS).astype(np.float64)
    return image.shape[0] * image.shape[1], image.sum(axis=(0, 1)), np.square(image).sum(axis=(0, 1))


def _set_constants(cfg: Any, training: Sequence[Dataset], name: str) -> None:
    if not training:
        problem = f"it is to be computed from training images, but {name} is only evaluated"
        raise ConfigError(problem, where=MEAN if not cfg.MODEL.PIXEL_MEAN else STD, remedy=RUN_CONFIG)
    mean, std, count = compute_constants(training)
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = cfg.MODEL.PIXEL_MEAN or mean, cfg.MODEL.PIXEL_STD or std
    images = sum(len(dataset.records) for dataset in training)
    text = "%d input channels; of %d of %d training images: MODEL.PIXEL_MEAN %s, PIXEL_STD %s"
    logger.info(text, len(mean), count, images, [*cfg.MODEL.PIXEL_MEAN], [*cfg.MODEL.PIXEL_STD])
