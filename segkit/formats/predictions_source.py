"""What a model predicted, without its scores, as truth to train on again (pseudo-labels)."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from segkit.formats import coco_instances, coco_panoptic, files
from segkit.formats import coco_tables as coco
from segkit.formats.coco_masks import fault_of, without_slivers
from segkit.formats.coco_sources import OVERLAPS, panoptic_of_annotations
from segkit.formats.coco_tables import Entry, ImageId, Place
from segkit.formats.derive import coco_annotations, relabel
from segkit.formats.source import Source, SourceImage
from segkit.structures import (
    CategorySet,
    DatasetError,
    PanopticSegmentation,
    Segment,
    rle_to_mask,
    segmentation_to_rle,
)

MIN_SCORE = 0.5  # of a prediction that is taken for true
BY_SCORE = "score_on_top"
RESULT_OVERLAPS = (BY_SCORE, *OVERLAPS)


class CocoResultsSource(Source):
    """COCO's results list, or an instances JSON whose annotations have scores: things, as whole masks.

    json: the results. images: the folder of the images. dataset: a JSON (instances, panoptic, image_info) that names
    images and categories; without it json is no list and names them itself. All its images and categories are the
    source's, an image without results is void; where no category says `isthing`, all are things. min_score: results of
    a lower score are left out. overlap: who has the pixels of several masks: "score_on_top", the highest score, of
    equal ones the earlier result; or one of `coco_sources.OVERLAPS`. Crowds lie below all others, as there.
    """

    layout = "coco-results"
    overlaps = True

    @files.no_garbage_collection()
    def __init__(
        self,
        json: str | Path,
        images: str | Path,
        dataset: str | Path | None = None,
        *,
        min_score: float = MIN_SCORE,
        overlap: str = BY_SCORE,
    ) -> None:
        """Raises DatasetError where a JSON is missing or of another kind, or a result has no finite score, no image and
        thing of the dataset, no mask, or, unless it is left out, no sound one of the image's size; ValueError for
        another overlap, or a min_score that is no finite number."""
        if overlap not in RESULT_OVERLAPS:
            raise ValueError(f"overlap must be one of {RESULT_OVERLAPS}, got {overlap!r}")
        _check_min_score(min_score)
        path, named = Path(json), _Named.read(json if dataset is None else dataset, alone=dataset is None)
        self.root, self.pictures, self.overlap = path.parent, Path(images), overlap
        self.categories, self.images = named.thing_categories(), tuple(named.images.values())
        entries = named.annotations() if dataset is None else coco_instances.load_results(path)
        found = (_read_result(entry, index, path, named, self.categories) for index, entry in enumerate(entries))
        kept = [_with_rle(*result, named) for result in found if result[0]["score"] >= min_score]
        if overlap == BY_SCORE:
            kept.sort(key=lambda result: float(result["score"]), reverse=True)
            kept.reverse()  # and not sorted so: of equal scores the earlier one is to be painted later
        self._results: dict[ImageId, list[Entry]] = {}
        for result in kept:
            if coco_mask.area(result["segmentation"]):
                self._results.setdefault(result["image_id"], []).append(result)
        self.skipped = self._skipped(path, len(entries), len(kept), min_score)

    def segmentation(self, image: SourceImage) -> PanopticSegmentation:
        """Segments are numbered from 1 in the order of `annotations`; those that others hide have no segment."""
        overlap = "later_on_top" if self.overlap == BY_SCORE else self.overlap
        return panoptic_of_annotations(self._results.get(image.image_id, []), image.size_hw, overlap)

    def annotations(self, image: SourceImage) -> list[dict[str, Any]]:
        """COCO annotations of the whole masks, areas and boxes counted in them: in the file's order, but where the
        highest score lies on top by rising score, so that also to "later_on_top" it does."""
        return [
            annotation
            for result in self._results.get(image.image_id, [])
            for annotation in coco_annotations(image.image_id, _alone(result))
        ]

    def _skipped(self, path: Path, results: int, kept: int, min_score: float) -> tuple[str, ...]:
        low, empty = results - kept, kept - sum(map(len, self._results.values()))
        bare = [image.image_id for image in self.images if image.image_id not in self._results]
        counted = {
            f"{path}: {low} of {results} results have a score below {min_score:g}": low,
            f"{path}: {empty} of {results} results have a mask without a pixel": empty,
            f"{path}: {len(bare)} of {len(self.images)} images have no result left: {coco.listed(bare)}": len(bare),
        }
        return tuple(line for line, number in counted.items() if number)


class PanopticPredictionsSource(Source):
    """A panoptic JSON of predictions, the folder of its PNGs, the folder of the images.

    dataset: a JSON that names images and categories, where json, as COCO's submissions, does not. Images are those that
    json predicts, in its order. min_score: things of a lower score become void; stuff, and things without a score, are
    kept. Several segments of one stuff class are one, with the id of the first; stuff is never a crowd.
    """

    layout = "panoptic-predictions"

    @files.no_garbage_collection()
    def __init__(
        self,
        json: str | Path,
        masks: str | Path,
        images: str | Path,
        dataset: str | Path | None = None,
        *,
        min_score: float = MIN_SCORE,
    ) -> None:
        """Raises DatasetError as `coco_panoptic.read_predictions` does, and for an image that the dataset lacks or a
        score that is not finite; ValueError for a min_score that is no finite number."""
        _check_min_score(min_score)
        path, named = Path(json), _Named.read(json if dataset is None else dataset, alone=dataset is None)
        self.root, self.pictures, self.masks, self.min_score = path.parent, Path(images), Path(masks), min_score
        self.categories = coco.categories_of(named.content, named.path)
        coco_panoptic.read_predictions(path, self.categories)  # which checks all but images, crowds and scores
        content = named.content if dataset is None else coco.load(path)
        self._annotations: dict[ImageId, Entry] = {}
        for annotation in coco.table(content, "annotations", path):
            named.check_known(annotation["image_id"], Place(path, annotation["image_id"]))
            _check_segments(annotation, path)
            self._annotations[annotation["image_id"]] = annotation
        self.images = tuple(named.images[image_id] for image_id in self._annotations)
        self.skipped = self._skipped(path, [i for i in named.images if i not in self._annotations])

    def segmentation(self, image: SourceImage) -> PanopticSegmentation:
        """DatasetError as `coco_panoptic.read_segmentation` has it."""
        annotation = self._annotations[image.image_id]
        path, infos = self.masks / annotation["file_name"], annotation["segments_info"]
        found = coco_panoptic.read_segmentation(path, infos, self.categories, image.size_hw, image.image_id)
        truth_ids: dict[int, int] = {}  # by segment_id of the prediction
        stuff_ids: dict[int, int] = {}  # by category_id
        truth: dict[int, Segment] = {}
        for segment in found.segments:
            if segment.isthing and _is_below(segment.score, self.min_score):
                continue
            own = segment.segment_id
            truth_id = own if segment.isthing else stuff_ids.setdefault(segment.category_id, own)
            area_px = segment.area_px + (truth[truth_id].area_px if truth_id in truth else 0)
            iscrowd = segment.iscrowd and segment.isthing
            truth[truth_id] = replace(segment, segment_id=truth_id, area_px=area_px, iscrowd=iscrowd, score=None)
            truth_ids[own] = truth_id
        segments = tuple(truth.values())
        if len(segments) == len(found.segments):
            return PanopticSegmentation.of_runs(found.runs, segments)
        return PanopticSegmentation(relabel(found.segment_ids, truth_ids, np.int32), segments)

    def _skipped(self, path: Path, bare: list[ImageId]) -> tuple[str, ...]:
        infos = (info for annotation in self._annotations.values() for info in annotation["segments_info"])
        scores = [info.get("score") for info in infos if self.categories[info["category_id"]].isthing]
        low, unknown = sum(_is_below(score, self.min_score) for score in scores), scores.count(None)
        counted = {
            f"{path}: {low} of {len(scores)} things have a score below {self.min_score:g} and are void": low,
            f"{path}: {unknown} of {len(scores)} things have no score and are kept": unknown,
            f"{path}: {len(bare)} images have no prediction: {coco.listed(bare)}": len(bare),
        }
        return tuple(line for line, number in counted.items() if number)


@dataclass(frozen=True)
class _Named:
    """The JSON that names images and categories."""

    path: Path
    content: Entry
    images: Mapping[ImageId, SourceImage]

    @classmethod
    def read(cls, json_path: str | Path, alone: bool) -> _Named:
        """alone: it has the predictions too."""
        path = Path(json_path)
        content = coco.load(path)
        missing = [f"`{key}`" for key in ("images", "categories") if key not in content]
        if missing:
            problem = f"expected a JSON that names images and categories, got one without {' and '.join(missing)}"
            remedy = "give one that has both as `dataset`"
            raise DatasetError(problem, where=path, remedy=f"{remedy}, beside this one" if alone else remedy)
        images = {
            image_id: SourceImage(image_id, entry["file_name"], _checked_size(entry, Place(path, image_id)))
            for image_id, entry in coco.images_by_id(content, path).items()
        }
        return cls(path, content, images)

    def thing_categories(self) -> CategorySet:
        """All things, unless a category says otherwise."""
        categories = coco.table(self.content, "categories", self.path)
        all_things = all("isthing" not in category for category in categories)
        return coco.categories_of(self.content, self.path, all_things)

    def annotations(self) -> list[Entry]:
        return coco.table(self.content, "annotations", self.path)

    def check_known(self, image_id: ImageId, where: Place) -> None:
        if image_id not in self.images:
            problem = f"expected an image_id of {self.path} ({coco.listed(self.images)}), got {reprlib.repr(image_id)}"
            raise DatasetError(problem, where=where, remedy="give the JSON of the images that were predicted")


def _checked_size(entry: Entry, where: Place) -> tuple[int, int]:
    height, width = entry["height"], entry["width"]
    if Image.MAX_IMAGE_PIXELS and height * width > 2 * Image.MAX_IMAGE_PIXELS:  # Pillow refuses it as a bomb
        most = f"at most {2 * Image.MAX_IMAGE_PIXELS} pixels"
        raise DatasetError(f"expected {most}, got {height} x {width}", where=where, remedy="cut the image into tiles")
    return height, width


def _check_min_score(min_score: object) -> None:
    isnumber = isinstance(min_score, (int, float)) and not isinstance(min_score, bool)
    if not isnumber or not -coco.LARGEST <= min_score <= coco.LARGEST:  # type: ignore[operator]
        raise ValueError(f"min_score must be a finite number, got {min_score!r}")


def _read_result(entry: Entry, index: int, path: Path, named: _Named, categories: CategorySet) -> tuple[Entry, Place]:
    """The result with all but its mask checked, and where it is."""
    if "segments_info" in entry:
        remedy = "use the format panoptic-predictions"
        raise DatasetError("expected results with a mask each, got a panoptic JSON", where=path, remedy=remedy)
    image_id: ImageId = coco.field(entry, "image_id", coco.IMAGE_ID, f"{path}, result {index}")
    where = Place(path, image_id, "result", index)
    named.check_known(image_id, where)
    category_id = coco.category_id_of(entry, categories, where)
    if not categories[category_id].isthing:
        raise DatasetError(f"expected the category_id of a thing, got {category_id}, which is stuff", where=where)
    coco.finite(entry, "score", where)
    if "segmentation" not in entry:
        remedy = "export masks: boxes alone make no dataset of masks"
        raise DatasetError("expected a mask in `segmentation`, got none", where=where, remedy=remedy)
    return {**entry, "iscrowd": coco.flag(entry, "iscrowd", where)}, where


def _with_rle(result: Entry, where: Place, named: _Named) -> Entry:
    """The result with what is needed of it; DatasetError where its mask is not sound."""
    size_hw = named.images[result["image_id"]].size_hw
    segmentation = without_slivers(result["segmentation"])
    fault = fault_of(segmentation, size_hw)
    if fault:
        raise DatasetError(f"bad segmentation: {fault}", where=where, remedy="is it a result of this image?")
    kept = {key: result[key] for key in ("image_id", "category_id", "iscrowd", "score")}
    return {**kept, "segmentation": segmentation_to_rle(segmentation, size_hw)}


def _alone(result: Entry) -> PanopticSegmentation:
    """The mask as the one segment of its image."""
    mask = rle_to_mask(result["segmentation"])
    segment = Segment(1, result["category_id"], True, int(np.count_nonzero(mask)), bool(result["iscrowd"]))
    return PanopticSegmentation(mask.astype(np.int32), (segment,))


def _check_segments(annotation: Entry, path: Path) -> None:
    for info in annotation["segments_info"]:
        where = Place(path, annotation["image_id"], "segment", info["id"])
        coco.flag(info, "iscrowd", where)
        if info.get("score") is not None:
            coco.finite(info, "score", where)


def _is_below(score: float | None, min_score: float) -> bool:
    return score is not None and score < min_score
