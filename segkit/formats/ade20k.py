"""ADE20K's 150 classes, ADEChallengeData2016: panoptic as Mask2Former prepares it, semantic maps, instance maps."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segkit.formats import coco, png
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.coco import PanopticFilesWriter, PanopticRecord
from segkit.formats.derive import relabel
from segkit.formats.image_files import describe_unused_images
from segkit.formats.png import CHANNEL
from segkit.structures import VOID, Category, CategorySet, ImageId, PanopticSegmentation, Segment, default_color
from segkit.utils import files
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, raise_issue, report_missing, report_unpaired, try_read
from segkit.utils.text import abbreviate

Annotations = Literal["panoptic", "semantic", "instances"]
ANNOTATIONS = ("panoptic", "semantic", "instances")
FOLDERS = {"train": "training", "val": "validation"}
N_CLASSES = 150
NAMES_FILE = "objectInfo150.txt"
MOST_BYTES = 2**20  # of it that are read; its own are less than 2**13
# Class k of annotations_instance/, 1..100, is class THING_IDS[k - 1] of annotations/: categoryMapping.txt of the
# challenge, ade20k_instance_catid_mapping.txt of Mask2Former.
THING_IDS = (
    *(8, 9, 11, 13, 15, 16, 19, 20, 21, 23, 24, 25, 28, 31, 32, 33, 34, 36, 37, 38, 39, 40, 42, 43, 44, 45, 46, 48),
    *(50, 51, 54, 56, 57, 58, 59, 63, 65, 66, 67, 68, 70, 71, 72, 73, 74, 75, 76, 77, 79, 81, 82, 83, 84, 86, 87, 88),
    *(89, 90, 91, 93, 94, 96, 98, 99, 103, 104, 105, 108, 109, 111, 112, 113, 116, 117, 119, 120, 121, 122, 124, 125),
    *(126, 127, 128, 130, 131, 133, 134, 135, 136, 137, 138, 139, 140, 143, 144, 145, 147, 148, 149, 150),
)
COMPLETE = "complete the download, or the preparation"
NOT_NAMED = "are of no annotation that is read"


class ADE20KReader(DatasetReader):
    """The train or val split below root = ADEChallengeData2016; image_id is the picture's stem.

    annotations: `panoptic`, ade20k_panoptic_<split>.json and its PNGs, categories as in the JSON, ids 0..149.
    `semantic`, annotations/: ids 1..150 as in the maps, all stuff, one segment per class. `instances`: the panoptic
    that Mask2Former's prepare_ade20k_pan_seg.py makes, ids 1..150: stuff of annotations/, on it the instances of
    annotations_instance/; things that are no instance are void. Names of 1..150 are those of objectInfo150.txt below
    root, else "class 1" to "class 150". tell: gets what is wrong with single images, which are then left out: a picture
    or an annotation is missing, damaged, or contradicts itself. skipped: lines on pictures and PNGs that the panoptic
    JSON does not name. Raises DatasetError where the JSON or all pictures are missing; ValueError for another split or
    `annotations`.
    """

    format = "ade20k"

    def __init__(
        self,
        root: str | Path,
        split: str = "val",
        *,
        annotations: Annotations = "panoptic",
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        for name, value, known in (("split", split, (*FOLDERS,)), ("annotations", annotations, ANNOTATIONS)):
            if value not in known:
                raise ValueError(f"{name} must be one of {known}, got {value!r}")
        self.root = Path(root)
        self.image_root = self.root / "images" / FOLDERS[split]
        self._annotations = annotations
        self._semantic = self.root / "annotations" / FOLDERS[split]
        self._instances = self.root / "annotations_instance" / FOLDERS[split]
        self._pngs = self.root / f"ade20k_panoptic_{split}"
        self._records: dict[ImageId, PanopticRecord] = {}
        if annotations == "panoptic":
            self._find_panoptic(on_issue)
        else:
            self.categories = _categories(self.root / NAMES_FILE, THING_IDS if annotations == "instances" else ())
            images = [try_read(on_issue, "png-unreadable", self._image, path) for path in self._find(on_issue)]
            self.images = tuple(image for image in images if image is not None)

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """segment_id: of the JSON; else the class of stuff, and CHANNEL + the instance number of things."""
        if self._annotations == "panoptic":
            return self._read_panoptic(self._records[image.image_id], image)
        name = f"{image.image_id}.png"
        classes = _read_classes(self._semantic / name, image.size_hw)
        if self._annotations == "semantic":
            return _segmentation_of(classes, {i: i for i in range(1, N_CLASSES + 1)}, self.categories)
        return _with_instances(classes, self._instances / name, self.categories)

    def _find_panoptic(self, on_issue: IssueHandler) -> None:
        content = coco.read_panoptic(self.root / f"{self._pngs.name}.json", partial(on_issue, "annotation-unreadable"))
        images = {r.image_id: self.image_root / r.file_name for r in content.records}
        pngs = {r.image_id: self._pngs / r.png_name for r in content.records}
        gone = report_missing(on_issue, "image-missing", "picture", [*images.values()], COMPLETE)
        gone |= report_missing(on_issue, "png-missing", "annotation", [*pngs.values()], COMPLETE)
        there = [r for r in content.records if not gone & {images[r.image_id], pngs[r.image_id]}]
        self.categories = content.categories
        self._records = {record.image_id: record for record in there}
        self.images = tuple(DatasetImage(r.image_id, r.file_name, (r.height, r.width)) for r in there)
        self.skipped = (
            *describe_unused_images(self.image_root, {r.file_name for r in content.records}, f"pictures {NOT_NAMED}"),
            *describe_unused_images(self._pngs, {r.png_name for r in content.records}, f"PNGs {NOT_NAMED}"),
        )

    def _find(self, on_issue: IssueHandler) -> list[Path]:
        """The pictures that have their annotations, sorted."""
        images = _files_in(self.image_root, ".jpg")
        if not images:
            raise DatasetError("expected pictures *.jpg, found none", where=self.image_root, remedy="check the path")
        bare: set[str] = set()
        for folder in (self._semantic, self._instances)[: 2 if self._annotations == "instances" else 1]:
            pngs = [folder / f"{name}.png" for name in images]
            bare |= {path.stem for path in report_missing(on_issue, "png-missing", "annotation", pngs, COMPLETE)}
            report_unpaired(
                on_issue,
                "image-missing",
                "the annotation has no picture",
                _files_in(folder, ".png"),
                images,
                COMPLETE,
            )
        return [path for name, path in images.items() if name not in bare]

    def _image(self, path: Path) -> DatasetImage:
        header = png.read_header(self._semantic / f"{path.stem}.png")
        return DatasetImage(path.stem, path.name, (header.height, header.width))

    def _read_panoptic(self, record: PanopticRecord, image: DatasetImage) -> PanopticSegmentation:
        """Without the stuff that things cover wholly: Mask2Former's JSON lists it, its PNG has not a pixel of it."""
        path = self._pngs / record.png_name
        held = coco.read_id_runs(path, image.size_hw).areas_px()
        infos = [i for i in record.segments_info if i["id"] in held or self.categories[i["category_id"]].isthing]
        return coco.read_segmentation(path, infos, self.categories, image.size_hw, image.image_id)


