"""A training of a few steps on toy scenes, with everything that draws random numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase

from segkit.engine.setup import prepare_config
from segkit.engine.training.trainer import Trainer
from tests.helpers.small_queries import RECIPES

CONFIG = "toy/panoptic_rcnn_R18_FPN"
SIZES = """MODEL.FPN.OUT_CHANNELS 16 MODEL.SEM_SEG_HEAD.CONVS_DIM 16 MODEL.ROI_BOX_HEAD.FC_DIM 16
    MODEL.ROI_MASK_HEAD.CONV_DIM 16"""


def build_options(toy_folder: Path, output: Path, **values: Any) -> list[str]:
    """KEY VALUE pairs; "__" in a name of `values` stands for a dot."""
    name = f"training_{toy_folder.parent.name}".replace("-", "_")
    custom = {"name": name, "panoptic_json": f"{toy_folder}/panoptic.json", "panoptic_root": f"{toy_folder}/panoptic"}
    options = {
        "DATASETS.TRAIN": f"('{name}',)",
        "DATASETS.TEST": "()",
        "DATASETS.CUSTOM": str([custom]),
        "DATASETS.CHECK_IMAGES": 2,
        "DATALOADER.NUM_WORKERS": 0,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 6,
        "SOLVER.CHECKPOINT_PERIOD": 3,
        "INPUT.LSJ.ENABLED": True,
        "INPUT.LSJ.SIZE": 64,
        "INPUT.COPY_PASTE.PROBABILITY": 0.5,
        "INPUT.COLOR_JITTER.BRIGHTNESS": 0.2,
        "SEED": 7,
        "OUTPUT_DIR": output,
    }
    options |= {key.replace("__", "."): value for key, value in values.items()}
    return [*SIZES.split(), *(str(word) for pair in options.items() for word in pair)]


def build_config(toy_folder: Path, output: Path, architecture: str = "", **values: Any) -> Any:
    """Of Panoptic R-CNN, or one of `small_queries.RECIPES`."""
    recipe, options = RECIPES.get(architecture, (CONFIG, ""))
    return prepare_config(recipe, [*build_options(toy_folder, output, **values), *options.split()])


def train(cfg: Any, *, resume: bool = False, after_step: Callable[[Trainer], Any] | None = None) -> Trainer:
    """Train; `after_step` is called after each step, before the checkpoint."""
    trainer = Trainer(cfg)
    if after_step is not None:
        trainer._hooks.insert(0, _Callback(after_step))
        trainer._hooks[0].trainer = trainer
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def compare_weights(first: torch.nn.Module, second: torch.nn.Module) -> list[str]:
    """The names of the tensors that differ in a bit."""
    weights = second.state_dict()
    return [name for name, value in first.state_dict().items() if not torch.equal(value, weights[name])]


class _Callback(HookBase):
    def __init__(self, after_step: Callable[[Trainer], Any]) -> None:
        self.function = after_step

    def after_step(self) -> None:
        self.function(self.trainer)
