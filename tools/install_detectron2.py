#!/usr/bin/env python3
"""Install Detectron2 without a compiler, and without touching one that already works.

    python tools/install_detectron2.py                     # keep an importable one, else the pinned PyPI file
    python tools/install_detectron2.py --source official   # build the official repository, with its C++ ops
    python tools/install_detectron2.py --wheel-dir DIR     # only write the repacked wheel, to carry elsewhere

The PyPI file (`sal-detectron2`) holds Detectron2's Python at commit a59f0563, but is tagged for one Python, pins an
old numpy, and carries a binary for another torch and a stray top-level `tools` package. It is checked against its
hash and repacked as a `py3-none-any` wheel of `detectron2/**` alone. What works without the C++ ops: everything but
rotated boxes and deformable convolutions. Standard library only, since it runs before anything is installed.
"""

import argparse
import base64
import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PYPI_NAME, PYPI_VERSION = "sal-detectron2", "0.7.2"
PYPI_SHA256 = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
OFFICIAL = "git+https://github.com/facebookresearch/detectron2.git"
OFFICIAL_COMMIT = "a59f0563"
WHEEL_NAME = f"detectron2-{PYPI_VERSION}-py3-none-any.whl"
EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's first date: the same input gives the same bytes


class InstallError(Exception):
    """The installation cannot go on; the text says why and what to do."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", choices=("pypi", "official"), default="pypi")
    parser.add_argument("--commit", default=OFFICIAL_COMMIT, help="commit for --source official (default %(default)s)")
    parser.add_argument("--force", action="store_true", help="install even where detectron2 can be imported")
    parser.add_argument("--wheel-dir", type=Path, help="only write the repacked wheel into this folder")
    args = parser.parse_args(argv)
    try:
        if args.wheel_dir:
            print(repack(download(args.wheel_dir), args.wheel_dir))
        elif not args.force and importlib.util.find_spec("detectron2"):
            print(f"detectron2 is already here: {importlib.util.find_spec('detectron2').origin}")
        elif args.source == "official":
            install_official(args.commit)
        else:
            install_from_pypi()
    except InstallError as error:
        print(f"install_detectron2: {error}", file=sys.stderr)
        return 1
    return 0


def install_from_pypi() -> None:
    """Download, check, repack and install the pinned PyPI file."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = repack(download(Path(folder)), Path(folder))
        pip("install", "--no-deps", "--force-reinstall", str(wheel))


def install_official(commit: str) -> None:
    """Build the official repository at `commit`; needs git, a C++ compiler and an installed torch."""
    if importlib.util.find_spec("torch") is None:
        raise InstallError("building from source needs torch: install it first")
    pip("install", "--no-deps", "--no-build-isolation", f"detectron2 @ {OFFICIAL}@{commit}")


def download(folder: Path) -> Path:
    """The PyPI file, in `folder`, its hash checked."""
    wanted = f"{PYPI_NAME}=={PYPI_VERSION}"
    platform = ["--python-version", "3.10", "--implementation", "cp", "--abi", "none", "--platform", "any"]
    pip("download", "--no-deps", "--only-binary=:all:", *platform, "--dest", str(folder), wanted)
    found = sorted(folder.glob("sal_detectron2-*.whl"))
    if len(found) != 1:
        raise InstallError(f"expected one file of {wanted} in {folder}, found {[p.name for p in found]}")
    digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
    if digest != PYPI_SHA256:
        found[0].unlink()
        raise InstallError(
            f"{wanted}: expected sha256 {PYPI_SHA256}, got {digest}: the file was changed on its way; it is removed"
        )
    return found[0]


def repack(original: Path, folder: Path) -> Path:
    """Write `detectron2/**` of `original`, without its binary, as a wheel for every Python; the original is removed."""
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
    original.unlink()
    return target


def pip(*arguments: str) -> None:
    """Run this interpreter's pip; its own words are shown where it fails."""
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    if subprocess.run(command).returncode:
        raise InstallError(f"`{' '.join(command)}` failed; its message is above")


if __name__ == "__main__":
    sys.exit(main())
