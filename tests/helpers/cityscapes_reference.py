"""Small Cityscapes trees, and their scores by cityscapesscripts."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

EVALUATION = "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling"
TRUE_IDS = [0, 4, 7, 11, 24, 24000, 24001, 25000, 26, 26000, 26001, 26002, 29, 29000, 33000]
SCORES = [0.1, 0.5, 0.5, 0.90000001, 0.9, 1.0, 0.0, -2.5, 3e-7]
SIZE_HW = (48, 64)


def import_reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports the evaluation of cityscapesscripts without its 3D dependencies; skips the test if it is missing."""
    if importlib.util.find_spec("cityscapesscripts") is None:
        pytest.skip("cityscapesscripts is not installed: pip install --no-deps cityscapesscripts")
    try:
        import pyquaternion  # noqa: F401
    except ImportError:
        stub = types.ModuleType("pyquaternion")
        stub.Quaternion = None  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "pyquaternion", stub)
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # removed in numpy 2.4
    return importlib.import_module(EVALUATION)


def reference(
    monkeypatch: pytest.MonkeyPatch, gt_paths: list[Path], results: Path, scratch: Path
) -> dict[str, float | None]:
    """Returns its averages in percent, with the keys of segkit, computed as in CityscapesInstanceEvaluator."""
    scripts = import_reference(monkeypatch)
    scripts.args.predictionPath, scripts.args.predictionWalk = str(results.absolute()), None
    scripts.args.JSONOutput, scripts.args.quiet = False, True
    scripts.args.gtInstancesFile = str(scratch / "gtInstances.json")
    scripts.setInstanceLabels(scripts.args)
    ground_truth = [str(path) for path in gt_paths]
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        predictions = [scripts.getPrediction(path, scripts.args) for path in ground_truth]
        instances = scripts.getGtInstances(ground_truth, scripts.args)
        matches = scripts.matchGtWithPreds(predictions, ground_truth, instances, scripts.args)
        averages = scripts.computeAverages(scripts.evaluateMatches(matches, scripts.args), scripts.args)
    numbers = {"AP": averages["allAp"], "AP50": averages["allAp50%"]}
    numbers |= {f"AP-{name}": values["ap"] for name, values in averages["classes"].items()}
    numbers |= {f"AP50-{name}": values["ap50%"] for name, values in averages["classes"].items()}
    return {key: None if np.isnan(value) else float(value * 100) for key, value in numbers.items()}


def write_ground_truth(folder: Path, image_id: str, ids: NDArray[Any]) -> Path:
    path = folder / image_id.split("_")[0] / f"{image_id}_gtFine_instanceIds.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint16)).save(path)
    return path


def write_results(folder: Path, image_id: str, masks: list[tuple[int, Any, NDArray[np.bool_]]]) -> Path:
    """Writes results; masks: (label id, confidence to be written, (H, W) bool)."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (label_id, confidence, mask) in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{image_id}_{number}.png")
        lines.append(f"{image_id}_{number}.png {label_id} {confidence}\n")
    path = folder / f"{image_id}_leftImg8bit_pred.txt"
    path.write_text("".join(lines))
    return path


def random_box(rng: np.random.Generator, largest_px: int) -> tuple[slice, slice]:
    height, width = rng.integers(1, largest_px, 2)
    top, left = rng.integers(0, SIZE_HW[0] - height), rng.integers(0, SIZE_HW[1] - width)
    return slice(top, top + height), slice(left, left + width)


def random_image(rng: np.random.Generator) -> tuple[NDArray[Any], list[tuple[int, Any, NDArray[np.bool_]]]]:
    """Draws overlapping boxes as ground truth, and shifted, random and empty predictions."""
    ids = np.full(SIZE_HW, rng.choice([0, 7, 11]))
    for _ in range(rng.integers(0, 12)):
        ids[random_box(rng, 30)] = rng.choice(TRUE_IDS)
    masks: list[tuple[int, Any, NDArray[np.bool_]]] = []
    for _ in range(rng.integers(0, 12)):
        mask = np.zeros(SIZE_HW, dtype=np.bool_)
        label_id = int(rng.choice([24, 25, 26, 28, 29, 33]))
        if rng.random() < 0.75:
            instance_id = int(rng.choice(ids.ravel()))
            mask = ids == instance_id
            own = instance_id // 1000 if instance_id >= 1000 else instance_id
            label_id = own if own in (24, 25, 26, 33) else label_id
        if rng.random() < 0.7:
            mask = mask.copy()
            mask[random_box(rng, 16)] = rng.random() < 0.5
        masks.append((label_id, rng.choice(SCORES), mask))
    return ids, masks
