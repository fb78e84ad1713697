"""What the pages name exists: files, modules, links and anchors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "datasets").glob("*.md")])
# In code spans: a path that begins with a folder of the repository or of the package.
PATH = re.compile(r"`((?:[\w.-]+/)+(?:[\w.-]+\.(?:py|md|yaml|toml|html))?)(?::[^`]*)?`")
FOLDERS = {path.name for base in (ROOT, ROOT / "segkit") for path in base.iterdir() if path.is_dir()} - {"output"}
MODULE = re.compile(r"\b(segkit(?:\.[a-z_0-9]+)+)")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)")


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them of its headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_named_in_pages_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = [path for path in PATH.findall(text) if path.split("/")[0] in FOLDERS]
    missing = [
        path for path in paths if not any((base / path).exists() for base in (ROOT, ROOT / "segkit", page.parent))
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_modules_named_in_pages_exist(page: Path) -> None:
    missing = []
    for name in MODULE.findall(page.read_text(encoding="utf-8")):
        path = ROOT / name.replace(".", "/")
        # The last part may be a name inside the module.
        if not any(
            p.exists()
            for p in (path, path.with_suffix(".py"), path.parent.with_suffix(".py"), path.parent / "__init__.py")
        ):
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_have_targets(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), target
        if anchor:
            assert anchor in headings(linked), f"{target}#{anchor}"


def test_tests_that_the_pages_name_exist() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8"))}
    assert [name for name in sorted(named) if f"def {name}(" not in sources] == []


def test_every_environment_variable_has_a_row_in_its_page() -> None:
    variable = re.compile(r"\bSEGKIT_[A-Z_]*[A-Z]\b")
    page = (ROOT / "docs" / "environment-variables.md").read_text(encoding="utf-8")
    rows = {name for line in page.splitlines() if line.startswith("| `") for name in variable.findall(line)}
    named = {n for path in (ROOT / "segkit").rglob("*.py") for n in variable.findall(path.read_text(encoding="utf-8"))}
    assert named == rows
