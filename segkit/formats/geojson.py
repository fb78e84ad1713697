"""GeoJSON (RFC 7946) with coordinates in pixels: a FeatureCollection for each image, as QuPath and others read it.

x runs right, y down; pixel (row, column) covers [column, column + 1] x [row, row + 1].
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segkit.formats import base, image_files
from segkit.formats.base import WITH_SCORES, DatasetImage, DatasetWriter
from segkit.formats.outlines import Points, trace_rings
from segkit.formats.regions import Region, iterate_regions
from segkit.structures import CategorySet, PanopticSegmentation
from segkit.utils.files import dump_json
from segkit.utils.json_fields import Entry

SUFFIX = ".geojson"


class GeoJsonWriter(DatasetWriter):
    """Writes root/NAME.geojson for each image: a feature per segment or instance, along the edges of its pixels.

    A feature is a Polygon, or a MultiPolygon if it has several parts (4 neighbours); holes are inner rings. Its
    properties are category_id, isthing, iscrowd, score (if it has one), and QuPath's objectType and classification. The
    collection has image_id, file_name, height and width.

    Args:
        root: folder to write to.
        categories: categories of the segmentations.
    """

    prediction_options = WITH_SCORES

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        super().__init__(root, categories)
        self._names: set[str] = set()

    def image_path(self, image: DatasetImage) -> Path:
        """See base class."""
        return image_files.build_image_path(self.root, image)

    def add(
        self, image: DatasetImage, segmentation: PanopticSegmentation, annotations: list[dict[str, Any]] | None = None
    ) -> list[str]:
        """See base class; lost are segments without pixels and further keys of annotations."""
        name = image_files.get_unique_stem(image, self._names, self.root)
        areas_px = base.compute_segment_areas(image, segmentation, self.categories)
        content = {
            "type": "FeatureCollection",
            "image_id": image.image_id,
            "file_name": image.file_name,
            "height": image.size_hw[0],
            "width": image.size_hw[1],
            "features": [self._build_feature(region) for region in iterate_regions(segmentation, annotations)],
        }
        dump_json(self.root / f"{name}{SUFFIX}", content)
        self._names.add(name)
        losses = base.list_empty_segments(segmentation.segments, areas_px)
        return [*losses, *base.list_lost_keys(annotations, (base.SCORE,))]

    def _build_feature(self, region: Region) -> Entry:
        category = self.categories[region.category_id]
        polygons = [[_close(ring + np.array(region.corner_xy)) for ring in rings] for rings in trace_rings(region.crop)]
        is_single = len(polygons) == 1
        properties: Entry = {
            "objectType": "annotation",
            "classification": {"name": category.name, "color": [*category.color]},
            "category_id": category.category_id,
            "isthing": category.isthing,
            "iscrowd": region.iscrowd,
        }
        if region.score is not None:
            properties["score"] = region.score
        geometry = {
            "type": "Polygon" if is_single else "MultiPolygon",
            "coordinates": polygons[0] if is_single else polygons,
        }
        return {"type": "Feature", "geometry": geometry, "properties": properties}


def _close(ring: Points) -> list[list[int]]:
    """The corners as whole numbers, the first one again at the end."""
    corners: list[list[int]] = ring.astype(np.int64).tolist()
    return [*corners, corners[0]]
