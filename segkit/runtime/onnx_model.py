"""OnnxModel: a file of `segkit export onnx` that takes images and gives Predictions, without torch."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.paste import paste_masks
from segkit.runtime.images import ColorOrder, ImageLike, InputFormat
from segkit.runtime.onnx_graph import OnnxGraph
from segkit.runtime.prediction import Prediction
from segkit.runtime.resizing import resize_short_side
from segkit.structures import CategorySet, InstanceMasks, PanopticSegmentation
from segkit.structures.graph_outputs import INSTANCES, PANOPTIC, SEMANTIC
from segkit.structures.segment_table import read_segments


class OnnxModel:
    """A model in an ONNX file.

    Args:
        path: the file.
        providers: execution providers of onnxruntime, the best first; None: the CPU.
        threads: of one image; 0: as many as onnxruntime chooses.

    Attributes:
        graph: the loaded file.
        categories: the classes, with their ids in the dataset.
        input: the pixels that the model reads.

    Raises:
        CheckpointError: the file is missing, damaged, or not of `segkit export onnx`.
        ConfigError: onnxruntime is not installed, or has no such provider.
    """

    def __init__(self, path: str | Path, providers: list[str] | None = None, threads: int = 0) -> None:
        self.graph = OnnxGraph(path, providers, threads)
        self.categories: CategorySet = self.graph.categories
        options = self.graph.metadata["input"]
        self.input = InputFormat(options["format"], options["channels"])
        self._min_size, self._max_size = options["min_size"], options["max_size"]

    def __call__(self, image: ImageLike, *, color_order: ColorOrder = "RGB") -> Prediction:
        """Predict one image.

        Args:
            image: a path, an image of Pillow, an (H, W, C) or (H, W) uint8 array, or a (C, H, W) uint8 tensor.
            color_order: "RGB" or "BGR", the order of the colours in arrays and tensors.

        Returns:
            The prediction.

        Raises:
            DatasetError: the image cannot be read.
            ValueError: an array has another shape or dtype, or the network gave NaN.
        """
        pixels = self.input.read(image, color_order)
        size_hw = pixels.shape[0], pixels.shape[1]
        results = {name: values[0] for name, values in self.graph.run(self._prepare(pixels), size_hw).items()}
        tasks = self.graph.tasks
        is_file = isinstance(image, (str, os.PathLike))
        return Prediction(
            size_hw,
            self.categories,
            _build_panoptic(results, self.categories) if PANOPTIC in tasks else None,
            _build_instances(results, size_hw) if INSTANCES in tasks else None,
            results["semantic_ids"] if SEMANTIC in tasks else None,
            self.graph.space if SEMANTIC in tasks else None,
            file_name=Path(image).as_posix() if is_file else Path(getattr(image, "filename", "")).name,
            load_image=partial(self.input.read_rgb, Path(image)) if is_file else partial(self.input.to_rgb, pixels),
        )

    def _prepare(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(1, C, h, w), resized; the graph takes RGB."""
        resized = resize_short_side(pixels, self._min_size, self._max_size)
        if self.input.name == "BGR":
            resized = resized[..., ::-1]
        return np.ascontiguousarray(resized.transpose(2, 0, 1))[None]


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
    masks, boxes, scores = (results[name][rows] for name in ("masks", "boxes", "scores"))
    return paste_masks(masks, boxes, scores, results["classes"][rows].astype(np.int64), size_hw)
