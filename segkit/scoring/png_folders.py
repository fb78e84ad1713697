"""Where the PNGs of a panoptic JSON are: the folder that is named, or the place where datasets and tools put it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from segkit.formats.coco import list_places
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames

PROBES = 3  # PNGs that are looked for in a folder; any of them is enough, since one may be missing


def find_png_folder(
    json_path: str | Path, folder: str | Path | None, png_names: Iterable[str], is_prediction: bool = False
) -> Path:
    """Find the folder of the PNGs of a panoptic JSON.

    Args:
        json_path: The panoptic JSON.
        folder: The folder that the user names; None looks for it at the places of `list_places`. The first that holds
            one of the first PNGs is taken, else the one beside the JSON that is named like it.
        png_names: Names of the PNGs, as in the JSON.
        is_prediction: Whether the JSON holds predictions, not ground truth.

    Returns:
        The folder.

    Raises:
        DatasetError: The folder does not exist, or no place holds the PNGs: the message lists the places.
    """
    option = "--pred-folder" if is_prediction else "--gt-folder"
    if folder is not None:
        if not Path(folder).is_dir():
            raise DatasetError("no such folder of PNGs", where=folder, remedy=f"name another ({option})")
        return Path(folder)
    places, names = list_places(Path(json_path), is_prediction), [*islice(png_names, PROBES)]
    found = next((place for place in places if _holds_any(place, names)), None)
    if found is not None:
        return found
    if places[0].is_dir():
        return places[0]
    looked_at = ", ".join(str(place) for place in places[1:])
    problem = f"no such folder of PNGs, and no PNGs of {Path(json_path)} in {looked_at}"
    raise DatasetError(problem, where=places[0], remedy=f"name the folder ({option})")


def _holds_any(folder: Path, names: Sequence[str]) -> bool:
    return any(FolderNames(folder).find(name) for name in names)
