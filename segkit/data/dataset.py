"""A loaded dataset, as every loader gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segkit.structures import CategorySet

Record = dict[str, Any]

PANOPTIC_METRICS = ("panoptic_quality", "mask_ap", "semantic_iou")


@dataclass(frozen=True)
class Dataset:
    """A loaded dataset.

    records: Detectron2 dataset dicts: file_name, image_id, height, width; of a panoptic dataset also pan_seg_format (a
    key of segkit.data.ground_truth.PANOPTIC_READERS) and pan_seg_file_name, the file or folder of the truth, with
    segments_info (ids and category ids as in the file) where it is COCO's, and `source` where it is a Source's; and
    where masks are given by themselves, annotations as Detectron2 has them.
    metrics: keys of segkit.evaluation.EVALUATORS that it is judged by.
    instances_json: COCO instances that train and judge boxes and masks instead of those derived from the records.
    own_mapper: False for Detectron2's names, whose records go through Detectron2's DatasetMapper.
    metadata: what else Detectron2's MetadataCatalog should tell.
    """

    name: str
    categories: CategorySet
    metrics: tuple[str, ...]
    records: list[Record]
    instances_json: Path | None = None
    uses_segkit_mapper: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def default_thing_channels(self) -> str:
        """Semantic channels where the config says "auto", see CategorySet.build_semantic_space: one for things, but
        where semantic IoU is judged and panoptic quality is not."""
        return "per_class" if "semantic_iou" in self.metrics and "panoptic_quality" not in self.metrics else "one"

    def image_entry(self, record: Record) -> dict[str, Any]:
        """A record's entry of COCO's `images` table; file_name is relative to the image folder where that is known."""
        path, root = Path(record["file_name"]), self.metadata.get("image_root")
        name = path.relative_to(root).as_posix() if root and path.is_relative_to(root) else path.name
        return {"id": record["image_id"], "file_name": name, "height": record["height"], "width": record["width"]}
