"""A repaired copy of a COCO panoptic dataset: what follows from the data is mended, what would be a guess stays."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segkit.curation import image_files
from segkit.curation.checks.panoptic import PNG_SUFFIX
from segkit.curation.checks.tables import is_size
from segkit.curation.issues import RunAll
from segkit.curation.repair.common import Told, load, name_in, of_size
from segkit.curation.repair.ids import Ids, agreed, key_of
from segkit.curation.repair.segments import SegmentRepair, recounted
from segkit.formats import png
from segkit.structures import VOID, IdRuns, ImageId
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry

NO_ANNOTATION = "id {} is the image_id of no annotation"
OTHER_SIZE = "left", "images", "as they are, for their PNG is of another size: is it that of another image?"
NOT_NAMED = "left out", "PNGs", "no annotation that stays names them"


def repair_panoptic(
    json_path: Path, masks: Path, images: Path, output: Path, run_all: RunAll
) -> tuple[Path, Path, list[str]]:
    """Write a repaired copy of the JSON and its PNGs below `output`, an empty or new folder; their paths, and lines on
    what was lost and what was left.

    Areas and boxes are counted in the PNGs. Ids that are integers written as text or floats become integers. Dropped
    are copies of entries, images without annotation, annotations without image, segments without pixel or category;
    their pixels, and those of no segment, become void. Segments of one stuff class are joined. A segment whose id the
    PNG lacks or another has, too, gets the one id there that has no segment and its area and box. Sizes become those
    on which PNG and image agree, palette and RGBA PNGs RGB.

    What cannot be known stays as it is: whose ids are of a wrong type, or unknown in a table that has a damaged one,
    one twice, or one that nothing refers to, which may be mistyped; and with its PNG all of an image whose PNG is of
    another size, has pixels without segment while the JSON has segments without pixels, has not half of the ids in
    common with the JSON, or of most segments neither the area nor the box.

    The originals are only read. DatasetError where the JSON cannot be read or is of another kind, or `output` is not
    empty or cannot be written; nothing is left there then.
    """
    told = Told()
    content = load(json_path, True, told)
    if not os.path.isdir(masks):
        raise DatasetError("expected a folder of PNGs, found none", where=masks, remedy="check the path")
    content["images"] = _annotated(content, told)
    folder_name = os.path.basename(os.path.abspath(masks))
    with files.new_folder(output) as folder:
        copies = folder / folder_name
        copies.mkdir()
        repair = _Repair.of(content, masks, copies, images)
        mended = []
        sizes: dict[Any, tuple[int, int]] = {}
        for one in run_all(repair.annotation, content["annotations"]):
            told.update(one.told)
            mended.append(one.annotation)
            if one.size_hw:
                sizes[key_of(one.annotation, "image_id")] = one.size_hw
        content["images"] = [of_size(image, sizes.get(key_of(image, "id"))) for image in content["images"]]
        told[NOT_NAMED] += len(image_files.find_orphans(masks, [*repair.names], "png-orphan", PNG_SUFFIX))
        files.dump_json(folder / json_path.name, {**content, "annotations": mended})
    return output / json_path.name, output / folder_name, told.lines()


def _annotated(content: Entry, told: Told) -> list[Any]:
    annotations, images = content["annotations"], content["images"]
    asked = [{"id": key_of(annotation, "image_id")} for annotation in annotations]
    image_ids = Ids.of_table(asked, json_fields.IMAGE_ID, images, "id")
    return [image for image in images if not told.is_stranger(image_ids, image, "id", "images", NO_ANNOTATION)]


@dataclass(frozen=True)
class _Repaired:
    """Of one image. size_hw: where the PNG's and the picture's agree, and it is not the entry's."""

    annotation: Any
    told: Told = field(default_factory=Told)
    size_hw: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Repair:
    """masks: the PNGs. copies: where theirs go. images: the pictures. entries: height, width and file name by image_id.
    names: how many annotations name a PNG: one of several is copied as it is."""

    masks: Path
    copies: Path
    images: Path
    entries: Mapping[ImageId, tuple[Any, ...]]
    names: Mapping[str, int]
    segments: SegmentRepair

    @classmethod
    def of(cls, content: Entry, masks: Path, copies: Path, images: Path) -> _Repair:
        annotations, categories = content["annotations"], content["categories"]
        tables = [annotation.get("segments_info") for annotation in annotations if type(annotation) is dict]
        infos = (info for table in tables if type(table) is list for info in table)
        isthing_of = agreed(categories, ("isthing",))
        stuff = frozenset(category_id for category_id, (isthing,) in isthing_of.items() if isthing in (0, False))
        segments = SegmentRepair(Ids.of_table(categories, json_fields.INTEGER, infos, "category_id"), stuff)
        entries = agreed(content["images"], ("height", "width", "file_name"))
        names = Counter(name for name in (name_in(annotation) for annotation in annotations) if name)
        return cls(masks, copies, images, entries, names, segments)

    def annotation(self, annotation: Any) -> _Repaired:
        """The repaired annotation; its PNG is written. One whose PNG does not decode stays as it is."""
        name = name_in(annotation)
        if name is None or not os.path.isfile(self.masks / name):
            return _Repaired(annotation)
        source, target = self.masks / name, self.copies / name
        target.parent.mkdir(parents=True, exist_ok=True)
        infos = annotation.get("segments_info")
        try:
            runs = png.read_id_runs(source)
        except DatasetError:
            runs = None
        if runs is None or type(infos) is not list or self.names[name] > 1:
            shutil.copyfile(source, target)
            return _Repaired(annotation)
        told = Told()
        fits, size_hw = self._size(annotation, runs.size_hw)
        told[OTHER_SIZE] += not fits
        sorted_out = self.segments(infos, runs.extents(), told) if fits else None
        if sorted_out is None:
            shutil.copyfile(source, target)
            return _Repaired(annotation, told)
        kept, value_of = sorted_out
        mended = _relabelled(runs, value_of)
        if png.read_header(source).kind == "RGB" and np.array_equal(mended.ids, runs.ids):
            shutil.copyfile(source, target)
        else:
            png.write_ids(target, mended.to_map())
        extents = mended.extents()
        return _Repaired({**annotation, "segments_info": [recounted(info, extents) for info in kept]}, told, size_hw)

    def _size(self, annotation: Entry, size_hw: tuple[int, int]) -> tuple[bool, tuple[int, int] | None]:
        """Whether a PNG of this size can be that of the image, and the size that its entry is to have instead."""
        image_id = key_of(annotation, "image_id")
        height, width, name = self.entries.get(image_id, (None,) * 3) if image_id is not None else (None,) * 3
        if (height, width) == size_hw:
            return True, None
        inside = name_in({"file_name": name})
        found = image_files.inspect_image(self.images / inside, "").size_hw if inside else None
        if found is None:
            return not is_size(height, width), None
        return found == size_hw, size_hw


def _relabelled(runs: IdRuns, value_of: Mapping[int, int]) -> IdRuns:
    ids, places = np.unique(runs.ids, return_inverse=True)
    values = np.array([value_of.get(i, VOID) for i in ids.tolist()], dtype=np.int32)
    return IdRuns(runs.size_hw, runs.starts, values[places] if len(ids) else runs.ids)
