"""Starting on COCO-sized instances (118,287 images, 860,001 polygons, about 450 MB of JSON): pycocotools' COCO(json),
segkit's first start, which also writes the cache, and its next ones.

Every start is made in a forked process of its own, which reports its time and the memory it took; `segkit` is
`load_reader_dataset`: it also sees that every image file exists, and makes Detectron2's records. At the end the records
of the first images are compared with those made without a cache.

    python benchmarks/annotation_cache.py [--images 118287] [--annotations 860001] [--repeats 3]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _memory import peak_mib
from detectron2.data.common import DatasetFromList
from pycocotools.coco import COCO

from segkit.data.dataset import Dataset
from segkit.data.loaders.readers import load_reader_dataset
from segkit.formats.cache import annotations as annotation_cache

SEED = 0
OUTLINES = 4096  # different polygons, each in many places of the file
POINTS = (4, 44)  # of a polygon
COMPARED = 500  # images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=118_287, help="default: %(default)s, as COCO's train2017")
    parser.add_argument("--annotations", type=int, default=860_001, help="default: %(default)s, as COCO's train2017")
    parser.add_argument("--repeats", type=int, default=3, help="of every start (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large, tiny = folder / "large", folder / "tiny"
        write_dataset(tiny, 2, 3)
        write_dataset(large, options.images, options.annotations)
        os.environ["SEGKIT_CACHE"] = str(folder / "cache")
        sizes = f"{options.images} images, {options.annotations} instances"
        print(
            f"{sizes}, {(large / 'instances.json').stat().st_size / 1e6:.0f} MB of JSON; every start in a new process"
        )
        works = {
            "pycocotools": load_pycocotools,
            "segkit, first start": first_start,
            "segkit, next start": load_segkit,
            "  and its DatasetFromList": load_and_serialize,
            "  and every annotation read": load_and_read_all,
        }
        measurements = {title: measure(work, large, tiny, options.repeats) for title, work in works.items()}
        second = measurements["segkit, next start"]
        for title, (seconds, peak) in measurements.items():
            print(
                f"{title:30} {seconds:7.2f} s = {seconds / second[0]:5.1f}x  {peak:7.0f} MiB = {peak / second[1]:5.1f}x"
            )
        cached = load_segkit(large).records[:COMPARED]
        annotation_cache.SMALLEST_BYTES = sys.maxsize  # no cache
        plain = load_segkit(large).records[:COMPARED]
        print(f"equal records on the first {COMPARED} images:", repr(plain) == repr(cached))


def measure(work: Callable[[Path], Any], large: Path, tiny: Path, repeats: int) -> tuple[float, float]:
    """Median seconds, and the largest peak in MiB."""
    seconds = multiprocessing.get_context("fork").Value("d")
    times, peaks = [], []
    for _ in range(repeats):
        peaks.append(peak_mib(timed, (work, large, seconds), (work, tiny, seconds)))
        times.append(seconds.value)
    return statistics.median(times), max(peaks)


def timed(work: Callable[[Path], Any], folder: Path, seconds: Any) -> None:
    start = time.perf_counter()
    result = work(folder)
    seconds.value = time.perf_counter() - start
    del result


def load_pycocotools(folder: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(folder / "instances.json"))


def first_start(folder: Path) -> Dataset:
    shutil.rmtree(os.environ["SEGKIT_CACHE"], ignore_errors=True)
    return load_segkit(folder)


def load_segkit(folder: Path) -> Dataset:
    options = {"json": folder / "instances.json", "images": folder / "images"}
    return load_reader_dataset("benchmark", "coco-instances", options)


def load_and_serialize(folder: Path) -> DatasetFromList:
    return DatasetFromList(load_segkit(folder).records, copy=False)


def load_and_read_all(folder: Path) -> int:
    return sum(len(annotation) for record in load_segkit(folder).records for annotation in record["annotations"])


def write_dataset(folder: Path, images: int, annotations: int) -> None:
    """An instances JSON with COCO's kind of numbers, and image files without content."""
    rng = np.random.default_rng(SEED)
    (folder / "images").mkdir(parents=True)
    outlines = [outline(rng) for _ in range(min(OUTLINES, annotations))]
    owners = np.sort(rng.integers(1, images + 1, annotations)).tolist()
    rng.shuffle(owners)  # as in COCO, an image's annotations do not lie side by side
    picks, classes = rng.integers(0, len(outlines), annotations).tolist(), rng.integers(1, 81, annotations).tolist()
    with (folder / "instances.json").open("w") as file:
        entries = ({"id": i, "file_name": f"{i:012}.jpg", "height": 480, "width": 640} for i in range(1, images + 1))
        file.write('{"images": [' + ", ".join(map(json.dumps, entries)) + '], "categories": ')
        file.write(json.dumps([{"id": i, "name": f"class {i}", "supercategory": "thing"} for i in range(1, 81)]))
        file.write(', "annotations": [')
        for index, (owner, pick, category_id) in enumerate(zip(owners, picks, classes, strict=True)):
            ids = f'"id": {index + 1}, "image_id": {owner}, "category_id": {category_id}, "iscrowd": 0'
            file.write(f"{', ' if index else ''}{{{outlines[pick]}, {ids}}}")
        file.write("]}")
    for index in range(1, images + 1):
        (folder / "images" / f"{index:012}.jpg").touch()


def outline(rng: np.random.Generator) -> str:
    points = np.round(rng.uniform(0, 640, (int(rng.integers(*POINTS)), 2)), 2)
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    box = [left, top, right - left, bottom - top]
    outline = {"segmentation": [points.ravel().tolist()], "area": float(box[2] * box[3] / 2), "bbox": box}
    return json.dumps(outline)[1:-1]


if __name__ == "__main__":
    main()
