"""`segkit predict`: images in, overlays and COCO files out. The dataset is not needed."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from segkit.engine.inference.image_inputs import find_root
from segkit.engine.inference.model import SegmentationModel
from segkit.formats import coco, png
from segkit.runtime.prediction import LABELS, OVERLAYS, PANOPTIC, Prediction
from segkit.structures import compute_areas_px
from segkit.utils.errors import DatasetError
from segkit.utils.files import dump_json
from segkit.utils.progress import track

PNG_FOLDERS = (OVERLAYS, PANOPTIC, LABELS)


def predict(
    model: SegmentationModel,
    images: Sequence[str | Path],
    output: str | Path,
    drawing: Mapping[str, Any] | None = None,
    root: str | Path | None = None,
    on_unreadable: Callable[[DatasetError], object] | None = None,
) -> list[Path]:
    """Predict images and write the results below `output`.

    Writes overlays/*.png, and what the model gives: instances.json (COCO, RLE, with scores); panoptic.json and
    panoptic/*.png; or, for a model with a semantic output only, labels/*.png and labels/classes.json. The image ids are
    1..N in the order of `images`. The `images` tables of the JSONs map them to file names. PNGs have the stem of their
    image, and its id if several images have the same stem, on systems without upper and lower case too.

    Args:
        model: the model.
        images: image files.
        output: folder to write to.
        drawing: keyword arguments of `draw_panoptic` and `draw_instances`: alpha, names, scores.
        root: folder to which the file names in the JSONs are relative; None for the one that all images share.
        on_unreadable: takes the error of an image that cannot be read, and the others go on; None raises it. The error
            of an only image is always raised.

    Returns:
        The files and folders that were written.

    Raises:
        ConfigError: the model gives neither a panoptic map nor masks nor semantic classes.
        DatasetError: an image cannot be read, see `on_unreadable`, or none; an output cannot be written.
    """
    paths = [Path(image) for image in images]
    root = root or find_root(map(str, paths))
    results = _Results(model, Path(output), drawing or {})
    for image_id, (path, png_name) in enumerate(
        track([*zip(paths, _output_names(paths), strict=True)], "predicting"), 1
    ):
        try:
            prediction = model(path)
        except DatasetError as error:
            if on_unreadable is None or len(images) == 1:
                raise
            on_unreadable(error)
            continue
        file_name = Path(os.path.relpath(path, root)).as_posix()
        entry = {
            "id": image_id,
            "file_name": file_name,
            "height": prediction.size_hw[0],
            "width": prediction.size_hw[1],
        }
        results.add(entry, prediction, png_name)
    if not results.entries:
        raise DatasetError(f"expected images that can be read, got none among {len(images)}", where=root)
    return results.write_tables()


class _Results:
    """The results of `predict`: those of an image are drawn and written at once, the JSONs at the end."""

    def __init__(self, model: SegmentationModel, output: Path, drawing: Mapping[str, Any]) -> None:
        self.model, self.output, self.drawing = model, output, drawing
        self.entries: list[dict[str, Any]] = []
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.gives_classes_alone = False

    def add(self, entry: dict[str, Any], prediction: Prediction, png_name: str) -> None:
        """Write the PNGs of an image and keep its entries."""
        self.entries.append(entry)
        content = prediction.to_coco(entry["id"])
        if "instances" in content:
            self.tables.setdefault("instances", []).extend(content["instances"])
        if prediction.panoptic is not None:
            coco.write_png(self.output / PANOPTIC / png_name, prediction.panoptic.segment_ids)
            self.tables.setdefault(PANOPTIC, []).append({**content["panoptic"], "file_name": png_name})
        elif prediction.instances is None and prediction.semantic is not None:
            self.gives_classes_alone = True
            png.write_labels(self.output / LABELS / png_name, prediction.semantic)
        png.write(self.output / OVERLAYS / png_name, np.asarray(prediction.plot(**self.drawing)))

    def write_tables(self) -> list[Path]:
        """Write the JSONs; the files and folders that were written."""
        categories, written = self.model.categories, [OVERLAYS]
        if PANOPTIC in self.tables:
            coco.write_panoptic(self.output / "panoptic.json", self.entries, self.tables[PANOPTIC], categories)
            written += ["panoptic.json", PANOPTIC]
        if "instances" in self.tables:
            results = self.tables["instances"]
            areas_px = compute_areas_px(result["segmentation"] for result in results)
            columns = zip(results, areas_px, strict=True)
            annotations = [{"iscrowd": 0, "area": float(area_px), **result} for result, area_px in columns]
            coco.write_instances(self.output / "instances.json", self.entries, annotations, categories)
            written.append("instances.json")
        if self.gives_classes_alone:
            dump_json(self.output / LABELS / "classes.json", [*self.model.space.names])
            written.append(LABELS)
        return [self.output / name for name in written]


def _output_names(images: Sequence[Path]) -> list[str]:
    """A PNG name for each image, all different; stems that no other image has are kept."""
    keys = [_normalize(path.stem) for path in images]
    repetitions, taken = Counter(keys), set(keys)
    names = []
    for image_id, (path, key) in enumerate(zip(images, keys, strict=True), 1):
        stem = path.stem
        if repetitions[key] > 1:
            endings = (f"_{image_id}" if number == 1 else f"_{image_id}_{number}" for number in count(1))
            stem = next(path.stem + ending for ending in endings if _normalize(path.stem + ending) not in taken)
            taken.add(_normalize(stem))
        names.append(f"{stem}.png")
    return names


def _normalize(name: str) -> str:
    """Equal for names that are one file on some system: of another case, or of composed and decomposed accents."""
    return unicodedata.normalize("NFC", name).casefold()
