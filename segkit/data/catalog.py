"""The datasets that segkit knows: a name, the function that loads it, its metadata for Detectron2."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from segkit.data.dataset import Dataset
from segkit.data.loaders.detectron2_datasets import get_metadata_categories, load_registered_dataset
from segkit.data.loaders.readers import load_reader_dataset
from segkit.structures import IGNORE_LABEL, CategorySet
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.text import find_similar

BUILTIN_PREFIX = "segkit_"  # of the datasets that segkit knows by name
DATASET_NAME = re.compile(r"\w[\w.-]*")  # results are written to a folder of this name

_loaders: dict[str, Callable[[], Dataset]] = {}
_known_categories: dict[str, CategorySet] = {}
_loaded: dict[str, tuple[Callable[[], Any], Dataset]] = {}  # name -> (its function in DatasetCatalog, what it gave)


def dataset_root() -> Path:
    """Get the folder of the datasets by name, as Detectron2 does.

    Returns:
        $DETECTRON2_DATASETS, or `datasets`.
    """
    return Path(os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets")))


def register_dataset(name: str, load: Callable[[], Dataset], categories: CategorySet | None = None) -> None:
    """Make a dataset known to segkit and to Detectron2's DatasetCatalog; nothing is read yet.

    A name that segkit registered before is replaced.

    Args:
        name: letters, digits and _ . -.
        load: reads the dataset when it is first used.
        categories: the categories if they are known without reading, so that a model can be used without its dataset.

    Raises:
        ConfigError: the name has other characters, or Detectron2 has a dataset of this name.
    """
    if not isinstance(name, str) or not DATASET_NAME.fullmatch(name):
        raise ConfigError(f"expected a dataset's name of letters, digits and _ . -, got {name!r}", where="DATASETS")
    if name in DatasetCatalog and name not in _loaders:
        raise ConfigError(f"the dataset name {name!r} is taken by Detectron2", remedy="choose another name")
    if name in _loaders:
        DatasetCatalog.remove(name)
        if name in MetadataCatalog:
            MetadataCatalog.remove(name)
        _loaded.pop(name, None)
        _known_categories.pop(name, None)
    _loaders[name] = load
    if categories is not None:
        _known_categories[name] = categories
    DatasetCatalog.register(name, lambda: load_dataset(name).records)


def register_files(
    name: str,
    format_name: str,
    options: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    metrics: tuple[str, ...] | None = None,
    categories: CategorySet | None = None,
    *,
    checks_categories: bool = False,
) -> None:
    """Register a dataset in a format that segkit reads, see `register_dataset`.

    Args:
        name: letters, digits and _ . -.
        format_name: key of segkit.data.loaders.readers.TRAINING_READERS.
        options: the reader's options; a function gives them when the dataset is first used.
        metrics: keys of segkit.evaluation.EVALUATORS; None: those of `choose_metrics`.
        categories: the categories if they are known without reading.
        checks_categories: files with other categories are an error.

    Raises:
        ConfigError: the name has other characters, or Detectron2 has a dataset of this name.
    """

    def load() -> Dataset:
        given = options() if callable(options) else options
        return load_reader_dataset(name, format_name, given, metrics, categories if checks_categories else None)

    register_dataset(name, load, categories)


def load_dataset(name: str) -> Dataset:
    """Load a dataset of segkit or Detectron2; it is read only once.

    Args:
        name: a registered name.

    Returns:
        The dataset.

    Raises:
        ConfigError: the name is unknown.
        DatasetError: the dataset has no image, or files are missing or contradict each other.
    """
    if name not in DatasetCatalog:
        raise ConfigError(f"the dataset {name!r} is not registered", where="DATASETS", remedy=_suggest_names(name))
    function = DatasetCatalog[name]
    if name not in _loaded or _loaded[name][0] is not function:  # a notebook may register a name again
        if name in _loaders:
            dataset = _load(name)
            MetadataCatalog.get(name).set(**_build_metadata(dataset))
        else:
            dataset = load_registered_dataset(name)
        if not dataset.records:
            raise DatasetError(f"the dataset {name!r} has no image", remedy="check its annotation file")
        _loaded[name] = function, dataset
    return _loaded[name][1]


def _load(name: str) -> Dataset:
    """Load a dataset of segkit; a missing folder of all datasets by name is said to be that."""
    try:
        return _loaders[name]()
    except DatasetError as error:
        if not name.startswith(BUILTIN_PREFIX) or dataset_root().is_dir():
            raise
        place = f"datasets by name are below {dataset_root().absolute()}, which does not exist"
        raise DatasetError(f"{error}: {place}", remedy="set DETECTRON2_DATASETS to their folder") from None


def get_categories(name: str) -> CategorySet:
    """Get the categories of a dataset; it is read only if they are not known without.

    Args:
        name: a registered name.

    Returns:
        The categories.

    Raises:
        ConfigError: the name is unknown.
        DatasetError: the dataset has to be read, and files are missing or contradict each other.
    """
    if name in _known_categories:
        return _known_categories[name]
    if name in DatasetCatalog and name not in _loaders:
        return get_metadata_categories(name)
    return load_dataset(name).categories


def load_datasets(names: Sequence[str]) -> list[Dataset]:
    """Load several datasets of equal categories, to train or evaluate on.

    Args:
        names: registered names.

    Returns:
        The datasets, in this order.

    Raises:
        ConfigError: `names` is empty, a name is unknown, a dataset has no ground truth, or categories differ.
        DatasetError: files are missing or contradict each other.
    """
    if not names:
        raise ConfigError(
            "DATASETS.TRAIN and DATASETS.TEST name no dataset",
            remedy="pass --config-file; `segkit configs` lists recipes",
        )
    datasets = [load_dataset(name) for name in names]
    for dataset in datasets:
        dataset.check_ground_truth()
    for dataset in datasets[1:]:
        if difference := describe_difference(datasets[0].categories, dataset.categories):
            raise ConfigError(
                f"the datasets {datasets[0].name} and {dataset.name} have different categories: {difference}",
                where="DATASETS",
                remedy="train and test on datasets with one set of categories",
            )
    return datasets


def describe_difference(first: CategorySet, second: CategorySet) -> str:
    """Describe the first category in which two sets differ; colours do not count.

    Args:
        first: one set.
        second: the other set.

    Returns:
        Both categories in words, "" if the sets are equal.
    """
    rows = ([(c.category_id, c.name, c.isthing) for c in categories.categories] for categories in (first, second))
    return next((f"(id, name, isthing) {a} against {b}" for a, b in zip_longest(*rows) if a != b), "")


def _suggest_names(name: object) -> str:
    """Names that are like an unknown one, in whatever case."""
    similar = find_similar(name, DatasetCatalog.list(), 3)
    if not similar:
        return "use the names of datasets/README.md, add yours to DATASETS.CUSTOM, or name its module by --plugin"
    return f"did you mean {' or '.join(similar)}?"


def _build_metadata(dataset: Dataset) -> dict[str, Any]:
    """Build what Detectron2's evaluators and visualizers need, named as in `_get_coco_panoptic_separated_meta`."""
    categories = dataset.categories
    return {
        "evaluator_type": "segkit",
        "ignore_label": IGNORE_LABEL,
        "thing_classes": [c.name for c in categories.things],
        "thing_colors": [c.color for c in categories.things],
        "thing_dataset_id_to_contiguous_id": dict(categories.thing_contiguous_ids),
        "stuff_classes": ["things", *(c.name for c in categories.stuff)],
        "stuff_colors": [(82, 18, 128), *(c.color for c in categories.stuff)],
        "stuff_dataset_id_to_contiguous_id": {0: 0, **categories.stuff_contiguous_ids},
        **dataset.metadata,
    }
