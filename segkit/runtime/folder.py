"""`segkit predict`: images in, overlays and COCO files out. The dataset is not needed.

Images are read ahead and written behind by threads, while the network computes.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from segkit.formats import coco, png
from segkit.formats.pixel_limit import without_pixel_limit
from segkit.runtime.image_inputs import find_root
from segkit.runtime.image_model import OUTPUTS, ImageModel, Output
from segkit.runtime.output_names import choose_output_names
from segkit.runtime.prediction import JSON, LABELS, OVERLAYS, PANOPTIC, Prediction
from segkit.runtime.records import PredictionRecords
from segkit.runtime.reduction import reduce_prediction
from segkit.runtime.run_description import describe_run
from segkit.runtime.selection import find_category_ids, select_segments
from segkit.runtime.tiling import DEFAULT_OVERLAP_PX
from segkit.structures import ImageId, compute_areas_px
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.progress import progress_bar

PNG_FOLDERS = (OVERLAYS, PANOPTIC, LABELS)
MASKS = "masks"
SAVED = (OVERLAYS, MASKS, JSON)
READERS = WRITERS = 2  # threads
# Of images in tiles, larger overlays are drawn with fewer pixels, so that drawing takes little memory.
MAX_OVERLAY_PX, REDUCED_OVERLAY_PX = 2**25, 2**22

log = logging.getLogger(__name__)


def predict(
    model: ImageModel,
    images: Sequence[str | Path],
    output: str | Path,
    drawing: Mapping[str, Any] | None = None,
    root: str | Path | None = None,
    on_unreadable: Callable[[DatasetError], object] | None = None,
    **options: Any,
) -> list[Path]:
    """Predict images and write the results below `output`.

    Args:
        model: the model.
        images: see `FolderJob`.
        output: see `FolderJob`.
        drawing: see `FolderJob`.
        root: see `FolderJob`.
        on_unreadable: see `FolderJob.run`.
        options: other keyword arguments of `FolderJob`.

    Returns:
        The files and folders that were written.

    Raises:
        ConfigError: see `FolderJob.run`.
        DatasetError: see `FolderJob` and `FolderJob.run`.
    """
    job = FolderJob(model.description, images, output, drawing, root, **options)
    return job.run(model, on_unreadable)


def choose_outputs(given: Collection[Output], save: Collection[str]) -> list[Output]:
    """Choose what files need of a model that gives more: the rest costs time and memory.

    Args:
        given: `ImageModel.outputs`.
        save: what is written, of `SAVED`.

    Returns:
        The outputs: no map of classes beside a panoptic map or instances; instances beside a panoptic map for JSONs.
    """
    outputs: list[Output] = [*OUTPUTS]
    if {*given} & {"panoptic", "instances"}:
        outputs.remove("semantic")
    if "panoptic" in given and JSON not in save:
        outputs.remove("instances")
    return outputs


class FolderJob:
    """Images and the folder of their results, checked before the model is loaded.

    `run` writes overlays/*.png, and what the model gives: instances.json (COCO, RLE, with scores); panoptic.json and
    panoptic/*.png; or, for a model with a semantic output only, labels/*.png, labels/classes.json (the names of the
    labels) and semantic.json, which names the PNG of each image. The `images` tables of the JSONs map image ids to file
    names. PNGs have the path of their image below `root`, see `choose_output_names`.

    Each image has a line in records.jsonl when its files are complete. If the process is ended, an equal job goes on
    with the others. Memory does not grow with the number of images, but by some bytes for each.

    Args:
        description: of the model, see `ImageModel.description`.
        images: image files.
        output: folder to write to.
        drawing: keyword arguments of `Prediction.plot`: alpha, names, scores.
        root: folder to which the file names in the JSONs are relative; None for the one that all images share.
        batch_size: images that the network takes at once, see `ImageModel`.
        overwrite: results of another run in the folder are replaced.
        tile: side of the tiles that images are cut into, in pixels; 0: none, see `ImageModel`.
        overlap: pixels that neighbouring tiles share.
        min_score: things and instances of a lower score are left out everywhere, [0, 1]; None: none, but overlays of a
            model that gives instances alone draw those that `Prediction.plot` draws by default.
        classes: names of the classes that are written; empty: all.
        image_ids: id of each image in the JSONs; None: 1..N.
        file_names: name of each image in the JSONs; None: its path relative to `root`.
        sizes_hw: (height, width) that each image must have, or None for any; None: any.
        shard: (I, N), I in 1..N: every Nth image from the Ith on; the process that ends last writes the JSONs.
        save: what is written, of `SAVED`. JSONs alone cost no drawing and no PNGs.

    Raises:
        DatasetError: the folder has results of another run, or cannot be read.
    """

    def __init__(
        self,
        description: Mapping[str, Any],
        images: Sequence[str | Path],
        output: str | Path,
        drawing: Mapping[str, Any] | None = None,
        root: str | Path | None = None,
        *,
        batch_size: int = 1,
        overwrite: bool = False,
        tile: int = 0,
        overlap: int = DEFAULT_OVERLAP_PX,
        min_score: float | None = None,
        classes: Collection[str] = (),
        image_ids: Sequence[ImageId] | None = None,
        file_names: Sequence[str] | None = None,
        sizes_hw: Sequence[tuple[int, int] | None] | None = None,
        shard: tuple[int, int] = (1, 1),
        save: Collection[str] = SAVED,
    ) -> None:
        self.paths, self.root = [Path(image) for image in images], Path(root or find_root(map(str, images)))
        relative = (Path(os.path.relpath(path, self.root)).as_posix() for path in self.paths)
        self.file_names, self.image_ids = [*(file_names or relative)], image_ids or range(1, len(self.paths) + 1)
        self.sizes_hw = sizes_hw
        self.output, self.drawing = Path(output), dict(drawing or {})
        self.batch_size, self.tile, self.overlap = batch_size, tile, overlap
        self.min_score, self.classes = min_score, sorted({*classes})
        self.save = [name for name in SAVED if name in save]
        self.plot_options = self.drawing if min_score is None else {**self.drawing, "min_score": min_score}
        self.png_names = choose_output_names(self.file_names)
        self.seconds = {"reading": 0.0, "network": 0.0, "writing": 0.0}
        names = [*map(os.path.abspath, self.paths), *self.file_names, *map(repr, image_ids or ())]
        run = describe_run(
            description,
            names,
            drawing=self.drawing,
            tiles=[tile, overlap] if tile else None,
            score_threshold=min_score,
            classes=self.classes or None,
            save=self.save,
        )
        self.records = PredictionRecords(output, run, len(self.paths), overwrite=overwrite, shard=shard)
        self.shard = shard

    def run(self, model: ImageModel, on_unreadable: Callable[[DatasetError], object] | None = None) -> list[Path]:
        """Predict the images that have no record, and write the JSONs of all.

        Args:
            model: the model.
            on_unreadable: takes the error of an image that cannot be read, and the others go on; None raises it. The
                error of an only image is always raised.

        Returns:
            The files and folders that were written.

        Raises:
            ConfigError: the model lacks a class, or gives neither a panoptic map nor masks nor semantic classes, or
                nothing of `save`.
            DatasetError: an image cannot be read, see `on_unreadable`, or none; or an output cannot be written.
        """
        self.model, records = model, self.records
        category_ids = find_category_ids(self.classes, model.categories) if self.classes else None
        self.select = partial(select_segments, min_score=self.min_score or 0.0, category_ids=category_ids)
        if len(records):
            log.info("%d of %d images are done already", len(records), len(self.paths))
        records.categories, records.class_names = model.categories, [*model.space.names]
        try:
            self._predict(on_unreadable)
            if self.shard[1] > 1:
                records.reload()
                if records.list_missing():
                    log.warning("%s; the last shard writes the JSONs", records.describe_missing())
                    return [records.path] if records.path.is_file() else []
            if not len(records):
                problem = f"expected images that can be read, got none among {len(self.paths)}"
                raise DatasetError(problem, where=self.root)
            tables = records.write_tables(model.categories)
        finally:
            records.close()
        written = [self.output / OVERLAYS] * (OVERLAYS in self.save) + tables
        if masks := next(iter(records)).get("masks"):
            written.append(self.output / masks)
        return written

    def _predict(self, on_unreadable: Callable[[DatasetError], object] | None) -> None:
        records, batch_size = self.records, self.batch_size
        shard, shards = self.shard
        positions = [position for position in range(shard - 1, len(self.paths), shards) if position not in records]
        pending: deque[tuple[int, Future[dict[str, Any]]]] = deque()
        outputs = choose_outputs(self.model.outputs, self.save)
        with (
            ThreadPoolExecutor(READERS) as readers,
            ThreadPoolExecutor(WRITERS) as writers,
            progress_bar("predicting") as show,
        ):
            readable = self._read(readers, positions, 2 * batch_size, on_unreadable)
            while batch := [*islice(readable, batch_size)]:
                started = time.perf_counter()
                files, pixels = [self.file_names[position] for position, _ in batch], [image for _, image in batch]
                predictions = self.model.predict_pixels(files, pixels, outputs, self.tile, self.overlap)
                self.seconds["network"] += time.perf_counter() - started
                for (position, _), prediction in zip(batch, predictions, strict=True):
                    pending.append((position, writers.submit(self._write, position, prediction)))
                while len(pending) > 2 * batch_size:
                    self._finish(*pending.popleft())
                show(len(records), len(self.paths))
            while pending:
                self._finish(*pending.popleft())
        total = sum(self.seconds.values()) or 1.0
        shares = ", ".join(f"{stage} {share / total:.0%}" for stage, share in self.seconds.items())
        log.info("share of the time, waiting for threads included: %s", shares)

    def _read(
        self,
        readers: ThreadPoolExecutor,
        positions: Sequence[int],
        ahead: int,
        on_unreadable: Callable[[DatasetError], object] | None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The pixels of the images that can be read; `ahead` images are read before they are asked for."""
        waiting = iter(positions)
        started: deque[tuple[int, Future[np.ndarray]]] = deque()

        def start(number: int) -> None:
            for position in islice(waiting, number):
                started.append((position, readers.submit(self._read_pixels, position)))

        start(ahead)
        while started:
            position, future = started.popleft()
            start(1)
            before = time.perf_counter()
            try:
                pixels = future.result()
            except DatasetError as error:
                if on_unreadable is None or len(self.paths) == 1:
                    for _, other in started:
                        other.cancel()
                    raise
                on_unreadable(error)
                if self.shard[1] > 1:
                    self.records.add_error(position, str(error))
                continue
            finally:
                self.seconds["reading"] += time.perf_counter() - before
            yield position, pixels

    def _read_pixels(self, position: int) -> np.ndarray:
        with without_pixel_limit(self.tile > 0):
            pixels = self.model.input.read(self.paths[position])
        expected = None if self.sizes_hw is None else self.sizes_hw[position]
        if expected and pixels.shape[:2] != expected:
            got, listed = (" x ".join(map(str, size)) for size in (pixels.shape[:2], expected))
            problem = f"the list says {listed} pixels (height x width), but the file has {got}"
            raise DatasetError(
                problem,
                where=self.paths[position],
                remedy="give the images that the list belongs to, not turned by EXIF",
            )
        return pixels

    def _finish(self, position: int, future: Future[dict[str, Any]]) -> None:
        before = time.perf_counter()
        self.records.add(position, future.result())
        self.seconds["writing"] += time.perf_counter() - before

    def _write(self, position: int, prediction: Prediction) -> dict[str, Any]:
        """Write the PNGs of an image; its record."""
        png_name, prediction = self.png_names[position], self.select(prediction)
        record = self._build_record(position, prediction) if JSON in self.save else {}
        if prediction.panoptic is None and prediction.instances is None and self.save == [JSON]:
            problem, remedy = "the model gives classes alone, which have no JSON", "save masks or overlays"
            raise ConfigError(problem, where="--save json", remedy=remedy)
        if MASKS in self.save:
            if prediction.panoptic is not None:
                record["masks"] = PANOPTIC
                coco.write_png(self.output / PANOPTIC / png_name, prediction.panoptic.segment_ids)
            elif prediction.instances is None and prediction.semantic is not None:
                record["masks"] = LABELS
                if "image" in record:
                    record["semantic"] = {"image_id": self.image_ids[position], "file_name": png_name}
                png.write_labels(self.output / LABELS / png_name, prediction.semantic)
        if OVERLAYS in self.save:
            if self.tile and math.prod(prediction.size_hw) > MAX_OVERLAY_PX:
                prediction = reduce_prediction(prediction, REDUCED_OVERLAY_PX)
            png.write_photo(self.output / OVERLAYS / png_name, np.asarray(prediction.plot(**self.plot_options)))
        return record

    def _build_record(self, position: int, prediction: Prediction) -> dict[str, Any]:
        """COCO's entries of an image."""
        content = prediction.to_coco(self.image_ids[position])
        record = {"image": content["image"]}
        if "instances" in content:
            areas_px = compute_areas_px(result["segmentation"] for result in content["instances"])
            columns = zip(content["instances"], areas_px, strict=True)
            record["instances"] = [{"iscrowd": 0, "area": float(area_px), **result} for result, area_px in columns]
        if "panoptic" in content:
            record["panoptic"] = {**content["panoptic"], "file_name": self.png_names[position]}
        return record
