"""EoMT: a plain ViT whose last blocks see queries, for instance, semantic and panoptic segmentation."""

from __future__ import annotations

import math
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import ImageList
from detectron2.utils.events import get_event_storage, has_event_storage
from torch.nn import functional as F

from segkit.config import check_class_counts, with_segkit_keys
from segkit.modeling.backbones.plain_vit import SIZE_KEY, PlainViT
from segkit.modeling.lazy_dict import LazyDict
from segkit.modeling.queries.annealing import MaskAnnealing, build_annealing
from segkit.modeling.queries.eomt_head import EoMTHead
from segkit.modeling.queries.outputs import QueryOutputs
from segkit.modeling.queries.segmentor import QuerySegmentor, register_query_architecture
from segkit.runtime.images import ALL_CHANNELS, GREY
from segkit.utils.errors import ConfigError

NAME, BUILDER = "EoMT", "build_timm_backbone"

register_query_architecture(NAME)


@META_ARCH_REGISTRY.register()
class EoMT(QuerySegmentor):
    """The Encoder-only Mask Transformer (Kerssies et al., "Your ViT is Secretly an Image Segmentation Model", 2025).

    In training the attention of queries is masked as `annealing` says; the iteration is that of Detectron2's
    EventStorage, and without a storage the training is at its beginning. Otherwise no attention is masked.

    Args:
        backbone: the ViT, whose last blocks run with queries.
        head: the queries and what predicts from them.
        annealing: the probabilities of masked attention by the progress of the training.
        max_iter: iterations of the training.
        windows: evaluate images in square windows, see `segment_windows`; for "sem_seg" alone.
        **segmentor: criterion, pixel_mean, pixel_std, stuff_ids, thing_ids, ..., as in QuerySegmentor.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: PlainViT,
        head: EoMTHead,
        annealing: MaskAnnealing,
        max_iter: int,
        windows: bool = False,
        **segmentor: Any,
    ) -> None:
        super().__init__(**segmentor)
        self.backbone, self.head = backbone, head
        self.annealing, self.max_iter, self.windows = annealing, max_iter, windows
        if windows and (not backbone.square_size or [*self.outputs] != ["sem_seg"]):
            problem = f"windows need an image size and classes of pixels alone, got {', '.join(self.outputs)}"
            remedy = "set MODEL.TIMM.IMAGE_SIZE, and MODEL.QUERIES.TEST.PANOPTIC_ON and INSTANCE_ON to False"
            raise ConfigError(problem, where="MODEL.EOMT.WINDOWS", remedy=remedy)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments of the constructor from a config.

        Args:
            cfg: any config; segkit's keys may be missing.

        Returns:
            The arguments by name.

        Raises:
            ConfigError: the network is no plain ViT, sizes do not fit, a schedule is invalid, or a class count is open.
        """
        cfg = with_segkit_keys(cfg)
        check_class_counts(cfg)
        if cfg.MODEL.EOMT.WINDOWS and cfg.TEST.AUG.ENABLED:
            problem = "the views of TEST.AUG are not evaluated in windows"
            raise ConfigError(problem, where="MODEL.EOMT.WINDOWS", remedy="set TEST.AUG.ENABLED or it to False")
        arguments = super().from_config(cfg)
        blocks, queries = cfg.MODEL.EOMT.NUM_BLOCKS, cfg.MODEL.QUERIES.NUM_QUERIES
        annealing = build_annealing(blocks, cfg.MODEL.EOMT.ANNEALING_STARTS, cfg.MODEL.EOMT.ANNEALING_ENDS)
        backbone = _build_backbone(cfg)
        head = EoMTHead(backbone, blocks=blocks, queries=queries, classes=cfg.MODEL.QUERIES.NUM_CLASSES)
        own = {"backbone": backbone, "head": head, "annealing": annealing, "max_iter": cfg.SOLVER.MAX_ITER}
        own["windows"] = cfg.MODEL.EOMT.WINDOWS
        return {**arguments, **own, "size_divisibility": backbone.size_divisibility}

    def inference(self, batched_inputs: list[dict[str, Any]]) -> list[LazyDict]:
        """See base class."""
        return [*map(self._segment_windows, batched_inputs)] if self.windows else super().inference(batched_inputs)

    def _segment_windows(self, sample: dict[str, Any]) -> LazyDict:
        """The mean of the scores of all windows that show a pixel, resized to the output."""
        image, side = sample["image"], self.backbone.square_size
        windows = find_windows((image.shape[1], image.shape[2]), side)
        predictions = self.predict_images([{"image": image[:, rows, columns]} for rows, columns in windows])
        processor = self._build_post_processor()
        scores = image.new_zeros((len(self.stuff_ids), *image.shape[1:]), dtype=torch.float32, device=self.device)
        counts = scores.new_zeros(scores.shape[1:])
        for (rows, columns), prediction in zip(windows, predictions, strict=True):
            scores[:, rows, columns] += processor.compute_semantic(prediction)
            counts[rows, columns] += 1
        size_hw = int(sample.get("height") or image.shape[1]), int(sample.get("width") or image.shape[2])
        return LazyDict(sem_seg=F.interpolate((scores / counts)[None], size_hw, mode="bilinear")[0])

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """See base class. As in the official code, images are padded with black, and then normalized."""
        images = [sample["image"].to(self.device, non_blocking=True).float() for sample in batched_inputs]
        constraints, side = self.backbone.padding_constraints, self.backbone.square_size
        for image in images if side else ():
            if max(image.shape[1:]) > side:  # which ImageList would cut
                stated = "INPUT.MIN_SIZE_TEST, MIN_SIZE_TRAIN or TEST.AUG.MIN_SIZES 0"
                raise _build_size_error(f"{stated} gives {image.shape[1]} x {image.shape[2]}", side)
        batch = ImageList.from_tensors(images, self.size_divisibility, padding_constraints=constraints)
        batch.tensor = (batch.tensor - self.pixel_mean) / self.pixel_std
        return batch

    def predict(self, images: torch.Tensor) -> list[QueryOutputs]:
        """See base class."""
        probabilities: list[float] = []
        if self.training:
            iteration = get_event_storage().iter if has_event_storage() else 0
            probabilities = self.annealing.compute_probabilities(min(iteration / self.max_iter, 1.0))
        outputs: list[QueryOutputs] = self.head(self.backbone, images, probabilities)
        return outputs


