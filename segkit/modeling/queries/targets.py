"""From training samples to what queries are trained on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from detectron2.structures import BitMasks, Instances, PolygonMasks
from torch.nn import functional as F

from segkit.modeling.queries.outputs import QueryTargets
from segkit.structures import IGNORE_LABEL, NO_THING, THING_CHANNEL
from segkit.utils.errors import ConfigError
from segkit.utils.text import abbreviate

TargetKind = Literal["auto", "panoptic", "instance", "semantic"]
NEEDS = {"panoptic": ("instances", "sem_seg"), "instance": ("instances",), "semantic": ("sem_seg",)}
SAMPLE_KEYS = {"instances": "instances (`instances`)", "sem_seg": "semantic labels (`sem_seg`)"}


class QueryTargetBuilder:
    """Builds the targets of a batch from samples of `SegkitMapper` in a semantic space "per_class".

    "panoptic": the instances of things, and for each stuff class in sem_seg all of its pixels. "instance": instances
    alone. "semantic": for each class in sem_seg all of its pixels. Crowds of things are no targets but for "semantic".

    Args:
        stuff_ids: of each of the K classes the stuff contiguous id, 0 for things.
        thing_ids: of each of the K classes the thing contiguous id, -1 for stuff.
        kind: MODEL.QUERIES.TARGETS; "auto": "panoptic" for samples with both, otherwise by what a sample has.

    Raises:
        ConfigError: the kind is unknown.
    """

    def __init__(self, stuff_ids: Sequence[int], thing_ids: Sequence[int], kind: TargetKind = "auto") -> None:
        if kind not in get_args(TargetKind):
            raise ConfigError(f"expected one of {get_args(TargetKind)}, got {kind!r}", where="MODEL.QUERIES.TARGETS")
        self.kind = kind
        self._class_by_thing = {thing: index for index, thing in enumerate(thing_ids) if thing != NO_THING}
        self._classes = len(stuff_ids)
        self._stuff = [index for index, stuff in enumerate(stuff_ids) if stuff != THING_CHANNEL]

    def __call__(
        self, samples: Sequence[dict[str, Any]], size_hw: tuple[int, int], device: torch.device
    ) -> list[QueryTargets]:
        """Build the targets.

        Args:
            samples: of the mapper.
            size_hw: (height, width) of the padded images, pixels; padding belongs to no mask.
            device: of the targets.

        Returns:
            The targets of each sample.

        Raises:
            ConfigError: a sample lacks what the kind needs, or has classes that the model lacks.
        """
        return [self._build(sample, size_hw, device) for sample in samples]

    def _build(self, sample: dict[str, Any], size_hw: tuple[int, int], device: torch.device) -> QueryTargets:
        kind = self._choose_kind(sample)
        class_ids, masks = [], []
        if kind != "semantic":
            instances = sample["instances"]
            things = instances.gt_classes.tolist()
            self._check_classes(sample, "instances", things, self._class_by_thing)
            class_ids += [self._class_by_thing[thing] for thing in things]
            masks.append(_read_masks(instances, device))
        if kind != "instance":
            labels = sample["sem_seg"]
            counts = torch.bincount(labels.flatten(), minlength=IGNORE_LABEL + 1)[:IGNORE_LABEL]
            present = counts.nonzero()[:, 0].tolist()
            self._check_classes(sample, "semantic labels", present, range(self._classes))
            if kind == "panoptic":
                present = [label for label in present if label in self._stuff]
            class_ids += present
            numbers = torch.tensor(present, dtype=torch.uint8).to(device, non_blocking=True)
            masks.append(labels.to(torch.uint8).to(device, non_blocking=True) == numbers[:, None, None])
        height, width = masks[0].shape[1:]
        padded = F.pad(torch.cat(masks), (0, size_hw[1] - width, 0, size_hw[0] - height))
        return QueryTargets(torch.tensor(class_ids, dtype=torch.int64).to(device, non_blocking=True), padded)

    @staticmethod
    def _check_classes(sample: dict[str, Any], kind: str, got: Iterable[int], known: Collection[int]) -> None:
        if unknown := sorted({*got} - {*known}):
            problem = f"{sample.get('file_name', 'a sample')} has {kind} of the classes {abbreviate(unknown)}, "
            problem += f"but the model has the classes 0 to {len(known) - 1}"
            remedy = "train on the classes of the dataset: leave MODEL.QUERIES.NUM_CLASSES out of the config file"
            raise ConfigError(problem, where="MODEL.QUERIES.NUM_CLASSES", remedy=remedy)

    def _choose_kind(self, sample: dict[str, Any]) -> str:
        kind: str = self.kind
        if kind == "auto":
            kind = next((kind for kind, keys in NEEDS.items() if all(key in sample for key in keys)), "panoptic")
        missing = [text for key, text in SAMPLE_KEYS.items() if key in NEEDS[kind] and key not in sample]
        if missing:
            raise ConfigError(
                f"{sample.get('file_name', 'a sample')} has no {' and no '.join(missing)}, "
                f"which queries for {kind} targets need",
                where="MODEL.QUERIES.TARGETS",
                remedy="train on a dataset that has them, or set another kind: instance, semantic, or auto",
            )
        return kind


def _read_masks(instances: Instances, device: torch.device) -> torch.Tensor:
    """(n, H, W) bool on the device."""
    masks = instances.gt_masks
    if isinstance(masks, PolygonMasks):
        masks = BitMasks.from_polygon_masks(masks, *instances.image_size)
    bits: torch.Tensor = masks.to(device, non_blocking=True).tensor
    return bits
