"""Panoptic quality of many settings of fusion methods over saved head outputs: each image is read once for all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

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
from segkit.scoring.fusion.options import Setting, get_fusion_options
from segkit.scoring.fusion.run import fuse_to_dataset
from segkit.structures import CategorySet, ImageId
from segkit.utils.errors import DatasetError
from segkit.utils.issues import DEFAULT_LIMIT, ErrorCollector
from segkit.utils.process_pool import Progress, ordered_map
from segkit.utils.text import abbreviate

AREA_LIMIT = "stuff_area_limit_px"


@dataclass(frozen=True)
class SweepData:
    """Saved head outputs and the truth of the same images; truth.records are in the order of its JSON."""

    saved: SavedHeadOutputs
    ground_truth: PanopticFile
    gt_folder: Path

    @classmethod
    def open(cls, predictions: str | Path, gt_json: str | Path, gt_folder: str | Path | None = None) -> SweepData:
        """Read the index of both. gt_folder: of the truth's PNGs (default: beside the JSON, of its name).

        DatasetError where a file cannot be read, or the two are not of the same images and categories.
        """
        saved, ground_truth = head_outputs.load(Path(predictions)), coco.read_panoptic(gt_json)
        folder = Path(gt_folder) if gt_folder is not None else Path(gt_json).with_suffix("")
        if not folder.is_dir():
            raise DatasetError("no such folder of PNGs", where=folder, remedy="name it (--gt-folder)")
        _check_same_categories(saved.categories, ground_truth.categories, f"{predictions} and {gt_json}")
        _check_same_images([image.image_id for image in saved.images], ground_truth, Path(predictions))
        return cls(saved, ground_truth, folder)

    @property
    def categories(self) -> CategorySet:
        """Of the truth, which says in which order classes are added up."""
        return self.ground_truth.categories

    @cached_property
    def saved_images(self) -> Mapping[ImageId, SavedImage]:
        """The saved image of every image_id."""
        return {image.image_id: image for image in self.saved.images}

    def overlaps(self, record: PanopticRecord, fusions: Sequence[FusionMethod]) -> list[ImageOverlaps]:
        """One image fused by each of the fusions, against its truth; areas are those of the maps.

        DatasetError where the PNG or the saved outputs of the image cannot be read, or their sizes differ.
        """
        png = self.gt_folder / record.png_name
        infos, image_id = record.segments_info, record.image_id
        ground_truth = coco.read_segmentation(png, infos, self.categories, image_id=image_id)
        image = self.saved_images[image_id]
        outputs, saved_at = self.saved.read(image), self.saved.get_location(image)
        where = f"{png}, image {image_id!r}"
        fused = (fuse_to_dataset(fusion, outputs, self.categories, where=saved_at) for fusion in fusions)
        return [compute_overlaps(ground_truth, one, self.categories, where=where) for one in fused]


def count_settings(
    sweep_data: SweepData,
    settings: Sequence[Setting],
    groups: Mapping[str, Collection[ImageId]],
    *,
    workers: int = 1,
    progress: Progress | None = None,
    limit: int = DEFAULT_LIMIT,
) -> dict[str, list[Counts]]:
    """group -> the (C,) counts of every setting over the images of the group, by the rules of panopticapi.

    They equal, to the last bit, those of `PanopticQuality` over the fused maps of these images in the truth's order.
    Images in no group are not read. Settings that differ in stuff_area_limit_px alone are fused once, since a method
    looks at that limit when all else is done: it turns segments of stuff into void and changes no other. A method for
    which that is not so has the attribute `area_limit_is_last = False`.
    Raises DatasetError that tells all that is wrong with the images, up to `limit` problems.
    """
    keys = [(setting.name, repr(setting.options())) for setting in settings]
    distinct = dict(zip(keys, settings, strict=True))  # the same twice is counted once
    plan = _Plan.from_settings([*distinct.values()])
    wanted = set().union(*groups.values())
    records = [record for record in sweep_data.ground_truth.records if record.image_id in wanted]
    totals = {name: _Totals.zeros(len(distinct), len(sweep_data.categories)) for name in groups}
    problems = ErrorCollector(limit)
    count = _Counting(sweep_data, plan.fusions).count
    for done, (record, found) in enumerate(zip(records, ordered_map(count, records, workers), strict=True), 1):
        if isinstance(found, DatasetError):
            problems.add(found)
        else:
            for name, image_ids in groups.items():
                if record.image_id in image_ids:
                    totals[name].add(found, plan)
        if progress is not None:
            progress(done, len(records))
    problems.check()
    found_of = {name: dict(zip(distinct, total.counts(), strict=True)) for name, total in totals.items()}
    return {name: [found[key] for key in keys] for name, found in found_of.items()}


@dataclass(frozen=True)
class _Plan:
    """Of distinct settings. fusions: what is fused, each with the smallest area limit of its settings. places: for each
    area limit (F,) int64, the setting that is fusion f with this limit, -1 where none is."""

    fusions: tuple[FusionMethod, ...]
    places: Mapping[float, IntArray]

    @classmethod
    def from_settings(cls, settings: Sequence[Setting]) -> _Plan:
        members: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for number, setting in enumerate(settings):
            options = get_fusion_options(setting.fusion)
            apart = setting.fusion.area_limit_is_last and AREA_LIMIT in options
            area_limit = float(options.pop(AREA_LIMIT)) if apart else -np.inf
            members.setdefault((setting.name, repr(options)), []).append((number, area_limit))
        # Of the settings of a fusion the one with the smallest limit is fused.
        smallest = [settings[min(one, key=lambda pair: pair[1])[0]].fusion for one in members.values()]
        limits = sorted({area_limit for one in members.values() for _, area_limit in one})
        places = {area_limit: np.full(len(members), -1, dtype=np.int64) for area_limit in limits}
        for row, one in enumerate(members.values()):
            for number, area_limit in one:
                places[area_limit][row] = number
        return cls(tuple(smallest), places)


@dataclass(frozen=True)
class _ImageCounts:
    """Of one image and every fusion: truth (T,), the classes of true segments, no crowds; of matches and of false
    predictions the fusion, the class (its row) and `px`, the greatest area limit at which the segment stays."""

    ground_truth: IntArray
    matched: tuple[IntArray, IntArray, FloatArray]
    iou: FloatArray
    false: tuple[IntArray, IntArray, FloatArray]


@dataclass(frozen=True)
class _Counting:
    """Counts one image, in any process."""

    sweep_data: SweepData
    fusions: Sequence[FusionMethod]

    def count(self, record: PanopticRecord) -> _ImageCounts | DatasetError:
        try:
            return _count_image(self.sweep_data.overlaps(record, self.fusions), self.sweep_data.categories)
        except DatasetError as error:
            return error


def _count_image(found: Sequence[ImageOverlaps], categories: CategorySet) -> _ImageCounts:
    """A fusion takes the place of an image in the joined table: all are matched at once."""
    table = join([*enumerate(found)])
    matching = match(table)
    isthing = np.array([category.isthing for category in categories.categories])
    rows = counting.get_category_rows(categories, table.prediction["category_id"])
    px = np.where(isthing[rows], np.inf, table.prediction["counted_px"])
    matches = np.flatnonzero(matching.matched)
    of_match = table.pairs["prediction"][matches]
    ground_truth = found[0].ground_truth
    return _ImageCounts(
        counting.get_category_rows(categories, ground_truth["category_id"][~ground_truth["iscrowd"]]),
        (table.pair_image[matches], rows[of_match], px[of_match]),
        matching.iou[matches],
        (table.pred_image[matching.false_positive], rows[matching.false_positive], px[matching.false_positive]),
    )


@dataclass(frozen=True)
class _Totals:
    """Sums over images: iou (S, C) float64, tp, fp (S, C) int64 of every setting; truth (C,) true segments."""

    iou: FloatArray
    tp: IntArray
    fp: IntArray
    ground_truth: IntArray

    @classmethod
    def zeros(cls, settings: int, categories: int) -> _Totals:
        shape = settings, categories
        tp, fp = np.zeros((2, *shape), dtype=np.int64)
        return cls(np.zeros(shape), tp, fp, np.zeros(categories, dtype=np.int64))

    def add(self, image: _ImageCounts, plan: _Plan) -> None:
        """IoUs are added one by one, in the order of the pairs: so the last bits are those of the metric."""
        np.add.at(self.ground_truth, image.ground_truth, 1)
        for area_limit, places in plan.places.items():
            (settings, classes), kept = _staying(image.matched, places, area_limit)
            np.add.at(self.iou, (settings, classes), image.iou[kept])
            np.add.at(self.tp, (settings, classes), 1)
            np.add.at(self.fp, _staying(image.false, places, area_limit)[0], 1)

    def counts(self) -> list[Counts]:
        """A true segment has at most one match: what has none is missed."""
        return [
            Counts(iou, tp, fp, self.ground_truth - tp) for iou, tp, fp in zip(self.iou, self.tp, self.fp, strict=True)
        ]


def _staying(
    segments: tuple[IntArray, IntArray, FloatArray], places: IntArray, area_limit: float
) -> tuple[tuple[IntArray, IntArray], NDArray[np.bool_]]:
    """(setting, class) of the segments that stay at the limit, and which these are."""
    fusions, classes, px = segments
    settings = places[fusions]
    kept: NDArray[np.bool_] = (settings >= 0) & (px >= area_limit)
    return (settings[kept], classes[kept]), kept


def _check_same_categories(saved: CategorySet, ground_truth: CategorySet, where: str) -> None:
    """Colours may differ: nobody counts them."""
    one, other = (
        {(category.category_id, category.name, category.isthing) for category in categories.categories}
        for categories in (saved, ground_truth)
    )
    if one != other:
        different = sorted({(category_id, name) for category_id, name, _ in one ^ other})
        raise DatasetError(
            f"expected the same categories in both, {len(different)} differ: {abbreviate(different)}",
            where=where,
            remedy="give the truth of the dataset that was predicted",
        )


def _check_same_images(saved: Sequence[ImageId], ground_truth: PanopticFile, predictions: Path) -> None:
    true = {record.image_id: None for record in ground_truth.records}
    known = set(saved)
    missing, extra = [i for i in true if i not in known], [i for i in saved if i not in true]
    told = []
    if missing:
        told.append(f"{len(missing)} of the truth's {len(true)} images are not saved: {abbreviate(missing)}")
    if extra:
        told.append(f"{len(extra)} of the {len(saved)} saved images are not in the truth: {abbreviate(extra)}")
    if told:
        remedy = f"give the truth of the images that were predicted, not {ground_truth.path}"
        raise DatasetError("; ".join(told), where=predictions, remedy=remedy)
    if not true:
        raise DatasetError("expected images, got none", where=ground_truth.path)
