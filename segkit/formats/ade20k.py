"""ADE20K with 150 classes, ADEChallengeData2016: panoptic as Mask2Former prepares it, semantic or instance maps."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segkit.formats import coco, png
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.coco import PanopticFilesWriter, PanopticRecord
from segkit.formats.derive import relabel
from segkit.formats.image_files import describe_unused_images, find_by_pattern
from segkit.formats.png import CHANNEL
from segkit.structures import VOID, Category, CategorySet, IdRuns, ImageId, PanopticSegmentation, Segment, default_color
from segkit.utils import files
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, describe_unused, raise_issue, report_missing, report_unpaired, try_read
from segkit.utils.json_fields import Entry, split_writable_keys
from segkit.utils.text import abbreviate, suggest

Annotations = Literal["panoptic", "semantic", "instances"]
ANNOTATIONS = ("panoptic", "semantic", "instances")
FOLDERS = {"train": "training", "val": "validation"}
N_CLASSES = 150
NAMES_FILE = "objectInfo150.txt"
MAX_NAMES_BYTES = 2**20  # that are read of it; it has less than 2**13
# Class k of annotations_instance/, 1..100, is class THING_IDS[k - 1] of annotations/: categoryMapping.txt of the
# challenge, ade20k_instance_catid_mapping.txt of Mask2Former.
THING_IDS = (
    *(8, 9, 11, 13, 15, 16, 19, 20, 21, 23, 24, 25, 28, 31, 32, 33, 34, 36, 37, 38, 39, 40, 42, 43, 44, 45, 46, 48),
    *(50, 51, 54, 56, 57, 58, 59, 63, 65, 66, 67, 68, 70, 71, 72, 73, 74, 75, 76, 77, 79, 81, 82, 83, 84, 86, 87, 88),
    *(89, 90, 91, 93, 94, 96, 98, 99, 103, 104, 105, 108, 109, 111, 112, 113, 116, 117, 119, 120, 121, 122, 124, 125),
    *(126, 127, 128, 130, 131, 133, 134, 135, 136, 137, 138, 139, 140, 143, 144, 145, 147, 148, 149, 150),
)
COMPLETE = "complete the download, or the preparation"
SHARED = "map of the classes, which tells two of one segment id apart,"
NOT_NAMED = "have no annotation that is read"


class ADE20KReader(DatasetReader):
    """Reads a split of ADE20K. image_id is the stem of the image file.

    Annotations are one of:

    - `panoptic`: ade20k_panoptic_<split>.json and its PNGs, categories as in the JSON, ids 0..149. Classes that share a
      segment id there, as road and skyscraper do, are told apart by the maps of annotations/.
    - `semantic`: the maps of annotations/, ids 1..150, all stuff, one segment for each class.
    - `instances`: what Mask2Former's prepare_ade20k_pan_seg.py makes, ids 1..150: stuff of annotations/, and over it
      the instances of annotations_instance/. Thing pixels without instance are void.

    Names of the ids 1..150 are those of objectInfo150.txt in the root, or "class 1" to "class 150" without that file.
    `skipped` lists images and PNGs that the panoptic JSON does not name.

    Args:
        root: ADEChallengeData2016.
        split: "train" or "val".
        annotations: which annotations to read.
        on_issue: gets errors of single images, which are then left out: an image or annotation is missing, damaged, or
            contradicts itself.

    Raises:
        DatasetError: the JSON or all images are missing.
        ValueError: split or annotations is something else.
    """

    format = "ade20k"
    marks_void = True

    def __init__(
        self,
        root: str | Path,
        split: str = "val",
        *,
        annotations: Annotations = "panoptic",
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        for name, value, choices in (("split", split, (*FOLDERS,)), ("annotations", annotations, ANNOTATIONS)):
            if value not in choices:
                hint = suggest(value, choices)
                raise ValueError(f"{name} must be one of {choices}, got {value!r}{f'; {hint}' if hint else ''}")
        self.root = Path(root)
        self.image_root = self.root / "images" / FOLDERS[split]
        self._annotations = annotations
        self._semantic = self.root / "annotations" / FOLDERS[split]
        self._instances = self.root / "annotations_instance" / FOLDERS[split]
        self._pngs = self.root / f"ade20k_panoptic_{split}"
        self._records: dict[ImageId, PanopticRecord] = {}
        self._shared_ids: dict[Any, dict[int, int]] = {}  # image_id -> segment_id -> id in the PNG
        if annotations == "panoptic":
            self._find_panoptic(on_issue)
        else:
            self.categories = _build_categories(self.root / NAMES_FILE, THING_IDS if annotations == "instances" else ())
            images = [try_read(on_issue, "png-unreadable", self._build_image, path) for path in self._find(on_issue)]
            self.images = tuple(image for image in images if image is not None)

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class. segment_id is of the JSON; or the class of stuff, or CHANNEL + number of an instance."""
        if self._annotations == "panoptic":
            record = self._records[image.image_id]
            path = self._pngs / record.png_name
            runs = coco.read_id_runs(path, image.size_hw)
            if image.image_id in self._shared_ids:
                runs = self._separate_classes(runs, record)
            areas_px, isthing = runs.areas_px(), self.categories.isthing_by_id
            # Mask2Former's JSON lists stuff even if things cover it completely.
            infos = [i for i in record.segments_info if i["id"] in areas_px or isthing[i["category_id"]]]
            return coco.build_segmentation(runs, infos, self.categories, path, image.image_id)
        name = f"{image.image_id}.png"
        classes = _read_classes(self._semantic / name, image.size_hw)
        if self._annotations == "semantic":
            return _build_segmentation(classes, {i: i for i in range(1, N_CLASSES + 1)}, self.categories)
        return _add_instances(classes, self._instances / name, self.categories)

    def _find_panoptic(self, on_issue: IssueHandler) -> None:
        content = coco.read_panoptic(self.root / f"{self._pngs.name}.json", on_issue, self._separate_ids)
        records = content.records
        images = [self.image_root / r.file_name for r in records]
        pngs = [self._pngs / r.png_name for r in records]
        maps = [self._get_class_map(r) for r in records if r.image_id in self._shared_ids]
        missing = report_missing(on_issue, "image-missing", "image", images, COMPLETE)
        missing |= report_missing(on_issue, "png-missing", "annotation", pngs, COMPLETE)
        missing |= report_missing(on_issue, "png-missing", SHARED, maps, COMPLETE)
        paths = zip(images, pngs, map(self._get_class_map, records), strict=True)
        complete = [r for r, files_of_image in zip(records, paths, strict=True) if missing.isdisjoint(files_of_image)]
        self.categories = content.categories
        self._records = {record.image_id: record for record in complete}
        self.images = tuple(coco.build_images((content.images[r.image_id] for r in complete), self.image_root))
        self.info, unwritable = split_writable_keys(content.info)
        self.skipped = (
            *describe_unused(content.path, coco.UNWRITABLE, unwritable),
            *describe_unused(content.path, coco.UNREAD, content.unread),
            *describe_unused_images(self.image_root, {r.file_name for r in records}, f"images {NOT_NAMED}"),
            *describe_unused_images(self._pngs, {r.png_name for r in records}, f"PNGs {NOT_NAMED}"),
        )

    def _separate_ids(self, annotation: Entry) -> Entry:
        """Give stuff that has the segment id of other stuff one of its own, and remember both.

        Mask2Former's preparation takes the colour of a stuff class as its id, and road and skyscraper have one colour.
        """
        infos: Any = annotation.get("segments_info")
        image_id = annotation.get("image_id")
        has_ids = type(infos) is list and all(type(i) is dict and type(i.get("id")) is int for i in infos)
        if not has_ids or type(image_id) not in (int, str):
            return annotation  # its validation says what is wrong
        ids, separated = {info["id"] for info in infos}, {}
        for index, info in enumerate(infos):
            earlier = [i for i in infos[:index] if i["id"] == info["id"]]
            if earlier and info.get("category_id") not in [i.get("category_id") for i in earlier]:
                separated[index] = next(i for i in count(1) if i not in ids)
                ids.add(separated[index])
        if not separated:
            return annotation
        self._shared_ids[image_id] = {new: infos[index]["id"] for index, new in separated.items()}
        infos = [{**info, "id": separated.get(index, info["id"])} for index, info in enumerate(infos)]
        return {**annotation, "segments_info": infos}

    def _separate_classes(self, runs: IdRuns, record: PanopticRecord) -> IdRuns:
        """Give the pixels of classes that share a segment id the ids of `_separate_ids`, by the map of classes."""
        segment_ids = runs.to_map()
        classes = _read_classes(self._get_class_map(record), (record.height, record.width))
        class_by_id = {info["id"]: info["category_id"] + 1 for info in record.segments_info}
        shared_ids = segment_ids.copy()
        for new_id, shared_id in self._shared_ids[record.image_id].items():
            segment_ids[(shared_ids == shared_id) & (classes == class_by_id[new_id])] = new_id
        return IdRuns.from_map(segment_ids)

    def _get_class_map(self, record: PanopticRecord) -> Path:
        return self._semantic / f"{PurePosixPath(record.png_name).stem}.png"

    def _find(self, on_issue: IssueHandler) -> list[Path]:
        """The images that have their annotations, sorted."""
        images = find_by_pattern(self.image_root, "", ".jpg")
        if not images:
            raise DatasetError("expected images *.jpg, found none", where=self.image_root, remedy="check the path")
        unlabelled: set[str] = set()
        for folder in (self._semantic, self._instances)[: 2 if self._annotations == "instances" else 1]:
            expected = [folder / f"{name}.png" for name in images]
            pngs = find_by_pattern(folder, "", ".png")
            problem = "the annotation has no image"
            unlabelled |= {p.stem for p in report_missing(on_issue, "png-missing", "annotation", expected, COMPLETE)}
            report_unpaired(on_issue, "image-missing", problem, pngs, images, COMPLETE)
        return [path for name, path in images.items() if name not in unlabelled]

    def _build_image(self, path: Path) -> DatasetImage:
        return DatasetImage(path.stem, path.name, png.read_header(self._semantic / f"{path.stem}.png").size_hw)


