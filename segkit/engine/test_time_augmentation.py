"""Test-time augmentation: a model sees several views of an image (scaled, flipped), which are merged before the fusion.

The config keys are Detectron2's: TEST.AUG.MIN_SIZES, MAX_SIZE and FLIP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN, PanopticFPN, SemanticSegmentor
from torch import nn

from segkit.data.augmentations.resize import SafeResize
from segkit.modeling.postprocessing.head_outputs import scale_instances
from segkit.modeling.postprocessing.map_outputs import to_instances
from segkit.modeling.postprocessing.view_merging import ViewOutputs, merge_views
from segkit.utils.errors import ConfigError

ENABLED = "TEST.AUG.ENABLED"


class TestTimeAugmentation(nn.Module):
    """A model whose outputs are merged from several views, see `merge_views`; inputs and outputs are the model's own.

    The views are the image scaled to each of TEST.AUG.MIN_SIZES (shorter side in pixels; 0: as it is), the longer side
    at most MAX_SIZE, and with FLIP also mirrored. They run one after the other. An only view runs as without
    augmentation.

    Args:
        cfg: Config with the keys of the model.
        model: In evaluation mode. It has `compute_heads` and `fuse_heads`, as PanopticRCNN does, or it is a
            GeneralizedRCNN with masks, or a SemanticSegmentor.

    Attributes:
        module: The model.

    Raises:
        ConfigError: The outputs of the model's heads are not known, or MIN_SIZES or MAX_SIZE are out of range.
    """

    __test__ = False  # no test of pytest

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        super().__init__()
        self.module = getattr(model, "module", model)
        self._compute, self._fuse = _choose_heads(cfg, self.module)
        self._max_instances = cfg.TEST.DETECTIONS_PER_IMAGE
        options = cfg.TEST.AUG
        flips = (False, True) if options.FLIP else (False,)
        _check_sizes(options)
        self._views = [(SafeResize([size] * 2, options.MAX_SIZE), flip) for size in options.MIN_SIZES for flip in flips]
        self.eval()

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[Any]:
        """Predict images.

        Args:
            batched_inputs: Detectron2's: "image" (C, H, W), at best as large as the file, "height", "width".

        Returns:
            The model's output of each.
        """
        outputs = []
        for sample in batched_inputs:
            if len(self._views) == 1:
                outputs += self.module([_build_view(sample, *self._views[0])])
            else:
                outputs.append(self._fuse(merge_views(self._run_views(sample), self._max_instances)))
        return outputs

    def _run_views(self, sample: dict[str, Any]) -> Iterator[ViewOutputs]:
        for resize, flip in self._views:
            (view,) = self._compute([_build_view(sample, resize, flip)])
            yield view.flip() if flip else view


def augment_for_test(cfg: CfgNode, model: nn.Module) -> tuple[CfgNode, nn.Module]:
    """Apply TEST.AUG to a config and its model.

    Args:
        cfg: Config of the model.
        model: In evaluation mode.

    Returns:
        The same if TEST.AUG.ENABLED is False; otherwise a config whose loaders do not resize images, and the model in
        `TestTimeAugmentation`.

    Raises:
        ConfigError: See `TestTimeAugmentation`.
    """
    if not cfg.TEST.AUG.ENABLED:
        return cfg, model
    cfg = cfg.clone()
    cfg.defrost()
    augmented = TestTimeAugmentation(cfg, model)
    cfg.INPUT.MIN_SIZE_TEST = 0
    return cfg, augmented


def _build_view(sample: dict[str, Any], resize: SafeResize, flip: bool) -> dict[str, Any]:
    image = sample["image"]
    height, width = (sample.get(key) or side for key, side in zip(("height", "width"), image.shape[1:], strict=True))
    pixels = image.numpy().transpose(1, 2, 0)
    resized = resize.get_transform(pixels).apply_image(pixels)
    view = np.ascontiguousarray((resized[:, ::-1] if flip else resized).transpose(2, 0, 1))
    return {**sample, "image": torch.from_numpy(view), "height": height, "width": width}


def _choose_heads(
    cfg: CfgNode, model: Any
) -> tuple[Callable[[list[dict[str, Any]]], list[ViewOutputs]], Callable[[ViewOutputs], Any]]:
    """Two functions, as PanopticRCNN's `compute_heads` and `fuse_heads`."""
    if hasattr(model, "compute_heads"):
        return model.compute_heads, model.fuse_heads
    if isinstance(model, SemanticSegmentor):
        return (lambda inputs: [ViewOutputs(logits=output["sem_seg"]) for output in model(inputs)]), _get_semantics
    if isinstance(model, GeneralizedRCNN) and not isinstance(model, PanopticFPN) and cfg.MODEL.MASK_ON:
        return (lambda inputs: _detect(model, inputs)), (lambda outputs: _get_instances(outputs, model.device))
    name, remedy = cfg.MODEL.META_ARCHITECTURE, f"set {ENABLED} False"
    if isinstance(model, PanopticFPN):
        remedy += ", or MODEL.META_ARCHITECTURE PanopticRCNN, which takes the same weights"
    raise ConfigError(
        f"{name} does not give the outputs of its heads, which views are merged from", where=ENABLED, remedy=remedy
    )


def _detect(model: GeneralizedRCNN, inputs: list[dict[str, Any]]) -> list[ViewOutputs]:
    detected = model.inference(inputs, do_postprocess=False)
    sizes = [(sample["height"], sample["width"]) for sample in inputs]
    return [ViewOutputs(scale_instances(each, size).masks) for each, size in zip(detected, sizes, strict=True)]


def _get_instances(outputs: ViewOutputs, device: torch.device) -> dict[str, Any]:
    masks = outputs.instances
    if masks is None:
        raise ValueError("instances are needed, but there is no mask head")
    return {"instances": to_instances(masks, device), "instance_masks": masks}


def _get_semantics(outputs: ViewOutputs) -> dict[str, Any]:
    return {"sem_seg": outputs.logits}


def _check_sizes(options: CfgNode) -> None:
    if not options.MIN_SIZES or any(not isinstance(size, int) or size < 0 for size in options.MIN_SIZES):
        problem = f"expected whole numbers from 0, got {options.MIN_SIZES}"
        raise ConfigError(
            problem, where="TEST.AUG.MIN_SIZES", remedy="give shorter sides in pixels, such as (640, 800)"
        )
    if options.MAX_SIZE < 1:
        raise ConfigError(f"expected a number from 1, got {options.MAX_SIZE}", where="TEST.AUG.MAX_SIZE")
