"""Issues of datasets; `RULES` is the table of all codes, with severity and remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from segkit.utils import files
from segkit.utils.errors import DatasetError

NO_DIGESTS: Mapping[bytes, str] = MappingProxyType({})  # images of another split, by digest
ERROR, WARNING, NOTE = "error", "warning", "note"
KEYS = {"code", "severity", "place", "message", "remedy"}  # of an issue in a file
MAX_CHARACTERS = 1000  # of a place or a message: names in a file may be as long as the file
# How all images are processed, with the results in the order of the items: `map`, or a map over processes.
RunAll: TypeAlias = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]


class Rule(NamedTuple):
    """What a code of an issue means.

    Attributes:
        meaning: what is wrong.
        remedy: what the user can do.
        severity: `ERROR`, training or scores are wrong or impossible; `WARNING`, probably a mistake; or `NOTE`.
    """

    meaning: str
    remedy: str
    severity: str = ERROR


FETCH = "fetch or export the file again"
FIX = "--fix (COCO) repairs it"
RULES = {
    # The JSON
    "json-unreadable": Rule("the JSON is missing, not JSON, or nested too deep", FETCH),
    "json-kind": Rule("a JSON of another format", "give the right --format or file"),
    "key-missing": Rule("a key that the format needs is missing", f"add it; areas, boxes, iscrowd: {FIX}"),
    "key-missing-optional": Rule("a key that other tools need is missing", FIX, WARNING),
    "type-wrong": Rule("a value is of another type than the format has", "correct the value; --fix reads '17' as 17"),
    "number-not-finite": Rule("a number is NaN, infinite or too large", "correct it; --fix recounts areas"),
    "name-outside": Rule("a file name is empty or leads out of its folder", "name a file inside the folder"),
    "name-spelling": Rule(
        "a file name is spelled otherwise than the file: other tools miss it", f"write the file's name; {FIX}", WARNING
    ),
    "dataset-empty": Rule("the dataset has no images", "check the path and the split"),
    "dataset-unreadable": Rule("the dataset cannot be read in this format", "correct what the message says"),
    "folder-missing": Rule("a folder does not exist", "check the path"),
    "not-read": Rule("a part of the dataset is not read", "check that this is intended", NOTE),
    # Categories
    "categories-empty": Rule("the dataset has no categories", "list the categories"),
    "category-id-twice": Rule("two categories have one id", "give each a distinct id"),
    "category-name-twice": Rule("two categories have one name", "rename one, or join them", WARNING),
    "isthing-invalid": Rule("isthing of a category is not 0 or 1", "write 1 for things, 0 for stuff"),
    "class-empty": Rule("a class has no pixel or annotation", "check the labels, or drop the class", WARNING),
    "category-unknown": Rule("a category_id is not among the categories", f"add the category; {FIX} by dropping"),
    # Images
    "image-id-twice": Rule("two entries have one image id", "give each a distinct id, or drop one"),
    "file-name-twice": Rule("two entries have one image file", "drop one of the entries"),
    "size-invalid": Rule("height or width of an entry is below 1 pixel, or too large", "write the size of the image"),
    "image-missing": Rule("an entry has no image file", "complete the download, or drop the entry"),
    "image-orphan": Rule("an image file has no entry", "annotate it, or move it away", WARNING),
    "image-unreadable": Rule("an image is damaged, truncated or of another kind", FETCH),
    "image-too-large": Rule("an image claims more pixels than is safe to decode", "replace it; cut it into tiles"),
    "image-rotated": Rule(
        "EXIF rotates the image: tools disagree on its pixels",
        "save it rotated, if the mask fits the rotated image",
        WARNING,
    ),
    "image-deep": Rule(
        "an image of more than 8 bits: other tools may clip it", "check that they scale the values", NOTE
    ),
    "image-twice": Rule("two image files of the split show the same pixels", "drop one", WARNING),
    "image-shared": Rule("another split has an image of the same pixels", "keep it in one split only"),
    "size-differs": Rule("image, entry and mask differ in size", "correct the entry, or export the mask again"),
    # Annotations
    "annotations-empty": Rule("the dataset has images but no annotations", "check the path and the split", WARNING),
    "image-without-annotation": Rule("an image has no annotation", f"annotate it; {FIX}"),
    "annotation-without-image": Rule("an annotation has no image entry", f"add the entry; {FIX} by dropping"),
    "annotation-twice": Rule("an image has two annotations", "keep one"),
    "annotation-id-twice": Rule("two annotations have one id", f"give each a distinct id; {FIX}"),
    "annotation-unreadable": Rule("the annotation of an image is damaged or contradicts itself", "correct it"),
    "affine-differs": Rule(
        "the affine of a label or channel puts it off its image's grid",
        "for labels in the image's order, --set label_affine=image takes the image's header; resample others",
    ),
    # Panoptic PNGs
    "png-missing": Rule("the PNG or file of an annotation is missing", "complete the download, or drop it"),
    "png-orphan": Rule("a PNG has no annotation", "annotate it, or move it away", WARNING),
    "png-name-twice": Rule("two annotations have one PNG", "give each its own PNG"),
    "png-unreadable": Rule("a PNG is damaged, truncated or of another kind", FETCH),
    "png-not-rgb": Rule("a PNG is not 8-bit RGB", f"save as RGB, id = R + 256 G + 65536 B; {FIX} for palettes, RGBA"),
    "png-id-unknown": Rule("a PNG has a segment id that the JSON lacks", f"add the segment; {FIX}: it becomes void"),
    # Segments
    "segment-not-in-png": Rule("the JSON has a segment id that the PNG lacks", f"drop the segment; {FIX}"),
    "segment-empty": Rule("a segment has no pixel", f"drop it; {FIX}"),
    "segment-tiny": Rule("a segment of one pixel", "if it is a mistake of the annotator, drop it", WARNING),
    "segment-id-void": Rule("a segment has the id 0, which is void", "give it its id of the PNG"),
    "segment-id-range": Rule("a segment id is outside 1..16777215", "give it its id of the PNG"),
    "segment-id-twice": Rule(
        "two segments of an image have one id", f"give each a distinct id; {FIX} if area and box identify them"
    ),
    "iscrowd-invalid": Rule("iscrowd is not 0 or 1", "write 0 or 1"),
    "crowds-only": Rule(
        "every annotation of the dataset is a crowd",
        "write iscrowd 0 for single objects: some tools export 1 for masks",
    ),
    "crowd-of-stuff": Rule("stuff is marked as a crowd, so that metrics ignore it", "write iscrowd 0"),
    "stuff-split": Rule("a stuff class has several segments in an image", f"merge them; {FIX}"),
    "area-wrong": Rule("an area differs from the mask", f"recount it; {FIX}"),
    "box-invalid": Rule("a bbox is not [x, y, width, height]", f"recount it; {FIX}"),
    "box-wrong": Rule("a bbox is not the tight box of the mask", f"recount it; {FIX}"),
    "box-outside": Rule("a bbox reaches beyond the image", f"recount it; {FIX}"),
    "all-void": Rule("no pixel of the image has a label", "annotate the image, or drop it", WARNING),
    # Masks of instances
    "polygon-short": Rule("a polygon has fewer than three points", f"drop it; {FIX}"),
    "mask-twice": Rule("two annotations of an image have the same category, box and mask", "drop one", WARNING),
    "coordinates-relative": Rule(
        "coordinates are in 0..1, not in pixels", "multiply x by the width and y by the height of the image"
    ),
    "mask-outside": Rule("a polygon reaches beyond the image", f"cut it off at the border; {FIX}"),
    "mask-flat": Rule("a shape has no area, only an outline", "draw it again, or drop it", WARNING),
    "objects-merged": Rule(
        "values of an instance map are in many pieces: is it a binary mask, or a map of classes?",
        "--set connected_components=true makes each piece an object; read classes as semantic-maps",
        WARNING,
    ),
    "map-blurred": Rule(
        "an instance map has values that are only at borders", "save it again as PNG, without interpolation", WARNING
    ),
    "outline-missing": Rule(
        "an object has a box but no outline", "export the dataset for segmentation, with masks or polygons"
    ),
    "mask-form": Rule("a segmentation is a mask, but not in COCO's form", f"write it in COCO's form; {FIX}"),
    "mask-invalid": Rule("a segmentation is neither polygons nor run lengths", "correct or drop it"),
    "rle-size": Rule("run lengths have another size than the image", "encode the mask again"),
}


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong with a dataset.

    Attributes:
        code: a key of `RULES`.
        place: file, image and entry, as words.
        message: what was expected and what came.
    """

    code: str
    place: str
    message: str

    @property
    def severity(self) -> str:
        """Severity of the code: error, warning or note."""
        return RULES[self.code].severity

    def to_json(self) -> dict[str, str]:
        """Build the entry of a JSON file.

        Returns:
            code, severity, place, message and remedy.
        """
        rule = RULES[self.code]
        head = {"code": self.code, "severity": rule.severity, "place": self.place}
        return {**head, "message": self.message, "remedy": rule.remedy}


