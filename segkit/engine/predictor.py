"""Prediction with a trained model: images in, overlays and COCO files out. The dataset is not needed."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from pycocotools import mask as coco_mask

from segkit.config import with_segkit_keys
from segkit.data.catalog import get_categories
from segkit.data.class_counts import resolve_for_categories
from segkit.data.mapper import convert_pixels
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer, load_saved_classes
from segkit.evaluation import predictions, samples
from segkit.evaluation.semantic import argmax_channels
from segkit.formats import coco, png
from segkit.formats.image_io import open_image
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.files import dump_json
from segkit.utils.progress import track

SEMANTICS_ONLY = {"sem_seg"}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


class Predictor:
    """A model in evaluation mode, with its weights, its resizing and its categories.

    The categories are those that segkit's training saved in the weights, otherwise those of DATASETS.TEST or TRAIN.

    Args:
        cfg: config of `segkit.engine.setup.read_config`, with MODEL.WEIGHTS.

    Raises:
        CheckpointError: the weights do not belong to the model.
        ConfigError: neither the weights nor the config say what the classes are.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = with_segkit_keys(cfg).clone()
        self.cfg.defrost()
        saved_categories, channels = load_saved_classes(cfg.MODEL.WEIGHTS)
        self.categories = saved_categories or get_categories(_get_dataset_name(cfg))
        if self.cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS != "auto":
            channels = self.cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS
        resolve_for_categories(self.cfg, self.categories, channels, "of the weights")
        self.space = self.categories.build_semantic_space(self.cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS)
        self.model = build_model(self.cfg).eval()
        SafeCheckpointer(self.model).load_for_inference(cfg.MODEL.WEIGHTS)
        size = [self.cfg.INPUT.MIN_SIZE_TEST] * 2
        self.resize = T.ResizeShortestEdge(size, self.cfg.INPUT.MAX_SIZE_TEST)

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        """Run the model on one image.

        Args:
            image: (H, W, 3) uint8, channels in the order of cfg.INPUT.FORMAT.

        Returns:
            The model's output, see `PanopticRCNN.inference`.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
        height, width = image.shape[:2]
        resized = self.resize.get_transform(image).apply_image(image) if self.cfg.INPUT.MIN_SIZE_TEST else image
        tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        output: dict[str, Any] = self.model([{"image": tensor, "height": height, "width": width}])[0]
        return output

    def read(self, path: Path) -> np.ndarray:
        """Read an image as training reads it.

        Args:
            path: an image file of any format that `segkit.formats.image_io.open_image` reads.

        Returns:
            (H, W, 3) uint8, channels in the order of cfg.INPUT.FORMAT.

        Raises:
            DatasetError: see `open_image`.
        """
        return convert_pixels(open_image(path), self.cfg.INPUT.FORMAT)


def find_images(inputs: Iterable[str]) -> list[Path]:
    """List the images that files, folders and patterns name, and check that each can be read.

    Args:
        inputs: files, folders (searched with all folders below), or glob patterns.

    Returns:
        The images in the order of `inputs`, sorted within each, without repetitions.

    Raises:
        DatasetError: an input without images, or an unreadable image.
    """
    paths: list[Path] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            matches = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.is_dir())
        else:
            matches = [path] if path.is_file() else sorted(Path(p) for p in glob.glob(name, recursive=True))
        if not matches:
            remedy = f"give files, folders or patterns of {IMAGE_SUFFIXES}"
            raise DatasetError("no images found", where=name, remedy=remedy)
        paths += matches
    paths = list(dict.fromkeys(paths))
    for path in paths:
        open_image(path)
    return paths


def predict(
    predictor: Predictor, images: Sequence[Path], output: Path, drawing: Mapping[str, Any] | None = None
) -> list[Path]:
    """Predict images and write the results below `output`.

    Writes overlays/*.png, and what the model gives: instances.json (COCO, RLE, with scores); panoptic.json and
    panoptic/*.png; or, for a model with a semantic output only, labels/*.png and labels/classes.json. The image ids are
    1..N in the order of `images`. The `images` tables of the JSONs map them to file names. PNGs have the stem of their
    image, and its id if several images have the same stem.

    Args:
        predictor: the model.
        images: image files.
        output: folder to write to.
        drawing: keyword arguments of `draw_panoptic` and `draw_instances`: alpha, names, scores.

    Returns:
        The files and folders that were written.

    Raises:
        ConfigError: the model gives neither a panoptic map nor masks nor semantic classes.
    """
    stem_counts = Counter(path.stem for path in images)
    entries: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    panoptic: list[dict[str, Any]] = []
    categories, tasks = predictor.categories, set[str]()
    for image_id, path in enumerate(track(images, "predicting"), 1):
        image = predictor.read(path)
        png_name = f"{path.stem}_{image_id}.png" if stem_counts[path.stem] > 1 else f"{path.stem}.png"
        result = predictor(image)
        tasks |= result.keys() & {"instances", "panoptic_seg", "sem_seg"}
        size_hw = image.shape[0], image.shape[1]
        entries.append({"id": image_id, "file_name": path.name, "height": size_hw[0], "width": size_hw[1]})
        if "instances" in result:
            instances += predictions.build_coco_results(result, image_id, size_hw, categories)
        if "panoptic_seg" in result:
            segmentation = predictions.get_panoptic_prediction(result, categories)
            coco.write_png(output / "panoptic" / png_name, segmentation.segment_ids)
            panoptic.append(coco.build_panoptic_annotation(image_id, png_name, segmentation))
        if tasks == SEMANTICS_ONLY:
            png.write_labels(output / "labels" / png_name, argmax_channels(result["sem_seg"]).cpu().numpy())
        image_rgb = np.ascontiguousarray(image[:, :, ::-1]) if predictor.cfg.INPUT.FORMAT == "BGR" else image
        png.write(output / "overlays" / png_name, _draw(result, image_rgb, predictor, drawing or {}))
    written = ["overlays"]
    if panoptic:
        coco.write_panoptic(output / "panoptic.json", entries, panoptic, categories)
        written += ["panoptic.json", "panoptic"]
    if "instances" in tasks:
        annotations = [{"iscrowd": 0, "area": _get_area(result), **result} for result in instances]
        coco.write_instances(output / "instances.json", entries, annotations, categories)
        written.append("instances.json")
    if tasks == SEMANTICS_ONLY:
        dump_json(output / "labels" / "classes.json", [*predictor.space.names])
        written.append("labels")
    return [output / name for name in written]


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
