"""Predictions as segkit writes them: the folder of `segkit predict`, or of an evaluation, inference/<dataset>."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats import png
from segkit.formats.base import DatasetImage, DatasetReader
from segkit.formats.coco import CocoResultsReader, PanopticPredictionsReader, build_images, read_classes, read_images
from segkit.formats.coco.prediction_readers import BY_SCORE, MIN_SCORE
from segkit.formats.image_files import find_by_stem, find_by_suffix
from segkit.formats.image_io import IMAGE_SUFFIXES
from segkit.structures import IGNORE_LABEL, VOID, CategorySet, IdRuns, ImageId, PanopticSegmentation, Segment
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, raise_issue
from segkit.utils.json_fields import IMAGE_ID, check_inside, get_field, get_table, load_object
from segkit.utils.text import abbreviate

PANOPTIC, INSTANCES, LABELS = "panoptic.json", "instances.json", "labels/classes.json"  # of `segkit predict`
SEMANTIC = "semantic.json"  # beside the folder of LABELS: the images with their ids, and the PNG of each
RESULTS, GROUND_TRUTH = "coco_instances_results.json", "instances_gt.json"  # of an evaluation, which has PANOPTIC too
PREDICTIONS = (PANOPTIC, INSTANCES, LABELS, RESULTS)
RUN = "predict.json"  # what `segkit predict` writes first
EVALUATIONS = "inference"  # folder of an OUTPUT_DIR
NO_IMAGES = "give the folder of the images that were predicted (--images), or leave them out (--skip-images)"


class RunReader(DatasetReader):
    """Reads all predictions in a folder: the panoptic map, and instances as whole masks; else classes, all stuff.

    Without a panoptic map, or its PNGs, the instances are painted, see `CocoResultsReader`.

    Args:
        root: folder of `segkit predict`, of an evaluation (OUTPUT_DIR/inference/DATASET), or OUTPUT_DIR, if it has one
            evaluation.
        images: folder to which the names of the images are relative; None if their pixels are not needed.
        dataset: JSON that names the images and categories; only for an evaluation of instances alone.
        min_score: things of a lower score are left out; None keeps all.
        keep_scores: whether segments and annotations have the scores.
        on_issue: takes the codes and errors of `CocoResultsReader` and `PanopticPredictionsReader`.

    Raises:
        DatasetError: the folder has no predictions, or several evaluations, or a file is invalid.
        ValueError: min_score is neither None nor a finite number.
    """

    format = "run"

    def __init__(
        self,
        root: str | Path,
        images: str | Path | None = None,
        dataset: str | Path | None = None,
        *,
        min_score: float | None = MIN_SCORE,
        keep_scores: bool = False,
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        self.root = folder = _find_folder(Path(root))
        self.image_root = Path(images) if images is not None else folder
        self._has_images = images is not None
        options: dict[str, Any] = {"min_score": min_score, "keep_scores": keep_scores, "on_issue": on_issue}
        self._maps: DatasetReader | None = None
        self._instances: DatasetReader | None = None
        results, pngs, unread = _find_results(folder, dataset), folder / PurePosixPath(PANOPTIC).stem, []
        if os.path.isfile(folder / PANOPTIC) and results is not None and not os.path.isdir(pngs):
            unread.append(f"{folder / PANOPTIC}: its PNGs are missing (`segkit predict --save masks` writes them)")
        elif os.path.isfile(folder / PANOPTIC):
            self._maps = PanopticPredictionsReader(folder / PANOPTIC, pngs, self.image_root, **options)
        if results is not None:
            self._instances = CocoResultsReader(*results[:1], self.image_root, results[1], overlap=BY_SCORE, **options)
        if self._maps is None and self._instances is None:
            self._maps = _SemanticReader(folder / PurePosixPath(LABELS).parent, images, on_issue)
        readers = [reader for reader in (self._maps, self._instances) if reader is not None]
        self.categories, self.images = readers[0].categories, readers[0].images
        self.skipped = (*unread, *(line for reader in readers for line in reader.skipped))
        self.has_overlapping_masks = self._instances is not None

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class."""
        reader = self._maps or self._instances
        assert reader is not None  # the constructor opens one
        return reader.read_segmentation(image)

    def read_annotations(self, image: DatasetImage) -> list[dict[str, Any]]:
        """See base class."""
        return super().read_annotations(image) if self._instances is None else self._instances.read_annotations(image)

    def read_image(self, image: DatasetImage) -> NDArray[np.uint8]:
        """See base class; DatasetError if the folder of the images was not given."""
        if not self._has_images:
            raise DatasetError("a folder of predictions holds no images", where=self.root, remedy=NO_IMAGES)
        return super().read_image(image)


def find_run(root: Path) -> str:
    """Find what shows that a folder holds predictions of segkit, and not a dataset.

    Args:
        root: the folder.

    Returns:
        The name of a file or folder in it that only runs have, or "".
    """
    if root.resolve().parent.name == EVALUATIONS and _has_predictions(root):
        return next(name for name in PREDICTIONS if os.path.isfile(root / name))
    names = [RUN, RESULTS, SEMANTIC, *(f"{EVALUATIONS}/{folder.name}" for folder in _list_evaluations(root))]
    return next((name for name in names if os.path.exists(root / name)), "")


