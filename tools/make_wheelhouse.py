#!/usr/bin/env python3
"""Collect the wheels that a cluster without internet needs: `make wheelhouse`; see docs/clusters.md.

python tools/make_wheelhouse.py --python-version 3.12 --without "torch torchvision numpy" --max-mb 60

It runs on any Python that has pip, with nothing installed.
"""
# ruff: noqa: E402 - the path is extended before the imports

from __future__ import annotations

import argparse
import re
import shutil
import signal
import sys
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
if (pip := PathFinder.find_spec("pip")) is None or pip.origin is None:
    sys.exit(f"make_wheelhouse: {sys.executable} has no pip; name another Python, as in PYTHON=python3.12")
sys.path.append(str(Path(pip.origin).parent / "_vendor"))  # has packaging, if it is not installed

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from segkit.engine.detectron2_installer import write_wheel
from segkit.engine.environment import load_requirements
from segkit.engine.wheelhouse import Target, Wheelhouse, WheelhouseError, build_wheel
from segkit.utils.errors import SegkitError

GLIBC = 28  # that of RHEL 8, 2.28: the wheels work on every later system
SOURCES = ("segkit", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE")  # what segkit's wheel is built of
OWN = ("segkit", "detectron2")


def main(arguments: list[str] | None = None) -> int:
    """Collect what `arguments` name; the exit code."""
    args = parse_arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the temporary folder is removed
    try:
        make_wheelhouse(args)
    except (SegkitError, OSError) as error:
        print(f"make_wheelhouse: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read and check the arguments; `target` is made of the version and the platform."""
    requirements = load_requirements()
    extras, running = sorted(requirements["extras"]), ".".join(map(str, sys.version_info[:2]))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default="wheelhouse", metavar="DIR", help="default: %(default)s")
    version = f"the cluster's Python (default: {running})"
    parser.add_argument("--python-version", default="", metavar="X.Y", help=version)
    platform = "x86_64 or aarch64, for glibc 2.28 and later; or with another, as in manylinux_2_34_x86_64"
    parser.add_argument("--platform", default="x86_64", help=platform)
    without = "packages that the cluster has: they, and what only they need, are left out"
    parser.add_argument("--without", default="", metavar="NAMES", help=without)
    parser.add_argument("--extras", action="append", default=[], metavar="NAMES", help=f"of {', '.join(extras)}")
    alone = "more packages, without what they need"
    parser.add_argument("--alone", default="", metavar="REQUIREMENTS", help=alone)
    parser.add_argument("--max-mb", default="", metavar="MB", help="limit of the size of all wheels")
    args = parser.parse_args(arguments)

    python = args.python_version or running
    if not re.fullmatch(r"3\.\d+(\.\d+)?", python) or not SpecifierSet(requirements["python"]).contains(python):
        parser.error(f"PYTHON_VERSION: expected a Python {requirements['python']}, as in 3.12, got {python!r}")
    match = re.fullmatch(r"(?:manylinux_2_(\d+)_)?(x86_64|aarch64)", args.platform)
    if not match:
        parser.error(f"PLATFORM: expected x86_64, aarch64 or as in manylinux_2_34_x86_64, got {args.platform!r}")
    args.target = Target(python, match[2], int(match[1] or GLIBC))
    args.extras = split(" ".join(args.extras))
    if unknown := [name for name in args.extras if name not in extras]:
        parser.error(f"EXTRAS: expected names of {extras}, got {unknown}")
    args.without = split(args.without)
    if wrong := [name for name in args.without if not is_name(name) or canonicalize_name(name) in OWN]:
        parser.error(f"WITHOUT: expected names of packages, without versions, and not {' or '.join(OWN)}, got {wrong}")
    args.alone = split(args.alone)
    if not re.fullmatch(r"\d*\.?\d+|", args.max_mb):
        parser.error(f"MAX_MB: expected a number, got {args.max_mb!r}")
    return args


def split(words: str) -> list[str]:
    """The words between spaces and commas."""
    return re.findall(r"[^\s,]+", words)


def is_name(text: str) -> bool:
    """Whether this is the name of a package and nothing more."""
    try:
        return Requirement(text).name == text
    except InvalidRequirement:
        return False


def make_wheelhouse(args: argparse.Namespace) -> None:
    """Collect the wheels beside `args.output`, and put them in its place if everything went well."""
    output = args.output.absolute()
    check_replaceable(output)
    segkit = f"segkit[{','.join(args.extras)}]" if args.extras else "segkit"
    print(f"Collecting what {segkit} needs on {args.target} ...", flush=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".wheelhouse-") as temporary:
        folder = Path(temporary, "wheels")
        folder.mkdir()
        house = Wheelhouse(folder, args.target, args.without, ROOT / "constraints.txt")
        house.add(build_segkit(Path(temporary, "source"), args.target))
        house.add(write_wheel(Path(temporary)))
        house.collect([segkit, "detectron2"])
        house.collect(args.alone, follow=False)
        if args.max_mb:
            house.check_size(float(args.max_mb), always=OWN)
        if output.exists():
            output.rename(Path(temporary, "replaced"))
        folder.rename(output)
    print(f"{args.output}: {len(house.wheels)} wheels, {house.measure():.1f} MB")
    if house.left_out:
        names = ", ".join(f"{name}{simplify(versions)}" for name, versions in sorted(house.left_out.items()))
        print(f"The cluster must have: {names}")
    if unused := sorted(house.without - house.left_out.keys()):
        print(f"In WITHOUT, but needed by nothing here: {', '.join(unused)}")
    install = f"pip install --no-index --find-links {args.output}"
    print(f'To install there: {install} "{segkit}" detectron2')
    if args.alone:
        print(f"Then: {install} --no-deps {' '.join(args.alone)}")


def simplify(versions: SpecifierSet) -> SpecifierSet:
    """Without lower bounds below the highest one: many packages name one for numpy."""
    lower = sorted((part for part in versions if part.operator == ">="), key=lambda part: Version(part.version))
    return SpecifierSet(",".join(str(part) for part in versions if part not in lower[:-1]))


def check_replaceable(output: Path) -> None:
    """WheelhouseError if `output` is something else than a folder of wheels."""
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise WheelhouseError("it is not a folder", where=output, remedy="name another WHEELHOUSE")
    if others := sorted(path.name for path in output.glob("*") if path.suffix != ".whl"):
        problem = f"expected a folder of wheels, to replace it, but it has {others[0]}"
        raise WheelhouseError(problem, where=output, remedy="name another WHEELHOUSE")


def build_segkit(copy: Path, target: Target) -> Path:
    """Build segkit's wheel from a copy: a build in the checkout would leave folders there, and read old ones."""
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    return build_wheel(copy, target)


if __name__ == "__main__":
    sys.exit(main())
