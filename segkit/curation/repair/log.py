"""RepairLog: counts of what a repair changed, dropped and left unchanged."""

from __future__ import annotations

import reprlib
from collections import Counter, defaultdict
from typing import Any

from segkit.curation.repair.ids import IdTable, get_id

COPIES = "each is a copy of an earlier one"
NO_IMAGE = "image_id {} is not in `images`"
NO_CATEGORY = "category_id {} is not in `categories`"
UNCERTAIN = ", but the table has a damaged, repeated or unused id, which may be the one that is meant"
MAX_IDS = 5  # in a line


class RepairLog(Counter[tuple[str, ...]]):
    """Counts by (action, kind of item, reason), e.g. (`dropped`, `segments`, `they have no pixel`).

    The key of an entry with an unknown id has the id as a fourth item; its reason has a placeholder for the ids.
    """

    def must_drop(self, ids: IdTable, entry: Any, key: str, kind: str, reason: str) -> bool:
        """Log an entry whose `key` is an unknown id, and return whether it must be dropped.

        It must be dropped only if it is certain that nothing has this id.
        """
        value = get_id(entry, key)
        if value is None or value in ids.ids:
            return False
        is_certain = ids.certainly_lacks(value)
        action, reason = ("dropped", reason) if is_certain else ("left unchanged", reason + UNCERTAIN)
        self[action, kind, reason, reprlib.repr(value)] += 1
        return is_certain

    def lines(self) -> list[str]:
        """One line for each action, kind and reason that occurred, with the first ids."""
        numbers, ids = Counter[tuple[str, str, str]](), defaultdict[tuple[str, str, str], list[str]](list)
        for (action, kind, reason, *unknown_ids), number in self.items():
            numbers[action, kind, reason] += number
            ids[action, kind, reason] += unknown_ids
        return [
            f"{action} {number} of the {kind}: {reason.format(_format_ids(ids[action, kind, reason]))}"
            for (action, kind, reason), number in numbers.items()
            if number
        ]


def _format_ids(ids: list[str]) -> str:
    more = f" and {len(ids) - MAX_IDS} more" if len(ids) > MAX_IDS else ""
    return ", ".join(ids[:MAX_IDS]) + more