class ADE20KWriter(PanopticFilesWriter):
    """Writes root/ade20k_panoptic_<split>.json and its PNGs, which `ADE20KReader` reads as `panoptic`.

    Images belong in root/images.

    Args:
        root: folder to write to.
        categories: categories of the segmentations.
        split: "train" or "val".

    Raises:
        ValueError: split is something else.
    """

    def __init__(self, root: str | Path, categories: CategorySet, *, split: str = "val") -> None:
        if split not in FOLDERS:
            raise ValueError(f"split must be one of {(*FOLDERS,)}, got {split!r}")
        super().__init__(root, categories, f"ade20k_panoptic_{split}", f"images/{FOLDERS[split]}")


def _build_categories(path: Path, thing_ids: tuple[int, ...]) -> CategorySet:
    names = _read_names(path) if os.path.isfile(path) else {i: f"class {i}" for i in range(1, N_CLASSES + 1)}
    return CategorySet([Category(i, name, i in thing_ids, default_color(i)) for i, name in names.items()])


def _read_names(path: Path) -> dict[int, str]:
    """Class id -> name: first and last column of a table with a header, separated by tabs."""
    lines = files.read_bytes(path, MAX_NAMES_BYTES).decode("utf-8", "replace").splitlines()
    rows = [[cell.strip() for cell in line.split("\t")] for line in lines[1:] if line.strip()]
    ids = {str(i): i for i in range(1, N_CLASSES + 1)}
    names = {ids[row[0]]: row[-1] for row in rows if row[0] in ids and row[-1]}
    if [*names] != [*range(1, N_CLASSES + 1)]:
        problem = f"expected a header and {N_CLASSES} rows, class id first and name last, separated by tabs"
        raise DatasetError(f"{problem}, got the ids {abbreviate(names)}", where=path)
    return names


