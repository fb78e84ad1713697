"""Checks of a dataset before hours of training: images and labels are decoded and compared with their records."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from segkit.data.dataset import Dataset, Record
from segkit.data.ground_truth import has_segmentation, read_segmentation
from segkit.data.mapper import read_image

THREADS = 4  # decoding releases the GIL; more threads do not help a network file system


def check_files(dataset: Dataset, limit: int) -> tuple[int, int]:
    """Decode images and labels of some records, spread evenly over the dataset.

    Args:
        dataset: any loaded dataset.
        limit: how many records are checked, -1 for all.

    Returns:
        The number of checked records, and how many of them have a label; a record without a map counts as labelled.

    Raises:
        DatasetError: a file is missing, damaged or contradicts its record; of the first such record.
    """
    count = len(dataset.records) if limit < 0 else min(limit, len(dataset.records))
    rows = np.unique(np.linspace(0, len(dataset.records) - 1, count).round().astype(int)).tolist()

    def has_label(record: Record) -> bool:
        read_image(record, "BGR")
        return not has_segmentation(record) or bool(read_segmentation(record, dataset.categories).segments)

    with ThreadPoolExecutor(THREADS) as pool:
        return len(rows), sum(pool.map(has_label, [dataset.records[row] for row in rows]))
