"""Conversion between formats: round trips keep everything that both formats hold, and losses are reported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segkit.cli.main import main
from segkit.curation.convert import ConversionLoss, convert, summarize_losses
from segkit.formats.base import DatasetImage
from segkit.formats.coco import (
    CocoInstancesReader,
    CocoInstancesWriter,
    CocoPanopticReader,
    CocoPanopticWriter,
    PanopticWriter,
)
from segkit.formats.label_images import SemanticMapWriter
from segkit.formats.png import read_labels
from segkit.formats.registry import READERS, WRITERS, open_reader, open_writer
from segkit.structures import CategorySet, PanopticSegmentation, Segment, mask_to_rle
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers.one_image import CATEGORIES, GROUND_TRUTH, compare_key, write_panoptic


def test_panoptic_to_panoptic_changes_nothing_and_copies_images(tmp_path: Path) -> None:
    reader, calls = write_panoptic(tmp_path), []
    output = tmp_path / "out"
    writer = CocoPanopticWriter(output, CATEGORIES)
    losses = convert(reader, writer, copy_images=True, progress=lambda done, total: calls.append((done, total)))
    assert losses == []
    assert calls == [(1, 1)]
    written = CocoPanopticReader(output / "panoptic.json", output / "panoptic", output / "images")
    (image,) = written.images
    assert image == reader.images[0]
    assert compare_key(written.read_segmentation(image)) == compare_key(GROUND_TRUTH)
    assert np.array_equal(written.read_image(image), reader.read_image(image))


def test_to_instances_and_back_keeps_things_and_crowds_and_reports_stuff(tmp_path: Path) -> None:
    losses = convert(write_panoptic(tmp_path), CocoInstancesWriter(tmp_path / "out", CATEGORIES))
    assert losses == [ConversionLoss("x", "1 segments of stuff cannot be held")]
    written = CocoInstancesReader(tmp_path / "out" / "instances.json", tmp_path / "images")
    things = {part for part in compare_key(GROUND_TRUTH) if part[0] == 3}
    assert compare_key(written.read_segmentation(written.images[0])) == things


def test_to_semantic_maps(tmp_path: Path) -> None:
    """cat is class 0, sky 1, void 255."""
    losses = convert(write_panoptic(tmp_path), SemanticMapWriter(tmp_path / "out", CATEGORIES))
    assert [loss.description for loss in losses] == [
        "2 objects of 1 classes are not told apart",
        "1 crowds are their class",
    ]
    assert read_labels(tmp_path / "out" / "labels" / "a" / "x.png").tolist() == [[0, 0, 255], [1, 1, 0]]
    assert json.loads((tmp_path / "out" / "classes.json").read_text()) == ["cat", "sky"]


def test_overlapping_masks_are_reported(tmp_path: Path) -> None:
    """The second mask covers one pixel of the first."""
    writer = CocoPanopticWriter(tmp_path, CATEGORIES)
    ground_truth = PanopticSegmentation(np.array([[1, 2]], np.int32), (Segment(1, 3, True, 1), Segment(2, 3, True, 1)))
    masks = [np.array([[1, 1]], bool), np.array([[0, 1]], bool)]
    annotations = [{"area": 0, "segmentation": mask_to_rle(mask)} for mask in masks]
    with writer:
        losses = writer.add(DatasetImage("x", "x.png", (1, 2)), ground_truth, annotations)
    assert losses == ["annotations: 1 pixels under other masks cannot be held"]


@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
@settings(max_examples=25, deadline=None)
def test_things_survive_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory, seed: int, size: tuple[int, int]
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 5, size).astype(np.int32)
    segments = tuple(Segment(i, 3, True, int((ids == i).sum()), bool(i % 2)) for i in range(1, 5) if (ids == i).any())
    ground_truth = PanopticSegmentation(ids, segments)
    convert(write_panoptic(folder, ground_truth), CocoInstancesWriter(folder / "i", CATEGORIES))
    instances = CocoInstancesReader(folder / "i" / "instances.json", folder / "images")
    things = CategorySet(CATEGORIES.things)
    assert convert(instances, CocoPanopticWriter(folder / "q", things)) == []
    written = CocoPanopticReader(folder / "q" / "panoptic.json", folder / "q" / "panoptic", folder / "images")
    assert compare_key(written.read_segmentation(written.images[0])) == compare_key(ground_truth)


def test_a_damaged_image_leaves_no_index(tmp_path: Path) -> None:
    reader = write_panoptic(tmp_path)
    (tmp_path / "p" / "x.png").write_bytes(b"no PNG")
    with pytest.raises(DatasetError, match=r"x\.png"):
        convert(reader, CocoPanopticWriter(tmp_path / "out", CATEGORIES))
    assert not (tmp_path / "out" / "panoptic.json").exists()


def test_the_dataset_is_never_overwritten(tmp_path: Path) -> None:
    reader = write_panoptic(tmp_path)
    with pytest.raises(DatasetError, match="would overwrite an image of the dataset"):
        convert(reader, CocoPanopticWriter(tmp_path, CATEGORIES), copy_images=True)


def test_the_summary_counts_the_remaining_losses() -> None:
    losses = [ConversionLoss(i, "gone") for i in range(4)]
    assert summarize_losses(losses, limit=2) == ["image 0: gone", "image 1: gone", "... and 2 more"]
    assert summarize_losses(losses) == [f"image {i}: gone" for i in range(4)]


def test_the_convert_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_panoptic(tmp_path)
    path_options = ["--json", f"{tmp_path}/p.json", "--masks", f"{tmp_path}/p", "--images", f"{tmp_path}/images"]
    command = ["data", "convert", "--from", "coco-panoptic", "--to", "coco-instances", *path_options]
    assert main([*command, "--output", f"{tmp_path}/out"]) == 0
    assert "1 segments of stuff" in capsys.readouterr().out
    assert (tmp_path / "out" / "images" / "a" / "x.png").is_file()
    assert main([*command, "--output", f"{tmp_path}/out"]) == 1
    assert "an empty or new folder" in capsys.readouterr().err
    assert main([*command[:5], "unknown", *path_options, "--output", f"{tmp_path}/b"]) == 1
    assert "unknown format 'unknown'; choose one of ade20k, " in capsys.readouterr().err
    assert main([*command[:5], "nnunet", *path_options, "--output", f"{tmp_path}/b"]) == 1
    assert "the format 'nnunet' is only read; write one of ade20k, " in capsys.readouterr().err


def test_invalid_formats_and_options_are_reported() -> None:
    with pytest.raises(ConfigError, match="unknown format 'x'; choose one of"):
        open_reader("x", {})
    with pytest.raises(ConfigError, match=r"takes \['json', 'masks', 'images', .*\].* got \['root'\]"):
        open_reader("coco-panoptic", {"root": "r"})
    with pytest.raises(ConfigError, match="unknown format 'coco_panoptc'; did you mean 'coco-panoptic'"):
        open_reader("coco_panoptc", {})
    with pytest.raises(ConfigError, match=r"got \['root', 'spilt'\]; did you mean 'split' for 'spilt'\?$"):
        open_reader("voc", {"root": "r", "spilt": "val"})
    with pytest.raises(ConfigError, match="overlap must be one of"):
        open_reader("coco-instances", {"json": "j", "images": "i", "overlap": "random"})


def test_images_are_copied_to_where_the_format_expects_them(tmp_path: Path) -> None:
    """Write as ADE20K and read back, with the image."""
    reader = write_panoptic(tmp_path)
    convert(reader, WRITERS["ade20k"](tmp_path / "out", CATEGORIES), copy_images=True)
    written = open_reader("ade20k", {"root": tmp_path / "out"})
    assert np.array_equal(written.read_image(written.images[0]), reader.read_image(reader.images[0]))
    assert compare_key(written.read_segmentation(written.images[0])) == compare_key(GROUND_TRUTH)


def test_the_formats_are_listed_with_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "formats"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == sorted({*READERS, *WRITERS})
    assert lines[lines.index("voc") + 1].startswith("  read: root [split=train] [classes=None]")
    assert lines[lines.index("voc") + 2] == "  written: [split=train] [border_px=0]"


def test_options_of_the_written_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_panoptic(tmp_path)
    path_options = ["--json", f"{tmp_path}/p.json", "--masks", f"{tmp_path}/p", "--images", f"{tmp_path}/images"]
    arguments = [
        "data",
        "convert",
        "--from",
        "coco-panoptic",
        *path_options,
        "--to",
        "voc",
        "--output",
        f"{tmp_path}/out",
    ]
    assert main([*arguments, "--to-set", "split=val", "border=2"]) == 1
    assert "takes ['split', 'border_px']" in capsys.readouterr().err
    assert main([*arguments, "--to-set", "split=val"]) == 0
    assert (tmp_path / "out" / "ImageSets" / "Segmentation" / "val.txt").is_file()


def test_the_output_is_complete_or_absent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """labelme has no index: the images before the damaged one would look like a whole dataset."""
    data = tmp_path / "data"
    with PanopticWriter(data / "p.json", data / "p", CATEGORIES) as writer:
        for name in "ab":
            writer.add(name, f"{name}.png", GROUND_TRUTH)
            (data / "images").mkdir(exist_ok=True)
            Image.fromarray(np.full((2, 3, 3), 80, np.uint8)).save(data / "images" / f"{name}.png")
    path_options = ["--json", f"{data}/p.json", "--masks", f"{data}/p", "--images", f"{data}/images"]
    arguments = ["data", "convert", "--from", "coco-panoptic", *path_options, "--to", "labelme", "--output"]
    (data / "p" / "b.png").write_bytes(b"cut off")
    assert main([*arguments, f"{tmp_path}/out"]) == 1
    assert "b.png: expected a PNG" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    for output, message in (
        (data / "images" / "new", "is within --images"),
        (data / "p.json" / "new", "cannot be written"),
        (data, "expected an empty or new folder"),
    ):
        assert main([*arguments, str(output)]) == 1
        assert message in capsys.readouterr().err
    assert main([*arguments, f"{tmp_path}/out", "--to-set", "a=[1"]) == 1
    assert "expected the value in YAML, got 'a=[1'" in capsys.readouterr().err


def test_licences_are_kept_between_coco_formats_and_reported_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_panoptic(tmp_path / "data")
    content = json.loads((tmp_path / "data" / "p.json").read_text())
    content["licenses"] = [{"id": 4, "name": "CC-BY"}]
    content["images"][0]["license"] = 4
    (tmp_path / "data" / "p.json").write_text(json.dumps(content))
    data = tmp_path / "data"
    path_options = ["--json", f"{data}/p.json", "--masks", f"{data}/p", "--images", f"{data}/images"]
    arguments = ["data", "convert", "--from", "coco-panoptic", *path_options]
    assert main([*arguments, "--to", "coco-panoptic", "--output", f"{tmp_path}/p"]) == 0
    assert "license" not in capsys.readouterr().out
    written = json.loads((tmp_path / "p" / "panoptic.json").read_text())
    assert (written["licenses"], written["images"][0]["license"]) == (content["licenses"], 4)
    assert main([*arguments, "--to", "two-channel-png", "--output", f"{tmp_path}/t"]) == 0
    assert "keys of the dataset and its images: 'license', 'licenses'" in capsys.readouterr().out


@pytest.mark.parametrize("to", ["coco-panoptic", "voc", "labelme", "two-channel-png", "instance-maps", "semantic-maps"])
def test_lost_keys_of_annotations_are_reported(tmp_path: Path, to: str) -> None:
    reader = write_panoptic(tmp_path)
    with CocoInstancesWriter(tmp_path, CATEGORIES) as writer:
        writer.add(reader.images[0], GROUND_TRUTH)
    content = json.loads((tmp_path / "instances.json").read_text())
    content["annotations"][0]["caption"] = "a cat"
    content["categories"][0]["skeleton"] = [[1, 2]]
    (tmp_path / "instances.json").write_text(json.dumps(content))
    reader_of_instances = CocoInstancesReader(tmp_path / "instances.json", tmp_path / "images")
    losses = convert(reader_of_instances, open_writer(to, tmp_path / "out", reader_of_instances.categories, {}))
    assert "annotations: the keys 'caption' cannot be held" in [loss.description for loss in losses]
    assert reader_of_instances.skipped[-1].endswith(
        "1 keys of annotations and categories that are not read: 'skeleton'"
    )
