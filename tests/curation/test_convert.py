"""Conversion between layouts: round trips lose nothing that both can hold, and the rest is told."""

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
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment, mask_to_rle
from segkit.utils.errors import ConfigError, DatasetError

CATEGORIES = CategorySet([Category(3, "cat", True, (1, 2, 3)), Category(9, "sky", False, (4, 5, 6))])
GROUND_TRUTH = PanopticSegmentation(
    np.array([[7, 7, 0], [30, 30, 5]], np.int32),
    (Segment(7, 3, True, 2), Segment(30, 9, False, 2), Segment(5, 3, True, 1, True)),
)


def panoptic(folder: Path, ground_truth: PanopticSegmentation = GROUND_TRUTH) -> CocoPanopticReader:
    """One image `a/x.png` with its truth."""
    with PanopticWriter(folder / "p.json", folder / "p", CATEGORIES) as writer:
        writer.add("x", "a/x.png", ground_truth)
    (folder / "images" / "a").mkdir(parents=True, exist_ok=True)
    height, width = ground_truth.segment_ids.shape
    Image.fromarray(np.full((height, width, 3), 80, np.uint8)).save(folder / "images" / "a" / "x.png")
    return CocoPanopticReader(folder / "p.json", folder / "p", folder / "images")


def parts(ground_truth: PanopticSegmentation) -> set[tuple[int, bool, tuple[int, ...]]]:
    """The segments without their ids: class, crowd, pixels."""
    ids = ground_truth.segment_ids.ravel()
    return {(s.category_id, s.iscrowd, tuple(np.flatnonzero(ids == s.segment_id))) for s in ground_truth.segments}


def test_panoptic_to_panoptic_is_the_same_and_pictures_come_along(tmp_path: Path) -> None:
    source, seen = panoptic(tmp_path), []
    output = tmp_path / "out"
    on_issue = lambda done, total: seen.append((done, total))  # noqa: E731
    assert convert(source, CocoPanopticWriter(output, CATEGORIES), True, on_issue) == []
    assert seen == [(1, 1)]
    again = CocoPanopticReader(output / "panoptic.json", output / "panoptic", output / "images")
    (image,) = again.images
    assert image == source.images[0]
    assert parts(again.read_segmentation(image)) == parts(GROUND_TRUTH)
    assert np.array_equal(again.read_image(image), source.read_image(image))


def test_to_instances_and_back_keeps_things_and_crowds_and_tells_of_stuff(tmp_path: Path) -> None:
    losses = convert(panoptic(tmp_path), CocoInstancesWriter(tmp_path / "out", CATEGORIES))
    assert losses == [ConversionLoss("x", "1 segments of stuff cannot be held")]
    again = CocoInstancesReader(tmp_path / "out" / "instances.json", tmp_path / "images")
    things = {part for part in parts(GROUND_TRUTH) if part[0] == 3}
    assert parts(again.read_segmentation(again.images[0])) == things


def test_to_semantic_maps(tmp_path: Path) -> None:
    """cat is class 0, sky 1, void 255."""
    losses = convert(panoptic(tmp_path), SemanticMapWriter(tmp_path / "out", CATEGORIES))
    assert [loss.description for loss in losses] == [
        "2 objects of 1 classes are not told apart",
        "1 crowds are their class",
    ]
    assert read_labels(tmp_path / "out" / "labels" / "a" / "x.png").tolist() == [[0, 0, 255], [1, 1, 0]]
    assert json.loads((tmp_path / "out" / "classes.json").read_text()) == ["cat", "sky"]


def test_overlapping_masks_are_told(tmp_path: Path) -> None:
    """The second mask lies over one pixel of the first."""
    writer = CocoPanopticWriter(tmp_path, CATEGORIES)
    ground_truth = PanopticSegmentation(np.array([[1, 2]], np.int32), (Segment(1, 3, True, 1), Segment(2, 3, True, 1)))
    masks = [np.array([[1, 1]], bool), np.array([[0, 1]], bool)]
    annotations = [{"area": 0, "segmentation": mask_to_rle(mask)} for mask in masks]
    with writer:
        told = writer.add(DatasetImage("x", "x.png", (1, 2)), ground_truth, annotations)
    assert told == ["annotations: 1 pixels under other masks cannot be held"]


