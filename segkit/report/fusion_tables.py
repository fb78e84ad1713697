"""Tables for the terminal: the options of a fusion method, and the surest occlusion priors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rich.table import Table
from rich.text import Text

from segkit.fusion import FusionMethod
from segkit.fusion.occlusion_priors import OcclusionPriors

MAX_PAIRS = 20


def method_table(name: str, method: type[FusionMethod], defaults: Mapping[str, Any]) -> tuple[Table, Text]:
    """The options of a fusion method, and what the method does and needs.

    Args:
        name: name of the method, as in `FUSION_METHODS`.
        method: class of the method.
        defaults: option -> default value.

    Returns:
        The table of options, and a sentence to print below it.
    """
    summary = " ".join((method.__doc__ or "").split("\n\n")[0].split())
    needs = ", ".join(sorted(method.needs)) or "crops and the best semantic channel of each pixel"
    table = Table("option", "type", "default", title=Text(name, style="bold"), title_justify="left")
    for field in fields(method):  # type: ignore[arg-type]
        type_name = field.type if isinstance(field.type, str) else field.type.__name__
        table.add_row(Text(field.name), Text(type_name), Text(repr(defaults[field.name])))
    return table, Text(f"{summary} Needs {needs}.")


def priors_table(priors: OcclusionPriors) -> Table | str:
    """The `MAX_PAIRS` pairs of classes of which one occludes the other most surely.

    Args:
        priors: the counted occlusions.

    Returns:
        A table, sorted by probability, then by the number of occlusions; a sentence if no objects overlap.
    """
    names = dict(priors.things)
    pairs = [(priors.occlusion_probability(*pair), wins, pair) for pair, wins in priors.counts.items() if wins]
    if not pairs:
        return "No two objects of different classes overlap: there is nothing to learn."
    table = Table("in front", "behind", title="The surest pairs")
    for column in ("times", "the other way", "probability"):
        table.add_column(column, justify="right")
    for probability, wins, (front, behind) in sorted(pairs, key=lambda row: (-row[0], -row[1], row[2]))[:MAX_PAIRS]:
        losses = priors.counts.get((behind, front), 0)
        table.add_row(Text(names[front]), Text(names[behind]), str(wins), str(losses), f"{probability:.2f}")
    return table
