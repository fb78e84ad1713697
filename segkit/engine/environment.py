"""What is installed, whether it works, and the command that mends it; imports nothing heavy until it is asked."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import segkit

ROOT = Path(segkit.__file__).resolve().parents[1]
INSTALLER = ROOT / "tools" / "install_detectron2.py"
# Distributions whose module is named otherwise.
MODULES = {
    "hydra-core": "hydra",
    "import-linter": "importlinter",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
}
EXTRA_USES = {
    "bench": "only the benchmarks need it",
    "export": "only the export to ONNX needs it",
    "fast": "without it metrics are several times slower, with equal results",
    "test": "only the tests and checks of segkit need it",
}
# Run in the checkout's folder: setup.py is the one place where the ranges stand. setuptools itself may be missing.
READ_SETUP_PY = """
import json, runpy, sys, types
said, stand_in = {}, types.ModuleType("setuptools")
stand_in.setup, stand_in.find_packages = said.update, lambda **_: []
sys.modules["setuptools"] = stand_in
runpy.run_path("setup.py")
print(json.dumps([said["install_requires"], said["extras_require"], said["python_requires"]]))
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. status: ok, missing, broken, too old, too new. fix: a command, or empty."""

    name: str
    version: str
    status: str = "ok"
    needed: bool = True
    note: str = ""
    fix: str = ""

    @property
    def fails(self) -> bool:
        """Whether segkit cannot do its work until this is mended."""
        return self.needed and self.status != "ok"


def inspect() -> list[Check]:
    """Python, segkit, detectron2 and every requirement of setup.py, the needed ones first; raises nothing."""
    if _packaging("requirements") is None:
        fix = f"{python()} -m pip install packaging"
        return [Check("packaging", "", "missing", note="without it no version can be judged", fix=fix)]
    core, extras, pythons = requirements()
    checks = [_python(pythons), Check("segkit", segkit.__version__, note=f"from {ROOT}")]
    checks += [package(requirement) for requirement in core]
    checks += detectron2()
    checks += [package(requirement, extra=extra) for extra, listed in extras.items() for requirement in listed]
    return checks


def machine() -> dict[str, Any]:
    """CPUs, the datasets' folder (DETECTRON2_DATASETS, by default ./datasets), what it holds, its disk's free GB."""
    root = Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").absolute()
    existing = next(path for path in (root, *root.parents) if path.is_dir())
    return {
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "datasets": str(root),
        "datasets_exists": root.is_dir(),
        "coco": (root / "coco").is_dir(),
        "cityscapes": (root / "cityscapes").is_dir(),
        "free_gb": round(shutil.disk_usage(existing).free / 1e9, 1),
    }


def requirements() -> tuple[list[str], dict[str, list[str]], str]:
    """(needed, extra -> requirements, range of Pythons): from setup.py beside the package, else from its metadata."""
    if (ROOT / "setup.py").is_file():
        command = [sys.executable, "-c", READ_SETUP_PY]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if ran.returncode == 0:
            needed, extras, pythons = json.loads(ran.stdout.splitlines()[-1])
            return needed, extras, pythons
    try:
        own = metadata.metadata("segkit")
    except metadata.PackageNotFoundError:
        return ["torch", "torchvision", "setuptools<81"], {}, ""  # a bare folder of modules: no ranges are known
    return *_split_extras(own.get_all("Requires-Dist") or []), own["Requires-Python"] or ""


def package(requirement: str, extra: str = "") -> Check:
    """Whether `requirement` is installed, in range and, unless it belongs to an extra, can be imported."""
    wanted = _packaging("requirements").Requirement(requirement)
    module_name = MODULES.get(wanted.name.lower(), wanted.name.replace("-", "_"))
    version = _distribution_version(wanted.name)
    note, error = "", None
    if extra:
        status = "ok" if version else "missing"
        note = "" if version else EXTRA_USES.get(extra, f"only the extra [{extra}] needs it")
    else:
        module, error = import_quietly(module_name)
        version = version or str(getattr(module, "__version__", ""))
        status = _import_status(error, module_name)
        note = _last_line(error) if error else _torch_note(module) if module_name == "torch" else ""
    if status == "ok":
        status = _range_status(wanted.specifier, version)
    fix = "" if status == "ok" else _pip_install(f"{wanted.name}{wanted.specifier}", error, module_name)
    return Check(wanted.name, version, status, not extra, note, fix)


def detectron2() -> list[Check]:
    """detectron2 itself, and its C++ ops, which nothing of segkit needs."""
    module, error = import_quietly("detectron2")
    if error is None:
        _, error = import_quietly("detectron2.modeling")
    version = _distribution_version("detectron2") or str(getattr(module, "__version__", ""))
    if error:
        status = _import_status(error, "detectron2")
        lacks = _lacking(error, "detectron2")
        fix = _pip_install(lacks) if lacks else _installer("--force" if status == "broken" else "")
        return [Check("detectron2", version, status, note=_last_line(error), fix=fix)]
    where = Check("detectron2", version, note=f"from {Path(str(module.__file__)).parent}")
    _, no_ops = import_quietly("detectron2._C")
    if no_ops is None:
        return [where, Check("detectron2 C++ ops", "", needed=False)]
    note = "rotated boxes and deformable convolutions do not work; everything of segkit does"
    fix = _installer("--source official --force")
    return [where, Check("detectron2 C++ ops", "", "missing", False, note, fix)]


def import_quietly(name: str) -> tuple[Any, BaseException | None]:
    """(module, None) or (None, what its import raised); what it prints is dropped."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return importlib.import_module(name), None
    except (Exception, SystemExit) as error:
        return None, error