def find_windows(size_hw: tuple[int, int], side: int) -> list[tuple[slice, slice]]:
    """Spread square windows evenly over the longer side of an image, as few as cover it.

    As in the official code, for images whose shorter side is that of a window.

    Args:
        size_hw: of the image in pixels.
        side: of a window in pixels.

    Returns:
        Rows and columns of each window.

    Raises:
        ConfigError: the shorter side exceeds a window.
    """
    shorter, longer = sorted(size_hw)
    if shorter > side:
        problem = f"expected images whose shorter side is at most {side} pixels, got {size_hw[0]} x {size_hw[1]}"
        raise ConfigError(problem, where="MODEL.EOMT.WINDOWS", remedy=f"set INPUT.MIN_SIZE_TEST to {side}")
    count = max(math.ceil(longer / side), 1)
    step = (longer - side) / (count - 1) if count > 1 else 0.0
    spans = [slice(int(number * step), int(number * step) + side) for number in range(count)]
    return [(span, slice(None)) if size_hw[0] > size_hw[1] else (slice(None), span) for span in spans]


def _build_backbone(cfg: CfgNode) -> PlainViT:
    timm, eomt, inputs = cfg.MODEL.TIMM, cfg.MODEL.EOMT, cfg.INPUT
    if cfg.MODEL.BACKBONE.NAME != BUILDER:
        problem = f"{NAME} needs a plain ViT of timm, got {cfg.MODEL.BACKBONE.NAME}"
        remedy = f"set it to {BUILDER}, and MODEL.TIMM.NAME to the ViT"
        raise ConfigError(problem, where="MODEL.BACKBONE.NAME", remedy=remedy)
    if timm.NORM or timm.OUTPUT_STRIDE != 32:
        raise ConfigError(f"a plain ViT has no NORM and no OUTPUT_STRIDE, which {NAME} needs", where="MODEL.TIMM")
    backbone = PlainViT(
        timm.NAME,
        last_blocks=eomt.NUM_BLOCKS,
        queries=cfg.MODEL.QUERIES.NUM_QUERIES,
        channels={GREY: 1, ALL_CHANNELS: len(cfg.MODEL.PIXEL_MEAN)}.get(inputs.FORMAT, 3),
        image_format=inputs.FORMAT,
        patch_size=timm.PATCH_SIZE,
        image_size=timm.IMAGE_SIZE,
        drop_path=timm.DROP_PATH,
        rope_rescale=eomt.ROPE_RESCALE,
    )
    side = backbone.square_size
    limits = {"INPUT.MAX_SIZE_TEST": inputs.MAX_SIZE_TEST, "INPUT.MAX_SIZE_TRAIN": inputs.MAX_SIZE_TRAIN}
    if inputs.LSJ.ENABLED:
        limits.pop("INPUT.MAX_SIZE_TRAIN")
        limits["INPUT.LSJ.SIZE"] = inputs.LSJ.SIZE
    if eomt.WINDOWS:
        limits = {"INPUT.MIN_SIZE_TEST": inputs.MIN_SIZE_TEST, **limits}
        limits.pop("INPUT.MAX_SIZE_TEST")
    if cfg.TEST.AUG.ENABLED:
        limits["TEST.AUG.MAX_SIZE"] = cfg.TEST.AUG.MAX_SIZE
    if side and (too_large := {key: value for key, value in limits.items() if value > side}):
        stated = ", ".join(f"{key} {value}" for key, value in too_large.items())
        raise _build_size_error(f"{stated} allow larger ones", side)
    return backbone


def _build_size_error(problem: str, side: int) -> ConfigError:
    remedy = f"set them to {side}, or MODEL.TIMM.IMAGE_SIZE to the largest, or to 0 for any size"
    return ConfigError(f"{NAME} pads images to {side} x {side} pixels, but {problem}", where=SIZE_KEY, remedy=remedy)
