"""The end of `segkit train`: a table, the paths, a page and a grid; the log on the terminal is short."""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from segkit.cli.main import main
from segkit.config import load_config
from segkit.engine.outcome import check_expected_results
from segkit.utils.errors import ConfigError

CONFIG = "configs/toy/panoptic_rcnn_R18_FPN.yaml"
SMALL = """SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 3 DATALOADER.NUM_WORKERS 0 MODEL.FPN.OUT_CHANNELS 16 MODEL.DEVICE cpu
    MODEL.SEM_SEG_HEAD.CONVS_DIM 16 MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.ROI_MASK_HEAD.CONV_DIM 16"""
A_SCREEN = 60  # lines
EXPECTED = ["TEST.EXPECTED_RESULTS", "[['panoptic_seg', 'PQ', 41.5, 0.5]]"]


@pytest.fixture
def options(toy_folder: Path) -> list[str]:
    paths = {"panoptic_json": f"{toy_folder}/panoptic.json", "panoptic_root": f"{toy_folder}/panoptic"}
    custom = [{"name": name, **paths} for name in ("t_out", "t_out_too")]
    return [*SMALL.split(), "DATASETS.CUSTOM", str(custom), "DATASETS.TRAIN", "('t_out',)"]


def train(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    assert main(["train", "--config-file", CONFIG, *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_training_and_evaluation_end_with_a_table_the_paths_and_a_page(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    printed = train(capsys, *options, "DATASETS.TEST", "('t_out',)", "OUTPUT_DIR", run)
    assert len(printed.splitlines()) <= A_SCREEN
    for text in (
        "t_out: 12 images, 12 of them decoded",
        "PanopticRCNN: ",
        "million weights",
        "iter: 2 ",
        "PQ_th",
        "mIoU",
    ):
        assert text in printed
    for hidden in ("Environment info", "Running with full config", "Conv2d("):
        assert hidden not in printed
        assert hidden in (run / "log.txt").read_text()
    assert (run / "log.txt").read_text().count("t_out: 12 images, 12 of them decoded") == 1
    assert "META_ARCHITECTURE: PanopticRCNN" in (run / "config.yaml").read_text()
    exports = [f"inference/t_out/{name}" for name in ("coco_instances_results.json", "panoptic.json", "panoptic")]
    results = [*exports, "report.html", "grid.png", "metrics.json"]
    files = ["log.txt", "config.yaml", "model_best.pth", "model_final.pth", *results]
    assert [line for line in printed.splitlines() if line.startswith(str(run))] == [str(run / name) for name in files]
    assert all((run / name).exists() for name in files)
    page = (run / "report.html").read_text()
    assert "panoptic_seg" in page
    (note,) = (
        note for note in json.loads((run / "metrics.json").read_text())["notes"] if "object of this size" in note
    )
    assert note.startswith("bbox APl, segm APl are undefined: the ground truth has no object of this size")
    assert note in page
    assert note in " ".join(printed.split())
    with Image.open(run / "grid.png") as grid:
        assert grid.width > grid.height  # two samples a row

    weights = ["MODEL.WEIGHTS", run / "model_final.pth", "OUTPUT_DIR", again]
    printed = train(capsys, "--eval-only", *options, "DATASETS.TEST", "('t_out',)", *weights)
    files = ["log.txt", "config.yaml", *results]
    assert [line for line in printed.splitlines() if line.startswith(str(again))] == [str(again / n) for n in files]
    assert "Where PQ is lost" in printed


def test_several_datasets_have_a_table_and_a_page_each(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = train(capsys, *options, "DATASETS.TEST", "('t_out', 't_out_too')", "OUTPUT_DIR", tmp_path)
    for name in ("t_out", "t_out_too"):
        assert name in printed.splitlines()
        for file in ("report.html", "grid.png"):
            assert str(tmp_path / "inference" / name / file) in printed
            assert (tmp_path / "inference" / name / file).is_file()
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        (["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"], ["panoptic.json"]),
        (["MODEL.META_ARCHITECTURE", "SemanticSegmentor"], ["panoptic.json", "coco_instances_results.json"]),
        (["TEST.EXPORT", "False"], ["panoptic.json", "report.html", "grid.png"]),
        (["DATASETS.TEST", "()", *EXPECTED], ["report.html", "grid.png", "metrics.json"]),
    ],
)
def test_other_models_and_runs_without_exports(
    changes: list[str], missing: list[str], options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = train(capsys, *options, "DATASETS.TEST", "('t_out',)", "OUTPUT_DIR", tmp_path, *changes)
    assert str(tmp_path / "model_final.pth") in printed
    for name in ("report.html", "grid.png", "metrics.json", "panoptic.json", "coco_instances_results.json"):
        if name in missing:
            assert f"/{name}" not in printed
    if "report.html" not in missing:
        assert (tmp_path / "report.html").is_file()
        assert (tmp_path / "grid.png").is_file()


def test_unexpected_results_are_one_line_after_the_table(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*options, "DATASETS.TEST", "('t_out',)", "SOLVER.MAX_ITER", "1", "OUTPUT_DIR", str(tmp_path), *EXPECTED]
    assert main(["train", "--config-file", CONFIG, *given]) == 1
    printed = capsys.readouterr()
    assert f"{tmp_path}/metrics.json" in printed.out
    (line,) = (line for line in printed.err.splitlines() if line.startswith("segkit train: "))
    assert "TEST.EXPECTED_RESULTS: expected panoptic_seg PQ 41.5 +- 0.5, got " in line
    assert "set TEST.EXPECTED_RESULTS []" in line


@pytest.mark.parametrize(
    ("results", "problem"),
    [
        ({"bbox": {"AP": 41.4}, "segm": {"AP": 37.0}}, ""),
        ({"bbox": {"AP": 41.6}, "segm": {"AP": 37.0}}, "expected bbox AP 41.0 +- 0.5, got 41.60;"),
        ({"bbox": {"AP": None}}, "expected bbox AP 41.0 +- 0.5, got nothing, expected segm AP 37.2 .*, got nothing;"),
        ({"bbox": {"AP": float("nan")}, "segm": {"AP": 37.0}}, "expected bbox AP 41.0 +- 0.5, got nan;"),
        ({}, ""),
        (None, ""),
    ],
)
def test_results_are_compared_with_the_expected_ones(results: dict[str, Any] | None, problem: str) -> None:
    expected = [["bbox", "AP", 41.0, 0.5], ["segm", "AP", 37.2, 0.5]]
    cfg = load_config(opts=["TEST.EXPECTED_RESULTS", str(expected), "DATASETS.TEST", "('a',)"])
    with pytest.raises(ConfigError, match=problem.replace("+", r"\+")) if problem else nullcontext():
        check_expected_results(cfg, results)
    cfg.DATASETS.TEST = ("a", "b")
    both = {"a": {"segm": {"AP": 1.0}}, "b": results} if results else results
    with pytest.raises(ConfigError) if problem else nullcontext():
        check_expected_results(cfg, both)


def test_debugging_shows_the_whole_log(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGKIT_DEBUG", "1")
    printed = train(capsys, *options, "DATASETS.TEST", "()", "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", tmp_path)
    assert "Environment info" in printed


def test_long_warnings_are_one_line(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(capsys, *options, "DATASETS.TEST", "()", "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", tmp_path)
    logging.getLogger("detectron2.checkpoint").warning("first\nsecond\nthird")
    logging.getLogger("detectron2.checkpoint").warning("\nbegins below\n")
    printed = capsys.readouterr().out
    assert "begins below" in printed
    assert "first (2 more lines in log.txt)" in printed
    assert "second" not in printed
    assert "third" in (tmp_path / "log.txt").read_text()
