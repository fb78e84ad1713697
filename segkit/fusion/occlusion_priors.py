"""Which class occludes which, counted in annotations: a tie occludes a person.

After Lazarow et al. 2020, "Learning Instance Occlusion for Panoptic Segmentation" (OCFusion), section 3.2: if two masks
overlap, the panoptic annotation says which object owns the shared pixels. A table of class pairs replaces their learned
head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.fusion.candidates import Window, cut_to_window
from segkit.structures import CategorySet, PanopticSegmentation, Segment, rle_to_mask
from segkit.utils.errors import DatasetError
from segkit.utils.files import load_json
from segkit.utils.json_fields import INTEGER, TEXT, get_field, get_table

FORMAT = 1  # of the file; readers raise an error for any other
REMEDY = "write them with `segkit fuse priors`"
MIN_OVERLAP = 0.2  # of the smaller mask: pairs that share less are not counted (rho of OCFusion)


@dataclass(frozen=True)
class OcclusionPriors:
    """How often objects of one class occlude objects of another.

    Attributes:
        things: (category_id, name) of all thing classes, by rising category_id.
        counts: (occluding category_id, occluded category_id) -> number of pairs of objects.
    """

    things: tuple[tuple[int, str], ...]
    counts: Mapping[tuple[int, int], int]

    def occlusion_probability(self, occluder: int, occluded: int) -> float:
        """Estimate how likely a class occludes another: (count + 1) / (count + reverse count + 2).

        Args:
            occluder: category_id of the occluding class.
            occluded: category_id of the occluded class.

        Returns:
            Probability in (0, 1), 0.5 for a pair that was never counted.
        """
        count, reverse_count = self.counts.get((occluder, occluded), 0), self.counts.get((occluded, occluder), 0)
        return (count + 1) / (count + reverse_count + 2)

    def occluding_pairs(self, margin: float, min_count: int) -> frozenset[tuple[int, int]]:
        """Select the pairs of classes with a clear order.

        Args:
            margin: The occlusion probability must be above 0.5 + margin.
            min_count: Lowest number of pairs of objects, in both directions together.

        Returns:
            (occluder, occluded) pairs of thing contiguous ids.
        """
        contiguous_id = {category_id: i for i, (category_id, _) in enumerate(self.things)}
        return frozenset(
            (contiguous_id[occluder], contiguous_id[occluded])
            for occluder, occluded in self.counts
            if self.counts[occluder, occluded] + self.counts.get((occluded, occluder), 0) >= min_count
            and self.occlusion_probability(occluder, occluded) > 0.5 + margin
        )

    def to_json(self) -> dict[str, Any]:
        """Build the content of the file.

        Returns:
            A JSON object. `occluder` is the class with the higher count, of equal counts the smaller id. The highest
            count comes first.
        """
        rows = []
        for a, b in sorted({(min(pair), max(pair)) for pair, count in self.counts.items() if count}):
            count, reverse_count = self.counts.get((a, b), 0), self.counts.get((b, a), 0)
            if count < reverse_count:
                a, b, count, reverse_count = b, a, reverse_count, count
            rows.append({"occluder": a, "occluded": b, "count": count, "reverse_count": reverse_count})
        rows.sort(key=lambda row: -row["count"])
        return {"format": FORMAT, "things": [{"id": i, "name": name} for i, name in self.things], "pairs": rows}

    @classmethod
    def from_json(cls, content: Any, where: Path) -> OcclusionPriors:
        """Parse the content of a file.

        Args:
            content: What the JSON file holds.
            where: Path for error messages.

        Returns:
            The priors.

        Raises:
            DatasetError: It is no such file, is of another version, or contradicts itself.
        """
        if not isinstance(content, dict) or "format" not in content:
            raise DatasetError("expected occlusion priors, got something else", where=where, remedy=REMEDY)
        if content["format"] != FORMAT:
            problem = f"expected occlusion priors of format {FORMAT}, got {content['format']!r}"
            raise DatasetError(problem, where=where, remedy=REMEDY)
        entries = get_table(content, "things", where)
        things = tuple(sorted((get_field(e, "id", INTEGER, where), get_field(e, "name", TEXT, where)) for e in entries))
        category_ids = {category_id for category_id, _ in things}
        if len(category_ids) != len(things):
            raise DatasetError("expected distinct ids in `things`, got an id twice", where=where)
        counts: dict[tuple[int, int], int] = {}
        for entry in get_table(content, "pairs", where):
            a, b, count, reverse_count = _parse_pair(entry, category_ids, where)
            if (a, b) in counts:
                raise DatasetError(f"expected every pair once, got {entry} again", where=where)
            counts[a, b], counts[b, a] = count, reverse_count
        return cls(things, counts)

    @classmethod
    def read(cls, path: str | Path) -> OcclusionPriors:
        """Read the file that `segkit fuse priors` writes.

        Args:
            path: Path of the file.

        Returns:
            The priors.

        Raises:
            DatasetError: The file is missing or broken.
        """
        try:
            content = load_json(Path(path))
        except DatasetError as error:
            raise DatasetError(f"the occlusion priors cannot be read: {error}", remedy=REMEDY) from None
        return cls.from_json(content, Path(path))


class OcclusionCounter:
    """Counts, image by image, which of two overlapping objects of different thing classes owns their shared pixels.

    The mask of an object is its instance annotation, if there is one: annotators draw whole objects, and the panoptic
    map says which is in front. Otherwise it is the convex hull of its segment: the hulls overlap if a segment is inside
    the outline of another one, or cuts it in two. Crowds, stuff and pairs with less than min_overlap are not counted.

    Args:
        categories: Categories of the annotations, in which the ids are category ids.
        min_overlap: In [0, 1], least shared pixels as a share of the smaller mask.
    """

    def __init__(self, categories: CategorySet, min_overlap: float = MIN_OVERLAP) -> None:
        self.categories = categories
        self.min_overlap = min_overlap
        self._counts: Counter[tuple[int, int]] = Counter()

    def update(
        self, ground_truth: PanopticSegmentation, instances: Sequence[tuple[int, Mapping[str, Any]]] | None = None
    ) -> None:
        """Add an image.

        An instance belongs to the segment of its category with which it shares most pixels, of equal ones the smaller
        id. An instance that shares none is left out.

        Args:
            ground_truth: Panoptic annotation with category ids.
            instances: (category_id, compressed RLE) of every instance annotation that is no crowd; None without any.

        Raises:
            DatasetError: A category is not a thing of the set, or an RLE has another size.
        """
        segments = [s for s in ground_truth.segments if s.isthing and not s.iscrowd]
        if instances is None:
            shapes = [*_build_hulls(ground_truth, segments)]
        else:
            shapes = [*self._match_instances(ground_truth.segment_ids, segments, instances)]
        for a, b in combinations(shapes, 2):
            if a.category_id == b.category_id:
                continue
            a_px, b_px = _count_owned_px(ground_truth.segment_ids, a, b, self.min_overlap)
            if a_px != b_px:
                occluder, occluded = (a, b) if a_px > b_px else (b, a)
                self._counts[occluder.category_id, occluded.category_id] += 1

    def merge(self, other: OcclusionCounter) -> None:
        """Add the counts of another counter.

        Args:
            other: Counter with the same categories and min_overlap.

        Raises:
            ValueError: Its categories or min_overlap differ.
        """
        if self.categories != other.categories or self.min_overlap != other.min_overlap:
            raise ValueError("other must count the same categories with the same min_overlap")
        self._counts.update(other._counts)

    def compute(self) -> OcclusionPriors:
        """Compute the priors.

        Returns:
            The counts of all images so far.
        """
        return OcclusionPriors(tuple((c.category_id, c.name) for c in self.categories.things), dict(self._counts))

    def _match_instances(
        self,
        segment_ids: NDArray[np.int32],
        segments: Sequence[Segment],
        instances: Sequence[tuple[int, Mapping[str, Any]]],
    ) -> Iterator[_Shape]:
        for category_id, rle in instances:
            if not self.categories.isthing_by_id.get(category_id, False):
                raise DatasetError(f"expected instances of thing classes, got the category {category_id}")
            if tuple(rle["size"]) != segment_ids.shape:
                problem = f"expected masks of the panoptic map's size {segment_ids.shape}, got {tuple(rle['size'])}"
                raise DatasetError(problem, remedy="do both files annotate the same images?")
            mask = rle_to_mask(rle)
            ids_on_mask = segment_ids[mask]
            shared = [
                (np.count_nonzero(ids_on_mask == s.segment_id), -s.segment_id)
                for s in segments
                if s.category_id == category_id
            ]
            most, negative_id = max(shared, default=(0, 0))
            if most:
                rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
                yield _Shape(category_id, -negative_id, window, mask[window])


class _Shape(NamedTuple):
    """The mask of an object, (h, w) bool, at the rows and columns of `window`. segment_id: of its visible pixels."""

    category_id: int
    segment_id: int
    window: Window
    mask: NDArray[np.bool_]


def _build_hulls(ground_truth: PanopticSegmentation, segments: Sequence[Segment]) -> Iterator[_Shape]:
    extents = ground_truth.runs.extents()
    for segment in segments:
        if segment.segment_id not in extents:
            continue
        left, top, width, height = extents[segment.segment_id].bbox_xywh
        window = slice(top, top + height), slice(left, left + width)
        visible = ground_truth.segment_ids[window] == segment.segment_id
        yield _Shape(segment.category_id, segment.segment_id, window, _fill_hull(visible))


def _fill_hull(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows = np.flatnonzero(mask.any(axis=1))
    lefts, rights = mask[rows].argmax(axis=1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    points = np.stack([np.tile(rows, 2), np.concatenate([lefts, rights])], axis=1)[:, ::-1].astype(np.int32)
    filled = cv2.fillConvexPoly(np.zeros(mask.shape, dtype=np.uint8), cv2.convexHull(points), 1)
    return filled.astype(np.bool_)


def _count_owned_px(segment_ids: NDArray[np.int32], a: _Shape, b: _Shape, min_overlap: float) -> tuple[int, int]:
    """How many of the shared pixels a and b own; (0, 0) if they share too few."""
    shared = cut_to_window(a.mask, a.window, b.window) & cut_to_window(b.mask, b.window, a.window)
    shared_px = np.count_nonzero(shared)
    if not shared_px or shared_px < min_overlap * min(np.count_nonzero(shape.mask) for shape in (a, b)):
        return 0, 0
    ids = cut_to_window(segment_ids[a.window], a.window, b.window)[shared]
    return int(np.count_nonzero(ids == a.segment_id)), int(np.count_nonzero(ids == b.segment_id))


def _parse_pair(entry: Mapping[str, Any], category_ids: Set[int], where: object) -> tuple[int, int, int, int]:
    a, b, count, reverse_count = (entry.get(key) for key in ("occluder", "occluded", "count", "reverse_count"))
    if type(a) is not int or type(b) is not int or a == b or not {a, b} <= category_ids:
        raise DatasetError(f"expected `occluder` and `occluded` to be two ids of `things`, got {entry}", where=where)
    if type(count) is not int or type(reverse_count) is not int or min(count, reverse_count) < 0:
        raise DatasetError(f"expected `count` and `reverse_count` to be whole numbers from 0, got {entry}", where=where)
    return a, b, count, reverse_count
