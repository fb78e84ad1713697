"""What the results of `segkit predict` depend on: a run goes on in a folder only if all of it is equal."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import Any

from detectron2.config import CfgNode

BLOCK_BYTES = 1 << 20


def describe_run(cfg: CfgNode, precision: str, names: Iterable[str], **options: Any) -> dict[str, Any]:
    """Describe a run without its model.

    Args:
        cfg: config of `read_config`, with MODEL.WEIGHTS. The device does not count.
        precision: see `SegmentationModel`.
        names: what names the images, in their order.
        options: further values that JSON can hold; those that are None are left out.

    Returns:
        A dict that JSON can hold, with checksums of the file of the weights, of the config and of the names.
    """
    cfg, weights = cfg.clone(), cfg.MODEL.WEIGHTS
    cfg.defrost()
    cfg.MODEL.DEVICE = cfg.MODEL.WEIGHTS = ""
    return {
        "weights": _compute_checksum(weights) if os.path.isfile(weights) else weights,
        "config": hashlib.sha256(cfg.dump().encode()).hexdigest(),
        "precision": precision,
        "images": hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest(),
        **{name: option for name, option in options.items() if option is not None},
    }


def _compute_checksum(path: str) -> str:
    checksum = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            checksum.update(block)
    return checksum.hexdigest()
