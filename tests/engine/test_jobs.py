"""The training job from its command line, on a few toy scenes and a tiny model."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import detectron2.utils.comm as comm
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_sem_seg
from detectron2.modeling import META_ARCH_REGISTRY

from segkit.cli.main import main
from segkit.data.catalog import register_dataset
from segkit.data.ground_truth import read_segmentation
from segkit.data.toy import dataset as toy
from segkit.engine import model_evaluation, register
from segkit.engine.run_lock import hold_run_folder
from segkit.engine.setup import prepare_config
from segkit.formats import png
from segkit.formats.derive import build_semantic_map
from segkit.utils.errors import ConfigError
from tests.helpers.coco_datasets import load_coco_instances, load_coco_panoptic
from tests.helpers.coco_samples import write_volume

CONFIG = "configs/toy/panoptic_rcnn_R18_FPN.yaml"


@pytest.fixture
def toy_names(toy_folder: Path) -> list[str]:
    """Options that train and test on the toy folder, in seconds."""
    custom = [
        {"name": "t_toy", "panoptic_json": f"{toy_folder}/panoptic.json", "panoptic_root": f"{toy_folder}/panoptic"}
    ]
    options = """DATASETS.TRAIN ('t_toy',) DATASETS.TEST ('t_toy',) SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 4
        SOLVER.CHECKPOINT_PERIOD 2 DATALOADER.NUM_WORKERS 0 MODEL.FPN.OUT_CHANNELS 16 MODEL.SEM_SEG_HEAD.CONVS_DIM 16
        MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.ROI_MASK_HEAD.CONV_DIM 16"""
    return [*options.split(), "DATASETS.CUSTOM", str(custom)]


def segkit(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def test_train_writes_everything_and_resumes_and_evaluates(
    toy_names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert segkit("train", "--config-file", CONFIG, *toy_names, "OUTPUT_DIR", output, "TEST.EVAL_PERIOD", 2) == 0
    results = json.loads((output / "metrics.json").read_text())
    assert set(results) - {"notes"} == {"panoptic_seg", "bbox", "segm", "sem_seg"}
    assert 0 <= results["panoptic_seg"]["PQ"] <= 100
    exports = output / "inference" / "t_toy"
    assert len(list((exports / "panoptic").glob("*.png"))) == 12
    assert {p.name for p in exports.iterdir()} == {
        "panoptic",
        "panoptic.json",
        "panoptic_analysis.json",
        "panoptic_counts.npz",
        "instances_counts.npz",
        "semantic_counts.npz",
        "coco_instances_results.json",
        "instances_gt.json",
        "metrics.json",
    }
    assert {p.name for p in output.glob("model_*.pth")} == {
        "model_0000001.pth",
        "model_0000003.pth",
        "model_best.pth",
        "model_final.pth",
    }
    lines = [json.loads(line) for line in (output / "training.jsonl").read_text().splitlines()]
    assert all(math.isfinite(line["total_loss"]) for line in lines if "total_loss" in line)
    assert any("panoptic_seg/PQ" in line for line in lines)
    assert list(output.glob("events.out.tfevents.*"))
    assert "eta:" in capsys.readouterr().out

    options = [*toy_names, "OUTPUT_DIR", output, "SOLVER.MAX_ITER", 6]
    assert segkit("train", "--config-file", CONFIG, "--resume", *options) == 0
    assert "Starting training from iteration 4" in capsys.readouterr().out
    state = torch.load(output / "model_final.pth", weights_only=True)
    assert state["iteration"] == 5
    assert state["segkit"]["categories"] == toy.CATEGORIES.to_coco()

    again = tmp_path / "again"
    weights = ["MODEL.WEIGHTS", output / "model_final.pth", "OUTPUT_DIR", again]
    assert segkit("train", "--config-file", CONFIG, "--eval-only", *toy_names, *weights) == 0
    assert json.loads((again / "metrics.json").read_text()) == json.loads((output / "metrics.json").read_text())


def test_hostile_names_are_shown_and_not_obeyed(
    toy_names: list[str], toy_folder: Path, toy_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A colour, an override of the writing direction, a further line, a tag of HTML and a formula of matplotlib."""
    hostile = "\x1b[31m\u202e\nsegkit: forged<b>$x_{$"
    content = json.loads((toy_copy / "panoptic.json").read_text())
    for category in content["categories"]:
        category["name"] += hostile
    content["categories"].append({"id": 999, "name": f"absent{hostile}", "isthing": 1, "color": [1, 2, 3]})
    (toy_copy / "panoptic.json").write_text(json.dumps(content))
    options = [o.replace(str(toy_folder), str(toy_copy)).replace("t_toy", "t_hostile") for o in toy_names]
    options += ["SOLVER.MAX_ITER", "1"]
    run = tmp_path / "run"
    assert segkit("train", "--config-file", CONFIG, *options, "OUTPUT_DIR", run) == 0
    saved = ["--weights", run / "model_final.pth", "--output", tmp_path / "saved", *options]
    assert segkit("fuse", "save", "--config-file", CONFIG, *saved) == 0
    shown = "".join(capsys.readouterr())
    assert r"not evaluated: absent\x1b[31m\u202e\nsegkit: forged<b>$x_{$" in shown
    assert "\nsegkit: forged" not in shown
    assert not {"\x1b", "\u202e"} & {*shown}
    page = (run / "report.html").read_text()
    assert "forged" in page
    assert not {"\x1b", "\u202e"} & {*page}
    assert "<b>$x" not in page


