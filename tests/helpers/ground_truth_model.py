"""A model that predicts the ground truth, and its evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import inference_on_dataset
from detectron2.structures import Boxes, Instances

from segkit.config import load_config
from segkit.data.dataset import Dataset
from segkit.data.ground_truth import read_segmentation
from segkit.evaluation import build_evaluators

PANOPTIC_RCNN = ["MODEL.META_ARCHITECTURE", "PanopticRCNN"]


class GroundTruthModel(torch.nn.Module):
    """A model that predicts the ground truth, shifted to the right by `shift_px`, in Detectron2's output format."""

    def __init__(self, dataset: Dataset, shift_px: int = 0, outputs: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.dataset, self.shift_px, self.outputs = dataset, shift_px, outputs
        self.records = {r["image_id"]: r for r in dataset.records}

    def forward(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self.predict(self.records[x["image_id"]]) for x in inputs]

    def predict(self, record: dict[str, Any]) -> dict[str, Any]:
        categories = self.dataset.categories
        ground_truth = read_segmentation(record, categories)
        ids = np.roll(ground_truth.segment_ids, self.shift_px, axis=1)
        numbers = {s.segment_id: i for i, s in enumerate(ground_truth.segments, 1)}
        segment_ids = np.vectorize(lambda i: numbers.get(i, 0))(ids).astype(np.int32)
        info, sem_seg = [], torch.zeros(len(categories.stuff) + 1, *ids.shape)
        for segment in ground_truth.segments:
            number = numbers[segment.segment_id]
            if segment.isthing:
                contiguous = categories.thing_contiguous_ids[segment.category_id]
                info.append({"id": number, "isthing": True, "category_id": contiguous, "score": 0.9})
            else:
                contiguous = categories.stuff_contiguous_ids[segment.category_id]
                info.append({"id": number, "isthing": False, "category_id": contiguous})
                sem_seg[contiguous][torch.from_numpy(ids == segment.segment_id)] = 5.0
        things = [s for s in ground_truth.segments if s.isthing and not s.iscrowd]
        instances = Instances(ids.shape)
        masks = np.array([ids == s.segment_id for s in things]).reshape(-1, *ids.shape)
        instances.pred_masks = torch.from_numpy(masks)
        boxes = [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] for ys, xs in (np.nonzero(m) for m in masks)]
        instances.pred_boxes = Boxes(torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32))
        instances.scores = torch.linspace(0.9, 0.6, len(things))
        instances.pred_classes = torch.tensor([categories.thing_contiguous_ids[s.category_id] for s in things]).long()
        output = {"panoptic_seg": (torch.from_numpy(segment_ids), info), "instances": instances, "sem_seg": sem_seg}
        return {key: value for key, value in output.items() if not self.outputs or key in self.outputs}


def evaluate(
    dataset: Dataset,
    output_dir: Path,
    shift_px: int = 0,
    outputs: tuple[str, ...] = (),
    opts: Sequence[str] = (),
    model_class: type[GroundTruthModel] = GroundTruthModel,
) -> dict[str, Any]:
    inputs = [[{k: r[k] for k in ("image_id", "file_name", "height", "width")}] for r in dataset.records]
    evaluators = build_evaluators(load_config(opts=[*PANOPTIC_RCNN, *opts]), dataset, output_dir)
    results: dict[str, Any] = inference_on_dataset(model_class(dataset, shift_px, outputs), inputs, evaluators)
    return results
