"""Dice and NSD over whole volumes during training, and the export of predicted volumes as NIfTI."""

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
from segkit.metrics.surface_elements import import_distance_transform
from segkit.metrics.volume_scores import VolumeScores
from segkit.structures import PanopticSegmentation
from segkit.utils.errors import ConfigError
from segkit.utils.files import dump_json
from segkit.utils.text import abbreviate

BACKGROUND = 0  # row of the background in the categories: it has the lowest category id
VOID = -1

logger = logging.getLogger(__name__)

Slices = dict[int, tuple[bytes, bytes]]  # index in the volume -> rows of ground truth and prediction, compressed


class VolumeEvaluator(ImageEvaluator):
    """Dice per class, and NSD if the dataset has a tolerance.

    It writes `volumes/<volume>.nii.gz`, the prediction on the grid of the image, and `volume_dice.json` and
    `volume_nsd.json`, the metrics of each volume. The prediction is the panoptic map, with void as background; if the
    dataset has no things, it is the argmax of the semantic head. Slices that the dataset leaves out (`keep_empty`) are
    written as background and not counted by Dice; for NSD they are background.

    A process completes the volumes of which it has all slices: it measures NSD and writes them. The main process
    completes volumes whose slices are on several processes. A volume that lacks slices at the end has no NSD and is not
    written, and its file of an earlier run is removed.
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
        self._row_type = np.min_scalar_type(-len(category_ids))  # with a sign, for VOID
        if reader.tolerance_mm is not None:
            import_distance_transform()

    def reset(self) -> None:
        """See base class."""
        names = [category.name for category in self.dataset.categories.categories]
        self.metric = VolumeScores(names, self._reader.tolerance_mm, BACKGROUND, VOID)
        self._slices: dict[str, Slices] = {}  # of volumes of which this process lacks slices
        self._completed: set[str] = set()

    def process_image(self, record: Record, output: dict[str, Any]) -> None:
        """See base class."""
        volume, index = self._reader.locate_slice(self._images[record["image_id"]])
        ground_truth = self._rows(self.ground_truth.read_segmentation(record), void=VOID)
        predicted = self._predicted(output)
        self.metric.dice.update(volume.name, index, ground_truth, predicted)
        if self._needs_volumes:
            packed = [zlib.compress(rows.astype(self._row_type).tobytes(), 1) for rows in (ground_truth, predicted)]
            self._add_slices(volume.name, {index: (packed[0], packed[1])})

    def shard(self) -> Any:
        """See base class."""
        return self.metric, self._slices, self._completed

    def finish(self, shards: list[Any]) -> dict[str, Any]:
        """See base class."""
        self.reset()
        for metric, slices, completed in shards:
            self.metric.merge(metric)
            self._completed |= completed
            for name in slices:
                self._add_slices(name, slices[name])
        lacking = sorted(self._images_by_volume.keys() - self._completed) if self._needs_volumes else []
        if lacking:
            loss = "" if self.metric.nsd is None else "have no NSD"
            loss = " and ".join(filter(None, (loss, "are not written" if self.options.export else "")))
            logger.warning("%d volumes lack slices and %s: %s", len(lacking), loss, abbreviate(lacking))
        if self.options.export:
            for name in lacking:
                (self.folder / f"{name}.nii.gz").unlink(missing_ok=True)
            dump_json(self.output_dir / "volume_dice.json", self.metric.dice.per_volume())
            if self.metric.nsd is not None:
                dump_json(self.output_dir / "volume_nsd.json", self.metric.nsd.per_volume())
        return {self.task: self.metric.compute()}

    @property
    def _needs_volumes(self) -> bool:
        """Whether slices are kept until their volume is complete."""
        return self.options.export or self.metric.nsd is not None

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
        """Keep the slices, or measure and write the volume if it is complete now."""
        gathered = self._slices.setdefault(name, {})
        gathered.update(slices)
        if len(gathered) == len(self._images_by_volume[name]):
            self._complete(name, self._slices.pop(name))
            self._completed.add(name)

    def _complete(self, name: str, slices: Slices) -> None:
        image, axis = self._images_by_volume[name][0], self._reader.axis
        volume, _ = self._reader.locate_slice(image)
        shape = volume.size_xyz[axis], *image.size_hw
        ground_truth, prediction = (np.full(shape, BACKGROUND, dtype=self._row_type) for _ in range(2))
        for index, packed in slices.items():
            for rows, content in zip((ground_truth, prediction), packed, strict=True):
                rows[index] = np.frombuffer(zlib.decompress(content), self._row_type).reshape(image.size_hw)
        if self.metric.nsd is not None:
            right, up = (spacing for other, spacing in enumerate(volume.spacing_mm) if other != axis)
            self.metric.nsd.update(name, ground_truth, prediction, (volume.spacing_mm[axis], up, right))
        if self.options.export:
            category_ids = self._category_ids.take(prediction)
            write_prediction(self.folder / f"{name}.nii.gz", [*category_ids], like=volume.image_path, axis=axis)
