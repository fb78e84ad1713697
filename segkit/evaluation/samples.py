"""Images of a dataset with ground truth and prediction side by side, drawn while the dataset is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import detectron2.utils.comm as comm
import numpy as np
from detectron2.evaluation import DatasetEvaluator
from numpy.typing import NDArray

from segkit.data.dataset import Record
from segkit.data.ground_truth import GroundTruth, has_segmentation
from segkit.data.mapper import read_image
from segkit.evaluation.predictions import get_instance_masks, get_panoptic_prediction, get_semantic_prediction
from segkit.formats import png
from segkit.report import draw_image_grid
from segkit.report.palette import list_drawn_colors
from segkit.runtime.drawing import Drawable, draw
from segkit.structures import CategorySet, InstanceMasks, PanopticSegmentation, SemanticSpace, rle_to_mask
from segkit.utils.files import convert_write_errors

SAMPLES, SAMPLES_PER_ROW = 8, 2
COLUMNS = ("input", "ground truth", "prediction")  # of one sample


class Sample(NamedTuple):
    """One image; what is not known, boxes without masks for example, is None and stays undrawn.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        ground_truth: its map, or its instances.
        prediction: the model's.
    """

    image: NDArray[np.uint8]
    ground_truth: Drawable | None
    prediction: Drawable | None


class SampleEvaluator(DatasetEvaluator):
    """Draws `SAMPLES` images, spread evenly over the dataset, into one grid; it computes no metric.

    Args:
        ground_truth: the dataset and its ground truth.
        path: the PNG to write.
    """

    def __init__(self, ground_truth: GroundTruth, path: Path) -> None:
        self.ground_truth, self.path = ground_truth, path
        image_ids = [*ground_truth.records]
        rows = np.unique(np.linspace(0, len(image_ids) - 1, SAMPLES).round().astype(int)).tolist()
        self._wanted = [image_ids[row] for row in rows]
        self._samples: dict[Any, Sample] = {}

    def reset(self) -> None:
        """See base class."""
        self._samples = {}

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Keep the images that are drawn.

        Args:
            inputs: the model's inputs, with image_id.
            outputs: the model's outputs.
        """
        for image, output in zip(inputs, outputs, strict=True):
            if image["image_id"] in self._wanted:
                self._samples[image["image_id"]] = self._build_sample(image["image_id"], output)

    def evaluate(self) -> dict[str, Any] | None:
        """Write the grid.

        Returns:
            {} on the main process, None on others.
        """
        gathered = comm.gather(self._samples)
        if not comm.is_main_process():
            return None
        samples = {image_id: sample for part in gathered for image_id, sample in part.items()}
        if samples:
            grid = draw_samples(
                [samples[i] for i in self._wanted if i in samples], self.ground_truth.dataset.categories
            )
            with convert_write_errors(self.path):
                png.write(self.path, grid)
        return {}

    def _build_sample(self, image_id: Any, output: dict[str, Any]) -> Sample:
        record, categories = self.ground_truth.records[image_id], self.ground_truth.dataset.categories
        image = read_image(record, "RGB")
        prediction = select_drawable(output, image.shape[:2], categories, self.ground_truth.space)
        return Sample(image, self._read_ground_truth(record), prediction)

    def _read_ground_truth(self, record: Record) -> Drawable | None:
        if has_segmentation(record):
            return self.ground_truth.read_segmentation(record)
        annotations = [a for a in self.ground_truth.read_annotations(record) if "segmentation" in a]
        size_hw = record["height"], record["width"]
        masks = np.array([rle_to_mask(a["segmentation"]) for a in annotations], dtype=np.bool_).reshape(-1, *size_hw)
        ids = self.ground_truth.dataset.categories.thing_contiguous_ids
        class_ids = np.array([ids[a["category_id"]] for a in annotations], dtype=np.int64)
        count = len(annotations)
        boxes = np.zeros((count, 4), dtype=np.float32)
        return InstanceMasks.from_full(masks, boxes, np.ones(count, dtype=np.float32), class_ids)


def select_drawable(
    output: dict[str, Any], size_hw: tuple[int, ...], categories: CategorySet, space: SemanticSpace
) -> Drawable | None:
    """Select what is drawn of a model's output.

    Args:
        output: the model's output dict.
        size_hw: height and width of the image in pixels.
        categories: the dataset's categories.
        space: the semantic channels.

    Returns:
        The panoptic map, else the instances, else the semantic map; None if there is none, or boxes only.
    """
    if "panoptic_seg" in output:
        return get_panoptic_prediction(output, categories)
    if "instances" in output:
        masks = get_instance_masks(output, (size_hw[0], size_hw[1]))
        if masks is not None or "sem_seg" not in output:
            return masks
    return get_semantic_prediction(output, categories, space) if "sem_seg" in output else None


def draw_samples(samples: Sequence[Sample], categories: CategorySet) -> NDArray[np.uint8]:
    """Draw samples as a grid, `SAMPLES_PER_ROW` in a row. Void of a panoptic ground truth is hatched.

    Args:
        samples: at least one.
        categories: the dataset's categories.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    colors = _choose_colors(samples, categories)
    cells: list[NDArray[np.uint8]] = []
    is_panoptic = bool(categories.things and categories.stuff)  # then void was left out of a complete labelling
    for sample in samples:
        cells += [sample.image] * 3
        if sample.ground_truth is not None:
            options = {"hatch_void": is_panoptic} if isinstance(sample.ground_truth, PanopticSegmentation) else {}
            cells[-2] = draw(sample.image, sample.ground_truth, categories, colors, **options)
        if sample.prediction is not None:
            cells[-1] = draw(sample.image, sample.prediction, categories, colors)
    per_row = min(SAMPLES_PER_ROW, len(samples))
    width = len(COLUMNS) * per_row
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % width)
    rows = [cells[start : start + width] for start in range(0, len(cells), width)]
    return draw_image_grid(rows, COLUMNS * per_row)


def _choose_colors(samples: Sequence[Sample], categories: CategorySet) -> dict[int, Any]:
    """The same colours in all images: those of the classes that are drawn, and of all things if instances are."""
    drawables = [drawable for sample in samples for drawable in sample[1:] if drawable is not None]
    used = {s.category_id for d in drawables if isinstance(d, PanopticSegmentation) for s in d.segments}
    if any(isinstance(drawable, InstanceMasks) for drawable in drawables):
        used |= {thing.category_id for thing in categories.things}
    return list_drawn_colors(categories, used)
