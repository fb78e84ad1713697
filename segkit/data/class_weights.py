"""Class weights of semantic losses, computed from the pixels of each channel in the training datasets."""

from __future__ import annotations

import logging
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from segkit.data.class_counts import get_thing_channels
from segkit.data.dataset import Dataset
from segkit.data.ground_truth import has_segmentation, read_segmentation
from segkit.data.label_counts import THREADS
from segkit.structures.architecture_spec import get_architecture_spec
from segkit.utils.errors import ConfigError
from segkit.utils.text import suggest

MAX_IMAGES = 1000  # counted in each dataset, spread evenly: shares of pixels need no more
ENET_OFFSET = 1.02  # of Paszke et al. 2016: weights are at most 1 / ln(1.02) = 50.5

logger = logging.getLogger(__name__)


class PixelCounts(NamedTuple):
    """Counted labels.

    Attributes:
        pixels: of each channel.
        pixels_of_images: labelled pixels of the images that have a pixel of the channel, for each channel.
    """

    pixels: list[int]
    pixels_of_images: list[int]


def compute_median_frequency_weights(counts: PixelCounts) -> list[float]:
    """Compute median frequency balancing (Eigen and Fergus 2015, section 6.3.2).

    Args:
        counts: of the training datasets.

    Returns:
        For each channel median(f) / f, f its share of the pixels of the images that have it. A channel without a pixel
        has the largest of the other weights.
    """
    shares = [n / of if n else None for n, of in zip(*counts, strict=True)]
    median = statistics.median([share for share in shares if share] or [1.0])
    largest = max((median / share for share in shares if share), default=1.0)
    return [median / share if share else largest for share in shares]


def compute_log_inverse_weights(counts: PixelCounts) -> list[float]:
    """Compute 1 / ln(1.02 + p), p the channel's share of all labelled pixels (Paszke et al. 2016, ENet, section 5.2).

    Args:
        counts: of the training datasets.

    Returns:
        The weight of each channel, from 1.4 (p = 1) to 50.5 (p = 0).
    """
    total = max(sum(counts.pixels), 1)
    return [1 / math.log(ENET_OFFSET + n / total) for n in counts.pixels]


WEIGHTINGS: dict[str, Callable[[PixelCounts], list[float]]] = {
    "median_frequency": compute_median_frequency_weights,
    "log_inverse": compute_log_inverse_weights,
}


def resolve_class_weights(cfg: Any, datasets: Sequence[Dataset]) -> None:
    """Replace names of WEIGHTINGS, as class_weights in MODEL.SEM_SEG_HEAD.LOSSES, by numbers, in place.

    Args:
        cfg: a config with segkit's keys.
        datasets: the training datasets, of equal categories.

    Raises:
        ConfigError: the name is unknown, or the datasets have no semantic labels.
        DatasetError: files of a dataset are missing, damaged or contradict their records.
    """
    names = _list_names(cfg)
    if not names or "semantic" not in get_architecture_spec(cfg.MODEL.META_ARCHITECTURE).targets:
        return
    where = "MODEL.SEM_SEG_HEAD.LOSSES"
    if unknown := sorted(names - WEIGHTINGS.keys()):
        remedy = suggest(unknown[0], WEIGHTINGS, f"choose one of {', '.join(WEIGHTINGS)}, or give numbers")
        raise ConfigError(f"class_weights {unknown[0]!r} are unknown", where=where, remedy=remedy)
    counts = count_pixels(datasets, get_thing_channels(cfg, datasets[0]))
    if not any(counts.pixels):
        raise ConfigError("the training datasets have no labelled pixel to compute class_weights from", where=where)
    weights = {name: [round(weight, 4) for weight in WEIGHTINGS[name](counts)] for name in names}
    for name, values in weights.items():
        logger.info("class weights by %s: %s", name, values)
    _replace(cfg, weights)


def drop_class_weights(cfg: Any) -> None:
    """Leave out class weights that are still to be computed, in place: only a training needs them.

    Args:
        cfg: a config with segkit's keys.
    """
    _replace(cfg, dict.fromkeys(_list_names(cfg)))


def count_pixels(datasets: Sequence[Dataset], thing_channels: str) -> PixelCounts:
    """Count the labelled pixels of each semantic channel in up to MAX_IMAGES images of each dataset.

    Args:
        datasets: loaded datasets of equal categories.
        thing_channels: "one" or "per_class", see `CategorySet.build_semantic_space`.

    Returns:
        The counts; images without a map are left out.

    Raises:
        DatasetError: a file is missing, damaged or contradicts its record.
    """
    space = datasets[0].categories.build_semantic_space(thing_channels)
    pixels, pixels_of_images = np.zeros((2, len(space.names)), dtype=np.int64)
    for dataset in datasets:
        records = [record for record in dataset.records if has_segmentation(record)]
        rows = np.unique(np.linspace(0, len(records) - 1, min(len(records), MAX_IMAGES)).round().astype(int)).tolist()

        def count_record(row: int, dataset: Dataset = dataset, records: Sequence[Any] = records) -> Counter[int]:
            counts = Counter[int]()
            for segment in read_segmentation(records[row], dataset.categories).segments:
                counts[space.channel_by_category[segment.category_id]] += segment.area_px
            return counts

        with ThreadPoolExecutor(THREADS) as pool:
            for counts in pool.map(count_record, rows):
                for channel, area_px in counts.items():
                    pixels[channel] += area_px
                    pixels_of_images[channel] += counts.total() if area_px else 0
    return PixelCounts(pixels.tolist(), pixels_of_images.tolist())


def _list_names(cfg: Any) -> set[str]:
    """The class_weights that are names."""
    options = [e.get("class_weights") for e in cfg.MODEL.SEM_SEG_HEAD.LOSSES if isinstance(e, Mapping)]
    return {name for name in options if isinstance(name, str)}


def _replace(cfg: Any, weights: Mapping[str, Sequence[float] | None]) -> None:
    """Replace the names by weights."""
    entries = [*cfg.MODEL.SEM_SEG_HEAD.LOSSES]
    for row, entry in enumerate(entries):
        name = entry.get("class_weights") if isinstance(entry, Mapping) else None
        if isinstance(name, str):
            entries[row] = {**entry, "class_weights": weights[name]}
    cfg.MODEL.SEM_SEG_HEAD.LOSSES = entries
