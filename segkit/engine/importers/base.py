"""What a source of weights is, and the registry of the sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from segkit.utils.errors import CheckpointError, ConfigError
from segkit.utils.text import abbreviate, suggest

Weights = dict[str, torch.Tensor]
Shapes = Mapping[str, tuple[int, ...]]
BOTTOM_UP = "backbone.bottom_up."
BASE = "base"  # entry of the weights that a file of differences belongs to


@dataclass
class ConvertedWeights:
    """Weights under the names of a model of ours, and the config that the model needs.

    Attributes:
        weights: name in our model -> tensor.
        recipe: the recipe that the config extends.
        keys: config key -> value, beside the recipe; not the class counts, which follow from the classes.
        things: thing classes of the heads for boxes and masks; 0 without such heads.
        channels: channels of the semantic head; 0 without one.
        classes: key of `known_classes.KNOWN_CLASSES`; "" if the source does not say.
        source_names: name in our model -> name in the source, of tensors that were renamed.
        dropped: name in the source -> why our model has no use for it.
        notes: sentences on differences that remain, and on what was assumed.
        unknown: why recipe and keys were not found, so that the user has to give a config.
    """

    weights: Weights
    recipe: str = ""
    keys: dict[str, Any] = field(default_factory=dict)
    things: int = 0
    channels: int = 0
    classes: str = ""
    source_names: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unknown: CheckpointError | None = None


@dataclass(frozen=True)
class WeightSource:
    """A kind of weights of another package.

    Attributes:
        name: as `--from` takes it.
        summary: what it reads, in words.
        matches: (names and shapes in the file, other entries of the file) -> whether the weights are of this source.
        convert: (weights, other entries of the file) -> the weights as ours. Those of --base are the entry `BASE`.
        base: of sources that may be differences from other weights, these in words.
    """

    name: str
    summary: str
    matches: Callable[[Shapes, Mapping[str, Any]], bool]
    convert: Callable[[Weights, Mapping[str, Any]], ConvertedWeights]
    base: str = ""


_sources: dict[str, WeightSource] = {}


def register_source(source: WeightSource) -> None:
    """Add a source to the registry.

    Args:
        source: the source; it replaces one of the same name.
    """
    _sources[source.name] = source


def get_sources() -> dict[str, WeightSource]:
    """List the sources.

    Returns:
        name -> source.
    """
    return dict(_sources)


def find_source(weights: Weights, entries: Mapping[str, Any], name: str, where: object) -> WeightSource:
    """Choose the source of weights.

    Args:
        weights: the tensors of the file.
        entries: other entries of the file.
        name: the source that the user names; "": recognised from names and shapes.
        where: the file, for messages.

    Returns:
        The source.

    Raises:
        ConfigError: there is no source of this name.
        CheckpointError: the weights are of no known source, or not of the named one.
    """
    if name and name not in _sources:
        remedy = suggest(name, _sources, f"choose one of {', '.join(_sources)}")
        raise ConfigError(f"the source {name!r} is unknown", where="--from", remedy=remedy)
    shapes = {key: tuple(weight.shape) for key, weight in weights.items()}
    matching = [source for source in _sources.values() if source.matches(shapes, entries)]
    if name and _sources[name] not in matching:
        likely = f"; they look like those of {matching[0].name}" if matching else ""
        problem = f"expected weights of {_sources[name].summary}, got {abbreviate(shapes)}{likely}"
        raise CheckpointError(problem, where=where, remedy="leave out --from, to let the source be recognised")
    if not matching:
        known = ", ".join(source.summary for source in _sources.values())
        problem = f"expected weights of {known}, got {abbreviate(shapes) or 'no tensors'}"
        raise CheckpointError(problem, where=where, remedy="load the weights by the package that has saved them")
    return _sources[name] if name else matching[0]


def rename(weights: Weights, translate: Callable[[str], str]) -> tuple[Weights, dict[str, str]]:
    """Rename tensors.

    Args:
        weights: the tensors.
        translate: name in the source -> name in our model.

    Returns:
        (the tensors under our names, our name -> name in the source where they differ).

    Raises:
        CheckpointError: two tensors have one name in our model.
    """
    names: dict[str, str] = {}
    for name in weights:
        if (ours := translate(name)) in names:
            problem = f"{names[ours]} and {name} are both {ours} of our model"
            raise CheckpointError(problem, remedy="remove one of the two from the file")
        names[ours] = name
    renamed = {ours: weights[name] for ours, name in names.items()}
    return renamed, {ours: name for ours, name in names.items() if ours != name}
