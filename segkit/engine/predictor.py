"""Images in, predictions out: with a trained model, without its dataset."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import build_model

from segkit.data.catalog import get_categories
from segkit.data.class_counts import resolve_for_categories
from segkit.data.mapper import convert_pixels
from segkit.engine.checkpoints.checkpointer import SafeCheckpointer, load_saved_classes
from segkit.evaluation.predictions import (
    build_coco_results,
    get_instance_masks,
    get_panoptic_prediction,
    get_semantic_prediction,
)
from segkit.evaluation.semantic import argmax_channels
from segkit.formats import coco, png
from segkit.formats.image_io import open_image
from segkit.report import draw_instances, draw_panoptic
from segkit.structures import CategorySet, SemanticSpace
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.files import dump_json
from segkit.utils.progress import track

SEMANTICS_ALONE = {"sem_seg"}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


class Predictor:
    """A model in evaluation mode with its weights, its resizing and the categories that it knows.

    categories: those saved in the weights by segkit's training, else those of DATASETS.TEST or TRAIN.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """cfg: from `segkit.engine.setup.read_config`, MODEL.WEIGHTS set; CheckpointError where they do not fit."""
        self.cfg = cfg.clone()
        self.cfg.defrost()
        saved, channels = load_saved_classes(cfg.MODEL.WEIGHTS)
        self.categories = saved or get_categories(_dataset_name(cfg))
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
        """The model's output for one (H, W, 3) uint8 image in cfg.INPUT.FORMAT, see `PanopticRCNN.inference`."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
        height, width = image.shape[:2]
        resized = self.resize.get_transform(image).apply_image(image) if self.cfg.INPUT.MIN_SIZE_TEST else image
        tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        output: dict[str, Any] = self.model([{"image": tensor, "height": height, "width": width}])[0]
        return output

    def read(self, path: Path) -> np.ndarray:
        """The image in cfg.INPUT.FORMAT, as `segkit.formats.image_io.open_image` gives it, which says what raises."""
        return convert_pixels(open_image(path), self.cfg.INPUT.FORMAT)


def find_images(inputs: Iterable[str]) -> list[Path]:
    """The images that files, folders (and all below) and patterns name; DatasetError for none or a broken one."""
    found: list[Path] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            matches = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.is_dir())
        else:
            matches = [path] if path.is_file() else sorted(Path(p) for p in glob.glob(name, recursive=True))
        if not matches:
            raise DatasetError(
                "no image here", where=name, remedy=f"give files, folders or patterns of {IMAGE_SUFFIXES}"
            )
        found += matches
    found = list(dict.fromkeys(found))
    for path in found:
        open_image(path)
    return found


def predict(predictor: Predictor, images: Sequence[Path], output: Path) -> list[Path]:
    """Write overlays/*.png below `output`, and what the model gives: instances.json (COCO, RLE, with scores),
    panoptic.json and panoptic/*.png, or of a model with semantics alone labels/*.png and labels/classes.json.

    image ids are 1..N in the order of `images`; the JSONs' `images` tables say which is which. Returns what it wrote.
    """
    names = _output_names(images)
    entries: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    panoptic: list[dict[str, Any]] = []
    categories, gives = predictor.categories, set[str]()
    for image_id, path in enumerate(track(images, "predicting"), 1):
        image = predictor.read(path)
        result = predictor(image)
        gives |= result.keys() & {"instances", "panoptic_seg", "sem_seg"}
        size_hw = image.shape[0], image.shape[1]
        entries.append({"id": image_id, "file_name": path.name, "height": size_hw[0], "width": size_hw[1]})
        if "instances" in result:
            instances += build_coco_results(result, image_id, size_hw, categories)
        if "panoptic_seg" in result:
            segmentation = get_panoptic_prediction(result, categories)
            coco.write_png(output / "panoptic" / f"{names[path]}.png", segmentation.segment_ids)
            panoptic.append(coco.build_panoptic_annotation(image_id, f"{names[path]}.png", segmentation))
        if gives == SEMANTICS_ALONE:
            png.write_labels(output / "labels" / f"{names[path]}.png", argmax_channels(result["sem_seg"]).cpu().numpy())
        picture = draw(result, _rgb(image, predictor.cfg.INPUT.FORMAT), categories, predictor.space)
        png.write(output / "overlays" / f"{names[path]}.png", picture)
    written = [output / "overlays"]
    if panoptic:
        coco.write_panoptic(output / "panoptic.json", entries, panoptic, categories)
        written += [output / "panoptic.json", output / "panoptic"]
    if "instances" in gives:
        annotations = [{"iscrowd": 0, "area": round(r["bbox"][2] * r["bbox"][3], 2), **r} for r in instances]
        coco.write_instances(output / "instances.json", entries, annotations, categories)
        written.append(output / "instances.json")
    if gives == SEMANTICS_ALONE:
        dump_json(output / "labels" / "classes.json", [*predictor.space.names])
        written.append(output / "labels")
    return written


def draw(
    output: dict[str, Any], image_rgb: np.ndarray, categories: CategorySet, space: SemanticSpace | None = None
) -> np.ndarray:
    """The overlay of what a model found: panoptic where it has one, else instances, else classes; space: of these."""
    picture: np.ndarray
    if "panoptic_seg" in output:
        picture = draw_panoptic(image_rgb, get_panoptic_prediction(output, categories), categories)
        return picture
    masks = get_instance_masks(output, image_rgb.shape[:2]) if "instances" in output else None
    if masks is not None:
        return draw_instances(image_rgb, masks, [c.name for c in categories.things])
    if "sem_seg" in output and space is not None:
        return draw_panoptic(image_rgb, get_semantic_prediction(output, categories, space), categories)
    raise ConfigError("this model predicts neither a panoptic map nor masks nor classes: there is nothing to draw")


def _dataset_name(cfg: CfgNode) -> str:
    names = [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]
    if not names:
        raise ConfigError(
            "the weights do not tell their classes, and the config names no dataset",
            where="DATASETS",
            remedy="set DATASETS.TEST to the dataset that the weights were trained for",
        )
    return str(names[0])


def _rgb(image: np.ndarray, image_format: str) -> np.ndarray:
    return np.ascontiguousarray(image[:, :, ::-1]) if image_format == "BGR" else image


def _output_names(images: Sequence[Path]) -> dict[Path, str]:
    """A name for each image's files: its stem, with the image's number where two have one stem."""
    stems = [path.stem for path in images]
    return {
        path: f"{path.stem}_{index}" if stems.count(path.stem) > 1 else path.stem
        for index, path in enumerate(images, 1)
    }
