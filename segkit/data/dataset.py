"""A loaded dataset, as every loader gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segkit.structures import CategorySet
from segkit.utils.errors import ConfigError

Record = dict[str, Any]

PANOPTIC_METRICS = ("panoptic_quality", "mask_ap", "semantic_iou")
TASK_METRICS = {"panoptic": PANOPTIC_METRICS, "instance_seg": ("mask_ap",), "sem_seg": ("semantic_iou",)}


@dataclass(frozen=True)
class Dataset:
    """A loaded dataset.

    Attributes:
        name: its name in the catalog.
        categories: the dataset's categories.
        metrics: keys of segkit.evaluation.EVALUATORS, by which the dataset is evaluated.
        records: Detectron2 dataset dicts with file_name, image_id, height, width. `reader` (a ReaderKey) says how the
            ground truth is read; Detectron2's label maps have sem_seg_file_name instead. `annotations` are Detectron2's
            annotations, if instances are not derived from the panoptic map.
        instances_json: the COCO instances that train and evaluate boxes and masks, if there is such a file.
        uses_segkit_mapper: False for Detectron2's names, whose records go through Detectron2's DatasetMapper.
        metadata: further entries of Detectron2's MetadataCatalog.
        channels: number of channels of the images, see `DatasetReader.channels`.
        has_ground_truth: False for a test set whose labels are not public: its images can only be predicted.
    """

    name: str
    categories: CategorySet
    metrics: tuple[str, ...]
    records: list[Record]
    instances_json: Path | None = None
    uses_segkit_mapper: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict)
    channels: int = 3
    has_ground_truth: bool = True

    @property
    def default_thing_channels(self) -> str:
        """Semantic channels if the config says "auto", see CategorySet.build_semantic_space.

        "per_class" if semantic IoU is a metric and panoptic quality is not; otherwise "one", for all things.
        """
        return "per_class" if "semantic_iou" in self.metrics and "panoptic_quality" not in self.metrics else "one"

    def check_ground_truth(self) -> None:
        """Check that the dataset can be trained on and evaluated.

        Raises:
            ConfigError: it has no ground truth.
        """
        if not self.has_ground_truth:
            problem = f"the dataset {self.name} has no ground truth, which training and evaluation need"
            raise ConfigError(
                problem, where="DATASETS", remedy=f"predict its images: segkit predict --dataset {self.name}"
            )

    def build_image_entry(self, record: Record) -> dict[str, Any]:
        """Build a record's entry of COCO's `images` table.

        Args:
            record: one of `records`.

        Returns:
            {id, file_name, height, width}; file_name is relative to the image folder if that is known.
        """
        path, root = Path(record["file_name"]), self.metadata.get("image_root")
        name = path.relative_to(root).as_posix() if root and path.is_relative_to(root) else path.name
        return {"id": record["image_id"], "file_name": name, "height": record["height"], "width": record["width"]}
