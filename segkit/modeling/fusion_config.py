"""The fusion method that a config asks for."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from detectron2.config import CfgNode

from segkit.fusion import FUSION_METHODS, FusionMethod, build_fusion
from segkit.fusion.class_keys import resolve_class_keys
from segkit.structures.architecture_spec import QUERIES, get_architecture_spec
from segkit.utils.errors import ConfigError


def build_fusion_from_config(cfg: CfgNode) -> FusionMethod:
    """Build the method MODEL.PANOPTIC.FUSION.NAME, or the method of the architecture.

    Its OPTIONS come before the defaults in other keys: those of MODEL.PANOPTIC_DEEPLAB for architectures with centers,
    of MODEL.QUERIES.TEST for mask transformers, of MODEL.PANOPTIC_FPN.COMBINE for others. Classes in options are names
    or thing contiguous ids.

    Args:
        cfg: Complete config.

    Returns:
        The fusion method.

    Raises:
        ConfigError: The method, an option or a class is unknown, or a value is invalid.
    """
    node, spec = cfg.MODEL.PANOPTIC.FUSION, get_architecture_spec(cfg.MODEL.META_ARCHITECTURE)
    fusion_name = spec.fusion if node.NAME == "auto" else node.NAME
    method = FUSION_METHODS.get(fusion_name)
    if "centers" in spec.targets:
        deeplab = cfg.MODEL.PANOPTIC_DEEPLAB
        defaults = {
            "center_threshold": deeplab.CENTER_THRESHOLD,
            "nms_kernel": deeplab.NMS_KERNEL,
            "top_k": deeplab.TOP_K_INSTANCE,
            "stuff_area_limit_px": deeplab.STUFF_AREA,
        }
        option_names = {*defaults}
    elif {*QUERIES} <= {*spec.class_counts}:
        test = cfg.MODEL.QUERIES.TEST
        defaults = {"object_mask_threshold": test.OBJECT_THRESHOLD, "overlap_threshold": test.OVERLAP_THRESHOLD}
        option_names = {*defaults} if fusion_name == spec.fusion else set()
    else:
        combine = cfg.MODEL.PANOPTIC_FPN.COMBINE
        defaults = {
            "overlap_threshold": combine.OVERLAP_THRESH,
            "stuff_area_limit_px": combine.STUFF_AREA_LIMIT,
            "instance_score_threshold": combine.INSTANCES_CONFIDENCE_THRESH,
        }
        option_names = {*method.combine_options} if method else set()
    names = {field.name for field in fields(method)} & option_names if method else set()  # type: ignore[arg-type]
    set_options = {name: value for name, value in _to_dict(node.OPTIONS).items() if value is not None}
    try:
        options = resolve_class_keys(set_options, dict(enumerate(cfg.MODEL.PANOPTIC.THING_NAMES)))
        fusion = build_fusion(fusion_name, **{name: defaults[name] for name in names} | options)
        fusion.check_thing_names(cfg.MODEL.PANOPTIC.THING_NAMES)
        return fusion
    except ConfigError as error:
        raise ConfigError(str(error), where="MODEL.PANOPTIC.FUSION") from None


def _to_dict(node: Any) -> Any:
    return {key: _to_dict(value) for key, value in node.items()} if isinstance(node, dict) else node
