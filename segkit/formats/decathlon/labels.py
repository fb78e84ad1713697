"""The labels of a Decathlon task: their names, and which of them are things."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Collection, Mapping
from pathlib import Path

from segkit.formats.decathlon.files import TABLE
from segkit.formats.decathlon.slices import MAX_LABEL
from segkit.structures import CategorySet, default_color
from segkit.utils import json_fields
from segkit.utils.errors import ConfigError, DatasetError, SegkitError
from segkit.utils.text import abbreviate

BACKGROUND = 0


def label_names(
    labels: Mapping[int | str, str] | None, table: json_fields.Entry | None, root: Path
) -> dict[int, str] | None:
    """The name of every label, of the option or else of dataset.json, None where there is neither.

    Raises ConfigError of the option, DatasetError of the table, where labels are not distinct integers in 0..MAX_LABEL,
    or a name is no text.
    """
    if labels is None and table is None:
        return None
    error: type[SegkitError] = DatasetError if labels is None else ConfigError
    where = root / TABLE if labels is None else "`labels`"
    given = table.get("labels") if labels is None and table is not None else labels
    if not isinstance(given, Mapping) or not given:
        raise error(f"expected `labels` to be {{label: name}}, got {reprlib.repr(given)}", where=where)
    names: dict[int, str] = {}
    for key, name in given.items():
        label = int(key) if re.fullmatch("[0-9]{1,5}", str(key), re.ASCII) else -1
        if not 0 <= label <= MAX_LABEL or label in names or not isinstance(name, str) or not name:
            expected = f"a different integer in 0..{MAX_LABEL} and a name for each label"
            raise error(f"expected {expected}, got {reprlib.repr({key: name})}", where=where)
        names[label] = name
    return names


def categories_of(names: Mapping[int, str], things: Collection[str], root: Path) -> CategorySet:
    """Categories by label, with the background, which is stuff; ConfigError where `things` names none of the others."""
    names = {BACKGROUND: "background", **names}
    foreground = [name for label, name in names.items() if label != BACKGROUND]
    if strange := sorted(set(things) - set(foreground)):
        known = abbreviate(foreground)
        raise ConfigError(f"expected `things` to be among the labels {known}, got {abbreviate(strange)}")
    entries = [
        {
            "id": label,
            "name": name,
            "isthing": name in things and label != BACKGROUND,
            "color": (0, 0, 0) if label == BACKGROUND else default_color(label),
        }
        for label, name in sorted(names.items())
    ]
    return CategorySet.from_coco(entries, root)
