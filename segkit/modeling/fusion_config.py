"""The fusion method that a config asks for."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from detectron2.config import CfgNode

from segkit.fusion import FUSION_METHODS, FusionMethod, build_fusion
from segkit.fusion.class_keys import resolve_class_keys
from segkit.utils.errors import ConfigError


def build_fusion_from_config(cfg: CfgNode) -> FusionMethod:
    """Build the method MODEL.PANOPTIC.FUSION.NAME.

    Its OPTIONS come before the defaults in MODEL.PANOPTIC_FPN.COMBINE. Classes in options are names or thing contiguous
    ids.

    Args:
        cfg: Complete config.

    Returns:
        The fusion method.

    Raises:
        ConfigError: The method, an option or a class is unknown, or a value is invalid.
    """
    node = cfg.MODEL.PANOPTIC.FUSION
    combine = cfg.MODEL.PANOPTIC_FPN.COMBINE
    defaults = {
        "overlap_threshold": combine.OVERLAP_THRESH,
        "stuff_area_limit_px": combine.STUFF_AREA_LIMIT,
        "instance_score_threshold": combine.INSTANCES_CONFIDENCE_THRESH,
    }
    method = FUSION_METHODS.get(node.NAME)
    names = {field.name for field in fields(method)} & {*method.combine_options} if method else set()  # type: ignore[arg-type]
    set_options = {name: value for name, value in _to_dict(node.OPTIONS).items() if value is not None}
    try:
        options = resolve_class_keys(set_options, dict(enumerate(cfg.MODEL.PANOPTIC.THING_NAMES)))
        fusion = build_fusion(node.NAME, **{name: defaults[name] for name in names} | options)
        fusion.check_thing_names(cfg.MODEL.PANOPTIC.THING_NAMES)
        return fusion
    except ConfigError as error:
        raise ConfigError(str(error), where="MODEL.PANOPTIC.FUSION") from None


def _to_dict(node: Any) -> Any:
    return {key: _to_dict(value) for key, value in node.items()} if isinstance(node, dict) else node
