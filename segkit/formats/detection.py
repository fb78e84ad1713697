"""`--format auto`: the format of a dataset, from the names and the first words of its files."""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from segkit.formats import coco
from segkit.formats.image_files import strip_suffix
from segkit.formats.image_io import IMAGE_SUFFIXES, TIFF_SUFFIXES
from segkit.formats.registry import READERS, get_options
from segkit.formats.runs import RunReader, find_run
from segkit.utils.errors import ConfigError, DatasetError

ADE20K_JSONS = "ade20k_panoptic_*.json"
MAX_JSONS = 100  # of a folder that are looked into
MAX_NAMES = 20  # of images that are looked for
KEYS = ("images", "annotations", "segments_info", "category_id", "video_id")  # that tell JSONs apart
FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.){1,1000}")')
LOOKED_FOR = (
    "COCO's JSON (coco-panoptic, coco-instances), VIPSeg's (vipseg), masks/ and categories.json (two-channel-png), "
    "gtFine/ (cityscapes), SegmentationClass/ (voc), annotations/training/ (ade20k), imagesTr/ (decathlon, nnunet), "
    "data.yaml or labels/*.txt (yolo), images/ and labels/ (instance-maps, semantic-maps), a JSON beside each image "
    "(labelme), predict.json or inference/ (run)"
)


@dataclass(frozen=True)
class Detection:
    """A format that a dataset may have.

    Attributes:
        format_name: key of READERS.
        options: options of its reader.
        evidence: what says so, in words.
    """

    format_name: str
    options: Mapping[str, Any]
    evidence: str


def detect_format(options: Mapping[str, Any]) -> Detection:
    """Detect the format of a dataset; no image is opened.

    Args:
        options: what the user gives: `root`, or `json` with or without `masks` and `images`, and any others.

    Returns:
        The format, its options, and why.

    Raises:
        ConfigError: no format or several formats fit; the message says what was looked for, or names these.
    """
    place = options.get("root", options.get("json", options.get("masks")))
    if place is None:
        raise ConfigError("format auto needs a dataset", remedy="give its folder (--root) or its JSON (--json)")
    detections = [d for d in _list_detections(Path(str(place)), options) if {*d.options} <= {*_list_options(d)}]
    if len(detections) == 1:
        return detections[0]
    if detections:
        texts = " or ".join(f"{d.format_name} ({d.evidence})" for d in detections)
        remedy = "name the format, or a file by --json"
        raise ConfigError(f"format auto: {place} could be {texts}", remedy=remedy)
    if not os.path.exists(place):
        raise ConfigError(f"format auto: {place} does not exist", remedy="check the path")
    problem = f"format auto: no format fits {place}; looked for {LOOKED_FOR}"
    raise ConfigError(problem, remedy="name the format; `segkit data formats` lists them")


def _list_options(detection: Detection) -> Mapping[str, Any]:
    return get_options(READERS[detection.format_name])


def _list_detections(place: Path, options: Mapping[str, Any]) -> Iterator[Detection]:
    if os.path.isfile(place):
        if place.suffix in (".yaml", ".yml"):
            yield Detection("yolo", options, place.name)
        else:
            yield from _detect_coco(place, options)
        return
    if os.path.isdir(place) and (evidence := find_run(place)):  # whose JSONs look like those of datasets
        yield Detection(RunReader.format, options, evidence)
        return
    for format_name, detect in ROOT_SIGNS.items():
        if os.path.isdir(place) and (evidence := detect(place)):
            yield Detection(format_name, _build_options(format_name, place, options), evidence)
    others = {key: value for key, value in options.items() if key != "root"}
    paths = [path for folder in ("", "annotations") for path in sorted((place / folder).glob("*.json"))]
    for path in [path for path in paths if not path.match(ADE20K_JSONS)][:MAX_JSONS]:
        yield from _detect_coco(path, {**others, "json": str(path)})


