"""Graphs of mask transformers: queries, each with a class and a mask, and their fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from segkit.engine.export.graph import Graph, name_panoptic
from segkit.fusion.mask_argmax import MaskArgmaxFusion
from segkit.modeling.meta_arch import EoMT, Mask2Former
from segkit.modeling.postprocessing.query_tensors import process_queries
from segkit.modeling.postprocessing.resampling import Sizes
from segkit.structures import NO_THING
from segkit.structures.graph_outputs import BOX_MASKS, IMAGE_MASKS, INSTANCES, OUTPUTS, PANOPTIC, SEMANTIC
from segkit.utils.errors import ConfigError

TASKS = {SEMANTIC: "sem_seg", INSTANCES: "instances", PANOPTIC: "panoptic_seg"}  # the names in `QuerySegmentor.outputs`


class QueryGraph(Graph):
    """Of Mask2Former and EoMT. The masks of instances fill the image. See base class."""

    outputs = OUTPUTS | {INSTANCES: tuple(IMAGE_MASKS if name == BOX_MASKS else name for name in OUTPUTS[INSTANCES])}

    def __init__(self, model: Any, tasks: Sequence[str], swap_channels: bool, channels: int) -> None:
        super().__init__(model, tasks, swap_channels, channels)
        self.multiple_hw = (model.size_divisibility, model.size_divisibility)
        self.square_size = getattr(model.backbone, "square_size", 0)
        self.masks_attention = isinstance(model, Mask2Former)

    @staticmethod
    def list_tasks(model: Any) -> tuple[str, ...]:
        """See base class. Those that MODEL.QUERIES.TEST leaves on; without things there are no instances."""
        has_things = any(thing != NO_THING for thing in model.thing_ids)
        return tuple(
            task for task, name in TASKS.items() if name in model.outputs and (has_things or task != INSTANCES)
        )

    @staticmethod
    def find_obstacle(model: Any, tasks: Sequence[str]) -> str:
        """See base class."""
        if getattr(model, "windows", False):
            return "the mean of windows (MODEL.EOMT.WINDOWS)"
        if PANOPTIC in tasks and type(model.fusion) is not MaskArgmaxFusion:
            return f"the fusion {type(model.fusion).__name__} of queries (MODEL.PANOPTIC.FUSION)"
        return ""

    def check_size(self, fixed_size: tuple[int, int] | None) -> None:
        """See base class. The sizes of a grid of rotary positions are constants for torch."""
        super().check_size(fixed_size)
        has_rope = getattr(getattr(self.model.backbone, "network", None), "rope", None) is not None
        if fixed_size is None and has_rope and not self.square_size:
            problem = "rotary positions of any size (MODEL.TIMM.IMAGE_SIZE 0) cannot be exported as one graph"
            raise ConfigError(problem, remedy="give a --fixed-size")
        if fixed_size and self.square_size and max(fixed_size) > self.square_size:
            problem = f"expected sides of at most {self.square_size} pixels (MODEL.TIMM.IMAGE_SIZE)"
            raise ConfigError(f"{problem}, got {fixed_size[0]} x {fixed_size[1]}", where="--fixed-size")

    def preprocess(self, images: torch.Tensor) -> torch.Tensor:
        """See base class. EoMT pads with black, and then normalizes."""
        if isinstance(self.model, EoMT):
            return self.normalize(self.pad(self.order_channels(images)))
        return super().preprocess(images)

    def compute(self, pixels: torch.Tensor, sizes: Sizes) -> dict[str, torch.Tensor]:
        """See base class."""
        outputs, model = self.model.predict(pixels)[-1], self.model
        results = process_queries(
            outputs.class_logits,
            outputs.mask_logits,
            sizes._replace(scale=int(pixels.shape[2] // outputs.mask_logits.shape[2])),
            fusion=model.fusion if isinstance(model.fusion, MaskArgmaxFusion) else MaskArgmaxFusion(),
            stuff_ids=model.stuff_ids,
            thing_ids=model.thing_ids,
            most_instances=model.most_instances,
            tasks=self.tasks,
        )
        named: dict[str, torch.Tensor] = {}
        if results.semantic is not None:
            named["semantic_ids"] = results.semantic.int()
        if instances := results.instances:
            named |= {"boxes": instances.boxes_xyxy, "scores": instances.scores, "classes": instances.class_ids.int()}
            named[IMAGE_MASKS] = instances.masks
        return named | (name_panoptic(results.panoptic) if results.panoptic else {})
