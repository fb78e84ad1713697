"""The mapper of every dataset of ours: a record in, the tensors that a model takes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Instances

from segkit.data.catalog import Dataset, Record
from segkit.data.truth import read_segmentation
from segkit.formats.derive import semantic_map
from segkit.structures import CategorySet, DatasetError, SemanticSpace, ids_to_rgb, rgb_to_ids


class SegkitMapper:
    """Reads, augments and converts one record.

    Returns the record's file_name, image_id, height, width and
    image: (3, H, W) uint8 tensor in INPUT.FORMAT;
    in training also instances: gt_boxes (XYXY, pixels), gt_classes (thing contiguous ids), gt_masks, without crowds;
    and of a panoptic dataset sem_seg: (H, W) int64, semantic channels, `IGNORE_LABEL` where void.
    Boxes and masks come from the record's annotations where it has them, else from its segments.
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
    ) -> None:
        self.categories = categories
        self.space = space
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.is_train = is_train
        self.cropped = any("Crop" in type(augmentation).__name__ for augmentation in augmentations)

    @classmethod
    def from_config(cls, cfg: Any, dataset: Dataset, is_train: bool) -> SegkitMapper:
        """With the augmentations of cfg.INPUT, as Detectron2's DatasetMapper builds them."""
        augmentations = utils.build_augmentation(cfg, is_train)
        if cfg.INPUT.CROP.ENABLED and is_train:
            augmentations.insert(0, _crop(cfg))
        space = dataset.categories.semantic_space(thing_channels(cfg, dataset))
        return cls(dataset.categories, space, augmentations, image_format=cfg.INPUT.FORMAT, is_train=is_train)

    def __call__(self, record: Record) -> dict[str, Any]:
        image = read_image(record, self.image_format)
        result = {key: record[key] for key in ("file_name", "image_id", "height", "width")}
        segmentation = None
        if self.is_train and "pan_seg_file_name" in record:
            segmentation = read_segmentation(record, self.categories)
        sem_seg = semantic_map(segmentation, self.space) if segmentation is not None else None
        augmented = T.AugInput(image, sem_seg=sem_seg)
        transforms = self.augmentations(augmented)
        result["image"] = torch.from_numpy(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        if not self.is_train:
            return result
        size_hw = augmented.image.shape[:2]
        if augmented.sem_seg is not None:
            result["sem_seg"] = torch.from_numpy(augmented.sem_seg.astype(np.int64))
        if "annotations" in record:
            result["instances"] = _instances_of_annotations(record["annotations"], transforms, size_hw, self.cropped)
        elif segmentation is not None:
            rgb = transforms.apply_segmentation(ids_to_rgb(segmentation.segment_ids))
            things = [s for s in segmentation.segments if s.isthing and not s.iscrowd]
            classes = [self.categories.thing_contiguous_ids[s.category_id] for s in things]
            result["instances"] = _instances_of_ids(rgb_to_ids(rgb), [s.segment_id for s in things], classes)
        return result


def thing_channels(cfg: Any, dataset: Dataset) -> str:
    """MODEL.SEM_SEG_HEAD.THING_CHANNELS with "auto" resolved by the dataset."""
    asked: str = cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS
    return dataset.default_thing_channels if asked == "auto" else asked


def read_image(record: Record, image_format: str) -> np.ndarray:
    """(H, W, 3) uint8 pixels of a record's image, turned as its EXIF says; DatasetError where it cannot be had."""
    path = record["file_name"]
    try:
        image: np.ndarray = utils.read_image(path, format=image_format)
    except FileNotFoundError as error:
        raise DatasetError("the image is missing", where=path, remedy="complete the download") from error
    except (OSError, ValueError, SyntaxError) as error:
        problem = " ".join(str(error).split())
        raise DatasetError(f"the image does not decode: {problem}", where=path, remedy="replace the file") from error
    if image.shape[:2] != (record["height"], record["width"]):
        raise DatasetError(
            f"expected {record['height']} x {record['width']} pixels (height x width) as the annotations say, "
            f"got {image.shape[0]} x {image.shape[1]}",
            where=path,
            remedy="use the image that was annotated",
        )
    return image


def _crop(cfg: Any) -> T.Augmentation:
    crop = cfg.INPUT.CROP
    largest = crop.get("SINGLE_CATEGORY_MAX_AREA", 1.0)  # a key of Detectron2's DeepLab project
    if largest == 1.0:
        return T.RandomCrop(crop.TYPE, crop.SIZE)
    ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    return T.RandomCrop_CategoryAreaConstraint(crop.TYPE, crop.SIZE, largest, ignored)


def _instances_of_annotations(
    annotations: list[Record], transforms: T.TransformList, size_hw: tuple[int, int], cropped: bool
) -> Instances:
    kept = [
        # transform_instance_annotations changes its argument
        utils.transform_instance_annotations(dict(a), transforms, size_hw)
        for a in annotations
        if not a["iscrowd"]
    ]
    polygons = all(isinstance(a["segmentation"], list) for a in kept)
    instances = utils.annotations_to_instances(kept, size_hw, mask_format="polygon" if polygons else "bitmask")
    if not kept:
        instances.gt_masks = BitMasks(torch.zeros((0, *size_hw), dtype=torch.bool))
    elif cropped:  # a cut box bounds its object loosely
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    return utils.filter_empty_instances(instances)


def _instances_of_ids(segment_ids: np.ndarray, wanted: list[int], classes: list[int]) -> Instances:
    masks = segment_ids[None] == np.array(wanted, dtype=segment_ids.dtype)[:, None, None]
    instances = Instances(segment_ids.shape)
    instances.gt_masks = BitMasks(torch.from_numpy(masks))
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    return utils.filter_empty_instances(instances)
