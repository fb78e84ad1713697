"""tools/install_detectron2.py is `segkit doctor --install-detectron2`, also where segkit is not installed."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "tools" / "install_detectron2.py"


def test_the_script_runs_on_a_bare_interpreter_in_any_folder(tmp_path):
    """-S: no site-packages. The name of the folder is taken, so that nothing is downloaded."""
    (tmp_path / "wheels").touch()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [sys.executable, "-S", str(SCRIPT), "--wheel-dir", "wheels"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert ran.returncode == 1
    assert ran.stderr == "segkit doctor: wheels: File exists; check the path, its permissions and the free space\n"
