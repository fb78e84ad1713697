"""`segkit predict --dataset`: test sets without ground truth, from the downloaded files to the archive to upload."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from segkit.cli.main import main
from segkit.data.toy import dataset as toy
from segkit.formats.cityscapes import CATEGORIES as CITYSCAPES
from tests.engine.inference import CONFIG
from tests.helpers.random_weights import save_random_weights

SEMANTIC = ["MODEL.META_ARCHITECTURE", "SemanticSegmentor"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of all datasets."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    return tmp_path / "datasets"


def run(*words: Any) -> int:
    return main([*map(str, words)])


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_coco(root: Path, toy_folder: Path) -> None:
    """Two images and their list, whose order is that of the ids 90, 7; of test2017 one image is in no list."""
    entries = [
        {"id": image_id, "file_name": f"{name}.png", "height": 128, "width": 128}
        for image_id, name in ((90, "b"), (7, "a"))
    ]
    for number, name in enumerate("abc", 1):
        image = root / f"coco/test2017/{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(toy_folder / f"images/00000000000{number}.png", image)
    listed = root / "coco/annotations/image_info_test-dev2017.json"
    listed.parent.mkdir()
    listed.write_text(json.dumps({"images": entries, "categories": []}))


def test_cocos_test_dev_is_predicted_and_packed(
    weights: Path, toy_folder: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_coco(root, toy_folder)
    out, name = tmp_path / "out", "segkit_coco_2017_test-dev"
    words = ["predict", "--config-file", CONFIG, "--weights", weights, "--dataset", name, "--output", out]
    assert run(*words, "--save", "masks", "json") == 0
    assert [(entry["id"], entry["file_name"]) for entry in load(out / "panoptic.json")["images"]] == [
        (90, "b.png"),
        (7, "a.png"),
    ]
    for task in ("panoptic", "detections"):
        convert = ["data", "convert", "--from", "run", "--root", out, "--to", "coco-submission", "--skip-images"]
        assert run(*convert, "--output", tmp_path / task, "--to-set", f"task={task}") == 0
        stem = f"{task}_test-dev2017_segkit_results"
        with zipfile.ZipFile(tmp_path / task / f"{stem}.zip") as archive:
            names = archive.namelist()
            content = json.loads(archive.read(f"{stem}.json"))
        results = content["annotations"] if task == "panoptic" else content
        assert {result["image_id"] for result in results} == {90, 7}
        if task == "panoptic":
            pngs = {result["file_name"] for result in results}
            assert len(pngs) == 2
            assert {*names} == {f"{stem}.json", *(f"{stem}/{png}" for png in pngs)}
    capsys.readouterr()
    opts = ["MODEL.WEIGHTS", weights, "DATASETS.TEST", f"('{name}',)", "OUTPUT_DIR", tmp_path / "run"]
    assert run("train", "--eval-only", "--config-file", CONFIG, *opts) == 1
    assert capsys.readouterr().err == (
        f"segkit train: DATASETS: the dataset {name} has no ground truth, which training and evaluation need; "
        f"predict its images: segkit predict --dataset {name}\n"
    )
    assert run(*words, "--input", root) == 1
    assert "--dataset names the images already" in capsys.readouterr().err
    shutil.rmtree(root / "coco/test2017")
    assert run(*words) == 1
    assert f"none of the 2 images of the dataset {name} is a file" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["panoptic", "semantic"])
def test_cityscapes_test_is_predicted_and_packed(model: str, toy_folder: Path, root: Path, tmp_path: Path) -> None:
    """A model of classes alone has label maps; they keep the ids of the images too."""
    names = ["berlin_000000_000019", "bonn_000001_000019"]
    for number, name in enumerate(names, 1):
        image = root / f"cityscapes/leftImg8bit/test/{name.split('_')[0]}/{name}_leftImg8bit.png"
        image.parent.mkdir(parents=True)
        shutil.copy(toy_folder / f"images/00000000000{number}.png", image)
    weights, out, opts = tmp_path / "model.pth", tmp_path / "out", SEMANTIC if model == "semantic" else []
    save_random_weights(weights, CITYSCAPES, opts, "one" if model == "panoptic" else "per_class")
    dataset = "segkit_cityscapes_fine_sem_seg_test" if opts else "segkit_cityscapes_fine_panoptic_test"
    given = ["--config-file", CONFIG, "--weights", weights, "--dataset", dataset, "--output", out]
    assert run("predict", *given, "--save", "masks", "json", *(["--opts", *opts] if opts else [])) == 0
    content = load(out / f"{model}.json")
    assert [entry["id"] for entry in content["images"]] == names
    assert [entry["image_id"] for entry in content["annotations"]] == names
    if opts:
        assert [entry["name"] for entry in content["categories"]] == load(out / "labels/classes.json")
        for file in ("semantic.json", "labels/classes.json"):
            (out / file).unlink()
        assert run("predict", "--merge", out) == 0
        assert load(out / "semantic.json") == content
    convert = ["data", "convert", "--from", "run", "--root", out, "--to", "cityscapes-submission", "--skip-images"]
    assert run(*convert, "--output", tmp_path / "upload") == 0
    with zipfile.ZipFile(tmp_path / "upload/semantic.zip") as archive:
        assert {*archive.namelist()} == {f"{name}.png" for name in names}
    panoptic = load(tmp_path / "upload/panoptic/cityscapes_panoptic_test.json")
    assert [entry["image_id"] for entry in panoptic["annotations"]] == names


def test_the_ids_of_label_maps_are_those_of_the_dataset(toy_folder: Path, root: Path, tmp_path: Path) -> None:
    """Pixels of classes that were left out are void when the maps are read again."""
    write_coco(root, toy_folder)
    weights, out = tmp_path / "model.pth", tmp_path / "out"
    save_random_weights(weights, toy.CATEGORIES, SEMANTIC, "per_class")
    given = ["--config-file", CONFIG, "--weights", weights, "--dataset", "segkit_coco_2017_test-dev", "--output", out]
    name = toy.CATEGORIES.categories[0].name
    assert run("predict", *given, "--save", "masks", "json", "--classes", name, "--opts", *SEMANTIC) == 0
    convert = ["data", "convert", "--from", "run", "--root", out, "--images", root / "coco/test2017"]
    assert run(*convert, "--to", "coco-panoptic", "--output", tmp_path / "converted") == 0
    content = load(tmp_path / "converted/panoptic.json")
    assert [entry["id"] for entry in content["images"]] == [90, 7]
    assert {info["category_id"] for each in content["annotations"] for info in each["segments_info"]} <= {0}
