"""ClassicalSegmentor: a method without training, and the colours of each class, in the place of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import product
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from numpy.typing import NDArray
from torch import nn

from segkit.classical import CLASSICAL_METHODS, ClassicalMethod, ColorClasses, build_classical
from segkit.classical.color_classes import COLORS, count_colors
from segkit.config import check_class_counts, with_segkit_keys
from segkit.modeling.lazy_dict import LazyDict, LazyValue
from segkit.modeling.postprocessing.map_outputs import Meaning, build_map_outputs, build_segments
from segkit.structures.architecture_spec import (
    PANOPTIC,
    ROI_HEADS,
    SEMANTIC_HEAD,
    ArchitectureSpec,
    register_architecture,
)
from segkit.utils.errors import ConfigError

register_architecture(
    ArchitectureSpec(
        "ClassicalSegmentor",
        targets=("instances", "semantic"),
        outputs=PANOPTIC,
        class_counts=ROI_HEADS | SEMANTIC_HEAD,
        postprocessing="own",
        needs_targets=False,
        training="grid",
    )
)


@META_ARCH_REGISTRY.register()
class ClassicalSegmentor(nn.Module):
    """Segments by a method of segkit.classical, and gives each region the class whose colours it has.

    Regions of a partition may have every class, objects only those of things; pixels outside of regions have the most
    likely class of stuff. So a dataset of one thing and one stuff class (nuclei) needs no colours. A region of a thing
    is an instance, whose score is the mean vote of its pixels for its class (`ColorClasses`), or 1 without colours.

    There are no parameters. The buffers are the method's options, and how often each class has each colour. Options
    that are given come before those of the buffers.

    Args:
        method: Key of segkit.classical.CLASSICAL_METHODS.
        options: Options of the method that are given, by name.
        num_things: T, number of thing classes.
        stuff_ids: C integers, stuff contiguous id of each semantic channel, 0 for things.
        thing_ids: C integers, thing contiguous id of each semantic channel, -1 for none.
        image_format: "RGB" or "BGR", or "L" for one channel.

    Attributes:
        color_counts: (K, COLORS) int64, training pixels of each class and colour: T things, then the stuff; without
            stuff a last one for pixels of no class.
    """

    color_counts: torch.Tensor

    @configurable
    def __init__(
        self,
        *,
        method: str,
        options: Mapping[str, Any] | None = None,
        num_things: int,
        stuff_ids: Sequence[int],
        thing_ids: Sequence[int],
        image_format: str = "BGR",
    ) -> None:
        super().__init__()
        if image_format not in ("RGB", "BGR", "L"):
            problem = f"classical methods need images in RGB, BGR or L, got {image_format!r}"
            raise ConfigError(problem, where="INPUT.FORMAT")
        self.method_name, self.given_options = method, dict(options or {})
        self.num_things, self.image_format = num_things, image_format
        self.num_stuff = sum(stuff_id > 0 for stuff_id in stuff_ids)
        self.channels = len(stuff_ids)
        # Of each class its semantic channel; things without one of their own have the channel of stuff id 0.
        self.class_channels = [*([0] * num_things), *([0] * self.num_stuff)]
        for channel, (stuff_id, thing_id) in enumerate(zip(stuff_ids, thing_ids, strict=True)):
            if stuff_id > 0:
                self.class_channels[num_things + stuff_id - 1] = channel
            elif thing_id >= 0:
                self.class_channels[thing_id] = channel
        buffers = nn.Module()
        for name, value in _to_numbers(build_classical(method, **self.given_options)).items():
            buffers.register_buffer(name, torch.tensor(value, dtype=torch.float64))
        self.options = nn.ModuleDict({method: buffers})  # weights of another method do not fit
        classes = num_things + max(self.num_stuff, 1)
        self.register_buffer("color_counts", torch.zeros(classes, COLORS, dtype=torch.int64))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments of the constructor for a config; raises ConfigError if a class count is open."""
        cfg = with_segkit_keys(cfg)
        check_class_counts(cfg)
        channels = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        return {
            "method": cfg.MODEL.CLASSICAL.METHOD,
            "options": {name: value for name, value in cfg.MODEL.CLASSICAL.OPTIONS.items() if value is not None},
            "num_things": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "stuff_ids": cfg.MODEL.PANOPTIC.STUFF_IDS or [*range(channels)],
            "thing_ids": cfg.MODEL.PANOPTIC.THING_IDS or [-1] * channels,
            "image_format": cfg.INPUT.FORMAT,
        }

    @property
    def method(self) -> ClassicalMethod:
        """The method with its current options."""
        default = build_classical(self.method_name, **self.given_options)
        buffers = self.options[self.method_name]
        numbers = {name: float(getattr(buffers, name)) for name in _to_numbers(default)}
        return build_classical(self.method_name, **{**_from_numbers(default, numbers), **self.given_options})

    def set_options(self, options: Mapping[str, Any]) -> None:
        """Set options of the method; the others become its defaults.

        Args:
            options: Option -> value.

        Raises:
            ConfigError: An option is unknown, or a value is invalid.
        """
        buffers = self.options[self.method_name]
        method = build_classical(self.method_name, **{**options, **self.given_options})
        for name, value in _to_numbers(method).items():
            getattr(buffers, name).fill_(value)

    def list_settings(self) -> Iterator[dict[str, Any]]:
        """List the options that tuning tries: the defaults, then all combinations of the method's grid.

        Yields:
            Options for `set_options`. Options that are given are not varied.
        """
        grid = CLASSICAL_METHODS[self.method_name].grid
        varied = {name: values for name, values in grid.items() if name not in self.given_options}
        yield {}
        for values in product(*varied.values()):
            yield dict(zip(varied, values, strict=True))

    def observe(self, image: NDArray[np.uint8], class_map: NDArray[np.integer[Any]]) -> None:
        """Count the colours of a labelled image.

        Args:
            image: (H, W, C) uint8 in `image_format`.
            class_map: (H, W) rows of `color_counts`, -1 for none.
        """
        counts = count_colors(self._to_rgb(image), class_map, len(self.color_counts))
        self.color_counts += torch.from_numpy(counts).to(self.color_counts.device)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[LazyDict]:
        """Segment images.

        Args:
            batched_inputs: As for Detectron2's models: image (C, H, W); height and width of the output in pixels.

        Returns:
            Detectron2's output dict of each: "sem_seg" (C, H, W), 1 for the channel of a pixel and 0 for others; if
            there are things also "instances" and "panoptic_seg". "instance_masks" are the instances as crops.

        Raises:
            ConfigError: Classes have to be told apart, but no colours were counted.
        """
        outputs = []
        for sample in batched_inputs:
            image = sample["image"].detach().cpu().numpy().transpose(1, 2, 0).astype(np.uint8)
            size_hw = sample.get("height", image.shape[0]), sample.get("width", image.shape[1])
            outputs.append(self._build_output(*self._segment(self._to_rgb(image), size_hw)))
        return outputs

    def _segment(
        self, image: NDArray[np.uint8], size_hw: tuple[int, int]
    ) -> tuple[NDArray[np.int32], dict[int, tuple[int, float]]]:
        """(H, W) int32 segment ids at the output's size, 0 for no class; of each id its class and score."""
        method = self.method
        things = [*range(self.num_things)]
        others = [*range(self.num_things, len(self.color_counts))]
        allowed = [*things, *others] if method.is_partition or not things else things
        if max(len(allowed), len(others)) > 1 and not self.color_counts.any():
            problem = f"{type(self).__name__} has to tell classes apart, but has seen no training images"
            remedy = "train it (`segkit train`, some minutes), and give its model_final.pth as MODEL.WEIGHTS"
            raise ConfigError(problem, remedy=remedy)
        colors, labels = ColorClasses(self.color_counts.cpu().numpy()), method(image)
        classes, scores = colors.classify_regions(labels, image, allowed)
        if not self.color_counts.any():
            scores = np.ones(len(classes))
        # Things by falling score, then an id for each class of the others.
        objects = np.flatnonzero(classes < self.num_things)
        objects = objects[np.argsort(-scores[objects], kind="stable")]
        first = len(objects) + 1
        ids = np.zeros(len(classes) + 1, dtype=np.int32)
        ids[1:] = classes - self.num_things + first
        ids[objects + 1] = np.arange(1, first)
        rest = colors.classify_pixels(image, others) - self.num_things + first
        segment_ids = np.where(labels > 0, ids[labels], rest).astype(np.int32)
        meanings = {int(ids[row + 1]): (int(classes[row]), float(scores[row])) for row in objects}
        if self.num_stuff:
            meanings |= {row - self.num_things + first: (row, 1.0) for row in others}
        else:
            segment_ids[segment_ids >= first] = 0
        if segment_ids.shape != size_hw:
            resized = cv2.resize(segment_ids.astype(np.float64), size_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            segment_ids = np.asarray(resized, dtype=np.int32)
        return segment_ids, meanings

    def _build_output(self, segment_ids: NDArray[np.int32], meanings: Mapping[int, tuple[int, float]]) -> LazyDict:
        output = LazyDict(sem_seg=LazyValue(lambda: self._build_channels(segment_ids, meanings)))
        if not self.num_things:
            return output
        things = self.num_things
        classes = {
            segment_id: Meaning(True, row, score) if row < things else Meaning(False, row - things + 1)
            for segment_id, (row, score) in meanings.items()
        }
        output.update(build_map_outputs(segment_ids, build_segments(segment_ids, classes)))
        return output

    def _build_channels(
        self, segment_ids: NDArray[np.int32], meanings: Mapping[int, tuple[int, float]]
    ) -> torch.Tensor:
        """(C, H, W) float32, 1 for the channel of a pixel; 0 for all where it has no class."""
        table = torch.zeros(max(meanings, default=0) + 1, self.channels)
        for segment_id, (row, _) in meanings.items():
            table[segment_id, self.class_channels[row]] = 1.0
        return table[torch.from_numpy(segment_ids).long()].permute(2, 0, 1).contiguous()

    def _to_rgb(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.ascontiguousarray(image[..., ::-1]) if self.image_format == "BGR" else image


def _to_numbers(method: ClassicalMethod) -> dict[str, float]:
    """The options as numbers; a word is its index among the words that the option may be."""
    values = {field.name: getattr(method, field.name) for field in fields(method)}
    return {
        name: float(method.choices[name].index(value) if name in method.choices else value)
        for name, value in values.items()
    }


def _from_numbers(method: ClassicalMethod, numbers: Mapping[str, float]) -> dict[str, Any]:
    """The options of numbers of `_to_numbers`, with the types of the method's own."""
    return {
        name: method.choices[name][int(number)] if name in method.choices else type(getattr(method, name))(number)
        for name, number in numbers.items()
    }
