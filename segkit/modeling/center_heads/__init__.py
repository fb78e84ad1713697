"""Panoptic-DeepLab's heads, which are Detectron2's; importing this package registers them with Detectron2.

detectron2/projects/panoptic_deeplab/panoptic_seg.py: PanopticDeepLabSemSegHead (semantic logits), and
PanopticDeepLabInsEmbedHead (centers and offsets).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from segkit.structures import rgb_to_ids


def _import_project() -> Any:
    """Import Detectron2's project; for one function of its mapper it imports panopticapi, which need not be there."""
    project = "detectron2.projects.panoptic_deeplab"
    if importlib.util.find_spec("panopticapi") is not None:
        return importlib.import_module(project)
    stand_ins = {name: ModuleType(name) for name in ("panopticapi", "panopticapi.utils")}
    stand_ins["panopticapi.utils"].rgb2id = rgb_to_ids  # type: ignore[attr-defined]
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module(project)
    finally:
        for name in stand_ins:
            del sys.modules[name]


PROJECT = _import_project()
PanopticDeepLabSemSegHead = PROJECT.PanopticDeepLabSemSegHead
PanopticDeepLabInsEmbedHead = PROJECT.PanopticDeepLabInsEmbedHead
build_center_head = PROJECT.build_ins_embed_branch

__all__ = ["PanopticDeepLabInsEmbedHead", "PanopticDeepLabSemSegHead", "build_center_head"]
