"""Tables of dropped and shrunk segments: counts, order, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from segkit.report.fusion_tables import (
    count_rejections,
    dropped_segments_tables,
    list_costliest_segments,
    write_dropped_segments_page,
)


def dropped(
    reason: str, instance_id: int | None, score: float | None, area_px: int, kept_px: int = 0, **other: Any
) -> Any:
    return {
        "reason": reason,
        "isthing": instance_id is not None,
        "category_id": 7,
        "category": "[red]<b>dog",
        "instance_id": instance_id,
        "score": score,
        "area_px": area_px,
        "kept_px": kept_px,
        "segment_id": 1 if kept_px else 0,
        "overlapped_by": [],
        "value": None,
        "limit": None,
        **other,
    }


def overlap(name: str | None, pixels: int) -> dict[str, Any]:
    return {"segment_id": 1, "category_id": 1, "category": name, "pixels": pixels}


IMAGES = [
    {
        "image_id": 3,
        "file_name": "3.jpg",
        "dropped_segments": [
            dropped(
                "score", 0, 0.25, 100, value=0.25, limit=0.5, overlapped_by=[overlap("sky", 60), overlap(None, 40)]
            ),
            dropped(
                "overlap", 2, 0.5, 90, 30, overlapped_by=[overlap("cat", 20), overlap("sky", 25), overlap("cat", 15)]
            ),
            dropped("overlap", None, None, 1000, 10),
            dropped("empty", 4, 0.9, 0),
        ],
    },
    {"image_id": "b", "file_name": "b.jpg", "dropped_segments": [dropped("area", None, None, 30, value=5, limit=8)]},
    {
        "image_id": 9,
        "file_name": "9.jpg",
        "dropped_segments": [dropped("overlap", 1, 1.0, 30), dropped("score", 2, 0.0, 5000)],
    },
]


def test_reasons_are_counted_and_the_most_frequent_comes_first() -> None:
    """overlap: 2 shrunk, 60 + 990 pixels, 1 dropped, 30. score: 2 dropped, 100 + 5000."""
    rows = count_rejections(IMAGES)
    assert list(rows) == ["overlap", "score", "area", "empty"]
    assert rows["overlap"] == {"dropped": 1, "shrunk": 2, "lost pixels": 1080}
    assert rows["score"] == {"dropped": 2, "shrunk": 0, "lost pixels": 5100}
    assert rows["empty"] == {"dropped": 1, "shrunk": 0, "lost pixels": 0}
    assert count_rejections([]) == {}


def test_the_costliest_segments_come_first_without_stuff_that_is_still_in_the_map() -> None:
    """Costs: 100 x 0.25 = 25; 60 x 0.5 = 30; area 30 x 1; 30 x 1; 5000 x 0. Equal ones in their order. The empty mask
    lost no pixels."""
    rows = list_costliest_segments(IMAGES)
    assert list(rows) == ["3, instance 2", "b, stuff 7", "9, instance 1", "3, instance 0", "9, instance 2"]
    assert rows["3, instance 2"] == {
        "class": "[red]<b>dog",
        "score": "0.50",
        "reason": "overlap",
        "pixels": 90,
        "lost": 60,
        "to": "cat 35, sky 25",
    }
    assert rows["b, stuff 7"]["score"] == ""
    assert rows["3, instance 0"]["reason"] == "score 0.25, limit 0.5"
    assert rows["3, instance 0"]["to"] == "sky 60, void 40"
    assert list(list_costliest_segments(IMAGES, 2)) == ["3, instance 2", "b, stuff 7"]


def test_only_the_largest_overlaps_are_named() -> None:
    many = dropped("overlap", 0, 1.0, 100, overlapped_by=[overlap(name, 25 - i) for i, name in enumerate("abcd")])
    assert (
        list_costliest_segments([{"image_id": 1, "dropped_segments": [many]}])["1, instance 0"]["to"]
        == "a 25, b 24, c 23, ..."
    )


def print_tables(images: Any) -> str:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(dropped_segments_tables(images))
    return captured.get()


def test_the_terminal_shows_names_without_markup() -> None:
    text = print_tables(IMAGES)
    assert "[red]<b>dog" in text
    assert "sky 60, void 40" in text
    assert print_tables([{"image_id": 1, "dropped_segments": []}]).strip() == "Every segment kept all of its pixels."
    only_stuff = print_tables([{"image_id": 1, "dropped_segments": [dropped("overlap", None, None, 10, 5)]}])
    assert "overlap" in only_stuff
    assert "costliest" not in only_stuff


def test_the_page_has_the_metrics_and_both_tables(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_dropped_segments_page(
        path, "fused", {"panoptic_seg": {"PQ": 41.25, "SQ": 1.0}}, json.loads(json.dumps(IMAGES))
    )
    page = path.read_text()
    for text in ("41.2", "[red]&lt;b&gt;dog", "sky 60, void 40", "lost pixels", "3, instance 2"):
        assert text in page
    assert "<b>" not in page
    write_dropped_segments_page(path, "fused", {}, [])
    assert "Every segment kept all of its pixels." in path.read_text()
