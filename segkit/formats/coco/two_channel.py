"""panopticapi's 2-channel PNGs: red is the category_id, green the number of the segment in its category.

(0, 0) is void. Source: panopticapi converters/2channels2panoptic_coco_format.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from segkit.formats import png
from segkit.formats.base import DatasetImage, DatasetReader, UnfitImageError, list_empty_segments
from segkit.formats.coco.tables import read_classes
from segkit.formats.derive import relabel
from segkit.formats.image_files import LabelFilesWriter, find_by_stem, find_by_suffix
from segkit.formats.image_io import IMAGE_SUFFIXES
from segkit.formats.png import CHANNEL
from segkit.formats.splits import VAL_SHARE, Split, select_images
from segkit.structures import VOID, CategorySet, PanopticSegmentation, Segment
from segkit.utils import files
from segkit.utils.errors import DatasetError
from segkit.utils.issues import IssueHandler, describe_unused, raise_issue, try_read
from segkit.utils.json_fields import Location
from segkit.utils.text import abbreviate

MASKS, IMAGES, CATEGORIES = "masks", "images", "categories.json"  # below the root that is written


class TwoChannelReader(DatasetReader):
    """Reads 2-channel PNGs; the image_id is the path of PNG and image in their folders, without the suffix.

    Images without a PNG are skipped: the image folder may be shared by several datasets.

    Args:
        masks: the folder of PNGs.
        images: the image folder.
        categories: a JSON with COCO's `categories`, or only that list.
        split: "train" or "val", by the hash of the images' file names; None for all images.
        val_share: share of the images in "val", 0..1.
        on_issue: takes the code and error of a damaged PNG, of a PNG without image, both of which are left out, and of
            a second image of one name.

    Raises:
        DatasetError: a folder or the categories are missing, a category_id does not fit into a channel, or the split is
            empty.
        ConfigError: `split` or `val_share` is invalid.
    """

    format = "two-channel-png"
    marks_void = True

    def __init__(
        self,
        masks: str | Path,
        images: str | Path,
        categories: str | Path,
        *,
        split: Split | None = None,
        val_share: float = VAL_SHARE,
        on_issue: IssueHandler = raise_issue,
    ) -> None:
        self.root = self.masks = Path(masks)
        self.image_root = Path(images)
        self.categories = _read_categories(Path(categories))
        _check_channel(self.categories, categories)
        image_paths = find_by_stem(self.image_root, IMAGE_SUFFIXES, "check the path", "image-id-twice", on_issue)
        pngs = find_by_suffix(masks)
        images_found = [self._find_image(name, path, image_paths, on_issue) for name, path in pngs.items()]
        all_images = [image for image in images_found if image is not None]
        self.images = select_images(split, val_share, all_images, masks)
        self.skipped = describe_unused(
            self.image_root, "images have no PNG", [name for name in image_paths if name not in pngs]
        )

    def _find_image(
        self, name: str, path: Path, image_paths: Mapping[str, Path], on_issue: IssueHandler
    ) -> DatasetImage | None:
        if name not in image_paths:
            problem = f"expected an image {name}.* in {self.image_root}, found none"
            on_issue(
                "image-missing", DatasetError(problem, where=path, remedy="complete the images, or remove the PNG")
            )
            return None
        header = try_read(on_issue, "png-unreadable", png.read_header, path)
        file_name = image_paths[name].relative_to(self.image_root).as_posix()
        return None if header is None else DatasetImage(name, file_name, header.size_hw)

    def read_segmentation(self, image: DatasetImage) -> PanopticSegmentation:
        """See base class."""
        path = self.masks / f"{image.image_id}.png"
        runs = png.read_id_runs(path, image.size_hw)
        segments = []
        for value, area_px in runs.areas_px().items():
            number, category_id = divmod(value, CHANNEL)
            if value == VOID:
                continue
            if category_id not in self.categories or number >= CHANNEL:
                problem = f"expected a category id in R, a number in G and 0 in B, got {category_id} and {number}"
                raise DatasetError(problem, where=Location(path, image.image_id))
            segments.append(Segment(value, category_id, self.categories[category_id].isthing, area_px))
        return PanopticSegmentation.from_runs(runs, tuple(segments))


class TwoChannelWriter(LabelFilesWriter):
    """Writes root/masks/NAME.png image by image, and root/categories.json.

    Args:
        root: the folder of the dataset.
        categories: of the dataset.

    Raises:
        DatasetError: a category_id does not fit into a channel.
    """

    def __init__(self, root: str | Path, categories: CategorySet) -> None:
        super().__init__(root, categories, IMAGES)
        _check_channel(categories, root)

    def _write(
        self, image: DatasetImage, name: str, segmentation: PanopticSegmentation, areas_px: dict[int, int]
    ) -> list[str]:
        """Segments are numbered from 0 in their order; UnfitImageError for more than 256 segments of a category."""
        values: dict[int, int] = {}
        numbers: dict[int, int] = defaultdict(int)
        for segment in segmentation.segments:
            if segment.segment_id in areas_px:
                values[segment.segment_id] = segment.category_id + CHANNEL * numbers[segment.category_id]
                numbers[segment.category_id] += 1
        if (most := max(numbers.values(), default=0)) > CHANNEL:
            where = Location(self.root, image.image_id)
            raise UnfitImageError(f"expected at most {CHANNEL} segments of a category, got {most}", where=where)
        png.write_ids(self.root / MASKS / f"{name}.png", relabel(segmentation.segment_ids, values, np.int32))
        crowds = sum(s.iscrowd for s in segmentation.segments)
        losses = [f"{crowds} crowds become objects"] if crowds else []
        return [*list_empty_segments(segmentation.segments, areas_px), *losses]

    def finish(self) -> None:
        """See base class."""
        files.dump_json(self.root / CATEGORIES, {"categories": self.categories.to_coco()})


def _check_channel(categories: CategorySet, where: object) -> None:
    invalid = [c.category_id for c in categories.categories if not 0 < c.category_id < CHANNEL]
    if invalid:
        raise DatasetError(f"expected category ids in 1..255, got {abbreviate(invalid)}", where=where)


def _read_categories(path: Path) -> CategorySet:
    categories = read_classes(path)
    if not isinstance(categories, CategorySet):
        raise DatasetError("expected categories with their ids, got names only", where=path)
    return categories
