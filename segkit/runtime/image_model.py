"""ImageModel: what models in torch and exported ones share: images in any form, one by one, in batches or in tiles."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args, overload

import numpy as np
from numpy.typing import NDArray

from segkit.formats.pixel_limit import without_pixel_limit
from segkit.runtime.images import ColorOrder, ImageLike, InputFormat, check_color_order, is_image
from segkit.runtime.prediction import Prediction
from segkit.runtime.tiling import DEFAULT_OVERLAP_PX, TileGrid, predict_tiles
from segkit.structures import CategorySet, SemanticSpace
from segkit.utils.errors import ConfigError

Output = Literal["panoptic", "instances", "semantic"]
OUTPUTS: tuple[Output, ...] = get_args(Output)
NONE_GIVEN = "expected a model with a panoptic map, masks or semantic classes, got none of them"


class ImageModel(ABC):
    """A model that takes images in any form and gives a Prediction of each.

    Attributes:
        categories: the classes, with their ids in the dataset.
        space: the channels of the semantic head.
        input: the pixels that the model reads.
    """

    categories: CategorySet
    space: SemanticSpace
    input: InputFormat

    @property
    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What the results depend on, as JSON can hold it: the checksum of the weights and the like."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[Output, ...]:
        """What the model gives."""

    @abstractmethod
    def compute_results(
        self, images: Sequence[NDArray[np.uint8]], outputs: Collection[Output] = OUTPUTS
    ) -> list[dict[str, Any]]:
        """Predict one batch of pixels.

        Args:
            images: (H, W, C) each, as `input` describes them.
            outputs: what is wanted.

        Returns:
            Of each image the fields `panoptic`, `instances` and `semantic` of a Prediction, as far as the model gives
            them and they are wanted; see `choose_results`.

        Raises:
            ConfigError: the model gives none of `outputs`.
            ValueError: an image has another shape or dtype.
        """

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
        if isinstance(outputs, str) or not outputs or {*outputs} - {*OUTPUTS}:
            raise ValueError(f"outputs must be a list of names among {', '.join(OUTPUTS)}, got {outputs!r}")
        predict = partial(self._predict_batch, color_order=color_order, outputs=outputs, tile=tile, overlap=overlap)
        if is_image(images):
            return predict([images])[0]
        if not isinstance(images, Iterable):
            raise ValueError(f"images must be an image, a list or an iterator, got {type(images).__name__}")
        generator = _generate(images, batch_size, predict)
        return [*generator] if isinstance(images, Sequence) else generator

    def predict_pixels(
        self,
        files: Sequence[str | Path],
        images: Sequence[NDArray[np.uint8]],
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
        columns = zip(self._compute_or_merge(images, outputs, tile, overlap), files, images, strict=True)
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
        columns = zip(self._compute_or_merge(pixels, outputs, tile, overlap), images, pixels, strict=True)
        return [self._build_prediction(*each, is_limited=not tile) for each in columns]

    def _compute_or_merge(
        self, images: Sequence[NDArray[np.uint8]], outputs: Collection[Output], tile: int, overlap: int
    ) -> list[dict[str, Any]]:
        """The fields of the Prediction of each image, of the network or of its tiles."""
        if not tile:
            return self.compute_results(images, outputs)
        return [
            predict_tiles(each, lambda crop: self.compute_results([crop], outputs)[0], tile, overlap) for each in images
        ]

    def _build_prediction(
        self, results: dict[str, Any], image: ImageLike, pixels: NDArray[np.uint8], is_limited: bool = True
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

    def _read_large_rgb(self, path: Path) -> NDArray[np.uint8]:
        with without_pixel_limit():
            return self.input.read_rgb(path)


def choose_results(results: Mapping[str, Any], outputs: Collection[Output]) -> dict[str, Any]:
    """Leave out the results that a model does not give.

    Args:
        results: output -> result, None if the model does not give it.
        outputs: what was wanted.

    Returns:
        The results that are not None.

    Raises:
        ConfigError: there are none.
    """
    chosen = {name: result for name, result in results.items() if result is not None}
    if not chosen:
        raise ConfigError(NONE_GIVEN if {*outputs} == {*OUTPUTS} else f"the model gives no {' or '.join(outputs)}")
    return chosen


def _generate(
    images: Iterable[ImageLike], batch_size: int, predict: Callable[[Sequence[ImageLike]], list[Prediction]]
) -> Iterator[Prediction]:
    iterator = iter(images)
    while batch := [*islice(iterator, batch_size)]:
        yield from predict(batch)
