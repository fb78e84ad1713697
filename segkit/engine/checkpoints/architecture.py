"""Whether weights are of the network that they are loaded into."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from segkit.utils.errors import CheckpointError

SHOWN_KEYS = 5
# A file need not have them: counters, and constants that the config sets.
NOT_WEIGHTS = ("num_batches_tracked", "pixel_mean", "pixel_std")
# Layers of a classification network that no detector takes, and one that every deformable network starts from scratch.
CLASSIFIER_LAYERS = {"classifier", "fc", "fc1000", "head", "linear", "pred"}
SCRATCH_LAYER = "conv2_offset"
SAME_NETWORK = "set MODEL.WEIGHTS and the backbone's keys (MODEL.RESNETS.DEPTH) to the same network"


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


def listed(keys: Iterable[str]) -> str:
    """The first keys, for a message."""
    keys = list(keys)
    return ", ".join(keys[:SHOWN_KEYS]) + (", ..." if len(keys) > SHOWN_KEYS else "") if keys else "no tensors"


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
            f"nothing in it fits the model: the file has {listed(fit.file_shapes)}; "
            f"the model has {listed(fit.model_shapes)}",
            where=where,
            remedy="take weights of this network; where only the prefixes differ, add ?matching_heuristics=True",
        )


def _refuse_gaps(fit: Fit, absent: list[str], mismatches: list[_Mismatch], where: object) -> None:
    faults = [f"{len(absent)} missing: {listed(absent)}"] if absent else []
    faults += [f"{len(mismatches)} of another shape: {listed(map(_described, mismatches))}"] if mismatches else []
    if faults:
        raise CheckpointError(
            f"of the model's {len(fit.model_shapes)} tensors, {'; '.join(faults)}",
            where=where,
            remedy="use the config that the weights were trained with",
        )


def _refuse_shapes(mismatches: list[_Mismatch], where: object) -> None:
    if mismatches:
        raise CheckpointError(
            f"weights of another backbone: {len(mismatches)} of another shape: {listed(map(_described, mismatches))}",
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
        faults = [f"{len(gaps)} of {len(wanted)} weights not in the file: {listed(gaps)}"] if gaps else []
        faults += [f"{len(beyond)} in the file that it lacks: {listed(beyond)}"] if beyond else []
        raise CheckpointError(
            f"weights of another backbone: of {prefix}*, {'; '.join(faults)}", where=where, remedy=SAME_NETWORK
        )


def _parts(key: str, prefix: str) -> list[str]:
    return key.removeprefix(prefix).split(".")


def _described(mismatch: _Mismatch) -> str:
    return f"{mismatch.key} (file {mismatch.in_file}, model {mismatch.in_model})"
