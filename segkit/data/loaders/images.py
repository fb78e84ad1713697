"""Images without ground truth: test sets whose labels are kept by their servers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from segkit.data.dataset import Dataset, Record
from segkit.formats.base import DatasetImage
from segkit.structures import CategorySet


def build_image_dataset(
    name: str, root: str | Path, images: Iterable[DatasetImage], categories: CategorySet
) -> Dataset:
    """Build a dataset that can only be predicted.

    Args:
        name: the dataset's name.
        root: folder to which the names of the images are relative.
        images: the images, which need not exist.
        categories: of the models that are trained for it.

    Returns:
        The dataset, without metrics.
    """
    records: list[Record] = [
        {
            "file_name": os.path.join(root, image.file_name),
            "image_id": image.image_id,
            "height": image.size_hw[0],
            "width": image.size_hw[1],
        }
        for image in images
    ]
    return Dataset(name, categories, (), records, metadata={"image_root": str(root)}, has_ground_truth=False)
