"""The datasets that segkit knows: a name, how it is loaded, and what follows from it for Detectron2."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from segkit.data.dataset import Dataset
from segkit.data.loaders.detectron2_datasets import get_metadata_categories, load_registered_dataset
from segkit.structures import IGNORE_LABEL, CategorySet
from segkit.utils.errors import ConfigError, DatasetError

DATASET_NAME = re.compile(r"\w[\w.-]*")


_loaders: dict[str, Callable[[], Dataset]] = {}
_known_categories: dict[str, CategorySet] = {}
_loaded: dict[str, Dataset] = {}


def register_dataset(name: str, load: Callable[[], Dataset], categories: CategorySet | None = None) -> None:
    """Make `name` known to segkit and to Detectron2's DatasetCatalog; nothing is read before it is asked for.

    categories: where they are known without reading, so that a model can be used without its dataset.
    A name that segkit registered before is replaced; ConfigError where it is somebody else's, or could not be the name
    of a folder: results lie in one.
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


def load_dataset(name: str) -> Dataset:
    """The dataset of that name, segkit's or Detectron2's, read once; ConfigError for an unknown name."""
    if name not in _loaded:
        if name in _loaders:
            dataset = _loaders[name]()
            MetadataCatalog.get(name).set(**_detectron2_metadata(dataset))
        elif name in DatasetCatalog:
            dataset = load_registered_dataset(name)
        else:
            near = difflib.get_close_matches(str(name), sorted(_loaders), n=3) or ["the names of datasets/README.md"]
            raise ConfigError(
                f"the dataset {name!r} is not registered",
                where="DATASETS",
                remedy=f"use {', '.join(near)}, or add yours to DATASETS.CUSTOM",
            )
        if not dataset.records:
            raise DatasetError(f"the dataset {name!r} has no image", remedy="check its annotation file")
        _loaded[name] = dataset
    return _loaded[name]


def get_categories(name: str) -> CategorySet:
    """The categories of a dataset, without reading it where they are known."""
    if name in _known_categories:
        return _known_categories[name]
    if name in DatasetCatalog and name not in _loaders:
        return get_metadata_categories(name)
    return load_dataset(name).categories


def load_datasets(names: Sequence[str]) -> list[Dataset]:
    """The datasets of these names; ConfigError where there is none, or their categories differ."""
    if not names:
        raise ConfigError("DATASETS.TRAIN and DATASETS.TEST name no dataset", remedy="pass --config-file")
    datasets = [load_dataset(name) for name in names]
    for other in datasets[1:]:
        if difference := describe_difference(datasets[0].categories, other.categories):
            raise ConfigError(
                f"the datasets {datasets[0].name} and {other.name} have different categories: {difference}",
                where="DATASETS",
                remedy="train and test on datasets with one set of categories",
            )
    return datasets


def describe_difference(one: CategorySet, other: CategorySet) -> str:
    """In words, the first category in which two sets differ; colours do not count. "" where none does."""
    pairs = zip_longest(*([(c.category_id, c.name, c.isthing) for c in each.categories] for each in (one, other)))
    return next((f"(id, name, isthing) {a} against {b}" for a, b in pairs if a != b), "")


def _detectron2_metadata(dataset: Dataset) -> dict[str, Any]:
    """What Detectron2's evaluators and visualizers look for, as `_get_coco_panoptic_separated_meta` names it."""
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
