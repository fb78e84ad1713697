"""Semantic IoU during training, counted where the logits are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segkit.data.dataset import Record
from segkit.evaluation.base import ImageEvaluator
from segkit.metrics import SemanticIoU
from segkit.metrics.boundary import boundary_dilation_px, mixed_windows
from segkit.utils.compiled import COMPILED, compiled

BLOCK_PX = 2048  # pixels whose best scores stay in the nearest cache while the channels pass by


class SemanticEvaluator(ImageEvaluator):
    """mIoU, fwIoU, mean and pixel accuracy, Dice and, if asked for, boundary IoU of the semantic head's channels."""

    needs = "sem_seg"

    def reset(self) -> None:
        self._metric = self._nothing_counted()

    def process_image(self, record: Record, output: dict[str, Any]) -> None:
        where = f"image {record['image_id']!r}"
        ground_truth = self.ground_truth.read_semantic_map(record)
        if "head_outputs" in output and not _on_accelerator(output):
            # The winners are known: no full-size logits are made for them.
            self._metric.update(ground_truth, output["head_outputs"].semantic.channels, where)
        else:
            count_logits(self._metric, ground_truth, output["sem_seg"], where)

    def shard(self) -> Any:
        return self._metric

    def finish(self, shards: list[Any]) -> dict[str, Any]:
        metric = self._nothing_counted()
        for shard in shards:
            metric.merge(shard)
        return {"sem_seg": metric.compute()}

    def _nothing_counted(self) -> SemanticIoU:
        return SemanticIoU(self.ground_truth.space.names, boundary=self.options.boundary)


def count_logits(
    metric: SemanticIoU, ground_truth: NDArray[np.integer], logits: torch.Tensor, where: object = ""
) -> None:
    """Count one image in `metric`: (H, W) true labels against the winners of (C, H, W) logits.

    Logits on an accelerator are counted there, so that a few numbers travel instead of maps; the counts are integers,
    the same on every device. Raises as `SemanticIoU.update` does.
    """
    labels = argmax_channels(logits)
    if logits.device.type == "cpu" or not count_on_device(metric, ground_truth, labels):
        metric.update(ground_truth, labels.cpu().numpy(), where)


def argmax_channels(logits: torch.Tensor) -> torch.Tensor:
    """(H, W) integers: the channel of the highest of (C, H, W) logits, of equal ones the first, as `argmax(dim=0)`.

    On a CPU it is not argmax that finds them, which is many times slower there. NaN counts as highest, as in torch.
    Raises ValueError where the logits are not of (C, H, W), C at least 1.
    """
    if logits.dim() != 3 or not len(logits):
        raise ValueError(f"logits must have the shape (C, H, W), C at least 1, got {tuple(logits.shape)}")
    logits = logits.detach()
    if logits.device.type != "cpu":
        return logits.argmax(dim=0)
    if not COMPILED or logits.dtype not in (torch.float32, torch.float64):
        return logits.max(dim=0).indices
    labels = np.empty(logits.shape[1:], dtype=np.int32)
    _first_highest(logits.contiguous().numpy().reshape(len(logits), labels.size), labels.reshape(-1))
    return torch.from_numpy(labels)


def count_on_device(metric: SemanticIoU, ground_truth: NDArray[np.integer], labels: torch.Tensor) -> bool:
    """Count an image on the device of its (H, W) predicted labels; False, and nothing is counted, where a size or a
    label is wrong: `SemanticIoU.update` says which."""
    if ground_truth.shape != tuple(labels.shape):
        return False
    classes = len(metric.names)
    true = torch.from_numpy(np.ascontiguousarray(ground_truth)).to(labels.device).long()
    labels = labels.long()
    ignored = true == metric.ignore_label
    strange = (labels >= classes) | (~ignored & ((true < 0) | (true >= classes)))
    places = torch.where(ignored, classes**2, labels * classes + true)
    places = torch.where(strange, classes**2 + 1, places)
    counts = _bincount(places, classes**2 + 2)
    if counts[-1]:
        return False
    boundary_px = None
    if metric.boundary_ratio is not None:
        true, labels = torch.where(ignored, classes, true), torch.where(ignored, classes, labels)
        boundary_px = _boundary_counts(true, labels, classes, metric.boundary_ratio)
    metric.add_confusion(counts[: classes**2].reshape(classes, classes), boundary_px)
    return True


def _on_accelerator(output: dict[str, Any]) -> bool:
    """Where full-size logits cost little, and head outputs would have to travel."""
    return "panoptic_seg" in output and output["panoptic_seg"][0].device.type != "cpu"


def _boundary_counts(true: torch.Tensor, labels: torch.Tensor, classes: int, ratio: float) -> NDArray[np.int64]:
    """(2, C): `SemanticIoU.boundary_px` of one image; `classes` stands for: of no class. Overwrites both maps."""
    height, width = true.shape
    dilation_px = boundary_dilation_px((height, width), ratio)
    if height > 2 * dilation_px and width > 2 * dilation_px:
        inner = slice(dilation_px, height - dilation_px), slice(dilation_px, width - dilation_px)
        for one in (true, labels):
            one[inner].masked_fill_(~mixed_windows(one, dilation_px), classes)
    shared = _bincount(true[true == labels], classes + 1)
    either = _bincount(true, classes + 1) + _bincount(labels, classes + 1) - shared
    return np.stack([shared[:classes], either[:classes]])


def _bincount(values: torch.Tensor, bins: int) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = torch.bincount(values.reshape(-1), minlength=bins).cpu().numpy()
    return counts


@compiled
def _first_highest(scores: NDArray[np.floating], labels: NDArray[np.int32]) -> None:
    """labels[i] = the first row of (C, n) scores with the highest score in column i; NaN is higher than all."""
    highest = np.empty(BLOCK_PX, dtype=scores.dtype)
    for begin in range(0, labels.size, BLOCK_PX):
        winner = labels[begin : begin + BLOCK_PX]
        highest[: winner.size] = scores[0, begin : begin + BLOCK_PX]
        winner[:] = 0
        for channel in range(1, scores.shape[0]):
            row = scores[channel, begin : begin + BLOCK_PX]
            for index in range(winner.size):
                score, best = row[index], highest[index]
                wins = (not score <= best) & (best == best)
                highest[index] = score if wins else best
                winner[index] = channel if wins else winner[index]