def _read_classes(path: Path, size_hw: tuple[int, int]) -> NDArray[np.int32]:
    classes = png.read_labels(path).astype(np.int32)
    if classes.shape != size_hw or classes.max(initial=0) > N_CLASSES:
        expected = f"{size_hw[0]} x {size_hw[1]} classes in 0..{N_CLASSES}"
        raise DatasetError(f"expected {expected}, got {classes.shape} up to {classes.max(initial=0)}", where=path)
    return classes


def _add_instances(classes: NDArray[np.int32], path: Path, categories: CategorySet) -> PanopticSegmentation:
    """Draw instances over stuff. Red is the class, 1..100; green the instance, 0 = none (README of placeschallenge)."""
    size_hw = classes.shape[0], classes.shape[1]
    pairs = coco.read_id_runs(path, size_hw).to_map() % CHANNEL**2
    category_ids = {c.category_id: c.category_id for c in categories.stuff}
    segment_ids = relabel(classes, category_ids, np.int32)
    segment_ids[pairs >= CHANNEL] = pairs[pairs >= CHANNEL] // CHANNEL + CHANNEL
    for number, class_id in (divmod(pair, CHANNEL) for pair in np.unique(pairs[pairs >= CHANNEL]).tolist()):
        if not 1 <= class_id <= len(THING_IDS) or CHANNEL + number in category_ids:
            expected = f"one class in 1..{len(THING_IDS)} (red) for every instance (green)"
            raise DatasetError(f"expected {expected}, got {class_id} of instance {number}", where=path)
        category_ids[CHANNEL + number] = THING_IDS[class_id - 1]
    return _build_segmentation(segment_ids, category_ids, categories)


def _build_segmentation(
    segment_ids: NDArray[np.int32], category_ids: dict[int, int], categories: CategorySet
) -> PanopticSegmentation:
    runs = IdRuns.from_map(segment_ids)
    segments = []
    for segment_id, area_px in runs.areas_px().items():
        if segment_id != VOID:
            category_id = category_ids[segment_id]
            segments.append(Segment(segment_id, category_id, categories[category_id].isthing, area_px))
    return PanopticSegmentation.from_runs(runs, tuple(segments))
