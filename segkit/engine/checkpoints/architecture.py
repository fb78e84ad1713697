"""Checks that weights belong to the network that they are loaded into."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from segkit.utils.errors import CheckpointError
from segkit.utils.text import abbreviate

# A file need not have these: counters, and constants that the config sets.
NOT_WEIGHTS = ("num_batches_tracked", "pixel_mean", "pixel_std", "relative_position_index", "criterion.empty_weight")
# Layers of a classification network that no detector uses, and one that every deformable network trains from scratch.
CLASSIFIER_LAYERS = {"classifier", "fc", "fc1000", "head", "linear", "pred"}
SCRATCH_LAYER = "conv2_offset"
# Ends of the names of layers that have rows for each class.
CLASS_LAYERS = (
    *("cls_score", "bbox_pred", "mask_head.predictor", "sem_seg_head.predictor", "predictor.class_embed"),
    *("head.class_head", "criterion"),
)
# Those that tell the number of the classes -> (what they are, rows that are no class).
CLASS_COUNTS = {
    "cls_score.weight": ("thing classes", 1),
    "sem_seg_head.predictor.weight": ("semantic channels", 0),
    "predictor.class_embed.weight": ("classes", 1),
    "head.class_head.weight": ("classes", 1),
}
SAME_NETWORK = "set MODEL.WEIGHTS and the backbone's keys (MODEL.RESNETS.DEPTH) to the same network"


@dataclass(frozen=True)
class WeightMatch:
    """How the tensors of a file match the tensors of a model. Keys as in the model; unmatched ones as in the file.

    Attributes:
        model_shapes: key -> shape of the model's tensors.
        file_shapes: key -> shape of the file's tensors.
        missing: the model's keys that the file does not fill.
        unexpected: the file's keys that fill nothing.
        by_suffix: the file's keys lack the model's prefixes (Detectron2's matching heuristics).
    """

    model_shapes: dict[str, tuple[int, ...]]
    file_shapes: dict[str, tuple[int, ...]]
    missing: Collection[str]
    unexpected: Collection[str]
    by_suffix: bool = False


def check_architecture(match: WeightMatch, *, strict: bool, where: object) -> None:
    """Refuse a file of another network.

    Without `strict` (training), these files are refused: nothing in it matches; another shape below `backbone.`; only a
    part of the backbone is in the file; the file has more layers of the backbone (R-50 into R-101, and the reverse).
    Backbones without heads, and heads of other class counts, pass.

    Args:
        match: how the file's tensors match the model's.
        strict: every weight must be filled, for inference and resuming.
        where: name of the file, for the error.

    Raises:
        CheckpointError: naming `where`, the counts and some keys.
    """
    mismatches = _find_mismatches(match)
    mismatched_keys = {mismatch.key for mismatch in mismatches}
    unmatched = mismatched_keys | set(match.unexpected)
    if not any(key not in unmatched and not key.endswith(NOT_WEIGHTS) for key in match.file_shapes):
        in_file, in_model = abbreviate(match.file_shapes) or "no tensors", abbreviate(match.model_shapes)
        problem = f"no tensor matches the model: the file has {in_file}; the model has {in_model}"
        remedy = "take weights of this network; if only the prefixes differ, add ?matching_heuristics=True"
        raise CheckpointError(problem, where=where, remedy=remedy)
    missing = set(match.missing) - mismatched_keys
    absent = [key for key in match.model_shapes if key in missing and not key.endswith(NOT_WEIGHTS)]
    if strict:
        _check_complete(match, absent, mismatches, where)
    in_backbone = [mismatch for mismatch in mismatches if mismatch.key.startswith("backbone.")]
    if in_backbone:
        problem = f"weights of another backbone: {len(in_backbone)} of another shape: {abbreviate(in_backbone)}"
        raise CheckpointError(problem, where=where, remedy=SAME_NETWORK)
    _check_backbone_depth(match, set(absent), where)


class _Mismatch(NamedTuple):
    """A tensor that has one shape in the file and another in the model."""

    key: str
    in_file: tuple[int, ...]
    in_model: tuple[int, ...]

    def __repr__(self) -> str:
        return f"{self.key!r} (file {self.in_file}, model {self.in_model})"


def _find_mismatches(match: WeightMatch) -> list[_Mismatch]:
    """Detectron2's heuristics leave the key of such a tensor unmatched, under its name in the file."""
    missing = sorted(match.missing)
    pairs = [(key, key) for key in missing if key in match.file_shapes]
    if match.by_suffix:
        pairs += [(key, end) for key in missing for end in match.unexpected if key.endswith(f".{end}")]
    return [_Mismatch(key, match.file_shapes[end], match.model_shapes[key]) for key, end in pairs]


def _check_class_counts(absent: list[str], mismatches: list[_Mismatch], where: object) -> None:
    """If only the layers of the classes differ, the weights are of another dataset."""
    if (
        absent
        or not mismatches
        or not all(mismatch.key.rpartition(".")[0].endswith(CLASS_LAYERS) for mismatch in mismatches)
    ):
        return
    counts = {}
    for mismatch in mismatches:
        for end, (what, others) in CLASS_COUNTS.items():
            if mismatch.key.endswith(end):
                counts[what] = mismatch.in_file[0] - others, mismatch.in_model[0] - others
    if counts:
        differences = " and ".join(f"{theirs} {what} (the model {ours})" for what, (theirs, ours) in counts.items())
        remedy = "use the dataset that they were trained on, or train them on this one first, as MODEL.WEIGHTS"
        raise CheckpointError(f"weights of another dataset: they have {differences}", where=where, remedy=remedy)


def _check_complete(match: WeightMatch, absent: list[str], mismatches: list[_Mismatch], where: object) -> None:
    _check_class_counts(absent, mismatches, where)
    faults = [f"{len(absent)} missing: {abbreviate(absent)}"] if absent else []
    faults += [f"{len(mismatches)} of another shape: {abbreviate(mismatches)}"] if mismatches else []
    if faults:
        problem = f"of the model's {len(match.model_shapes)} tensors, {'; '.join(faults)}"
        raise CheckpointError(problem, where=where, remedy="use the config that the weights were trained with")


def _check_backbone_depth(match: WeightMatch, absent: set[str], where: object) -> None:
    """A part of the backbone's weights, or weights beyond it, are refused; a file without a backbone passes."""
    has_fpn = any(key.startswith("backbone.bottom_up.") for key in match.model_shapes)
    prefix = "backbone.bottom_up." if has_fpn else "backbone."
    needed = [key for key in match.model_shapes if key.startswith(prefix) and key.endswith(".weight")]
    stages = {key.removeprefix(prefix).split(".")[0] for key in needed if key not in absent}
    gaps = [key for key in needed if key in absent and SCRATCH_LAYER not in key]
    unused = [key for key in match.unexpected if key.endswith(".weight")]
    parts = {key: key.removeprefix(prefix).split(".") for key in unused if match.by_suffix or key.startswith(prefix)}
    extra = [key for key, names in parts.items() if names[0] in stages and CLASSIFIER_LAYERS.isdisjoint(names)]
    if stages and (gaps or extra):
        faults = [f"{len(gaps)} of {len(needed)} weights not in the file: {abbreviate(gaps)}"] if gaps else []
        faults += [f"{len(extra)} in the file that it lacks: {abbreviate(extra)}"] if extra else []
        problem = f"weights of another backbone: of {prefix}*, {'; '.join(faults)}"
        raise CheckpointError(problem, where=where, remedy=SAME_NETWORK)
