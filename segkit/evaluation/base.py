"""What all evaluators share: the constructor, the loop over images, the gathering over processes."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import detectron2.utils.comm as comm
from detectron2.evaluation import DatasetEvaluator

from segkit.data.dataset import Record
from segkit.data.ground_truth import GroundTruth

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluatorOptions:
    """What an evaluation computes and writes.

    Attributes:
        export: write predictions and analyses as files; False: only compute metrics (TEST.EXPORT).
        boundary: also compute boundary metrics (TEST.BOUNDARY).
        keep_logits: the number of highest logits that are saved for each pixel, 0 for none (TEST.KEEP_LOGITS).
    """

    export: bool = True
    boundary: bool = False
    keep_logits: int = 0


class ImageEvaluator(DatasetEvaluator, ABC):
    """A metric that looks at one image at a time, and adds up over images and processes.

    A subclass writes `reset` and `process_image`. If it adds up more than `metric`, it also writes `shard` and
    `finish`. If the model lacks the output that it `needs`, `evaluate` logs a warning and returns {}.

    Args:
        ground_truth: the dataset and its ground truth; evaluators of one dataset share it.
        output_dir: folder of the exports.
        options: what is computed and written.

    Attributes:
        needs: key of the model's output that is evaluated.
        task: key of the metrics in the results.
        folder: folder of the files that are written for each image, named `folder_name`.
        metric: the counts of this process, with the methods `merge` and `compute`; `reset` makes it.

    Raises:
        ConfigError: the metric does not suit the dataset.
    """

    needs: str
    task: str
    folder_name = ""
    metric: Any

    def __init__(
        self, ground_truth: GroundTruth, output_dir: str | Path, options: EvaluatorOptions = EvaluatorOptions()
    ) -> None:
        self.dataset = ground_truth.dataset
        self.ground_truth = ground_truth
        self.output_dir = Path(output_dir)
        self.folder = self.output_dir / self.folder_name
        self.options = options
        self._output_missing = False
        self._processed = 0
        self.prepare()

    def prepare(self) -> None:
        """Check the dataset and set up the subclass; the constructor calls it at its end.

        Raises:
            ConfigError: the metric does not suit the dataset.
        """

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Process one batch.

        Args:
            inputs: the model's inputs, with image_id.
            outputs: the model's outputs, see `PanopticRCNN.inference`.
        """
        for image, output in zip(inputs, outputs, strict=True):
            self._processed += 1
            if self.needs in output:
                self.process_image(self.ground_truth.records[image["image_id"]], output)
            else:
                self._output_missing = True

    def evaluate(self) -> dict[str, Any] | None:
        """Gather all processes' results; every process must call it.

        Returns:
            Detectron2's result dict on the main process, {} if the model lacks the output; None on other processes.
        """
        shards = comm.gather((self._output_missing, self._processed, self.shard()))
        self._processed = 0
        if not comm.is_main_process():
            return None
        if any(output_missing for output_missing, _, _ in shards):
            logger.warning("%s: the model gives no %r", type(self).__name__, self.needs)
            return {}
        processed = sum(count for _, count, _ in shards)
        if processed < len(self.ground_truth.records):
            counts = processed, len(self.ground_truth.records), self.dataset.name
            logger.warning("%s: only %d of the %d images of %s were evaluated", type(self).__name__, *counts)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        return self.finish([shard for _, _, shard in shards])

    @property
    def image_order(self) -> list[Any]:
        """image_ids in the order of the dataset; it decides the last digits of sums."""
        return list(self.ground_truth.records)

    @abstractmethod
    def process_image(self, record: Record, output: dict[str, Any]) -> None:
        """Count one image.

        Args:
            record: of the dataset.
            output: the model's output for the image.
        """

    def shard(self) -> Any:
        """Get the result of this process; every process must call it, since it may exchange data.

        Returns:
            A picklable value, by default `metric`.
        """
        return self.metric

    def finish(self, shards: list[Any]) -> dict[str, Any]:
        """Merge all processes' shards on the main process, and write the export.

        Args:
            shards: the values of `shard` of all processes.

        Returns:
            Detectron2's result dict.
        """
        return {self.task: merge_metrics(shards).compute()}


def merge_metrics(metrics: Sequence[Any]) -> Any:
    """Merge the metrics of all processes.

    Args:
        metrics: one of each process, with a method `merge`; the first is changed.

    Returns:
        The first metric, with all counts.
    """
    for metric in metrics[1:]:
        metrics[0].merge(metric)
    return metrics[0]


def is_visible(path: Path, size: int) -> bool:
    """Check if this process sees a file that another process, maybe on another machine, has written.

    Args:
        path: the file.
        size: its size in bytes; a file of another size is of an earlier run.

    Returns:
        False if the processes share no file system.
    """
    return path.is_file() and path.stat().st_size == size
