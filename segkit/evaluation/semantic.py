"""Semantic IoU during training."""

from __future__ import annotations

from typing import Any

from segkit.data.catalog import Record
from segkit.evaluation.base import ImageEvaluator
from segkit.metrics import SemanticIoU


class SemanticEvaluator(ImageEvaluator):
    """mIoU, fwIoU, mean and pixel accuracy over the channels of the semantic head."""

    needs = "sem_seg"

    def reset(self) -> None:
        self._metric = SemanticIoU(self.truth.space.names)

    def process_image(self, record: Record, output: dict[str, Any]) -> None:
        predicted = output["sem_seg"].max(dim=0).indices.cpu().numpy()
        self._metric.update(self.truth.semantic(record), predicted)

    def shard(self) -> Any:
        return self._metric

    def finish(self, shards: list[Any]) -> dict[str, Any]:
        metric = SemanticIoU(self.truth.space.names)
        for shard in shards:
            metric.merge(shard)
        return {"sem_seg": metric.compute()}
