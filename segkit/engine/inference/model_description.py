"""What the results of a model depend on, from its config: see `segkit.runtime.run_description`."""

from __future__ import annotations

import hashlib
from typing import Any

from detectron2.config import CfgNode

from segkit.runtime.run_description import describe_weights


def describe_model(cfg: CfgNode, precision: str) -> dict[str, Any]:
    """Describe a model without building it.

    Args:
        cfg: config of `read_config`, with MODEL.WEIGHTS. The device does not count.
        precision: see `SegmentationModel`.

    Returns:
        A dict that JSON can hold, with checksums of the file of the weights and of the config.
    """
    cfg, weights = cfg.clone(), cfg.MODEL.WEIGHTS
    cfg.defrost()
    cfg.MODEL.DEVICE = cfg.MODEL.WEIGHTS = ""
    config = hashlib.sha256(cfg.dump().encode()).hexdigest()
    return {**describe_weights(weights), "config": config, "precision": precision}
