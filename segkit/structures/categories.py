"""CategorySet: the classes of a dataset, and the only crossing between its ids and a network's."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.utils.errors import DatasetError

IGNORE_LABEL = 255  # label of void pixels in semantic maps; Detectron2's and Cityscapes' value
THING_CHANNEL = 0  # semantic id that stands for every thing (Kirillov et al. 2019, Panoptic FPN, section 3)
NO_THING = -1  # thing contiguous id of a semantic channel that stands for no single thing class
MAX_CATEGORY_ID = 2**63 - 1  # what numpy's integers hold
GOLDEN_RATIO = 0.61803398875  # turns of hue between neighbouring ids: neighbours look different


@dataclass(frozen=True)
class Category:
    """One class of a dataset; `category_id` is the id in its files, `color` is RGB, uint8, `supercategory` the name of
    the group that COCO's files put it in, "" for none: it is carried along, and makes no difference."""

    category_id: int
    name: str
    isthing: bool
    color: tuple[int, int, int]
    supercategory: str = field(default="", compare=False)


@dataclass(frozen=True)
class SemanticSpace:
    """What the channels of a semantic head mean.

    names: one per channel. channel_of: category_id -> channel. stuff_ids: (channels,) int64, the
    stuff contiguous id of each channel, `THING_CHANNEL` for a channel of things. thing_ids: (channels,) int64, the
    thing contiguous id of each channel, -1 for stuff and for a channel that all things share.
    """

    names: tuple[str, ...]
    channel_of: Mapping[int, int]
    stuff_ids: NDArray[np.int64]
    thing_ids: NDArray[np.int64]


class CategorySet:
    """The categories of a dataset, sorted by category_id, with Detectron2's contiguous ids.

    Things have contiguous ids 0..T-1 (the classes of the box and mask heads); stuff has 1..S, where 0
    (`THING_CHANNEL`) stands for all things (the classes of the semantic head), as in Detectron2's
    `_get_coco_panoptic_separated_meta`. No other code converts between category_id and contiguous id.
    """

    def __init__(self, categories: Iterable[Category], where: object = "categories") -> None:
        listed = tuple(categories)
        self.ids_in_file_order = tuple(c.category_id for c in listed)  # in the order given, which is the file's
        self.categories = tuple(sorted(listed, key=lambda c: c.category_id))
        self.things = tuple(c for c in self.categories if c.isthing)
        self.stuff = tuple(c for c in self.categories if not c.isthing)
        self._by_id = {c.category_id: c for c in self.categories}
        if not self.categories:
            raise DatasetError("expected at least one category, got none", where=where)
        if len(self._by_id) != len(self.categories):
            ids = [c.category_id for c in self.categories]
            twice = sorted({i for i in ids if ids.count(i) > 1})
            raise DatasetError(
                f"expected distinct category ids, got {twice} more than once", where=where, remedy="rename one of them"
            )
        self.thing_contiguous_ids = {c.category_id: i for i, c in enumerate(self.things)}
        self.stuff_contiguous_ids = {c.category_id: i for i, c in enumerate(self.stuff, THING_CHANNEL + 1)}
        by_thing = {(contiguous_id, True): i for i, contiguous_id in self.thing_contiguous_ids.items()}
        by_stuff = {(contiguous_id, False): i for i, contiguous_id in self.stuff_contiguous_ids.items()}
        self._category_ids = by_thing | by_stuff
        self.isthing_by_id = {c.category_id: c.isthing for c in self.categories}

    @classmethod
    def from_coco(cls, categories: Sequence[Mapping[str, Any]], where: object) -> CategorySet:
        """From a COCO `categories` list; every entry needs `id`, `name` and `isthing` (instance files: all things)."""
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
        """The dataset's id of thing 0..T-1 or stuff 1..S; IndexError for any other contiguous id."""
        found = self._category_ids.get((contiguous_id, bool(isthing)))
        if found is None:
            kind, group = ("thing", self.things) if isthing else ("stuff", self.stuff)
            raise IndexError(f"no {kind} has the contiguous id {contiguous_id}: there are {len(group)}")
        return found

    def build_semantic_space(self, thing_channels: str = "one") -> SemanticSpace:
        """The semantic head's channels: `one` for all things, then the stuff; or `per_class`, by category_id."""
        if thing_channels == "per_class":
            channel_of = {c.category_id: i for i, c in enumerate(self.categories)}
            names = tuple(c.name for c in self.categories)
            stuff = [self.stuff_contiguous_ids.get(c.category_id, THING_CHANNEL) for c in self.categories]
            things = [self.thing_contiguous_ids.get(c.category_id, NO_THING) for c in self.categories]
        elif thing_channels == "one":
            channel_of = {c.category_id: self.stuff_contiguous_ids.get(c.category_id, 0) for c in self.categories}
            names = ("things", *(c.name for c in self.stuff))
            stuff = list(range(len(names)))
            things = [NO_THING] * len(names)
        else:
            raise ValueError(f"thing_channels must be 'one' or 'per_class', got {thing_channels!r}")
        return SemanticSpace(names, channel_of, np.array(stuff, dtype=np.int64), np.array(things))

    def to_coco(self) -> list[dict[str, Any]]:
        """The COCO panoptic `categories` list."""
        return [
            {"id": c.category_id, "name": c.name, "isthing": int(c.isthing), "color": [*c.color]}
            | ({"supercategory": c.supercategory} if c.supercategory else {})
            for c in self.categories
        ]


def default_color(index: int) -> tuple[int, int, int]:
    """A bright RGB colour for the `index`-th id, unlike its neighbours'; the same for ever."""
    hue = (index * GOLDEN_RATIO) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * (index % 3) / 2, 0.95 - 0.3 * (index % 2))
    return round(red * 255), round(green * 255), round(blue * 255)


def _category_from_coco(entry: Mapping[str, Any], where: object) -> Category:
    missing = [key for key in ("id", "name") if not isinstance(entry, Mapping) or key not in entry]
    if missing:
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
    supercategory = group if isinstance(group, str) else ""
    return Category(entry["id"], str(entry["name"]), bool(entry.get("isthing", 1)), (red, green, blue), supercategory)
