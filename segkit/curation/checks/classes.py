"""Check of the classes of a dataset: which of them no image has."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from segkit.curation.issues import IssueList
from segkit.utils.text import abbreviate


def report_empty_classes(
    names: Mapping[int, str], used: Collection[int], what: str, place: object, issues: IssueList, hint: str = ""
) -> None:
    """Report the classes that no image has, as one issue with the code `class-empty`.

    Args:
        names: name of each class by category_id.
        used: category ids that images have.
        what: text for what the classes lack, such as "pixel" or "annotation".
        place: the dataset, for the issue.
        issues: gets the issue.
        hint: text for what may be the cause.
    """
    empty = [name for category_id, name in names.items() if category_id not in used]
    if empty:
        verb = "has" if len(empty) == 1 else "have"
        message = f"{len(empty)} of {len(names)} classes {verb} no {what}: {abbreviate(empty)}"
        issues.add("class-empty", place, f"{message}; {hint}" if hint else message)
