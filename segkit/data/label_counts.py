"""How many objects and regions of each class the labels of a dataset have, and what follows for training on them."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache

from segkit.data.dataset import Dataset, Record
from segkit.data.ground_truth import has_segmentation, read_segmentation
from segkit.data.loaders.coco import CachedInstancesReader
from segkit.data.loaders.readers import find_image, get_reader
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.structures.architecture_spec import ArchitectureSpec
from segkit.utils.errors import ConfigError
from segkit.utils.text import make_printable

MAX_NAMES = 10  # classes in one message
THREADS = 4  # that decode files: decoding releases the GIL; more threads do not help a network file system

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelCounts:
    """Counted labels.

    Attributes:
        segments: category_id -> objects and regions that are no crowds.
        crowds: category_id -> crowds.
        images: images that were counted.
        is_complete: every image of the dataset was counted.
    """

    segments: Counter[int] = field(default_factory=Counter)
    crowds: Counter[int] = field(default_factory=Counter)
    images: int = 0
    is_complete: bool = True

    def __add__(self, other: LabelCounts) -> LabelCounts:
        """Add counts of other images."""
        complete = self.is_complete and other.is_complete
        return LabelCounts(
            self.segments + other.segments, self.crowds + other.crowds, self.images + other.images, complete
        )


def count_record(record: Record, categories: CategorySet, segmentation: PanopticSegmentation | None) -> LabelCounts:
    """Count the labels of one record.

    Args:
        record: a Detectron2 dataset dict.
        categories: of the dataset.
        segmentation: the record's map; None if it has none.

    Returns:
        The labels of its tables; those of the map that the tables do not hold.
    """
    labels = [*_read_tables(record, categories)]
    if segmentation is not None and "segments_info" not in record:
        is_annotated = "annotations" in record
        labels += [(s.category_id, s.iscrowd) for s in segmentation.segments if not (is_annotated and s.isthing)]
    segments = Counter(category_id for category_id, iscrowd in labels if not iscrowd)
    return LabelCounts(segments, Counter(category_id for category_id, iscrowd in labels if iscrowd), 1)


def list_classes(records: Sequence[Record], categories: CategorySet) -> list[set[int]]:
    """List the classes of each image; maps are decoded if tables do not hold all labels.

    Args:
        records: Detectron2 dataset dicts.
        categories: of their dataset.

    Returns:
        Of each record the category ids of its objects and regions that are no crowds.

    Raises:
        DatasetError: a file is missing, damaged or contradicts its record.
    """

    def list_record(record: Record) -> set[int]:
        is_decoded = has_segmentation(record) and not _is_in_tables(record, categories)
        segmentation = read_segmentation(record, categories) if is_decoded else None
        return {*count_record(record, categories, segmentation).segments}

    with ThreadPoolExecutor(THREADS) as pool:
        return [*pool.map(list_record, records)]


def count_labels(dataset: Dataset, decoded: LabelCounts) -> LabelCounts:
    """Count the labels of a dataset: of all images if tables hold the labels, otherwise of those that were decoded.

    Args:
        dataset: any loaded dataset.
        decoded: the labels of the decoded images.

    Returns:
        The counts.
    """
    if decoded.is_complete or not all(_is_in_tables(record, dataset.categories) for record in dataset.records):
        return decoded
    segments, crowds = Counter[int](), Counter[int]()
    for record in dataset.records:
        for category_id, iscrowd in _read_tables(record, dataset.categories):
            (crowds if iscrowd else segments)[category_id] += 1
    return LabelCounts(segments, crowds, len(dataset.records))


def check_labels(
    datasets: Sequence[Dataset], counts: LabelCounts, spec: ArchitectureSpec, *, filters_empty: bool
) -> None:
    """Check that training datasets have something to train on, and warn of classes that never occur.

    Args:
        datasets: the training datasets, of equal categories.
        counts: the labels of all.
        spec: of the architecture.
        filters_empty: images without objects are left out.

    Raises:
        ConfigError: the architecture trains on instances or their centers, and there is none, or on labels, and there
            are none.
    """
    names, categories = ", ".join(dataset.name for dataset in datasets), datasets[0].categories
    has_things = any(counts.segments[thing.category_id] for thing in categories.things)
    needs_things = not {"instances", "centers"}.isdisjoint(spec.targets)
    if counts.is_complete and needs_things and categories.things and not has_things:
        crowds = sum(counts.crowds[thing.category_id] for thing in categories.things)
        problem = f"expected objects to train on, got {counts.images} images of {names} without any"
        remedy = "name a split that is annotated"
        if crowds:
            problem = f"all {crowds} annotations of {names} are crowds (iscrowd 1), on which no object is trained"
            remedy = "set iscrowd to 0 in the annotations of single objects"
        has_stuff = any(counts.segments[stuff.category_id] for stuff in categories.stuff)
        if "semantic" in spec.targets and has_stuff and not filters_empty:
            logger.warning("%s: only the semantic head learns something; %s", problem, remedy)
        elif spec.needs_targets:
            raise ConfigError(problem, where="DATASETS.TRAIN", remedy=remedy)
    warn_of_absent_classes(names, categories, counts, spec, "the model cannot learn them")


def warn_of_absent_classes(
    names: str, categories: CategorySet, counts: LabelCounts, spec: ArchitectureSpec, consequence: str
) -> None:
    """Warn of classes without any label, if all images were counted.

    Args:
        names: the datasets, for the message.
        categories: of the datasets.
        counts: their labels.
        spec: of the architecture: things only, if that has no other target.
        consequence: for the message.
    """
    used = categories.things if spec.targets == ("instances",) else categories.categories
    absent = [make_printable(c.name) for c in used if not counts.segments[c.category_id]]
    if absent and counts.is_complete:
        shown = ", ".join(absent[:MAX_NAMES]) + (f" (the first {MAX_NAMES})" if len(absent) > MAX_NAMES else "")
        text = "%s: %d of %d classes have no label in %d images, %s: %s"
        logger.warning(text, names, len(absent), len(used), counts.images, consequence, shown)


def warn_of_shared_images(training: Sequence[Dataset], testing: Sequence[Dataset]) -> None:
    """Warn of test images that are training images, one line for each test dataset.

    Args:
        training: the training datasets.
        testing: the test datasets.
    """
    trained: dict[str, str] = {}
    for dataset in training:
        trained.update(dict.fromkeys(_get_files(dataset), dataset.name))
    for dataset in testing:
        shared = [trained[path] for path in _get_files(dataset) if path in trained]
        if shared:
            text = "%d of the %d test images of %s are training images of %s: the metrics will be better than on others"
            logger.warning(text, len(shared), len(dataset.records), dataset.name, ", ".join(sorted({*shared})))


def _read_tables(record: Record, categories: CategorySet) -> Iterator[tuple[int, bool]]:
    """(category_id, iscrowd) of the annotations and segments_info; things of the latter only without annotations."""
    is_annotated = "annotations" in record
    if is_annotated and isinstance(record["annotations"], list):
        for annotation in record["annotations"]:
            yield categories.category_id(annotation["category_id"], isthing=True), bool(annotation.get("iscrowd", 0))
    elif is_annotated:
        reader, image = find_image(record["reader"], record["image_id"])
        for entry in reader.read_stored_annotations(image):
            yield entry["category_id"], bool(entry["iscrowd"])
    for info in record.get("segments_info", ()):
        if not (is_annotated and categories.isthing_by_id[info["category_id"]]):
            yield info["category_id"], bool(info.get("iscrowd", 0))


def _is_in_tables(record: Record, categories: CategorySet) -> bool:
    """Whether tables that are read fast hold all labels: those in memory and those of the annotation cache."""
    if "segments_info" in record:
        return True
    if "annotations" not in record or (categories.stuff and has_segmentation(record)):
        return False
    return isinstance(record["annotations"], list) or isinstance(get_reader(record["reader"])[0], CachedInstancesReader)


@cache
def _resolve(folder: str) -> str:
    return os.path.realpath(folder)


def _get_files(dataset: Dataset) -> list[str]:
    """The paths of the images; links of folders are followed."""
    parts = [os.path.split(os.path.abspath(record["file_name"])) for record in dataset.records]
    return [os.path.join(_resolve(folder), name) for folder, name in parts]
