"""Image ids that are written in two ways: integers against texts, with and without leading zeros, file names."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from segkit.utils.errors import DatasetError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def find_rewritten(missing: Iterable[object], extra: Iterable[object]) -> dict[object, object]:
    """Pair ids that differ in nothing but how they are written: `139`, "139", "000000000139", "000000000139.jpg".

    Args:
        missing: Ids of the ground truth that have no prediction.
        extra: Ids of predictions that the ground truth lacks.

    Returns:
        Id of a prediction -> id of the ground truth, in the order of `extra`.
    """
    by_form: dict[str, object] = {}
    for image_id in missing:
        by_form.setdefault(_normalize(image_id), image_id)
    return {image_id: by_form[form] for image_id in extra if (form := _normalize(image_id)) in by_form}


def describe_rewritten(where: Path, rewritten: dict[object, object], predictions: Collection[object]) -> DatasetError:
    """Build the error of ids that `find_rewritten` paired.

    Args:
        where: The file of the predictions.
        rewritten: Id of a prediction -> id of the ground truth, at least one.
        predictions: All ids of the predictions.

    Returns:
        The error, with an example of both and the remedy.
    """
    got, expected = next(iter(rewritten.items()))
    kinds = [
        f"{image_id!r} ({'a text' if isinstance(image_id, str) else 'an integer'})" for image_id in (expected, got)
    ]
    problem = f"{len(rewritten)} of {len(predictions)} image ids are written in another way than in the ground truth"
    problem = f"{problem}: expected {kinds[0]}, got {kinds[1]}"
    if not isinstance(expected, str):
        remedy = "write integers, without quotes and leading zeros"
    elif isinstance(got, str):
        remedy = "write them letter by letter as in the ground truth"
    else:
        remedy = "write texts in quotes, with all zeros"
    return DatasetError(problem, where=where, remedy=remedy)


def _normalize(image_id: object) -> str:
    text = str(image_id).strip()
    path = PurePosixPath(text)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        text = path.stem if path.stem.isdecimal() else str(path.with_suffix(""))
    return (text.lstrip("0") or "0") if text.isdecimal() else text
