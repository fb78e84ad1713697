"""Every test file is collected without the packages that tests only compare with or that only make things fast."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPTIONAL = (
    *("cityscapesscripts", "hotcoco", "panopticapi", "surface_distance", "transformers"),  # compared with
    "skimage",  # the extra `classical`
    *("llvmlite", "msgspec", "numba", "ultrafast_pycocotools", "zlib_ng"),  # the extra `fast`
    *("onnx", "onnxruntime", "onnxscript"),  # the extra `export`
    "av",  # the extra `video`
    *("importlinter", "mypy", "pre_commit", "ruff"),
)


@pytest.mark.slow
def test_every_test_file_is_collected_without_optional_packages(tmp_path: Path) -> None:
    (tmp_path / "without_optional.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({OPTIONAL}))\n")
    paths = os.pathsep.join([str(tmp_path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    options = ["-p", "without_optional", "-p", "no:cacheprovider", "--collect-only", "-q"]
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-m", "pytest", *options]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-2000:]