class _SemanticReader(DatasetReader):
    """Reads classes.json, a list of names, and a PNG of labels per image: all classes are stuff.

    The images are those of semantic.json; without it, PNGs are named as their images.
    """

    format = "run"

    def __init__(self, root: Path, images: str | Path | None, on_issue: IssueHandler) -> None:
        self.root = root
        classes = read_classes(root / "classes.json")
        if not isinstance(classes, CategorySet):
            entries = [{"id": label, "name": name, "isthing": 0} for label, name in enumerate(classes)]
            classes = CategorySet.from_coco(entries, root / "classes.json")
        self.categories = classes
        void = max(IGNORE_LABEL, len(classes.categories))
        self._void = None if void in classes else void
        self._paths: Mapping[ImageId, Path]
        if os.path.isfile(root.parent / SEMANTIC):
            self._paths, self.images = _read_semantic_table(root.parent / SEMANTIC, root, Path(images or root))
        else:
            self._list_pngs(root, images, on_issue)

    def _list_pngs(self, root: Path, images: str | Path | None, on_issue: IssueHandler) -> None:
        paths = find_by_suffix(root)
        named: Mapping[str, Path] = {}
        if images is not None:
            named = find_by_stem(
                Path(images), IMAGE_SUFFIXES, "name the folder that was predicted", "image-id-twice", on_issue
            )
        names = {stem: path.relative_to(images or ".").as_posix() for stem, path in named.items()}
        sizes = {stem: png.read_header(path).size_hw for stem, path in paths.items()}
        self._paths = dict(paths.items())
        self.images = tuple(DatasetImage(stem, names.get(stem, f"{stem}.png"), size) for stem, size in sizes.items())

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class; one segment per class that has pixels; the label of left-out classes is void."""
        path = self._paths[image.image_id]
        labels = png.read_labels(path, image.size_hw).astype(np.int32)
        segment_ids = labels + 1 if self._void is None else np.where(labels == self._void, np.int32(VOID), labels + 1)
        runs = IdRuns.from_map(segment_ids)
        areas_px = {segment_id: area_px for segment_id, area_px in runs.areas_px().items() if segment_id != VOID}
        unknown = [segment_id - 1 for segment_id in areas_px if segment_id - 1 not in self.categories]
        if unknown:
            expected = abbreviate([c.category_id for c in self.categories.categories])
            raise DatasetError(f"expected labels among {expected}, got {abbreviate(unknown)}", where=path)
        segments = (Segment(i, i - 1, self.categories[i - 1].isthing, area_px) for i, area_px in areas_px.items())
        return PanopticSegmentation.from_runs(runs, tuple(segments))


def _read_semantic_table(path: Path, pngs: Path, images: Path) -> tuple[dict[ImageId, Path], tuple[DatasetImage, ...]]:
    """The PNG of each image_id, and the images."""
    content = load_object(path)
    entries = read_images(content, path)
    names: dict[ImageId, Path] = {}
    for index, annotation in enumerate(get_table(content, "annotations", path)):
        where = f"{path}, annotation {index}"
        file_name = get_field(annotation, "file_name", (str,), where)
        check_inside(file_name, "file_name", where)
        names[get_field(annotation, "image_id", IMAGE_ID, where)] = pngs / file_name
    if names.keys() != entries.keys():
        different = abbreviate(map(repr, names.keys() ^ entries.keys()))
        raise DatasetError(f"expected an annotation for each image, got different ids: {different}", where=path)
    return names, tuple(build_images(entries.values(), images))


def _find_folder(root: Path) -> Path:
    """The folder itself, or its only evaluation."""
    if _has_predictions(root):
        return root
    folders = _list_evaluations(root)
    if len(folders) > 1:
        problem = f"expected one evaluation, got {abbreviate(folder.name for folder in folders)}"
        raise DatasetError(problem, where=root / EVALUATIONS, remedy=f"name one of them, {folders[0]} for example")
    if not folders:
        problem = f"expected {PANOPTIC}, {INSTANCES}, {RESULTS} or {LABELS}, found none"
        remedy = "give the output of `segkit predict`"
        if os.path.isfile(root / RUN):
            remedy = "run `segkit predict` to its end, and let it write masks and json (--save)"
        raise DatasetError(problem, where=root, remedy=remedy)
    return folders[0]


def _list_evaluations(root: Path) -> list[Path]:
    return [folder for folder in sorted(root.glob(f"{EVALUATIONS}/*")) if _has_predictions(folder)]


def _has_predictions(folder: Path) -> bool:
    return any(os.path.isfile(folder / name) for name in PREDICTIONS)


def _find_results(folder: Path, dataset: str | Path | None) -> tuple[Path, Path | None] | None:
    """The JSON of instances, and the JSON of its images and categories if it is a bare list; None without instances."""
    if os.path.isfile(folder / INSTANCES):
        return folder / INSTANCES, None
    if not os.path.isfile(folder / RESULTS):
        return None
    tables = [Path(dataset)] if dataset is not None else [folder / PANOPTIC, folder / GROUND_TRUTH]
    path = next((path for path in tables if os.path.isfile(path)), None)
    if path is None and dataset is None:
        remedy = "give the JSON of the evaluated dataset (--dataset)"
        raise DatasetError("the results name no images and categories", where=folder / RESULTS, remedy=remedy)
    return folder / RESULTS, path or tables[0]
