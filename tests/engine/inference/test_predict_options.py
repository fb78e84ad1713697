"""Options of `segkit predict`: the model's files, device and precision; what is predicted and what is written."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit.cli import predict
from segkit.cli.main import main
from segkit.data.toy import dataset as toy
from segkit.runtime.folder import FolderJob
from segkit.runtime.video_folder import VideoJob
from segkit.structures import CategorySet
from tests.engine.inference import CONFIG
from tests.helpers.random_weights import save_random_weights


@pytest.fixture
def images(toy_folder: Path, tmp_path: Path) -> Path:
    """A folder of two images."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in (1, 2):
        shutil.copy(toy_folder / f"images/00000000000{number}.png", folder / f"{number}.png")
    return folder


def run(*words: Any) -> int:
    return main(["predict", *map(str, words)])


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_runs_and_weights_with_a_config_beside_them_need_no_config_file(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their results are those of the config; another run is refused before the weights are read."""
    folder, given = tmp_path / "run", ["--input", images / "1.png", "--device", "cpu", "--output"]
    folder.mkdir()
    shutil.copy(weights, folder / "model_best.pth")
    assert run("--weights", folder, *given, tmp_path / "none") == 1
    assert "expected config.yaml beside the weights, got none" in capsys.readouterr().err
    (folder / "config.yaml").write_text(f"_BASE_: {Path(CONFIG).resolve()}\n")
    for number, model in enumerate((folder, folder / "model_best.pth")):
        assert run("--weights", model, *given, tmp_path / str(number)) == 0
    assert load(tmp_path / "0/panoptic.json")["annotations"]
    assert load(tmp_path / "0/panoptic.json") == load(tmp_path / "1/panoptic.json")
    (folder / "model_best.pth").write_text("no weights")
    assert run("--weights", folder, *given, tmp_path / "0") == 1
    assert "has results of another run: other weights" in capsys.readouterr().err
    assert run(*given, tmp_path / "none") == 1
    assert "give --weights, a checkpoint or the folder of a run, or --config-file" in capsys.readouterr().err


def test_the_defaults_are_those_of_the_job() -> None:
    parameters = inspect.signature(FolderJob).parameters
    assert [parameters[name].default for name in ("save", "overlap")] == [predict.SAVED, predict.OVERLAP_PX]
    parameters = inspect.signature(VideoJob).parameters
    defaults = [predict.SAVED, predict.TRACK_IOU, predict.TRACK_MEMORY]
    assert [parameters[name].default for name in ("save", "min_iou", "max_gap")] == defaults


def test_device_and_precision(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--config-file", CONFIG, "--weights", "no.pth", "--input", images, "--output", tmp_path / "out"]
    for option, value, message in (
        ("--device", "gpu", "the device 'gpu' is unknown"),
        ("--device", "cuda:99", "the device cuda:99 is not there"),
        ("--precision", "half", "the precision 'half' is unknown; choose one of float32, bfloat16, float16, auto"),
        ("--precision", "float16", "float16 needs a GPU, got the device cpu"),
    ):
        device = [] if option == "--device" else ["--device", "cpu"]
        assert run(*given, *device, option, value) == 1
        assert message in capsys.readouterr().err


def test_scores_classes_and_outputs_are_chosen(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left out is in no file; JSONs alone are those of all outputs, without drawing or PNGs."""
    given = ["--config-file", CONFIG, "--weights", weights, "--input", images / "1.png", "--output"]
    assert run(*given, tmp_path / "all") == 0
    everything = load(tmp_path / "all/instances.json")
    scores = sorted(entry["score"] for entry in everything["annotations"])
    middle = scores[len(scores) // 2]
    names = {entry["id"]: entry["name"] for entry in load(tmp_path / "all/panoptic.json")["categories"]}
    name = names[everything["annotations"][0]["category_id"]]
    chosen = ["--score-threshold", middle, "--classes", name]
    assert run(*given, tmp_path / "part", *chosen) == 0
    kept = [e for e in everything["annotations"] if e["score"] >= middle and names[e["category_id"]] == name]
    instances = load(tmp_path / "part/instances.json")["annotations"]
    assert kept
    assert [entry["segmentation"] for entry in instances] == [entry["segmentation"] for entry in kept]
    (panoptic,) = load(tmp_path / "part/panoptic.json")["annotations"]
    assert {names[info["category_id"]] for info in panoptic["segments_info"]} <= {name}
    ids = np.asarray(Image.open(tmp_path / "part/panoptic/1.png")).astype(np.int64) @ [1, 256, 65536]
    assert {*np.unique(ids).tolist()} - {0} == {info["id"] for info in panoptic["segments_info"]}

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        for function in ("coco.write_png", "png.write", "Prediction.plot"):
            patch.setattr(f"segkit.runtime.folder.{function}", fail)
        assert run(*given, tmp_path / "json", *chosen, "--save", "json") == 0
    assert {path.name for path in (tmp_path / "json").iterdir()} == {
        *("instances.json", "panoptic.json", "predict.json", "records.jsonl")
    }
    for table in ("instances.json", "panoptic.json"):
        assert load(tmp_path / "json" / table) == load(tmp_path / "part" / table)
    capsys.readouterr()
    assert run(*given, tmp_path / "json", *chosen, "--save", "overlays") == 1
    assert "has results of another run: other save" in capsys.readouterr().err
    assert run(*given, tmp_path / "none", "--classes", "crates") == 1
    assert "the model has no class 'crates'; did you mean 'crate'?" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_listed_images_keep_their_ids_and_names(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the order of the list; a listed image that is missing is reported."""
    entries = [
        {"id": image_id, "file_name": f"in/{name}.png", "height": 128, "width": 128}
        for image_id, name in ((90, "2"), ("x", "gone"), (7, "1"))
    ]
    listed = tmp_path / "image_info_test.json"
    listed.write_text(json.dumps({"images": entries, "categories": []}))
    given = ["--config-file", CONFIG, "--weights", weights, "--save", "json", "--images-json", listed]
    given += ["--output", tmp_path / "out"]
    assert run(*given, "--input", tmp_path) == 1
    error = capsys.readouterr().err
    assert "gone.png" in error
    assert "1 of 3 images cannot be read and have no prediction" in error
    for table in ("panoptic.json", "instances.json"):
        content = load(tmp_path / "out" / table)
        assert content["images"] == [entries[0], entries[2]]
        assert {entry["image_id"] for entry in content["annotations"]} == {90, 7}
    entries[0]["id"] = 91
    listed.write_text(json.dumps({"images": entries}))
    assert run(*given, "--input", tmp_path) == 1
    assert "has results of another run: other images" in capsys.readouterr().err
    assert run(*given, "--input", images) == 1
    assert "none of the 3 images of" in capsys.readouterr().err
    assert run(*given, "--input", images / "1.png") == 1
    assert "--input: expected one folder, below which the listed images are" in capsys.readouterr().err


def test_shards_give_what_one_process_gives(
    weights: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Shard 2 is a rank of torchrun. The last one writes the JSONs; --merge does it again."""
    given = ["--config-file", CONFIG, "--weights", weights, "--save", "json", "--input", images, "--output"]
    tables, out = ("instances.json", "panoptic.json"), tmp_path / "out"
    assert run(*given, tmp_path / "whole") == 0
    assert run(*given, out, "--shard", "1/2") == 0
    capsys.readouterr()
    assert run("--merge", out) == 1
    assert "1 of 2 images are not predicted: of 2 shards, 2 is not complete" in capsys.readouterr().err
    ranks = {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "localhost"}
    with monkeypatch.context() as patch:
        for name, value in {**ranks, "MASTER_PORT": 29500}.items():
            patch.setenv(name, str(value))
        assert run(*given, out) == 0
    assert (out / "records_2_of_2.jsonl").is_file()
    for table in tables:
        assert load(out / table) == load(tmp_path / "whole" / table)
        (out / table).unlink()
    assert run("--merge", out) == 0
    for table in tables:
        assert load(out / table) == load(tmp_path / "whole" / table)
    assert run(*given, out, "--shard", "3/2") == 2
    assert "expected I/N with I from 1 to N, got '3/2'" in capsys.readouterr().err
    assert run("--input", images) == 1
    assert "expected --input or --dataset, and --output; or --merge alone" in capsys.readouterr().err


def test_tasks_of_slurm_are_shards(
    weights: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two tasks, the second predicts the second image; a batch script, and one with --shard, is no task."""
    given = ["--config-file", CONFIG, "--weights", weights, "--save", "json", "--input", images, "--output"]
    task = {"SLURM_PROCID": 1, "SLURM_LOCALID": 1, "SLURM_NTASKS": 2, "SLURM_JOB_NODELIST": "node", "SLURM_JOB_ID": 7}
    for name, value in task.items():
        monkeypatch.setenv(name, str(value))
    for step, records, options in (
        ("0", {"records_2_of_2.jsonl"}, []),
        ("4294967291", {"records.jsonl"}, []),
        ("0", {"records_1_of_3.jsonl"}, ["--shard", "1/3"]),
    ):
        monkeypatch.setenv("SLURM_STEP_ID", step)
        out = tmp_path / f"{step}{len(options)}"
        assert run(*given, out, *options) == 0
        assert {path.name for path in out.glob("records*")} == records
        (name,) = records
        assert len((out / name).read_text().splitlines()) == (3 if name == "records.jsonl" else 2)  # with the header


def test_the_threshold_decides_what_is_drawn_too(images: Path, tmp_path: Path) -> None:
    """Of a model that gives instances alone. Without it, everything is saved, and scores from 0.5 on are drawn."""
    instances = ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    weights = tmp_path / "model.pth"
    save_random_weights(weights, CategorySet(toy.CATEGORIES.things), instances, confidence=1)
    given = ["--config-file", CONFIG, "--weights", weights, "--input", images / "1.png", "--save", "overlays", "json"]
    drawn, saved = {}, {}
    for name, options in {"default": [], "0": ["--score-threshold", 0], "1": ["--score-threshold", 1]}.items():
        out = tmp_path / name
        assert run(*given, "--output", out, *options, "--opts", *instances) == 0
        drawn[name] = np.asarray(Image.open(out / "overlays/1.png"))
        saved[name] = len(load(out / "instances.json")["annotations"])
    assert saved["default"] == saved["0"] > saved["1"] == 0
    assert max(entry["score"] for entry in load(tmp_path / "0/instances.json")["annotations"]) < 0.5
    image = np.asarray(Image.open(images / "1.png").convert("RGB"))
    assert (drawn["default"] == image).all()
    assert (drawn["1"] == image).all()
    assert (drawn["0"] != image).any()
