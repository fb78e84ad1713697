"""Prediction with a trained model: images in, overlays and COCO files out. The dataset is not needed."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from pycocotools import mask as coco_mask

from segkit.config import with_segkit_keys
from segkit.data.augmentations.resize import SafeResize
from segkit.data.catalog import get_categories
from segkit.data.class_counts import choose_thing_channels, resolve_for_categories
from segkit.data.mapper import convert_pixels
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer, load_saved_classes
from segkit.engine.image_inputs import find_images, find_root
from segkit.engine.inference_options import apply_inference_options
from segkit.evaluation import predictions, samples
from segkit.evaluation.semantic import argmax_channels
from segkit.formats import coco, png
from segkit.formats.bands import RGB, read_bands, to_rgb
from segkit.formats.image_io import open_image
from segkit.normalization import ALL_CHANNELS, GREY
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.files import dump_json
from segkit.utils.progress import track

__all__ = ["PNG_FOLDERS", "Predictor", "find_images", "predict"]

SEMANTICS_ONLY = {"sem_seg"}
OVERLAYS, PANOPTIC, LABELS = "overlays", "panoptic", "labels"  # folders of the results
PNG_FOLDERS = (OVERLAYS, PANOPTIC, LABELS)


class Predictor:
    """A model in evaluation mode, with its weights, its resizing and its categories.

    The model computes as TEST.INFERENCE says, so the names of its weights are not those of checkpoints. The categories
    are those that segkit's training saved in the weights, otherwise those of DATASETS.TEST or TRAIN.

    Args:
        cfg: config of `segkit.engine.setup.read_config`, with MODEL.WEIGHTS.

    Attributes:
        channels: number of channels of the images.

    Raises:
        CheckpointError: the weights do not belong to the model.
        ConfigError: neither the weights nor the config say what the classes are, or how many channels images have.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = with_segkit_keys(cfg).clone()
        self.cfg.defrost()
        saved_categories, channels = load_saved_classes(cfg.MODEL.WEIGHTS)
        self.categories = saved_categories or get_categories(_get_dataset_name(cfg))
        channels = choose_thing_channels(self.cfg, channels)
        resolve_for_categories(self.cfg, self.categories, channels, "of the weights")
        self.space = self.categories.build_semantic_space(self.cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS)
        if not self.cfg.MODEL.PIXEL_MEAN:  # INPUT.FORMAT is "CHANNELS"
            problem = "it is empty: the number of input channels is not known"
            raise ConfigError(problem, where="MODEL.PIXEL_MEAN", remedy="give the config.yaml of the run")
        self.channels = {GREY: 1, ALL_CHANNELS: len(self.cfg.MODEL.PIXEL_MEAN)}.get(self.cfg.INPUT.FORMAT, RGB)
        self.model = build_model(self.cfg).eval()
        SafeCheckpointer(self.model).load_for_inference(cfg.MODEL.WEIGHTS)
        apply_inference_options(self.cfg, self.model)
        size = [self.cfg.INPUT.MIN_SIZE_TEST] * 2
        self.resize = SafeResize(size, self.cfg.INPUT.MAX_SIZE_TEST)

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        """Run the model on one image.

        Args:
            image: (H, W, C) uint8, C channels as cfg.INPUT.FORMAT says: 3, 1 for "L", those of the training's images
                for "CHANNELS".

        Returns:
            The model's output, see `PanopticRCNN.inference`.

        Raises:
            ValueError: the image has another shape or dtype.
        """
        channels = self.channels
        if image.ndim != 3 or image.shape[2] != channels or image.dtype != np.uint8:
            raise ValueError(f"image must be (H, W, {channels}) uint8, got {image.shape} {image.dtype}")
        height, width = image.shape[:2]
        resized = self.resize.get_transform(image).apply_image(image) if self.cfg.INPUT.MIN_SIZE_TEST else image
        tensor = torch.from_numpy(resized.transpose(2, 0, 1).copy())
        output: dict[str, Any] = self.model([{"image": tensor, "height": height, "width": width}])[0]
        return output

    def read(self, path: str | Path) -> np.ndarray:
        """Read an image as training reads it.

        Args:
            path: an image file of any format that `segkit.formats.image_io.open_image` reads; for INPUT.FORMAT
                "CHANNELS" one that `segkit.formats.bands.read_bands` reads, unless there are three channels.

        Returns:
            (H, W, C) uint8, C channels as for `__call__`.

        Raises:
            DatasetError: see `open_image` and `read_bands`.
        """
        if self.cfg.INPUT.FORMAT == ALL_CHANNELS and self.channels != RGB:
            return read_bands(path, self.channels)
        return convert_pixels(open_image(Path(path)), self.cfg.INPUT.FORMAT)


