"""Panoptic quality during training, and the export of panoptic predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segkit.data.catalog import Record
from segkit.evaluation.base import ImageEvaluator
from segkit.evaluation.predictions import panoptic_prediction
from segkit.formats import coco_panoptic
from segkit.metrics import PanopticQuality


class PanopticEvaluator(ImageEvaluator):
    """PQ, SQ, RQ; writes `panoptic.json` and `panoptic/*.png` in COCO's format."""

    needs = "panoptic_seg"

    def reset(self) -> None:
        self._metric = PanopticQuality(self.dataset.categories)
        self._annotations: list[dict[str, Any]] = []
        self._png_names = coco_panoptic.png_names([(r["image_id"], r["file_name"]) for r in self.dataset.records])
        self.png_folder.mkdir(parents=True, exist_ok=True)

    @property
    def png_folder(self) -> Path:
        """Where the PNGs lie."""
        return self.output_dir / "panoptic"

    def process_image(self, record: Record, output: dict[str, Any]) -> None:
        prediction = panoptic_prediction(output, self.dataset.categories)
        self._metric.update(record["image_id"], self.truth.segmentation(record), prediction)
        png_name = self._png_names[record["image_id"]]
        coco_panoptic.write_png(self.png_folder / png_name, prediction.segment_ids)
        self._annotations.append(coco_panoptic.annotation_of(record["image_id"], png_name, prediction))

    def shard(self) -> Any:
        return self._metric, self._annotations

    def finish(self, shards: list[Any]) -> dict[str, Any]:
        metric = PanopticQuality(self.dataset.categories)
        annotations = []
        for shard_metric, shard_annotations in shards:
            metric.merge(shard_metric)
            annotations += shard_annotations
        by_image = {annotation["image_id"]: annotation for annotation in annotations}
        images = [self.dataset.image_entry(record) for record in self.dataset.records if record["image_id"] in by_image]
        coco_panoptic.write_json(
            self.output_dir / "panoptic.json",
            images,
            [by_image[image["id"]] for image in images],
            self.dataset.categories,
        )
        return {"panoptic_seg": metric.compute(self.image_order)}
