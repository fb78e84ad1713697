"""Panoptic quality during training, its error analysis, and the export of panoptic predictions."""

from __future__ import annotations

from typing import Any

from segkit.data.dataset import Record
from segkit.evaluation.base import ImageEvaluator, merge_metrics
from segkit.evaluation.predictions import get_panoptic_prediction
from segkit.formats import coco
from segkit.metrics import PanopticQuality
from segkit.scoring.counts_file import save_evaluation
from segkit.scoring.results import analyse
from segkit.utils.files import dump_json


class PanopticEvaluator(ImageEvaluator):
    """PQ, SQ, RQ.

    It writes `panoptic.json` and `panoptic/*.png` in COCO's format, `panoptic_analysis.json` (error budget, confusion,
    worst images, intervals) and `panoptic_counts.npz` for `segkit compare`. Constructor and methods: see
    `ImageEvaluator`.
    """

    needs = task = "panoptic_seg"
    folder_name = "panoptic"

    def reset(self) -> None:
        """See base class."""
        self.metric = PanopticQuality(self.dataset.categories, boundary=self.options.boundary)
        self._annotations: list[dict[str, Any]] = []
        if self.options.export:
            self._png_names = coco.choose_png_names([(r["image_id"], r["file_name"]) for r in self.dataset.records])
            self.folder.mkdir(parents=True, exist_ok=True)

    def process_image(self, record: Record, output: dict[str, Any]) -> None:
        """See base class."""
        prediction = get_panoptic_prediction(output, self.dataset.categories)
        self.metric.update(record["image_id"], self.ground_truth.read_segmentation(record), prediction)
        if not self.options.export:
            return
        png_name = self._png_names[record["image_id"]]
        coco.write_png(self.folder / png_name, prediction.segment_ids)
        self._annotations.append(coco.build_panoptic_annotation(record["image_id"], png_name, prediction))

    def shard(self) -> Any:
        """See base class."""
        return self.metric, self._annotations

    def finish(self, shards: list[Any]) -> dict[str, Any]:
        """See base class."""
        metric: PanopticQuality = merge_metrics([shard_metric for shard_metric, _ in shards])
        order = tuple(image_id for image_id in self.image_order if image_id in metric)
        if self.options.export:
            self._export(metric, order, {a["image_id"]: a for _, annotations in shards for a in annotations})
        return {self.task: metric.compute(order)}

    def _export(self, metric: PanopticQuality, order: tuple[Any, ...], annotations: dict[Any, Any]) -> None:
        coco.write_panoptic(
            self.output_dir / "panoptic.json",
            [self.dataset.build_image_entry(self.ground_truth.records[image_id]) for image_id in order],
            [annotations[image_id] for image_id in order],
            self.dataset.categories,
        )
        save_evaluation(self.output_dir, "panoptic", metric, order)
        dump_json(self.output_dir / "panoptic_analysis.json", analyse(metric, order))
