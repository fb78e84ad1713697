"""OnnxModel: a file of `segkit export onnx` that takes images and gives Predictions, without torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.paste import paste_masks
from segkit.runtime.image_model import OUTPUTS, ImageModel, Output, choose_results
from segkit.runtime.images import InputFormat
from segkit.runtime.onnx_graph import OnnxGraph
from segkit.runtime.resizing import resize_short_side
from segkit.runtime.run_description import describe_weights
from segkit.structures import CategorySet, InstanceMasks, PanopticSegmentation
from segkit.structures.graph_outputs import BOX_MASKS, IMAGE_MASKS, INSTANCES, PANOPTIC, SEMANTIC
from segkit.structures.segment_table import read_segments


class OnnxModel(ImageModel):
    """A model in an ONNX file. It is called as a `SegmentationModel` is.

    Args:
        path: the file.
        providers: execution providers of onnxruntime, the best first; None: the CPU.
        threads: of one image; 0: as many as onnxruntime chooses.

    Attributes:
        path: as it was given.
        graph: the loaded file.
        categories: the classes, with their ids in the dataset.
        space: the channels of the semantic head.
        input: the pixels that the model reads.

    Raises:
        CheckpointError: the file is missing, damaged, or not of `segkit export onnx`.
        ConfigError: onnxruntime is not installed, or has no such provider.
    """

    def __init__(self, path: str | Path, providers: list[str] | None = None, threads: int = 0) -> None:
        self.path, self.graph = path, OnnxGraph(path, providers, threads)
        self.categories, self.space = self.graph.categories, self.graph.space
        options = self.graph.metadata["input"]
        self.input = InputFormat(options["format"], options["channels"])
        self._min_size, self._max_size = options["min_size"], options["max_size"]

    @property
    def description(self) -> dict[str, Any]:
        """What the results depend on: the file."""
        return describe_weights(self.path)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What the graph gives."""
        return tuple(output for output in OUTPUTS if output in self.graph.tasks)

    def compute_results(
        self, images: Sequence[NDArray[np.uint8]], outputs: Collection[Output] = OUTPUTS
    ) -> list[dict[str, Any]]:
        """Predict one batch of pixels, see `ImageModel.compute_results`.

        Args:
            images: (H, W, C) uint8 each, as `input` describes them; the graph takes those of one size together.
            outputs: what is wanted.

        Returns:
            The fields of the Prediction of each image.

        Raises:
            ConfigError: the model gives none of `outputs`.
            ValueError: an image has another shape or dtype.
        """
        rows_by_size = defaultdict[tuple[int, int], list[int]](list)
        for row, image in enumerate(images):
            rows_by_size[image.shape[0], image.shape[1]].append(row)
        results: dict[int, dict[str, Any]] = {}
        for size_hw, rows in rows_by_size.items():
            batch = self.graph.run(np.stack([self._prepare(images[row]) for row in rows]), size_hw)
            for number, row in enumerate(rows):
                own = {name: values[number] for name, values in batch.items()}
                results[row] = choose_results(self._build_results(own, size_hw, outputs), outputs)
        return [results[row] for row in range(len(images))]

    def _prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(C, h, w), resized; the graph takes RGB."""
        channels = self.input.channels
        if image.ndim != len("HWC") or image.shape[2] != channels or image.dtype != np.uint8:
            raise ValueError(f"image must be (H, W, {channels}) uint8, got {image.shape} {image.dtype}")
        resized = resize_short_side(image, self._min_size, self._max_size)
        if self.input.name == "BGR":
            resized = resized[..., ::-1]
        pixels: NDArray[np.uint8] = resized.transpose(2, 0, 1)
        return pixels

    def _build_results(
        self, results: dict[str, NDArray[Any]], size_hw: tuple[int, int], outputs: Collection[Output]
    ) -> dict[str, Any]:
        wanted = {*outputs} & {*self.graph.tasks}
        return {
            PANOPTIC: _build_panoptic(results, self.categories) if PANOPTIC in wanted else None,
            INSTANCES: _build_instances(results, size_hw) if INSTANCES in wanted else None,
            SEMANTIC: results["semantic_ids"] if SEMANTIC in wanted else None,
        }


def _build_panoptic(results: dict[str, NDArray[Any]], categories: CategorySet) -> PanopticSegmentation:
    segments = read_segments(results["segments"].tolist(), int(results["errors"]))
    return PanopticSegmentation(
        results["segment_ids"],
        tuple(
            replace(segment, category_id=categories.category_id(segment.category_id, segment.isthing))
            for segment in segments
            if segment.area_px
        ),
    )


def _build_instances(results: dict[str, NDArray[Any]], size_hw: tuple[int, int]) -> InstanceMasks:
    rows = results["classes"] >= 0
    boxes, scores, class_ids = (
        results["boxes"][rows],
        results["scores"][rows],
        results["classes"][rows].astype(np.int64),
    )
    if IMAGE_MASKS in results:
        return InstanceMasks.from_full(results[IMAGE_MASKS][rows], boxes, scores, class_ids)
    return paste_masks(results[BOX_MASKS][rows], boxes, scores, class_ids, size_hw)
