"""Mean and standard deviation of a network's input, where the config does not give them: timm's or Detectron2's."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.config.defaults import _C as DEFAULTS

from segkit.runtime.images import ALL_CHANNELS, GREY
from segkit.utils.errors import ConfigError
from segkit.utils.text import find_similar

TIMM_BUILDERS = "build_timm_"
BYTE = 255  # timm's constants are for pixels in 0..1
MAX_SIMILAR = 3


def find_timm_config(name: str) -> dict[str, Any]:
    """What timm knows of a network's pretrained weights: mean, std, input_size, first_conv, classifier, ...

    Args:
        name: of a timm network, with or without the tag of its weights: `convnext_tiny.fb_in22k`.

    Returns:
        timm's pretrained_cfg; mean and std are RGB, for pixels in 0..1.

    Raises:
        ConfigError: timm does not know the name; the message has the nearest ones.
    """
    import timm
    from timm.models import get_pretrained_cfg, is_model, split_model_name_tag

    architecture, tag = split_model_name_tag(name)
    if is_model(architecture):
        if not tag or name in timm.list_pretrained(f"{architecture}.*"):
            known = get_pretrained_cfg(name)
            return known.to_dict() if known else {}
        names = timm.list_pretrained(f"{architecture}.*")
        problem = f"timm's {architecture} has no weights with the tag {tag!r}"
        raise ConfigError(problem, where="MODEL.TIMM.NAME", remedy=f"choose one of {', '.join(names) or architecture}")
    similar = find_similar(architecture, timm.list_models(), MAX_SIMILAR)
    remedy = f"did you mean {' or '.join(similar)}? " if similar else ""
    remedy += "timm.list_models('*convnext*') lists the names that fit a pattern"
    raise ConfigError(f"timm {timm.__version__} knows no network {name!r}", where="MODEL.TIMM.NAME", remedy=remedy)


def compute_normalization(cfg: CfgNode) -> tuple[list[float], list[float]]:
    """The constants that the pretrained weights of the config's backbone expect.

    Args:
        cfg: a config with segkit's keys.

    Returns:
        (mean, standard deviation) for pixels in 0..255, in the order of INPUT.FORMAT; for "L" one number each, the mean
        of the three.

    Raises:
        ConfigError: timm does not know MODEL.TIMM.NAME.
    """
    if cfg.MODEL.BACKBONE.NAME.startswith(TIMM_BUILDERS):
        known = find_timm_config(cfg.MODEL.TIMM.NAME)
        step = -1 if cfg.INPUT.FORMAT == "BGR" else 1
        mean, std = ([round(BYTE * value, 3) for value in known[key]][::step] for key in ("mean", "std"))
    else:
        mean, std = [*DEFAULTS.MODEL.PIXEL_MEAN], [*DEFAULTS.MODEL.PIXEL_STD]
    if cfg.INPUT.FORMAT == GREY:
        return [round(sum(mean) / len(mean), 3)], [round(sum(std) / len(std), 3)]
    return mean, std


def complete_normalization(cfg: CfgNode) -> None:
    """Set MODEL.PIXEL_MEAN and PIXEL_STD, in place, if they are empty lists.

    With INPUT.FORMAT "CHANNELS" they stay empty: the training computes them from its images.

    Args:
        cfg: a config with segkit's keys.

    Raises:
        ConfigError: see `compute_normalization`.
    """
    if (cfg.MODEL.PIXEL_MEAN and cfg.MODEL.PIXEL_STD) or cfg.INPUT.FORMAT == ALL_CHANNELS:
        return
    mean, std = compute_normalization(cfg)
    given = len(cfg.MODEL.PIXEL_MEAN) or len(cfg.MODEL.PIXEL_STD)
    if given and len(mean) == 1:  # a grey image is repeated for every constant
        mean, std = mean * given, std * given
    cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_MEAN or mean
    cfg.MODEL.PIXEL_STD = cfg.MODEL.PIXEL_STD or std
