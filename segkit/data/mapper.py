"""The mapper of all segkit datasets: a record in, the tensors of a model's input out."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from PIL import Image

from segkit.data.augmentations.build import build_augmentations, build_copy_paste
from segkit.data.augmentations.copy_paste import CopyPaste, Sample
from segkit.data.augmentations.jitter import LargeScaleJitter
from segkit.data.augmentations.resize import SafeResize
from segkit.data.augmentations.scene import Scene, SegmentMap, build_annotated_instances
from segkit.data.center_targets import CenterTargets
from segkit.data.class_counts import get_thing_channels
from segkit.data.dataset import Dataset, Record
from segkit.data.ground_truth import has_segmentation, read_segmentation
from segkit.data.label_counts import THREADS, LabelCounts, count_record
from segkit.data.loaders.readers import find_image
from segkit.formats.bands import RGB
from segkit.formats.image_io import open_image, read_image_size
from segkit.runtime import images
from segkit.runtime.images import ALL_CHANNELS
from segkit.structures import IGNORE_LABEL, CategorySet, SemanticSpace
from segkit.structures.architecture_spec import Target, get_architecture_spec, get_head_specs
from segkit.utils.errors import DatasetError
from segkit.utils.plugins import get_plugin_sources, load_plugins

YUV = "YUV-BT.601"  # the only INPUT.FORMAT whose pixels are float


class SegkitMapper:
    """Read, augment and convert one record.

    A sample has the record's file_name, image_id, height, width (of the file) and

    - image: (channels, H, W) tensor in INPUT.FORMAT, uint8, or float32 for YUV-BT.601;
    - in training instances: gt_boxes (XYXY, pixels), gt_classes (thing contiguous ids), gt_masks
      (`PolygonMasks`, `BitMasks`, or the `MapMasks` among them);
    - in training sem_seg: (H, W) int64 semantic channels, `IGNORE_LABEL` where void, if the dataset has maps;
    - in training, for architectures with centers, the other targets of `CenterTargets`.

    Geometric augmentations move the image and the panoptic map (nearest pixel); copy-paste paints into both. Masks,
    tight boxes and sem_seg are derived from the resulting map: they always agree, and masks never overlap. If the
    record has annotations (which may overlap), masks and boxes come from these, moved likewise. Polygons stay polygons
    unless augmentations cut objects or `bitmasks` is set.

    Crowds are no instances; in sem_seg they have their category's channel ("one": the channel of all things). Void and
    padded pixels are `IGNORE_LABEL`, and in no mask. Instances without a pixel are left out. Random numbers come from
    numpy's global generator, which Detectron2's loader seeds for each worker.

    Args:
        categories: the dataset's categories.
        space: the semantic channels, at most IGNORE_LABEL of them.
        augmentations: Detectron2 augmentations; those that cut objects have "Crop" in their class's name, or are
            LargeScaleJitter.
        image_format: INPUT.FORMAT, see `convert_pixels`.
        is_train: False: give the image only.
        copy_paste: pastes instances of other records; None: off.
        most_skipped: above 0: give None for a record without labelled things (crowds do not count), for which
            Detectron2's loader takes another one; DatasetError after so many in a row.
        targets: which of "instances" and "semantic" a sample holds, see `ArchitectureSpec`.
        center_targets: derives further targets from the map; None: no such targets.
        drafts: in training, decode a JPEG at 1/2, 1/4 or 1/8 of its size if it is not smaller than it is after the
            resize, which must be the first augmentation. Its pixels differ by less than 1 of 255 in the mean.
        bitmasks: turn polygons into BitMasks.

    Raises:
        ValueError: there are too many semantic channels.
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
        center_targets: CenterTargets | None = None,
        drafts: bool = False,
        bitmasks: bool = False,
    ) -> None:
        if len(space.names) > IGNORE_LABEL:
            raise ValueError(f"space must have at most {IGNORE_LABEL} channels, got {len(space.names)}")
        self.categories, self.space = categories, space
        self.augmentations, self.copy_paste = T.AugmentationList(augmentations), copy_paste
        self.image_format, self.is_train, self.targets = image_format, is_train, targets
        self.center_targets = center_targets
        self.most_skipped, self._skipped = most_skipped, 0
        self.drafts = drafts and is_train and bool(augmentations) and isinstance(augmentations[0], SafeResize)
        self.as_masks = (
            bitmasks
            or copy_paste is not None
            or any(isinstance(a, LargeScaleJitter) or "Crop" in type(a).__name__ for a in augmentations)
        )

    @classmethod
    def from_config(cls, cfg: Any, dataset: Dataset, is_train: bool, *others: Dataset) -> SegkitMapper:
        """Build the mapper with the augmentations of cfg.INPUT and the targets of MODEL.META_ARCHITECTURE.

        Args:
            cfg: a config with segkit's keys.
            dataset: gives categories and semantic channels.
            is_train: False: without ground truth and random augmentations.
            others: further training datasets of equal categories, to paste from.

        Returns:
            The mapper.

        Raises:
            ConfigError: a value of cfg.INPUT is out of range, or keys contradict each other.
        """
        targets = get_architecture_spec(cfg.MODEL.META_ARCHITECTURE).targets
        datasets = [dataset, *others]
        annotated = all("annotations" in d.records[0] for d in datasets)  # the loader filters these itself
        skips = is_train and not annotated and cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        skips = skips and "instances" in targets and bool(dataset.categories.things)
        has_semantics = any(has_segmentation(record) for record in dataset.records[:1])
        return cls(
            dataset.categories,
            dataset.categories.build_semantic_space(get_thing_channels(cfg, dataset)),
            build_augmentations(cfg, is_train, has_semantics),
            image_format=cfg.INPUT.FORMAT,
            is_train=is_train,
            copy_paste=build_copy_paste(cfg, datasets, is_train),
            most_skipped=sum(len(d.records) for d in datasets) if skips else 0,
            targets=targets,
            center_targets=CenterTargets.from_config(cfg) if "centers" in targets else None,
            drafts=cfg.INPUT.DRAFT_JPEG and cfg.INPUT.FORMAT != ALL_CHANNELS,
            bitmasks=cfg.INPUT.MASK_FORMAT == "bitmask" or any(head.needs_bitmasks for head in get_head_specs(cfg)),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "plugins": get_plugin_sources()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        load_plugins(state.pop("plugins"))  # a data loader's process may have been spawned: its registries are empty
        self.__dict__.update(state)

    def __call__(self, record: Record) -> dict[str, Any] | None:
        """Map one record.

        Args:
            record: of the dataset, see `Dataset.records`.

        Returns:
            The sample, see the class; None if the record is skipped.

        Raises:
            DatasetError: a file is missing, damaged or contradicts its record, or too many records were skipped.
        """
        segment_map = self._segment_map(record)
        if self.most_skipped and self._is_skipped(record, segment_map):
            return None
        result = {key: record[key] for key in ("file_name", "image_id", "height", "width")}
        sample = self._augmented(record, segment_map)
        if self.copy_paste is not None:
            sample = self.copy_paste(sample, lambda source: self._augmented(source, self._segment_map(source)))
        result["image"] = torch.from_numpy(sample.image.transpose(2, 0, 1).copy())
        if sample.segment_map is not None and self.center_targets is not None:
            result |= self.center_targets(sample.segment_map, self.space)  # sem_seg too
        elif sample.segment_map is not None and "semantic" in self.targets:
            result["sem_seg"] = torch.from_numpy(sample.segment_map.channels(self.space)).long()
        if "instances" in self.targets and (instances := sample.instances(self.categories)) is not None:
            result["instances"] = instances
        return result

    def _segment_map(self, record: Record) -> SegmentMap | None:
        """The panoptic map of a record in training; None if it has no map."""
        if not self.is_train or not has_segmentation(record):
            return None
        return SegmentMap.from_segmentation(read_segmentation(record, self.categories))

    def _is_skipped(self, record: Record, segment_map: SegmentMap | None) -> bool:
        if "annotations" in record:
            has_things = any(not annotation.get("iscrowd", 0) for annotation in record["annotations"])
        else:
            segments = () if segment_map is None else segment_map.segments
            has_things = any(segment.isthing and not segment.iscrowd for segment in segments)
        self._skipped = 0 if has_things else self._skipped + 1
        if self._skipped >= self.most_skipped:
            problem = f"expected images with objects, got {self._skipped} without in a row"
            remedy = "set DATALOADER.FILTER_EMPTY_ANNOTATIONS False to train on them"
            raise DatasetError(problem, where=record["file_name"], remedy=remedy)
        return not has_things

    def _augmented(self, record: Record, segment_map: SegmentMap | None) -> Sample:
        """The image, and in training its ground truth, after the augmentations."""
        if self.drafts:
            scene, transforms = self._augment_draft(record, segment_map)
        else:
            scene = Scene(read_image(record, self.image_format), segment_map, self.space)
            transforms = self.augmentations(scene)
        annotated = None
        if self.is_train and "annotations" in record:
            size_hw = scene.image.shape[0], scene.image.shape[1]
            annotated = build_annotated_instances(record["annotations"], transforms, size_hw, self.as_masks)
        return Sample(scene.image, scene.segment_map, annotated)

    def _augment_draft(self, record: Record, segment_map: SegmentMap | None) -> tuple[Scene, T.TransformList]:
        """As `self.augmentations`, whose resize is drawn before the image is decoded at the scale that it needs."""
        resize, *others = self.augmentations.augs
        pixels = np.broadcast_to(np.uint8(0), (record["height"], record["width"], 3))
        scene = Scene(pixels, segment_map, self.space)
        transform = resize.get_transform(pixels)
        if isinstance(transform, T.ResizeTransform):
            size_hw = transform.new_h, transform.new_w
            image = read_image(record, self.image_format, size_hw)
            scene.transform_map(transform)
            scene.image = T.ResizeTransform(*image.shape[:2], *size_hw, transform.interp).apply_image(image)
        else:  # MIN_SIZE_TRAIN 0
            scene.image = read_image(record, self.image_format)
        return scene, T.TransformList([transform, *T.AugmentationList(others)(scene).transforms])


def read_image(record: Record, image_format: str, least_hw: tuple[int, int] | None = None) -> np.ndarray:
    """Read a record's image, rotated as its EXIF says.

    Args:
        record: a Detectron2 dataset dict.
        image_format: INPUT.FORMAT, see `convert_pixels`; for "CHANNELS" as the reader gives them, if there is one.
        least_hw: see `open_image`.

    Returns:
        (H, W, C) pixels.

    Raises:
        DatasetError: the file is missing, damaged, or not of the record's size.
    """
    path, key = Path(record["file_name"]), record.get("reader")
    if key is not None and (key.channels != RGB or not path.is_file()):  # a slice of a volume has no file of its own
        reader, listed = find_image(key, record["image_id"])
        if image_format == ALL_CHANNELS:
            return reader.read_channels(listed)
        return convert_pixels(Image.fromarray(reader.read_image(listed)), image_format)
    image = open_image(path, least_hw)
    height, width = (image.height, image.width) if least_hw is None else read_image_size(path)
    if (height, width) != (record["height"], record["width"]):
        raise DatasetError(
            f"expected {record['height']} x {record['width']} pixels (height x width) as the annotations say, "
            f"got {height} x {width}",
            where=path,
            remedy="use the image that was annotated",
        )
    return convert_pixels(image, image_format)


def convert_pixels(image: Image.Image, image_format: str) -> np.ndarray:
    """Convert an image to INPUT.FORMAT, as Detectron2's `convert_PIL_to_numpy` does.

    Args:
        image: 8-bit image.
        image_format: "YUV-BT.601" (float), or as `segkit.runtime.images.convert_pixels` takes it (uint8).

    Returns:
        (H, W, C) pixels.

    Raises:
        ConfigError: the format is none of these.
    """
    if image_format != YUV:
        return images.convert_pixels(image, image_format)
    pixels: np.ndarray = utils.convert_PIL_to_numpy(image, image_format)
    return pixels


class CheckedFiles(NamedTuple):
    """What `check_files` has seen.

    Attributes:
        checked: the number of checked records.
        labelled: how many of them have a label; a record without a map counts as labelled.
        labels: the labels of the checked records.
    """

    checked: int
    labelled: int
    labels: LabelCounts


def check_files(dataset: Dataset, limit: int) -> CheckedFiles:
    """Decode images and labels of some records, spread evenly over the dataset.

    Args:
        dataset: any loaded dataset.
        limit: how many records are checked, -1 for all.

    Returns:
        The counts.

    Raises:
        DatasetError: a file is missing, damaged or contradicts its record; of the first such record.
    """
    count = len(dataset.records) if limit < 0 else min(limit, len(dataset.records))
    rows = np.unique(np.linspace(0, len(dataset.records) - 1, count).round().astype(int)).tolist()

    def check_record(record: Record) -> tuple[bool, LabelCounts]:
        read_image(record, ALL_CHANNELS)
        segmentation = read_segmentation(record, dataset.categories) if has_segmentation(record) else None
        is_labelled = segmentation is None or bool(segmentation.segments)
        return is_labelled, count_record(record, dataset.categories, segmentation)

    labelled, labels = 0, LabelCounts(is_complete=len(rows) == len(dataset.records))
    with ThreadPoolExecutor(THREADS) as pool:
        for is_labelled, counts in pool.map(check_record, [dataset.records[row] for row in rows]):
            labelled += is_labelled
            labels += counts
    return CheckedFiles(len(rows), labelled, labels)
