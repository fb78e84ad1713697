"""Cityscapes' instance AP during training, and the export that its benchmark takes."""

from __future__ import annotations

from typing import Any

from segkit.data.dataset import Record
from segkit.data.loaders.readers import get_common_reader
from segkit.evaluation.base import ImageEvaluator
from segkit.evaluation.predictions import get_instance_masks
from segkit.formats import png
from segkit.formats.cityscapes import INSTANCE_IDS_SUFFIX, CityscapesReader, write_results
from segkit.metrics.cityscapes_ap import CityscapesAP, MaskPrediction
from segkit.utils.errors import ConfigError


class CityscapesInstanceEvaluator(ImageEvaluator):
    """AP and AP50 as cityscapesscripts computes them; writes `cityscapes_instances/`, ready for the benchmark server.

    A model without masks is not evaluated. Constructor and methods: see `ImageEvaluator`.
    """

    needs, task, folder_name = "instances", "cityscapes_segm", "cityscapes_instances"

    def prepare(self) -> None:
        """See base class."""
        reader, self._images = get_common_reader(self.dataset)
        if not isinstance(reader, CityscapesReader) or not reader.metrics:
            raise ConfigError(
                f"dataset {self.dataset.name} has no *{INSTANCE_IDS_SUFFIX}, which the metric cityscapes_ap needs",
                remedy="use segkit_cityscapes_fine_instance_seg_* or segkit_cityscapes_fine_panoptic_*",
            )
        self._reader = reader

    def reset(self) -> None:
        """See base class."""
        self.metric = CityscapesAP(self.dataset.categories)

    def process_image(self, record: Record, output: dict[str, Any]) -> None:
        """See base class."""
        size_hw = record["height"], record["width"]
        masks = get_instance_masks(output, size_hw)
        if masks is None:
            self._output_missing = True
            return
        gt_path = self._reader.find_instance_ids(self._images[record["image_id"]])
        category_ids = [self.dataset.categories.category_id(i, isthing=True) for i in masks.class_ids.tolist()]
        columns = category_ids, masks.scores.tolist(), masks.crops, masks.corners_xy.tolist()
        predictions = [MaskPrediction(*row) for row in zip(*columns, strict=True)]
        self.metric.update(record["image_id"], png.read_grey16(gt_path, size_hw), predictions)
        if self.options.export:
            name = gt_path.name.removesuffix(INSTANCE_IDS_SUFFIX)
            write_results(self.folder, name, size_hw, predictions)
