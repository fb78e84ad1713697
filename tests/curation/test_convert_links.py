"""Symbolic links that lead out of a dataset: their targets are copied neither by `data convert` nor by --fix."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from segkit.cli.main import main
from segkit.curation.convert import convert
from segkit.formats.detection import detect_format
from segkit.formats.registry import open_writer
from tests.helpers.one_image import CATEGORIES, write_panoptic

FILES = {  # of one image
    "coco-panoptic": 2,
    "coco-instances": 1,
    "two-channel-png": 2,
    "semantic-maps": 2,
    "voc": 3,
    "labelme": 2,
    "yolo": 2,
    "ade20k": 2,
}


def link_outside(path: Path, outside: Path) -> None:
    """Moves a file out of the dataset, and links it from its place."""
    path.rename(outside / f"outside-{path.name}")
    path.symlink_to(outside / f"outside-{path.name}")


def write_set(root: Path, format_name: str) -> None:
    reader = write_panoptic(root.parent / "source")
    convert(reader, open_writer(format_name, root, CATEGORIES, {}), copy_images=True)


def build_command(format_name: str, root: Path) -> list[str]:
    options = dict(detect_format({"root": str(root)}).options)
    others = [f"{key}={options.pop(key)}" for key in ("annotations",) if key in options]
    paths = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    target = "labelme" if format_name == "coco-panoptic" else "coco-panoptic"
    command = ["data", "convert", "--from", format_name, "--to", target, "--output", f"{root.parent}/out"]
    return [*command, *paths, *(["--set", *others] if others else [])]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("format_name", FILES)
def test_every_file_of_an_image_is_refused(
    format_name: str, tmp_path: Path, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images and labels of every format, one after the other; no output stays behind."""
    root = tmp_path / "set"
    write_set(root, format_name)
    command = build_command(format_name, root)
    paths = [path for path in sorted(root.rglob("x.*")) if path.is_file()]
    assert len(paths) == FILES[format_name]
    for path in paths:
        link_outside(path, outside)
        assert main(command) == 1
        error = capsys.readouterr().err
        assert f"{path}: it is a link to {outside}/outside-{path.name}, outside of the dataset" in error
        assert "say --follow-links if you trust the dataset" in error
        assert len(error.splitlines()) == 1
        assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "set", "source"]
        os.replace(outside / f"outside-{path.name}", path)
    assert main(command) == 0


def test_links_of_folders_and_the_option(tmp_path: Path, outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "set"
    write_set(root, "yolo")
    (root / "images").rename(outside / "images")
    (root / "images").symlink_to(outside / "images")
    command = ["data", "convert", "--from", "yolo", "--root", str(root), "--to", "labelme", "--output"]
    assert main([*command, f"{tmp_path}/out"]) == 1
    assert "images/train/a/x.png: it is a link to" in capsys.readouterr().err
    assert main([*command, f"{tmp_path}/out", "--follow-links"]) == 0
    assert (tmp_path / "out/a/x.png").is_file()
    assert main([*command, f"{tmp_path}/labels", "--skip-images"]) == 0


def test_paths_that_are_named_may_be_links(tmp_path: Path, outside: Path) -> None:
    write_panoptic(tmp_path / "set")
    for name in ("p.json", "p", "images"):
        (tmp_path / "set" / name).rename(outside / name)
        (tmp_path / "set" / name).symlink_to(outside / name)
    command = ["data", "convert", "--from", "coco-panoptic", "--to", "labelme", "--output", f"{tmp_path}/out"]
    for key, name in (("json", "p.json"), ("masks", "p"), ("images", "images")):
        command += [f"--{key}", f"{tmp_path}/set/{name}"]
    assert main(command) == 0
    assert (tmp_path / "out/a/x.png").is_file()


def test_volumes_are_refused(tmp_path: Path, outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "set" / folder / "a.nii.gz" for folder in ("imagesTr", "labelsTr")]
    for path in paths:
        path.parent.mkdir(parents=True)
        volume: Any = nibabel.Nifti1Image(np.ones((3, 3, 2), np.uint8), np.eye(4))
        nibabel.save(volume, path)
    command = ["data", "convert", "--from", "decathlon", "--root", f"{tmp_path}/set", "--to", "coco-panoptic"]
    for path in paths:
        link_outside(path, outside)
        assert main([*command, "--output", f"{tmp_path}/out"]) == 1
        assert f"{path}: it is a link to" in capsys.readouterr().err
        os.replace(outside / "outside-a.nii.gz", path)
    assert main([*command, "--output", f"{tmp_path}/out"]) == 0


def test_repaired_copies_and_semantic_pngs(tmp_path: Path, outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_panoptic(tmp_path / "set")
    link_outside(tmp_path / "set/p/x.png", outside)
    paths = ["--json", f"{tmp_path}/set/p.json", "--masks", f"{tmp_path}/set/p"]
    images = ["--images", f"{tmp_path}/set/images"]
    message = f"p/x.png: it is a link to {outside}/outside-x.png, outside of the dataset, which is not copied"
    assert main(["data", "check", "--format", "coco-panoptic", *paths, *images, "--fix", f"{tmp_path}/fixed"]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "fixed").exists()
    assert main(["data", "panoptic-stuff", *paths, "--output", f"{tmp_path}/stuff"]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "stuff").exists()
