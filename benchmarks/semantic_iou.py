"""Semantic IoU: segkit against Detectron2's SemSegEvaluator, one thread each, ground truth from PNG files.

Writes its own images (regions of classes with noisy edges; predictions moved and mislabelled a little) into a temporary
folder, gives both the same model outputs in short alternating bursts, stops if a metric differs, and prints ratios:
with logits (C, H, W), and with the finished label map, whose argmax costs the peer nothing.

    python benchmarks/semantic_iou.py [--images 24] [--logits 4]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import logging
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from numpy.typing import NDArray

from segkit.evaluation.semantic import count_logits
from segkit.formats import png
from segkit.metrics import SemanticIoU

IGNORED = 255
SHIFT_PX = 3
NOISE = 0.002  # of the pixels, mislabelled at random
SIZES = {  # name: height, width, classes, regions in an image
    "COCO, 54 classes": (480, 640, 54, 30),
    "COCO, 133 classes": (480, 640, 133, 30),
    "Cityscapes, 19 classes": (1024, 2048, 19, 60),
}


class FinishedMap:
    """Replaces logits by their argmax, which costs the peer nothing."""

    def __init__(self, labels: NDArray[np.int64]) -> None:
        self.labels = torch.from_numpy(labels)

    def argmax(self, dim: int) -> torch.Tensor:
        return self.labels


@dataclass
class Sample:
    """One image: the PNG of its ground truth, and the (H, W) labels that a model predicts."""

    png: Path
    labels: NDArray[np.int64]

    def record(self) -> dict[str, str]:
        return {"file_name": str(self.png.with_suffix(".jpg")), "sem_seg_file_name": str(self.png)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=24, help="label maps of each size (default: %(default)s)")
    parser.add_argument("--logits", type=int, default=4, help="images with logits of each size (default: %(default)s)")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for name, (height, width, classes, regions) in SIZES.items():
        rng = np.random.default_rng(0)
        with tempfile.TemporaryDirectory() as folder:
            for kind, images in (("label maps", options.images), ("logits", options.logits)):
                samples = [
                    make_sample(Path(folder) / f"{kind}_{index}.png", (height, width), classes, regions, rng)
                    for index in range(max(1, images))
                ]
                for boundary in (False, True):
                    compare(f"{name}, {kind}{', ours with boundary IoU' * boundary}", samples, classes, kind, boundary)


def make_sample(path: Path, size_hw: tuple[int, int], classes: int, regions: int, rng: np.random.Generator) -> Sample:
    ground_truth = paint(size_hw, classes, regions, rng)
    labels = np.roll(ground_truth, SHIFT_PX, axis=1).astype(np.int64)
    mislabelled = rng.random(size_hw) < NOISE
    labels[mislabelled] = rng.integers(0, classes, np.count_nonzero(mislabelled))
    ground_truth[: size_hw[0] // 20] = IGNORED
    png.write_labels(path, ground_truth)
    return Sample(path, labels)


def paint(size_hw: tuple[int, int], classes: int, regions: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(H, W) labels of overlapping ellipses on a background of three bands."""
    height, width = size_hw
    labels = np.repeat(np.arange(3, dtype=np.uint8), -(-height // 3))[:height, None].repeat(width, axis=1)
    for _ in range(regions):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(4, width // 5)), int(rng.integers(4, height // 5)))
        label = int(rng.integers(classes))
        cv2.ellipse(labels, centre, axes, float(rng.integers(180)), 0, 360, label, cv2.FILLED)
    return labels


def compare(title: str, samples: Sequence[Sample], classes: int, kind: str, boundary: bool) -> None:
    """Compare in turns of one image: a shared machine slows down under long load, and many logits fill its memory."""
    names = [f"class {index}" for index in range(classes)]
    whole, ratios, theirs_ms, ours_ms = SemanticIoU(names, boundary=boundary), [], [], []
    with build_peer(samples, names) as peer:
        for turn, sample in enumerate([samples[0], *samples]):
            output: Any = FinishedMap(sample.labels) if kind == "label maps" else build_logits(sample.labels, classes)
            if turn == 1:
                peer.reset()
                whole = SemanticIoU(names, boundary=boundary)
            start = time.perf_counter()
            ground_truth = png.read_labels(sample.png)
            if kind == "label maps":
                whole.update(ground_truth, sample.labels)
            else:
                count_logits(whole, ground_truth, output)
            middle = time.perf_counter()
            with old_array_copies():
                peer.process([sample.record()], [{"sem_seg": output}])
            end = time.perf_counter()
            if turn:  # the first one warms up
                ratios.append((end - middle) / (middle - start))
                theirs_ms.append(1000 * (end - middle))
                ours_ms.append(1000 * (middle - start))
        check_equal(whole.compute(), peer.evaluate()["sem_seg"], names)
    times = f"{statistics.median(theirs_ms):.1f} ms / {statistics.median(ours_ms):.1f} ms"
    spread = f"{min(ratios):.1f} to {max(ratios):.1f} over {len(ratios)} images"
    print(f"{title}: {statistics.median(ratios):.1f}x ({spread}; {times} per image), all common metrics equal")


def build_logits(labels: NDArray[np.int64], classes: int) -> torch.Tensor:
    """(C, H, W) float32 noise with its highest value at the label."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.rand((classes, *labels.shape), generator=generator)
    return logits.scatter_(0, torch.from_numpy(labels)[None], 2.0)


@contextmanager
def build_peer(samples: Sequence[Sample], names: Sequence[str]) -> Iterator[SemSegEvaluator]:
    dataset = "segkit_benchmark"
    DatasetCatalog.register(dataset, lambda: [sample.record() for sample in samples])
    MetadataCatalog.get(dataset).set(stuff_classes=list(names), ignore_label=IGNORED)
    try:
        peer = SemSegEvaluator(dataset, distributed=False)
        peer.reset()
        yield peer
    finally:
        DatasetCatalog.remove(dataset)
        MetadataCatalog.remove(dataset)


@contextmanager
def old_array_copies() -> Iterator[None]:
    """Let the peer run on numpy 2, on which its `np.array(..., copy=False)` fails since it now means "never copy".

    `np.asarray` does what it meant before. The peer's work is the same; ours does not run under this patch.
    """
    original = np.array

    def array(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("copy") is False:
            del kwargs["copy"]
            return np.asarray(*args, **kwargs)
        return original(*args, **kwargs)

    with mock.patch.object(np, "array", array):
        yield


def check_equal(ours: dict[str, float | None], theirs: dict[str, float], names: Sequence[str]) -> None:
    """Stop if a metric differs in any bit. Boundary IoU is left out: the peer's is invalid with many classes."""
    keys = ["mIoU", "fwIoU", "mACC", "pACC", *(f"{prefix}-{name}" for prefix in ("IoU", "ACC") for name in names)]
    for key in keys:
        expected = None if math.isnan(theirs[key]) else float(theirs[key])
        if ours[key] != expected:
            raise SystemExit(f"{key}: segkit {ours[key]}, Detectron2 {expected}")


if __name__ == "__main__":
    main()