@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
@settings(max_examples=25, deadline=None)
def test_things_survive_any_trip(tmp_path_factory: pytest.TempPathFactory, seed: int, size: tuple[int, int]) -> None:
    folder = tmp_path_factory.mktemp("trip")
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 5, size).astype(np.int32)
    segments = tuple(Segment(i, 3, True, int((ids == i).sum()), bool(i % 2)) for i in range(1, 5) if (ids == i).any())
    ground_truth = PanopticSegmentation(ids, segments)
    convert(panoptic(folder, ground_truth), CocoInstancesWriter(folder / "i", CATEGORIES))
    instances = CocoInstancesReader(folder / "i" / "instances.json", folder / "images")
    things = CategorySet(CATEGORIES.things)
    assert convert(instances, CocoPanopticWriter(folder / "q", things)) == []
    again = CocoPanopticReader(folder / "q" / "panoptic.json", folder / "q" / "panoptic", folder / "images")
    assert parts(again.read_segmentation(again.images[0])) == parts(ground_truth)


def test_a_damaged_image_leaves_no_index(tmp_path: Path) -> None:
    source = panoptic(tmp_path)
    (tmp_path / "p" / "x.png").write_bytes(b"no PNG")
    with pytest.raises(DatasetError, match=r"x\.png"):
        convert(source, CocoPanopticWriter(tmp_path / "out", CATEGORIES))
    assert not (tmp_path / "out" / "panoptic.json").exists()


def test_the_source_is_never_written_over(tmp_path: Path) -> None:
    source = panoptic(tmp_path)
    with pytest.raises(DatasetError, match="another folder than the source's"):
        convert(source, CocoPanopticWriter(tmp_path, CATEGORIES), copy_images=True)


def test_summary_counts_what_it_leaves_out() -> None:
    losses = [ConversionLoss(i, "gone") for i in range(4)]
    assert summarize_losses(losses, most=2) == ["image 0: gone", "image 1: gone", "... and 2 more"]
    assert summarize_losses(losses) == [f"image {i}: gone" for i in range(4)]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    panoptic(tmp_path)
    places = ["--json", f"{tmp_path}/p.json", "--masks", f"{tmp_path}/p", "--images", f"{tmp_path}/images"]
    command = ["data", "convert", "--from", "coco-panoptic", "--to", "coco-instances", *places]
    assert main([*command, "--output", f"{tmp_path}/out"]) == 0
    assert "1 segments of stuff" in capsys.readouterr().out
    assert (tmp_path / "out" / "images" / "a" / "x.png").is_file()
    assert main([*command, "--output", f"{tmp_path}/out"]) == 1
    assert "an empty or new folder" in capsys.readouterr().err
    assert main([*command[:5], "unknown", *places, "--output", f"{tmp_path}/b"]) == 1
    assert "nothing writes the format 'unknown'" in capsys.readouterr().err


def test_wrong_layouts_and_options_are_told() -> None:
    with pytest.raises(ConfigError, match="unknown format 'x'; choose one of"):
        open_reader("x", {})
    with pytest.raises(ConfigError, match=r"takes \['json', 'masks', 'images'\].* got \['root'\]"):
        open_reader("coco-panoptic", {"root": "r"})
    with pytest.raises(ConfigError, match="overlap must be one of"):
        open_reader("coco-instances", {"json": "j", "images": "i", "overlap": "random"})


def test_pictures_lie_where_the_layout_looks_for_them(tmp_path: Path) -> None:
    """Written as ADE20K and read back, picture and all."""
    source = panoptic(tmp_path)
    convert(source, WRITERS["ade20k"](tmp_path / "out", CATEGORIES), copy_images=True)
    again = open_reader("ade20k", {"root": tmp_path / "out"})
    assert np.array_equal(again.read_image(again.images[0]), source.read_image(source.images[0]))
    assert parts(again.read_segmentation(again.images[0])) == parts(GROUND_TRUTH)


def test_the_formats_are_listed_with_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "formats"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if not line.startswith(" ")] == sorted({*READERS, *WRITERS})
    assert told[told.index("voc") + 1].startswith("  read: root [split=train] [classes=None]")
    assert told[told.index("voc") + 2] == "  written: [split=train] [border_px=0]"


