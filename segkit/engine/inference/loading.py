"""`segkit.load`: from a file or folder to a model that predicts."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.utils.bundles import is_bundle
from segkit.utils.config_files import RUN_CONFIG, SUFFIXES
from segkit.utils.errors import CheckpointError, ConfigError
from segkit.utils.file_names import explain_missing

if TYPE_CHECKING:
    from segkit.engine.inference.model import SegmentationModel

ONNX = ".onnx"

log = logging.getLogger(__name__)


def load(
    source: str | Path,
    config_file: str | Path | None = None,
    *,
    device: str | None = None,
    precision: str = "float32",
    compile: bool = False,
) -> SegmentationModel:
    """Load a trained model. The dataset is not needed.

    Args:
        source: weights; or a file of `segkit export onnx`, which needs no torch; or a bundle of `segkit export bundle`;
            or the folder of a run, whose model_best.pth is taken, or without one its newest checkpoint; or a
            config, of a run or with MODEL.WEIGHTS.
        config_file: YAML file, or name of a recipe. None: of weights the YAML file of the same name beside them, as
            `segkit import` writes it, or config.yaml; of a run its config.yaml.
        device: "cpu", "cuda", "cuda:1"; None: MODEL.DEVICE of the config, and the CPU if that is a missing GPU.
        precision: "float32"; "bfloat16" or "float16" for the convolutions and matrices; "auto": the fastest that the
            device has.
        compile: compile the network with torch.compile; the first images take minutes.

    Returns:
        The model: call it with images. Of an ONNX file an `OnnxModel`, which is called in the same way.

    Raises:
        CheckpointError: there are no weights, or they are damaged or belong to another architecture.
        ConfigError: there is no config, it cannot be read, or the device is missing.
    """
    if os.fspath(source).lower().endswith(ONNX):
        return _load_onnx(source, config_file, device, precision != "float32" or compile)
    from segkit.engine.inference.model import SegmentationModel
    from segkit.engine.setup import read_config

    weights, config = find_model(source, config_file)
    options = ["MODEL.WEIGHTS", weights] if weights else []
    if device is not None:
        options += ["MODEL.DEVICE", check_device(device)]
    if compile:
        options += ["TEST.INFERENCE.COMPILE", "True"]
    return SegmentationModel(read_config(config, options, train=False), precision=precision)


def find_model(source: str | Path, config_file: str | Path | None = None) -> tuple[str, str]:
    """Find the weights and the config that `load` takes.

    Args:
        source: see `load`.
        config_file: see `load`.

    Returns:
        (weights, config); "" in the place of weights: those of MODEL.WEIGHTS.

    Raises:
        CheckpointError: there are no weights.
        ConfigError: there is no config.
    """
    path = Path(source)
    if path.suffix.lower() in SUFFIXES and path.is_file():
        if config_file is not None:
            raise ConfigError(f"expected weights beside the config {config_file}, got another config", where=path)
        return (_find_weights(path.parent), str(path)) if path.name == RUN_CONFIG else ("", str(path))
    if is_bundle(path) and path.is_file():
        return str(path), str(config_file or path)
    if path.is_dir():
        return _find_weights(path), str(config_file or _find_config(path, [RUN_CONFIG]))
    is_address = "://" in str(source)
    if not is_address and not path.is_file():
        problem = f"expected weights, a config or the folder of a run, found nothing{explain_missing(path)}"
        raise CheckpointError(problem, where=source, remedy="check the path")
    if config_file is None:
        names = [] if is_address else [path.with_suffix(".yaml").name, RUN_CONFIG]
        config_file = _find_config(path.parent, names)
    return str(source), str(config_file)


def check_device(device: str) -> str:
    """Check that a device is there.

    Args:
        device: as torch names it.

    Returns:
        The same.

    Raises:
        ConfigError: torch does not know it, or this machine lacks it.
    """
    import torch

    try:
        parsed = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"the device {device!r} is unknown", remedy="choose cpu, cuda or cuda:N") from None
    count = torch.cuda.device_count()
    if parsed.type == "cuda" and (parsed.index or 0) >= count:
        problem = f"the device {device} is not there: this machine has {count} CUDA devices"
        raise ConfigError(problem, remedy="choose cpu" if not count else f"choose cuda:0 to cuda:{count - 1}, or cpu")
    return device


def _load_onnx(source: str | Path, config_file: str | Path | None, device: str | None, has_options: bool) -> Any:
    from segkit.runtime.onnx_model import OnnxModel

    if config_file is not None or has_options or device not in (None, "cpu", "cuda"):
        problem = "an ONNX file has its config and precision inside, and runs on cpu or cuda"
        raise ConfigError(problem, where=source, remedy="give it alone, or with device='cuda'")
    return OnnxModel(source, ["CUDAExecutionProvider", "CPUExecutionProvider"] if device == "cuda" else None)


def _find_weights(folder: Path) -> str:
    from segkit.engine.checkpoints.newest import BEST_WEIGHTS, find_newest_checkpoint

    best = folder / BEST_WEIGHTS
    weights = str(best) if best.is_file() else find_newest_checkpoint(folder)
    if not weights:
        problem = f"expected the folder of a run, with {BEST_WEIGHTS} or a checkpoint, got neither"
        raise CheckpointError(problem, where=folder, remedy="give the file of the weights, and its config")
    log.info("the weights are %s", weights)
    return weights


def _find_config(folder: Path, names: list[str]) -> Path:
    for name in names:
        if os.path.isfile(folder / name):
            return folder / name
    expected = f"expected {' or '.join(names)} beside the weights" if names else "expected a config for these weights"
    remedy = "give config_file: a YAML file, or the name of the recipe that the weights were trained with"
    raise ConfigError(f"{expected}, got none", where=folder, remedy=remedy)
