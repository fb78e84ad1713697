"""SegmentationModel: a trained model that takes images in any form and gives a Prediction of each."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args, overload

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from segkit.config import with_segkit_keys
from segkit.data.augmentations.resize import SafeResize
from segkit.data.catalog import get_categories
from segkit.data.class_counts import choose_thing_channels, resolve_for_categories
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer, load_saved_classes
from segkit.engine.inference.precision import select_dtype, set_precision
from segkit.engine.inference_options import apply_inference_options
from segkit.engine.test_time_augmentation import augment_for_test
from segkit.evaluation import predictions
from segkit.formats.bands import RGB
from segkit.formats.pixel_limit import without_pixel_limit
from segkit.runtime.images import ALL_CHANNELS, GREY, ColorOrder, ImageLike, InputFormat, check_color_order, is_image
from segkit.runtime.prediction import Prediction
from segkit.runtime.tiling import DEFAULT_OVERLAP_PX, TileGrid, predict_tiles
from segkit.utils.errors import ConfigError

Output = Literal["panoptic", "instances", "semantic"]
OUTPUTS: tuple[Output, ...] = get_args(Output)
NONE_GIVEN = "expected a model with a panoptic map, masks or semantic classes, got none of them"


class SegmentationModel:
    """A model in evaluation mode, with its weights, its resizing and its categories. `segkit.load` finds the files.

    The model computes as TEST.INFERENCE and TEST.AUG say, so the names of its weights are not those of checkpoints. The
    categories are those that segkit's training saved in the weights, otherwise those of DATASETS.TEST or TRAIN.

    Args:
        cfg: config of `segkit.engine.setup.read_config`, with MODEL.WEIGHTS.
        precision: "float32", "bfloat16", "float16" or "auto", see `select_dtype`.

    Attributes:
        given_cfg: `cfg` as it was given.
        precision: as it was given.
        cfg: the config with the class counts of the weights.
        categories: the classes, with their ids in the dataset.
        space: the channels of the semantic head.
        input: the pixels that the model reads.
        model: the network.

    Raises:
        CheckpointError: the weights do not belong to the model.
        ConfigError: neither the weights nor the config say what the classes are, or how many channels images have; or
            the device cannot compute in the precision.
    """

    def __init__(self, cfg: CfgNode, *, precision: str = "float32") -> None:
        self.given_cfg, self.precision = cfg.clone(), precision
        self.cfg = with_segkit_keys(cfg).clone()
        self.cfg.defrost()
        device = torch.device(cfg.MODEL.DEVICE)
        dtype = select_dtype(precision, device)
        saved_categories, channels = load_saved_classes(cfg.MODEL.WEIGHTS)
        self.categories = saved_categories or get_categories(_get_dataset_name(cfg))
        channels = choose_thing_channels(self.cfg, channels)
        resolve_for_categories(self.cfg, self.categories, channels, "of the weights")
        self.space = self.categories.build_semantic_space(self.cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS)
        if not self.cfg.MODEL.PIXEL_MEAN:  # INPUT.FORMAT is "CHANNELS"
            problem = "it is empty: the number of input channels is not known"
            raise ConfigError(problem, where="MODEL.PIXEL_MEAN", remedy="give the config.yaml of the run")
        self.input = InputFormat(self.cfg.INPUT.FORMAT, _count_channels(self.cfg))
        self.model = build_model(self.cfg).eval()
        SafeCheckpointer(self.model).load_for_inference(cfg.MODEL.WEIGHTS)
        if dtype is not None:
            set_precision(self.model, dtype, device)
        apply_inference_options(self.cfg, self.model)
        self.cfg, self.model = augment_for_test(self.cfg, self.model)
        size = [self.cfg.INPUT.MIN_SIZE_TEST] * 2
        self.resize = SafeResize(size, self.cfg.INPUT.MAX_SIZE_TEST)

    @overload
    def __call__(
        self,
        images: Sequence[ImageLike],
        *,
        color_order: ColorOrder = ...,
        batch_size: int = ...,
        outputs: Collection[Output] = ...,
        tile: int = ...,
        overlap: int = ...,
    ) -> list[Prediction]: ...

    @overload
    def __call__(
        self,
        images: Iterator[ImageLike],
        *,
        color_order: ColorOrder = ...,
        batch_size: int = ...,
        outputs: Collection[Output] = ...,
        tile: int = ...,
        overlap: int = ...,
    ) -> Iterator[Prediction]: ...

    @overload
    def __call__(
        self,
        images: ImageLike,
        *,
        color_order: ColorOrder = ...,
        batch_size: int = ...,
        outputs: Collection[Output] = ...,
        tile: int = ...,
        overlap: int = ...,
    ) -> Prediction: ...

    def __call__(
        self,
        images: ImageLike | Sequence[ImageLike] | Iterator[ImageLike],
        *,
        color_order: ColorOrder = "RGB",
        batch_size: int = 1,
        outputs: Collection[Output] = OUTPUTS,
        tile: int = 0,
        overlap: int = DEFAULT_OVERLAP_PX,
    ) -> Prediction | list[Prediction] | Iterator[Prediction]:
        """Predict one image or several.

        Args:
            images: an image, a list of images, or an iterator of images. An image is a path, an image of Pillow, an
                (H, W, C) or (H, W) uint8 array, or a (C, H, W) uint8 tensor, see `InputFormat.read`.
            color_order: "RGB" or "BGR", the order of the colours in arrays and tensors.
            batch_size: images that the network takes at once, as far as their sizes are equal: each result is that of
                the image alone, but for rounding.
            outputs: what is computed, as far as the model gives it: "panoptic", "instances", "semantic".
            tile: side of the tiles that images are cut into, in pixels; 0: the network sees whole images. Files may
                then have more pixels than `SEGKIT_MAX_PIXELS`. See `segkit.runtime.tiling.predict_tiles`.
            overlap: pixels that neighbouring tiles share, at most half a tile.

        Returns:
            For an image its prediction, for a list a list, for an iterator a generator, which holds one batch in
            memory, and reads `images` as far as it is read itself.

        Raises:
            DatasetError: an image cannot be read.
            ValueError: an array has another shape or dtype, or an option is none of those above.
            ConfigError: the model gives none of `outputs`, or the tiles overlap by more than a half.
        """
        check_color_order(color_order)
        if tile:
            TileGrid((1, 1), tile, overlap)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if unknown := {*outputs} - {*OUTPUTS}:
            raise ValueError(f"outputs must be among {', '.join(OUTPUTS)}, got {', '.join(sorted(unknown))}")
        predict = partial(self._predict_batch, color_order=color_order, outputs=outputs, tile=tile, overlap=overlap)
        if is_image(images):
            return predict([images])[0]
        if not isinstance(images, Iterable):
            raise ValueError(f"images must be an image, a list or an iterator, got {type(images).__name__}")
        generator = _generate(images, batch_size, predict)
        return [*generator] if isinstance(images, Sequence) else generator

    @torch.no_grad()
    def run_network(self, images: Sequence[np.ndarray]) -> list[Any]:
        """Run the network on one batch.

        Args:
            images: (H, W, C) uint8 each, as `input` describes them. The network takes those together that have the same
                size after resizing and padding.

        Returns:
            The model's output of each, see `PanopticRCNN.inference`.

        Raises:
            ValueError: an image has another shape or dtype.
        """
        inputs = [self._build_input(image) for image in images]
        rows_by_size = defaultdict[tuple[int, ...], list[int]](list)
        for row, network_input in enumerate(inputs):
            rows_by_size[self._get_padded_size(network_input["image"])].append(row)
        outputs: dict[int, Any] = {}
        for rows in rows_by_size.values():
            outputs.update(zip(rows, self.model([inputs[row] for row in rows]), strict=True))
        return [outputs[row] for row in range(len(images))]

    def predict_pixels(
        self,
        files: Sequence[str | Path],
        images: Sequence[np.ndarray],
        outputs: Collection[Output] = OUTPUTS,
        tile: int = 0,
        overlap: int = DEFAULT_OVERLAP_PX,
    ) -> list[Prediction]:
        """Predict one batch of files whose pixels are read already; these are kept for drawing.

        Args:
            files: their names.
            images: their pixels as `input.read` gives them.
            outputs: see `__call__`.
            tile: see `__call__`.
            overlap: see `__call__`.

        Returns:
            The predictions.

        Raises:
            ConfigError: the model gives none of `outputs`.
        """
        columns = zip(self._compute_results(images, outputs, tile, overlap), files, images, strict=True)
        return [
            replace(self._build_prediction(results, file, pixels), load_image=partial(self.input.to_rgb, pixels))
            for results, file, pixels in columns
        ]

    def _predict_batch(
        self,
        images: Sequence[ImageLike],
        color_order: ColorOrder,
        outputs: Collection[Output],
        tile: int,
        overlap: int,
    ) -> list[Prediction]:
        with without_pixel_limit(tile > 0):
            pixels = [self.input.read(image, color_order) for image in images]
        columns = zip(self._compute_results(pixels, outputs, tile, overlap), images, pixels, strict=True)
        return [self._build_prediction(*each, is_limited=not tile) for each in columns]

    def _compute_results(
        self, images: Sequence[np.ndarray], outputs: Collection[Output], tile: int, overlap: int
    ) -> list[dict[str, Any]]:
        """The fields of the Prediction of each image, of the network or of its tiles."""
        if tile:
            return [predict_tiles(each, partial(self._predict_tile, outputs=outputs), tile, overlap) for each in images]
        columns = zip(self.run_network(images), images, strict=True)
        return [self._get_results(output, image.shape, outputs) for output, image in columns]

    def _predict_tile(self, crop: np.ndarray, outputs: Collection[Output]) -> dict[str, Any]:
        return self._get_results(self.run_network([crop])[0], crop.shape, outputs)

    def _build_input(self, image: np.ndarray) -> dict[str, Any]:
        channels = self.input.channels
        if image.ndim != len("HWC") or image.shape[2] != channels or image.dtype != np.uint8:
            raise ValueError(f"image must be (H, W, {channels}) uint8, got {image.shape} {image.dtype}")
        height, width = image.shape[:2]
        resized = self.resize.get_transform(image).apply_image(image) if self.cfg.INPUT.MIN_SIZE_TEST else image
        tensor = torch.from_numpy(resized.transpose(2, 0, 1).copy())
        return {"image": tensor, "height": height, "width": width}

    def _get_padded_size(self, tensor: torch.Tensor) -> tuple[int, ...]:
        """The size at which the network sees an image that is alone in its batch."""
        step = max(getattr(getattr(self.model, "backbone", None), "size_divisibility", 1), 1)
        return tuple(-(-side // step) * step for side in tensor.shape[1:])

    def _get_results(self, output: Any, shape: tuple[int, ...], outputs: Collection[Output]) -> dict[str, Any]:
        """The fields of a Prediction that the network's output holds."""
        results: dict[str, Any] = {}
        if "panoptic" in outputs and "panoptic_seg" in output:
            results["panoptic"] = predictions.get_panoptic_prediction(output, self.categories)
        if "instances" in outputs and "instances" in output:
            results["instances"] = predictions.get_instance_masks(output, (shape[0], shape[1]))
        if "semantic" in outputs and "sem_seg" in output:
            results["semantic"] = predictions.get_semantic_channels(output)
        results = {name: result for name, result in results.items() if result is not None}
        if not results:
            raise ConfigError(NONE_GIVEN if {*outputs} == {*OUTPUTS} else f"the model gives no {' or '.join(outputs)}")
        return results

    def _build_prediction(
        self, results: dict[str, Any], image: ImageLike, pixels: np.ndarray, is_limited: bool = True
    ) -> Prediction:
        is_file = isinstance(image, (str, os.PathLike))
        read = self.input.read_rgb if is_limited else self._read_large_rgb
        return Prediction(
            (pixels.shape[0], pixels.shape[1]),
            self.categories,
            **results,
            space=self.space if "semantic" in results else None,
            file_name=Path(image).as_posix() if is_file else Path(getattr(image, "filename", "")).name,
            load_image=partial(read, Path(image)) if is_file else partial(self.input.to_rgb, pixels),
        )

    def _read_large_rgb(self, path: Path) -> np.ndarray:
        with without_pixel_limit():
            return self.input.read_rgb(path)


def _generate(
    images: Iterable[ImageLike], batch_size: int, predict: Callable[[Sequence[ImageLike]], list[Prediction]]
) -> Iterator[Prediction]:
    iterator = iter(images)
    while batch := [*islice(iterator, batch_size)]:
        yield from predict(batch)


def _count_channels(cfg: CfgNode) -> int:
    return {GREY: 1, ALL_CHANNELS: len(cfg.MODEL.PIXEL_MEAN)}.get(cfg.INPUT.FORMAT, RGB)


def _get_dataset_name(cfg: CfgNode) -> str:
    names = [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]
    if not names:
        problem = "the weights do not hold their classes, and the config names no dataset"
        remedy = "set DATASETS.TEST to the dataset that the weights were trained for"
        raise ConfigError(problem, where="DATASETS", remedy=remedy)
    return str(names[0])
