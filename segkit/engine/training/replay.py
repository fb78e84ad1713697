"""A step that failed, as a file: the images, the weights and the seed, to run it again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

from segkit.engine.checkpoints.safe_load import load_torch
from segkit.engine.setup import prepare_config
from segkit.engine.training.divergence import guard_divergence
from segkit.engine.training.model_options import prepare_model
from segkit.engine.training.seeds import STEP, seed_generators
from segkit.engine.training.step import select_dtype
from segkit.utils.config_files import RUN_CONFIG
from segkit.utils.errors import CheckpointError

FOLDER = "faults"  # of OUTPUT_DIR


class Replay(NamedTuple):
    """A step that was saved.

    Attributes:
        iteration: its number.
        rank: of the process.
        seed: of the run.
        parts: inputs of the forward passes.
        model: state dict of the model.
    """

    iteration: int
    rank: int
    seed: int
    parts: list[list[dict[str, Any]]]
    model: dict[str, torch.Tensor]


def load_replay(path: str | Path) -> Replay:
    """Read a step that a `FaultGuard` has saved.

    Args:
        path: the file.

    Returns:
        The step.

    Raises:
        CheckpointError: the file is missing, damaged, or another one.
    """
    state = load_torch(path)
    try:
        parts = [[_decode(sample) for sample in part] for part in state["parts"]]
        return Replay(int(state["iteration"]), int(state["rank"]), int(state["seed"]), parts, state["model"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        remedy = f"give a file of the folder {FOLDER} of a run"
        raise CheckpointError("expected a step that a training has saved", where=path, remedy=remedy) from error


def replay_step(path: str | Path, config_file: str = "", opts: Sequence[str] = ()) -> list[dict[str, float]]:
    """Run a saved step again: forward and backward, without an update.

    Args:
        path: the file.
        config_file: config of the run; "": the config.yaml of the run whose folder the file is in.
        opts: KEY VALUE pairs.

    Returns:
        Of each forward pass the losses by name, and "gradient_norm".

    Raises:
        CheckpointError: see `load_replay`, or the weights do not fit the config's model.
    """
    step = load_replay(path)
    config_file = config_file or str(Path(path).resolve().parent.parent / RUN_CONFIG)
    cfg = prepare_config(config_file, opts, check=False)
    model = build_model(cfg)
    prepare_model(cfg, model)  # frozen BatchNorm changes the losses
    guard_divergence(model)
    try:
        model.load_state_dict(step.model)
    except (RuntimeError, TypeError) as error:
        problem = "the step's weights do not fit the model of the config"
        raise CheckpointError(problem, where=path, remedy=f"give the run's config: {config_file} was read") from error
    model.train()
    device = next(model.parameters()).device
    dtype = select_dtype(cfg, device)
    seed_generators(step.seed, STEP, step.iteration, step.rank)
    results = []
    for part in step.parts:
        model.zero_grad()
        with EventStorage(step.iteration), torch.autocast(device.type, dtype, enabled=dtype is not None):
            losses = model(part)
        torch.stack([*losses.values()]).sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = math.hypot(*(gradient.norm().item() for gradient in gradients))
        results.append({**{name: loss.item() for name, loss in losses.items()}, "gradient_norm": norm})
    return results


def encode_sample(value: Any) -> Any:
    """Turn Detectron2's structures into dicts and tensors, which can be read without running code.

    Args:
        value: a sample, or a value of it.

    Returns:
        What `load_replay` turns back.
    """
    if isinstance(value, Instances):
        fields = {name: encode_sample(field) for name, field in value.get_fields().items()}
        return {"type": "Instances", "size": list(value.image_size), "fields": fields}
    if isinstance(value, (Boxes, BitMasks)):
        return {"type": "Boxes" if isinstance(value, Boxes) else "BitMasks", "tensor": value.tensor}
    if isinstance(value, PolygonMasks):
        return {"type": "PolygonMasks", "polygons": [[torch.as_tensor(p) for p in each] for each in value.polygons]}
    if isinstance(value, Mapping):
        return {str(key): encode_sample(each) for key, each in value.items() if not callable(each)}
    return value


def _decode(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kind = value.get("type")
    if kind == "Instances":
        return Instances(tuple(value["size"]), **{name: _decode(field) for name, field in value["fields"].items()})
    if kind in ("Boxes", "BitMasks"):
        return {"Boxes": Boxes, "BitMasks": BitMasks}[kind](value["tensor"])
    if kind == "PolygonMasks":
        return PolygonMasks([[np.asarray(polygon) for polygon in each] for each in value["polygons"]])
    return {key: _decode(each) for key, each in value.items()}
