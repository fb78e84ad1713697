"""Checking and repairing COCO instances whose annotations share a box or an id: the time for twice as many annotations.

The peer is the same run on half as many annotations. Time in proportion to the number gives 2x; comparing every
annotation with every other one would give 4x.

    python benchmarks/curation_scaling.py [--annotations 1000] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from segkit.curation.checks.instances import check_instances
from segkit.curation.repair import repair_instances
from tests.helpers.damaged_datasets import Broken, instances

MAX_RATIO = 3.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=int, default=1000, help="of the smaller run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of every run (default: %(default)s)")
    options = parser.parse_args()
    ratios = []
    for name, run, factor in (("check, one box", check_one_box, 1), ("repair, one id", repair_one_id, 20)):
        count = options.annotations * factor
        seconds = {n: statistics.median(run(n) for _ in range(options.repeats)) for n in (count, 2 * count)}
        ratios.append(seconds[2 * count] / seconds[count])
        print(f"{name}: {count} annotations {seconds[count]:.2f} s, twice as many {ratios[-1]:.2f}x the time")
    return int(max(ratios) > MAX_RATIO)


def check_one_box(count: int) -> float:
    """Outlines with the same box, area and almost the same corners: only the last corner differs."""
    outline = [1, 1, 4, 1, 4, 4, 1, 4] + [1, 2] * 600
    corners = [[*outline, 1, 2 - index / (4 * count)] for index in range(1, count + 1)]

    def run(data: Broken, folder: Path) -> None:
        check_instances(data.json_path, data.images, map)

    return measure([{"id": index, "segmentation": [corner]} for index, corner in enumerate(corners, 1)], run)


def repair_one_id(count: int) -> float:
    """Annotations with the same id, in pairs of equal ones: one of each pair is dropped."""

    def run(data: Broken, folder: Path) -> None:
        repair_instances(data.json_path, data.images, folder / "copy", map)

    return measure([{"id": 1, "segmentation": "none", "number": index // 2} for index in range(count)], run)


def measure(changes: list[dict[str, Any]], run: Callable[[Broken, Path], None]) -> float:
    """Processor seconds of `run` on a dataset whose annotations are the first one with these changes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = instances(folder / "data")
        content = data.load()
        first = content["annotations"][0]
        data.store({**content, "annotations": [{**first, **change} for change in changes]})
        start = time.process_time()
        run(data, folder)
        return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
