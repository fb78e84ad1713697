"""The images of a registered dataset, for `segkit predict --dataset`."""

from __future__ import annotations

import os
from pathlib import Path

from segkit.data.catalog import load_dataset
from segkit.runtime.image_inputs import ListedImages
from segkit.utils.errors import DatasetError
from segkit.utils.text import abbreviate


def list_dataset_images(name: str) -> tuple[ListedImages, Path]:
    """List the images of a dataset, with or without ground truth. The images are not opened.

    Args:
        name: a registered name.

    Returns:
        The images with their ids in the dataset, and the folder to which their names are relative.

    Raises:
        ConfigError: the name is unknown.
        DatasetError: the dataset cannot be loaded, all of its images are missing, or they are no files.
    """
    dataset = load_dataset(name)
    paths = [Path(record["file_name"]) for record in dataset.records]
    root = Path(dataset.metadata.get("image_root") or os.path.commonpath([path.parent for path in paths]))
    if not any(map(os.path.lexists, paths)):
        problem = f"none of the {len(paths)} images of the dataset {name} is a file: {abbreviate(map(str, paths))}"
        remedy = "complete the download; slices of volumes have to be written as images first (segkit data convert)"
        raise DatasetError(problem, where=root, remedy=remedy)
    file_names = [dataset.build_image_entry(record)["file_name"] for record in dataset.records]
    ids = [record["image_id"] for record in dataset.records]
    sizes_hw = [(r["height"], r["width"]) if "height" in r and "width" in r else None for r in dataset.records]
    return ListedImages(paths, file_names, ids, sizes_hw), root