@pytest.mark.slow
def test_two_processes_give_the_results_of_a_single_one(toy_names: list[str], tmp_path: Path) -> None:
    single, double = tmp_path / "single", tmp_path / "double"
    assert segkit("train", "--config-file", CONFIG, *toy_names, "OUTPUT_DIR", single) == 0
    weights = ["MODEL.WEIGHTS", single / "model_final.pth", "OUTPUT_DIR", double]
    arguments = ["--eval-only", "--num-gpus", 2, "--dist-url", "auto"]
    assert segkit("train", "--config-file", CONFIG, *arguments, *toy_names, *weights) == 0
    assert json.loads((double / "metrics.json").read_text()) == json.loads((single / "metrics.json").read_text())
    train = ["--num-gpus", 2, "--dist-url", "auto"]
    assert segkit("train", "--config-file", CONFIG, *train, *toy_names, "OUTPUT_DIR", tmp_path / "three") == 0
    assert (tmp_path / "three" / "metrics.json").is_file()


ALL_TASKS = {"panoptic_seg", "bbox", "segm", "sem_seg"}
CASCADE = "MODEL.ROI_HEADS.NAME CascadeROIHeads MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True"
DICE_PER_CLASS = """MODEL.SEM_SEG_HEAD.LOSSES ['cross_entropy','dice'] MODEL.ROI_MASK_HEAD.NAME DiceMaskHead
    MODEL.SEM_SEG_HEAD.THING_CHANNELS per_class"""


