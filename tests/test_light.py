"""The light half (everything below `segkit.config`) works without torch and Detectron2.

`make test-light` runs this file, and the tests of the light half, in an environment without them (SEGKIT_LIGHT=1).
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import segkit

HEAVY = ("torch", "torchvision", "detectron2", "fvcore", "iopath", "yacs")
LIGHT = (
    "utils",
    "structures",
    "formats",
    "fusion",
    "metrics",
    "classical",
    "report",
    "scoring",
    "curation",
    "runtime",
    "cli",
)
IMPORT_ALL = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({HEAVY!r}))
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


@pytest.mark.skipif(not os.environ.get("SEGKIT_LIGHT"), reason="`make test-light` runs it in the light environment")
@pytest.mark.parametrize("name", HEAVY)
def test_heavy_packages_are_not_installed(name: str) -> None:
    assert importlib.util.find_spec(name) is None


def test_every_light_module_is_imported_without_heavy_packages() -> None:
    root = Path(segkit.__file__).parent
    paths = [path.relative_to(root.parent) for name in LIGHT for path in (root / name).rglob("*.py")]
    light = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    assert len(light) > 100
    ran = subprocess.run([sys.executable, "-c", IMPORT_ALL, *light], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_the_package_itself_imports_nothing() -> None:
    code = "import sys, segkit; print(*(name for name in sys.modules if name.startswith('segkit') or name == 'numpy'))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "segkit\n"