def test_options_of_the_written_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    panoptic(tmp_path)
    places = ["--json", f"{tmp_path}/p.json", "--masks", f"{tmp_path}/p", "--images", f"{tmp_path}/images"]
    arguments = ["data", "convert", "--from", "coco-panoptic", *places, "--to", "voc", "--output", f"{tmp_path}/out"]
    assert main([*arguments, "--to-set", "split=val", "border=2"]) == 1
    assert "takes ['split', 'border_px']" in capsys.readouterr().err
    assert main([*arguments, "--to-set", "split=val"]) == 0
    assert (tmp_path / "out" / "ImageSets" / "Segmentation" / "val.txt").is_file()


def test_the_output_is_whole_or_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """labelme has no index: the images before the damaged one would pass for a dataset."""
    data = tmp_path / "data"
    with PanopticWriter(data / "p.json", data / "p", CATEGORIES) as writer:
        for name in "ab":
            writer.add(name, f"{name}.png", GROUND_TRUTH)
            (data / "images").mkdir(exist_ok=True)
            Image.fromarray(np.full((2, 3, 3), 80, np.uint8)).save(data / "images" / f"{name}.png")
    places = ["--json", f"{data}/p.json", "--masks", f"{data}/p", "--images", f"{data}/images"]
    arguments = ["data", "convert", "--from", "coco-panoptic", *places, "--to", "labelme", "--output"]
    (data / "p" / "b.png").write_bytes(b"cut off")
    assert main([*arguments, f"{tmp_path}/out"]) == 1
    assert "b.png: expected a PNG" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    for output, told in (
        (data / "images" / "new", "is within --images"),
        (data / "p.json" / "new", "cannot be written"),
        (data, "expected an empty or new folder"),
    ):
        assert main([*arguments, str(output)]) == 1
        assert told in capsys.readouterr().err
    assert main([*arguments, f"{tmp_path}/out", "--to-set", "a=[1"]) == 1
    assert "expected the value in YAML, got 'a=[1'" in capsys.readouterr().err


def test_licences_are_kept_between_cocos_layouts_and_told_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    panoptic(tmp_path / "data")
    content = json.loads((tmp_path / "data" / "p.json").read_text())
    content["licenses"] = [{"id": 4, "name": "CC-BY"}]
    content["images"][0]["license"] = 4
    (tmp_path / "data" / "p.json").write_text(json.dumps(content))
    data = tmp_path / "data"
    places = ["--json", f"{data}/p.json", "--masks", f"{data}/p", "--images", f"{data}/images"]
    arguments = ["data", "convert", "--from", "coco-panoptic", *places]
    assert main([*arguments, "--to", "coco-panoptic", "--output", f"{tmp_path}/p"]) == 0
    assert "license" not in capsys.readouterr().out
    written = json.loads((tmp_path / "p" / "panoptic.json").read_text())
    assert (written["licenses"], written["images"][0]["license"]) == (content["licenses"], 4)
    assert main([*arguments, "--to", "two-channel-png", "--output", f"{tmp_path}/t"]) == 0
    assert "keys of the dataset and its images: 'license', 'licenses'" in capsys.readouterr().out


@pytest.mark.parametrize("to", ["coco-panoptic", "voc", "labelme", "two-channel-png", "instance-maps", "semantic-maps"])
def test_keys_of_annotations_are_told_where_they_are_lost(tmp_path: Path, to: str) -> None:
    source = panoptic(tmp_path)
    with CocoInstancesWriter(tmp_path, CATEGORIES) as writer:
        writer.add(source.images[0], GROUND_TRUTH)
    content = json.loads((tmp_path / "instances.json").read_text())
    content["annotations"][0]["caption"] = "a cat"
    content["categories"][0]["skeleton"] = [[1, 2]]
    (tmp_path / "instances.json").write_text(json.dumps(content))
    found = CocoInstancesReader(tmp_path / "instances.json", tmp_path / "images")
    losses = convert(found, open_writer(to, tmp_path / "out", found.categories, {}))
    assert "annotations: the keys 'caption' cannot be held" in [loss.description for loss in losses]
    assert found.skipped[-1].endswith("1 keys of annotations and categories that are not read: 'skeleton'")
