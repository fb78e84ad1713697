"""`--format auto`: each format is detected from the files that its own writer makes, or from a few empty ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segkit.cli.main import main
from segkit.curation.convert import convert
from segkit.formats.detection import ROOT_SIGNS, detect_format
from segkit.formats.registry import READERS, open_reader, open_writer
from segkit.utils.errors import ConfigError
from tests.helpers import predicted_run
from tests.helpers.one_image import CATEGORIES, write_panoptic


def make(root: Path, *names: str, text: str = "") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("format_name", "evidence"),
    [
        ("coco-panoptic", "panoptic.json"),
        ("coco-instances", "instances.json"),
        ("two-channel-png", "masks and images and categories.json"),
        ("semantic-maps", "images, labels and classes.json"),
        ("voc", "SegmentationClass and ImageSets/Segmentation"),
        ("labelme", "a/x.json"),
        ("yolo", "data.yaml"),
        ("ade20k", "ade20k_panoptic_*.json"),
    ],
)
def test_written_datasets_are_detected_and_open(tmp_path: Path, format_name: str, evidence: str) -> None:
    reader = write_panoptic(tmp_path / "source")
    root = tmp_path / "set"
    convert(reader, open_writer(format_name, root, CATEGORIES, {}), copy_images=True)
    detection = detect_format({"root": str(root)})
    assert (detection.format_name, detection.evidence) == (format_name, evidence)
    opened = open_reader(detection.format_name, detection.options)
    assert [Path(image.file_name).name for image in opened.images] == ["x.png"]
    assert (opened.image_root / opened.images[0].file_name).is_file()


@pytest.mark.parametrize(
    ("names", "format_name"),
    [
        (("leftImg8bit/val/x/y.png", "gtFine/val/x/y.png"), "cityscapes"),
        (("images/training/a.jpg", "annotations/training/a.png"), "ade20k"),
        (("imagesTr/a_001.nii.gz", "labelsTr/a_001.nii.gz"), "decathlon"),
        (("imagesTr/a_001_0000.nii.gz", "labelsTr/a_001.nii.gz"), "nnunet"),
        (("images/a.jpg", "labels/a.txt", "labels/classes.txt"), "yolo"),
    ],
)
def test_trees_are_detected(tmp_path: Path, names: tuple[str, ...], format_name: str) -> None:
    detection = detect_format({"root": str(make(tmp_path, *names))})
    assert detection.format_name == format_name
    assert detection.options["root"] == str(tmp_path)


def test_the_annotations_of_ade20k(tmp_path: Path) -> None:
    make(tmp_path, "images/training/a.jpg", "annotations/training/a.png")
    assert detect_format({"root": str(tmp_path)}).options["annotations"] == "semantic"
    make(tmp_path, "annotations_instance/training/a.png")
    assert detect_format({"root": str(tmp_path)}).options["annotations"] == "instances"
    options = {"root": str(tmp_path), "annotations": "semantic", "split": "train"}
    assert detect_format(options).options == options


def test_the_only_image_set_of_voc(tmp_path: Path) -> None:
    make(tmp_path, "SegmentationClass/a.png", "ImageSets/Segmentation/default.txt")
    assert detect_format({"root": str(tmp_path)}).options["split"] == "default"
    assert detect_format({"root": str(tmp_path), "split": "val"}).options["split"] == "val"
    make(tmp_path, "ImageSets/Segmentation/train.txt")
    assert "split" not in detect_format({"root": str(tmp_path)}).options


def test_label_maps_without_classes_are_ambiguous(tmp_path: Path) -> None:
    make(tmp_path, "images/a.png", "labels/a.png")
    message = r"could be instance-maps \(images and .*\) or semantic-maps \(.*\); name the format"
    with pytest.raises(ConfigError, match=message):
        detect_format({"root": str(tmp_path)})
    assert detect_format({"root": str(tmp_path), "thing": "cell"}).format_name == "instance-maps"
    assert detect_format({"root": str(tmp_path), "classes": ["a", "b"]}).format_name == "semantic-maps"


def test_the_folders_of_a_json_in_the_tree_of_coco(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "\u00e4.jpg", "height": 2, "width": 3}]
    for kind, key in (("panoptic", "segments_info"), ("instances", "segmentation")):
        content = {"images": images, "annotations": [{key: [], "file_name": "\u00e4.png"}], "categories": []}
        make(tmp_path, f"annotations/{kind}_val2017.json", text=json.dumps(content))
    make(tmp_path, "val2017/\u00e4.jpg", "panoptic_val2017/\u00e4.png")
    path = tmp_path / "annotations/instances_val2017.json"
    detection = detect_format({"json": str(path), "split": "train"})
    assert detection.format_name == "coco-instances"
    assert detection.options == {"json": str(path), "images": str(tmp_path / "val2017"), "split": "train"}
    detection = detect_format({"json": str(tmp_path / "annotations/panoptic_val2017.json")})
    assert detection.options["masks"] == str(tmp_path / "panoptic_val2017")
    assert detection.options["images"] == str(tmp_path / "val2017")
    with pytest.raises(ConfigError, match=r"coco-instances \(instances_val2017.json\) or coco-panoptic \(panoptic_val"):
        detect_format({"root": str(tmp_path)})
    named = detect_format({"json": str(path), "images": "elsewhere"})
    assert named.options["images"] == "elsewhere"


def test_results_are_a_list(tmp_path: Path) -> None:
    make(tmp_path, "r.json", text='[{"image_id": 1, "category_id": 2}]')
    assert detect_format({"json": str(tmp_path / "r.json"), "dataset": "d.json"}).format_name == "coco-results"


@pytest.mark.parametrize(
    ("names", "evidence"),
    [
        (["predict.json", "panoptic.json", "instances.json"], "predict.json"),
        (["inference/a/coco_instances_results.json", "inference/b/panoptic.json"], "inference/a"),
        (["semantic.json", "labels/classes.json", "labels/a.png"], "semantic.json"),
        (["coco_instances_results.json"], "coco_instances_results.json"),
    ],
)
def test_runs_are_detected_before_their_files(tmp_path: Path, names: list[str], evidence: str) -> None:
    make(tmp_path, *names, text='{"images": [], "annotations": [{"segments_info": []}], "categories": []}')
    detection = detect_format({"root": str(tmp_path), "images": "photos"})
    assert (detection.format_name, detection.evidence) == ("run", evidence)
    assert detection.options == {"root": str(tmp_path), "images": "photos"}


def test_an_evaluation_is_a_run_and_its_json_is_not(tmp_path: Path) -> None:
    root = predicted_run.write_run(tmp_path / "inference/val")
    assert detect_format({"root": str(root)}).format_name == "run"
    assert detect_format({"json": str(root / "panoptic.json")}).format_name == "coco-panoptic"


def test_a_detected_run_is_converted_with_its_scores(tmp_path: Path) -> None:
    root = predicted_run.write_run(tmp_path / "run")
    make(root, "predict.json", text="{}")
    command = ["data", "convert", "--from", "auto", "--root", str(root), "--to", "coco-results", "--skip-images"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert sorted(result["score"] for result in results) == [0.125, 0.25, 0.75]


def test_nothing_is_detected(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.json", "c/d.txt")
    make(tmp_path, "e.json", text="[1, 2]")
    with pytest.raises(ConfigError, match=r"format auto: no format fits .*; looked for COCO's JSON .*voc.*; name the"):
        detect_format({"root": str(tmp_path)})
    with pytest.raises(ConfigError, match="nowhere does not exist; check the path"):
        detect_format({"root": str(tmp_path / "nowhere")})
    with pytest.raises(ConfigError, match=r"needs a dataset; give its folder \(--root\) or its JSON"):
        detect_format({"split": "train"})


def test_the_message_names_every_format_that_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        detect_format({"root": str(tmp_path)})
    formats = {"coco-panoptic", "coco-instances", "vipseg", "run", *ROOT_SIGNS}
    assert formats <= {*READERS}
    assert [name for name in formats if name not in str(error.value)] == []
