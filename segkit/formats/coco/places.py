"""Where the images and PNGs of COCO's JSON files are, in COCO's own tree and in those of tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames

PREFIXES = PREFIX, INSTANCES_PREFIX = "panoptic_", "instances_"  # of COCO's JSONs and folders
EXPORTS = ("panoptic", "panoptic_seg", "panoptic_predictions", "predictions")  # of predictions


def find_image_root(json_path: str | Path, file_names: Sequence[str], png_folder: str | Path | None = None) -> Path:
    """Find the folder of the images where datasets in COCO's format usually have it.

    For PNGs in `R/panoptic_val2017` or `R/annotations/panoptic_val2017`, or the JSON `R/annotations/instances_val2017`,
    these are R/val2017, R/images/val2017, R/images and R, then the same folders beside the JSON. The folder of the PNGs
    is not searched, since images may have the names of the PNGs.

    Args:
        json_path: path of the JSON.
        file_names: the images' names in the JSON; the first is looked for.
        png_folder: folder of the PNGs of a panoptic JSON.

    Returns:
        The first folder that holds the first image.

    Raises:
        DatasetError: no folder holds it; the message lists the folders.
    """
    json_path = Path(json_path)
    png_folder = None if png_folder is None else Path(png_folder)
    stem = json_path.stem if png_folder is None else png_folder.name
    for prefix in PREFIXES:
        stem = stem.removeprefix(prefix)
    bases = [] if png_folder is None else [png_folder.parent, png_folder.parent.parent]
    bases += [json_path.parent, json_path.parent.parent]
    folders = [base / inner for base in bases for inner in (stem, f"images/{stem}", "images", ".")]
    folders = [folder for folder in dict.fromkeys(folders) if folder != png_folder]
    for folder in folders:
        if file_names and (folder / file_names[0]).is_file():
            return folder
    for folder in folders:  # later: it lists each folder
        if file_names and FolderNames(folder).find(file_names[0]):
            return folder
    raise DatasetError(
        f"cannot find the image {file_names[0] if file_names else ''} in {', '.join(map(str, folders))}",
        where=json_path,
        remedy="give the folder of the images (`images` or `image_root`)",
    )


def list_places(json_path: str | Path, is_prediction: bool = False) -> list[Path]:
    """List the folders that may hold the PNGs of a panoptic JSON.

    Args:
        json_path: `X.json` or `panoptic_X.json`.
        is_prediction: Whether the JSON holds predictions: only these are beside a folder with the name of an export.

    Returns:
        The folders, the likeliest first: the JSON's name without `.json` beside it, one folder up and in that folder's
        `annotations/`; the name with and without "panoptic_"; of predictions `EXPORTS`; the JSON's own folder.
    """
    json_path = Path(json_path)
    parent, stem = json_path.parent, json_path.stem
    above = parent / ".." if parent.name in ("", "..") else parent.parent
    other_stem = stem.removeprefix(PREFIX) if stem.startswith(PREFIX) else PREFIX + stem
    places = [parent / stem, above / stem, parent / stem / stem, parent / "annotations" / stem]
    places += [parent / other_stem, above / other_stem, *(parent / name for name in EXPORTS if is_prediction), parent]
    return [*dict.fromkeys(places)]
