"""Which class lies on top of which, counted in annotations: a tie rides over a person.

After Lazarow et al. 2020, "Learning Instance Occlusion for Panoptic Segmentation" (OCFusion), section 3.2: where two
masks overlap, the panoptic annotation says whose the common pixels are. A table of class pairs stands in place of their
learned head.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.structures import CategorySet, PanopticSegmentation, Segment, rle_to_mask
from segkit.utils.errors import DatasetError

FORMAT = 1  # of the file; a reader refuses any other
REMEDY = "write them with `segkit fuse priors`"
MIN_OVERLAP = 0.2  # of the smaller mask: a pair that shares less is not looked at (OCFusion's rho)


@dataclass(frozen=True)
class OcclusionPriors:
    """things: (category_id, name) of all thing classes, by rising category_id. wins: how many pairs of objects were
    seen in which the first category_id lay on top of the second."""

    things: tuple[tuple[int, str], ...]
    counts: Mapping[tuple[int, int], int]

    def occlusion_probability(self, over: int, under: int) -> float:
        """How likely `over` is on top of `under`, category ids: (wins + 1) / (wins + losses + 2), 0.5 where unseen."""
        won, lost = self.counts.get((over, under), 0), self.counts.get((under, over), 0)
        return (won + 1) / (won + lost + 2)

    def occluding_pairs(self, margin: float, min_count: int) -> frozenset[tuple[int, int]]:
        """The pairs (over, under) of thing contiguous ids of which the table is sure: a precedence above 0.5 + margin,
        out of at least min_count pairs of objects."""
        contiguous_id = {category_id: i for i, (category_id, _) in enumerate(self.things)}
        return frozenset(
            (contiguous_id[over], contiguous_id[under])
            for over, under in self.counts
            if self.counts[over, under] + self.counts.get((under, over), 0) >= min_count
            and self.occlusion_probability(over, under) > 0.5 + margin
        )

    def to_json(self) -> dict[str, Any]:
        """The file's content; `over` is the class with more wins, of equal ones the smaller id; most wins first."""
        pairs = {(min(pair), max(pair)) for pair, wins in self.counts.items() if wins}
        rows = []
        for one, other in sorted(pairs):
            won, lost = self.counts.get((one, other), 0), self.counts.get((other, one), 0)
            over, under = (one, other) if won >= lost else (other, one)
            rows.append({"occluder": over, "occluded": under, "count": max(won, lost), "reverse_count": min(won, lost)})
        rows.sort(key=lambda row: -row["count"])
        return {"format": FORMAT, "things": [{"id": i, "name": name} for i, name in self.things], "pairs": rows}

    @classmethod
    def from_json(cls, content: Any, where: object) -> OcclusionPriors:
        """The table in a file's content; DatasetError where it is no such file, of another version, or contradicts
        itself: every class needs an id of its own, every pair two classes of the list, each pair once."""
        if not isinstance(content, dict) or "format" not in content:
            raise DatasetError("expected class-pair priors, got something else", where=where, remedy=REMEDY)
        if content["format"] != FORMAT:
            problem = f"expected class-pair priors of format {FORMAT}, got {content['format']!r}"
            raise DatasetError(problem, where=where, remedy=REMEDY)
        things = tuple(sorted(_thing_of(entry, where) for entry in _objects(content, "things", where)))
        known = {category_id for category_id, _ in things}
        if len(known) != len(things):
            raise DatasetError("expected distinct ids in `things`, got one twice", where=where)
        wins: dict[tuple[int, int], int] = {}
        for entry in _objects(content, "pairs", where):
            over, under, won, lost = _pair_of(entry, known, where)
            if (over, under) in wins:
                raise DatasetError(f"expected every pair once, got {entry} again", where=where)
            wins[over, under], wins[under, over] = won, lost
        return cls(things, wins)

    @classmethod
    def read(cls, path: str | Path) -> OcclusionPriors:
        """The table in the file that `segkit fuse priors` writes; DatasetError where it is missing or broken."""
        try:
            if not Path(path).is_file() and Path(path).exists():
                raise OSError("it is no file")
            content = json.loads(Path(path).read_bytes())
        except FileNotFoundError:
            raise DatasetError("expected class-pair priors, found no file", where=path, remedy=REMEDY) from None
        except (OSError, ValueError, RecursionError) as error:
            raise DatasetError(f"the class-pair priors cannot be read: {error}", where=path, remedy=REMEDY) from None
        return cls.from_json(content, path)