class ADE20KWriter(PanopticFilesWriter):
    """root/ade20k_panoptic_<split>.json and its folder of PNGs, as the source reads them as `panoptic`; pictures belong
    into root/images."""

    def __init__(self, root: str | Path, categories: CategorySet, *, split: str = "val") -> None:
        """ValueError for another split than train and val."""
        if split not in FOLDERS:
            raise ValueError(f"split must be one of {(*FOLDERS,)}, got {split!r}")
        super().__init__(root, categories, f"ade20k_panoptic_{split}", f"images/{FOLDERS[split]}")


def _files_in(folder: Path, suffix: str) -> dict[str, Path]:
    """By stem, sorted; none where there is no folder."""
    there = os.path.isdir(folder)  # Path.glob raises for a name that is too long
    paths = sorted(path for path in folder.glob(f"*{suffix}") if not path.name.startswith(".")) if there else []
    return {path.stem: path for path in paths}


def _categories(path: Path, thing_ids: tuple[int, ...]) -> CategorySet:
    names = _read_names(path) if os.path.isfile(path) else {i: f"class {i}" for i in range(1, N_CLASSES + 1)}
    return CategorySet([Category(i, name, i in thing_ids, default_color(i)) for i, name in names.items()])


def _read_names(path: Path) -> dict[int, str]:
    """Names by class id: the last and the first column of a table with a head, parted by tabs."""
    lines = files.read_bytes(path, MOST_BYTES).decode("utf-8", "replace").splitlines()
    rows = [[cell.strip() for cell in line.split("\t")] for line in lines[1:] if line.strip()]
    ids = {str(i): i for i in range(1, N_CLASSES + 1)}
    names = {ids[row[0]]: row[-1] for row in rows if row[0] in ids and row[-1]}
    if [*names] != [*range(1, N_CLASSES + 1)]:
        problem = f"expected a head and {N_CLASSES} rows, class id first and name last, parted by tabs"
        raise DatasetError(f"{problem}, got the ids {abbreviate(names)}", where=path)
    return names


def _read_classes(path: Path, size_hw: tuple[int, int]) -> NDArray[np.int32]:
    classes = png.read_labels(path).astype(np.int32)
    if classes.shape != size_hw or classes.max(initial=0) > N_CLASSES:
        expected = f"{size_hw[0]} x {size_hw[1]} classes in 0..{N_CLASSES}"
        raise DatasetError(f"expected {expected}, got {classes.shape} up to {classes.max(initial=0)}", where=path)
    return classes


def _with_instances(classes: NDArray[np.int32], path: Path, categories: CategorySet) -> PanopticSegmentation:
    """Red is the class, 1..100; green the instance, 0 = none: one number, one class (placeschallenge's README)."""
    size_hw = classes.shape[0], classes.shape[1]
    pairs = coco.read_id_runs(path, size_hw).to_map() % CHANNEL**2
    category_of = {c.category_id: c.category_id for c in categories.stuff}
    segment_ids = relabel(classes, category_of, np.int32)
    segment_ids[pairs >= CHANNEL] = pairs[pairs >= CHANNEL] // CHANNEL + CHANNEL
    for number, class_id in (divmod(pair, CHANNEL) for pair in np.unique(pairs[pairs >= CHANNEL]).tolist()):
        if not 1 <= class_id <= len(THING_IDS) or CHANNEL + number in category_of:
            expected = f"one class in 1..{len(THING_IDS)} (red) for every instance (green)"
            raise DatasetError(f"expected {expected}, got {class_id} of instance {number}", where=path)
        category_of[CHANNEL + number] = THING_IDS[class_id - 1]
    return _segmentation_of(segment_ids, category_of, categories)


def _segmentation_of(
    segment_ids: NDArray[np.int32], category_of: dict[int, int], categories: CategorySet
) -> PanopticSegmentation:
    segments = []
    for segment_id, area_px in zip(*(x.tolist() for x in np.unique(segment_ids, return_counts=True)), strict=True):
        if segment_id != VOID:
            category_id = category_of[segment_id]
            segments.append(Segment(segment_id, category_id, categories[category_id].isthing, area_px))
    return PanopticSegmentation(segment_ids, tuple(segments))
