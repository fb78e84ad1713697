"""Semantic IoU during training, counted on the device of the logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segkit.data.dataset import Record
from segkit.evaluation.base import ImageEvaluator, merge_metrics
from segkit.metrics import SemanticIoU
from segkit.metrics.boundary import boundary_dilation_px, mixed_windows
from segkit.scoring.counts_file import save_evaluation
from segkit.structures import ImageId
from segkit.utils.compiled import COMPILED, compiled

BLOCK_PX = 2048  # pixels whose best scores stay in the L1 cache while all channels are compared


class SemanticEvaluator(ImageEvaluator):
    """MIoU, fwIoU, mean and pixel accuracy, Dice and (TEST.BOUNDARY) boundary IoU of the semantic head's channels.

    It writes `semantic_counts.npz` for `segkit compare`. Constructor and methods: see `ImageEvaluator`.
    """

    needs = task = "sem_seg"

    def reset(self) -> None:
        """See base class."""
        self.metric = SemanticIoU(self.ground_truth.space.names, boundary=self.options.boundary)

    def process_image(self, record: Record, output: dict[str, Any]) -> None:
        """See base class."""
        where = f"image {record['image_id']!r}"
        image_id = record["image_id"] if self.options.export else None
        ground_truth = self.ground_truth.read_semantic_map(record)
        on_accelerator = "panoptic_seg" in output and output["panoptic_seg"][0].device.type != "cpu"
        if "head_outputs" in output and not on_accelerator:
            # The channels are known already: no full-size logits are computed for them. On an accelerator these cost
            # little, but a transfer of head outputs costs much.
            self.metric.update(ground_truth, output["head_outputs"].semantic.channels, where, image_id)
        else:
            count_logits(self.metric, ground_truth, output["sem_seg"], where, image_id)

    def finish(self, shards: list[Any]) -> dict[str, Any]:
        """See base class."""
        metric: SemanticIoU = merge_metrics(shards)
        if self.options.export:
            save_evaluation(self.output_dir, "semantic", metric)
        return {self.task: metric.compute()}


def count_logits(
    metric: SemanticIoU,
    ground_truth: NDArray[np.integer],
    logits: torch.Tensor,
    where: object = "",
    image_id: ImageId | None = None,
) -> None:
    """Count one image.

    Logits on an accelerator are counted there: a few numbers are transferred instead of maps. The counts are integers,
    the same on every device.

    Args:
        metric: gets the counts.
        ground_truth: (H, W) labels, the metric's ignored label where void.
        logits: (C, H, W).
        where: names the image in messages.
        image_id: keeps the counts of the image too, see `SemanticIoU.update`; None keeps the sums alone.

    Raises:
        DatasetError: as `SemanticIoU.update` does, for other sizes or labels.
    """
    labels = argmax_channels(logits)
    if logits.device.type == "cpu" or not count_on_device(metric, ground_truth, labels, image_id):
        metric.update(ground_truth, labels.cpu().numpy(), where, image_id)


def argmax_channels(logits: torch.Tensor) -> torch.Tensor:
    """Find the channel of the highest logit, of equal logits the first, as `argmax(dim=0)`.

    On a CPU this is many times faster than torch's argmax. NaN counts as highest, as in torch.

    Args:
        logits: (C, H, W), C at least 1.

    Returns:
        (H, W) integers.

    Raises:
        ValueError: the logits have another shape.
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


def count_on_device(
    metric: SemanticIoU, ground_truth: NDArray[np.integer], labels: torch.Tensor, image_id: ImageId | None = None
) -> bool:
    """Count an image on the device of its predicted labels.

    Args:
        metric: gets the counts.
        ground_truth: (H, W) labels, the metric's ignored label where void.
        labels: (H, W) predicted labels.
        image_id: keeps the counts of the image too; None keeps the sums alone.

    Returns:
        False if a size or a label is wrong, and nothing is counted; `SemanticIoU.update` names the problem.
    """
    if ground_truth.shape != tuple(labels.shape):
        return False
    classes = len(metric.names)
    gt = torch.from_numpy(np.ascontiguousarray(ground_truth)).to(labels.device).long()
    labels = labels.long()
    ignored = gt == metric.ignore_label
    invalid = (labels >= classes) | (~ignored & ((gt < 0) | (gt >= classes)))
    bins = torch.where(ignored, classes**2, labels * classes + gt)
    bins = torch.where(invalid, classes**2 + 1, bins)
    counts = _bincount(bins, classes**2 + 2)
    if counts[-1]:
        return False
    boundary_px = None
    if metric.boundary_ratio is not None:
        gt, labels = torch.where(ignored, classes, gt), torch.where(ignored, classes, labels)
        boundary_px = _boundary_counts(gt, labels, classes, metric.boundary_ratio)
    metric.add_confusion(counts[: classes**2].reshape(classes, classes), boundary_px, image_id)
    return True


def _boundary_counts(gt: torch.Tensor, labels: torch.Tensor, classes: int, ratio: float) -> NDArray[np.int64]:
    """(2, C): `SemanticIoU.boundary_px` of one image; the label `classes` means no class. Overwrites both maps."""
    height, width = gt.shape
    dilation_px = boundary_dilation_px((height, width), ratio)
    if height > 2 * dilation_px and width > 2 * dilation_px:
        inner = slice(dilation_px, height - dilation_px), slice(dilation_px, width - dilation_px)
        for label_map in (gt, labels):
            label_map[inner].masked_fill_(~mixed_windows(label_map, dilation_px), classes)
    shared = _bincount(gt[gt == labels], classes + 1)
    either = _bincount(gt, classes + 1) + _bincount(labels, classes + 1) - shared
    return np.stack([shared[:classes], either[:classes]])


def _bincount(values: torch.Tensor, bins: int) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = torch.bincount(values.reshape(-1), minlength=bins).cpu().numpy()
    return counts


@compiled
def _first_highest(scores: NDArray[np.floating], labels: NDArray[np.int32]) -> None:
    """labels[i] = the first row of (C, n) scores with the highest score in column i; NaN is higher than all."""
    highest = np.empty(BLOCK_PX, dtype=scores.dtype)
    for begin in range(0, labels.size, BLOCK_PX):
        best_channels = labels[begin : begin + BLOCK_PX]
        highest[: best_channels.size] = scores[0, begin : begin + BLOCK_PX]
        best_channels[:] = 0
        for channel in range(1, scores.shape[0]):
            row = scores[channel, begin : begin + BLOCK_PX]
            for index in range(best_channels.size):
                score, best = row[index], highest[index]
                higher = (not score <= best) & (best == best)
                highest[index] = score if higher else best
                best_channels[index] = channel if higher else best_channels[index]
