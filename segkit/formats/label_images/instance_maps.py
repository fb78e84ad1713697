"""Instance label maps, as microscopy uses them: images/NAME.png and labels/NAME.png, 0 = background, 1..N = objects."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.formats import base, png
from segkit.formats.bands import RGB
from segkit.formats.base import DatasetImage, UnfitImageError
from segkit.formats.derive import relabel
from segkit.formats.image_files import LabelFilesWriter
from segkit.formats.label_images.label_maps import IMAGES, LABELS, LabelMapReader, resolve_folders
from segkit.formats.splits import VAL_SHARE, Split
from segkit.structures import Category, CategorySet, IdRuns, PanopticSegmentation, Segment, default_color
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.issues import IssueHandler, raise_issue
from segkit.utils.json_fields import Location
from segkit.utils.text import abbreviate, suggest

THING_ID, BACKGROUND_ID = 1, 2  # category ids
BACKGROUND_COLOR = (64, 64, 64)
MAX_OBJECTS = np.iinfo(np.uint16).max
MANY_PIECES = 4  # pieces of each value, on average: more than objects have that others cut
SLIVER_SHARE, MIN_SLIVERS = 0.5, 10  # of the values of a map; of a few small objects nothing follows


class InstanceMapReader(LabelMapReader):
    """Images and maps of objects: 0 is background, any other value one object with all its pieces, and its segment_id.

    Args:
        root: Folder that holds the images and the label maps.
        images: Folder of the images below root.
        labels: Folder of the label maps below root, greyscale or palette PNGs or TIFFs.
        thing: Name of category 1, the objects.
        background: Name of the stuff category 2; None makes the background void.
        connected_components: Whether each connected piece (8 neighbours) of a value is an object, as for binary masks.
        split: "train" or "val", by the hash of the names; None for all images.
        val_share: Share of the names in "val", 0..1.
        channels: Of the images: 3 for RGB; others for .npy arrays and TIFFs of so many bands or pages.
        on_issue: Gets images without map, maps without image, and files that cannot be opened or differ in size. Raises
            by default.

    Raises:
        DatasetError: A folder is missing, empty or outside root.
        ConfigError: The options contradict each other.
    """

    format = "instance-maps"

    def __init__(
        self,
        root: str | Path,
        *,
        images: str = IMAGES,
        labels: str = LABELS,
        thing: str = "object",
        background: str | None = "background",
        connected_components: bool = False,
        split: Split | None = None,
        val_share: float = VAL_SHARE,
        channels: int = RGB,
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        names = [thing] if background is None else [thing, background]
        if not all(isinstance(name, str) and name for name in names) or thing == background:
            raise ConfigError(f"expected two names for thing and background, got {thing!r} and {background!r}")
        if type(connected_components) is not bool:
            raise ConfigError(f"expected connected_components to be true or false, got {connected_components!r}")
        self._splits_pieces = connected_components
        super().__init__(Path(root), images, labels, split, val_share, channels, on_issue)
        categories = [Category(THING_ID, thing, True, default_color(THING_ID))]
        if background is not None:
            categories.append(Category(BACKGROUND_ID, background, False, BACKGROUND_COLOR))
        self.categories = CategorySet(categories)

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class. Objects come by ascending value, then the background with the id after the last."""
        values = self._read_map(image)
        if self._splits_pieces:
            values = number_pieces(values)[0]
        areas_px = IdRuns.from_map(values).areas_px()
        background_px = areas_px.pop(0, 0)
        segments = [Segment(value, THING_ID, True, area_px) for value, area_px in areas_px.items()]
        if background_px and BACKGROUND_ID in self.categories:
            segment_id = max(areas_px, default=0) + 1
            values[values == 0] = segment_id
            segments.append(Segment(segment_id, BACKGROUND_ID, False, background_px))
        return PanopticSegmentation(values, tuple(segments))

    def check_annotation(self, image: DatasetImage, on_issue: IssueHandler) -> None:
        """See base class: values that are several objects, and values that are none."""
        values = self._read_map(image)
        objects = np.unique(values[values > 0])
        if not objects.size or self._splits_pieces:
            return
        _, pieces = number_pieces(values)
        place = self._maps[str(image.image_id)]
        if objects.size >= MIN_SLIVERS and (share := _count_slivers(values) / objects.size) > SLIVER_SHARE:
            problem = (
                f"{share:.0%} of its {objects.size} values have no pixel inside, as if it were interpolated or JPEG"
            )
            on_issue("map-blurred", DatasetError(problem, where=place))
        elif (objects.size == 1 and pieces > 1) or pieces >= MANY_PIECES * objects.size:
            kind = "a binary mask" if objects.size == 1 else "a map of classes"
            problem = f"{objects.size} values in {pieces} connected pieces, as if it were {kind}"
            on_issue("objects-merged", DatasetError(problem, where=place))


