"""Class-pair priors of a dataset: which class occludes which, counted in its annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segkit.formats import coco
from segkit.formats.coco import PanopticFile, PanopticRecord
from segkit.fusion.occlusion_priors import OcclusionCounter, OcclusionPriors
from segkit.scoring.png_folders import find_png_folder
from segkit.structures import ImageId, segmentation_to_rle
from segkit.utils.errors import DatasetError
from segkit.utils.file_names import FolderNames
from segkit.utils.issues import DEFAULT_LIMIT, ErrorCollector
from segkit.utils.process_pool import Progress, map_and_collect_errors
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
    """Count which class occludes which in all images of a panoptic JSON.

    Args:
        gt_json: panoptic JSON.
        gt_folder: folder of its PNGs; None finds it, see `find_png_folder`.
        instances_json: instances JSON of the same images, with the whole masks; None takes convex hulls of segments.
        workers: number of processes.
        progress: called with (images done, images in all).
        limit: stop at so many errors.

    Returns:
        The counts of `OcclusionCounter`.

    Raises:
        DatasetError: lists what is wrong with the files, up to `limit` errors.
    """
    ground_truth = coco.read_panoptic(gt_json)
    categories = ground_truth.categories
    pngs = FolderNames(find_png_folder(gt_json, gt_folder, (record.png_name for record in ground_truth.records)))
    objects = None if instances_json is None else _group_by_image(Path(instances_json), ground_truth)

    def count(record: PanopticRecord) -> OcclusionCounter:
        size_hw, png = (record.height, record.width), pngs.locate(record.png_name)
        segmentation = coco.read_segmentation(png, record.segments_info, categories, size_hw, record.image_id)
        masks = None
        if objects is not None:
            annotations = objects.get(record.image_id, [])
            masks = [(a["category_id"], segmentation_to_rle(a["segmentation"], size_hw)) for a in annotations]
        counter = OcclusionCounter(categories)
        counter.update(segmentation, masks)
        return counter

    priors = OcclusionCounter(categories)
    for _, counter in map_and_collect_errors(count, ground_truth.records, ErrorCollector(limit), workers, progress):
        priors.merge(counter)
    return priors.compute()


def _group_by_image(path: Path, ground_truth: PanopticFile) -> dict[ImageId, list[dict[str, Any]]]:
    """Annotations by image, without crowds; DatasetError if things or images are not those of the ground truth."""
    instances = coco.read_instances(path)
    names = {thing.category_id: thing.name for thing in ground_truth.categories.things}
    other = [c.category_id for c in instances.categories.categories if names.get(c.category_id) != c.name]
    if other:
        problem = f"expected the things of {ground_truth.path}, got other categories: {abbreviate(other)}"
        raise DatasetError(problem, where=path, remedy="give the instances JSON of the same dataset")
    objects: dict[ImageId, list[dict[str, Any]]] = {}
    for annotation in instances.annotations:
        if not annotation["iscrowd"]:
            objects.setdefault(annotation["image_id"], []).append(annotation)
    if objects and not objects.keys() & {record.image_id for record in ground_truth.records}:
        raise DatasetError(f"expected the images of {ground_truth.path}, got others", where=path)
    return objects
