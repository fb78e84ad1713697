"""The run.json of a run: with which command, code, versions and machines each of its parts was started."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import detectron2
import detectron2.utils.comm as comm
import torch
from detectron2.config import CfgNode

import segkit
from segkit.utils.errors import DatasetError
from segkit.utils.files import dump_json, load_json
from segkit.utils.plugins import get_plugin_files

RUN_RECORD = "run.json"
GIT_SECONDS = 10  # a working tree on a slow network disk is given up

logger = logging.getLogger(__name__)


def write_run_record(
    cfg: CfgNode, config_file: str = "", opts: Sequence[str] = (), *, eval_only: bool = False, resume: bool = False
) -> None:
    """Write OUTPUT_DIR/run.json, a list with an entry for each start of the run; every process must call it.

    A training from the beginning begins a list. A resumed one and an evaluation append to it.

    Args:
        cfg: the run's config.
        config_file: path of the config file; "": none.
        opts: KEY VALUE pairs that override it.
        eval_only: the run only evaluates.
        resume: the run was asked to continue.

    Raises:
        DatasetError: the file cannot be written.
    """
    processes = comm.gather({"host": platform.node(), "device": _get_device_name(cfg)})
    if not comm.is_main_process():
        return
    path = Path(cfg.OUTPUT_DIR, RUN_RECORD)
    entry = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "task": "evaluate" if eval_only else "train",
        "resume": resume,
        "command": [*sys.argv],
        "working_directory": os.getcwd(),
        "config_file": os.path.abspath(config_file) if config_file else None,
        "overrides": [str(word) for word in opts],
        "git": _describe_code(),
        "versions": _get_versions(),
        "hosts": sorted({process["host"] for process in processes}),
        "processes": len(processes),
        "devices": [process["device"] for process in processes],
    }
    earlier = _read_entries(path) if resume or eval_only else []
    dump_json(path, [*earlier, entry])


def describe_git(folder: Path, file: str = "") -> dict[str, Any] | None:
    """Describe the git working tree of a folder.

    Args:
        folder: any folder.
        file: a file of it that must be under version control: an installed package may lie in the ignored environment
            of another project.

    Returns:
        folder: top of the working tree; revision: hash of the commit; is_dirty: tracked files have changes. None if
        this is no git checkout with a commit, or git is not installed or does not answer.
    """
    try:
        if file:
            _run_git(folder, "ls-files", "--error-unmatch", "--", file)
        revision, top = _run_git(folder, "rev-parse", "HEAD", "--show-toplevel").splitlines()
        changes = _run_git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return {"folder": top, "revision": revision, "is_dirty": bool(changes.strip())}


def _run_git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # only read
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    result = subprocess.run(command, check=True, timeout=GIT_SECONDS, env=environment, **options)
    return str(result.stdout.decode("utf-8", "replace"))


def _describe_code() -> dict[str, Any]:
    package = Path(segkit.__file__)
    plugins = {}
    for name, path in get_plugin_files().items():
        file = path / "__init__.py" if path.is_dir() else path
        plugins[name] = describe_git(file.parent, file.name)
    code = {"working_directory": describe_git(Path.cwd()), "segkit": describe_git(package.parent, package.name)}
    return {**code, "plugins": plugins}


def _get_versions() -> dict[str, str | None]:
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "detectron2": str(detectron2.__version__),
        "segkit": segkit.__version__,
    }


def _get_device_name(cfg: CfgNode) -> str:
    if cfg.MODEL.DEVICE.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return str(cfg.MODEL.DEVICE)


def _read_entries(path: Path) -> list[Any]:
    if not path.exists():
        return []
    try:
        entries = load_json(path)
    except DatasetError as error:
        logger.warning("%s; the file starts again", error)
        return []
    return entries if isinstance(entries, list) else [entries]
