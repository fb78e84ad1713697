"""Input of `segkit predict`: images from files, folders and patterns."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from segkit.runtime.image_inputs import check_apart, find_images, find_root
from segkit.utils.errors import DatasetError


def write_images(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(folder / name)
    return folder


def test_folders_files_and_patterns_name_each_image_once(tmp_path: Path) -> None:
    write_images(tmp_path, "b.png", "a.JPG", "below/c.tif", "below/d.bmp")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "below" / "loop").symlink_to(tmp_path)
    paths = find_images([str(tmp_path), str(tmp_path / "b.png")])
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == ["a.JPG", "b.png", "below/c.tif", "below/d.bmp"]
    assert find_images([str(tmp_path / "[ab].*")]) == [tmp_path / "a.JPG", tmp_path / "b.png"]
    with pytest.raises(DatasetError, match="no images found"):
        find_images([str(tmp_path / "*.webp")])


def test_patterns_of_folders_and_names_with_brackets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, "a/1.png", "b/2.png", "c/3.png", "d[1].png")
    (tmp_path / "b" / "notes.txt").write_text("no image")
    assert find_images([f"{tmp_path}/[ab]"]) == [tmp_path / "a/1.png", tmp_path / "b/2.png"]
    assert find_images([f"{tmp_path}/**/*.png"]) == sorted(tmp_path.rglob("*.png"))
    assert find_images([f"{tmp_path}/d[1].png"]) == [tmp_path / "d[1].png"]
    monkeypatch.chdir(tmp_path)
    assert find_images(["a", "./a/1.png", str(tmp_path / "a")]) == [Path("a/1.png")]


def test_hidden_and_system_files_are_skipped_with_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path, "1.png", ".hidden.png", ".folder/2.png")
    for name in ("._1.png", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"\0\5\26\7")
    assert find_images([str(tmp_path)]) == [tmp_path / "1.png"]
    assert "skipped 4 hidden or system files: " in caplog.text
    assert "._1.png" in caplog.text
    names = ["._1.png", "1.png", "Thumbs.db"]  # as a shell expands `*` of a hidden folder, or Windows
    with pytest.raises(DatasetError, match="no images found"):
        find_images([str(tmp_path / "Thumbs.db")])
    assert find_images([str(tmp_path / ".hidden.png")]) == [tmp_path / ".hidden.png"]
    assert find_images([f"{tmp_path}/*"]) == [tmp_path / "1.png"]
    assert names[0] in caplog.text


def test_videos_in_folders_are_skipped_with_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path, "1.png")
    (tmp_path / "only").mkdir()
    for name in ("clip.MP4", "only/clip.mp4"):
        (tmp_path / name).touch()
    assert find_images([str(tmp_path)]) == [tmp_path / "1.png"]
    assert "skipped 2 videos in folders; name them to predict them: " in caplog.text
    with pytest.raises(DatasetError, match=r"no images found; .*name videos themselves, or by a pattern"):
        find_images([str(tmp_path / "only")])
    assert find_images([f"{tmp_path}/only/*"]) == [tmp_path / "only/clip.mp4"]


def test_earlier_results_are_no_inputs(tmp_path: Path) -> None:
    write_images(tmp_path, "1.png", "out/overlays/1.png")
    assert find_images([str(tmp_path)], tmp_path / "out") == [tmp_path / "1.png"]


@pytest.mark.parametrize(
    ("inputs", "root"),
    [
        (["in"], "in"),
        (["in/a", "in/b"], "in"),
        (["in/a/1.png"], "in/a"),
        (["in/a/1.png", "in/b/1.png"], "in"),
        (["in/*/1.png"], "in"),
        (["in/a/*.png", "in"], "in"),
        (["in/a/1.png", "other"], "."),
        (["in/../in/a"], "in/a"),
    ],
)
def test_the_root_is_the_folder_that_the_inputs_share(
    inputs: list[str], root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, "in/a/1.png", "in/b/1.png", "other/1.png")
    monkeypatch.chdir(tmp_path)
    assert find_root(inputs) == tmp_path / root


@pytest.mark.parametrize("output", [".", "data", "data/images", "linked", "link"])
def test_an_output_folder_with_inputs_is_refused(output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, "data/images/1.png", "out/1.png")
    (tmp_path / "link").symlink_to("data")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/overlays").symlink_to("../data/images")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="name another output folder"):
        check_apart([Path("data/images/1.png")], Path(output), ["overlays"])
    check_apart([Path("data/images/1.png")], Path("out"), ["overlays"])
