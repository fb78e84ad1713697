"""The model that is exported, from its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segkit.engine.predictor import Predictor
from segkit.engine.setup import read_config


class ExportSource:
    """A loaded model on the CPU, in the form in which it is exported.

    Args:
        config_file: YAML file, or the name of a recipe.
        weights: file of weights; "": those beside the config, or of the config.
        options: KEY VALUE pairs of the config.

    Attributes:
        model: the network, in evaluation mode.
        cfg: the config with the class counts of the weights.
        categories: the classes, with their ids in the dataset.
        space: the channels of the semantic head.

    Raises:
        CheckpointError: the weights do not belong to the model.
        ConfigError: the config cannot be read, or the classes are not known.
    """

    def __init__(self, config_file: str, weights: str = "", options: Sequence[str] = ()) -> None:
        fixed = ["MODEL.DEVICE", "cpu", "TEST.INFERENCE.COMPILE", "False", "TEST.INFERENCE.CHANNELS_LAST", "False"]
        cfg = read_config(config_file, [*options, *fixed], train=False)
        cfg.MODEL.WEIGHTS = weights or cfg.MODEL.WEIGHTS
        self._predictor = Predictor(cfg)
        self.model, self.cfg = self._predictor.model, self._predictor.cfg
        self.categories, self.space = self._predictor.categories, self._predictor.space

    def read(self, path: str | Path) -> np.ndarray:
        """Read an image as the model reads it: (H, W, C) uint8 in INPUT.FORMAT."""
        return self._predictor.read(path)

    def resize(self, pixels: np.ndarray) -> np.ndarray:
        """Resize an image of `read` as before the network."""
        if not self.cfg.INPUT.MIN_SIZE_TEST:
            return pixels
        resized: np.ndarray = self._predictor.resize.get_transform(pixels).apply_image(pixels)
        return resized
