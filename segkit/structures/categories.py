"""CategorySet: the classes of a dataset, and the only conversion between its ids and a network's."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.utils.errors import DatasetError

IGNORE_LABEL = 255  # label of void pixels in semantic maps; Detectron2's and Cityscapes' value
THING_CHANNEL = 0  # stuff contiguous id that stands for all things (Kirillov et al. 2019, Panoptic FPN, section 3)
NO_THING = -1  # thing contiguous id of a channel of stuff, and of the channel that all things share
MAX_CATEGORY_ID = 2**63 - 1  # the largest int64
GOLDEN_RATIO = 0.61803398875  # step of the hue between consecutive ids: neighbours look different


@dataclass(frozen=True)
class Category:
    """One class of a dataset.

    Attributes:
        category_id: Id in the dataset's files.
        name: Name of the class.
        isthing: Whether the class is a thing.
        color: (red, green, blue), 0..255.
        supercategory: Group of the class in COCO's files, "" for none; ignored when categories are compared.
    """

    category_id: int
    name: str
    isthing: bool
    color: tuple[int, int, int]
    supercategory: str = field(default="", compare=False)


@dataclass(frozen=True)
class SemanticSpace:
    """The meaning of the channels of a semantic head.

    Attributes:
        names: Name of each channel.
        channel_by_category: category_id -> channel.
        stuff_ids: (C,) int64, stuff contiguous id of each channel, `THING_CHANNEL` for a channel of things.
        thing_ids: (C,) int64, thing contiguous id of each channel, `NO_THING` for stuff and for a channel that all
            things share.
    """

    names: tuple[str, ...]
    channel_by_category: Mapping[int, int]
    stuff_ids: NDArray[np.int64]
    thing_ids: NDArray[np.int64]


class CategorySet:
    """The categories of a dataset, sorted by category_id, with Detectron2's contiguous ids.

    Things have the contiguous ids 0..T-1: the classes of the box and mask heads. Stuff has 1..S, and 0
    (`THING_CHANNEL`) stands for all things: the classes of the semantic head. Detectron2's
    `_get_coco_panoptic_separated_meta` does the same. No other code converts between category_id and contiguous id.

    Attributes:
        categories: All categories, by category_id.
        things: The things among them.
        stuff: The stuff among them.
        ids_in_file_order: Their category ids in the order in which they were given.
        isthing_by_id: category_id -> isthing.
        thing_contiguous_ids: category_id -> contiguous id of the things.
        stuff_contiguous_ids: category_id -> contiguous id of the stuff.
    """

    def __init__(self, categories: Iterable[Category], where: object = "categories") -> None:
        """Sort and number the categories.

        Args:
            categories: The categories in the order of the file.
            where: Path or name for error messages.

        Raises:
            DatasetError: There is no category, or two have the same id.
        """
        categories = tuple(categories)
        self.ids_in_file_order = tuple(c.category_id for c in categories)
        self.categories = tuple(sorted(categories, key=lambda c: c.category_id))
        self.things = tuple(c for c in self.categories if c.isthing)
        self.stuff = tuple(c for c in self.categories if not c.isthing)
        self._by_id = {c.category_id: c for c in self.categories}
        if not self.categories:
            raise DatasetError("expected at least one category, got none", where=where)
        if len(self._by_id) != len(self.categories):
            repeated = sorted(i for i, times in Counter(self.ids_in_file_order).items() if times > 1)
            problem = f"expected distinct category ids, got {repeated} more than once"
            raise DatasetError(problem, where=where, remedy="give each category its own id")
        self.thing_contiguous_ids = {c.category_id: i for i, c in enumerate(self.things)}
        self.stuff_contiguous_ids = {c.category_id: i for i, c in enumerate(self.stuff, THING_CHANNEL + 1)}
        self.isthing_by_id = {c.category_id: c.isthing for c in self.categories}

    @classmethod
    def from_coco(cls, categories: Sequence[Mapping[str, Any]], where: object) -> CategorySet:
        """Build from the `categories` of a COCO file.

        Args:
            categories: Objects with `id`, `name` and, except in instance files, `isthing`; without it, a category is a
                thing. `color` and `supercategory` are optional.
            where: Path or name for error messages.

        Returns:
            The categories.

        Raises:
            DatasetError: The table is not a list, or an entry is invalid.
        """
        if not isinstance(categories, Sequence) or isinstance(categories, str):
            raise DatasetError(f"expected `categories` to be a list, got {type(categories).__name__}", where=where)
        return cls((_category_from_coco(entry, where) for entry in categories), where)

    def __len__(self) -> int:
        return len(self.categories)

    def __contains__(self, category_id: object) -> bool:
        return category_id in self._by_id

    def __getitem__(self, category_id: int) -> Category:
        return self._by_id[category_id]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CategorySet) and self.categories == other.categories

    __hash__ = None  # type: ignore[assignment]

    def category_id(self, contiguous_id: int, isthing: bool) -> int:
        """Convert a contiguous id to the category_id.

        Args:
            contiguous_id: 0..T-1 for a thing, 1..S for stuff.
            isthing: Whether it is the id of a thing.

        Returns:
            The category_id.

        Raises:
            IndexError: No category has this contiguous id.
        """
        kind, group, first = ("thing", self.things, 0) if isthing else ("stuff", self.stuff, THING_CHANNEL + 1)
        if not 0 <= contiguous_id - first < len(group):
            raise IndexError(f"no {kind} has the contiguous id {contiguous_id}: there are {len(group)}")
        return group[contiguous_id - first].category_id

    def build_semantic_space(self, thing_channels: str = "one") -> SemanticSpace:
        """Define the channels of the semantic head.

        Args:
            thing_channels: "one": channel 0 for all things, then the stuff. "per_class": one channel per category, by
                category_id.

        Returns:
            The channels.

        Raises:
            ValueError: Any other text.
        """
        if thing_channels == "per_class":
            channel_by_category = {c.category_id: i for i, c in enumerate(self.categories)}
            names = tuple(c.name for c in self.categories)
            stuff = [self.stuff_contiguous_ids.get(c.category_id, THING_CHANNEL) for c in self.categories]
            things = [self.thing_contiguous_ids.get(c.category_id, NO_THING) for c in self.categories]
        elif thing_channels == "one":
            channel_by_category = {
                c.category_id: self.stuff_contiguous_ids.get(c.category_id, 0) for c in self.categories
            }
            names = ("things", *(c.name for c in self.stuff))
            stuff = list(range(len(names)))
            things = [NO_THING] * len(names)
        else:
            raise ValueError(f"thing_channels must be 'one' or 'per_class', got {thing_channels!r}")
        return SemanticSpace(names, channel_by_category, np.array(stuff, dtype=np.int64), np.array(things))

    def to_coco(self) -> list[dict[str, Any]]:
        """Build the `categories` of a COCO panoptic file.

        Returns:
            Objects with id, name, isthing, color and, if known, supercategory.
        """
        return [
            {"id": c.category_id, "name": c.name, "isthing": int(c.isthing), "color": [*c.color]}
            | ({"supercategory": c.supercategory} if c.supercategory else {})
            for c in self.categories
        ]


def default_color(index: int) -> tuple[int, int, int]:
    """Compute a bright colour that differs from the colours of neighbouring ids.

    Args:
        index: An id.

    Returns:
        (red, green, blue), 0..255; always the same for an id.
    """
    hue = (index * GOLDEN_RATIO) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * (index % 3) / 2, 0.95 - 0.3 * (index % 2))
    return round(red * 255), round(green * 255), round(blue * 255)


def _category_from_coco(entry: Mapping[str, Any], where: object) -> Category:
    if not isinstance(entry, Mapping) or not entry.keys() >= {"id", "name"}:
        raise DatasetError(f"expected every category to have id and name, got {entry!r}", where=where)
    if type(entry["id"]) is not int:
        raise DatasetError(f"expected an integer category id, got {entry['id']!r}", where=where)
    if abs(entry["id"]) > MAX_CATEGORY_ID:
        raise DatasetError(f"expected a category id of 63 bits, got {entry['id']}", where=where)
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in str(entry["name"])):
        raise DatasetError(f"expected a category name of valid Unicode, got {entry['name']!r}", where=where)
    color = entry.get("color") or default_color(entry["id"])
    try:
        red, green, blue = (int(c) for c in color)
    except (TypeError, ValueError):
        raise DatasetError(f"expected `color` to be three numbers, got {color!r}", where=where) from None
    group = entry.get("supercategory")
    return Category(
        category_id=entry["id"],
        name=str(entry["name"]),
        isthing=bool(entry.get("isthing", 1)),
        color=(red, green, blue),
        supercategory=group if isinstance(group, str) else "",
    )
