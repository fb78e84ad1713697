"""Datasets written in COCO's layouts, and as label maps; `add` writes an image and says what the layout cannot hold."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from pycocotools import mask as coco_mask

from segkit.formats import coco_instances, files, label_maps
from segkit.formats.coco_panoptic import PanopticWriter
from segkit.formats.coco_tables import check_inside
from segkit.formats.derive import coco_annotations, semantic_map
from segkit.formats.source import SourceImage
from segkit.structures import IGNORE_LABEL, CategorySet, DatasetError, PanopticSegmentation

PICTURES = "images"  # the folder of the pictures below the root
Annotations = list[dict[str, Any]] | None


class CocoPanopticWriter(PanopticWriter):
    """root/panoptic.json and root/panoptic/*.png; whatever has no overlaps fits."""

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        super().__init__(Path(root) / "panoptic.json", Path(root) / "panoptic", categories)
        self._pictures = Path(root) / PICTURES

    def picture_path(self, image: SourceImage) -> Path:
        """Where the picture belongs."""
        return self._pictures / image.file_name

    def add(  # type: ignore[override]
        self, image: SourceImage, segmentation: PanopticSegmentation, annotations: Annotations = None
    ) -> list[str]:
        """Write one image; told is how many pixels of overlapping masks are in another segment alone."""
        super().add(image.image_id, image.file_name, segmentation)
        whole = sum(int(coco_mask.area(annotation["segmentation"])) for annotation in annotations or ())
        kept = sum(segment.area_px for segment in segmentation.segments if segment.isthing)
        hidden = whole - kept if annotations else 0
        return [f"{hidden} pixels of masks lie under other masks"] if hidden > 0 else []


class CocoInstancesWriter:
    """root/instances.json: things alone, whole masks where the source has them. It appears at the end of the `with`
    block, and on an exception not."""

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        """DatasetError where there is no thing."""
        if not categories.things:
            raise DatasetError(
                "expected categories with things, all are stuff", where=root, remedy="convert to another"
            )
        self.path, self.categories = Path(root) / "instances.json", categories
        self._images: dict[Any, dict[str, Any]] = {}
        self._annotations: list[dict[str, Any]] = []

    def picture_path(self, image: SourceImage) -> Path:
        """Where the picture belongs."""
        return self.path.parent / PICTURES / image.file_name

    def __enter__(self) -> CocoInstancesWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            numbered = [{**one, "id": number} for number, one in enumerate(self._annotations, 1)]
            coco_instances.write(self.path, [*self._images.values()], numbered, self.categories)

    def add(self, image: SourceImage, segmentation: PanopticSegmentation, annotations: Annotations = None) -> list[str]:
        """Remember one image; told are its stuff and void. DatasetError for an image that was added before."""
        check_inside(image.file_name, "file_name", self.path)
        if image.image_id in self._images:
            raise DatasetError(f"an image with the id {image.image_id!r} was added before", where=self.path)
        height, width = image.size_hw
        entry = {"id": image.image_id, "file_name": image.file_name, "height": height, "width": width}
        self._images[image.image_id] = entry
        found = coco_annotations(image.image_id, segmentation) if annotations is None else annotations
        self._annotations += [{**annotation, "image_id": image.image_id} for annotation in found]
        stuff = [s for s in segmentation.segments if not s.isthing and s.area_px]
        return [f"{len(stuff)} segments of stuff cannot be held"] if stuff else []


class SemanticMapWriter:
    """root/NAME.png, 8-bit label maps: the place of the class among the categories, 255 for void; and root/classes.json
    with the names, at the end of the `with` block."""

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        """DatasetError for more classes than an 8-bit map can name."""
        self.root, self.space = Path(root), categories.semantic_space("per_class")
        if len(self.space.names) > IGNORE_LABEL:
            problem = f"expected at most {IGNORE_LABEL} classes, got {len(self.space.names)}"
            raise DatasetError(problem, where=root, remedy="convert to coco-panoptic")
        self._taken: set[Path] = set()

    def picture_path(self, image: SourceImage) -> Path:
        """Where the picture belongs."""
        return self.root / PICTURES / image.file_name

    def __enter__(self) -> SemanticMapWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            files.dump_json(self.root / "classes.json", [*self.space.names])

    def add(self, image: SourceImage, segmentation: PanopticSegmentation, annotations: Annotations = None) -> list[str]:
        """Write one map, at the image's path with the suffix .png; told is which objects became one. DatasetError for
        two images of one such path."""
        check_inside(image.file_name, "file_name", self.root)
        path = (self.root / image.file_name).with_suffix(".png")
        if path in self._taken:
            raise DatasetError("expected one image of this name", where=path, remedy="rename the images")
        self._taken.add(path)
        label_maps.write(path, semantic_map(segmentation, self.space))
        things = [s.category_id for s in segmentation.segments if s.isthing and s.area_px]
        told = [f"{len(things)} objects of {len(set(things))} classes are told apart no more"] if things else []
        crowds = sum(s.iscrowd for s in segmentation.segments)
        return [*told, f"{crowds} crowds are their class"] if crowds else told
