"""WatershedSegmentor: a semantic network whose things are split into objects by the watershed of the distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, SemanticSegmentor
from numpy.typing import NDArray

from segkit.classical.components import remove_small
from segkit.classical.regions import split_touching
from segkit.config import with_segkit_keys
from segkit.modeling.lazy_dict import LazyDict
from segkit.modeling.postprocessing.map_outputs import Meaning, build_map_outputs, build_segments
from segkit.structures.architecture_spec import PANOPTIC, SEMANTIC_HEAD, ArchitectureSpec, register_architecture
from segkit.structures.segment_table import INPUT_ERRORS, NAN_LOGITS
from segkit.utils.errors import ConfigError
from segkit.utils.options import check_numbers

NAME = "WatershedSegmentor"

register_architecture(
    ArchitectureSpec(
        NAME,
        targets=("semantic",),
        outputs=PANOPTIC,
        class_counts=SEMANTIC_HEAD,
        postprocessing="own",
        thing_channels="per_class",
    )
)


@META_ARCH_REGISTRY.register()
class WatershedSegmentor(SemanticSegmentor):
    """Detectron2's SemanticSegmentor, with the same weights and losses, for objects that are round and may touch.

    The pixels of each thing class (argmax) are split by the watershed of their distance to other pixels
    (`segkit.classical.regions.split_touching`). All other pixels, and objects that are too small, have the best
    class of stuff; without stuff they are void.

    Args:
        stuff_ids: C integers, stuff contiguous id of each semantic channel, 0 for things.
        thing_ids: C integers, thing contiguous id of each semantic channel, -1 for stuff.
        depth_px: Two objects are separated if the radius of their neck is smaller than both radii by at least this, in
            pixels of the output.
        min_area_px: Smallest object, in pixels of the output.
        **segmentor: backbone, sem_seg_head, pixel_mean, pixel_std, as in SemanticSegmentor.

    Raises:
        ConfigError: depth_px or min_area_px is no number from 0.
    """

    @configurable
    def __init__(
        self,
        *,
        stuff_ids: Sequence[int],
        thing_ids: Sequence[int],
        depth_px: float = 0.75,
        min_area_px: int = 20,
        **segmentor: Any,
    ) -> None:
        super().__init__(**segmentor)
        self.stuff_ids, self.thing_ids = np.array([*stuff_ids]), np.array([*thing_ids])
        self.depth_px, self.min_area_px = depth_px, min_area_px
        check_numbers(self, "depth_px", "min_area_px", least=0)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments of the constructor for a config; raises ConfigError if the channels' meaning is unknown."""
        cfg = with_segkit_keys(cfg)
        arguments: dict[str, Any] = super().from_config(cfg)
        ids, channels = cfg.MODEL.PANOPTIC, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        if len(ids.THING_IDS) != channels:
            raise ConfigError(
                f"the meaning of the {channels} semantic channels of {NAME} is unknown",
                where="MODEL.PANOPTIC.THING_IDS",
                remedy="read the config by segkit.prepare_config, which sets them from the dataset",
            )
        options = {"depth_px": cfg.MODEL.WATERSHED.DEPTH_PX, "min_area_px": cfg.MODEL.WATERSHED.MIN_AREA_PX}
        return {**arguments, **options, "stuff_ids": ids.STUFF_IDS, "thing_ids": ids.THING_IDS}

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Compute losses in training, otherwise outputs.

        Args:
            batched_inputs: As for SemanticSegmentor: image (C, H, W); height and width of the output in pixels; in
                training sem_seg (H, W).

        Returns:
            A dict of scalar losses in training. Otherwise per image a LazyDict: "sem_seg" (C, H, W) logits,
            "panoptic_seg" (ids (H, W) int32, segments_info), "instances" with full-size pred_masks and "instance_masks"
            (the same as InstanceMasks): the things of the map by falling score. The score is the mean probability of
            the class over the pixels of the instance.

        Raises:
            ValueError: A logit is NaN or infinite.
        """
        results = super().forward(batched_inputs)
        return results if self.training else [self._build_output(result["sem_seg"]) for result in results]

    def _build_output(self, logits: torch.Tensor) -> LazyDict:
        """The outputs for logits (C, H, W) at the output's size."""
        highest, channels = logits.float().max(dim=0)
        probs = (highest - logits.float().logsumexp(dim=0)).exp()
        if not probs.isfinite().all():
            raise ValueError(INPUT_ERRORS[NAN_LOGITS])
        regions, classes = self._split_things(channels.cpu().numpy())
        areas_px = np.bincount(regions.reshape(-1), minlength=len(classes) + 1)[1:]
        sums = np.bincount(regions.reshape(-1), probs.detach().cpu().numpy().reshape(-1), len(classes) + 1)[1:]
        scores = sums / areas_px
        order = np.argsort(-scores, kind="stable")
        ids = np.zeros(len(classes) + 1, dtype=np.int32)
        ids[order + 1] = np.arange(1, len(classes) + 1)
        meanings = {rank: Meaning(True, int(classes[i]), float(scores[i])) for rank, i in enumerate(order, 1)}
        segment_ids = ids[regions]
        is_stuff = self.stuff_ids > 0
        if is_stuff.any():
            best = logits[torch.from_numpy(is_stuff).to(logits.device)].max(dim=0).indices.cpu().numpy()
            stuff_map = self.stuff_ids[is_stuff][best]
            segment_ids = np.where(regions > 0, segment_ids, stuff_map + len(classes)).astype(np.int32)
            meanings |= {len(classes) + i: Meaning(False, i) for i in sorted(self.stuff_ids[is_stuff].tolist())}
        segments = build_segments(segment_ids, meanings)
        return LazyDict(sem_seg=logits, **build_map_outputs(segment_ids, segments, logits.device))

    def _split_things(self, channels: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """(H, W) int32 objects 1..N, 0 for none, and their N classes."""
        regions, classes = np.zeros(channels.shape, dtype=np.int32), list[int]()
        for channel in np.unique(channels):
            if self.thing_ids[channel] >= 0:
                objects = remove_small(split_touching(channels == channel, self.depth_px), self.min_area_px)
                regions += np.where(objects > 0, objects + len(classes), 0).astype(np.int32)
                classes += [int(self.thing_ids[channel])] * int(objects.max(initial=0))
        return regions, np.array(classes, dtype=np.int64)
