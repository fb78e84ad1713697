"""Checkpoints: read without running code, refused if they belong to another architecture, written atomically."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlparse

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import _filter_reused_missing_keys, _strip_prefix_if_present

from segkit.engine.checkpoints.architecture import WeightMatch, check_architecture
from segkit.engine.checkpoints.class_layers import describe_class_layers, keep_classes_by_name, list_class_layers
from segkit.engine.checkpoints.deltas import is_dinov3, refuse_deltas
from segkit.engine.checkpoints.finite import find_non_finite
from segkit.engine.checkpoints.first_convolution import adapt_first_convolution
from segkit.engine.checkpoints.footer import read_footer
from segkit.engine.checkpoints.newest import LAST_CHECKPOINT, find_newest_checkpoint, has_checkpoints
from segkit.engine.checkpoints.safe_load import to_plain_data
from segkit.engine.checkpoints.weight_files import (
    read_segkit_entry,
    read_weight_file,
    shorten,
    write_atomically,
    write_torch,
    write_weight_file,
)
from segkit.structures import CategorySet
from segkit.utils.errors import CheckpointError
from segkit.utils.plugins import require_plugins
from segkit.utils.text import abbreviate

THING_CHANNELS = ("one", "per_class")
PERIODIC_NAME = re.compile(r"model_(\d+)\.pth")  # Detectron2's name of the checkpoint of an iteration


class SafeCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer (formats, name heuristics, resuming) with safe reading, checks and atomic writing.

    Arguments, return values and file formats are those of detectron2.checkpoint.DetectionCheckpointer.

    Args:
        model: the model; DistributedDataParallel is unwrapped.
        save_dir: folder of the checkpoints; "" writes none.
        save_to_disk: whether this process writes; None: if it is the main process.
        keep: files `model_<iteration>.pth` of this training that stay when a newer one is whole; 0 keeps all.
        keep_classes: weights to start from keep the rows of classes of equal names, see `keep_classes_by_name`.
        **checkpointables: objects with `state_dict` and `load_state_dict`, by their key in the file.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        keep: int = 0,
        keep_classes: bool = False,
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.keep = keep
        self.keep_classes = keep_classes
        self._started = ""  # see Footer
        self._checked = ""  # a file whose bytes were tested

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
        self._restores_all = strict and checkpointables is None
        try:
            return super().load(path, checkpointables)
        except (AssertionError, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            problem = f"cannot be loaded into this model ({shorten(error)})"
            raise CheckpointError(problem, where=path) from error
        finally:
            self._parsed_url_during_load = None  # Detectron2 does not reset it after an error

    def load_for_inference(self, path: str) -> dict[str, Any]:
        """Fill the whole model.

        Args:
            path: see `load`. A model without parameters needs no file.

        Returns:
            See `load`.

        Raises:
            CheckpointError: an empty path, or a file that does not fill every weight.
        """
        if not path:
            if next(self.model.parameters(), None) is None:
                return {}
            raise CheckpointError("no weights: pass --weights or MODEL.WEIGHTS")
        return self.load(path, checkpointables=[], strict=True)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Load the last checkpoint of the output folder, or weights to start from.

        Args:
            path: weights to start from, see `load`.
            resume: load the newest checkpoint of the output folder instead, if there is one, with all checkpointables.

        Returns:
            See `load`.

        Raises:
            CheckpointError: see `load` and `find_newest_checkpoint`.
        """
        if not resume or not self.has_checkpoint():
            return self.load(path, checkpointables=[])
        newest = self._checked = self.get_checkpoint_file()
        loaded = self.load(newest, strict=True)
        footer = read_footer(Path(newest))
        self._started = footer.started if footer else ""
        return loaded

    def has_checkpoint(self) -> bool:
        """Whether a training has written a checkpoint into the output folder."""
        return bool(self.save_dir) and has_checkpoints(self.save_dir)

    def get_checkpoint_file(self) -> str:
        """The newest whole checkpoint of the output folder, see `find_newest_checkpoint`."""
        return find_newest_checkpoint(self.save_dir) if self.save_dir else ""

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `<save_dir>/<name>.pth` atomically, record it as the last checkpoint, then remove old ones.

        Args:
            name: file name without suffix.
            **kwargs: more entries of the file; `iteration` orders the checkpoints. numpy scalars become numbers.

        Raises:
            CheckpointError: the file cannot be written, or a state holds NaN, or a weight infinity, or a state holds
                what `load_torch` would refuse. Other ranks, which write nothing, raise the same for their own states.
        """
        if not self.save_dir:
            return
        states = {key: stateful.state_dict() for key, stateful in self.checkpointables.items()}
        try:
            data = to_plain_data({"model": self.model.state_dict(), **states, **kwargs})
        except ValueError as error:
            remedy = "let state_dict() return numbers, strings, tensors, and lists and dicts of them"
            raise CheckpointError(f"not saved, because it could not be read back: {error}", remedy=remedy) from error
        target = Path(self.save_dir, f"{name}.pth")
        self._check_finite(data, target)
        if not self.save_to_disk:
            return
        self._started = self._started or datetime.now(timezone.utc).isoformat(timespec="microseconds")
        iteration = data["iteration"] if isinstance(data.get("iteration"), int) else None
        self.logger.info("Saving checkpoint to %s", target)
        write_atomically(target, lambda file: write_torch(file, data, self._started, iteration))
        self.tag_last_checkpoint(target.name)
        self._remove_old(target)

    def save_weights(self, name: str) -> None:
        """Write `<save_dir>/<name>.pth` atomically: the weights and their classes, nothing to resume from.

        Args:
            name: file name without suffix.

        Raises:
            CheckpointError: the file cannot be written, or a weight is NaN.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        content = {"model": to_plain_data(self.model.state_dict())}
        if classes := self.checkpointables.get("segkit"):
            content["segkit"] = classes.state_dict()
        write_weight_file(Path(self.save_dir, f"{name}.pth"), content)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """See base class."""
        write_atomically(Path(self.save_dir, LAST_CHECKPOINT), lambda file: file.write(last_filename_basename.encode()))

    def _require_state(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume from weights alone, and warn of a part that the checkpoint was written without."""
        missing = [key for key in self.checkpointables if key not in checkpoint]
        if missing and len(missing) == len(self.checkpointables):
            problem = f"has weights, but no state of a training ({', '.join(missing)})"
            remedy = "start without --resume, with the file as MODEL.WEIGHTS"
            raise CheckpointError(problem, where=self._loading[0], remedy=remedy)
        for key in missing:
            self.logger.warning("%s has no state of %r, which starts from the beginning", self._loading[0], key)

    def _check_finite(self, data: dict[str, Any], target: Path) -> None:
        weights = {f"model.{name}" for name, _ in self.model.named_parameters(remove_duplicate=False)}
        if names := find_non_finite(data, weights):
            problem = f"not saved, because {len(names)} tensors have NaN or infinite values: {abbreviate(names)}"
            remedy = "earlier checkpoints are kept: resume from one with a lower SOLVER.BASE_LR or a longer warm-up"
            raise CheckpointError(problem, where=target, remedy=remedy)

    def _remove_old(self, written: Path) -> None:
        """Of the periodic checkpoints of this training, up to the one that was written, keep the last."""
        match = PERIODIC_NAME.fullmatch(written.name)
        if not self.keep or not match:
            return
        numbers = {path: PERIODIC_NAME.fullmatch(path.name) for path in written.parent.glob("model_*.pth")}
        periodic = sorted((int(m[1]), path) for path, m in numbers.items() if m and int(m[1]) <= int(match[1]))
        for _, path in [(number, path) for number, path in periodic if self._is_ours(path)][: -self.keep]:
            with suppress(OSError):
                path.unlink()

    def _is_ours(self, path: Path) -> bool:
        try:
            footer = read_footer(path)
        except CheckpointError:
            return False
        return footer is not None and footer.started == self._started

    def _load_file(self, filename: str) -> dict[str, Any]:
        """The checkpoint in Detectron2's form, by the rules of DetectionCheckpointer._load_file."""
        return read_weight_file(filename) if filename.endswith((".pkl", ".pyth")) else super()._load_file(filename)

    def _torch_load(self, filename: str) -> dict[str, Any]:
        return read_weight_file(filename, check=filename != self._checked)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        if self._loading[1]:  # strict: the whole run is loaded, not only weights to start from
            _require_plugins(checkpoint.get("segkit"), self._loading[0])
        if self._restores_all:
            self._require_state(checkpoint)
        weights = checkpoint.pop("model")
        if not self._loading[1]:
            self._convert_ndarray_to_tensor(weights)
            adapt_first_convolution(weights, self.model.state_dict(), self._loading[0])
        by_suffix = bool(checkpoint.get("matching_heuristics", False))
        if by_suffix:
            self._convert_ndarray_to_tensor(weights)
            caffe2 = checkpoint.get("__author__") == "Caffe2"
            weights = align_and_update_state_dicts(self.model.state_dict(), weights, c2_conversion=caffe2)
        if is_dinov3(weights):
            refuse_deltas(weights, self._loading[0])
        _strip_prefix_if_present(weights, "module.")
        if not self._loading[1]:
            self._transfer_classes(weights, checkpoint.get("segkit"))
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

    def _transfer_classes(self, weights: dict[str, Any], saved: Any) -> None:
        """Fit the class layers of weights to start from to the model's classes, and log what is kept."""
        path, classes, model = self._loading[0], self.checkpointables.get("segkit"), self.model.state_dict()
        self._convert_ndarray_to_tensor(weights)
        if not isinstance(classes, HasClasses) or not any(list_class_layers(weights, model)):
            return
        given, kept, fresh = dict(weights), None, list[str]()
        has_classes = isinstance(saved, dict) and "categories" in saved
        if self.keep_classes and not has_classes:
            remedy = "name them by `segkit import --classes`, or set MODEL.KEEP_CLASSES_BY_NAME False"
            raise CheckpointError("the weights do not say what their classes are", where=path, remedy=remedy)
        theirs = CategorySet.from_coco(saved["categories"], path) if has_classes else classes.categories
        if self.keep_classes:
            pair = theirs, saved.get("thing_channels", "one" if theirs.things else "per_class")
            kept, fresh = keep_classes_by_name(weights, model, pair, (classes.categories, classes.thing_channels))
        lines = describe_class_layers(given, model, kept, fresh)
        if lines:
            self.logger.info("%s: the layers of the classes\n%s", path, "\n".join(lines))
        names, own_names = ([c.name for c in each.categories] for each in (theirs, classes.categories))
        if not lines and names != own_names:
            text = "%s: as many classes, but others: %s; their rows are kept in this order; "
            text += "MODEL.KEEP_CLASSES_BY_NAME True keeps those of equal names"
            self.logger.warning(text, path, abbreviate(sorted({*names} ^ {*own_names}) or names))


@runtime_checkable
class HasClasses(Protocol):
    """A checkpointable that knows the classes of the training."""

    categories: CategorySet
    thing_channels: str


def require_weights(path: str) -> str:
    """Check that a file of weights exists; an address is fetched.

    Args:
        path: a file, or an address that Detectron2's PathManager knows.

    Returns:
        The path of the file.

    Raises:
        CheckpointError: the file does not exist, or cannot be fetched.
    """
    try:
        local = PathManager.get_local_path(urlparse(path)._replace(query="").geturl())
    except Exception as error:  # the handlers raise errors of many types
        remedy = "fetch it on a machine with a network, and give its path"
        raise CheckpointError(f"cannot be fetched ({shorten(error)})", where=path, remedy=remedy) from error
    if not os.path.isfile(local):
        remedy = "check MODEL.WEIGHTS, --weights or --resume"
        raise CheckpointError("no such weight file", where=path, remedy=remedy)
    return str(local)


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
        CheckpointError: the file cannot be read, or has invalid values.
        DatasetError: its categories are invalid.
    """
    state = read_segkit_entry(PathManager.get_local_path(weights))
    if state is None:
        return None, "one"
    _require_plugins(state, weights)
    categories = CategorySet.from_coco(state["categories"], weights)
    channels = state.get("thing_channels", "one" if categories.things else "per_class")
    if channels not in THING_CHANNELS:
        raise CheckpointError(f"expected thing_channels {' or '.join(THING_CHANNELS)}, got {channels!r}", where=weights)
    return categories, channels


def _require_plugins(state: Any, where: str) -> None:
    require_plugins(state.get("plugins", []) if isinstance(state, dict) else [], where)
