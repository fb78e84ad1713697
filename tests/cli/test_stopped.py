"""Commands that are stopped midway: SIGTERM leaves nothing behind; what SIGKILL leaves, the next run removes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from segkit.cli.main import main
from segkit.data.toy import dataset as toy
from tests.helpers import saved_heads
from tests.helpers.platforms import needs_worker_processes
from tests.helpers.stopped_commands import has_png, list_hidden, list_processes, start, wait_until

pytestmark = needs_worker_processes
FEW, MANY = 2, 2000  # images; the many are links to the few, and more than are done before the signal
WORKERS = 2
TERMINATED = 128 + signal.SIGTERM
DATASET = "--json {toy}/panoptic.json --masks {toy}/panoptic"
HEADS = f"--predictions {{heads}}/saved --output {{output}} --workers {WORKERS}"
TOY = "data toy --images {images} --output {output}"
CONVERT = f"data convert --from coco-panoptic {DATASET} --images {{toy}}/images --to voc --output {{output}}"
STUFF = f"data panoptic-stuff {DATASET} --output {{output}} --workers {WORKERS}"
FUSE = f"fuse run {HEADS} --method heuristic --explain"
SWEEP = f"fuse sweep {HEADS} --gt {{heads}}/ground_truth.json --methods heuristic"
COMMANDS = [TOY, FUSE, *(pytest.param(command, marks=pytest.mark.slow) for command in (CONVERT, STUFF, SWEEP))]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Head outputs and toy scenes: few, and many."""
    folder = tmp_path_factory.mktemp("inputs")
    saved_heads.write(folder / f"{FEW}_heads", FEW)
    toy.write_dataset(folder / f"{FEW}_toy", FEW, 5)
    for name in ("heads", "toy"):
        many = Path(shutil.copytree(folder / f"{FEW}_{name}", folder / f"{MANY}_{name}"))
        for path in (*many.glob("[!i]*.json"), *many.glob("saved/*.json")):  # no instances.json
            repeat_images(path, [path.parent, *(child for child in many.iterdir() if child.is_dir())])
    return folder


def repeat_images(path: Path, folders: list[Path]) -> None:
    """Makes MANY images of the few of a JSON, with links to their files in these folders."""
    content = json.loads(path.read_text())
    for table in {"images", "annotations"} & content.keys():
        content[table] = [repeat_entry(e, n, folders) for n in range(MANY // FEW) for e in content[table]]
    path.write_text(json.dumps(content))


def repeat_entry(entry: dict[str, Any], number: int, folders: list[Path]) -> dict[str, Any]:
    for key in {"file_name", "outputs"} & entry.keys():
        for folder in folders:
            if (folder / entry[key]).exists() and not (folder / f"{number}_{entry[key]}").exists():
                os.link(folder / entry[key], folder / f"{number}_{entry[key]}")
    changes = {key: f"{number}_{entry[key]}" for key in ("file_name", "outputs", "image_id") if key in entry}
    return {**entry, **changes, "id": f"{number}_{entry.get('id')}"}


def build(command: str, inputs: Path, output: Path, images: int) -> list[str]:
    places = {"toy": inputs / f"{images}_toy", "heads": inputs / f"{images}_heads"}
    return command.format(images=images, output=output, **places).split()


def has_begun(command: str, output: Path, pid: int) -> bool:
    """Whether an image is written; a sweep writes nothing before its end, but has started its workers."""
    if command == SWEEP:
        return len(list_processes(pid)) > WORKERS
    return has_png(output.parent)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_asked_to_end_leaves_nothing(command: str, inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with start(*build(command, inputs, output, MANY)) as process:
        wait_until(lambda: has_begun(command, output, process.pid), process)
        process.terminate()
        printed, error = process.communicate(timeout=60)
        assert (process.returncode, printed, error) == (TERMINATED, "", f"segkit {command.split()[0]}: terminated\n")
        assert list_processes(process.pid) == []
    if command == STUFF:  # its PNGs are one by one of use
        assert list_hidden(tmp_path) == []
    else:
        assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_next_run_removes_what_a_killed_command_left(command: str, inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with start(*build(command, inputs, output, MANY)) as process:
        wait_until(lambda: has_begun(command, output, process.pid), process)
        process.kill()
        wait_until(lambda: not list_processes(process.pid))
    if command not in (SWEEP, STUFF):
        assert list_hidden(tmp_path)
    assert main(build(command, inputs, output, FEW)) == 0
    assert list_hidden(tmp_path) == []
    assert any(output.iterdir())