class IssueList(list[Issue]):
    """A list of issues in the order in which they were found."""

    def add(self, code: str, place: object, message: str) -> None:
        """Add an issue.

        Args:
            code: a key of `RULES`.
            place: file, image and entry, as words.
            message: what is wrong.
        """
        RULES[code]  # KeyError for another code
        self.append(Issue(code, _printable(str(place)), _printable(message)))

    def add_error(self, code: str, error: DatasetError) -> None:
        """Add what a reader refuses, as its `on_issue`.

        Args:
            code: a key of `RULES`.
            error: has the place and the message.
        """
        self.add(code, error.where, error.problem)

    def __add__(self, issues: list[Issue]) -> IssueList:  # type: ignore[override]
        return IssueList([*self, *issues])

    def has_errors(self) -> bool:
        """Look for errors.

        Returns:
            Whether an issue has the severity error.
        """
        return any(issue.severity == ERROR for issue in self)


def write_issues(path: str | Path, issues: Iterable[Issue]) -> None:
    """Write a JSON list of issues, atomically.

    Args:
        path: the JSON.
        issues: the issues.
    """
    path = Path(path)
    files.dump_json(path, [issue.to_json() for issue in issues])


def is_issues_file(path: Path) -> bool:
    """Recognize a file of `write_issues`.

    Args:
        path: any path.

    Returns:
        Whether the file is a JSON list of issues; False if it is missing or cannot be read.
    """
    try:
        content = files.load_json(path) if files.read_bytes(path, 1) == b"[" else None
    except (DatasetError, MemoryError):
        return False
    return type(content) is list and all(type(entry) is dict and {*entry} == KEYS for entry in content)


def _printable(text: str) -> str:
    """One line that every terminal and file can show: names in a user's JSON may be anything."""
    line = " ".join(text.encode("utf-8", "backslashreplace").decode("utf-8").split())
    return line if len(line) <= MAX_CHARACTERS else f"{line[:MAX_CHARACTERS]}..."
