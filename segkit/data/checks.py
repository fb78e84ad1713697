"""What can be known to be wrong with a dataset before hours of training: images and PNGs against their records."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from segkit.data.dataset import Dataset, Record
from segkit.data.ground_truth import has_segmentation, read_segmentation
from segkit.data.mapper import read_image

THREADS = 4  # decoding releases the GIL; more do not help a network file system


def check_files(dataset: Dataset, limit: int) -> tuple[int, int]:
    """Decode images and PNGs of `limit` records (-1: all), spread evenly over the dataset.

    Returns how many were looked at, and how many of these have a label; records without a panoptic truth count as such.
    Raises the DatasetError of the first that is bad, in the order of the records.
    """
    count = len(dataset.records) if limit < 0 else min(limit, len(dataset.records))
    picked = np.unique(np.linspace(0, len(dataset.records) - 1, count).round().astype(int)).tolist()

    def has_label(record: Record) -> bool:
        read_image(record, "BGR")
        return not has_segmentation(record) or bool(read_segmentation(record, dataset.categories).segments)

    with ThreadPoolExecutor(THREADS) as pool:
        return len(picked), sum(pool.map(has_label, [dataset.records[i] for i in picked]))
