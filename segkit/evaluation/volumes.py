"""Dice over whole volumes during training, and the export of predicted volumes as NIfTI."""

from __future__ import annotations

import logging
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.data.dataset import Record
from segkit.data.loaders.readers import get_common_reader
from segkit.evaluation.base import ImageEvaluator
from segkit.evaluation.predictions import get_panoptic_prediction
from segkit.evaluation.semantic import argmax_channels
from segkit.formats.base import DatasetImage
from segkit.formats.decathlon import DecathlonReader, write_prediction
from segkit.formats.derive import relabel
from segkit.metrics.volume_dice import VolumeDice
from segkit.structures import PanopticSegmentation
from segkit.utils.errors import ConfigError
from segkit.utils.files import dump_json
from segkit.utils.text import abbreviate

BACKGROUND = 0  # row of the background in the categories: it has the lowest category id
VOID = -1

logger = logging.getLogger(__name__)

Slices = dict[int, bytes]  # index in the volume -> its map of category ids, compressed


class VolumeEvaluator(ImageEvaluator):
    """Dice per class.

    It writes `volumes/<volume>.nii.gz`, the prediction on the grid of the image, and `volume_dice.json`, Dice of each
    volume. The prediction is the panoptic map, with void as background; if the dataset has no things, it is the argmax
    of the semantic head. Slices that the dataset leaves out (`keep_empty`) are written as background and not counted.

    A process writes the volumes of which it has all slices; the main process writes volumes whose slices are on several
    processes. A volume that lacks slices at the end is not written, and its file of an earlier run is removed.
    Constructor and methods: see `ImageEvaluator`.
    """

    needs, task, folder_name = "sem_seg", "volumes", "volumes"

    def prepare(self) -> None:
        """See base class."""
        dataset = self.dataset
        if dataset.categories.things:
            self.needs = "panoptic_seg"
        reader, self._images = get_common_reader(dataset)
        if not isinstance(reader, DecathlonReader):
            problem = f"the images of {dataset.name} are no slices of volumes, which the metric volume_dice needs"
            raise ConfigError(problem, remedy="register its volumes with the format `decathlon`")
        self._reader = reader
        self._images_by_volume: dict[str, list[DatasetImage]] = {}
        for image_id in self.ground_truth.records:
            volume, _ = self._reader.locate_slice(self._images[image_id])
            self._images_by_volume.setdefault(volume.name, []).append(self._images[image_id])
        category_ids = [category.category_id for category in dataset.categories.categories]  # ascending
        self._row_by_category = {category_id: row for row, category_id in enumerate(category_ids)}
        self._category_ids = np.array(category_ids, dtype=np.min_scalar_type(category_ids[-1]))

    def reset(self) -> None:
        """See base class."""
        names = [category.name for category in self.dataset.categories.categories]
        self.metric = VolumeDice(names, BACKGROUND, VOID)
        self._slices: dict[str, Slices] = {}  # of volumes of which this process lacks slices
        self._written: set[str] = set()

    def process_image(self, record: Record, output: dict[str, Any]) -> None:
        """See base class."""
        volume, index = self._reader.locate_slice(self._images[record["image_id"]])
        ground_truth = self._rows(self.ground_truth.read_segmentation(record), void=VOID)
        predicted = self._predicted(output)
        self.metric.update(volume.name, index, ground_truth, predicted)
        if self.options.export:
            packed = zlib.compress(self._category_ids.take(predicted).tobytes(), 1)
            self._add_slices(volume.name, {index: packed})

    def shard(self) -> Any:
        """See base class."""
        return self.metric, self._slices, self._written

    def finish(self, shards: list[Any]) -> dict[str, Any]:
        """See base class."""
        self.reset()
        for metric, slices, written in shards:
            self.metric.merge(metric)
            self._written |= written
            for name in slices:
                self._add_slices(name, slices[name])
        if self.options.export:
            lacking = sorted(self._images_by_volume.keys() - self._written)
            for name in lacking:
                (self.folder / f"{name}.nii.gz").unlink(missing_ok=True)
            if lacking:
                logger.warning("%d volumes lack slices and are not written: %s", len(lacking), abbreviate(lacking))
            dump_json(self.output_dir / "volume_dice.json", self.metric.per_volume())
        return {self.task: self.metric.compute()}

    def _predicted(self, output: dict[str, Any]) -> NDArray[np.integer]:
        """(H, W) rows of the categories."""
        if self.needs == "panoptic_seg":
            return self._rows(get_panoptic_prediction(output, self.dataset.categories), void=BACKGROUND)
        space, logits = self.ground_truth.space, output["sem_seg"]
        if len(logits) != len(space.names):
            raise ValueError(
                f"sem_seg must have {len(space.names)} channels, {abbreviate(space.names)}, got {len(logits)}"
            )
        rows = np.full(len(space.names), BACKGROUND)  # also of the channel of things, which no pixel has
        for category_id, channel in space.channel_by_category.items():
            rows[channel] = self._row_by_category[category_id]
        return rows.take(argmax_channels(logits).cpu().numpy())

    def _rows(self, segmentation: PanopticSegmentation, void: int) -> NDArray[np.int32]:
        """(H, W) rows of the categories, `void` where the map is void."""
        rows = {s.segment_id: self._row_by_category[s.category_id] - void for s in segmentation.segments}
        row_map: NDArray[np.int32] = relabel(segmentation.segment_ids, rows, np.int32)
        return row_map + void

    def _add_slices(self, name: str, slices: Slices) -> None:
        """Keep the slices, or write the volume if it is complete now."""
        gathered = self._slices.setdefault(name, {})
        gathered.update(slices)
        if len(gathered) == len(self._images_by_volume[name]):
            self._write(name, self._slices.pop(name))
            self._written.add(name)

    def _write(self, name: str, slices: Slices) -> None:
        image, axis = self._images_by_volume[name][0], self._reader.axis
        volume, _ = self._reader.locate_slice(image)
        category_ids = np.zeros((volume.size_xyz[axis], *image.size_hw), dtype=self._category_ids.dtype)
        for index, packed in slices.items():
            category_ids[index] = np.frombuffer(zlib.decompress(packed), category_ids.dtype).reshape(image.size_hw)
        write_prediction(self.folder / f"{name}.nii.gz", [*category_ids], like=volume.image_path, axis=axis)
