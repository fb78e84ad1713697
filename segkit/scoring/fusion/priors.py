"""Class-pair priors of a dataset: which class lies on top of which, counted in its annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkit.formats import coco
from segkit.formats.coco import PanopticFile, PanopticRecord
from segkit.fusion.occlusion_priors import OcclusionCounter, OcclusionPriors
from segkit.structures import ImageId
from segkit.structures.rle import segmentation_to_rle
from segkit.utils.errors import DatasetError
from segkit.utils.issues import DEFAULT_LIMIT, ErrorCollector
from segkit.utils.process_pool import Progress, ordered_map
from segkit.utils.text import abbreviate


def count_priors(
    gt_json: str | Path,
    gt_folder: str | Path | None = None,
    instances_json: str | Path | None = None,
    *,
    workers: int = 1,
    progress: Progress | None = None,
    limit: int = DEFAULT_LIMIT,
) -> OcclusionPriors:
    """What `OcclusionCounter` counts in all images of a panoptic JSON; instances_json: the objects' whole masks.

    Raises DatasetError that tells all that is wrong with the files, up to `limit` problems.
    """
    ground_truth = coco.read_panoptic(gt_json)
    folder = Path(gt_folder) if gt_folder is not None else Path(gt_json).with_suffix("")
    objects = None if instances_json is None else _by_image(Path(instances_json), ground_truth)
    problems, priors = ErrorCollector(limit), OcclusionCounter(ground_truth.categories)
    count = _Counting(ground_truth, folder, objects).count
    for done, found in enumerate(ordered_map(count, ground_truth.records, workers), 1):
        if isinstance(found, DatasetError):
            problems.add(found)
        else:
            priors.merge(found)
        if progress is not None:
            progress(done, len(ground_truth.records))
    problems.check()
    return priors.compute()


@dataclass(frozen=True)
class _Counting:
    """Counts one image, in any process."""

    ground_truth: PanopticFile
    folder: Path
    objects: Mapping[ImageId, list[dict[str, Any]]] | None

    def count(self, record: PanopticRecord) -> OcclusionCounter | DatasetError:
        categories, image_id = self.ground_truth.categories, record.image_id
        size_hw, png = (record.height, record.width), self.folder / record.png_name
        try:
            ground_truth = coco.read_segmentation(png, record.segments_info, categories, size_hw, image_id)
            drawn = None
            if self.objects is not None:
                found = self.objects.get(image_id, [])
                drawn = [(one["category_id"], segmentation_to_rle(one["segmentation"], size_hw)) for one in found]
            priors = OcclusionCounter(categories)
            priors.update(ground_truth, drawn)
        except DatasetError as error:
            return error
        return priors


def _by_image(path: Path, ground_truth: PanopticFile) -> dict[ImageId, list[dict[str, Any]]]:
    """The annotations of every image but crowds; DatasetError where they are not of the truth's things and images."""
    instances = coco.read_instances(path)
    names = {thing.category_id: thing.name for thing in ground_truth.categories.things}
    other = [c.category_id for c in instances.categories.categories if names.get(c.category_id) != c.name]
    if other:
        problem = f"expected the things of {ground_truth.path}, got other categories: {abbreviate(other)}"
        raise DatasetError(problem, where=path, remedy="give the instances JSON of the same dataset")
    found: dict[ImageId, list[dict[str, Any]]] = {}
    for annotation in instances.annotations:
        if not annotation["iscrowd"]:
            found.setdefault(annotation["image_id"], []).append(annotation)
    if found and not found.keys() & {record.image_id for record in ground_truth.records}:
        raise DatasetError(f"expected the images of {ground_truth.path}, got others", where=path)
    return found
