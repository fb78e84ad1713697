"""SegmentationModel: a trained model that takes images in any form and gives a Prediction of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from numpy.typing import NDArray

from segkit.config import with_segkit_keys
from segkit.data.augmentations.resize import SafeResize
from segkit.data.catalog import get_categories
from segkit.data.class_counts import choose_thing_channels, resolve_for_categories
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer, load_saved_classes
from segkit.engine.inference.model_description import describe_model
from segkit.engine.inference.precision import select_dtype, set_precision
from segkit.engine.inference_options import apply_inference_options
from segkit.engine.test_time_augmentation import augment_for_test
from segkit.evaluation import predictions
from segkit.formats.bands import RGB
from segkit.runtime.image_model import OUTPUTS, ImageModel, Output, choose_results
from segkit.runtime.images import ALL_CHANNELS, GREY, InputFormat
from segkit.structures.architecture_spec import get_architecture_spec
from segkit.utils.errors import ConfigError

OUTPUT_KEYS = ("panoptic_seg", "instances", "sem_seg")  # of a network's output, in the order of `OUTPUTS`


class SegmentationModel(ImageModel):
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

    @property
    def description(self) -> dict[str, Any]:
        """What the results depend on, see `describe_model`."""
        return describe_model(self.given_cfg, self.precision)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What the architecture gives."""
        names = get_architecture_spec(self.cfg.MODEL.META_ARCHITECTURE).outputs
        return tuple(output for output, name in zip(OUTPUTS, OUTPUT_KEYS, strict=True) if name in names)

    def compute_results(
        self, images: Sequence[NDArray[np.uint8]], outputs: Collection[Output] = OUTPUTS
    ) -> list[dict[str, Any]]:
        """Predict one batch of pixels, see `ImageModel.compute_results`.

        Args:
            images: (H, W, C) uint8 each, as `input` describes them.
            outputs: what is wanted.

        Returns:
            The fields of the Prediction of each image.

        Raises:
            ConfigError: the model gives none of `outputs`.
            ValueError: an image has another shape or dtype.
        """
        columns = zip(self.run_network(images), images, strict=True)
        return [self._get_results(output, image.shape, outputs) for output, image in columns]

    @torch.no_grad()
    def run_network(self, images: Sequence[NDArray[np.uint8]]) -> list[Any]:
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

    def _build_input(self, image: NDArray[np.uint8]) -> dict[str, Any]:
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
        return choose_results(results, outputs)


def _count_channels(cfg: CfgNode) -> int:
    return {GREY: 1, ALL_CHANNELS: len(cfg.MODEL.PIXEL_MEAN)}.get(cfg.INPUT.FORMAT, RGB)


def _get_dataset_name(cfg: CfgNode) -> str:
    names = [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]
    if not names:
        problem = "the weights do not hold their classes, and the config names no dataset"
        remedy = "set DATASETS.TEST to the dataset that the weights were trained for"
        raise ConfigError(problem, where="DATASETS", remedy=remedy)
    return str(names[0])