def python() -> str:
    """How to call this interpreter from a shell: `python` where that is this one, else its path."""
    found = shutil.which("python")
    return "python" if found and Path(found).parent == Path(sys.executable).parent else shlex.quote(sys.executable)


def _packaging(module: str) -> Any:
    """`packaging.<module>`, or pip's copy of it; None where there is neither."""
    for name in ("packaging", "pip._vendor.packaging"):
        found, error = import_quietly(f"{name}.{module}")
        if error is None:
            return found
    return None


def _python(pythons: str) -> Check:
    version = platform.python_version()
    status = _range_status(_packaging("specifiers").SpecifierSet(pythons), version)
    fix = "" if status == "ok" else f"pythonX.Y -m venv .venv   (X.Y: {pythons})"
    return Check("Python", version, status, note=sys.executable, fix=fix)


def _split_extras(lines: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    needed: list[str] = []
    extras: dict[str, list[str]] = {}
    for line in lines:
        bare, _, marker = line.partition(";")
        extra = re.search(r"extra == [\"'](.+?)[\"']", marker)
        (extras.setdefault(extra[1], []) if extra else needed).append(bare.strip())
    return needed, extras


def _distribution_version(name: str) -> str:
    try:
        return metadata.version(name) or ""
    except metadata.PackageNotFoundError:
        return ""


def _import_status(error: BaseException | None, module_name: str) -> str:
    if error is None:
        return "ok"
    return "missing" if isinstance(error, ModuleNotFoundError) and error.name == module_name else "broken"


def _range_status(specifier: Any, version: str) -> str:
    """ok also where the version is not known."""
    if not version or specifier.contains(version, prereleases=True):
        return "ok"
    lower = [part for part in specifier if part.operator in (">", ">=", "~=", "==")]
    return "too old" if any(not part.contains(version, prereleases=True) for part in lower) else "too new"


def _torch_note(torch: Any) -> str:
    try:
        if not torch.cuda.is_available():
            return "no CUDA device: runs on the CPU"
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return f"CUDA {torch.version.cuda}: {', '.join(names)}"
    except Exception as error:  # a driver that does not fit
        return f"CUDA fails: {_last_line(error)}"


def _lacking(error: BaseException | None, module_name: str) -> str:
    """The distribution of another package that an import failed for, or empty."""
    lacks = str(error.name).partition(".")[0] if isinstance(error, ModuleNotFoundError) else module_name
    by_module = {module: distribution for distribution, module in MODULES.items()}
    return "" if lacks == module_name else by_module.get(lacks, lacks)


def _pip_install(asked: str, error: BaseException | None = None, module_name: str = "") -> str:
    asked = _lacking(error, module_name) or asked
    damaged = error is not None and not isinstance(error, ModuleNotFoundError)
    return f'{python()} -m pip install {"--force-reinstall --no-deps " if damaged else ""}"{asked}"'


def _installer(options: str) -> str:
    if INSTALLER.is_file():
        path = INSTALLER.relative_to(ROOT) if Path.cwd() == ROOT else INSTALLER
        return f"{python()} {path} {options}".strip()
    return f"{python()} tools/install_detectron2.py {options}".strip() + "   (in a checkout of segkit's repository)"


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__