def number_pieces(values: NDArray[np.int32]) -> tuple[NDArray[np.int32], int]:
    """Number the connected pieces of equal values.

    Args:
        values: (H, W), 0 for background.

    Returns:
        (H, W) int32 numbers from 1 on, by value and then by first pixel; 0 for background. And how many there are.
    """
    numbers, count = np.zeros_like(values), 0
    for value, (area_px, (left, top, width, height)) in IdRuns.from_map(values).extents().items():
        if value and area_px:
            box = np.s_[top : top + height, left : left + width]
            mask = (values[box] == value).astype(np.uint8)
            found, pieces = cv2.connectedComponents(mask, connectivity=8, ltype=cv2.CV_32S)
            numbers[box][mask > 0] = pieces[mask > 0] + count
            count += found - 1
    return numbers, count


def _count_slivers(values: NDArray[np.int32]) -> int:
    """The number of values that touch another one, and have no pixel whose 8 neighbours have its value too."""
    height, width = values.shape
    centre = values[1:-1, 1:-1]
    is_inside, touches = np.ones(centre.shape, dtype=np.bool_), np.zeros(centre.shape, dtype=np.bool_)
    for y, x in np.ndindex(3, 3):
        neighbour = values[y : height - 2 + y, x : width - 2 + x]
        is_inside &= neighbour == centre
        touches |= (neighbour != centre) & (neighbour > 0) & (centre > 0)
    return len(np.setdiff1d(centre[touches], centre[is_inside]))


class InstanceMapWriter(LabelFilesWriter):
    """Writes <root>/<labels>/NAME.png, image by image: 8-bit greyscale up to 255 objects, otherwise 16-bit.

    Args:
        root: Folder to write to.
        categories: Categories of the segmentations, with different names.
        images: Folder of the images below root.
        labels: Folder of the label maps below root.
        thing: Name of the objects' category, by default the first thing; objects of other things lose their class.
        background: Name of the stuff category that 0 stands for; if no category has it, 0 stands for void.

    Raises:
        DatasetError: There are no things, none has the name, or a folder is outside root.
        ConfigError: Both folders are the same.
    """

    def __init__(
        self,
        root: str | Path,
        categories: CategorySet,
        *,
        images: str = IMAGES,
        labels: str = LABELS,
        thing: str | None = None,
        background: str = "background",
    ) -> None:
        super().__init__(root, categories)
        self.image_root, self._label_root = resolve_folders(self.root, images, labels)
        base.check_has_things(categories, root)
        things = {c.name: c.category_id for c in categories.things}
        if thing is not None and thing not in things:
            problem = f"expected a thing category {thing!r}, got {abbreviate(things)}"
            raise DatasetError(problem, where=root, remedy=suggest(thing, things))
        self._thing_id = categories.things[0].category_id if thing is None else things[thing]
        self._background_id = {c.name: c.category_id for c in categories.stuff}.get(background)

    def _write(
        self, image: DatasetImage, name: str, segmentation: PanopticSegmentation, areas_px: dict[int, int]
    ) -> list[str]:
        """Objects are numbered 1..N in the order of the segments; crowds and stuff become 0."""
        objects = [s for s in segmentation.segments if s.isthing and not s.iscrowd and s.segment_id in areas_px]
        if len(objects) > MAX_OBJECTS:
            problem = f"expected at most {MAX_OBJECTS} objects, got {len(objects)}"
            raise UnfitImageError(problem, where=Location(self.root, image.image_id))
        values = {s.segment_id: value for value, s in enumerate(objects, 1)}
        png.write_labels(self._label_root / f"{name}.png", relabel(segmentation.segment_ids, values, np.uint16))
        losses = [loss for s in segmentation.segments if (loss := self._describe_loss(s, areas_px))]
        void_px = segmentation.segment_ids.size - sum(areas_px.values())
        if void_px and self._background_id is not None:
            losses.append(f"void: {void_px} pixels become background")
        return losses

    def _describe_loss(self, segment: Segment, areas_px: dict[int, int]) -> str:
        """The line on the loss of a segment; "" if the map holds all of it."""
        name = self.categories[segment.category_id].name
        loss = ""
        if segment.segment_id not in areas_px:
            loss = "it has no pixel"
        elif segment.iscrowd:
            loss = "crowds cannot be held"
        elif segment.isthing and segment.category_id != self._thing_id:
            loss = f"its class {name} cannot be held, objects have one class"
        elif not segment.isthing and segment.category_id != self._background_id:
            loss = f"the stuff {name} cannot be held"
        return f"segment {segment.segment_id}: {loss}" if loss else ""
