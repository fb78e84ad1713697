"""Tables for the terminal: the options of a fusion method, and the clearest occlusion priors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rich.table import Table
from rich.text import Text

from segkit.fusion import FusionMethod
from segkit.fusion.occlusion_priors import OcclusionPriors
from segkit.report.tables import build_table

MAX_PAIRS = 20


def method_table(name: str, method: type[FusionMethod], defaults: Mapping[str, Any]) -> tuple[Table, Text]:
    """List the options of a fusion method, and say what the method does and needs.

    Args:
        name: Name of the method, as in `FUSION_METHODS`.
        method: Class of the method.
        defaults: Option -> default value.

    Returns:
        The table of options, and a sentence to print below it.
    """
    summary = " ".join((method.__doc__ or "").split("\n\n")[0].split())
    needs = ", ".join(sorted(method.needs)) or "crops and the best semantic channel of each pixel"
    rows = []
    for field in fields(method):  # type: ignore[arg-type]
        type_name = field.type if isinstance(field.type, str) else field.type.__name__
        rows.append((field.name, {"type": type_name, "default": repr(defaults[field.name])}))
    return build_table(name, "option", rows, left=("type", "default")), Text(f"{summary} Needs {needs}.")


def priors_table(priors: OcclusionPriors) -> Table | str:
    """List the `MAX_PAIRS` pairs of classes with the highest probability that the first occludes the second.

    Args:
        priors: The counted occlusions.

    Returns:
        A table, sorted by probability, then by the number of occlusions; a sentence if no objects overlap.
    """
    names = dict(priors.things)
    pairs = [(priors.occlusion_probability(*pair), times, pair) for pair, times in priors.counts.items() if times]
    if not pairs:
        return "No two objects of different classes overlap: there is nothing to learn."
    rows = []
    for probability, times, (front, behind) in sorted(pairs, key=lambda row: (-row[0], -row[1], row[2]))[:MAX_PAIRS]:
        reverse = priors.counts.get((behind, front), 0)
        row = {"behind": names[behind], "times": times, "the other way": reverse, "probability": probability}
        rows.append((names[front], row))
    return build_table("The clearest pairs", "in front", rows, decimals=2, left=("behind",))
