"""Saved head outputs: what the heads of a network said of each image, in a folder, to be fused again without it.

The folder holds `index.json` and one .npz for each image. The index is written last, so that a run that was cut short
is noticed: {"format", "categories": COCO's list, "channel_names", "stuff_ids", "thing_ids": of the semantic channels,
"images": COCO's table, each entry with "outputs", the name of its .npz}. arrays.py says what that holds.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.formats import coco
from segkit.formats.head_outputs.arrays import (
    MAX_CHANNELS,
    check_specs,
    from_arrays,
    read_arrays,
    to_arrays,
    write_arrays,
)
from segkit.structures import NO_THING, THING_CHANNEL, CategorySet, HeadOutputs, ImageId, SemanticScores, SemanticSpace
from segkit.utils import files, json_fields
from segkit.utils.errors import DatasetError
from segkit.utils.json_fields import Entry, Location
from segkit.utils.text import abbreviate

INDEX = "index.json"
FORMAT = 1  # of the folder
SAVE_AGAIN = "save the predictions again"
CHANNEL_KEYS = ("channel_names", "stuff_ids", "thing_ids")


@dataclass(frozen=True)
class SavedImage:
    """file_name: of the image, inside the image folder. size_hw: pixels. outputs: name of its .npz in the folder."""

    image_id: ImageId
    file_name: str
    size_hw: tuple[int, int]
    outputs: str


@dataclass(frozen=True)
class SavedHeadOutputs:
    """A folder of head outputs, as `load` finds it; images in the order of the dataset.

    channel_names: one per semantic channel; stuff_ids, thing_ids: (C,) int64, see SemanticScores.
    """

    folder: Path
    categories: CategorySet
    channel_names: tuple[str, ...]
    stuff_ids: NDArray[np.int64]
    thing_ids: NDArray[np.int64]
    images: tuple[SavedImage, ...]

    def __len__(self) -> int:
        return len(self.images)

    def place(self, image: SavedImage) -> Location:
        """The image's .npz and id, for messages."""
        return Location(self.folder / image.outputs, image.image_id)

    def read(self, image: SavedImage) -> HeadOutputs:
        """What `write_image` wrote, which is `round_head_outputs` of what it was given.

        Raises DatasetError where the file is missing, damaged, cut short, of another size than the index says,
        contradicts itself or the categories, or claims to be larger than it can be. Nothing in it is executed.
        """
        where = self.place(image)
        try:
            with where.path.open("rb") as file, zipfile.ZipFile(file) as archive:
                arrays = read_arrays(archive, image.size_hw, len(self.stuff_ids))
            outputs = from_arrays(arrays, image.size_hw, self.stuff_ids, self.thing_ids)
            check_ids(outputs, self.categories, self.stuff_ids, self.thing_ids)
        except FileNotFoundError:
            raise DatasetError("expected a file, found nothing", where=where, remedy=SAVE_AGAIN) from None
        except Exception as error:  # numpy, zipfile and zlib have a dozen for files that are something else
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            problem = f"expected the head outputs of this image, got something else ({what})"
            raise DatasetError(problem, where=where, remedy=SAVE_AGAIN) from None
        return outputs


def load(folder: str | Path) -> SavedHeadOutputs:
    """The saved head outputs in a folder, without opening any .npz.

    Raises DatasetError where the folder or its index is missing, the index is of another format or contradicts itself,
    or the .npz of an image is missing.
    """
    path = Path(folder) / INDEX
    if not path.parent.is_dir():
        problem = "expected a folder of saved head outputs, found none"
        raise DatasetError(problem, where=path.parent, remedy="check the path")
    if not path.exists():
        problem = f"expected saved head outputs, found no {INDEX}: was saving them cut short?"
        raise DatasetError(problem, where=path.parent, remedy=SAVE_AGAIN)
    saved = _parse(files.load_json(path), path)
    there = set(os.listdir(path.parent))
    if missing := [image.outputs for image in saved.images if image.outputs not in there]:
        problem = f"{len(missing)} of the {len(saved)} files of its images are missing: {abbreviate(missing)}"
        raise DatasetError(problem, where=path, remedy=SAVE_AGAIN)
    return saved


def write_image(folder: str | Path, name: str, outputs: HeadOutputs, keep_logits: int) -> None:
    """Writes folder/name, an .npz, whole or not at all; makes the folder.

    keep_logits: see `round_head_outputs`. ValueError for a negative one, and outputs beyond `LIMITS` and MAX_CHANNELS.
    """
    arrays = to_arrays(outputs, keep_logits)
    specs = {key: (array.dtype, array.shape) for key, array in arrays.items()}
    check_specs(specs, outputs.semantic.size_hw, len(outputs.semantic.stuff_ids))
    with files.replacing(Path(folder) / name) as neighbour:
        write_arrays(neighbour, arrays)


def write_index(
    folder: str | Path, images: Sequence[SavedImage], categories: CategorySet, space: SemanticSpace
) -> None:
    """Writes the index of images that `write_image` wrote, whole or not at all; space: of the semantic channels.

    Raises DatasetError for what `load` would refuse: repeated image ids or .npz, names that lead out of a folder, a
    space of other categories.
    """
    path = Path(folder) / INDEX
    content = {
        "format": FORMAT,
        "categories": categories.to_coco(),
        "channel_names": [*space.names],
        "stuff_ids": space.stuff_ids.tolist(),
        "thing_ids": space.thing_ids.tolist(),
        "images": [_entry(image) for image in images],
    }
    _parse(content, path)
    files.dump_json(path, content)


