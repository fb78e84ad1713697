"""The example notebooks run; no output is stored in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells
    names: dict[str, Any] = {"__name__": "notebook"}
    for number, cell in enumerate(cells, 1):
        assert cell["outputs"] == [], number
        code = "".join(cell["source"])
        exec(compile(code, f"{path.name}, cell {number}", "exec", dont_inherit=True), names)
    assert "Prediction(" in capsys.readouterr().out
