"""A repaired copy of a COCO panoptic dataset."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from segkit.curation.checks.panoptic import PNG_SUFFIX
from segkit.curation.image_files import find_orphans, inspect_image
from segkit.curation.issues import RunAll
from segkit.curation.repair.ids import IdTable, collect_values, get_id, get_value
from segkit.curation.repair.segments import SegmentRepair, correct_measures
from segkit.curation.repair.tables import (
    ENTRY_KEYS,
    RepairLog,
    SizeHW,
    correct_names,
    correct_sizes,
    get_file_name,
    load_tables,
)
from segkit.formats import png
from segkit.formats.coco import validation
from segkit.structures import VOID, IdRuns
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry
from segkit.utils.links import check_link

NO_ANNOTATION = "no annotation has the image_id {}"
OTHER_SIZE = "left unchanged", "images", "their PNG has another size: is it the PNG of another image?"
UNNAMED = "left out", "PNGs", "no remaining annotation names them"


def repair_panoptic(
    json_path: str | Path, masks: str | Path, images: str | Path, output: str | Path, run_all: RunAll
) -> tuple[Path, Path, list[str]]:
    """Write a repaired copy of a COCO panoptic JSON and its PNGs.

    Corrected:
    - Ids that are integers written as text or float become integers.
    - File names that are spelled otherwise than the files become those of the files.
    - Areas and boxes are computed from the PNGs.
    - Sizes become those of PNG and image file, if these two agree.
    - Segments of the same stuff class are joined.
    - A segment whose id is not in the PNG, or belongs to another segment, gets another id of the PNG: the one that no
      segment has and that alone has the area and box of the segment.
    - PNGs with a palette or alpha become RGB.

    Dropped:
    - copies of entries;
    - images without annotation, and annotations without image;
    - segments without pixel or category; their pixels become void, as do pixels of no segment.

    Left unchanged, because a repair would be a guess:
    - entries with an id of a wrong type;
    - entries with an unknown id, if the table has an id that may be mistyped: damaged, repeated, or unused;
    - all segments and the PNG of an image, if the PNG seems to belong to another image: it has another size; or some
      pixels have no segment while some segments have no pixel; or fewer than half of the ids are both in the PNG and
      the JSON; or most segments have neither the area nor the box in the PNG.

    Args:
        json_path: The JSON; only read.
        masks: The folder of its PNGs; only read.
        images: The image folder.
        output: An empty or new folder for the copy.
        run_all: `map`, or a parallel one.

    Returns:
        The paths of the JSON and of the PNG folder of the copy, and lines on what was changed, dropped and left
        unchanged.

    Raises:
        DatasetError: The JSON cannot be read or is of another kind, or `output` is not empty or cannot be written.
            Nothing is left in `output` then.
    """
    json_path, masks, images, output = Path(json_path), Path(masks), Path(images), Path(output)
    log = RepairLog()
    content = load_tables(json_path, True, log)
    if not os.path.isdir(masks):
        raise DatasetError("expected a folder of PNGs, got none", where=masks, remedy="check the path")
    content["images"] = correct_names(_drop_images_without_annotation(content, log), images, "images", log)
    content["annotations"] = correct_names(content["annotations"], masks, "PNGs", log)
    folder_name = os.path.basename(os.path.abspath(masks))
    with files.new_folder(output) as folder:
        copies = folder / folder_name
        copies.mkdir()
        repair = _PanopticRepair(content, masks, copies, images)
        annotations = []
        sizes: dict[Any, SizeHW | None] = {}
        for annotation, annotation_log, size_hw in run_all(repair.repair_annotation, content["annotations"]):
            log.update(annotation_log)
            annotations.append(annotation)
            if size_hw:
                sizes[get_id(annotation, "image_id")] = size_hw
        content["images"] = correct_sizes(content["images"], sizes)
        log[UNNAMED] += len(find_orphans(masks, [*repair.times_named], "png-orphan", PNG_SUFFIX))
        files.dump_json(folder / json_path.name, {**content, "annotations": annotations})
    return output / json_path.name, output / folder_name, log.lines()


def _drop_images_without_annotation(content: Entry, log: RepairLog) -> list[Any]:
    image_ids = [{"id": get_id(annotation, "image_id")} for annotation in content["annotations"]]
    annotated = IdTable.from_table(image_ids, json_fields.IMAGE_ID, content["images"], "id")
    return [image for image in content["images"] if not log.must_drop(annotated, image, "id", "images", NO_ANNOTATION)]


class _PanopticRepair:
    """The repair of single images.

    masks: folder of the PNGs. copies: folder for the repaired PNGs. images: the image folder.
    """

    def __init__(self, content: Entry, masks: Path, copies: Path, images: Path) -> None:
        self.masks, self.copies, self.images = masks, copies, images
        annotations, categories = content["annotations"], content["categories"]
        tables = [get_value(annotation, "segments_info") for annotation in annotations]
        infos = (info for table in tables if type(table) is list for info in table)
        isthing_by_id = collect_values(categories, ("isthing",))
        stuff = frozenset(category_id for category_id, (isthing,) in isthing_by_id.items() if isthing in (0, False))
        category_ids = IdTable.from_table(categories, json_fields.INTEGER, infos, "category_id")
        self.segments = SegmentRepair(category_ids, stuff)
        self.entries: Mapping[Any, tuple[Any, ...]] = collect_values(content["images"], ENTRY_KEYS)
        self.times_named = Counter(name for name in map(get_file_name, annotations) if name)

    def repair_annotation(self, annotation: Any) -> tuple[Any, RepairLog, SizeHW | None]:
        """Repair an annotation and write its PNG; if the PNG does not decode, both stay unchanged.

        The result has the size of PNG and image file, if they agree and the entry has another size.
        """
        name, log = get_file_name(annotation), RepairLog()
        if name is None or not os.path.isfile(self.masks / name):
            return annotation, log, None
        source, target = self.masks / name, self.copies / name
        check_link(source, [self.masks], "replace the link by the file")
        target.parent.mkdir(parents=True, exist_ok=True)
        infos, result, runs = annotation.get("segments_info"), None, None
        with suppress(DatasetError):
            runs = png.read_id_runs(source)
        if runs is not None and type(infos) is list and self.times_named[name] == 1:  # a shared PNG stays unchanged
            fits, size_hw = self._compare_size(annotation, runs.size_hw)
            log[OTHER_SIZE] += not fits
            result = self.segments.repair(infos, runs.extents(), log) if fits else None
        if runs is None or result is None:
            shutil.copyfile(source, target)
            return annotation, log, None
        infos, new_ids = result
        repaired = _replace_ids(runs, new_ids)
        if png.read_header(source).kind == "RGB" and np.array_equal(repaired.ids, runs.ids):
            shutil.copyfile(source, target)
        else:
            png.write_ids(target, repaired.to_map())
        extents = repaired.extents()
        infos = [correct_measures(info, extents) for info in infos]
        return {**annotation, "segments_info": infos}, log, size_hw

    def _compare_size(self, annotation: Entry, size_hw: SizeHW) -> tuple[bool, SizeHW | None]:
        """Whether the image may have the size of its PNG, and the size if the entry is to be corrected."""
        height, width, name = self.entries.get(get_id(annotation, "image_id"), (None,) * 3)
        if (height, width) == size_hw:
            return True, None
        name = get_file_name({"file_name": name})
        actual = inspect_image(self.images / name, "").size_hw if name else None
        if actual is None:
            return not validation.is_size(height, width), None
        return actual == size_hw, size_hw


def _replace_ids(runs: IdRuns, new_ids: Mapping[int, int]) -> IdRuns:
    """The runs with new ids; ids without a new one become void."""
    ids, rows = np.unique(runs.ids, return_inverse=True)
    values = np.array([new_ids.get(i, VOID) for i in ids.tolist()], dtype=np.int32)
    return IdRuns(runs.size_hw, runs.starts, values[rows] if len(ids) else runs.ids)
