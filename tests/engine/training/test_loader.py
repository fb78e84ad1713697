"""The training's loader: equal samples for every number of processes and workers, and what fails in it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from segkit.data.map_masks import MapMasks
from segkit.engine.training import loader as loaders
from segkit.engine.training.loader import TrainingLoader, compute_fingerprint, count_usable_cpus
from segkit.engine.training.packing import PackedMasks
from segkit.engine.training.prefetch import DeviceCopy, map_tensors
from segkit.engine.training.synchronisations import count_synchronisations
from segkit.utils.errors import ConfigError, DatasetError, TrainingError


def map_record(record: dict[str, Any]) -> dict[str, Any]:
    """A mapper that draws from all three generators."""
    return {"id": record["image_id"], "draws": (random.random(), np.random.random(), torch.rand(()).item())}  # noqa: NPY002


def skip_odd(record: dict[str, Any]) -> dict[str, Any] | None:
    return map_record(record) if record["image_id"] % 2 == 0 else None


def fail_at_three(record: dict[str, Any]) -> dict[str, Any]:
    if record["image_id"] == 3:
        raise DatasetError("expected an image, got text", where="three.png")
    return map_record(record)


def stop_itself(_record: dict[str, Any]) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGSTOP)
    return {}


def kill_itself(_record: dict[str, Any]) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def survive_signals(record: dict[str, Any]) -> dict[str, Any]:
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        os.kill(os.getpid(), number)
    return {"id": record["image_id"]}


def build_loader(mapper: Any = map_record, images: int = 8, **options: Any) -> TrainingLoader:
    records = [{"image_id": i, "file_name": f"{i}.png", "width": 2 + i % 2, "height": 2} for i in range(images)]
    return TrainingLoader(records, mapper, **{"batch_size": 4, "seed": 1, **options})


def read(loader: TrainingLoader, steps: int = 5) -> list[list[Any]]:
    """The samples of each step, without the parts."""
    try:
        return [[sample for part in loader.next_step() for sample in part] for _ in range(steps)]
    finally:
        loader.close()


def test_samples_do_not_depend_on_workers_processes_parts_or_other_random_numbers() -> None:
    expected = read(build_loader())
    assert {sample["id"] for step in expected for sample in step} == set(range(8))
    random.random()
    torch.rand(3)
    assert read(build_loader(workers=2)) == expected
    ranks = [read(build_loader(rank=rank, world_size=2)) for rank in (0, 1)]
    assert [first + second for first, second in zip(*ranks, strict=True)] == expected
    assert read(build_loader(parts=2)) == expected
    parts = build_loader(parts=2).next_step()
    assert [len(part) for part in parts] == [2, 2]


def receive_later(parts: Any) -> Callable[[], Any]:
    """In the place of a copy to a GPU."""
    return lambda: parts


def map_semantics(record: dict[str, Any]) -> dict[str, Any]:
    """The semantic map of image 1 does not fit into bytes."""
    return {"id": record["image_id"], "sem_seg": torch.tensor([[7, 255, 256 * record["image_id"]]])}


def test_a_step_ahead_gives_the_same_samples() -> None:
    assert read(build_loader(workers=2, to_device=receive_later)) == read(build_loader())
    assert read(build_loader(parts=2, workers=1, to_device=receive_later)) == read(build_loader())
    here = build_loader(to_device=receive_later)  # without workers, nothing is read ahead
    assert read(here) == read(build_loader())
    assert here._prefetcher is None
    expected = read(build_loader(map_semantics, images=2), 3)
    steps = read(build_loader(map_semantics, images=2, workers=1, to_device=receive_later), 3)
    torch.testing.assert_close(steps, expected, rtol=0, atol=0)


def test_a_step_ahead_is_not_counted_before_it_is_given() -> None:
    expected = read(build_loader())
    copied: list[Any] = []
    loader = build_loader(workers=1, to_device=lambda parts: copied.append(parts) or receive_later(parts))
    read_steps = [loader.next_step() for _ in range(2)]
    wait_until(lambda: len(copied) > 2)
    assert loader.batches == 2
    state = loader.state_dict()
    loader.load_state_dict(state)
    after = read(loader, 3)
    assert [[sample for part in step for sample in part] for step in read_steps] + after == expected


def test_errors_ahead_are_raised_here() -> None:
    with pytest.raises(DatasetError, match=r"^three\.png: expected an image, got text$"):
        read(build_loader(fail_at_three, workers=1, to_device=receive_later))
    with pytest.raises(TrainingError, match=r"worker process has ended: \d+ \(exit code -9\)"):
        read(build_loader(kill_itself, workers=1, to_device=receive_later))
    with pytest.raises(TrainingError, match=r"have given no images for 1 s"):
        read(build_loader(stop_itself, workers=1, timeout_s=1, to_device=receive_later))
    loader = build_loader(fail_at_three, workers=1, max_unreadable=9, to_device=receive_later)
    assert all(len(sample) == 2 for step in read(loader, 4) for sample in step)
    assert set(loader.unreadable) == {"three.png: expected an image, got text"}


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_tensors_of_structures_are_copied() -> None:
    instances = Instances((2, 3), gt_boxes=Boxes(torch.ones(1, 4)), gt_classes=torch.ones(1), name=["a"])
    instances.gt_masks = MapMasks(torch.ones(2, 3, dtype=torch.uint8), torch.ones(1, dtype=torch.uint8))
    instances.other_masks = BitMasks(torch.ones(1, 2, 3))
    instances.packed_masks = PackedMasks.pack(instances.other_masks)
    sample = {"image": torch.zeros(3), "file_name": "a.png", "instances": instances}
    [[copied]] = map_tensors([[sample]], lambda tensor: tensor.to("meta"))
    assert copied["file_name"] == "a.png"
    assert copied["image"].device.type == "meta"
    fields = copied["instances"].get_fields()
    assert fields.pop("name") == ["a"]
    assert fields.pop("packed_masks").bits.device.type == "meta"
    assert [type(field) for field in fields.values()] == [Boxes, torch.Tensor, MapMasks, BitMasks]
    assert {field.device.type for field in fields.values()} == {"meta"}
    assert fields["gt_masks"].rows.device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_copy_to_the_gpu_is_whole() -> None:
    copy = DeviceCopy(torch.device("cuda", 0))
    values = [torch.arange(1000) + i for i in range(20)]
    with count_synchronisations("cuda") as counts:
        received = [copy(value)() * 2 for value in values]
    assert sum(counts.values()) == 0
    assert all(torch.equal(got.cpu(), value * 2) for got, value in zip(received, values, strict=True))


def test_reading_here_leaves_the_generators_as_they_were() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate()
    read(build_loader(), 1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_a_state_goes_on_with_the_next_step() -> None:
    expected = read(build_loader(workers=1))
    first, second = build_loader(), build_loader(seed=99)
    read(first, 2)
    second.load_state_dict(first.state_dict())
    assert read(second, 3) == expected[2:]


def test_other_data_or_another_batch_size_are_noted(caplog: pytest.LogCaptureFixture) -> None:
    first = build_loader()
    read(first, 3)
    second = build_loader(images=9, batch_size=6)
    second.load_state_dict(first.state_dict())
    assert second.batches == 2  # 12 images
    assert "not those of the checkpoint (8, now 9)" in caplog.text
    assert "IMS_PER_BATCH was 4 and is 6" in caplog.text


def test_skipped_records_are_replaced_alike_everywhere() -> None:
    expected = read(build_loader(skip_odd))
    assert all(sample["id"] % 2 == 0 for step in expected for sample in step)
    assert read(build_loader(skip_odd, workers=2)) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_fatal_or_skipped_and_recorded(workers: int) -> None:
    with pytest.raises(DatasetError, match=r"^three\.png: expected an image, got text$"):
        read(build_loader(fail_at_three, workers=workers))
    loader = build_loader(fail_at_three, workers=workers, max_unreadable=9)
    steps = read(loader, 4)  # two epochs
    assert all(sample["id"] != 3 and len(sample) == 2 for step in steps for sample in step)
    assert set(loader.unreadable) == {"three.png: expected an image, got text"}
    assert len(loader.unreadable) >= 2


def test_nothing_but_skipped_images_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "TRIES", 5)
    with pytest.raises(TrainingError, match="5 images in a row were skipped"):
        read(build_loader(lambda record: None))


def test_a_killed_worker_is_named() -> None:
    with pytest.raises(TrainingError, match=r"worker process has ended: \d+ \(exit code -9\).*NUM_WORKERS"):
        read(build_loader(kill_itself, workers=1))


def test_a_stopped_worker_is_an_error_in_time() -> None:
    with pytest.raises(TrainingError, match=r"worker processes \[\d+\] have given no images for 1 s.*TIMEOUT_S"):
        read(build_loader(stop_itself, workers=1, timeout_s=1))


def test_workers_ignore_the_signals_of_a_pre_emption() -> None:
    assert len(read(build_loader(survive_signals, workers=1), 2)) == 2


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(ConfigError, match="IMS_PER_BATCH is 4, expected a multiple of 6: 3 processes with 2"):
        build_loader(world_size=3, parts=2)


def test_the_fingerprint_knows_images_not_folders() -> None:
    record = {"file_name": "/a/x.png", "image_id": 1, "height": 2, "width": 3}
    assert compute_fingerprint([record]) == compute_fingerprint([{**record, "file_name": "/b/x.png"}])
    for change in ({"file_name": "/a/y.png"}, {"image_id": 2}, {"height": 3}):
        assert compute_fingerprint([{**record, **change}]) != compute_fingerprint([record])


@pytest.mark.parametrize(("text", "expected"), [("150000 100000", 1), ("max 100000", 8), ("300000 100000", 3)])
def test_the_quota_of_the_control_group_counts(monkeypatch: pytest.MonkeyPatch, text: str, expected: int) -> None:
    def read_file(path: str) -> str:
        if Path(path).name != "cpu.max":
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(loaders, "_read", read_file)
    monkeypatch.setattr(loaders.os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    assert count_usable_cpus() == expected
