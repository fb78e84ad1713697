"""Panoptic quality of many fusion settings over saved head outputs; each image is read once for all settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.formats import coco, head_outputs
from segkit.formats.coco import PanopticFile, PanopticRecord
from segkit.formats.head_outputs import SavedHeadOutputs, SavedImage
from segkit.fusion import FusionMethod
from segkit.metrics.panoptic import counts as counting
from segkit.metrics.panoptic.counts import Counts
from segkit.metrics.panoptic.matching import FloatArray, IntArray, match
from segkit.metrics.panoptic.overlaps import ImageOverlaps, compute_overlaps, join
from segkit.scoring.fusion.options import Setting
from segkit.scoring.fusion.run import fuse_to_dataset
from segkit.scoring.png_folders import find_png_folder
from segkit.structures import CategorySet, ImageId
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames
from segkit.utils.issues import DEFAULT_LIMIT, ErrorCollector
from segkit.utils.process_pool import Progress, map_and_collect_errors
from segkit.utils.text import abbreviate

AREA_LIMIT = "stuff_area_limit_px"


@dataclass(frozen=True)
class SweepData:
    """Saved head outputs, and the ground truth of the same images.

    Attributes:
        saved: index of the saved head outputs.
        ground_truth: panoptic JSON; records are in the order of the JSON.
        gt_folder: folder of its PNGs.
    """

    saved: SavedHeadOutputs
    ground_truth: PanopticFile
    gt_folder: Path

    @classmethod
    def open(cls, predictions: str | Path, gt_json: str | Path, gt_folder: str | Path | None = None) -> SweepData:
        """Read the index of both, and check that they have the same images and categories.

        Args:
            predictions: folder of saved head outputs.
            gt_json: panoptic JSON.
            gt_folder: folder of its PNGs; None finds it, see `find_png_folder`.

        Returns:
            The sweep data.

        Raises:
            DatasetError: a file cannot be read, or images or categories differ.
        """
        saved, ground_truth = head_outputs.load(Path(predictions)), coco.read_panoptic(gt_json)
        folder = find_png_folder(gt_json, gt_folder, (record.png_name for record in ground_truth.records))
        _check_same_categories(saved.categories, ground_truth.categories, f"{predictions} and {gt_json}")
        _check_same_images([image.image_id for image in saved.images], ground_truth, Path(predictions))
        return cls(saved, ground_truth, folder)

    @property
    def categories(self) -> CategorySet:
        """Categories of the ground truth: metrics add up classes in their order."""
        return self.ground_truth.categories

    @cached_property
    def saved_images(self) -> Mapping[ImageId, SavedImage]:
        """The saved image of every image_id."""
        return {image.image_id: image for image in self.saved.images}

    @cached_property
    def _pngs(self) -> FolderNames:
        return FolderNames(self.gt_folder)

    def overlaps(self, record: PanopticRecord, fusions: Sequence[FusionMethod]) -> list[ImageOverlaps]:
        """Fuse an image by each method, and intersect the results with the ground truth.

        Args:
            record: an image of `ground_truth`.
            fusions: the methods.

        Returns:
            The overlaps for each method; areas are counted in the maps.

        Raises:
            DatasetError: the PNG or the saved outputs cannot be read, or their sizes differ.
        """
        png = self._pngs.locate(record.png_name)
        infos, image_id = record.segments_info, record.image_id
        ground_truth = coco.read_segmentation(png, infos, self.categories, image_id=image_id)
        image = self.saved_images[image_id]
        outputs, saved_at = self.saved.read(image), self.saved.get_location(image)
        where = f"{png}, image {image_id!r}"
        fused = (fuse_to_dataset(fusion, outputs, self.categories, where=saved_at) for fusion in fusions)
        return [compute_overlaps(ground_truth, prediction, self.categories, where=where) for prediction in fused]


def count_settings(
    sweep_data: SweepData,
    settings: Sequence[Setting],
    groups: Mapping[str, Collection[ImageId]],
    *,
    workers: int = 1,
    progress: Progress | None = None,
    limit: int = DEFAULT_LIMIT,
) -> dict[str, list[Counts]]:
    """Count matches of every setting over groups of images, by the rules of panopticapi.

    The counts equal, to the last bit, those of `PanopticQuality` over the fused maps of these images in the order of
    the ground truth. Settings that differ only in stuff_area_limit_px are fused once: a method applies that limit last,
    and turns small stuff segments into void without changing any other. A method that does otherwise has the attribute
    `area_limit_is_last = False`.

    Args:
        sweep_data: saved head outputs and ground truth.
        settings: settings of any methods.
        groups: name -> image ids; images in no group are not read.
        workers: number of processes.
        progress: called with (images done, images in all).
        limit: stop at so many errors.

    Returns:
        Name of the group -> (C,) counts of each setting.

    Raises:
        DatasetError: lists what is wrong with the images, up to `limit` errors.
    """
    keys = [(setting.name, repr(setting.options())) for setting in settings]
    distinct = dict(zip(keys, settings, strict=True))  # equal settings are counted once
    fusions, setting_by_limit = _plan([*distinct.values()])
    image_ids = set().union(*groups.values())
    records = [record for record in sweep_data.ground_truth.records if record.image_id in image_ids]
    totals = {name: _Totals(len(distinct), len(sweep_data.categories)) for name in groups}

    def count(record: PanopticRecord) -> _ImageCounts:
        return _count_image(sweep_data.overlaps(record, fusions), sweep_data.categories)

    for record, counts in map_and_collect_errors(count, records, ErrorCollector(limit), workers, progress):
        for name, ids in groups.items():
            if record.image_id in ids:
                totals[name].add(counts, setting_by_limit)
    by_key = {name: dict(zip(distinct, total.counts(), strict=True)) for name, total in totals.items()}
    return {name: [counts_by_key[key] for key in keys] for name, counts_by_key in by_key.items()}


def _plan(settings: Sequence[Setting]) -> tuple[list[FusionMethod], dict[float, IntArray]]:
    """What to fuse for distinct settings: F methods, each with the smallest area limit of its settings.

    Also area limit -> (F,) int64, the index of the setting that is fusion f with this limit, -1 if there is none.
    """
    members: dict[tuple[str, str], list[tuple[float, int]]] = {}  # area limit and index of settings fused at once
    for index, setting in enumerate(settings):
        options = setting.options()
        is_apart = setting.fusion.area_limit_is_last and AREA_LIMIT in options
        area_limit = float(options.pop(AREA_LIMIT)) if is_apart else -np.inf
        members.setdefault((setting.name, repr(options)), []).append((area_limit, index))
    limits = sorted({area_limit for group in members.values() for area_limit, _ in group})
    setting_by_limit: dict[float, IntArray] = {limit: np.full(len(members), -1, dtype=np.int64) for limit in limits}
    for row, group in enumerate(members.values()):
        for area_limit, index in group:
            setting_by_limit[area_limit][row] = index
    return [settings[min(group)[1]].fusion for group in members.values()], setting_by_limit


class _ImageCounts(NamedTuple):
    """Counts of one image for every fusion.

    ground_truth: (T,) class rows of the ground-truth segments without crowds. matched, false: for each match and each
    false positive the fusion, the class row, and the greatest area limit in pixels at which the segment stays.
    """

    ground_truth: IntArray
    matched: tuple[IntArray, IntArray, FloatArray]
    iou: FloatArray
    false: tuple[IntArray, IntArray, FloatArray]


def _count_image(overlaps: Sequence[ImageOverlaps], categories: CategorySet) -> _ImageCounts:
    """Match all fusions at once: in the joined table each fusion is an image."""
    table = join([*enumerate(overlaps)])
    matching = match(table)
    isthing = np.array([category.isthing for category in categories.categories])
    rows = counting.get_category_rows(categories, table.prediction["category_id"])
    px = np.where(isthing[rows], np.inf, table.prediction["counted_px"])
    matches = np.flatnonzero(matching.matched)
    of_match = table.pairs["prediction"][matches]
    ground_truth = overlaps[0].ground_truth
    return _ImageCounts(
        counting.get_category_rows(categories, ground_truth["category_id"][~ground_truth["iscrowd"]]),
        (table.pair_image[matches], rows[of_match], px[of_match]),
        matching.iou[matches],
        (table.pred_image[matching.false_positive], rows[matching.false_positive], px[matching.false_positive]),
    )


class _Totals:
    """Sums over images: iou (S, C) float64, tp and fp (S, C) int64 of every setting; ground_truth: (C,) segments."""

    def __init__(self, settings: int, categories: int) -> None:
        self.iou = np.zeros((settings, categories))
        self.tp, self.fp = np.zeros((2, settings, categories), dtype=np.int64)
        self.ground_truth = np.zeros(categories, dtype=np.int64)

    def add(self, image: _ImageCounts, setting_by_limit: Mapping[float, IntArray]) -> None:
        """Add IoUs one by one, in the order of the pairs, so that the last bits are those of the metric."""
        np.add.at(self.ground_truth, image.ground_truth, 1)
        for area_limit, setting_of_fusion in setting_by_limit.items():
            (settings, classes), is_staying = _select_staying(image.matched, setting_of_fusion, area_limit)
            np.add.at(self.iou, (settings, classes), image.iou[is_staying])
            np.add.at(self.tp, (settings, classes), 1)
            np.add.at(self.fp, _select_staying(image.false, setting_of_fusion, area_limit)[0], 1)

    def counts(self) -> list[Counts]:
        """The counts of each setting; a ground-truth segment without match is a false negative."""
        return [
            Counts(iou, tp, fp, self.ground_truth - tp) for iou, tp, fp in zip(self.iou, self.tp, self.fp, strict=True)
        ]


def _select_staying(
    segments: tuple[IntArray, IntArray, FloatArray], setting_of_fusion: IntArray, area_limit: float
) -> tuple[tuple[IntArray, IntArray], NDArray[np.bool_]]:
    """(setting, class row) of the segments that stay at the limit, and the mask that selects them."""
    fusions, classes, px = segments
    settings = setting_of_fusion[fusions]
    is_staying: NDArray[np.bool_] = (settings >= 0) & (px >= area_limit)
    return (settings[is_staying], classes[is_staying]), is_staying


def _check_same_categories(saved: CategorySet, ground_truth: CategorySet, where: str) -> None:
    """Ids, names and kinds must be equal; colours may differ."""
    ours, theirs = (
        {(category.category_id, category.name, category.isthing) for category in categories.categories}
        for categories in (saved, ground_truth)
    )
    if ours != theirs:
        different = sorted({(category_id, name) for category_id, name, _ in ours ^ theirs})
        problem = f"expected the same categories in both, {len(different)} differ: {abbreviate(different)}"
        raise DatasetError(problem, where=where, remedy="give the ground truth of the dataset that was predicted")


def _check_same_images(saved: Sequence[ImageId], ground_truth: PanopticFile, predictions: Path) -> None:
    gt_ids = {record.image_id: None for record in ground_truth.records}
    saved_ids, problems = set(saved), []
    if missing := [i for i in gt_ids if i not in saved_ids]:
        problems.append(f"{len(missing)} of the {len(gt_ids)} ground-truth images are not saved: {abbreviate(missing)}")
    if extra := [i for i in saved if i not in gt_ids]:
        problems.append(f"{len(extra)} of the {len(saved)} saved images have no ground truth: {abbreviate(extra)}")
    if problems:
        remedy = f"give the ground truth of the images that were predicted, not {ground_truth.path}"
        raise DatasetError("; ".join(problems), where=predictions, remedy=remedy)
    if not gt_ids:
        raise DatasetError("expected images, got none", where=ground_truth.path)
