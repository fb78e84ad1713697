"""Wheels of a few kB that need each other, and a function in place of pip that makes them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

# Package -> (version, size in kB, what it needs).
PACKAGES = {
    "segkit": ("0.1", 1, ["numpy>=1.24", "Big_Image>=2", "torch>=2.4; extra == 'train'", "logs; extra == 'train'"]),
    "detectron2": ("0.7.2", 3, []),
    "big-image": ("3.0", 40, ["numpy<3,>=1.9", "helper"]),
    "torch": ("2.15", 300, ["helper", "cuda; platform_machine == 'x86_64'", "windows; sys_platform == 'win32'"]),
    "cuda": ("13.0", 200, []),
    "helper": ("1.0", 5, ["tomli; python_version < '3.11'"]),
    "tomli": ("2.5", 1, []),
    "logs": ("2.0", 10, []),
    "numpy": ("2.4", 20, []),
    "pure-source": ("1.0", 2, []),
    "compiled-source": ("1.0", 2, []),
}
ARCHIVE = "-1.0.tar.gz"


def write_wheel(folder: Path, name: str, tag: str = "py3-none-any") -> Path:
    """Write the wheel of a package of PACKAGES, which has its size exactly; its path."""
    version, kilobytes, needs = PACKAGES[name]
    name = name.replace("-", "_")
    path = folder / f"{name}-{version}-{tag}.whl"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(lines))
    headers = 30 + 46 + 2 * len("fill")  # of one more stored file
    fill = kilobytes * 1000 - path.stat().st_size - headers
    with zipfile.ZipFile(path, "a") as wheel:
        wheel.writestr("fill", bytes(fill))
    return path


def make_pip(calls: list[list[str]]) -> Callable[..., None]:
    """pip that appends its arguments to `calls`. Packages whose names end in -source have no wheel to download."""

    def run_pip(*arguments: str) -> None:
        calls.append([*arguments])
        if arguments[0] == "download":
            position = arguments.index("--dest") + 1
            folder = Path(arguments[position])
            for wanted in arguments[position + 1 :]:
                name = wanted.partition("=")[0].partition(">")[0]
                if name.endswith("-source"):
                    (folder / f"{name}{ARCHIVE}").touch()
                else:
                    write_wheel(folder, name)
        else:
            folder, name = Path(arguments[-2]), Path(arguments[-1]).name.removesuffix(ARCHIVE)
            folder.mkdir()
            write_wheel(folder, name, "py3-none-any" if name == "pure-source" else "cp312-cp312-linux_x86_64")

    return run_pip
