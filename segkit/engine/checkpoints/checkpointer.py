"""Checkpoints: read without running code, refused when of another architecture, written whole or not at all."""

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

from segkit.engine.checkpoints.architecture import Fit, check_architecture, listed
from segkit.engine.checkpoints.safe_load import inert, load_pickle, load_torch
from segkit.structures import CategorySet
from segkit.utils.errors import CheckpointError
from segkit.utils.files import replacing


class SafeCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer (formats, name heuristics, resuming) with safe reading, checks and atomic writing.

    Arguments, return values and file formats are those of detectron2.checkpoint.DetectionCheckpointer.
    """

    def load(self, path: str, checkpointables: list[str] | None = None, *, strict: bool = False) -> dict[str, Any]:
        """Fill the model from `path` (a file or an address that Detectron2's PathManager knows).

        An empty path loads nothing: the model stays as it is built. Without `strict`, heads may be missing or of
        another class count; with it every weight must be filled: see `check_architecture`. Raises CheckpointError.
        """
        path = str(path or "")
        if path:
            self._require_file(path)
        self._loading = (path, strict)
        try:
            return super().load(path, checkpointables)
        except (AssertionError, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise CheckpointError(f"cannot be loaded into this model ({said})", where=path) from error
        finally:
            self._parsed_url_during_load = None  # Detectron2 resets it only where nothing was raised

    def load_for_inference(self, path: str) -> dict[str, Any]:
        """Fill the whole model from `path`; CheckpointError where it is empty, or leaves a weight at random."""
        if not path:
            raise CheckpointError("no weights: pass --weights or MODEL.WEIGHTS")
        return self.load(path, checkpointables=[], strict=True)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """With `resume`, the whole last checkpoint of the output folder, if there is one; else weights from `path`."""
        if resume and self.has_checkpoint():
            return self.load(self.get_checkpoint_file(), strict=True)
        return self.load(path, checkpointables=[])

    def save(self, name: str, **kwargs: Any) -> None:
        """Write the model, the checkpointables and `kwargs` to `<save_dir>/<name>.pth`, then name it as the last one.

        The file appears whole or not at all. Raises CheckpointError where it cannot be written, or where a state
        holds what `load_torch` would refuse (numpy scalars are written as numbers).
        """
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: stateful.state_dict() for key, stateful in self.checkpointables.items()}
        target = Path(self.save_dir, f"{name}.pth")
        try:
            data = inert({"model": self.model.state_dict(), **states, **kwargs})
        except ValueError as error:
            remedy = "let state_dict() return numbers, strings, tensors, and lists and dicts of them"
            raise CheckpointError(f"not saved, since it could not be read back: {error}", remedy=remedy) from error
        self.logger.info("Saving checkpoint to %s", target)
        _write(target, lambda file: torch.save(data, file))
        self.tag_last_checkpoint(target.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the checkpoint that `resume_or_load` resumes from."""
        _write(Path(self.save_dir, "last_checkpoint"), lambda file: file.write(last_filename_basename.encode()))

    def _require_file(self, path: str) -> None:
        try:
            local = self.path_manager.get_local_path(urlparse(path)._replace(query="").geturl())
        except Exception as error:  # whatever the many handlers raise
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            remedy = "fetch it where there is a network, and give its path"
            raise CheckpointError(f"cannot be fetched ({said})", where=path, remedy=remedy) from error
        if not os.path.isfile(local):
            raise CheckpointError(
                "no such weight file", where=path, remedy="check MODEL.WEIGHTS, --weights or --resume"
            )

    def _load_file(self, filename: str) -> dict[str, Any]:
        """The checkpoint in Detectron2's form, by the rules of DetectionCheckpointer._load_file."""
        if filename.endswith(".pkl"):
            checkpoint = _zoo_form(load_pickle(filename))
        elif filename.endswith(".pyth"):
            checkpoint = _pycls_form(load_torch(filename), filename)
        else:
            checkpoint = super()._load_file(filename)
        _require_weights(checkpoint["model"], filename)
        return checkpoint

    def _torch_load(self, filename: str) -> dict[str, Any]:
        return load_torch(filename)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
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
        fit = Fit(
            model_shapes={key: tuple(weight.shape) for key, weight in self.model.state_dict().items()},
            file_shapes=file_shapes,
            missing=_filter_reused_missing_keys(self.model, incompatible.missing_keys),
            unexpected=incompatible.unexpected_keys,
            by_suffix=by_suffix,
        )
        check_architecture(fit, strict=strict, where=path)
        return incompatible


def saved_classes(weights: str) -> tuple[CategorySet | None, str]:
    """The categories in a checkpoint of segkit's training, None in other weights; and what its semantic channels mean,
    see CategorySet.build_semantic_space: where nothing says so "one", or without things "per_class"."""
    saved = load_torch(PathManager.get_local_path(weights)).get("segkit") if weights.endswith(".pth") else None
    if not isinstance(saved, dict):
        return None, "one"
    categories = CategorySet.from_coco(saved["categories"], weights)
    return categories, saved.get("thing_channels", "one" if categories.things else "per_class")


def _zoo_form(data: dict[str, Any]) -> dict[str, Any]:
    """Detectron2's own files as they are; all others are Caffe2's, with its momenta left out."""
    if "model" in data and ("__author__" in data or isinstance(data["model"], dict)):
        return data
    blobs = data.get("blobs", data)
    weights = {key: value for key, value in dict(blobs).items() if not str(key).endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


def _pycls_form(data: dict[str, Any], filename: str) -> dict[str, Any]:
    state = data.get("model_state")
    if not isinstance(state, dict):
        raise CheckpointError("expected a pycls checkpoint with 'model_state'", where=filename)
    weights = {key: value for key, value in state.items() if not str(key).endswith("num_batches_tracked")}
    return {"model": weights, "__author__": "pycls", "matching_heuristics": True}


def _require_weights(weights: Any, filename: str) -> None:
    entries = weights.items() if isinstance(weights, dict) else [("model", weights)]
    odd = [f"{k} ({type(v).__name__})" for k, v in entries if not isinstance(v, (np.ndarray, torch.Tensor))]
    odd += [f"{k!r} (a key)" for k, _ in entries if not isinstance(k, str)]
    if odd:
        raise CheckpointError(
            f"expected a dict of weight tensors by name, got {len(odd)} other entries: {listed(odd)}",
            where=filename,
            remedy="save the state dict alone: torch.save(model.state_dict(), 'weights.pth')",
        )


def _write(target: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write through a neighbour, flushed to the disk before it takes the name of `target`."""
    try:
        with replacing(target) as part, part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch's writer says RuntimeError of a full disk
        said = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"cannot be written ({said})", where=target, remedy="free disk space or mend OUTPUT_DIR"
        ) from error
