"""Which checkpoint a training goes on from, after files were damaged, lost, copied or left by a killed process."""

from __future__ import annotations

import random
import resource
import shutil
import time
from collections.abc import Callable
from itertools import count
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest
import torch

from segkit.engine.checkpoints.checkpointer import SafeCheckpointer
from segkit.engine.checkpoints.newest import find_newest_checkpoint, has_checkpoints
from segkit.engine.checkpoints.safe_load import load_torch
from segkit.utils.errors import CheckpointError
from segkit.utils.files import replacing
from segkit.utils.leftovers import remove_leftovers


def write_run(folder: Path, iterations: list[int], keep: int = 0) -> SafeCheckpointer:
    """A training whose weight is the number of the iteration."""
    checkpointer = SafeCheckpointer(torch.nn.Linear(1, 1), str(folder), keep=keep)
    for iteration in iterations:
        torch.nn.init.constant_(checkpointer.model.weight, iteration)
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
    return checkpointer


def resume(folder: Path) -> int:
    """The iteration from which a training resumes; the weight must be its own."""
    checkpointer = SafeCheckpointer(torch.nn.Linear(1, 1), str(folder))
    iteration = checkpointer.resume_or_load("", resume=True)["iteration"]
    assert checkpointer.model.weight.item() == iteration
    return iteration


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start(work: Callable[[Path], None], folder: Path) -> ForkProcess:
    """Run a function in another process, which may be killed or limited."""

    def run() -> None:
        torch.set_num_threads(1)  # a forked process has no pool of threads
        work(folder)

    process = ForkProcess(target=run)
    process.start()
    return process


@pytest.mark.parametrize("last", [None, "", "gone.pth", "model_0000003.pth", "../outside.pth", "/etc/passwd", "\0"])
def test_the_newest_is_taken_whatever_last_checkpoint_names(tmp_path: Path, last: str | None) -> None:
    write_run(tmp_path / "run", [3, 12, 6])
    write_run(tmp_path, [99])
    shutil.move(tmp_path / "model_0000099.pth", tmp_path / "outside.pth")
    (tmp_path / "run/last_checkpoint").unlink()
    if last is not None:
        (tmp_path / "run/last_checkpoint").write_text(last)
    assert resume(tmp_path / "run") == 12


def test_damaged_files_are_skipped_with_a_warning_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_run(tmp_path, [1, 2, 3, 4])
    damage(tmp_path / "model_0000004.pth")
    (tmp_path / "model_0000003.pth").write_bytes(b"")
    assert resume(tmp_path) == 2
    warnings = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert len(warnings) == 2
    assert all(line.endswith("; skipped, model_0000002.pth is used") for line in warnings)


def test_if_every_file_is_damaged_no_training_starts(tmp_path: Path) -> None:
    write_run(tmp_path, [1, 2])
    damage(tmp_path / "model_0000001.pth")
    damage(tmp_path / "model_0000002.pth")
    (tmp_path / "last_checkpoint").unlink()
    with pytest.raises(
        CheckpointError, match=r"none of 2 checkpoints can be used: model_0000002\.pth: the file is damaged.*--resume"
    ):
        resume(tmp_path)


def test_a_folder_without_checkpoints_starts_at_the_beginning(tmp_path: Path) -> None:
    assert not has_checkpoints(tmp_path / "absent")
    assert find_newest_checkpoint(tmp_path / "absent") == ""
    torch.save(torch.nn.Linear(1, 1).state_dict(), tmp_path / "pretrained.pth")
    assert not has_checkpoints(tmp_path), "weights without an iteration are not a checkpoint of this training"
    assert SafeCheckpointer(torch.nn.Linear(1, 1), str(tmp_path)).resume_or_load("", resume=True) == {}