class OcclusionCounter:
    """Counts, image by image, which of two overlapping objects of different thing classes owns their common pixels.

    An object's mask is its instance annotation, where these are given: annotators draw objects that overlap, and the
    panoptic map says who is on top. Without them it is the convex hull of its segment: of a segment that lies inside
    another's outline, or cuts it in two, the hulls overlap where it owns the pixels. Pairs whose masks share less than
    min_overlap of the smaller one are left out, as are crowds and stuff.
    """

    def __init__(self, categories: CategorySet, min_overlap: float = MIN_OVERLAP) -> None:
        """categories: of the annotations, in which the ids are category ids."""
        self.categories = categories
        self.min_overlap = min_overlap
        self._wins: Counter[tuple[int, int]] = Counter()

    def update(
        self, ground_truth: PanopticSegmentation, instances: Sequence[tuple[int, Mapping[str, Any]]] | None = None
    ) -> None:
        """Add an image. truth: with category ids. instances: category_id and compressed RLE of every instance
        annotation of the image that is no crowd; None where there are none.

        An instance stands for the segment of its category with which it shares most pixels, of equal ones the smaller
        id; one that shares none is left out. DatasetError for a category that is no thing of the set, or an RLE of
        another size.
        """
        segments = [s for s in ground_truth.segments if s.isthing and not s.iscrowd]
        if instances is None:
            shapes = [*_hulls(ground_truth, segments)]
        else:
            shapes = [*self._drawn(ground_truth.segment_ids, segments, instances)]
        for one, other in combinations(shapes, 2):
            if one.category_id == other.category_id:
                continue
            won, lost = _owned(ground_truth.segment_ids, one, other, self.min_overlap)
            if won != lost:
                over, under = (one, other) if won > lost else (other, one)
                self._wins[over.category_id, under.category_id] += 1

    def merge(self, other: OcclusionCounter) -> None:
        """Add what another has counted; ValueError where its categories or min_overlap differ."""
        if self.categories != other.categories or self.min_overlap != other.min_overlap:
            raise ValueError("other must count the same categories with the same min_overlap")
        self._wins.update(other._wins)

    def compute(self) -> OcclusionPriors:
        """What has been counted so far."""
        return OcclusionPriors(tuple((c.category_id, c.name) for c in self.categories.things), dict(self._wins))

    def _drawn(
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
            held = segment_ids[mask]
            shared = [
                (np.count_nonzero(held == s.segment_id), -s.segment_id)
                for s in segments
                if s.category_id == category_id
            ]
            most, negative_id = max(shared, default=(0, 0))
            if most:
                rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
                yield _Shape(category_id, -negative_id, window, mask[window])


class _Shape(NamedTuple):
    """An object's mask, (h, w) bool, at the rows and columns of `window`; segment_id: of its visible pixels."""

    category_id: int
    segment_id: int
    window: tuple[slice, slice]
    mask: NDArray[np.bool_]


def _hulls(ground_truth: PanopticSegmentation, segments: Sequence[Segment]) -> Iterator[_Shape]:
    boxes = ground_truth.runs.extents()
    for segment in segments:
        if segment.segment_id not in boxes:
            continue
        left, top, width, height = boxes[segment.segment_id].bbox_xywh
        window = slice(top, top + height), slice(left, left + width)
        visible = ground_truth.segment_ids[window] == segment.segment_id
        yield _Shape(segment.category_id, segment.segment_id, window, _hull(visible))


def _hull(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows = np.flatnonzero(mask.any(axis=1))
    lefts, rights = mask[rows].argmax(axis=1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    points = np.stack([np.tile(rows, 2), np.concatenate([lefts, rights])], axis=1)[:, ::-1].astype(np.int32)
    filled = cv2.fillConvexPoly(np.zeros(mask.shape, dtype=np.uint8), cv2.convexHull(points), 1)
    return filled.astype(np.bool_)


def _owned(segment_ids: NDArray[np.int32], one: _Shape, other: _Shape, min_overlap: float) -> tuple[int, int]:
    """Of the pixels that two masks share, how many are the one's and the other's; none where they share too few."""
    axes = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one.window, other.window, strict=True)]
    if any(start >= stop for start, stop in axes):
        return 0, 0
    common = np.logical_and(*(_cut(shape, axes) for shape in (one, other)))
    smaller_px = min(np.count_nonzero(shape.mask) for shape in (one, other))
    if np.count_nonzero(common) < min_overlap * smaller_px:
        return 0, 0
    held = segment_ids[tuple(slice(*axis) for axis in axes)][common]
    return int(np.count_nonzero(held == one.segment_id)), int(np.count_nonzero(held == other.segment_id))


def _cut(shape: _Shape, axes: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    rows, columns = (
        slice(start - axis.start, stop - axis.start) for (start, stop), axis in zip(axes, shape.window, strict=True)
    )
    return shape.mask[rows, columns]


def _objects(content: Mapping[str, Any], key: str, where: object) -> list[dict[str, Any]]:
    listed = content.get(key)
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise DatasetError(f"expected `{key}` to be a list of objects", where=where, remedy=REMEDY)
    return listed


def _thing_of(entry: Mapping[str, Any], where: object) -> tuple[int, str]:
    category_id = entry.get("id")
    if type(category_id) is not int or not isinstance(entry.get("name"), str):
        raise DatasetError(f"expected every thing to have an integer id and a name, got {entry}", where=where)
    return category_id, entry["name"]


def _pair_of(entry: Mapping[str, Any], known: Set[int], where: object) -> tuple[int, int, int, int]:
    over, under, won, lost = (entry.get(key) for key in ("occluder", "occluded", "count", "reverse_count"))
    if type(over) is not int or type(under) is not int or over == under or not {over, under} <= known:
        raise DatasetError(f"expected `occluder` and `occluded` to be two ids of `things`, got {entry}", where=where)
    if type(won) is not int or type(lost) is not int or min(won, lost) < 0:
        raise DatasetError(f"expected `count` and `reverse_count` to be whole numbers from 0, got {entry}", where=where)
    return over, under, won, lost
