"""Predictions in COCO's formats: the results list, the panoptic JSON with scores, and archives for its server.

Names and keys of the archives: https://cocodataset.org/#upload and #format-results.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segkit.formats import base
from segkit.formats.archives import list_files, write_archive
from segkit.formats.base import ALL_PREDICTIONS, DatasetImage, DatasetWriter
from segkit.formats.coco.panoptic_writer import PanopticWriter
from segkit.formats.coco.writers import IMAGES, CocoPanopticWriter
from segkit.formats.derive import build_coco_annotations
from segkit.formats.image_files import build_image_path
from segkit.formats.outlines import build_polygons
from segkit.structures import CategorySet, PanopticSegmentation, rle_to_mask
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.files import dump_json
from segkit.utils.json_fields import Entry, Location, check_inside

RESULTS, IMAGE_INFO = "results.json", "image_info.json"
NO_SCORE = 1.0  # of an instance without a score, such as ground truth
TASKS = DETECTIONS, PANOPTIC = ("detections", "panoptic")
PLAIN_NAME = re.compile(r"[\w.-]+", re.ASCII)


class CocoResultsWriter(DatasetWriter):
    """Writes root/results.json, COCO's results list, and root/image_info.json with the images and categories.

    A result is a thing: its whole mask and its score, 1 if it has none. It has no box: with one, pycocotools would take
    the area of the box for that of the mask.

    Args:
        root: the folder to write to.
        categories: of the predictions.
        polygons: write polygons instead of RLE: one for each piece, in which a line without width leads to each hole.
            pycocotools draws the same pixels from them, but its `loadRes` takes RLE only.

    Raises:
        DatasetError: no category is a thing.
    """

    prediction_options = ALL_PREDICTIONS

    def __init__(self, root: str | Path, categories: CategorySet, *, polygons: bool = False) -> None:
        super().__init__(root, categories)
        base.check_has_things(categories, root)
        self._polygons = polygons
        self._images: dict[Any, Entry] = {}
        self.results: list[Entry] = []

    def image_path(self, image: DatasetImage) -> Path:
        """See base class."""
        return build_image_path(self.root / IMAGES, image)

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """See base class; lost are stuff, crowds, segments without pixels, and further keys."""
        where = Location(self.root / IMAGE_INFO, image.image_id)
        check_inside(image.file_name, "file_name", where)
        if image.image_id in self._images:
            raise DatasetError("an image with this id was added before", where=where)
        areas_px = base.compute_segment_areas(image, segmentation, self.categories)
        things, losses = list_results(image, segmentation, annotations)
        if self._polygons:
            things = [{**x, "segmentation": build_polygons(rle_to_mask(x["segmentation"]))} for x in things]
        height, width = image.size_hw
        own = {"id": image.image_id, "file_name": image.file_name, "height": height, "width": width}
        self._images[image.image_id] = own
        self.results += things
        stuff = sum(not s.isthing for s in segmentation.segments if s.segment_id in areas_px)
        losses += [f"{stuff} segments of stuff cannot be held"] if stuff else []
        return [*losses, *base.list_empty_segments(segmentation.segments, areas_px)]

    def finish(self) -> None:
        """See base class."""
        tables = {"images": [*self._images.values()], "categories": self.categories.to_coco()}
        dump_json(self.root / IMAGE_INFO, tables)
        dump_json(self.root / RESULTS, self.results)


def list_results(
    image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None
) -> tuple[list[Entry], list[str]]:
    """List the things of an image as COCO results; crowds are left out.

    Args:
        image: the image.
        segmentation: with category ids of the dataset.
        annotations: COCO annotations with the whole masks, or None.

    Returns:
        {image_id, category_id, segmentation (compressed RLE), score} each, and a line on each kind of loss.
    """
    things = annotations
    if things is None:
        things = build_coco_annotations(image.image_id, segmentation, with_scores=True)
    results: list[Entry] = [
        {
            "image_id": image.image_id,
            "category_id": thing["category_id"],
            "segmentation": thing["segmentation"],
            "score": thing.get("score", NO_SCORE),
        }
        for thing in things
        if not thing.get("iscrowd", 0)
    ]
    crowds = len(things) - len(results)
    losses = [f"{crowds} crowds cannot be held"] if crowds else []
    return results, [*losses, *base.list_lost_keys(annotations, (base.SCORE,))]


class PanopticPredictionsWriter(CocoPanopticWriter):
    """Writes root/panoptic.json with scores and root/panoptic/*.png.

    Args:
        root: the folder to write to.
        categories: of the predictions.
    """

    prediction_options = ALL_PREDICTIONS


class CocoSubmissionWriter(DatasetWriter):
    """Writes <task>_<testset>_<alg>_results.json, for panoptic the PNG folder of this name, and both as a .zip.

    The JSONs have only the keys that COCO's server takes.

    Args:
        root: the folder to write to.
        categories: of the predictions.
        task: "detections" (instance masks) or "panoptic"; None: panoptic if there is stuff, otherwise detections.
        testset: val2017, test-dev2017, test-challenge2017 or another name.
        alg: name of the algorithm.

    Raises:
        ConfigError: a name has characters other than letters, digits, "_", "-" and ".", or the task is unknown.
        DatasetError: the task is detections, and no category is a thing.
    """

    prediction_options = ALL_PREDICTIONS

    def __init__(
        self,
        root: str | Path,
        categories: CategorySet,
        *,
        task: str | None = None,
        testset: str = "test-dev2017",
        alg: str = "segkit",
    ) -> None:
        super().__init__(root, categories)
        if task is None:
            task = PANOPTIC if categories.stuff else DETECTIONS
        if task not in TASKS:
            raise ConfigError(f"expected the task to be one of {', '.join(TASKS)}, got {task!r}")
        for key, name in (("testset", testset), ("alg", alg)):
            if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name):
                problem = f"expected {key} to have letters, digits, '_', '-' and '.' only, got {name!r}"
                raise ConfigError(problem, remedy="give another name")
        self._stem = f"{task}_{testset}_{alg}_results"
        self._json, self._folder = self.root / f"{self._stem}.json", self.root / self._stem
        self._results = CocoResultsWriter(root, categories) if task == DETECTIONS else None
        self._panoptic = _SubmittedPanopticWriter(self._json, self._folder, categories)

    def image_path(self, image: DatasetImage) -> Path:
        """See base class."""
        return build_image_path(self.root / IMAGES, image)

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """See base class; of a panoptic task, scores and pixels under other masks are lost too."""
        if self._results is not None:
            return self._results.add(image, segmentation, annotations)
        areas_px = base.compute_segment_areas(image, segmentation, self.categories)
        self._panoptic.add(image.image_id, image.file_name, segmentation)
        losses = base.list_empty_segments(segmentation.segments, areas_px)
        losses += base.list_lost_scores(segmentation.segments)
        return [*losses, *base.list_lost_annotations(annotations, segmentation)]

    def finish(self) -> None:
        """See base class."""
        if self._results is not None:
            dump_json(self._json, self._results.results)
        else:
            self._panoptic.finish()
        pngs = list_files(self._folder, f"{self._stem}/")
        write_archive(self.root / f"{self._stem}.zip", {self._json.name: self._json, **pngs})


class _SubmittedPanopticWriter(PanopticWriter):
    """Writes the annotations without the tables and keys that the server does not take."""

    def finish(self) -> None:
        """See base class."""
        dump_json(self.json_path, {"annotations": [*map(_strip_annotation, self._annotations.values())]})


def _strip_annotation(annotation: Entry) -> Entry:
    infos = [_keep_keys(info, ("id", "category_id")) for info in annotation["segments_info"]]
    return {**_keep_keys(annotation, ("image_id", "file_name")), "segments_info": infos}


def _keep_keys(entry: Mapping[str, Any], keys: tuple[str, ...]) -> Entry:
    return {key: entry[key] for key in keys}
