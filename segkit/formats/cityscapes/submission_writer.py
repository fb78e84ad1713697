"""Predictions for Cityscapes' benchmark: instances, semantic and panoptic, in the names and ids that its scripts take.

Category ids are the regular label ids, not train ids. The scripts are cityscapesscripts'
evaluation/evalInstanceLevelSemanticLabeling.py, evalPixelLevelSemanticLabeling.py and evalPanopticSemanticLabeling.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats import base, png
from segkit.formats.archives import list_files, write_archive
from segkit.formats.base import ALL_PREDICTIONS, DatasetImage, UnfitImageError
from segkit.formats.cityscapes.label_pngs import CATEGORIES, compute_instance_values, encode_label_ids
from segkit.formats.cityscapes.results import write_results
from segkit.formats.cityscapes.writer import CityscapesWriter, list_merged_segments
from segkit.formats.coco import PanopticWriter
from segkit.formats.derive import relabel
from segkit.formats.regions import iterate_regions
from segkit.structures import CategorySet, PanopticSegmentation, Segment
from segkit.utils.errors import ConfigError
from segkit.utils.json_fields import Location

TASKS = INSTANCES, SEMANTIC, PANOPTIC = ("instances", "semantic", "panoptic")
NAME = re.compile(r"[\w.-]+?_\d+_\d+", re.ASCII)
NO_SCORE = 1.0  # of an instance without a score
Instance = tuple[int, float, NDArray[np.bool_], tuple[int, int]]


class CityscapesSubmissionWriter(CityscapesWriter):
    """Writes a folder and a .zip for each task: instances, semantic, panoptic.

    instances/NAME_pred.txt and its masks; semantic/NAME.png of label ids;
    panoptic/cityscapes_panoptic_<split>.json and the folder of this name. NAME is city_sequence_frame, from the image's
    file name, and the image_id.

    Args:
        root: Folder to write to.
        categories: Categories of the predictions. Their names, not their ids, select Cityscapes' labels.
        split: "test" or "val".
        tasks: The tasks to write.

    Raises:
        ConfigError: A task is unknown.
        DatasetError: No category has a name of Cityscapes', or `split` leaves the folder.
    """

    prediction_options = ALL_PREDICTIONS

    def __init__(
        self, root: str | Path, categories: CategorySet, *, split: str = "test", tasks: Sequence[str] = TASKS
    ) -> None:
        super().__init__(root, categories, split=split)
        if not isinstance(tasks, (list, tuple)) or not tasks or not {*tasks} <= {*TASKS}:
            raise ConfigError(f"expected tasks to be a list of {', '.join(TASKS)}, got {tasks!r}")
        self._tasks = [task for task in TASKS if task in tasks]
        stem = self.root / PANOPTIC / f"cityscapes_panoptic_{split}"
        self._panoptic = PanopticWriter(stem.with_name(f"{stem.name}.json"), stem, CATEGORIES)

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """See base class; lost are other classes, merged segments, crowds of instances, and segments without pixels."""
        name = self._get_name(image)
        areas_px = base.compute_segment_areas(image, segmentation, self.categories)
        labelled, losses = self._convert(segmentation)
        try:
            values = compute_instance_values(labelled.segments)
        except ValueError as error:
            raise UnfitImageError(str(error), where=Location(self.root, image.image_id)) from None
        if INSTANCES in self._tasks:
            instances = self._iterate_instances(segmentation, annotations)
            write_results(self.root / INSTANCES, name, image.size_hw, instances)
        if SEMANTIC in self._tasks:
            png.write(self.root / SEMANTIC / f"{name}.png", encode_label_ids(labelled))
        if PANOPTIC in self._tasks:
            self._panoptic.add(name, f"{name}_panoptic.png", _number(labelled, values))
            losses += list_merged_segments(labelled.segments, values, areas_px)
        self._names[name] = None
        return [*losses, *base.list_lost_keys(annotations, (base.SCORE,))]

    def finish(self) -> None:
        """Write the panoptic JSON and the archives."""
        if PANOPTIC in self._tasks:
            self._panoptic.finish()
        for task in self._tasks:
            write_archive(self.root / f"{task}.zip", list_files(self.root / task))

    def _get_stem(self, image: DatasetImage) -> str:
        """city_sequence_frame, which the scripts look for."""
        match = NAME.match(super()._get_stem(image))
        if match is None:
            problem = f"expected a file_name that begins with city_sequence_frame, got {image.file_name!r}"
            raise UnfitImageError(problem, where=Location(self.root, image.image_id), remedy="rename the image")
        return match[0]

    def _iterate_instances(
        self, segmentation: PanopticSegmentation, annotations: Sequence[dict[str, Any]] | None
    ) -> Iterator[Instance]:
        """The label id, score, crop and corner of each thing that is no crowd and has a label."""
        for region in iterate_regions(segmentation, annotations):
            label = self._labels.get(self.categories[region.category_id].name)
            if label is not None and label.isthing and region.isthing and not region.iscrowd:
                score = NO_SCORE if region.score is None else region.score
                yield label.category_id, score, region.crop, region.corner_xy


def _number(labelled: PanopticSegmentation, values: dict[int, int]) -> PanopticSegmentation:
    """The segmentation with the benchmark's ids: label id * 1000 + number, or the label id of stuff."""
    segments: dict[int, Segment] = {}
    for segment in labelled.segments:
        value = values[segment.segment_id]
        segments.setdefault(value, replace(segment, segment_id=value))
    return PanopticSegmentation(relabel(labelled.segment_ids, values, np.int32), tuple(segments.values()))
