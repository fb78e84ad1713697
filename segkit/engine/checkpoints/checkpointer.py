"""Checkpoints: read without running code, refused if they belong to another architecture, written atomically."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import _filter_reused_missing_keys, _strip_prefix_if_present

from segkit.engine.checkpoints.architecture import WeightMatch, check_architecture
from segkit.engine.checkpoints.safe_load import load_pickle, load_torch, to_plain_data
from segkit.structures import CategorySet
from segkit.utils.errors import CheckpointError, DatasetError
from segkit.utils.files import replacing
from segkit.utils.plugins import require_plugins
from segkit.utils.text import abbreviate


class SafeCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer (formats, name heuristics, resuming) with safe reading, checks and atomic writing.

    Arguments, return values and file formats are those of detectron2.checkpoint.DetectionCheckpointer.
    """

    def load(self, path: str, checkpointables: list[str] | None = None, *, strict: bool = False) -> dict[str, Any]:
        """Fill the model from a file.

        Args:
            path: a file, or an address that Detectron2's PathManager knows. Empty: nothing is loaded.
            checkpointables: names of the other objects to restore; None for all.
            strict: every weight must be filled. Otherwise heads may be missing or have another class count, see
                `check_architecture`.

        Returns:
            What the file holds besides the model and the checkpointables.

        Raises:
            CheckpointError: the file is missing, unsafe to read, or belongs to another architecture.
        """
        path = str(path or "")
        if path:
            require_weights(path)
        self._loading = (path, strict)
        try:
            return super().load(path, checkpointables)
        except (AssertionError, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            problem = f"cannot be loaded into this model ({_shorten(error)})"
            raise CheckpointError(problem, where=path) from error
        finally:
            self._parsed_url_during_load = None  # Detectron2 does not reset it after an error

    def load_for_inference(self, path: str) -> dict[str, Any]:
        """Fill the whole model.

        Args:
            path: see `load`.

        Returns:
            See `load`.

        Raises:
            CheckpointError: an empty path, or a file that does not fill every weight.
        """
        if not path:
            raise CheckpointError("no weights: pass --weights or MODEL.WEIGHTS")
        return self.load(path, checkpointables=[], strict=True)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Load the last checkpoint of the output folder, or weights to start from.

        Args:
            path: weights to start from, see `load`.
            resume: load the last checkpoint of the output folder instead, if there is one, with all checkpointables.

        Returns:
            See `load`.
        """
        if resume and self.has_checkpoint():
            return self.load(self.get_checkpoint_file(), strict=True)
        return self.load(path, checkpointables=[])

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `<save_dir>/<name>.pth` atomically, then record it as the last checkpoint.

        Args:
            name: file name without suffix.
            **kwargs: more entries of the file. numpy scalars are written as numbers.

        Raises:
            CheckpointError: the file cannot be written, or a state holds what `load_torch` would refuse.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: stateful.state_dict() for key, stateful in self.checkpointables.items()}
        target = Path(self.save_dir, f"{name}.pth")
        try:
            data = to_plain_data({"model": self.model.state_dict(), **states, **kwargs})
        except ValueError as error:
            remedy = "let state_dict() return numbers, strings, tensors, and lists and dicts of them"
            raise CheckpointError(f"not saved, because it could not be read back: {error}", remedy=remedy) from error
        self.logger.info("Saving checkpoint to %s", target)
        _write(target, lambda file: torch.save(data, file))
        self.tag_last_checkpoint(target.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """See base class."""
        _write(Path(self.save_dir, "last_checkpoint"), lambda file: file.write(last_filename_basename.encode()))

    def _load_file(self, filename: str) -> dict[str, Any]:
        """The checkpoint in Detectron2's form, by the rules of DetectionCheckpointer._load_file."""
        if filename.endswith(".pkl"):
            checkpoint = _convert_zoo_file(load_pickle(filename))
        elif filename.endswith(".pyth"):
            checkpoint = _convert_pycls_file(load_torch(filename), filename)
        else:
            checkpoint = super()._load_file(filename)
        _require_weights(checkpoint["model"], filename)
        return checkpoint

    def _torch_load(self, filename: str) -> dict[str, Any]:
        return load_torch(filename)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        if self._loading[1]:  # strict: the whole run is loaded, not only weights to start from
            _require_plugins(checkpoint.get("segkit"), self._loading[0])
        weights = checkpoint.pop("model")
        by_suffix = bool(checkpoint.get("matching_heuristics", False))
        if by_suffix:
            self._convert_ndarray_to_tensor(weights)
            caffe2 = checkpoint.get("__author__") == "Caffe2"
            weights = align_and_update_state_dicts(self.model.state_dict(), weights, c2_conversion=caffe2)
        _strip_prefix_if_present(weights, "module.")
        file_shapes = {key: tuple(weight.shape) for key, weight in weights.items()}
        incompatible = super()._load_model({"model": weights})
        path, strict = self._loading
        match = WeightMatch(
            model_shapes={key: tuple(weight.shape) for key, weight in self.model.state_dict().items()},
            file_shapes=file_shapes,
            missing=_filter_reused_missing_keys(self.model, incompatible.missing_keys),
            unexpected=incompatible.unexpected_keys,
            by_suffix=by_suffix,
        )
        check_architecture(match, strict=strict, where=path)
        return incompatible


def require_weights(path: str) -> None:
    """Check that a file of weights exists; an address is fetched.

    Args:
        path: a file, or an address that Detectron2's PathManager knows.

    Raises:
        CheckpointError: the file does not exist, or cannot be fetched.
    """
    try:
        local = PathManager.get_local_path(urlparse(path)._replace(query="").geturl())
    except Exception as error:  # the handlers raise errors of many types
        remedy = "fetch it on a machine with a network, and give its path"
        raise CheckpointError(f"cannot be fetched ({_shorten(error)})", where=path, remedy=remedy) from error
    if not os.path.isfile(local):
        remedy = "check MODEL.WEIGHTS, --weights or --resume"
        raise CheckpointError("no such weight file", where=path, remedy=remedy)


def load_saved_classes(weights: str) -> tuple[CategorySet | None, str]:
    """The classes that a checkpoint of segkit's training was trained on.

    Args:
        weights: path of the file.

    Returns:
        (categories, meaning of the semantic head's channels: "one" or "per_class", see
        CategorySet.build_semantic_space). Other weights give (None, "one"). If the checkpoint does not say what the
        channels mean, they are "one", or "per_class" if no category is a thing.

    Raises:
        ConfigError: the training used a plugin that was not given.
    """
    state = load_torch(PathManager.get_local_path(weights)).get("segkit") if weights.endswith(".pth") else None
    if not isinstance(state, dict):
        return None, "one"
    _require_plugins(state, weights)
    categories = CategorySet.from_coco(state["categories"], weights)
    return categories, state.get("thing_channels", "one" if categories.things else "per_class")


def _require_plugins(state: Any, where: str) -> None:
    require_plugins(state.get("plugins", []) if isinstance(state, dict) else [], where)


def _convert_zoo_file(data: dict[str, Any]) -> dict[str, Any]:
    """Detectron2's own files are kept as they are; all others are taken for Caffe2's, without their momenta."""
    if "model" in data and ("__author__" in data or isinstance(data["model"], dict)):
        return data
    blobs = data.get("blobs", data)
    weights = {key: value for key, value in dict(blobs).items() if not str(key).endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


def _convert_pycls_file(data: dict[str, Any], filename: str) -> dict[str, Any]:
    state = data.get("model_state")
    if not isinstance(state, dict):
        raise CheckpointError("expected a pycls checkpoint with 'model_state'", where=filename)
    weights = {key: value for key, value in state.items() if not str(key).endswith("num_batches_tracked")}
    return {"model": weights, "__author__": "pycls", "matching_heuristics": True}


def _require_weights(weights: Any, filename: str) -> None:
    entries = weights.items() if isinstance(weights, dict) else [("model", weights)]
    invalid = [f"{k} ({type(v).__name__})" for k, v in entries if not isinstance(v, (np.ndarray, torch.Tensor))]
    invalid += [f"{k!r} (a key)" for k, _ in entries if not isinstance(k, str)]
    if invalid:
        problem = f"expected a dict of weight tensors by name, got {len(invalid)} other entries: {abbreviate(invalid)}"
        remedy = "save the state dict alone: torch.save(model.state_dict(), 'weights.pth')"
        raise CheckpointError(problem, where=filename, remedy=remedy)


def _write(target: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write atomically; the content is flushed to the disk before the file takes its name."""
    try:
        with replacing(target) as temporary, temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError, DatasetError) as error:  # torch's writer raises RuntimeError if the disk is full
        remedy = "free disk space, or name another OUTPUT_DIR"
        raise CheckpointError(f"cannot be written ({_shorten(error)})", where=target, remedy=remedy) from error


def _shorten(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
