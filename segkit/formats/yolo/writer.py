"""Ultralytics' YOLO segmentation format, written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from segkit.formats import base, image_files
from segkit.formats.base import ORIGINAL_SEGMENTATION, DatasetImage, DatasetWriter
from segkit.formats.derive import build_coco_annotations
from segkit.formats.splits import check_split, is_validation
from segkit.formats.yolo.dataset_file import DATA_FILE, IMAGES, SPLITS, get_label_name
from segkit.formats.yolo.labels import format_outline
from segkit.formats.yolo.outlines import build_outline
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.utils.files import replacing


class YoloWriter(DatasetWriter):
    """Writes root/labels/<split>/NAME.txt image by image, and root/data.yaml, for images in root/images/<split>.

    The things become the classes 0, 1, ... in their order. An object is one polygon with exactly its pixels, see
    `build_outline`: pieces and holes are joined by lines without width, as Ultralytics joins pieces. An image without
    objects has an empty label file.

    Args:
        root: Folder to write to.
        categories: Categories of the segmentations.
        split: "train", "val" or "test": the split of all images.
        val_share: If given, images are divided into "train" and "val" by the hash of their names; this share of them,
            0..1, is "val".

    Raises:
        DatasetError: No category is a thing.
        ConfigError: `split` or `val_share` is invalid.
        ValueError: `split` is something else.
    """

    def __init__(
        self, root: str | Path, categories: CategorySet, *, split: str = "train", val_share: float | None = None
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {[*SPLITS]}, got {split!r}")
        if val_share is not None:
            check_split(None, val_share)
        super().__init__(root, categories)
        base.check_has_things(categories, root)
        self._split, self._val_share = split, val_share
        self._names: set[str] = set()

    def image_path(self, image: DatasetImage) -> Path:
        """See base class."""
        folder = self.root / IMAGES / self._choose_split(image)
        return image_files.build_image_path(folder, image, image_files.IMAGE_SUFFIX_CASES)

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """See base class; lost are crowds, stuff, objects without pixels, scores and further keys."""
        name = image_files.get_unique_stem(image, self._names, self.root)
        areas_px = base.compute_segment_areas(image, segmentation, self.categories)
        lines, losses = [], base.list_empty_segments(segmentation.segments, areas_px)
        things = build_coco_annotations(image.image_id, segmentation) if annotations is None else annotations
        for annotation in (annotation for annotation in things if not annotation.get("iscrowd", 0)):
            given = annotation.get(ORIGINAL_SEGMENTATION, annotation["segmentation"])
            outline = build_outline(given, image.size_hw)
            if outline is None:
                losses.append(f"annotation {annotation.get('id', '')}: it has no pixel")
            else:
                index = self.categories.thing_contiguous_ids[annotation["category_id"]]
                lines.append(format_outline(index, outline, image.size_hw))
        path = self.root / get_label_name(f"{IMAGES}/{self._choose_split(image)}/{image.file_name}")
        with replacing(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        self._names.add(name)
        crowds = sum(bool(annotation.get("iscrowd", 0)) for annotation in things)
        stuff = sum(not s.isthing for s in segmentation.segments if s.segment_id in areas_px)
        losses += [f"{crowds} crowds cannot be held"] if crowds else []
        losses += [f"{stuff} segments of stuff cannot be held"] if stuff else []
        return [*losses, *base.list_lost_keys(annotations), *base.list_lost_scores(segmentation.segments)]

    def finish(self) -> None:
        """Write data.yaml. Ultralytics wants `train` and `val` in every file."""
        splits = dict.fromkeys(("train", "val", self._split))
        names = {index: category.name for index, category in enumerate(self.categories.things)}
        content = {**{split: f"{IMAGES}/{split}" for split in splits}, "names": names}
        with replacing(self.root / DATA_FILE) as temporary:
            temporary.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")

    def _choose_split(self, image: DatasetImage) -> str:
        if self._val_share is None:
            return self._split
        return "val" if is_validation(image_files.strip_suffix(image.file_name), self._val_share) else "train"
