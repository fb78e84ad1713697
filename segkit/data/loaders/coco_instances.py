"""COCO instances as Detectron2 dataset dicts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from segkit.data.dataset import Dataset, Record
from segkit.data.files import LISTED, check_files_exist
from segkit.formats import cache as annotation_cache
from segkit.formats.cache import AnnotatedImages, ImageRow
from segkit.structures import CategorySet, segmentation_to_rle
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry


class MadeAnnotations(Sequence[Record]):
    """One image's Detectron2 annotations, made at each use, so that a million of them take no memory; a subclass says
    of what. Two are equal, and one equals a list, where the annotations are."""

    __slots__ = ()

    @abstractmethod
    def __iter__(self) -> Iterator[Record]:
        """Make them."""

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, index: Any) -> Any:
        return [*self][index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr([*self])


class LazyAnnotations(MadeAnnotations):
    """Annotations that lie in the cache; pickled, it is small, and opens the cache again."""

    __slots__ = ("_contiguous_ids", "_row", "_size_hw")

    def __init__(self, row: ImageRow, size_hw: tuple[int, int], contiguous_ids: Mapping[int, int] | None) -> None:
        """contiguous_ids: of category ids, None where they are those of the JSON's own categories."""
        self._row = row
        self._size_hw = size_hw
        self._contiguous_ids = contiguous_ids

    def __len__(self) -> int:
        return len(self._row)

    def __iter__(self) -> Iterator[Record]:
        contiguous_ids = self._contiguous_ids or self._row.categories.thing_contiguous_ids
        return (to_detectron2(entry, self._size_hw, contiguous_ids) for entry in self._row)


def annotations_by_image(file: AnnotatedImages, categories: CategorySet) -> dict[Any, Sequence[Record]]:
    """Detectron2 annotations of each image_id; crowds included with iscrowd = 1; DatasetError for other categories."""
    if unknown := sorted(file.category_ids - set(categories.thing_contiguous_ids)):
        raise DatasetError(
            f"expected annotations of the dataset's things, got the category ids {unknown[:LISTED]}",
            where=file.path,
        )
    found: dict[Any, Sequence[Record]] = {}
    contiguous_ids = dict(categories.thing_contiguous_ids)
    own = contiguous_ids == dict(file.categories.thing_contiguous_ids)
    for image, entries in zip(file.images, file.annotations, strict=True):
        size_hw = image["height"], image["width"]
        if isinstance(entries, ImageRow):
            found[image["id"]] = LazyAnnotations(entries, size_hw, None if own else contiguous_ids)
        else:
            found[image["id"]] = [to_detectron2(entry, size_hw, contiguous_ids) for entry in entries]
    return found


def load_coco_instances(name: str, instances_json: Path, image_root: Path) -> Dataset:
    """A COCO instances dataset, judged by box and mask AP."""
    file = annotation_cache.read_instances(instances_json)
    check_files_exist(image_root, [i["file_name"] for i in file.images], "image", f"listed in {instances_json}")
    annotations = annotations_by_image(file, file.categories)
    records = [
        {
            "file_name": str(image_root / image["file_name"]),
            "image_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            "annotations": annotations[image["id"]],
        }
        for image in file.images
    ]
    metadata = {"json_file": str(instances_json), "image_root": str(image_root)}
    return Dataset(name, file.categories, ("mask_ap",), records, instances_json, metadata=metadata)


def to_detectron2(entry: Entry, size_hw: tuple[int, int], contiguous_ids: Mapping[int, int]) -> Record:
    """A COCO annotation as Detectron2's mappers take it; contiguous_ids: of category ids."""
    segmentation = entry["segmentation"]
    if not isinstance(segmentation, list):  # Detectron2's mapper takes polygons or compressed RLE
        segmentation = segmentation_to_rle(segmentation, size_hw)
    return {
        "bbox": entry["bbox"],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": contiguous_ids[entry["category_id"]],
        "iscrowd": entry["iscrowd"],
        "segmentation": segmentation,
    }