def _build_options(format_name: str, root: Path, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The given options, and those that follow from the root."""
    if format_name == "ade20k":
        return {"annotations": _choose_ade20k(root), **options}
    if format_name == "voc":  # CVAT's only set is `default`
        sets = [path.stem for path in (root / "ImageSets/Segmentation").glob("*.txt")]
        return {**({"split": sets[0]} if len(sets) == 1 else {}), **options}
    if format_name == "two-channel-png":
        paths = {"masks": "masks", "images": "images", "categories": "categories.json"}
        others = {key: value for key, value in options.items() if key != "root"}
        return {**{key: str(root / name) for key, name in paths.items()}, **others}
    return options


def _detect_coco(path: Path, options: Mapping[str, Any]) -> Iterator[Detection]:
    """What a JSON of COCO's tables is, with the folders of its images and PNGs if they are not given."""
    kind, names = _inspect_json(path)
    if not kind:
        return
    given = {key: value for key, value in options.items() if key != "root"} | {"json": str(path)}
    if kind == "coco-panoptic" and "masks" not in given:
        pngs = [f"{strip_suffix(name)}.png" for name in names if name]
        folders = (folder for folder in coco.list_places(path) if any(_is_file(folder / png) for png in pngs))
        given["masks"] = str(next(folders, path.with_suffix("")))
    masks = Path(given["masks"]) if "masks" in given else None
    for name in () if "images" in given or kind == "vipseg" else names:
        try:
            given["images"] = str(coco.find_image_root(path, [name], masks))
            break
        except (DatasetError, OSError, ValueError):
            continue
    if kind != "vipseg":  # whose reader knows its folders
        given.setdefault("images", str(path.parent / "images"))
    yield Detection(kind, given, path.name)


def _inspect_json(path: Path) -> tuple[str, list[str]]:
    """The format of a JSON of COCO's, or "", and the first file names in it; the file is searched, not parsed."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            first = content[:100].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
            keys = {
                key
                for key in ("images", "annotations", "segments_info", "category_id", "video_id")
                if _has_key(content, key)
            }
            names = [json.loads(match[1]) for match in islice(FILE_NAME.finditer(content), MAX_NAMES)]
    except (OSError, ValueError):  # an empty file, say
        return "", []
    if first == b"[" and "category_id" in keys:
        return "coco-results", names
    if first == b"{" and {"annotations", "segments_info", "video_id"} <= keys:
        return "vipseg", names
    if first != b"{" or not {"images", "annotations"} <= keys:
        return "", names
    return "coco-panoptic" if "segments_info" in keys else "coco-instances", names


def _has_key(content: mmap.mmap, key: str) -> bool:
    return content.find(f'"{key}"'.encode()) >= 0


def _find_all(root: Path, *names: str) -> str:
    """The names, if all are there."""
    return " and ".join(names) if all(os.path.exists(root / name) for name in names) else ""


def _find_first(folder: Path, suffixes: tuple[str, ...]) -> str:
    """The first file below a folder with one of the suffixes, without hidden files and classes.txt; "" for none."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(suffixes) and not name.startswith(".") and name != "classes.txt":
                return os.path.join(parent, name)
    return ""


def _find_yolo(root: Path) -> str:
    """A YAML with names and splits, or labels/*.txt."""
    for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        with path.open("rb") as file:
            text = file.read(2**20)
        if all(re.search(rb"^(%s)\s*:" % keys, text, re.MULTILINE) for keys in (b"names|nc", b"train|val|test")):
            return path.name
    return "images and labels/*.txt" if _find_all(root, "images") and _find_first(root / "labels", (".txt",)) else ""


def _find_nifti(root: Path, is_nnunet: bool) -> str:
    names = [path.name for path in islice(sorted((root / "imagesTr").glob("*.nii*")), MAX_NAMES)]
    named = [bool(re.search(r"_\d{4}\.nii", name)) for name in names]
    if not names or all(named) != is_nnunet:
        return ""
    return f"imagesTr/{names[0]}"


def _find_label_maps(root: Path, has_classes: bool) -> str:
    """images/ and labels/ of PNGs; without classes.json they may be maps of objects or of classes."""
    if not _find_all(root, "images") or not _find_first(root / "labels", (".png", *TIFF_SUFFIXES)):
        return ""
    is_named = os.path.isfile(root / "classes.json")
    if is_named and not has_classes:
        return ""
    return "images, labels and classes.json" if is_named else "images and labels/*.png, without classes.json"


def _find_labelme(root: Path) -> str:
    path = _find_first(root, (".json",))
    if not path or not _find_first(root, IMAGE_SUFFIXES):
        return ""
    with open(path, "rb") as file:
        text = file.read(2**24)
    return os.path.relpath(path, root) if b'"shapes"' in text and b'"imagePath"' in text else ""


def _find_ade20k(root: Path) -> str:
    folders = ("images/training", "images/validation")
    if not any(os.path.isdir(root / folder) for folder in folders):
        return ""
    return {"panoptic": ADE20K_JSONS, "instances": "annotations_instance"}.get(
        _choose_ade20k(root), _find_all(root, "annotations/training") or _find_all(root, "annotations/validation")
    )


def _choose_ade20k(root: Path) -> str:
    if any(root.glob(ADE20K_JSONS)):
        return "panoptic"
    return "instances" if os.path.isdir(root / "annotations_instance") else "semantic"


def _is_file(path: Path) -> bool:
    return "\0" not in str(path) and os.path.isfile(path)


ROOT_SIGNS: dict[str, Callable[[Path], str]] = {
    "cityscapes": lambda root: _find_all(root, "leftImg8bit", "gtFine"),
    "voc": lambda root: _find_all(root, "SegmentationClass", "ImageSets/Segmentation"),
    "ade20k": _find_ade20k,
    "decathlon": lambda root: _find_nifti(root, is_nnunet=False),
    "nnunet": lambda root: _find_nifti(root, is_nnunet=True),
    "two-channel-png": lambda root: _find_all(root, "masks", "images", "categories.json"),
    "yolo": _find_yolo,
    "instance-maps": lambda root: _find_label_maps(root, has_classes=False),
    "semantic-maps": lambda root: _find_label_maps(root, has_classes=True),
    "labelme": _find_labelme,
}
