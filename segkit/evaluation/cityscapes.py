"""Cityscapes' instance AP during training, and the export that its benchmark takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segkit.data.dataset import Dataset, Record
from segkit.evaluation.base import EvaluatorOptions, GroundTruth, ImageEvaluator
from segkit.evaluation.predictions import get_instance_masks
from segkit.formats import cityscapes, png
from segkit.metrics.cityscapes_ap import CityscapesAP, MaskPrediction
from segkit.utils.errors import ConfigError


class CityscapesInstanceEvaluator(ImageEvaluator):
    """AP and AP50 as cityscapesscripts counts them; writes `cityscapes_instances/`, ready for the benchmark.

    A model that gives instances without masks is not judged by it.
    """

    needs = "instances"

    def __init__(
        self,
        dataset: Dataset,
        ground_truth: GroundTruth,
        output_dir: Path,
        options: EvaluatorOptions = EvaluatorOptions(),  # noqa: B008 (frozen)
    ) -> None:
        """Raises ConfigError where the dataset's truth is not in Cityscapes' files."""
        super().__init__(dataset, ground_truth, output_dir, options)
        formats = {str(record.get("pan_seg_format")) for record in dataset.records}
        if formats != {"cityscapes"}:
            raise ConfigError(
                f"the metric cityscapes_ap needs *{cityscapes.INSTANCE_IDS_SUFFIX} files as truth, "
                f"{dataset.name} has {sorted(formats)}",
                remedy="use segkit_cityscapes_fine_instance_seg_* or segkit_cityscapes_fine_panoptic_*",
            )

    def reset(self) -> None:
        self._metric = CityscapesAP(self.dataset.categories)

    @property
    def results_folder(self) -> Path:
        """Where the text files and the masks lie."""
        return self.output_dir / "cityscapes_instances"

    def process_image(self, record: Record, output: dict[str, Any]) -> None:
        size_hw = record["height"], record["width"]
        masks = get_instance_masks(output, size_hw)
        if masks is None:
            self._lacking = True
            return
        ground_truth_path = Path(record["pan_seg_file_name"])
        category_ids = [self.dataset.categories.category_id(i, isthing=True) for i in masks.class_ids.tolist()]
        columns = category_ids, masks.scores.tolist(), masks.crops, masks.corners_xy.tolist()
        found = [MaskPrediction(*row) for row in zip(*columns, strict=True)]
        self._metric.update(record["image_id"], png.read_grey16(ground_truth_path, size_hw), found)
        if self.options.export:
            cityscapes.write_results(
                self.results_folder, ground_truth_path.name.removesuffix(cityscapes.INSTANCE_IDS_SUFFIX), size_hw, found
            )

    def shard(self) -> Any:
        return self._metric

    def finish(self, shards: list[Any]) -> dict[str, Any]:
        metric = CityscapesAP(self.dataset.categories)
        for shard in shards:
            metric.merge(shard)
        return {"cityscapes_segm": metric.compute()}
