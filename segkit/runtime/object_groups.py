"""Which objects of several sources (overlapping tiles, views of an image) are the same object."""

from __future__ import annotations

from collections.abc import Iterable

MATCH_IOU = 0.5  # least IoU of one object in two sources


class ObjectGroups:
    """Objects of several sources in groups, each one object of the image: a union-find structure.

    No group holds two objects of one source.
    """

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._sources: dict[int, set[int]] = {}  # of each root

    def __len__(self) -> int:
        return len(self._parents)

    def add(self, source: int) -> int:
        """Add an object as a group of its own.

        Args:
            source: Number of its tile or view.

        Returns:
            Its number, 0, 1, ...
        """
        number = len(self._parents)
        self._parents.append(number)
        self._sources[number] = {source}
        return number

    def find(self, number: int) -> int:
        """Find the group of an object.

        Args:
            number: Of the object.

        Returns:
            The lowest number in the group.
        """
        while (parent := self._parents[number]) != number:
            self._parents[number] = self._parents[parent]
            number = parent
        return number

    def unite(self, matches: Iterable[tuple[float, int, int]]) -> None:
        """Unite groups of matching objects, of the highest IoU first, unless a source would have two objects in one.

        Args:
            matches: (IoU, number, number). Pairs of an IoU below `MATCH_IOU` are left out.
        """
        for iou, *numbers in sorted(matches, key=lambda match: (-match[0], match[1:])):
            first, second = sorted(map(self.find, numbers))
            if iou >= MATCH_IOU and self._sources[first].isdisjoint(self._sources[second]):
                self._parents[second] = first
                self._sources[first] |= self._sources.pop(second)
