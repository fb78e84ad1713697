"""What mask transformers do alike: normalize, predict, compute losses or outputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import ImageList
from torch import nn

from segkit.config import check_class_counts, with_segkit_keys
from segkit.fusion import FusionMethod, build_fusion
from segkit.fusion.mask_argmax import MaskArgmaxFusion
from segkit.modeling.fusion_config import build_fusion_from_config
from segkit.modeling.lazy_dict import LazyDict, LazyValue
from segkit.modeling.postprocessing.map_outputs import detectron2_segments_info, to_instances
from segkit.modeling.postprocessing.panoptic_tensors import to_segments
from segkit.modeling.postprocessing.queries import QueryPostProcessor
from segkit.modeling.postprocessing.query_masks import QueryImage
from segkit.modeling.postprocessing.query_views import merge_queries
from segkit.modeling.postprocessing.resampling import Sizes
from segkit.modeling.postprocessing.view_merging import ViewOutputs
from segkit.modeling.queries.criterion import QueryCriterion
from segkit.modeling.queries.outputs import QueryOutputs
from segkit.modeling.queries.targets import QueryTargetBuilder, TargetKind
from segkit.structures import NO_THING, THING_CHANNEL, HeadOutputs, Segment
from segkit.structures.architecture_spec import PANOPTIC, QUERIES, ArchitectureSpec, register_architecture
from segkit.utils.errors import ConfigError

FUSION = "mask_argmax"


def register_query_architecture(name: str) -> None:
    """Add the spec of a mask transformer to the registry.

    Args:
        name: the value of MODEL.META_ARCHITECTURE.
    """
    register_architecture(
        ArchitectureSpec(
            name,
            targets=("instances", "semantic"),
            outputs=(*PANOPTIC, "head_outputs"),
            class_counts=QUERIES,
            postprocessing="fusion",
            needs_targets=False,
            fusion=FUSION,
            thing_channels="per_class",
        )
    )


class QuerySegmentor(nn.Module):
    """A mask transformer without its network: a subclass has the network, and `predict` runs it.

    Args:
        criterion: (outputs, targets) -> losses.
        pixel_mean: numbers that are subtracted from the channels of the image.
        pixel_std: numbers by which they are then divided.
        stuff_ids: of each of the K classes the stuff contiguous id, 0 for things.
        thing_ids: of each of the K classes the thing contiguous id, -1 for stuff.
        fusion: HeadOutputs -> PanopticSegmentation; None: mask_argmax, which runs on the model's device.
        targets: what queries are trained on, see `QueryTargetBuilder`.
        most_instances: pairs of a query and a class that become instances.
        size_divisibility: height and width are padded to multiples of it, in pixels.
        outputs: which of "panoptic_seg", "instances" and "sem_seg" the outputs hold.

    Attributes:
        rounding: Applied to the head outputs before the fusion, which then runs on the CPU; None: no rounding.
        with_logits: Whether head outputs are asked for semantic logits; queries have none.
    """

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(
        self,
        *,
        criterion: QueryCriterion,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        stuff_ids: Sequence[int],
        thing_ids: Sequence[int],
        fusion: FusionMethod | None = None,
        targets: TargetKind = "auto",
        most_instances: int = 100,
        size_divisibility: int = 32,
        outputs: Collection[str] = PANOPTIC,
    ) -> None:
        super().__init__()
        self.criterion, self.fusion = criterion, fusion or build_fusion(FUSION)
        self.stuff_ids, self.thing_ids, self.most_instances = [*stuff_ids], [*thing_ids], most_instances
        self.build_targets = QueryTargetBuilder(stuff_ids, thing_ids, targets)
        self.size_divisibility, self.outputs = size_divisibility, outputs
        self.rounding: Callable[[HeadOutputs], HeadOutputs] | None = None
        self.with_logits = False
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor([*values]).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments of the constructor from a config.

        Args:
            cfg: any config of Detectron2; segkit's keys may be missing.

        Returns:
            The arguments by name. Without MODEL.PANOPTIC.STUFF_IDS, which a dataset sets, all classes are things.

        Raises:
            ConfigError: a class count is open or does not fit, or an option of the fusion is invalid.
        """
        cfg = with_segkit_keys(cfg)
        check_class_counts(cfg)
        queries, panoptic = cfg.MODEL.QUERIES, cfg.MODEL.PANOPTIC
        classes = queries.NUM_CLASSES
        if panoptic.STUFF_IDS and len(panoptic.STUFF_IDS) != classes:
            problem = f"MODEL.QUERIES.NUM_CLASSES is {classes}, but the dataset has {len(panoptic.STUFF_IDS)} classes"
            raise ConfigError(problem, remedy="leave it out of the config file, to take it from the dataset")
        keys = ("PANOPTIC_ON", "INSTANCE_ON", "SEMANTIC_ON")
        names = ("panoptic_seg", "instances", "sem_seg")
        return {
            "criterion": QueryCriterion(cfg),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "stuff_ids": panoptic.STUFF_IDS or [THING_CHANNEL] * classes,
            "thing_ids": panoptic.THING_IDS or [*range(classes)],
            "fusion": build_fusion_from_config(cfg),
            "targets": queries.TARGETS,
            "most_instances": cfg.TEST.DETECTIONS_PER_IMAGE,
            "outputs": [name for name, key in zip(names, keys, strict=True) if queries.TEST[key]],
        }

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.pixel_mean.device

    @abstractmethod
    def predict(self, images: torch.Tensor) -> list[QueryOutputs]:
        """Run the network.

        Args:
            images: (N, C, H, W) float, normalized and padded.

        Returns:
            The outputs of the decoder layers, from the first to the last; not in training of the last one alone. The
            side of a mask divides the padded side of the image.
        """

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Compute losses in training, otherwise outputs.

        Args:
            batched_inputs: Per image "image" (C, H, W) tensor in [0, 255] in cfg.INPUT.FORMAT; "height" and "width" of
                the output; in training also what `QueryTargetBuilder` needs.

        Returns:
            A dict of scalar losses in training, otherwise `inference(batched_inputs)`.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs).tensor
        self._check_batch(images)
        targets = self.build_targets(batched_inputs, (images.shape[2], images.shape[3]), self.device)
        return self.criterion(self.predict(images), targets)

    def _check_batch(self, images: torch.Tensor) -> None:
        """BatchNorm has no variance of one pixel, which is all that the last level has of one small image."""
        side = self.size_divisibility
        if len(images) > 1 or images.shape[2:] != (side, side):
            return
        if any(isinstance(module, nn.BatchNorm2d) and module.training for module in self.modules()):
            problem = (
                f"BatchNorm needs more than one image of up to {side} x {side} pixels in a step of a process, got one"
            )
            remedy = 'raise it, or the size of images, or train with a norm "FrozenBN" or "GN"'
            raise ConfigError(problem, where="SOLVER.IMS_PER_BATCH", remedy=remedy)

    def inference(self, batched_inputs: list[dict[str, Any]]) -> list[LazyDict]:
        """Run the network and the post-processing.

        Args:
            batched_inputs: As for `forward`.

        Returns:
            Per image a LazyDict: "panoptic_seg" (ids (H, W) int32, Detectron2's segments_info with contiguous
            category_id), "instances" (Detectron2's Instances with pred_masks (N, H, W) bool), "instance_masks" (the
            same as InstanceMasks), "sem_seg" (K, H, W) scores, each if the model gives it, and "head_outputs" (input
            of the fusion). Only "panoptic_seg" is computed at once.
        """
        images = self.predict_images(batched_inputs)
        return self._build_outputs(images, [[image] for image in images])

    def compute_heads(self, batched_inputs: list[dict[str, Any]]) -> list[ViewOutputs]:
        """Run the network alone, see `segkit.engine.test_time_augmentation`.

        Args:
            batched_inputs: As for `forward`.

        Returns:
            The queries of each image.
        """
        return [ViewOutputs(queries=(image,)) for image in self.predict_images(batched_inputs)]

    def fuse_heads(self, outputs: ViewOutputs) -> LazyDict:
        """Run the post-processing alone.

        Args:
            outputs: Of `compute_heads`, for one or more views of one image.

        Returns:
            As an image of `inference`: segments and instances of the merged queries, see `merge_queries`, and the mean
            of the semantic scores of the views.
        """
        (output,) = self._build_outputs([merge_queries(outputs.queries)], [outputs.queries])
        return output

    def predict_images(self, batched_inputs: list[dict[str, Any]]) -> list[QueryImage]:
        """Run the network alone.

        Args:
            batched_inputs: As for `forward`.

        Returns:
            The predictions for each image.
        """
        images = self.preprocess_image(batched_inputs)
        outputs = self.predict(images.tensor)[-1]
        scale = images.tensor.shape[2] // outputs.mask_logits.shape[2]
        predictions = []
        for row, (size, sample) in enumerate(zip(images.image_sizes, batched_inputs, strict=True)):
            size_hw = int(sample.get("height") or size[0]), int(sample.get("width") or size[1])
            sizes = Sizes((int(size[0]), int(size[1])), size_hw, scale)
            predictions.append(QueryImage(outputs.class_logits[row].detach(), outputs.mask_logits[row].detach(), sizes))
        return predictions

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalize and pad images. Padding is 0.

        Args:
            batched_inputs: As for `forward`.

        Returns:
            The images, on the model's device.
        """
        images = [sample["image"].to(self.device, non_blocking=True) for sample in batched_inputs]
        images = [(image - self.pixel_mean) / self.pixel_std for image in images]
        return ImageList.from_tensors(images, self.size_divisibility)

    def _fuses_on_device(self) -> bool:
        """Whether the panoptic rules run where the predictions are; other devices may lack float64."""
        is_known = type(self.fusion) is MaskArgmaxFusion and self.rounding is None
        return is_known and self.device.type in ("cpu", "cuda")

    def _build_post_processor(self) -> QueryPostProcessor:
        fusion = self.fusion if isinstance(self.fusion, MaskArgmaxFusion) else MaskArgmaxFusion()
        return QueryPostProcessor(fusion, self.stuff_ids, self.thing_ids, self.most_instances)

    def _build_outputs(self, images: Sequence[QueryImage], views: Sequence[Sequence[QueryImage]]) -> list[LazyDict]:
        """The outputs of images; semantic scores are those of their views."""
        processor = self._build_post_processor()
        maps: Sequence[tuple[torch.Tensor, Sequence[Segment]] | None] = [None] * len(images)
        if "panoptic_seg" in self.outputs and images and self._fuses_on_device():
            fused = processor.fuse(images)
            maps = [(image.ids, segments) for image, segments in zip(fused, to_segments(fused), strict=True)]
        return [self._build_output(processor, *image) for image in zip(images, views, maps, strict=True)]

    def _build_output(
        self,
        processor: QueryPostProcessor,
        image: QueryImage,
        views: Sequence[QueryImage],
        fused: tuple[torch.Tensor, Sequence[Segment]] | None,
    ) -> LazyDict:
        @cache
        def build_head_outputs() -> HeadOutputs:
            outputs = processor.build_head_outputs(image, views)
            return outputs if self.rounding is None else self.rounding(outputs)

        masks = cache(lambda: processor.find_instances(image))
        values: dict[str, Any] = {"head_outputs": LazyValue(build_head_outputs)}
        if "panoptic_seg" in self.outputs:
            if fused is None:
                panoptic = self.fusion(build_head_outputs())
                fused = torch.from_numpy(panoptic.segment_ids).to(self.device), panoptic.segments
            values["panoptic_seg"] = (fused[0], detectron2_segments_info(fused[1]))
        if "instances" in self.outputs and any(thing != NO_THING for thing in self.thing_ids):
            values["instances"] = LazyValue(lambda: to_instances(masks(), self.device))
            values["instance_masks"] = LazyValue(masks)
        if "sem_seg" in self.outputs:
            values["sem_seg"] = LazyValue(lambda: processor.compute_semantic(*views))
        return LazyDict(**values)
