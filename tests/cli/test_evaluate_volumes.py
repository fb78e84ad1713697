"""`segkit evaluate volumes` on tiny NIfTIs: results, joined shards, and errors for bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segkit.cli.main import main
from segkit.metrics import VolumeScores
from tests.helpers import decathlon_tree

nib = pytest.importorskip("nibabel")
pytest.importorskip("scipy.ndimage")
NAMES = ["background", "anterior", "posterior"]
AFFINE = np.array([[0, -3.0, 0, 9], [2, 0, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1]])  # spacing 3, 2, 4 to right, front, head


def build_volumes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Ground truth and prediction, as stored: the prediction is moved by a voxel, and lacks a class in one volume."""
    rng = np.random.default_rng(0)
    volumes = {}
    for name in ("a", "b", "c"):
        labels = np.zeros((6, 5, 4), np.uint8)
        labels[1:4, 1:4, 1:3], labels[4, 1 : rng.integers(3, 5), 1:3] = 1, 2
        volumes[name] = labels, np.roll(labels, 1, axis=rng.integers(3))
    volumes["c"][1][volumes["c"][1] == 2] = 0
    return volumes


@pytest.fixture
def task(tmp_path: Path) -> Path:
    root = tmp_path / "Task02_Heart"  # 4 mm
    for name, (labels, prediction) in build_volumes().items():
        decathlon_tree.save(nib, root / f"labelsTr/{name}.nii.gz", labels, AFFINE)
        decathlon_tree.save(nib, tmp_path / f"pred/{name}.nii.gz", prediction, AFFINE)
    decathlon_tree.write_table(root, [*"abc"])
    return root


@pytest.fixture
def run(task: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "120")

    def evaluate(*arguments: object, gt: Path = task) -> tuple[int, str, str]:
        code = main(["evaluate", "volumes", "--gt", str(gt), "--pred", str(task.parent / "pred"), *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return evaluate


def compute_expected(tolerance_mm: float | None, names: list[str] = NAMES) -> dict[str, Any]:
    scores = VolumeScores(names, tolerance_mm)
    for name, volumes in build_volumes().items():
        scores.update(name, *volumes, (2.0, 3.0, 4.0))
    return scores.compute()


def approximately(results: dict[str, Any]) -> dict[str, Any]:
    return {
        key: approximately(value)
        if isinstance(value, dict)
        else pytest.approx(value, rel=1e-12)
        if isinstance(value, float)
        else value
        for key, value in results.items()
    }


def test_dice_and_nsd_of_saved_volumes(run: Any, task: Path, tmp_path: Path) -> None:
    out = tmp_path / "metrics.json"
    code, printed, error = run("--output", out, "--per-class", "--workers", 2)
    assert (code, error) == (0, "")
    results = json.loads(out.read_text())["volumes"]
    assert results == approximately(compute_expected(4))
    assert 0 < results["NSD-posterior"] < 100 * 2 / 3 + 1e-9  # 0 in c
    assert [name for name in ("mDice", "mNSD", "anterior") if name not in printed] == []
    # The labels' folder is enough; another tolerance.
    assert run("--output", out, "--tolerance-mm", 2, gt=task / "labelsTr")[0] == 0
    assert json.loads(out.read_text())["volumes"] == approximately(compute_expected(2))
    # Nothing names labels and tolerance.
    (task / "dataset.json").unlink()
    labels = (task / "labelsTr").rename(tmp_path / "labels")
    assert run("--output", out, gt=labels)[0] == 0
    expected = compute_expected(None, ["background", "label 1", "label 2"])
    assert json.loads(out.read_text())["volumes"] == approximately(expected)
    assert "mNSD" not in expected


def test_merged_shards_give_the_same_bytes_as_one_run(run: Any, tmp_path: Path) -> None:
    parts = [tmp_path / f"{index}.npz" for index in (1, 2)]
    for index, part in enumerate(parts, 1):
        assert run("--shard", f"{index}/2", "--save-counts", part)[0] == 0
    whole, joined = tmp_path / "whole.json", tmp_path / "joined.json"
    assert run("--output", whole)[0] == 0
    assert main(["evaluate", "merge", *map(str, parts[::-1]), "--output", str(joined)]) == 0
    assert joined.read_bytes() == whole.read_bytes()


def test_volumes_that_do_not_match_are_named(run: Any, task: Path, tmp_path: Path) -> None:
    prediction = tmp_path / "pred/a.nii.gz"
    volumes = build_volumes()
    prediction.rename(tmp_path / "pred/d.nii.gz")
    code, _, error = run()
    assert code == 1
    assert "1 of 3 volumes have no prediction: 'a'; predict them, or leave them out with --allow-missing" in error
    assert "1 predictions are of volumes that the ground truth lacks: 'd'" in error
    assert run("--allow-missing", "--allow-extra")[0] == 0
    (tmp_path / "pred/d.nii.gz").unlink()
    for labels, affine, message in (
        (
            volumes["a"][1][:5],
            AFFINE,
            "expected a prediction of the size of its ground truth, 6 x 5 x 4 x 1, got 5 x 5",
        ),
        (volumes["a"][1], np.eye(4), "expected a prediction on the grid of its ground truth"),
        (volumes["a"][1] * 7, AFFINE, "expected labels among 0, 1, 2, got 7, 14 too"),
        (volumes["a"][1] * np.float32(0.5), AFFINE, "expected whole numbers as labels, got 0.5"),
    ):
        decathlon_tree.save(nib, prediction, labels, affine)
        code, _, error = run()
        assert code == 1
        assert message in error
        assert str(prediction) in error
    prediction.write_bytes(b"no NIfTI")
    assert "the NIfTI cannot be read" in run()[2]
    assert "expected ignored labels in 1..65535, got 0" in run("--ignore-label", "0")[2]
    assert "expected `tolerance_mm` to be millimetres, 0 or more, got -1.0" in run("--tolerance-mm", "-1")[2]