def test_checkpoints_of_other_tools_are_ordered_by_their_content(tmp_path: Path) -> None:
    for name, iteration in (("model_0000009", 4), ("model_final", 8), ("b", 6)):
        model = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(model.weight, iteration)
        torch.save({"model": model.state_dict(), "iteration": iteration}, tmp_path / f"{name}.pth")
    assert resume(tmp_path) == 8
    whole = (tmp_path / "model_final.pth").read_bytes()
    (tmp_path / "model_final.pth").write_bytes(whole[: len(whole) // 2])
    assert resume(tmp_path) == 6


def test_of_one_iteration_the_last_written_is_taken(tmp_path: Path) -> None:
    run = write_run(tmp_path, [5])
    for name in ("model_final", "model_best"):
        run.save(name, iteration=5)
        assert Path(find_newest_checkpoint(tmp_path)).name == f"{name}.pth"
    (tmp_path / "last_checkpoint").unlink()
    assert Path(find_newest_checkpoint(tmp_path)).name == "model_final.pth"


def test_a_training_that_starts_again_is_newer_than_a_longer_one_before(tmp_path: Path) -> None:
    write_run(tmp_path, [100, 200])
    second = write_run(tmp_path, [50])
    assert resume(tmp_path) == 50
    resumed = SafeCheckpointer(second.model, str(tmp_path))
    resumed.resume_or_load("", resume=True)
    torch.nn.init.constant_(resumed.model.weight, 60)
    resumed.save("model_0000060", iteration=60)
    assert resume(tmp_path) == 60, "a resumed training is the same training"


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    run = write_run(tmp_path, [1, 2, 3, 4, 5], keep=2)
    run.save("model_best", iteration=2)
    run.save("model_final", iteration=5)
    left = ["model_0000004.pth", "model_0000005.pth"]
    assert names(tmp_path) == ["last_checkpoint", *left, "model_best.pth", "model_final.pth"]
    write_run(tmp_path / "all", [1, 2, 3, 4, 5])
    assert len(list((tmp_path / "all").glob("model_*.pth"))) == 5


def test_files_of_another_training_and_damaged_newer_files_do_not_count(tmp_path: Path) -> None:
    write_run(tmp_path, [10, 20])
    run = write_run(tmp_path, [30, 40, 50], keep=2)
    assert names(tmp_path)[1:] == [f"model_00000{n}.pth" for n in (10, 20, 40, 50)]
    damage(tmp_path / "model_0000050.pth")
    resumed = SafeCheckpointer(run.model, str(tmp_path), keep=1)
    resumed.resume_or_load("", resume=True)
    resumed.save("model_0000045", iteration=45)
    assert names(tmp_path)[1:] == [f"model_00000{n}.pth" for n in (10, 20, 45, 50)]


def write_on_a_full_disk(folder: Path) -> None:
    """The size of a file is limited: 100,000 weights of 4 bytes do not fit."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    try:
        SafeCheckpointer(torch.nn.Linear(100_000, 1), str(folder), keep=1).save("model_0000002", iteration=2)
    except CheckpointError as error:
        (folder / "message").write_text(str(error))


def test_old_checkpoints_stay_if_the_newer_one_cannot_be_written(tmp_path: Path) -> None:
    write_run(tmp_path, [1])
    start(write_on_a_full_disk, tmp_path).join()
    message = (tmp_path / "message").read_text()
    assert message.startswith(f"{tmp_path}/model_0000002.pth: cannot be written (")
    assert message.endswith("; free disk space, or name another OUTPUT_DIR")
    assert names(tmp_path) == ["last_checkpoint", "message", "model_0000001.pth"]
    assert resume(tmp_path) == 1


def train_for_ever(folder: Path) -> None:
    """A training that writes a checkpoint of 1 MB each step, and the number of its last one into a file beside it."""
    run = SafeCheckpointer(torch.nn.Linear(1, 1), str(folder), keep=2)
    run.model.extra = torch.nn.Parameter(torch.zeros(300_000))
    first = run.resume_or_load("", resume=True).get("iteration", -1) + 1
    for iteration in count(first):
        torch.nn.init.constant_(run.model.weight, iteration)
        run.save(f"model_{iteration:07d}", iteration=iteration)
        with replacing(folder / "written") as path:
            path.write_text(str(iteration))
        (folder / "ready").touch()


def test_after_kills_during_writes_the_newest_whole_one_loads(tmp_path: Path) -> None:
    """Each kill loses at most the checkpoint that was being written; its temporary file is removed by the next run."""
    generator, written = random.Random(0), tmp_path / "written"
    for _ in range(12):
        process = start(train_for_ever, tmp_path)
        while not (tmp_path / "ready").exists():
            time.sleep(0.001)
        time.sleep(generator.uniform(0.0, 0.2))
        process.kill()
        process.join()
        (tmp_path / "ready").unlink()
        newest = load_torch(find_newest_checkpoint(tmp_path))
        assert newest["iteration"] - int(written.read_text()) in (0, 1)
        assert newest["model"]["weight"].item() == newest["iteration"]
    assert int(written.read_text()) >= 11
    remove_leftovers(tmp_path)  # as the next write does
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]
