"""What is installed, whether it works, and the command that repairs it. Imports heavy packages only to check them."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import os
import platform
import shlex
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import segkit
from segkit.utils.process_pool import count_cpus

ROOT = Path(segkit.__file__).resolve().parents[1]
REQUIREMENTS = Path(segkit.__file__).parent / "requirements.json"
DEVELOPER_EXTRAS = ("bench", "oracle", "test")
# Distributions whose module has another name.
MODULES = {
    "hydra-core": "hydra",
    "import-linter": "importlinter",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
}
EXTRA_USES = {
    "bench": "only the benchmarks need it",
    "classical": "only segmentation without training needs it",
    "cluster": "only jobs that Python sends to Slurm need it",
    "onnx": "only models as ONNX files need it",
    "fast": "without it metrics are several times slower, with equal results",
    "oracle": "only tests that compare with it need it",
    "test": "only the tests and checks of segkit need it",
    "train": "only training, evaluation and prediction with a model need it",
    "video": "only videos need it",
}


@dataclass(frozen=True)
class Check:
    """The check of one package.

    Attributes:
        name: name of the distribution.
        version: installed version, or empty.
        status: ok, missing, broken, too old, too new.
        needed: whether segkit cannot do its work without it.
        note: a remark, or empty.
        fix: the command that repairs it, or empty.
    """

    name: str
    version: str
    status: str = "ok"
    needed: bool = True
    note: str = ""
    fix: str = ""

    @property
    def fails(self) -> bool:
        """Whether segkit cannot do its work until this is repaired."""
        return self.needed and self.status != "ok"


def check_environment(train: bool = False, dev: bool = False) -> list[Check]:
    """Check Python, segkit, Detectron2 and every requirement.

    Args:
        train: training is needed. Otherwise it is only needed if torch or Detectron2 is installed.
        dev: also check what only segkit's developers need: tests and benchmarks.

    Returns:
        The checks, needed packages first. Raises nothing.
    """
    import_quietly("setuptools")  # it fails if pip, which may stand in for packaging, is imported before it
    if _import_packaging("requirements") is None:
        fix = f"{get_python_command()} -m pip install packaging"
        return [Check("packaging", "", "missing", note="needed to compare versions", fix=fix)]
    requirements = load_requirements()
    train = train or any(importlib.util.find_spec(name) for name in ("torch", "detectron2"))
    checks = [_check_python(requirements["python"]), Check("segkit", segkit.__version__, note=f"from {ROOT}")]
    checks += [check_package(requirement) for requirement in requirements["light"]]
    if train:
        checks += [check_package(requirement) for requirement in requirements["extras"]["train"]]
        checks += check_detectron2()
    for extra, lines in requirements["extras"].items():
        if (extra != "train" or not train) and (extra not in DEVELOPER_EXTRAS or dev):
            checks += [check_package(requirement, extra) for requirement in lines]
    return checks


def describe_machine() -> dict[str, Any]:
    """Describe the machine and its datasets' folder (DETECTRON2_DATASETS, by default ./datasets).

    Returns:
        cpus: usable CPUs; datasets: the folder; datasets_exists, coco, cityscapes: whether it and its subfolders exist;
        free_gb: free space of its disk.
    """
    root = Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").absolute()
    existing = next(path for path in (root, *root.parents) if path.is_dir())
    return {
        "cpus": count_cpus(),
        "datasets": str(root),
        "datasets_exists": root.is_dir(),
        **{name: (root / name).is_dir() for name in ("coco", "cityscapes")},
        "free_gb": round(shutil.disk_usage(existing).free / 1e9, 1),
    }


def load_requirements() -> dict[str, Any]:
    """Requirements of segkit, each as in `numpy>=1.24`.

    Returns:
        python: range of Python versions; light: what the light half needs; extras: extra -> what it adds.
    """
    return dict(json.loads(REQUIREMENTS.read_text(encoding="utf-8")))


def check_package(requirement: str, extra: str = "") -> Check:
    """Check that a package is installed, in range and can be imported.

    Args:
        requirement: name and range, as in `numpy>=1.24`.
        extra: name of an optional extra that brings the package: then it is not imported, and not needed.

    Returns:
        The check.
    """
    parsed = _import_packaging("requirements").Requirement(requirement)
    module_name = get_module_name(parsed.name)
    version = _get_version(parsed.name)
    note, error = "", None
    if extra:
        status = "ok" if version else "missing"
        note = "" if version else EXTRA_USES.get(extra, f"only the extra [{extra}] needs it")
    else:
        module, error = import_quietly(module_name)
        version = version or str(getattr(module, "__version__", ""))
        status = _get_import_status(error, module_name)
        note = _get_last_line(error) if error else _describe_cuda(module) if module_name == "torch" else ""
    if status == "ok":
        status = _get_range_status(parsed.specifier, version)
    fix = "" if status == "ok" else _build_install_command(f"{parsed.name}{parsed.specifier}", error, module_name)
    return Check(parsed.name, version, status, not extra, note, fix)


def get_module_name(distribution: str) -> str:
    """The name under which the package of a distribution is imported."""
    name = distribution.lower()
    return MODULES.get(name, name.replace("-", "_"))


def check_detectron2() -> list[Check]:
    """Check Detectron2, and its C++ ops, which segkit does not need."""
    module, error = import_quietly("detectron2")
    if error is None:
        _, error = import_quietly("detectron2.modeling")
    version = _get_version("detectron2") or str(getattr(module, "__version__", ""))
    if error:
        status = _get_import_status(error, "detectron2")
        fix = _build_installer_command("--force" if status == "broken" else "")
        if missing := _get_missing_distribution(error, "detectron2"):
            fix = _build_install_command(missing)
        return [Check("detectron2", version, status, note=_get_last_line(error), fix=fix)]
    check = Check("detectron2", version, note=f"from {Path(str(module.__file__)).parent}")
    _, ops_error = import_quietly("detectron2._C")
    if ops_error is None:
        return [check, Check("detectron2 C++ ops", "", needed=False)]
    note = "without them rotated boxes and deformable convolutions do not work; segkit needs neither"
    note += " (`segkit doctor --install-detectron2 --source official --force` builds them)"
    return [check, Check("detectron2 C++ ops", "", "missing", needed=False, note=note)]


def import_quietly(name: str) -> tuple[Any, BaseException | None]:
    """Import a module and drop its output: (module, None), or (None, the exception)."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return importlib.import_module(name), None
    except (Exception, SystemExit) as error:
        return None, error


