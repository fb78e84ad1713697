"""Collects the wheels that another machine's Python needs, for a cluster without internet.

pip evaluates conditions such as `python_version < "3.11"` for the Python that it runs on. So this module follows the
requirements itself, for the cluster's Python; pip only downloads and builds.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from email import message_from_bytes
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename

from segkit.utils.errors import SegkitError

LATER_GLIBC = "name a later glibc, as in PLATFORM=manylinux_2_34_x86_64"
MB = 1_000_000
LARGEST = 8  # packages that an error lists


class WheelhouseError(SegkitError):
    """The wheels cannot be collected, or take too much space. The message says why and what to do."""


class Target(NamedTuple):
    """The machine that installs the wheels.

    Attributes:
        python: its Python, as in 3.12 or 3.12.4; 3.12 counts as 3.12.0, so that no backport is missing.
        machine: x86_64 or aarch64.
        glibc: N of its glibc 2.N; wheels for earlier ones work too.
    """

    python: str
    machine: str
    glibc: int

    def __str__(self) -> str:
        return f"Python {self.python} on manylinux_2_{self.glibc}_{self.machine}"

    def get_environment(self) -> dict[str, str]:
        """The values of the variables in conditions of requirements."""
        full = self.python if self.python.count(".") == 2 else f"{self.python}.0"
        return {
            "implementation_name": "cpython",
            "implementation_version": full,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": full,
            "python_version": full.rpartition(".")[0],
            "sys_platform": "linux",
        }

    def get_pip_options(self) -> list[str]:
        """The options with which `pip download` chooses files for the target."""
        tags = [f"manylinux_2_{minor}" for minor in range(self.glibc, 4, -1)] + ["manylinux2014", "manylinux1"]
        platforms = [word for tag in tags for word in ("--platform", f"{tag}_{self.machine}")]
        return ["--python-version", self.python, "--implementation", "cp", *platforms]


class Wheelhouse:
    """Wheels in a folder, and what needs them.

    Args:
        folder: an empty folder.
        target: the machine that installs the wheels.
        without: names of packages that are left out, and with them everything that only they need.
        constraints: file of pinned versions.

    Attributes:
        wheels: canonical name of a package -> its wheel.
        left_out: canonical name of a package that is needed and left out -> versions that are accepted.
    """

    def __init__(self, folder: Path, target: Target, without: Iterable[str], constraints: Path) -> None:
        self.folder, self.target = folder, target
        self.without = frozenset(map(canonicalize_name, without))
        self.wheels: dict[str, Path] = {}
        self.left_out: dict[str, SpecifierSet] = {}
        self._pins = read_pins(constraints, target)
        self._sizes: dict[str, int] = {}
        self._roots: set[str] = set()
        self._needs: dict[str, set[str]] = defaultdict(set)

    def add(self, wheel: Path) -> None:
        """Move a wheel into the folder.

        Args:
            wheel: its path, on the same disk.
        """
        name = canonicalize_name(parse_wheel_filename(wheel.name)[0])
        self.wheels[name] = wheel.rename(self.folder / wheel.name)
        self._sizes[name] = self.wheels[name].stat().st_size

    def collect(self, requirements: Iterable[str], follow: bool = True) -> None:
        """Add the wheels of requirements, and of what those need in turn, except what is left out.

        Args:
            requirements: as in `segkit[train]`; a package whose wheel has been added is not downloaded.
            follow: False adds the wheels of `requirements` alone.

        Raises:
            WheelhouseError: pip fails, a package must be compiled, or requirements contradict each other.
        """
        pending = [("", Requirement(text)) for text in requirements]
        self._roots.update(canonicalize_name(requirement.name) for _, requirement in pending)
        expanded: set[tuple[str, frozenset[str]]] = set()
        while pending:
            self._download([requirement for _, requirement in pending])
            following: list[tuple[str, Requirement]] = []
            for needed_by, requirement in pending:
                name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
                if name in self.without:
                    self.left_out[name] = self.left_out.get(name, SpecifierSet()) & requirement.specifier
                    continue
                self._check_version(requirement, needed_by)
                if follow and (name, extras) not in expanded:
                    expanded.add((name, extras))
                    following += [
                        (name, needed) for needed in read_requirements(self.wheels[name], extras, self.target)
                    ]
            for needed_by, requirement in following:
                self._needs[needed_by].add(canonicalize_name(requirement.name))
            pending = following

    def measure(self, without: Iterable[str] = ()) -> float:
        """Measure the wheels.

        Args:
            without: canonical names of packages that count as left out too.

        Returns:
            MB (10^6 bytes) of the wheels that are then needed.
        """
        needed: set[str] = set()
        pending = [*self._roots]
        while pending:
            name = pending.pop()
            if name in self.wheels and name not in needed and name not in without:
                needed.add(name)
                pending += self._needs[name]
        return sum(self._sizes[name] for name in needed) / MB

    def check_size(self, max_mb: float, always: Iterable[str]) -> None:
        """Check the size of all wheels.

        Args:
            max_mb: limit in MB (10^6 bytes).
            always: canonical names of packages that cannot be left out.

        Raises:
            WheelhouseError: there is more; lists the largest packages, and a choice to leave out that would do.
        """
        total = self.measure()
        if total <= max_mb:
            return
        candidates = sorted(self.wheels.keys() - {*always})
        savings = {name: total - self.measure({name}) for name in candidates}
        largest = sorted(candidates, key=lambda name: -savings[name])[:LARGEST]
        chosen: list[str] = []
        while self.measure(chosen) > max_mb and len(chosen) < len(candidates):
            rest = {name: self.measure([*chosen, name]) for name in candidates if name not in chosen}
            chosen.append(min(rest, key=rest.__getitem__))
        left = f"{self.measure(chosen):.1f} MB"
        if self.measure(chosen) > max_mb:
            advice = f"{' and '.join(always)} alone take {left}: raise MAX_MB"
        else:
            names = " ".join([*sorted(self.without), *chosen])
            advice = f"If the cluster has them, or can do without, WITHOUT='{names}' leaves {left}"
        problem = f"{len(self.wheels)} wheels take {total:.1f} MB, more than MAX_MB={max_mb:g}"
        table = [f"  {name:<30}{savings[name]:8.1f} MB" for name in largest]
        raise WheelhouseError("\n".join([f"{problem}. The largest, with what only they need:", *table, advice]))

    def _download(self, requirements: list[Requirement]) -> None:
        """Download what is missing, all at once, and build what is published as sources only."""
        missing: dict[str, SpecifierSet] = {}
        for requirement in requirements:
            name = canonicalize_name(requirement.name)
            if name not in self.wheels and name not in self.without:
                versions = self._pins.get(name, requirement.specifier)
                missing[name] = missing.get(name, SpecifierSet()) & versions
        if not missing:
            return
        print(f"Downloading {' '.join(sorted(missing))}", flush=True)
        with tempfile.TemporaryDirectory(dir=self.folder.parent) as temporary:
            wanted = [f"{name}{versions}" for name, versions in sorted(missing.items())]
            run_pip("download", "--no-deps", *self.target.get_pip_options(), "--dest", temporary, *wanted)
            for path in sorted(Path(temporary).iterdir()):
                self.add(path if path.suffix == ".whl" else build_wheel(path, self.target))

    def _check_version(self, requirement: Requirement, needed_by: str) -> None:
        version = parse_wheel_filename(self.wheels[canonicalize_name(requirement.name)].name)[1]
        if not requirement.specifier.contains(version, prereleases=True):
            problem = f"{needed_by} needs {requirement.name}{requirement.specifier}, but {version} is collected"
            raise WheelhouseError(problem, remedy="change its line in constraints.txt")


def read_pins(constraints: Path, target: Target) -> dict[str, SpecifierSet]:
    """Read the lines of a constraints file that hold for the target.

    Args:
        constraints: the file; lines as in `numpy==2.2.6; python_version < '3.11'`.
        target: the machine that installs the wheels.

    Returns:
        Canonical name -> version.
    """
    lines = (line.partition("#")[0].strip() for line in constraints.read_text(encoding="utf-8").splitlines())
    pins = [Requirement(line) for line in lines if line]
    environment = target.get_environment()
    return {
        canonicalize_name(pin.name): pin.specifier
        for pin in pins
        if pin.marker is None or pin.marker.evaluate(environment)
    }


def read_requirements(wheel: Path, extras: Iterable[str], target: Target) -> list[Requirement]:
    """Read what a wheel needs.

    Args:
        wheel: its path.
        extras: the extras of the package that are wanted.
        target: the machine that installs the wheel.

    Returns:
        The requirements that hold for the target and the extras.

    Raises:
        WheelhouseError: a requirement cannot be read.
    """
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        lines = message_from_bytes(archive.read(metadata)).get_all("Requires-Dist") or []
    try:
        requirements = [Requirement(line) for line in lines]
    except InvalidRequirement as error:
        raise WheelhouseError(f"a requirement cannot be read: {error}", where=wheel.name) from error
    environments = [{**target.get_environment(), "extra": extra} for extra in ("", *extras)]
    return [
        requirement
        for requirement in requirements
        if requirement.marker is None or any(requirement.marker.evaluate(values) for values in environments)
    ]


def build_wheel(source: Path, target: Target) -> Path:
    """Build the wheel of a pure Python package.

    Args:
        source: archive or folder of its sources.
        target: the machine that installs the wheel.

    Returns:
        The path of the wheel, in a folder beside `source`.

    Raises:
        WheelhouseError: pip fails, or the package is compiled.
    """
    folder = Path(f"{source}.wheel")
    run_pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    if Tag("py3", "none", "any") not in parse_wheel_filename(wheel.name)[3]:
        problem = f"there is no wheel for {target}, and the sources must be compiled"
        raise WheelhouseError(problem, where=source.name, remedy=f"{LATER_GLIBC}, or leave it out by WITHOUT")
    return wheel


def run_pip(*arguments: str) -> None:
    """Run this interpreter's pip; what it prints is shown if it fails.

    Args:
        arguments: those of pip.

    Raises:
        WheelhouseError: pip fails.
    """
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if ran.returncode:
        print(ran.stdout.decode(errors="replace"), end="", file=sys.stderr)
        problem = f"pip {arguments[0]} failed; its message is above"
        raise WheelhouseError(problem, remedy=f"if a package has no file for the platform, {LATER_GLIBC}")
