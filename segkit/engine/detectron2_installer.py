"""Installs Detectron2 without a compiler, and without touching one that already works.

The PyPI file (`sal-detectron2`) holds Detectron2's Python code at commit a59f0563. But it is tagged for one Python,
requires an old numpy, and holds a binary for another torch and an unrelated top-level package `tools`. This module
checks the file's hash and repacks `detectron2/**` as a `py3-none-any` wheel. Without the C++ ops, rotated boxes and
deformable convolutions do not work. The module uses the standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

from segkit.utils.errors import SegkitError

PYPI_NAME, PYPI_VERSION = "sal-detectron2", "0.7.2"
PYPI_SHA256 = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
OFFICIAL = "git+https://github.com/facebookresearch/detectron2.git"
OFFICIAL_COMMIT = "a59f0563"
WHEEL_NAME = f"detectron2-{PYPI_VERSION}-py3-none-any.whl"
EPOCH = (1980, 1, 1, 0, 0, 0)  # earliest date of zip: the same input gives the same bytes


class InstallError(SegkitError):
    """The installation failed. The message says why and what to do."""


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """Declare the options of an installation.

    Args:
        parser: the parser of the command, or a group of it.
    """
    source = "pypi: Detectron2's Python code (default); official: build the official repository, with its C++ ops"
    parser.add_argument("--source", choices=("pypi", "official"), default="pypi", help=source)
    commit = "commit for --source official (default: %(default)s)"
    parser.add_argument("--commit", default=OFFICIAL_COMMIT, metavar="HASH", help=commit)
    parser.add_argument("--force", action="store_true", help="replace a Detectron2 that is installed")
    wheel_dir = "only write the wheel into this folder, for another machine"
    parser.add_argument("--wheel-dir", type=Path, metavar="DIR", help=wheel_dir)


def install(args: argparse.Namespace) -> None:
    """Install Detectron2, unless it can be imported, or write its wheel; print what was done.

    Args:
        args: values of `add_arguments`.

    Raises:
        InstallError: pip fails, the file is not the one that was tested, or the installed Detectron2 is broken.
    """
    if args.wheel_dir:
        print(write_wheel(args.wheel_dir))
    elif not args.force and (path := find_installed()):
        print(f"detectron2 is already installed: {path}")
    elif args.source == "official":
        install_official(args.commit)
    else:
        install_from_pypi()


def find_installed() -> str:
    """The path of a detectron2 that can be imported, empty without one. InstallError if it is broken."""
    spec = importlib.util.find_spec("detectron2")
    if spec is None or spec.origin is None:  # no origin: a folder that only has the name
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("detectron2.modeling")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("detectron2"):
            raise InstallError(f"{spec.origin} is incomplete ({error}); replace it with --force") from error
        print(f"detectron2 lacks another package: {error}; `segkit doctor` says which", file=sys.stderr)
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InstallError(f"{spec.origin} is broken ({cause}); repair it, or replace it with --force") from error
    return spec.origin


def install_from_pypi() -> None:
    """Download, check, repack and install the pinned PyPI file."""
    with tempfile.TemporaryDirectory() as folder:
        pip("install", "--no-deps", "--force-reinstall", str(repack(download(Path(folder)), Path(folder))))
    print(f"detectron2 {PYPI_VERSION} is installed, without its C++ ops")


def write_wheel(wheel_dir: Path) -> Path:
    """Write the repacked wheel into `wheel_dir` atomically; the wheel's path."""
    wheel_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wheel_dir) as folder:
        wheel = repack(download(Path(folder)), Path(folder))
        return wheel.replace(wheel_dir / wheel.name)


def install_official(commit: str) -> None:
    """Build the official repository at `commit`; needs git, a C++ compiler and an installed torch."""
    if importlib.util.find_spec("torch") is None:
        raise InstallError("building from source needs torch: pip install 'segkit[train]' first")
    pip("install", "--no-deps", "--no-build-isolation", "--force-reinstall", f"detectron2 @ {OFFICIAL}@{commit}")
    print(f"detectron2 is built from {commit}, with its C++ ops")


def download(folder: Path) -> Path:
    """Download the PyPI file into `folder` and check its hash; its path."""
    requirement = f"{PYPI_NAME}=={PYPI_VERSION}"
    platform = ["--python-version", "3.10", "--implementation", "cp", "--abi", "none", "--platform", "any"]
    pip("download", "--no-deps", "--only-binary=:all:", *platform, "--dest", str(folder), requirement)
    paths = sorted(folder.glob("sal_detectron2-*.whl"))
    if len(paths) != 1:
        raise InstallError(f"expected one file of {requirement} in {folder}, got {[path.name for path in paths]}")
    digest = hashlib.sha256(paths[0].read_bytes()).hexdigest()
    if digest != PYPI_SHA256:
        problem = f"{requirement}: expected sha256 {PYPI_SHA256}, got {digest}"
        raise InstallError(f"{problem}: it is not the file that was tested, and is not installed")
    return paths[0]


def repack(original: Path, folder: Path) -> Path:
    """Write `detectron2/**` of `original`, without its binary, as a wheel for every Python into `folder`."""
    target = folder / WHEEL_NAME
    info = f"detectron2-{PYPI_VERSION}.dist-info"
    record: list[str] = []
    with zipfile.ZipFile(original) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as wheel:

        def add(name: str, data: bytes) -> None:
            wheel.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}")

        for name in sorted(source.namelist()):
            if name.startswith("detectron2/") and not name.endswith((".so", "/")):
                add(name, source.read(name))
            elif name.endswith(".dist-info/LICENSE"):
                add(f"{info}/LICENSE", source.read(name))
        add(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: detectron2\nVersion: {PYPI_VERSION}\n".encode())
        add(f"{info}/WHEEL", b"Wheel-Version: 1.0\nGenerator: segkit\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        record.append(f"{info}/RECORD,,")
        wheel.writestr(zipfile.ZipInfo(f"{info}/RECORD", EPOCH), "\n".join(record) + "\n")
    return target


def pip(*arguments: str) -> None:
    """Run this interpreter's pip. Its own message is shown if it fails."""
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    if subprocess.run(command).returncode:
        raise InstallError(f"`{' '.join(command)}` failed; its message is above")
