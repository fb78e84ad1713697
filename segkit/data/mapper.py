"""The mapper of every dataset of ours: a record in, the tensors that a model takes out."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from PIL import Image

from segkit.data.augmentations.build import build_augmentations, build_copy_paste
from segkit.data.augmentations.copy_paste import CopyPaste, Sample
from segkit.data.augmentations.jitter import LargeScaleJitter
from segkit.data.augmentations.scene import Scene, SegmentMap, build_annotated_instances
from segkit.data.class_counts import get_thing_channels
from segkit.data.dataset import Dataset, Record
from segkit.data.ground_truth import has_segmentation, read_segmentation
from segkit.data.loaders.readers import find_image
from segkit.formats.image_io import open_image
from segkit.structures import IGNORE_LABEL, CategorySet, SemanticSpace
from segkit.structures.architecture_spec import Target, get_architecture_spec
from segkit.utils.errors import ConfigError, DatasetError


class SegkitMapper:
    """Reads, augments and converts one record.

    Returns the record's file_name, image_id, height, width (of the file) and
    image: (channels, H, W) uint8 tensor in INPUT.FORMAT;
    in training also instances: gt_boxes (XYXY, pixels), gt_classes (thing contiguous ids), gt_masks;
    and of a panoptic dataset sem_seg: (H, W) int64, semantic channels, `IGNORE_LABEL` where void.

    Geometric augmentations move the image and the panoptic map (nearest pixel), pasting paints into both, and masks,
    tight boxes and sem_seg are taken from the map that comes out: they cannot disagree, and masks never overlap. Where
    the record has annotations (COCO instances, which may overlap), masks and boxes are theirs, moved likewise: polygons
    stay polygons unless augmentations cut objects, and sem_seg is of the map, where there is one.
    Crowds are no instances; in sem_seg they are their category's channel ("one": that of all things). Void and padded
    pixels are `IGNORE_LABEL`, and in no mask. Instances without a pixel are left out.
    All chance is numpy's global generator, which Detectron2's loader seeds for each worker.
    Raises DatasetError where a file is missing, will not decode or contradicts its JSON.
    """

    def __init__(
        self,
        categories: CategorySet,
        space: SemanticSpace,
        augmentations: list[T.Augmentation],
        *,
        image_format: str = "BGR",
        is_train: bool = True,
        copy_paste: CopyPaste | None = None,
        most_skipped: int = 0,
        targets: Collection[Target] = ("instances", "semantic"),
    ) -> None:
        """Augmentations that cut objects have "Crop" in their class's name, or are LargeScaleJitter.

        most_skipped: where above 0, a record in which no thing, but crowds, is labelled gives None, for which
        Detectron2's loader takes another; DatasetError after so many, one after the other.
        """
        if len(space.names) > IGNORE_LABEL:
            raise ValueError(f"space must have at most {IGNORE_LABEL} channels, got {len(space.names)}")
        self.categories = categories
        self.space = space
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.is_train = is_train
        self.copy_paste = copy_paste
        self.most_skipped = most_skipped
        self.targets = targets
        self._skipped = 0
        self.cuts = copy_paste is not None or any(
            isinstance(a, LargeScaleJitter) or "Crop" in type(a).__name__ for a in augmentations
        )

    @classmethod
    def from_config(cls, cfg: Any, dataset: Dataset, is_train: bool, *others: Dataset) -> SegkitMapper:
        """With the augmentations of cfg.INPUT; others: training datasets of equal categories, to paste from too."""
        targets = get_architecture_spec(cfg.MODEL.META_ARCHITECTURE).targets
        annotated = all("annotations" in one.records[0] for one in (dataset, *others))  # the loader filters these
        skips = is_train and not annotated and cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        skips = skips and "instances" in targets and bool(dataset.categories.things)
        has_semantics = any(has_segmentation(record) for record in dataset.records[:1])
        return cls(
            dataset.categories,
            dataset.categories.build_semantic_space(get_thing_channels(cfg, dataset)),
            build_augmentations(cfg, is_train, has_semantics),
            image_format=cfg.INPUT.FORMAT,
            is_train=is_train,
            copy_paste=build_copy_paste(cfg, [dataset, *others], is_train),
            most_skipped=sum(len(one.records) for one in (dataset, *others)) if skips else 0,
            targets=targets,
        )

    def __call__(self, record: Record) -> dict[str, Any] | None:
        segment_map = self._segment_map(record)
        if self.most_skipped and self._is_skipped(record, segment_map):
            return None
        result = {key: record[key] for key in ("file_name", "image_id", "height", "width")}
        sample = self._augmented(record, segment_map)
        if self.copy_paste is not None:
            sample = self.copy_paste(sample, lambda other: self._augmented(other, self._segment_map(other)))
        result["image"] = torch.from_numpy(sample.image.transpose(2, 0, 1).copy())
        if sample.segment_map is not None and "semantic" in self.targets:
            result["sem_seg"] = torch.from_numpy(sample.segment_map.channels(self.space)).long()
        instances = sample.instances(self.categories) if "instances" in self.targets else None
        if instances is not None:
            result["instances"] = instances
        return result

    def _segment_map(self, record: Record) -> SegmentMap | None:
        """The truth of a record in training; None where it has no panoptic one."""
        if not self.is_train or not has_segmentation(record):
            return None
        return SegmentMap.from_segmentation(read_segmentation(record, self.categories))

    def _is_skipped(self, record: Record, segment_map: SegmentMap | None) -> bool:
        if "annotations" in record:
            found = any(not annotation.get("iscrowd", 0) for annotation in record["annotations"])
        else:
            segments = () if segment_map is None else segment_map.segments
            found = any(segment.isthing and not segment.iscrowd for segment in segments)
        self._skipped = 0 if found else self._skipped + 1
        if self._skipped >= self.most_skipped:
            problem = f"expected images with objects, got {self._skipped} without, one after the other"
            remedy = "set DATALOADER.FILTER_EMPTY_ANNOTATIONS False to train on them"
            raise DatasetError(problem, where=record["file_name"], remedy=remedy)
        return not found

    def _augmented(self, record: Record, segment_map: SegmentMap | None) -> Sample:
        """The image, and in training its truth, after the augmentations."""
        scene = Scene(read_image(record, self.image_format), segment_map, self.space)
        transforms = self.augmentations(scene)
        annotated = None
        if self.is_train and "annotations" in record:
            size_hw = scene.image.shape[0], scene.image.shape[1]
            annotated = build_annotated_instances(record["annotations"], transforms, size_hw, self.cuts)
        return Sample(scene.image, scene.segment_map, annotated)


def read_image(record: Record, image_format: str) -> np.ndarray:
    """(H, W, 3) uint8 pixels of a record's image, turned as its EXIF says; DatasetError where it cannot be had."""
    path = Path(record["file_name"])
    if "reader" in record and not path.is_file():  # a slice of a volume has no file of its own
        reader, listed = find_image(record["reader"], record["image_id"])
        return convert_pixels(Image.fromarray(reader.read_image(listed)), image_format)
    image = open_image(path)
    if (image.height, image.width) != (record["height"], record["width"]):
        raise DatasetError(
            f"expected {record['height']} x {record['width']} pixels (height x width) as the annotations say, "
            f"got {image.height} x {image.width}",
            where=path,
            remedy="use the image that was annotated",
        )
    return convert_pixels(image, image_format)


def convert_pixels(image: Image.Image, image_format: str) -> np.ndarray:
    """(H, W, C) of an 8-bit picture in INPUT.FORMAT, as Detectron2's `convert_PIL_to_numpy` gives it.

    uint8 RGB or BGR, any other mode of Pillow, or float YUV-BT.601; ConfigError where it is none of these.
    """
    if image_format in ("RGB", "BGR"):
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        packed = rgb.tobytes("raw", image_format)  # BGR that lies forwards in memory: no later step has to copy it
        return np.frombuffer(packed, dtype=np.uint8).reshape(image.height, image.width, 3)
    try:
        pixels: np.ndarray = utils.convert_PIL_to_numpy(image, image_format)
    except ValueError as error:
        problem = f"expected RGB, BGR, YUV-BT.601 or a mode of Pillow, got {image_format!r}: {error}"
        raise ConfigError(problem, where="INPUT.FORMAT") from error
    return pixels
