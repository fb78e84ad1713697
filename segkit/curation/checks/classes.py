"""Checks of the classes of a dataset: which of them no image has, and whether all objects are crowds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

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


def report_only_crowds(objects: int, crowds: int, what: str, place: object, issues: IssueList) -> None:
    """Report that all labels are crowds, as an issue with the code `crowds-only`.

    Args:
        objects: number of labels that are no crowds.
        crowds: number of crowds.
        what: text for what a label is, such as "annotation".
        place: the dataset, for the issue.
        issues: gets the issue.
    """
    if crowds and not objects:
        message = f"all {crowds} {what}s are crowds (iscrowd 1), on which no object is trained or scored"
        issues.add("crowds-only", place, message)


def report_labels(
    names: Mapping[int, str], entries: Iterable[Mapping[str, Any]], what: str, place: object, issues: IssueList
) -> None:
    """Report that all labels of a COCO JSON are crowds, and the classes without any label.

    Nothing is reported without labels: `annotations-empty` says so.

    Args:
        names: name of each class by category_id.
        entries: annotations or segments, which may be invalid.
        what: text for what an entry is, such as "annotation".
        place: the dataset, for the issues.
        issues: gets the issues.
    """
    pairs: Iterable[tuple[Any, Any]] = ((entry.get("category_id"), entry.get("iscrowd")) for entry in entries)
    labels = [pair for pair in pairs if type(pair[0]) is int and pair[0] in names]
    if not labels:
        return
    crowds = sum(iscrowd in (1, True) for _, iscrowd in labels)
    report_only_crowds(len(labels) - crowds, crowds, what, place, issues)
    report_empty_classes(names, {category_id for category_id, _ in labels}, what, place, issues)
