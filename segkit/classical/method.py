"""The base class of classical methods: a frozen dataclass of options that turns an image into a map of regions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.classical.components import remove_small
from segkit.utils.errors import ConfigError
from segkit.utils.options import check_numbers


@dataclass(frozen=True)
class ClassicalMethod(ABC):
    """A method without training. A subclass is a frozen dataclass of its options, with `segment`.

    Options are numbers or one of a few words, so that a checkpoint can hold them.

    Attributes:
        is_partition: Regions cover the image, and 0 is only where they were too small. Otherwise regions are objects,
            and 0 is their background.
        needs_scikit_image: It is an extra.
        choices: Option -> the words that it may be.
        grid: Option -> the values that tuning tries, beside the default.
        blur_px: Standard deviation of the Gaussian that smooths the image first, pixels; 0: none.
        min_area_px: Pixels. Smaller regions become 0.
    """

    is_partition: ClassVar[bool] = False
    needs_scikit_image: ClassVar[bool] = False
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    blur_px: float = 1.0
    min_area_px: int = 20

    def __post_init__(self) -> None:
        check_numbers(self, "blur_px", "min_area_px", least=0)
        for name, words in self.choices.items():
            if getattr(self, name) not in words:
                problem = f"{name} must be one of {[*words]}, got {getattr(self, name)!r}"
                raise ConfigError(problem, where=type(self).__name__)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Segment one image.

        Args:
            image: (H, W, C) uint8, RGB, or grey with one channel. It is not changed.

        Returns:
            (H, W) int32 label map, 1..N = connected regions, 0 = background. All 0 for an image without pixels.

        Raises:
            ConfigError: The image has other channels than 1 or 3.
            ValueError: Another shape or dtype.
        """
        rgb = to_rgb(image)
        if not rgb.size:
            return np.zeros(rgb.shape[:2], dtype=np.int32)
        if self.blur_px:
            rgb = np.asarray(cv2.GaussianBlur(rgb, (0, 0), self.blur_px), dtype=np.uint8)
        return remove_small(self.segment(rgb), self.min_area_px)

    @abstractmethod
    def segment(self, rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Segment one image that is smoothed already.

        Args:
            rgb: (H, W, 3) uint8 RGB, H and W at least 1.

        Returns:
            (H, W) int32 label map, 0 = background, any connected regions of 1, 2, ...
        """


def to_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give an image three channels.

    Args:
        image: (H, W, C) uint8, C 1 or 3.

    Returns:
        (H, W, 3) uint8, contiguous; grey is repeated.

    Raises:
        ConfigError: The image has other channels than 1 or 3.
        ValueError: Another shape or dtype.
    """
    if image.ndim != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, C) uint8, got {image.shape} {image.dtype}")
    if image.shape[2] not in (1, 3):
        problem = f"classical methods need images of 1 or 3 channels, got {image.shape[2]}"
        raise ConfigError(problem, remedy="choose the channels that show the objects")
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