@pytest.mark.parametrize(
    ("options", "tasks"),
    [
        ("MODEL.META_ARCHITECTURE GeneralizedRCNN", {"bbox", "segm"}),
        ("MODEL.META_ARCHITECTURE SemanticSegmentor", {"sem_seg"}),
        (CASCADE, ALL_TASKS),
        (DICE_PER_CLASS, ALL_TASKS),
    ],
)
def test_other_models_train_on_the_same_data(
    options: str, tasks: set[str], toy_names: list[str], tmp_path: Path
) -> None:
    extra = [*options.split(), "SOLVER.MAX_ITER", "1", "OUTPUT_DIR", str(tmp_path)]
    assert segkit("train", "--config-file", CONFIG, *toy_names, *extra) == 0
    assert set(json.loads((tmp_path / "metrics.json").read_text())) - {"notes"} == tasks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.ROI_HEADS.NUM_CLASSES", "80"], "MODEL.ROI_HEADS.NUM_CLASSES is 80, but the dataset t_toy needs 4"),
        (
            ["MODEL.ROI_HEADS.NUM_CLASES", "4"],
            "MODEL.ROI_HEADS.NUM_CLASES does not exist; did you mean MODEL.ROI_HEADS",
        ),
        (["MODEL.META_ARCHITECTURE", "PanopticRNN"], "'PanopticRNN' is unknown; did you mean 'PanopticRCNN'?"),
        (["DATASETS.TRAIN", "('nope',)"], "'nope' is not registered"),
        (["MODEL.WEIGHTS", "nowhere.pth"], "nowhere.pth"),
        (["SOLVER.OPTIMIZER", "LION"], "SOLVER.OPTIMIZER 'LION' is unknown"),
    ],
)
def test_bad_configs_are_one_line(
    options: list[str], message: str, toy_names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segkit("train", "--config-file", CONFIG, *toy_names, "OUTPUT_DIR", tmp_path, *options) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_bad_files_stop_the_job_before_it_trains(
    toy_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (toy_copy / "images/000000000007.png").write_bytes(b"x")
    custom = [{"name": "t_bad", "panoptic_json": f"{toy_copy}/panoptic.json", "panoptic_root": f"{toy_copy}/panoptic"}]
    names = ["DATASETS.TRAIN", "('t_bad',)", "DATASETS.TEST", "('t_bad',)", "DATASETS.CUSTOM", custom]
    assert segkit("train", "--config-file", CONFIG, *names, "OUTPUT_DIR", tmp_path / "run") == 1
    assert "000000000007.png: the image does not decode" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_panoptic_model_is_not_trained_on_instances_alone(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load = partial(load_coco_instances, "t_instances", toy_folder / "instances.json", toy_folder / "images")
    register_dataset("t_instances", load)
    names = ["DATASETS.TRAIN", "('t_instances',)", "DATASETS.TEST", "('t_instances',)", "OUTPUT_DIR", tmp_path / "run"]
    assert segkit("train", "--config-file", CONFIG, *names) == 1
    assert "dataset t_instances has no semantic labels, which PanopticRCNN needs" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_detectron2s_semantic_names_train_and_are_evaluated(
    toy_folder: Path, toy_names: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    space = toy.CATEGORIES.build_semantic_space("per_class")
    for record in load_coco_panoptic("t", toy_folder / "panoptic.json", toy_folder / "panoptic").records:
        labels = build_semantic_map(read_segmentation(record, toy.CATEGORIES), space)
        png.write(tmp_path / "labels" / Path(record["file_name"]).name, labels)
    load = partial(load_sem_seg, str(tmp_path / "labels"), str(toy_folder / "images"), image_ext="png")
    DatasetCatalog.register("d2_semantic", load)
    request.addfinalizer(lambda: (DatasetCatalog.remove("d2_semantic"), MetadataCatalog.remove("d2_semantic")))
    MetadataCatalog.get("d2_semantic").set(evaluator_type="sem_seg", stuff_classes=[*space.names], ignore_label=255)
    names = ["DATASETS.TRAIN", "('d2_semantic',)", "DATASETS.TEST", "('d2_semantic',)", "SOLVER.MAX_ITER", 1]
    options = [*toy_names, *names, "MODEL.META_ARCHITECTURE", "SemanticSegmentor", "OUTPUT_DIR", tmp_path / "run"]
    assert segkit("train", "--config-file", CONFIG, *options) == 0
    results = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(results) - {"notes"} == {"sem_seg"}
    assert {f"IoU-{name}" for name in space.names} <= set(results["sem_seg"])


def test_datasets_with_and_without_annotations_are_mixed_in_any_order(
    toy_folder: Path, toy_names: list[str], tmp_path: Path
) -> None:
    panoptic = {"format": "coco-panoptic", "json": f"{toy_folder}/panoptic.json", "masks": f"{toy_folder}/panoptic"}
    custom = [
        {"name": "t_derived", **panoptic},
        {"name": "t_annotated", **panoptic, "instances_json": f"{toy_folder}/instances.json"},
    ]
    for names in (("t_derived", "t_annotated"), ("t_annotated", "t_derived")):
        options = ["DATASETS.CUSTOM", custom, "DATASETS.TRAIN", names, "DATASETS.TEST", ("t_derived",)]
        run = [*options, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", tmp_path / names[0]]
        assert segkit("train", "--config-file", CONFIG, *toy_names, *run) == 0


def test_a_split_without_labels_is_no_training_data(
    tmp_path: Path, toy_names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume(tmp_path / "imagesTs" / "a.nii.gz", np.ones((4, 5, 2)))
    custom = [{"name": "t_bare", "format": "decathlon", "root": str(tmp_path), "split": "test", "labels": {1: "x"}}]
    names = ["DATASETS.TRAIN", "('t_bare',)", "DATASETS.TEST", "('t_bare',)", "DATASETS.CUSTOM", custom]
    options = [*toy_names, *names, "MODEL.META_ARCHITECTURE", "SemanticSegmentor", "OUTPUT_DIR", tmp_path / "run"]
    assert segkit("train", "--config-file", CONFIG, *options) == 1
    assert "expected images with labels to train on, got 2 of t_bare without any" in capsys.readouterr().err


def test_weights_of_other_classes(
    toy_copy: Path, toy_names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exchanged class names would silently change the metrics, so they are rejected; unknown names are a warning."""
    run = ["SOLVER.MAX_ITER", 1, "TEST.EVAL_PERIOD", 0, "OUTPUT_DIR", tmp_path / "run"]
    assert segkit("train", "--config-file", CONFIG, *toy_names, *run) == 0
    capsys.readouterr()
    content = json.loads((toy_copy / "panoptic.json").read_text())
    names = [category["name"] for category in content["categories"]]
    things = [index for index, category in enumerate(content["categories"]) if category["isthing"]]
    for changed in ("exchanged", "other"):
        first, second = (content["categories"][index] for index in things[:2])
        first["name"], second["name"] = (
            (names[things[1]], names[things[0]]) if changed == "exchanged" else ("weed", names[things[1]])
        )
        (toy_copy / "panoptic.json").write_text(json.dumps(content))
        custom = [
            {"name": "t_c", "panoptic_json": f"{toy_copy}/panoptic.json", "panoptic_root": f"{toy_copy}/panoptic"}
        ]
        options = ["DATASETS.CUSTOM", custom, "DATASETS.TEST", "('t_c',)", "OUTPUT_DIR", tmp_path / changed]
        weights = ["MODEL.WEIGHTS", tmp_path / "run" / "model_final.pth"]
        code = segkit("train", "--config-file", CONFIG, "--eval-only", *toy_names, *options, *weights)
        captured = capsys.readouterr()
        assert code == (changed == "exchanged")
        message = (
            "have the classes of t_c in another order"
            if changed == "exchanged"
            else "trained on other classes than t_c"
        )
        assert message in captured.err + captured.out


def test_every_process_evaluates_with_the_statistics_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.BatchNorm2d(2)
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "broadcast", lambda buffer, src: sent.append((buffer.data_ptr(), src)))
    model_evaluation.broadcast_buffers(model)
    assert sent == [(buffer.data_ptr(), 0) for buffer in model.buffers()]


def test_train_net_is_the_same_command() -> None:
    help_text = subprocess.run(
        [sys.executable, "tools/train_net.py", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in ("--config-file", "--num-gpus", "--num-machines", "--machine-rank", "--dist-url", "--eval-only"):
        assert option in help_text


def test_configs_in_the_repository_are_valid() -> None:
    register()
    from segkit.config import load_config

    files = [p for p in Path("configs").rglob("*.yaml") if not p.name.startswith("Base-")]
    assert {path.parent.name for path in files} == {"ade20k", "coco", "cityscapes", "voc", "medical", "nuclei", "toy"}
    for path in files:
        cfg = load_config(path)
        assert {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST} <= {*DatasetCatalog.list()}, path
        assert cfg.MODEL.META_ARCHITECTURE in META_ARCH_REGISTRY, path


def test_a_config_without_datasets_is_rejected() -> None:
    with pytest.raises(ConfigError, match="name no dataset; pass --config-file"):
        prepare_config()


def test_a_folder_takes_one_training_and_any_evaluation(
    toy_names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--config-file", CONFIG, *toy_names, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", tmp_path / "run"]
    with hold_run_folder(tmp_path / "run"):
        assert segkit(*command) == 1
        assert f"segkit train: {tmp_path}/run/run.lock: process " in capsys.readouterr().err
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.lock"], "nothing is overwritten"
    assert segkit(*command) == 0
    assert not (tmp_path / "run/run.lock").exists()
    with hold_run_folder(tmp_path / "run"):
        assert segkit("train", "--eval-only", "--resume", *command[1:]) == 0