def round_head_outputs(outputs: HeadOutputs, keep_logits: int) -> HeadOutputs:
    """What is read back after `write_image` of these outputs; of what comes out it makes an equal copy.

    mask_probs, logits, heatmap and offsets_yx are rounded to float16, after clipping to its range; all else stays as it
    is. keep_logits: of C channels, those of the highest logits at each pixel that are kept, of equal ones the first;
    all where it is C or more, none where it is 0. channels become uint8, uint16 where C is above 256.
    ValueError for a negative keep_logits.
    """
    semantic = outputs.semantic
    return from_arrays(to_arrays(outputs, keep_logits), semantic.size_hw, semantic.stuff_ids, semantic.thing_ids)


def check_ids(
    outputs: HeadOutputs, categories: CategorySet, stuff_ids: NDArray[np.int64], thing_ids: NDArray[np.int64]
) -> None:
    """ValueError where the outputs' semantic channels are not these, a class is none of the categories, or a box or
    score is not finite, or a mask probability is outside [0, 1]."""
    semantic = outputs.semantic
    if not np.array_equal(semantic.stuff_ids, stuff_ids) or not np.array_equal(semantic.thing_ids, thing_ids):
        expected = f"({len(stuff_ids)} channels: stuff_ids {abbreviate(stuff_ids.tolist())})"
        got = f"({len(semantic.stuff_ids)} channels: stuff_ids {abbreviate(semantic.stuff_ids.tolist())})"
        raise ValueError(f"the semantic channels must be those of the categories {expected}, got {got}")
    groups = (
        ("instances", outputs.instances, range(len(categories.things))),
        ("stuff_masks", outputs.stuff_masks, range(THING_CHANNEL + 1, len(categories.stuff) + 1)),
    )
    for name, masks, known in groups:
        if masks is None:
            continue
        if strange := {*masks.class_ids.tolist()}.difference(known):
            problem = f"must be in {known.start}..{known.stop - 1}, as the categories are, got"
            raise ValueError(f"class_ids of {name} {problem} {abbreviate(sorted(strange))}")
        if not np.isfinite(masks.boxes_xyxy).all() or not np.isfinite(masks.scores).all():
            raise ValueError(f"boxes_xyxy and scores of {name} must be finite")
        probs = masks.mask_probs
        if probs is not None and probs.size and not (probs.min() >= 0 and probs.max() <= 1):
            raise ValueError(f"mask_probs of {name} must be in [0, 1], got {probs.min()}..{probs.max()}")


def _entry(image: SavedImage) -> Entry:
    height, width = image.size_hw
    named = {"id": image.image_id, "file_name": image.file_name}
    return {**named, "height": height, "width": width, "outputs": image.outputs}


def _parse(content: Any, path: Path) -> SavedHeadOutputs:
    if type(content) is not dict:
        problem = f"expected the index of saved head outputs, got a {type(content).__name__}"
        raise DatasetError(problem, where=path, remedy=SAVE_AGAIN)
    if (got := json_fields.get_field(content, "format", json_fields.INTEGER, path)) != FORMAT:
        problem = f"expected saved head outputs of format {FORMAT}, got {got}"
        raise DatasetError(problem, where=path, remedy=f"{SAVE_AGAIN} with this version of segkit")
    categories = coco.read_categories(content, path)
    names, stuff_ids, thing_ids = _channels(content, categories, path)
    images = []
    taken: set[str] = set()
    for image_id, entry in coco.read_images(content, path).items():
        where = Location(path, image_id)
        outputs = json_fields.get_field(entry, "outputs", json_fields.TEXT, where)
        json_fields.check_inside(outputs, "outputs", where)
        if outputs in taken or Path(outputs).name != outputs:
            raise DatasetError(f"expected `outputs` to name a file of this image alone, got {outputs!r}", where=where)
        taken.add(outputs)
        images.append(SavedImage(image_id, entry["file_name"], (entry["height"], entry["width"]), outputs))
    return SavedHeadOutputs(path.parent, categories, names, stuff_ids, thing_ids, tuple(images))


def _channels(
    content: Entry, categories: CategorySet, path: Path
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    names, stuff_ids, thing_ids = (json_fields.get_field(content, key, json_fields.LIST, path) for key in CHANNEL_KEYS)
    if not len(names) == len(stuff_ids) == len(thing_ids) or not 1 <= len(names) <= MAX_CHANNELS:
        lengths = f"{len(names)}, {len(stuff_ids)} and {len(thing_ids)}"
        problem = f"expected {', '.join(CHANNEL_KEYS)} of one length in 1..{MAX_CHANNELS}, got {lengths}"
        raise DatasetError(problem, where=path)
    known_stuff, known_things = range(len(categories.stuff) + 1), range(NO_THING, len(categories.things))
    for channel, (name, stuff_id, thing_id) in enumerate(zip(names, stuff_ids, thing_ids, strict=True)):
        sound = type(name) is str and type(stuff_id) is int and type(thing_id) is int
        if not sound or stuff_id not in known_stuff or thing_id not in known_things:
            problem = f"expected a name and contiguous ids of the categories, got {name!r}, {stuff_id!r}, {thing_id!r}"
            raise DatasetError(problem, where=f"{path}, channel {channel}")
    try:
        none = SemanticScores(np.zeros((0, 0), dtype=np.uint8), np.array(stuff_ids), np.array(thing_ids))
    except ValueError as error:
        raise DatasetError(f"the channels contradict each other: {error}", where=path) from None
    return tuple(names), none.stuff_ids, none.thing_ids