def get_python_command() -> str:
    """How to call this interpreter in a shell.

    Returns:
        `python` if that is this interpreter, otherwise its quoted path.
    """
    executable = Path(sys.executable)
    executable = executable.parent.resolve() / executable.name  # a link of an environment stays
    path = shutil.which("python")
    is_first = path is not None and Path(path).parent.resolve() == executable.parent
    return "python" if is_first else shlex.quote(str(executable))


def _import_packaging(module_name: str) -> Any:
    """`packaging.<module_name>`, or pip's copy of it; None without both."""
    for package in ("packaging", "pip._vendor.packaging"):
        module, error = import_quietly(f"{package}.{module_name}")
        if error is None:
            return module
    return None


def _check_python(versions: str) -> Check:
    version = platform.python_version()
    status = _get_range_status(_import_packaging("specifiers").SpecifierSet(versions), version)
    fix = "" if status == "ok" else f"pythonX.Y -m venv .venv   (X.Y: {versions})"
    return Check("Python", version, status, note=sys.executable, fix=fix)


def _get_version(distribution: str) -> str:
    return next((found.version or "" for found in metadata.distributions(name=distribution)), "")


def _get_import_status(error: BaseException | None, module_name: str) -> str:
    if error is None:
        return "ok"
    return "missing" if isinstance(error, ModuleNotFoundError) and error.name == module_name else "broken"


def _get_range_status(specifier: Any, version: str) -> str:
    """Also ok if the version is unknown."""
    if not version or specifier.contains(version, prereleases=True):
        return "ok"
    lower = [part for part in specifier if part.operator in (">", ">=", "~=", "==")]
    return "too new" if all(part.contains(version, prereleases=True) for part in lower) else "too old"


def _describe_cuda(torch: Any) -> str:
    try:
        if not torch.cuda.is_available():
            return "no CUDA device: runs on the CPU"
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return f"CUDA {torch.version.cuda}: {', '.join(names)}"
    except Exception as error:  # the driver does not fit
        return f"CUDA fails: {_get_last_line(error)}"


def _get_missing_distribution(error: BaseException | None, module_name: str) -> str:
    """The distribution of another package whose absence made the import fail, or empty."""
    missing = str(error.name).partition(".")[0] if isinstance(error, ModuleNotFoundError) else module_name
    distributions = {module: distribution for distribution, module in MODULES.items()}
    return "" if missing == module_name else distributions.get(missing, missing)


def _build_install_command(requirement: str, error: BaseException | None = None, module_name: str = "") -> str:
    requirement = _get_missing_distribution(error, module_name) or requirement
    is_damaged = error is not None and not isinstance(error, ModuleNotFoundError)
    options = "--force-reinstall --no-deps " if is_damaged else ""
    return f'{get_python_command()} -m pip install {options}"{requirement}"'


def _build_installer_command(options: str) -> str:
    return f"{get_python_command()} -m segkit doctor --install-detectron2 {options}".strip()


def _get_last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__
