"""Checkpoints: read without running code, refused when of another architecture, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urlparse

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from fvcore.common.checkpoint import _filter_reused_missing_keys, _strip_prefix_if_present

from segkit.engine.safe_load import inert, load_pickle, load_torch
from segkit.formats.files import replacing
from segkit.structures import CheckpointError

SHOWN_KEYS = 5
# A file need not have them: counters, and constants that the config sets.
NOT_WEIGHTS = ("num_batches_tracked", "pixel_mean", "pixel_std")
# Layers of a classification network that no detector takes, and one that every deformable network starts from scratch.
CLASSIFIER_LAYERS = {"classifier", "fc", "fc1000", "head", "linear", "pred"}
SCRATCH_LAYER = "conv2_offset"
SAME_NETWORK = "set MODEL.WEIGHTS and the backbone's keys (MODEL.RESNETS.DEPTH) to the same network"


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
            raise CheckpointError(f"cannot be fetched ({said})", where=path) from error
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


@dataclass(frozen=True)
class Fit:
    """How a file's tensors lay on a model's. Keys as in the model; where nothing matched, as in the file.

    model_shapes, file_shapes: key -> shape. missing: the model's keys that nothing filled. unexpected: the file's keys
    that fill nothing. by_suffix: the file's keys lack the model's prefixes (Detectron2's matching heuristics).
    """

    model_shapes: dict[str, tuple[int, ...]]
    file_shapes: dict[str, tuple[int, ...]]
    missing: Collection[str]
    unexpected: Collection[str]
    by_suffix: bool = False


def check_architecture(fit: Fit, *, strict: bool, where: object) -> None:
    """Raise CheckpointError, naming `where`, the counts and some keys, where the file is of another network.

    strict (inference, resuming): each weight must be filled. Otherwise (training), refused are a file of which nothing
    fits, another shape below `backbone.`, a backbone of which only a part is filled, and one of which the file has
    more (R-50 into R-101, and the reverse). Backbones without heads, and heads of other class counts, pass.
    """
    mismatches = _mismatches(fit)
    _refuse_strangers(fit, {mismatch.key for mismatch in mismatches}, where)
    absent = _absent(fit, {mismatch.key for mismatch in mismatches})
    if strict:
        _refuse_gaps(fit, absent, mismatches, where)
    _refuse_shapes([mismatch for mismatch in mismatches if mismatch.key.startswith("backbone.")], where)
    _refuse_other_depth(fit, set(absent), where)


class _Mismatch(NamedTuple):
    key: str
    in_file: tuple[int, ...]
    in_model: tuple[int, ...]


def _mismatches(fit: Fit) -> list[_Mismatch]:
    """What is in both with two shapes; the heuristics leave such a file key unmatched, under its own name."""
    missing = sorted(fit.missing)
    pairs = [(key, key) for key in missing if key in fit.file_shapes]
    pairs += [(key, end) for key in missing for end in fit.unexpected if fit.by_suffix and key.endswith(f".{end}")]
    return [_Mismatch(key, fit.file_shapes[end], fit.model_shapes[key]) for key, end in pairs]


def _absent(fit: Fit, wrong: set[str]) -> list[str]:
    missing = set(fit.missing) - wrong
    return [key for key in fit.model_shapes if key in missing and not key.endswith(NOT_WEIGHTS)]


def _refuse_strangers(fit: Fit, wrong: set[str], where: object) -> None:
    unfit = wrong | set(fit.unexpected)
    if not any(key not in unfit and not key.endswith(NOT_WEIGHTS) for key in fit.file_shapes):
        raise CheckpointError(
            f"nothing in it fits the model: the file has {_listed(fit.file_shapes)}; "
            f"the model has {_listed(fit.model_shapes)}",
            where=where,
            remedy="take weights of this network; where only the prefixes differ, add ?matching_heuristics=True",
        )


def _refuse_gaps(fit: Fit, absent: list[str], mismatches: list[_Mismatch], where: object) -> None:
    faults = [f"{len(absent)} missing: {_listed(absent)}"] if absent else []
    faults += [f"{len(mismatches)} of another shape: {_listed(map(_described, mismatches))}"] if mismatches else []
    if faults:
        raise CheckpointError(
            f"of the model's {len(fit.model_shapes)} tensors, {'; '.join(faults)}",
            where=where,
            remedy="use the config that the weights were trained with",
        )


def _refuse_shapes(mismatches: list[_Mismatch], where: object) -> None:
    if mismatches:
        raise CheckpointError(
            f"weights of another backbone: {len(mismatches)} of another shape: {_listed(map(_described, mismatches))}",
            where=where,
            remedy=SAME_NETWORK,
        )


def _refuse_other_depth(fit: Fit, absent: set[str], where: object) -> None:
    """A part of the backbone's weights, or weights beyond it; a file with no backbone at all may pass."""
    deep = any(key.startswith("backbone.bottom_up.") for key in fit.model_shapes)
    prefix = "backbone.bottom_up." if deep else "backbone."
    wanted = [key for key in fit.model_shapes if key.startswith(prefix) and key.endswith(".weight")]
    stages = {_parts(key, prefix)[0] for key in wanted if key not in absent}
    gaps = [key for key in wanted if key in absent and SCRATCH_LAYER not in key]
    beyond = [key for key in fit.unexpected if key.endswith(".weight") and (fit.by_suffix or key.startswith(prefix))]
    beyond = [key for key in beyond if _parts(key, prefix)[0] in stages]
    beyond = [key for key in beyond if not CLASSIFIER_LAYERS & set(_parts(key, prefix))]
    if stages and (gaps or beyond):
        faults = [f"{len(gaps)} of {len(wanted)} weights not in the file: {_listed(gaps)}"] if gaps else []
        faults += [f"{len(beyond)} in the file that it lacks: {_listed(beyond)}"] if beyond else []
        raise CheckpointError(
            f"weights of another backbone: of {prefix}*, {'; '.join(faults)}", where=where, remedy=SAME_NETWORK
        )


def _parts(key: str, prefix: str) -> list[str]:
    return key.removeprefix(prefix).split(".")


def _described(mismatch: _Mismatch) -> str:
    return f"{mismatch.key} (file {mismatch.in_file}, model {mismatch.in_model})"


def _listed(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ", ".join(keys[:SHOWN_KEYS]) + (", ..." if len(keys) > SHOWN_KEYS else "") if keys else "no tensors"


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
            f"expected a dict of weight tensors by name, got {len(odd)} other entries: {_listed(odd)}",
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