def predict(
    predictor: Predictor,
    images: Sequence[str | Path],
    output: str | Path,
    drawing: Mapping[str, Any] | None = None,
    root: str | Path | None = None,
    on_unreadable: Callable[[DatasetError], object] | None = None,
) -> list[Path]:
    """Predict images and write the results below `output`.

    Writes overlays/*.png, and what the model gives: instances.json (COCO, RLE, with scores); panoptic.json and
    panoptic/*.png; or, for a model with a semantic output only, labels/*.png and labels/classes.json. The image ids are
    1..N in the order of `images`. The `images` tables of the JSONs map them to file names. PNGs have the stem of their
    image, and its id if several images have the same stem, on systems without upper and lower case too.

    Args:
        predictor: the model.
        images: image files.
        output: folder to write to.
        drawing: keyword arguments of `draw_panoptic` and `draw_instances`: alpha, names, scores.
        root: folder to which the file names in the JSONs are relative; None for the one that all images share.
        on_unreadable: takes the error of an image that cannot be read, and the others go on; None raises it. The error
            of an only image is always raised.

    Returns:
        The files and folders that were written.

    Raises:
        ConfigError: the model gives neither a panoptic map nor masks nor semantic classes.
        DatasetError: an image cannot be read, see `on_unreadable`, or none; an output cannot be written.
    """
    paths = [Path(image) for image in images]
    root = root or find_root(map(str, paths))
    results = _Results(predictor, Path(output), drawing or {})
    for image_id, (path, png_name) in enumerate(
        track([*zip(paths, _output_names(paths), strict=True)], "predicting"), 1
    ):
        try:
            image = predictor.read(path)
        except DatasetError as error:
            if on_unreadable is None or len(images) == 1:
                raise
            on_unreadable(error)
            continue
        file_name = Path(os.path.relpath(path, root)).as_posix()
        entry = {"id": image_id, "file_name": file_name, "height": image.shape[0], "width": image.shape[1]}
        results.add(entry, image, png_name)
    if not results.entries:
        raise DatasetError(f"expected images that can be read, got none among {len(images)}", where=root)
    return results.write_tables()


class _Results:
    """The results of `predict`: those of an image are drawn and written at once, the JSONs at the end."""

    def __init__(self, predictor: Predictor, output: Path, drawing: Mapping[str, Any]) -> None:
        self.predictor, self.output, self.drawing = predictor, output, drawing
        self.entries: list[dict[str, Any]] = []
        self.instances: list[dict[str, Any]] = []
        self.panoptic: list[dict[str, Any]] = []
        self.tasks: set[str] = set()

    def add(self, entry: dict[str, Any], image: np.ndarray, png_name: str) -> None:
        """Predict an image and write its PNGs."""
        categories, cfg = self.predictor.categories, self.predictor.cfg
        result = self.predictor(image)
        self.tasks |= result.keys() & {"instances", "panoptic_seg", "sem_seg"}
        self.entries.append(entry)
        if "instances" in result:
            self.instances += predictions.build_coco_results(result, entry["id"], image.shape[:2], categories)
        if "panoptic_seg" in result:
            segmentation = predictions.get_panoptic_prediction(result, categories)
            coco.write_png(self.output / PANOPTIC / png_name, segmentation.segment_ids)
            self.panoptic.append(coco.build_panoptic_annotation(entry["id"], png_name, segmentation))
        if self.tasks == SEMANTICS_ONLY:
            png.write_labels(self.output / LABELS / png_name, argmax_channels(result["sem_seg"]).cpu().numpy())
        image_rgb = np.ascontiguousarray(image[:, :, ::-1]) if cfg.INPUT.FORMAT == "BGR" else image
        image_rgb = to_rgb(image_rgb)
        png.write(self.output / OVERLAYS / png_name, _draw(result, image_rgb, self.predictor, self.drawing))

    def write_tables(self) -> list[Path]:
        """Write the JSONs; the files and folders that were written."""
        categories, written = self.predictor.categories, [OVERLAYS]
        if self.panoptic:
            coco.write_panoptic(self.output / "panoptic.json", self.entries, self.panoptic, categories)
            written += ["panoptic.json", PANOPTIC]
        if "instances" in self.tasks:
            annotations = [{"iscrowd": 0, "area": _get_area(result), **result} for result in self.instances]
            coco.write_instances(self.output / "instances.json", self.entries, annotations, categories)
            written.append("instances.json")
        if self.tasks == SEMANTICS_ONLY:
            dump_json(self.output / LABELS / "classes.json", [*self.predictor.space.names])
            written.append(LABELS)
        return [self.output / name for name in written]


def _output_names(images: Sequence[Path]) -> list[str]:
    """A PNG name for each image, all different; stems that no other image has are kept."""
    keys = [_normalize(path.stem) for path in images]
    repetitions, taken = Counter(keys), set(keys)
    names = []
    for image_id, (path, key) in enumerate(zip(images, keys, strict=True), 1):
        stem = path.stem
        if repetitions[key] > 1:
            endings = (f"_{image_id}" if number == 1 else f"_{image_id}_{number}" for number in count(1))
            stem = next(path.stem + ending for ending in endings if _normalize(path.stem + ending) not in taken)
            taken.add(_normalize(stem))
        names.append(f"{stem}.png")
    return names


def _normalize(name: str) -> str:
    """Equal for names that are one file on some system: of another case, or of composed and decomposed accents."""
    return unicodedata.normalize("NFC", name).casefold()


def _get_area(result: dict[str, Any]) -> float:
    """Pixels of the mask, or of the box if the model gives no masks."""
    if "segmentation" in result:
        return float(coco_mask.area(result["segmentation"]))
    return round(result["bbox"][2] * result["bbox"][3], 2)


def _draw(
    output: dict[str, Any], image_rgb: np.ndarray, predictor: Predictor, drawing: Mapping[str, Any]
) -> np.ndarray:
    """Draw a model's output over the image: the panoptic map, else instance masks, else the semantic map."""
    drawable = samples.select_drawable(output, image_rgb.shape[:2], predictor.categories, predictor.space)
    if drawable is None:
        raise ConfigError("expected a model with a panoptic map, masks or semantic classes to draw, got none of them")
    return samples.draw(image_rgb, drawable, predictor.categories, **drawing)


def _get_dataset_name(cfg: CfgNode) -> str:
    names = [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]
    if not names:
        problem = "the weights do not hold their classes, and the config names no dataset"
        remedy = "set DATASETS.TEST to the dataset that the weights were trained for"
        raise ConfigError(problem, where="DATASETS", remedy=remedy)
    return str(names[0])
