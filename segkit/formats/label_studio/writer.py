"""Label Studio's tasks.json with predictions, and the configuration of a project that shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from segkit.formats import base
from segkit.formats.base import WITH_SCORES, DatasetImage, DatasetWriter
from segkit.formats.image_files import build_image_path
from segkit.formats.label_studio.brush import encode_brush
from segkit.formats.outlines import join_pieces, trace_rings
from segkit.formats.regions import Region, iterate_regions
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.files import dump_json, replacing
from segkit.utils.json_fields import Entry, Location, check_inside
from segkit.utils.text import abbreviate

TASKS, CONFIG, IMAGES = "tasks.json", "label_config.xml", "images"
BRUSH, POLYGONS = "brush", "polygons"
KINDS = {BRUSH: ("brushlabels", "BrushLabels"), POLYGONS: ("polygonlabels", "PolygonLabels")}  # type, tag
IMAGE, LABEL = "image", "label"  # names of the tags in the configuration
PERCENT = 100


class LabelStudioWriter(DatasetWriter):
    """Writes root/tasks.json, to import into a project, and root/label_config.xml, its labelling interface.

    A task has one prediction with a result for each segment or instance, and its score.

    Args:
        root: folder to write to.
        categories: categories of the segmentations; their names are the labels.
        shapes: "brush", masks; or "polygons" in percent of the image, one for each object: holes and parts are joined
            by lines without width.
        url: text before the file name of an image, such as "/data/local-files/?d=photos/".
        model_version: name of the model, which Label Studio shows.

    Raises:
        ConfigError: an option has another value.
        DatasetError: two categories have one name.
    """

    prediction_options = WITH_SCORES

    def __init__(
        self,
        root: str | Path,
        categories: CategorySet,
        *,
        shapes: str = BRUSH,
        url: str = "",
        model_version: str = "segkit",
    ) -> None:
        super().__init__(root, categories)
        if shapes not in KINDS:
            raise ConfigError(f"expected shapes to be one of {', '.join(KINDS)}, got {shapes!r}")
        for key, text in (("url", url), ("model_version", model_version)):
            if not isinstance(text, str):
                raise ConfigError(f"expected {key} to be text, got {text!r}")
        names = [category.name for category in categories.categories]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            problem = f"expected categories of different names, got {abbreviate(repeated)} more than once"
            raise DatasetError(problem, where=root, remedy="rename one")
        self._shapes, self._url, self._model_version = shapes, url, model_version
        self._tasks: dict[Any, Entry] = {}

    def image_path(self, image: DatasetImage) -> Path:
        """See base class."""
        return build_image_path(self.root / IMAGES, image)

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """See base class; lost are crowds, which become objects, segments without pixels, and further keys."""
        where = Location(self.root / TASKS, image.image_id)
        check_inside(image.file_name, "file_name", where)
        if image.image_id in self._tasks:
            raise DatasetError("an image with this id was added before", where=where)
        areas_px = base.compute_segment_areas(image, segmentation, self.categories)
        regions = [*iterate_regions(segmentation, annotations)]
        results = [self._build_result(region, number, image) for number, region in enumerate(regions, 1)]
        scores = [region.score for region in regions if region.score is not None]
        prediction: Entry = {"model_version": self._model_version, "result": results}
        if scores:
            prediction["score"] = sum(scores) / len(scores)
        url = f"{self._url}{quote(image.file_name) if self._url else image.file_name}"
        self._tasks[image.image_id] = {
            "data": {IMAGE: url, "image_id": image.image_id},
            "predictions": [prediction],
        }
        crowds = sum(region.iscrowd for region in regions)
        losses = [f"{crowds} crowds are objects"] if crowds else []
        losses += base.list_empty_segments(segmentation.segments, areas_px)
        return [*losses, *base.list_lost_keys(annotations, (base.SCORE,))]

    def finish(self) -> None:
        """See base class."""
        dump_json(self.root / TASKS, [*self._tasks.values()])
        with replacing(self.root / CONFIG) as temporary:
            temporary.write_text(self._build_config(), encoding="utf-8")

    def _build_result(self, region: Region, number: int, image: DatasetImage) -> Entry:
        kind, _ = KINDS[self._shapes]
        result: Entry = {
            "id": f"region-{number}",
            "type": kind,
            "from_name": LABEL,
            "to_name": IMAGE,
            "original_width": image.size_hw[1],
            "original_height": image.size_hw[0],
            "image_rotation": 0,
            "value": {**self._build_shape(region, image), kind: [self.categories[region.category_id].name]},
        }
        return result if region.score is None else {**result, "score": region.score}

    def _build_shape(self, region: Region, image: DatasetImage) -> Entry:
        if self._shapes == BRUSH:
            return {"format": "rle", "rle": encode_brush(region.paint(image.size_hw))}
        height, width = image.size_hw
        outline = join_pieces([ring for rings in trace_rings(region.crop) for ring in rings]) + region.corner_xy
        return {"points": (outline * PERCENT / (width, height)).tolist(), "closed": True}

    def _build_config(self) -> str:
        tag = KINDS[self._shapes][1]
        labels = [
            f'    <Label value={quoteattr(category.name)} background="#{bytes(category.color).hex()}"/>'
            for category in self.categories.categories
        ]
        image = f'  <Image name="{IMAGE}" value="${IMAGE}"/>'
        lines = ["<View>", image, f'  <{tag} name="{LABEL}" toName="{IMAGE}">', *labels, f"  </{tag}>", "</View>"]
        return "".join(f"{line}\n" for line in lines)
