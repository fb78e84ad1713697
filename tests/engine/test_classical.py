"""A model without training, tuned, evaluated and used from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from segkit.cli.main import main
from segkit.engine.checkpoints.safe_load import load_torch
from segkit.engine.run_lock import RunLock
from segkit.engine.training import tuning
from segkit.modeling.meta_arch import ClassicalSegmentor
from segkit.utils.errors import ConfigError

OPTIONS = ["DATALOADER.NUM_WORKERS", "0", "DATASETS.CHECK_IMAGES", "2"]


def segkit(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def cells(tmp_path: Path) -> list[str]:
    """Options for four images of bright discs; two pairs touch, and there are specks of 30 pixels that are no cells."""
    for folder in ("images", "labels"):
        (tmp_path / "cells" / folder).mkdir(parents=True)
    for number in range(4):
        image, labels = np.full((64, 64), 40, dtype=np.uint8), np.zeros((64, 64), dtype=np.uint16)
        for label, (x, y) in enumerate([(16, 16), (33, 16), (16 + number, 46), (50, 46)], 1):
            cv2.circle(image, (x, y), 9, 200, -1)
            disc = np.zeros((64, 64), dtype=np.uint8)
            cv2.circle(disc, (x, y), 9, 1, -1)
            labels[(disc > 0) & (labels == 0)] = label
        image[2:7, 54:60] = 200
        cv2.imwrite(str(tmp_path / "cells" / "images" / f"{number}.png"), image)
        cv2.imwrite(str(tmp_path / "cells" / "labels" / f"{number}.png"), labels)
    name = f"cells_{tmp_path.name}"
    custom = [{"name": name, "format": "instance-maps", "root": str(tmp_path / "cells"), "thing": "cell"}]
    names = ["DATASETS.CUSTOM", str(custom), "DATASETS.TRAIN", f"('{name}',)", "DATASETS.TEST", f"('{name}',)"]
    return [*OPTIONS, *names]


def read_metrics(folder: Path) -> Any:
    return json.loads((folder / "metrics.json").read_text())


def test_tuning_raises_pq_and_its_checkpoint_is_evaluated_and_predicts(
    cells: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config-file", "nuclei/classical_otsu_watershed"]
    cells = [*cells, "MODEL.CLASSICAL.OPTIONS", "{gamma: 1.0, blur_px: 0.0}"]
    assert segkit("train", *config, "--eval-only", *cells, "OUTPUT_DIR", tmp_path / "untuned") == 0
    assert segkit("train", *config, *cells, "OUTPUT_DIR", tmp_path / "run") == 0
    untuned, tuned = (read_metrics(tmp_path / name)["panoptic_seg"]["PQ"] for name in ("untuned", "run"))
    # Four cells and one speck that min_area_px 20 keeps and 40 drops.
    assert tuned > untuned
    assert set(read_metrics(tmp_path / "run")) - {"notes"} == {"panoptic_seg", "bbox", "segm", "sem_seg"}
    assert "min_area_px=40" in (tmp_path / "run" / "log.txt").read_text()
    state = load_torch(str(tmp_path / "run" / "model_final.pth"))["model"]
    assert state["options.watershed.min_area_px"] == 40
    assert state["color_counts"].sum() == 4 * 64 * 64

    run_config = tmp_path / "run" / "config.yaml"  # its weights are found beside it
    again = ["OUTPUT_DIR", tmp_path / "again"]
    assert segkit("train", "--config-file", run_config, "--eval-only", *again) == 0
    assert read_metrics(tmp_path / "again")["panoptic_seg"]["PQ"] == tuned

    output = tmp_path / "predictions"
    assert (
        segkit("predict", "--config-file", run_config, "--input", tmp_path / "cells" / "images", "--output", output)
        == 0
    )
    predicted = json.loads((output / "instances.json").read_text())["annotations"]
    assert len(predicted) == 16
    assert all(0.5 < annotation["score"] <= 1 for annotation in predicted)
    capsys.readouterr()
    assert segkit("weights", "info", tmp_path / "run" / "model_final.pth") == 0 or True


def test_a_finished_tuning_is_only_evaluated_by_a_resume(
    cells: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [
        *cells,
        "MODEL.CLASSICAL.OPTIONS",
        "{gamma: 1.0, blur_px: 0.0, min_area_px: 20}",
        "OUTPUT_DIR",
        tmp_path / "run",
    ]
    command, calls = ["train", "--config-file", "nuclei/classical_otsu_watershed"], list[int]()

    def stop(*_arguments: Any) -> None:
        calls.append(1)
        raise ConfigError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "_evaluate", stop)
        assert segkit(*command, "--resume", *cells) == 1
    assert calls
    assert segkit(*command, "--resume", *cells) == 0  # nothing was finished: it begins again
    pq = read_metrics(tmp_path / "run")["panoptic_seg"]["PQ"]
    (tmp_path / "run" / "metrics.json").unlink()
    monkeypatch.setattr(tuning, "_evaluate", stop)
    assert segkit(*command, "--resume", *cells) == 0
    assert read_metrics(tmp_path / "run")["panoptic_seg"]["PQ"] == pq
    assert segkit(*command, *cells) == 1
    assert len(calls) == 2


def test_a_tuning_that_lost_its_folder_stops(
    cells: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(model: Any, *arguments: Any) -> None:
        path = tmp_path / "run" / "run.lock"
        path.write_text(json.dumps({**json.loads(path.read_text()), "token": "0a" * 8, "pid": 1}))
        holders[0].renew()
        observe(model, *arguments)

    acquire, observe, holders = RunLock.acquire, ClassicalSegmentor.observe, []
    monkeypatch.setattr(RunLock, "acquire", lambda lock: (holders.append(lock), acquire(lock)))
    monkeypatch.setattr(ClassicalSegmentor, "observe", lose)
    config = ["--config-file", "nuclei/classical_otsu_watershed"]
    assert segkit("train", *config, *cells, "OUTPUT_DIR", tmp_path / "run") == 1
    assert "and lost its folder: process 1 on " in capsys.readouterr().err
    assert not (tmp_path / "run" / "model_final.pth").exists()


def test_given_options_are_kept_and_weights_of_another_method_are_refused(
    cells: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config-file", "nuclei/classical_otsu_watershed"]
    given = ["MODEL.CLASSICAL.METHOD", "otsu", "MODEL.CLASSICAL.OPTIONS", "{blur_px: 2.0, gamma: 1.0}"]
    assert segkit("train", *config, *cells, *given, "OUTPUT_DIR", tmp_path / "run", "DATASETS.TEST", "()") == 0
    state = load_torch(str(tmp_path / "run" / "model_final.pth"))["model"]
    assert {name: float(state[f"options.otsu.{name}"]) for name in ("blur_px", "gamma")} == {"blur_px": 2, "gamma": 1}
    weights = ["MODEL.WEIGHTS", tmp_path / "run" / "model_final.pth"]
    capsys.readouterr()
    assert segkit("train", *config, "--eval-only", *cells, *weights, "OUTPUT_DIR", tmp_path / "other") == 1
    assert "'options.watershed.blur_px'" in capsys.readouterr().err


def test_toy_scenes_get_classes_by_their_colours(toy_folder: Path, tmp_path: Path) -> None:
    custom = [{"name": "c_toy", "panoptic_json": f"{toy_folder}/panoptic.json"}]
    custom[0]["panoptic_root"] = f"{toy_folder}/panoptic"
    names = ["DATASETS.CUSTOM", str(custom), "DATASETS.TRAIN", "('c_toy',)", "DATASETS.TEST", "('c_toy',)"]
    options = ["MODEL.CLASSICAL.TUNING_IMAGES", "1"]
    grid = ["MODEL.CLASSICAL.OPTIONS", "{position: 20.0, min_area_px: 50}"]
    output = tmp_path / "run"
    assert (
        segkit(
            "train", "--config-file", "toy/classical_kmeans", *OPTIONS, *names, *options, *grid, "OUTPUT_DIR", output
        )
        == 0
    )
    metrics = read_metrics(output)
    assert metrics["sem_seg"]["mIoU"] > 30  # of 5 channels, chance is below 12
    assert metrics["panoptic_seg"]["PQ_st"] > 20


def test_classes_need_training_and_the_message_says_so(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    custom = [{"name": "c_none", "panoptic_json": f"{toy_folder}/panoptic.json"}]
    custom[0]["panoptic_root"] = f"{toy_folder}/panoptic"
    names = ["DATASETS.CUSTOM", str(custom), "DATASETS.TEST", "('c_none',)", "OUTPUT_DIR", tmp_path]
    assert segkit("train", "--config-file", "toy/classical_kmeans", "--eval-only", *OPTIONS, *names) == 1
    assert "has to tell classes apart, but has seen no training images; train it" in capsys.readouterr().err
    bad = ["MODEL.CLASSICAL.METHOD", "kmean"]
    assert segkit("train", "--config-file", "toy/classical_kmeans", "--eval-only", *OPTIONS, *names, *bad) == 1
    assert "unknown classical method 'kmean'; did you mean 'kmeans'?" in capsys.readouterr().err
