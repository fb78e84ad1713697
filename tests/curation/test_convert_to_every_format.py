"""Every writer of the registry: empty predictions, and names of images, arrive or are named in one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from segkit.cli.main import main
from segkit.formats import coco, png
from segkit.formats.detection import detect_format
from segkit.formats.registry import WRITERS, open_reader
from segkit.structures import Category, CategorySet, ImageId, PanopticSegmentation, Segment, mask_to_rle
from tests.helpers import decathlon_tree

FORMATS = sorted(WRITERS)
PERSON = Category(24, "person", True, (220, 20, 60))
SKY = Category(23, "sky", False, (70, 130, 180))
SIZE_HW = HEIGHT, WIDTH = 3, 9
VOLUME = "v é 细"  # of the slices for `decathlon`
DEPTH = 4  # slices
OF_THINGS = {"coco-instances", "coco-results", "instance-maps", "voc", "yolo"}
OF_THINGS_ALONE = "{}: expected categories with things, all are stuff; convert to another format"


def write_run(root: Path, images: dict[str, ImageId], categories: Sequence[Category], persons: bool = False) -> None:
    """Write a run, COCO results and images; with `persons` the nth image has n of one pixel."""
    classes = CategorySet(categories)
    entries, results = [], []
    with coco.PanopticWriter(root / "run/panoptic.json", root / "run/panoptic", classes) as writer:
        for number, (name, image_id) in enumerate(images.items(), 1):
            ids, segments = np.zeros(SIZE_HW, np.int32), []
            for segment_id in range(1, number + 1) if persons else ():
                ids[1, 2 * segment_id - 2] = segment_id
                segments.append(Segment(segment_id, PERSON.category_id, True, 1, score=0.75))
            segmentation = PanopticSegmentation(ids, tuple(segments))
            writer.add(image_id, name, segmentation)
            own = {"image_id": image_id, "category_id": PERSON.category_id, "iscrowd": 0, "area": 1, "score": 0.75}
            masks = [ids == segment.segment_id for segment in segments]
            results += [{**own, "segmentation": mask_to_rle(mask), "bbox": [0, 0, 1, 1]} for mask in masks]
            entries.append({"id": image_id, "file_name": name, "height": HEIGHT, "width": WIDTH})
            png.write(root / "images" / name, np.full((*SIZE_HW, 3), 9, np.uint8))
    if classes.things:
        coco.write_instances(root / "run/instances.json", entries, results, classes)
    tables = {"images": entries, "categories": classes.to_coco()}
    (root / "dataset.json").write_text(json.dumps(tables))
    (root / "results.json").write_text(json.dumps(results))


SOURCES = {
    "run": "--root {root}/run",
    "coco-results": "--json {root}/results.json --dataset {root}/dataset.json",
    "panoptic-predictions": "--json {root}/run/panoptic.json --masks {root}/run/panoptic",
}


def convert(root: Path, source: str, to: str, output: Path) -> int:
    places = [text.format(root=root) for text in SOURCES[source].split()]
    command = ["data", "convert", "--from", source, *places, "--images", f"{root}/images", "--to", to]
    options = []
    if to == "decathlon":
        nib = pytest.importorskip("nibabel")
        label = np.zeros((WIDTH, HEIGHT, DEPTH), np.uint8)
        decathlon_tree.add_volume(nib, root / "task", VOLUME, label=label)
        options = ["--to-set", f"volumes={root}/task/imagesTr", "fill=true"]
    return main([*command, "--output", str(output), *options])


def count_persons(to: str, root: Path) -> dict[str, int]:
    """Objects, or pixels, of persons by the stem of the image, in all files of a format."""
    if to == "coco-results":
        names = {x["id"]: x["file_name"] for x in json.loads((root / "image_info.json").read_text())["images"]}
        results = json.loads((root / "results.json").read_text())
        return {stem(name): sum(x["image_id"] == image_id for x in results) for image_id, name in names.items()}
    if to == "coco-submission":
        (path,) = root.glob("*.json")
        annotations = json.loads(path.read_text())["annotations"]
        return {stem(x["file_name"]): len(x["segments_info"]) for x in annotations}
    if to == "cityscapes-submission":
        texts = {path.name.removesuffix("_pred.txt"): path.read_text() for path in root.glob("instances/*.txt")}
        return {name: text.count("\n") for name, text in texts.items()}
    if to == "geojson":
        paths = root.rglob("*.geojson")
        return {stem(path.relative_to(root)): len(json.loads(path.read_text())["features"]) for path in paths}
    if to == "label-studio":
        tasks = json.loads((root / "tasks.json").read_text())
        return {stem(unquote(task["data"]["image"])): len(task["predictions"][0]["result"]) for task in tasks}
    if to == "decathlon":
        volume = np.asarray(pytest.importorskip("nibabel").load(root / f"{VOLUME}.nii.gz").dataobj)
        return {f"{VOLUME}_{index:03d}": np.count_nonzero(volume[..., index]) for index in range(DEPTH)}
    if to.startswith("cvat"):
        folder = root / ("SegmentationObject" if to == "cvat-masks" else "annotations/panoptic_default")
        pngs = {path: np.asarray(Image.open(path).convert("RGB")) for path in folder.rglob("*.png")}
        return {stem(path.relative_to(folder)): np.count_nonzero(x.any(-1)) for path, x in pngs.items()}
    options = {"instance-maps": {"thing": "person"}, "labelme": {"things": ["person"], "stuff": ["sky"]}}.get(to, {})
    detection = detect_format({"root": root, **options})
    assert detection.format_name == to.replace("panoptic-predictions", "coco-panoptic")
    reader = open_reader(detection.format_name, detection.options)
    return {
        stem(image.file_name).removesuffix("_leftImg8bit"): sum(
            segment.area_px
            for segment in reader.read_segmentation(image).segments
            if reader.categories[segment.category_id].name == "person"
        )
        for image in reader.images
    }


def stem(name: str | Path) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


@pytest.mark.parametrize("to", FORMATS)
def test_empty_predictions_are_written_empty(to: str, tmp_path: Path) -> None:
    names = [f"a_{n:06d}_000000" if to.startswith("cityscapes") else f"{VOLUME}_{n:03d}" for n in range(DEPTH)]
    folder = "v 1/" if to == "vipseg" else ""
    write_run(tmp_path / "in", {f"{folder}{name}.png": number for number, name in enumerate(names, 1)}, [PERSON, SKY])
    for source in SOURCES:
        assert convert(tmp_path / "in", source, to, tmp_path / source) == 0
        counts = count_persons(to, tmp_path / source)
        assert {PurePosixPath(name).name: count for name, count in counts.items()} == dict.fromkeys(names, 0)


@pytest.mark.parametrize("to", FORMATS)
def test_predictions_of_stuff_alone_are_written_or_refused(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a_000000_000001" if to.startswith("cityscapes") else f"{VOLUME}_000"
    write_run(tmp_path, {f"{'v/' if to == 'vipseg' else ''}{name}.png": 1}, [SKY])
    code = convert(tmp_path, "run", to, tmp_path / "out")
    if to in OF_THINGS:
        assert capsys.readouterr().err == f"segkit data: {OF_THINGS_ALONE.format(tmp_path / 'out')}\n"
        assert (code, (tmp_path / "out").exists()) == (1, False)
    else:
        assert code == 0


# Spaces, unicode, folders, equal names in two folders; ids that are words, paths, and numbers as text.
IMAGES: dict[str, ImageId] = {" a b .png": "é/1", "c  d/é 细.png": "..", "x/e.png": 7, "y/e.png": "7"}
FRAMES: dict[str, ImageId] = {f"{stem(name)}_000000_000001.png": image_id for name, image_id in IMAGES.items()}
SLICES: dict[str, ImageId] = {f"sub é/{VOLUME}_{n}.png": i for n, i in enumerate(IMAGES.values())}
FOLDERS = {" a b ": 1, "c  d/é 细": 2, "x/e": 3, "y/e": 4}
PNGS = {" a b ": 1, "é 细": 2, "e": 3, "y_e": 4}  # of COCO, in one folder
LINE = "image 'é/1': expected a file_name that can be a line of an image set, got ' a b .png'"
FRAME = "expected a file_name that begins with city_sequence_frame, got"
TWICE = "image '7': labels of the name 'e_000000_000001' were written before, and the name is the image_id"
# By format: the persons of each name, and the images that are left out.
WRITTEN: dict[str, tuple[dict[str, int], list[str]]] = {
    "cityscapes": ({f"{n}_000000_000001": k for n, k in ((" a b / a b ", 1), ("c  d/é 细", 2), ("x/e", 3))}, [TWICE]),
    "cityscapes-submission": (
        {"e_000000_000001": 3},
        [
            f"image 'é/1': {FRAME} ' a b _000000_000001.png'",
            f"image '..': {FRAME} 'c  d/é 细_000000_000001.png'",
            TWICE,
        ],
    ),
    "coco-submission": (PNGS, []),
    "cvat-masks": ({name: count for name, count in FOLDERS.items() if count > 1}, [LINE]),
    "cvat-panoptic": (PNGS, []),
    "decathlon": ({f"{VOLUME}_{n:03d}": n + 1 for n in range(4)}, []),
    "vipseg": (
        {name: count for name, count in FOLDERS.items() if "/" in name},
        ["image 'é/1': expected a file_name VIDEO/FRAME, got ' a b .png'"],
    ),
    "voc": ({name: count for name, count in FOLDERS.items() if count > 1}, [LINE]),
}


@pytest.mark.parametrize("to", FORMATS)
def test_names_and_ids(to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = SLICES if to == "decathlon" else FRAMES if to.startswith("cityscapes") else IMAGES
    write_run(tmp_path / "in", images, [PERSON, SKY], persons=True)
    expected, left_out = WRITTEN.get(to, (FOLDERS, []))
    assert convert(tmp_path / "in", "run", to, tmp_path / "out") == bool(left_out)
    assert count_persons(to, tmp_path / "out") == expected
    _, _, lines = capsys.readouterr().out.partition("are left out")
    assert [line.strip() for line in lines.splitlines()[1:]] == left_out
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


@pytest.mark.parametrize("source", SOURCES)
def test_names_that_lead_out_of_the_folder_are_refused(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "in", {"v.png": 1}, [PERSON, SKY], persons=True)
    for path in (tmp_path / "in").rglob("*.json"):
        path.write_text(path.read_text().replace('"file_name": "v', '"file_name": "../v'))
    assert convert(tmp_path / "in", source, "coco-panoptic", tmp_path / "out") == 1
    assert "expected `file_name` to be a path inside its folder" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_scores_that_a_format_holds_are_not_listed_as_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, IMAGES, [PERSON, SKY], persons=True)
    assert convert(tmp_path, "run", "panoptic-predictions", tmp_path / "out") == 0
    assert "cannot hold" not in capsys.readouterr().out
