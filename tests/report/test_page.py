from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from segkit.report import write_page
from segkit.report.views import LegendEntry, View
from segkit.structures import Category, CategorySet

CATEGORIES = CategorySet([Category(1, "cat", True, (255, 0, 16)), Category(7, "sky", False, (0, 0, 0))])
VOID_TAGS = {"meta", "img"}


class Page(HTMLParser):
    """Every element with its attributes, the text of every element, and whether all of them close in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.text.append((self.open[-1] if self.open else "", data))

    def texts(self, tag: str) -> list[str]:
        return [text for inside, text in self.text if inside == tag]


@pytest.fixture
def page(tmp_path):
    def write(*args, **kwargs):
        write_page(tmp_path / "report.html", *args, **kwargs)
        return Page((tmp_path / "report.html").read_text(encoding="utf-8"))

    return write


def image(height=4, width=6):
    return np.zeros((height, width, 3), dtype=np.uint8)


def test_headline_metrics_come_first(page):
    read = page("Run", {"panoptic_seg": {"PQ": 41.26, "SQ": 70.0, "PQ_st": None}, "bbox": {"AP": 30.0}})
    assert read.texts("h1") == ["Run"]
    assert read.texts("dt") == ["panoptic_seg", "bbox"]
    assert read.texts("dd") == ["41.3", "30.0"]
    assert read.texts("abbr") == ["PQ", "AP"]
    assert read.texts("span")[:4] == ["SQ 70.0", "RQ –", "PQ_th –", "PQ_st –"]


def test_classes_are_sorted_by_metric_and_missing_values_are_last(page):
    per_class = {"1": {"PQ": 50.0, "tp": 3}, "7": {"PQ": None, "tp": 0}, "a": {"PQ": 120.0}, "b": {"PQ": 0.0, "tp": 1}}
    read = page("Run", {"panoptic_seg": {"PQ": 1.0, "per_class": per_class}}, categories=CATEGORIES)
    assert "Per class, lowest PQ first" in read.texts("caption")
    cells = read.texts("td")[1:]
    assert cells == ["0.0", "1", "50.0", "3", "120.0", "–", "–", "0"]
    bars = [attrs["style"] for tag, attrs in read.elements if tag == "td" and attrs.get("class") == "bar"]
    assert bars == ["--share:0.000", "--share:0.500", "--share:1.000"]  # longer than the cell no bar can be
    rows = [
        text for tag, text in read.text if tag in ("th", "span") and text in ("a", "b", "cat", "sky", "thing", "stuff")
    ]
    assert rows == ["b", "cat", "thing", "a", "sky", "stuff"]
    chips = [attrs["style"] for tag, attrs in read.elements if attrs.get("class") == "chip"]
    assert chips == ["background:#ff0010", "background:#000000"]


def test_tables_have_captions_and_scopes(page):
    read = page(
        "Run", {"segm": {"AP": 1.0, "AP-cat": 2.0, "AP-dog": 1.0}, "time": {"seconds": 3, "where": {"load": 1.0}}}
    )
    tags = [tag for tag, _ in read.elements]
    assert tags.count("caption") == tags.count("table") == 4
    assert {attrs.get("scope") for tag, attrs in read.elements if tag == "th"} == {"row", "col"}


def test_long_tables_scroll_in_their_frame(page):
    for rows in (25, 26):
        read = page("Run", {"segm": {"AP": 1.0, "per_class": {f"c{n}": 1.0 for n in range(rows)}}})
        assert any(attrs.get("class") == "sheet long" for _, attrs in read.elements) == (rows > 25)


def test_all_text_is_escaped(page):
    evil = '<script>alert("1")</script>'
    category = CategorySet([Category(1, evil, True, (0, 0, 0))])
    metrics = {
        evil: {evil: evil, "PQ": 1.0, "per_class": {"1": {"PQ": 1.0, evil: evil}, evil: 2.0}, f"{evil}2": {evil: 1}}
    }
    read = page(evil, metrics, [(evil, image())], categories=category, notes=[evil])
    assert "script" not in {tag for tag, _ in read.elements}
    assert all(
        name
        in (
            "class",
            "style",
            "scope",
            "src",
            "alt",
            "width",
            "height",
            "role",
            "aria-label",
            "tabindex",
            "lang",
            "charset",
            "name",
            "content",
        )
        for _, attrs in read.elements
        for name in attrs
    )
    assert read.texts("h1") == read.texts("title") == read.texts("figcaption") == read.texts("p") == [evil]


def test_the_page_loads_no_external_resources(page, tmp_path):
    page("Run", {"bbox": {"AP": 1.0}}, [("small", image()), ("large", image(300, 1000))])
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|href|@import|url\(|<link|<script", source)
    sources = [attrs["src"] for tag, attrs in Page(source).elements if tag == "img"]
    assert [uri[:15] for uri in sources] == ["data:image/png;", "data:image/jpeg"]


def test_images_have_their_size_and_position(page):
    read = page("Run", {}, [("small", image(4, 256)), ("middle", image(300, 257)), ("wide", image(2, 900))])
    figures = [attrs.get("class") for tag, attrs in read.elements if tag == "figure"]
    images = [attrs for tag, attrs in read.elements if tag == "img"]
    assert figures == [None, None, "wide"]
    assert [image.get("class") for image in images] == ["small", None, None]
    assert [(image["width"], image["height"], image["alt"]) for image in images] == [
        ("256", "4", "small"),
        ("257", "300", "middle"),
        ("900", "2", "wide"),
    ]


def test_views_are_pairs_with_a_legend(page):
    view = View("<a>", image(), image(300, 300), (LegendEntry("<cat>", (255, 0, 16), "2"),))
    read = page("Run", {}, views=[view])
    assert [attrs["alt"] for tag, attrs in read.elements if tag == "img"] == ["<a>", "overlay of <a>"]
    assert read.texts("figcaption") == ["<a>"]
    assert read.texts("li") == ["<cat>"]
    assert read.texts("span") == ["2"]
    assert [attrs["style"] for _, attrs in read.elements if attrs.get("class") == "chip"] == ["background:#ff0010"]


def test_an_empty_report_is_a_page(page):
    read = page("Run", {})
    assert {tag for tag, _ in read.elements} == {"html", "head", "meta", "title", "style", "body", "main", "h1"}
    assert page("Run", {"panoptic_seg": {}}).texts("h2") == []


def test_invalid_unicode_does_not_break_the_page(page):
    assert page("Run \udcff", {}).texts("h1") == ["Run \\xff"]


def test_a_failure_keeps_the_old_page_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(ValueError, match="image must be"):
        write_page(path, "Run", {}, [("flat", image()[..., 0])])
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_folders_are_created_and_equal_input_gives_equal_pages(tmp_path):
    for name in ("a", "b"):
        write_page(str(tmp_path / name / "report.html"), "Run", {"bbox": {"AP": 1.0}}, [("p", image())])
    assert (tmp_path / "a/report.html").read_bytes() == (tmp_path / "b/report.html").read_bytes()
