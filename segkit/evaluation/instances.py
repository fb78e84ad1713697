"""Box and mask AP during training, and the export of instance predictions."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import detectron2.utils.comm as comm

from segkit.data.dataset import Record
from segkit.evaluation.base import ImageEvaluator, is_visible, merge_metrics
from segkit.evaluation.predictions import build_coco_results
from segkit.formats.coco import ImageEntries, read_annotation_columns, read_result_columns
from segkit.metrics import AveragePrecision
from segkit.scoring.counts_file import save_evaluation
from segkit.utils import files
from segkit.utils.leftovers import choose_name, remove_leftovers

RESULTS, GROUND_TRUTH = "coco_instances_results.json", "instances_gt.json"


class InstanceEvaluator(ImageEvaluator):
    """Box and mask AP.

    It writes `coco_instances_results.json`, `instances_gt.json` for datasets without such a JSON, and
    `instances_counts.npz` for `segkit compare`. Neither JSON is kept in memory: each process writes its part to a
    temporary file in output_dir, and the main process joins the parts in the order of the dataset. Without a shared
    file system, the parts are sent to it. Constructor and methods: see `ImageEvaluator`.
    """

    needs = "instances"

    def reset(self) -> None:
        """See base class."""
        self._boxes = AveragePrecision(self.dataset.categories, ("bbox",))
        kinds = ("segm", "boundary") if self.options.boundary else ("segm",)
        self._masks = AveragePrecision(self.dataset.categories, kinds)
        self._has_masks = True
        self._drop_parts()
        names = (RESULTS, GROUND_TRUTH) if self.dataset.instances_json is None else (RESULTS,)
        self._parts = {name: _Part(self.output_dir) for name in names if self.options.export}

    def process_image(self, record: Record, output: dict[str, Any]) -> None:
        """See base class."""
        image_id, size_hw = record["image_id"], (record["height"], record["width"])
        ground_truth = self.ground_truth.read_annotations(record)
        results = build_coco_results(output, image_id, size_hw, self.dataset.categories)
        self._has_masks = self._has_masks and all("segmentation" in entry for entry in [*results, *ground_truth])
        gt_entries = [ImageEntries(ground_truth, size_hw, f"image {image_id!r}, ground truth")]
        result_entries = [ImageEntries(results, size_hw, f"image {image_id!r}, results")]
        for metric in (self._boxes, *([self._masks] if self._has_masks else ())):
            gt_columns = read_annotation_columns(gt_entries, metric.fields, metric.categories)
            result_columns = read_result_columns(result_entries, metric.fields, metric.categories)
            metric.update(image_id, size_hw, gt_columns, result_columns)
        if RESULTS in self._parts:
            self._parts[RESULTS].add(image_id, results)
        if GROUND_TRUTH in self._parts:
            self._parts[GROUND_TRUTH].add(image_id, [{**entry, "image_id": image_id} for entry in ground_truth])

    def evaluate(self) -> dict[str, Any] | None:
        """See base class."""
        try:
            return super().evaluate()
        finally:
            comm.synchronize()  # the main process has read the parts, or failed
            self._drop_parts()

    def shard(self) -> Any:
        """See base class."""
        own = {name: part.closed() for name, part in self._parts.items()}
        everyone = comm.all_gather({name: (part.path, part.size) for name, part in own.items()})
        # Which files the main process sees, in the order of processes; what other processes see does not matter.
        seen = comm.all_gather([{name: is_visible(*file) for name, file in parts.items()} for parts in everyone])[0]
        mine = seen[comm.get_rank()]
        parts = {
            name: part if mine[name] else part._replace(content=part.path.read_bytes()) for name, part in own.items()
        }
        return self._boxes, self._masks if self._has_masks else None, parts

    def finish(self, shards: list[Any]) -> dict[str, Any]:
        """See base class."""
        for name in self._parts:
            self._write(name, [parts[name] for _, _, parts in shards])
        boxes, masks = zip(*((boxes, masks) for boxes, masks, _ in shards), strict=True)
        metric: AveragePrecision = merge_metrics(boxes)
        if all(part is not None for part in masks):
            metric.add_iou_types(merge_metrics(masks))
        if self.options.export:
            save_evaluation(self.output_dir, "instances", metric)
        return metric.compute()  # ranks images by id, as pycocotools does

    def _write(self, name: str, parts: list[_WrittenPart]) -> None:
        """Join the parts in the order of the dataset; an image in two parts is taken from the last."""
        part_by_image = {image_id: part for part in parts for image_id in part.places}
        records = [record for record in self.dataset.records if record["image_id"] in part_by_image]
        lines = (line for record in records for line in part_by_image[record["image_id"]].lines(record["image_id"]))
        with files.replacing(self.output_dir / name) as path, path.open("wb") as file:
            if name == RESULTS:
                file.writelines(_json_list(lines))
                return
            # Ids start at 1: for pycocotools' matching, 0 means "no match".
            numbered = (b'{"id": %d, %s' % (i, line[1:]) for i, line in enumerate(lines, 1))
            images = [self.dataset.build_image_entry(record) for record in records]
            things = [entry for entry in self.dataset.categories.to_coco() if entry["isthing"]]
            file.write(b'{"images": %s, "annotations": ' % _encoded(images))
            file.writelines(_json_list(numbered))
            file.write(b', "categories": %s}' % _encoded(things))

    def _drop_parts(self) -> None:
        for part in getattr(self, "_parts", {}).values():
            part.remove()


class _WrittenPart(NamedTuple):
    """A finished part, as it is sent to the main process.

    places: image_id -> (offset, length) in bytes. content: the file's bytes if the main process does not see the file.
    """

    path: Path
    places: dict[Any, tuple[int, int]]
    content: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return sum(length for _, length in self.places.values())

    def lines(self, image_id: Any) -> list[bytes]:
        """The entries of an image, a JSON object each."""
        offset, length = self.places[image_id]
        if self.content is not None:
            return self.content[offset : offset + length].splitlines()
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length).splitlines()


class _Part:
    """One process's entries, a line each, in a temporary file that is removed with this object at the latest."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        self.path = folder / choose_name()
        self._file: IO[bytes] = self.path.open("xb")
        self._places: dict[Any, tuple[int, int]] = {}
        self.remove = weakref.finalize(self, _remove, self._file, self.path, os.getpid())

    def add(self, image_id: Any, entries: list[Any]) -> None:
        offset = self._file.tell()
        with files.convert_write_errors(self.path.parent):
            self._file.writelines(_encoded(entry) + b"\n" for entry in entries)
        self._places[image_id] = offset, self._file.tell() - offset

    def closed(self) -> _WrittenPart:
        with files.convert_write_errors(self.path.parent):
            self._file.close()
        return _WrittenPart(self.path, self._places)


def _remove(file: IO[bytes], path: Path, owner: int) -> None:
    if os.getpid() == owner:  # not a forked process, which ends too
        file.close()
        path.unlink(missing_ok=True)


def _encoded(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode("ascii")


def _json_list(lines: Iterable[bytes]) -> Iterator[bytes]:
    yield b"["
    for index, line in enumerate(lines):
        yield line if index == 0 else b", " + line
    yield b"]"
