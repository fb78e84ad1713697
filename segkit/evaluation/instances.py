"""Box and mask AP during training, and the export of instance predictions."""

from __future__ import annotations

from typing import Any

from segkit.data.catalog import Record
from segkit.data.truth import InstanceTruth
from segkit.evaluation.base import ImageEvaluator
from segkit.evaluation.predictions import coco_results
from segkit.formats import coco_instances
from segkit.metrics import AveragePrecision


class InstanceEvaluator(ImageEvaluator):
    """Box and mask AP; writes `coco_instances_results.json`, and `instances_gt.json` where the truth was derived."""

    needs = "instances"

    def reset(self) -> None:
        self._instance_truth = InstanceTruth(self.dataset)
        self._results: dict[Any, tuple[list[Any], list[Any]]] = {}

    def process_image(self, record: Record, output: dict[str, Any]) -> None:
        size_hw = record["height"], record["width"]
        found = coco_results(output, record["image_id"], size_hw, self.dataset.categories)
        self._results[record["image_id"]] = self._instance_truth.of(record, self.truth.segmentation), found

    def shard(self) -> Any:
        return self._results

    def finish(self, shards: list[Any]) -> dict[str, Any]:
        found = {image_id: result for shard in shards for image_id, result in shard.items()}
        records = [record for record in self.dataset.records if record["image_id"] in found]
        results = [result for record in records for result in found[record["image_id"]][1]]
        coco_instances.write_results(self.output_dir / "coco_instances_results.json", results)
        if self._instance_truth.derived:
            self._write_truth(records, found)
        masks = all("segmentation" in result for result in results)
        metric = AveragePrecision(self.dataset.categories, ("bbox", "segm") if masks else ("bbox",))
        for record in records:
            metric.update(record["image_id"], (record["height"], record["width"]), *found[record["image_id"]])
        return metric.compute()  # ranks images by id, as pycocotools does

    def _write_truth(self, records: list[Record], found: dict[Any, Any]) -> None:
        annotations = [{**a, "image_id": r["image_id"]} for r in records for a in found[r["image_id"]][0]]
        coco_instances.write(
            self.output_dir / "instances_gt.json",
            [self.dataset.image_entry(record) for record in records],
            annotations,
            self.dataset.categories,
        )
