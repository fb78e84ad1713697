"""What every evaluator of ours shares: the records, the truth, the gathering over processes."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import detectron2.utils.comm as comm
import numpy as np
from detectron2.evaluation import DatasetEvaluator
from numpy.typing import NDArray

from segkit.data.dataset import Dataset, Record
from segkit.data.ground_truth import read_segmentation
from segkit.formats.derive import build_semantic_map
from segkit.structures import PanopticSegmentation

logger = logging.getLogger(__name__)


class GroundTruth:
    """What is true of a dataset's images; the last one read is kept, since several evaluators ask for it in turn."""

    def __init__(self, dataset: Dataset, thing_channels: str) -> None:
        """thing_channels: what the channels of the semantic head mean, see CategorySet.build_semantic_space."""
        self.dataset = dataset
        self.space = dataset.categories.build_semantic_space(thing_channels)
        self.records = {record["image_id"]: record for record in dataset.records}
        self._last: tuple[Any, PanopticSegmentation] | None = None

    def segmentation(self, record: Record) -> PanopticSegmentation:
        """The panoptic segmentation of a record of this dataset, category ids of the dataset."""
        if self._last is None or self._last[0] != record["image_id"]:
            self._last = record["image_id"], read_segmentation(record, self.dataset.categories)
        return self._last[1]

    def semantic(self, record: Record) -> NDArray[np.uint8]:
        """(H, W) uint8, the semantic channel of each pixel, IGNORE_LABEL where void."""
        return build_semantic_map(self.segmentation(record), self.space)


@dataclass(frozen=True)
class EvaluatorOptions:
    """export: write predictions and analyses as files, else there are the numbers alone (TEST.EXPORT). boundary: count
    what lies near boundaries too (TEST.BOUNDARY)."""

    export: bool = True
    boundary: bool = False


class ImageEvaluator(DatasetEvaluator, ABC):
    """A metric that looks at one image at a time, and sums over images and processes.

    A subclass says which model output it `needs`, and writes `reset`, `process_image`, `shard` (what its process
    found, picklable) and `finish` (all shards -> results, on the main process; it also writes the export).
    A model without that output is not judged by it: `evaluate` says so and returns {}.
    """

    needs: str

    def __init__(
        self,
        dataset: Dataset,
        ground_truth: GroundTruth,
        output_dir: Path,
        options: EvaluatorOptions = EvaluatorOptions(),
    ) -> None:
        self.dataset = dataset
        self.ground_truth = ground_truth
        self.output_dir = output_dir
        self.options = options
        self._lacking = False
        self._processed = 0

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Inputs and outputs of the model for a batch, see `PanopticRCNN.inference`."""
        for given, output in zip(inputs, outputs, strict=True):
            self._processed += 1
            if self.needs in output:
                self.process_image(self.ground_truth.records[given["image_id"]], output)
            else:
                self._lacking = True

    def evaluate(self) -> dict[str, Any] | None:
        """Detectron2's result dict on the main process, None on others; every process must call it."""
        shards = comm.gather((self._lacking, self._processed, self.shard()))
        self._processed = 0
        if not comm.is_main_process():
            return None
        if any(lacking for lacking, _, _ in shards):
            logger.warning("%s: the model gives no %r", type(self).__name__, self.needs)
            return {}
        processed = sum(number for _, number, _ in shards)
        if processed < len(self.ground_truth.records):
            counted = processed, len(self.ground_truth.records), self.dataset.name
            logger.warning("%s: only %d of the %d images of %s were evaluated", type(self).__name__, *counted)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        return self.finish([shard for _, _, shard in shards])

    @property
    def image_order(self) -> list[Any]:
        """image_ids in the order of the dataset, which decides the last digits of sums."""
        return list(self.ground_truth.records)

    @abstractmethod
    def process_image(self, record: Record, output: dict[str, Any]) -> None:
        """Count one image."""

    @abstractmethod
    def shard(self) -> Any:
        """What this process found, picklable."""

    @abstractmethod
    def finish(self, shards: list[Any]) -> dict[str, Any]:
        """Results and exports of all processes' shards."""
