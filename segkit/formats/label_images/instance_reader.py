"""Instance label maps, as microscopy uses them: images/NAME.png and labels/NAME.png, 0 = background, 1..N = objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.label_images.pairs import find_pairs
from segkit.formats.splits import Split
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment
from segkit.structures.categories import default_color
from segkit.utils.errors import ConfigError
from segkit.utils.issues import IssueHandler, raise_issue

THING_ID, BACKGROUND_ID = 1, 2  # category ids


class InstanceMapReader(DatasetReader):
    """Pictures and label maps, found as `map_pairs.find_pairs` has it.

    In a map, 0 is background, every other value one object, whatever its gaps and pieces, and its segment_id. thing,
    background: names of category 1 and category 2; a background of None is void. Raises DatasetError as `find_pairs`
    does; ConfigError for options that contradict each other.
    """

    format = "instance-maps"

    def __init__(
        self,
        root: str | Path,
        *,
        images: str = "images",
        labels: str = "labels",
        thing: str = "object",
        background: str | None = "background",
        split: Split | None = None,
        val_share: float = 0.25,
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        names = [thing] if background is None else [thing, background]
        if not all(isinstance(name, str) and name for name in names) or thing == background:
            raise ConfigError(f"expected two names for thing and background, got {thing!r} and {background!r}")
        self.root = Path(root)
        self._pairs = find_pairs(self.root, images, labels, split, val_share, on_issue)
        self.image_root, self.images = self._pairs.image_root, self._pairs.images
        self.categories = _categories(thing, background)
        self._background = background is not None

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """Objects by rising value, segment_id being the value; then the background, with the id after the last.

        DatasetError where the map is damaged, coloured, of another size, or holds no whole numbers of 0 or more.
        """
        values = self._pairs.read(image)
        found, areas_px = np.unique(values, return_counts=True)
        area_of = dict(zip(found.tolist(), areas_px.tolist(), strict=True))
        background_px = area_of.pop(0, 0)
        segments = [Segment(value, THING_ID, True, area_px) for value, area_px in area_of.items()]
        if self._background and background_px:
            background_id = max(area_of, default=0) + 1
            values[values == 0] = background_id
            segments.append(Segment(background_id, BACKGROUND_ID, False, background_px))
        return PanopticSegmentation(values, tuple(segments))


def _categories(thing: str, background: str | None) -> CategorySet:
    things = [Category(THING_ID, thing, True, default_color(THING_ID))]
    return CategorySet(
        things if background is None else [*things, Category(BACKGROUND_ID, background, False, (64, 64, 64))]
    )
