"""Small models with chosen numbers of objects, as `segkit.engine.export` takes them, and their ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.modeling import build_model

from segkit.engine.export.graph import Graph
from segkit.engine.export.onnx_file import export_onnx
from segkit.modeling import register_models
from segkit.runtime.onnx_graph import OnnxGraph
from segkit.structures import CategorySet
from tests.helpers.small_models import SEMANTIC, THINGS, small_config

CATEGORIES = CategorySet.from_coco(
    [
        {"id": number, "name": f"class {number}", "isthing": int(number <= THINGS)}
        for number in range(1, THINGS + SEMANTIC)
    ],
    "categories",
)


class Source:
    """A model with random weights in the place of a loaded one."""

    def __init__(self, cfg: Any, categories: CategorySet = CATEGORIES, thing_channels: str = "one") -> None:
        register_models()
        torch.manual_seed(3)
        cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS = thing_channels
        self.cfg, self.categories, self.model = cfg, categories, build_model(cfg).eval()
        self.space = categories.build_semantic_space(cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS)
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                if any(part in name for part in ("cls_score.weight", "bbox_pred", "mask_head.predictor")):
                    scale = 0.3 if "mask_head" in name else 0.006 if "bbox_pred" in name else 0.02  # boxes keep an area
                    weight.add_(torch.randn_like(weight) * scale)
                if "cls_score.weight" in name:
                    weight.mul_(0.1)  # scores differ: equal ones may come in any order
                if name.startswith(("sem_seg_head.predictor.weight", "sem_seg_head.predictor.bias")):
                    weight.add_(torch.randn_like(weight))


def detector_config(arch: str, **values: Any) -> Any:
    """Few proposals and no normalization, because the time of an export grows with the number of operators."""
    few = {"MODEL__RESNETS__NORM": "", "MODEL__FPN__NORM": "", "MODEL__SEM_SEG_HEAD__NORM": ""}
    few |= {"MODEL__RPN__PRE_NMS_TOPK_TEST": 100, "MODEL__RPN__POST_NMS_TOPK_TEST": 200}
    return small_config(arch, **few, **values)


def export(source: Source, path: Path, **options: Any) -> tuple[Graph, OnnxGraph]:
    """Export a model and load the file."""
    return export_onnx(source, path, **options), OnnxGraph(path, threads=1)


def run_eagerly(graph: Graph) -> Any:
    """A graph in torch, as `check_graph` runs files."""

    @torch.no_grad()
    def run(images: np.ndarray, size_hw: tuple[int, int]) -> dict[str, np.ndarray]:
        results = graph(torch.from_numpy(images), torch.zeros(size_hw))
        return {name: value.numpy() for name, value in zip(graph.output_names, results, strict=True)}

    return run


def build_images(count: int, size_hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    """(B, 3, h, w) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3, *size_hw), dtype=np.uint8)


def unet_config(**values: Any) -> Any:
    """A semantic network of a few operators."""
    tiny = {"MODEL__BACKBONE__NAME": "build_unet_backbone", "MODEL__UNET__CHANNELS": 4, "MODEL__UNET__DEPTH": 1}
    tiny |= {"MODEL__SEM_SEG_HEAD__NAME": "UNetHead", "MODEL__SEM_SEG_HEAD__IN_FEATURES": ["enc1", "enc2"]}
    tiny |= {"MODEL__SEM_SEG_HEAD__COMMON_STRIDE": 1, "MODEL__SEM_SEG_HEAD__NORM": ""}
    return small_config("SemanticSegmentor", **tiny, **values)


def save_source(source: Source, folder: Path) -> Path:
    """Write the model as the folder of a run, which commands take."""
    entry = {"categories": source.categories.to_coco(), "thing_channels": source.cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS}
    folder.mkdir()
    torch.save({"model": source.model.state_dict(), "segkit": entry}, folder / "model_best.pth")
    (folder / "config.yaml").write_text(source.cfg.dump())
    return folder
