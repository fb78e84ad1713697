#!/usr/bin/env python3
"""Compare the way of a training sample from a loader's worker process packed and as it is: equal, bytes, time.

    python benchmarks/sample_transfer.py [--rounds 5] [--samples 20]

A sample of 1024 x 1024 pixels with annotated objects, which may overlap, as COCO's instances with large scale jitter
have them: the image, a bitmask of each object and a semantic map. One worker gives copies of the same sample. The time
is the processor time of both processes: of a copy, of packing, of the queue and of unpacking on the CPU.
"""

from __future__ import annotations

import argparse
import resource
import statistics
from copy import deepcopy
from typing import Any

import torch
from detectron2.structures import BitMasks, Instances
from torch.utils.data import DataLoader, Dataset

from segkit.engine.training.packing import PackedMasks, pack_sample, unpack_sample

SIDE_PX, MIB = 1024, 1024**2
Sample = dict[str, Any]


class Samples(Dataset[Sample]):
    """The same sample, packed in the worker or not."""

    def __init__(self, sample: Sample, count: int, packs: bool) -> None:
        self.sample, self.count, self.packs = sample, count, packs

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, _row: int) -> Sample:
        sample = deepcopy(self.sample)  # a tensor that was sent is in shared memory already
        return pack_sample(sample) if self.packs else sample


def build_sample(objects: int) -> Sample:
    """Rectangles of a tenth of each side."""
    generator = torch.Generator().manual_seed(objects)
    masks = torch.zeros((objects, SIDE_PX, SIDE_PX), dtype=torch.bool)
    corners = torch.randint(0, SIDE_PX * 9 // 10, (objects, 2), generator=generator)
    for mask, (top, left) in zip(masks, corners.tolist(), strict=True):
        mask[top : top + SIDE_PX // 10, left : left + SIDE_PX // 10] = True
    classes = torch.zeros(objects, dtype=torch.int64)
    instances = Instances((SIDE_PX, SIDE_PX), gt_classes=classes, gt_masks=BitMasks(masks))
    image = torch.zeros((3, SIDE_PX, SIDE_PX), dtype=torch.uint8)
    return {"image": image, "instances": instances, "sem_seg": torch.zeros(SIDE_PX, SIDE_PX, dtype=torch.int64)}


def count_bytes(sample: Sample) -> tuple[int, int]:
    """Of the masks, and of the whole sample."""
    masks = sample["instances"].gt_masks
    masks_bytes = int((masks.bits if isinstance(masks, PackedMasks) else masks.tensor).nbytes)
    return masks_bytes, masks_bytes + int(sample["image"].nbytes + sample["sem_seg"].nbytes)


def measure_ms(sample: Sample, count: int, packs: bool) -> float:
    """The processor time of a sample, of the worker and of this process."""
    times = [read_processor_s()]
    for samples in (2, 2 + count):  # the start of the worker is in both
        for number, received in enumerate(DataLoader(Samples(sample, samples, packs), batch_size=None, num_workers=1)):
            masks = (unpack_sample(received) if packs else received)["instances"].gt_masks
            if number == 0 and not torch.equal(masks.tensor, sample["instances"].gt_masks.tensor):
                raise SystemExit("the masks differ")
        times.append(read_processor_s())
    return 1e3 * (times[2] - 2 * times[1] + times[0]) / count


def read_processor_s() -> float:
    """Of this process and of those that it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for objects in (5, 30, 100):
        sample = build_sample(objects)
        pairs = [[measure_ms(sample, options.samples, packs) for packs in (False, True)] for _ in range(options.rounds)]
        plain_ms, packed_ms = (statistics.median(times) for times in zip(*pairs, strict=True))
        (plain, plain_all), (packed, packed_all) = count_bytes(sample), count_bytes(pack_sample(sample))
        print(
            f"{objects:>3} objects, equal: masks {plain / MIB:.2f} / {packed / MIB:.2f} MiB = {plain / packed:.1f}x, "
            f"samples {plain_all / MIB:.1f} / {packed_all / MIB:.1f} MiB = {plain_all / packed_all:.1f}x, "
            f"{plain_ms:.1f} / {packed_ms:.1f} ms = {plain_ms / packed_ms:.1f}x"
        )


if __name__ == "__main__":
    main()
