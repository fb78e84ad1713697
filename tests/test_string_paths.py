"""Public functions take paths as text too."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segkit
from segkit.curation.checks.instances import check_instances
from segkit.curation.checks.panoptic import check_panoptic
from segkit.curation.convert import write_panoptic_stuff
from segkit.curation.image_files import digest_split
from segkit.curation.issues import write_issues
from segkit.curation.repair import repair_instances, repair_panoptic
from segkit.formats import cityscapes, coco, image_io, png
from segkit.formats.registry import open_writer
from segkit.report import write_page
from segkit.scoring.panoptic import score_panoptic
from segkit.scoring.results import save_results
from tests.helpers.damaged_datasets import CATEGORIES, IMAGES, SIZE_HW, instances, panoptic

ROOT = Path(segkit.__file__).parent
# Modules whose public functions are all for users, besides what the packages export.
MODULES = ("scoring/*.py", "scoring/fusion/*.py", "report/*.py", "data/datasets/*.py", "data/toy/dataset.py")
MODULES += ("curation/convert.py", "curation/checks/instances.py", "curation/checks/panoptic.py", "engine/demo.py")
PATH_ONLY = ("Path", "Path | None", "Sequence[Path]")
INTERNAL = {
    "report_unmatched",
    "report_rewritten",
    "describe_rewritten",
    "MaskResults",
}  # helpers of other modules of the package


def find_definitions() -> dict[tuple[Path, str], ast.AST]:
    """The functions and constructors for users by module and name, read from the source: some need torch to import."""
    names: set[tuple[Path, str]] = {(_locate(module), name) for name, module in segkit.PUBLIC.items()}
    for init in ROOT.rglob("__init__.py"):
        for node in ast.parse(init.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("segkit"):
                names |= {(_locate(node.module), alias.name) for alias in node.names}
    modules = {path for path, _ in names} | {path for pattern in MODULES for path in ROOT.glob(pattern)}
    whole = {path for pattern in MODULES for path in ROOT.glob(pattern)}
    return {
        (path, node.name): node
        for path in modules
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ((path, node.name) in names or path in whole)
    }


def _locate(module: str) -> Path:
    path = ROOT.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def test_no_exported_function_takes_path_objects_only() -> None:
    problems = []
    definitions = find_definitions()
    assert len(definitions) > 150
    for (path, name), node in definitions.items():
        functions = [node] if isinstance(node, ast.FunctionDef) else [n for n in ast.walk(node) if _is_constructor(n)]
        for function in functions if name not in INTERNAL else ():
            arguments = [*function.args.args, *function.args.kwonlyargs]
            texts = {a.arg: ast.unparse(a.annotation) for a in arguments if a.annotation is not None}
            problems += [f"{path.relative_to(ROOT)} {name}({arg})" for arg, t in texts.items() if t in PATH_ONLY]
    assert problems == []


def _is_constructor(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "__init__"


# Each takes the folder of a panoptic dataset and one of instances, both as text ending in "/", and the output folder.
CALLS: dict[str, Callable[[str, str, str], Any]] = {
    "read_id_runs": lambda p, i, out: png.read_id_runs(f"{p}masks/0.png"),
    "write_ids": lambda p, i, out: png.write_ids(f"{out}/a.png", np.ones((2, 2), int)),
    "write": lambda p, i, out: png.write(f"{out}/a.png", np.ones((2, 2), np.uint8)),
    "read_image": lambda p, i, out: image_io.read_image(f"{p}images/0.png"),
    "read_image_size": lambda p, i, out: image_io.read_image_size(f"{p}images/0.png"),
    "read_result_mask": lambda p, i, out: cityscapes.read_result_mask(_write_grey(out), (2, 2)),
    "read_result_lines": lambda p, i, out: cityscapes.read_result_lines(_write_lines(out), out, _raise),
    "find_image_root": lambda p, i, out: coco.find_image_root(f"{p}panoptic.json", ["0.png"], f"{p}masks"),
    "list_places": lambda p, i, out: coco.list_places(f"{p}panoptic.json"),
    "build_images": lambda p, i, out: coco.build_images(_load(f"{p}panoptic.json")["images"], f"{p}images"),
    "read_images": lambda p, i, out: coco.read_images(_load(f"{p}panoptic.json"), f"{p}panoptic.json"),
    "check_panoptic": lambda p, i, out: check_panoptic(f"{p}panoptic.json", f"{p}masks", f"{p}images", map),
    "check_instances": lambda p, i, out: check_instances(f"{i}instances.json", f"{i}images", map),
    "repair_panoptic": lambda p, i, out: repair_panoptic(f"{p}panoptic.json", f"{p}masks", f"{p}images", out, map),
    "repair_instances": lambda p, i, out: repair_instances(f"{i}instances.json", f"{i}images", out, map),
    "digest_split": lambda p, i, out: digest_split(f"{p}images", f"{i}images", map),
    "write_issues": lambda p, i, out: write_issues(f"{out}/issues.json", []),
    "write_panoptic_stuff": lambda p, i, out: write_panoptic_stuff(f"{p}panoptic.json", f"{p}masks", out),
    "open_writer": lambda p, i, out: open_writer("coco-panoptic", out, CATEGORIES, {}),
    "write_page": lambda p, i, out: write_page(f"{out}/page.html", "title", {}),
    "score_panoptic": lambda p, i, out: score_panoptic(
        f"{p}panoptic.json", f"{p}panoptic.json", f"{p}masks", f"{p}masks"
    ),
    "save_results": lambda p, i, out: save_results(f"{out}/metrics.json", {}),
}


def _load(path: str) -> Any:
    return json.loads(Path(path).read_text())


def _write_grey(folder: str) -> str:
    png.write(f"{folder}/mask.png", np.ones((2, 2), np.uint8))
    return f"{folder}/mask.png"


def _write_lines(folder: str) -> str:
    Path(f"{folder}/lines.txt").write_text(f"{os.path.basename(_write_grey(folder))} 26 0.5\n")
    return f"{folder}/lines.txt"


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("name", CALLS)
def test_text_is_a_path(tmp_path: Path, name: str) -> None:
    panoptic(tmp_path / "p")
    instances(tmp_path / "i")
    (tmp_path / "out").mkdir()
    CALLS[name](f"{tmp_path}/p/", f"{tmp_path}/i/", f"{tmp_path}/out")
    assert image_io.read_image_size(tmp_path / f"p/images/{IMAGES - 1}.png") == SIZE_HW
