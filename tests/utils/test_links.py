from __future__ import annotations

from pathlib import Path

import pytest

from segkit.utils.errors import DatasetError
from segkit.utils.files import read_bytes
from segkit.utils.links import check_link, refusing_outer_links


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset with a file, links inside, and links to a secret beside it; `named` is a link to the dataset."""
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    (root / "images/a").write_text("a")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("key")
    (root / "inside").symlink_to(root / "images/a")
    (root / "folder").symlink_to("images")
    (root / "outside").symlink_to(tmp_path / "secret/key")
    (root / "far").symlink_to(tmp_path / "secret")
    (tmp_path / "named").symlink_to(root)
    return root


@pytest.mark.parametrize("name", ["images/a", "inside", "folder/a", "missing"])
def test_links_inside_pass(root: Path, name: str) -> None:
    check_link(root / name, [root], "")
    check_link(root.parent / "named" / name, [root.parent / "named"], "")


@pytest.mark.parametrize("name", ["outside", "far/key", "folder/../far/key"])
@pytest.mark.parametrize("named", ["set", "named"])
def test_links_out_of_the_dataset_are_refused(root: Path, name: str, named: str) -> None:
    folder = root.parent / named
    message = rf"{named}/.*: it is a link to .*/secret/key, outside of the dataset, which is not copied; do this"
    with pytest.raises(DatasetError, match=message):
        check_link(folder / name, [folder], "do this")


def test_what_is_named_may_be_outside(root: Path) -> None:
    """A linked folder that is named itself, a second folder, and files that are not of the dataset."""
    check_link(root / "far/key", [root, root / "far"], "")
    check_link(root / "outside", [root, root / "outside"], "")
    check_link(root / "outside", [root, root.parent / "secret"], "")
    check_link(root / "outside", [root / "images"], "")
    with pytest.raises(DatasetError):
        check_link(root / "outside", [root, root.parent / "secr"], "")


def test_files_are_guarded_in_the_block_only(root: Path) -> None:
    assert read_bytes(root / "outside") == b"key"
    with refusing_outer_links([root], "do this"):
        assert read_bytes(root / "inside") == b"a"
        with pytest.raises(DatasetError, match="do this"):
            read_bytes(root / "outside")
    assert read_bytes(root / "outside") == b"key"
