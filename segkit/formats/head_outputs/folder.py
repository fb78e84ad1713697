"""A folder of saved head outputs: what the heads of a network gave for each image, to be fused without the network.

The folder holds `index.json` and one .npz for each image; arrays.py says what an .npz holds. The index is written last,
so that a run that was cut short is noticed. Its keys are:

- "format": version of the folder,
- "categories": as in a COCO JSON,
- "channel_names", "stuff_ids", "thing_ids": of the semantic channels,
- "images": as in a COCO JSON, each entry with "outputs", the name of its .npz.
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
    """An image whose head outputs are saved.

    Attributes:
        image_id: id of the image.
        file_name: path of the image inside the image folder.
        size_hw: (height, width) in pixels.
        outputs: name of the .npz in the folder.
    """

    image_id: ImageId
    file_name: str
    size_hw: tuple[int, int]
    outputs: str


@dataclass(frozen=True)
class SavedHeadOutputs:
    """The index of a folder of head outputs.

    Attributes:
        folder: the folder.
        categories: categories of the dataset.
        channel_names: names of the semantic channels.
        stuff_ids: (C,) int64, see SemanticScores.
        thing_ids: (C,) int64, see SemanticScores.
        images: in the order of the dataset.
    """

    folder: Path
    categories: CategorySet
    channel_names: tuple[str, ...]
    stuff_ids: NDArray[np.int64]
    thing_ids: NDArray[np.int64]
    images: tuple[SavedImage, ...]

    def __len__(self) -> int:
        return len(self.images)

    def get_location(self, image: SavedImage) -> Location:
        """Where the head outputs of an image are, for messages.

        Args:
            image: one of `images`.

        Returns:
            The .npz and the image id.
        """
        return Location(self.folder / image.outputs, image.image_id)

    def read(self, image: SavedImage) -> HeadOutputs:
        """Read the head outputs of an image. Nothing in the file is executed.

        Args:
            image: one of `images`.

        Returns:
            What `round_head_outputs` gives for the outputs that were written.

        Raises:
            DatasetError: the file is missing, damaged, cut short, of another size than the index says, claims to be
                larger than it can be, or contradicts itself or the categories.
        """
        where = self.get_location(image)
        try:
            with where.path.open("rb") as file, zipfile.ZipFile(file) as archive:
                arrays = read_arrays(archive, image.size_hw, len(self.stuff_ids))
            outputs = from_arrays(arrays, image.size_hw, self.stuff_ids, self.thing_ids)
            check_ids(outputs, self.categories, self.stuff_ids, self.thing_ids)
        except FileNotFoundError:
            raise DatasetError("expected a file, found nothing", where=where, remedy=SAVE_AGAIN) from None
        except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds for damaged files
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            problem = f"expected the head outputs of this image, got something else ({reason})"
            raise DatasetError(problem, where=where, remedy=SAVE_AGAIN) from None
        return outputs


def load(folder: str | Path) -> SavedHeadOutputs:
    """Read the index of a folder, without opening any .npz.

    Args:
        folder: folder of saved head outputs.

    Returns:
        The index.

    Raises:
        DatasetError: the folder, its index or the .npz of an image is missing; the index is of another format or
            contradicts itself.
    """
    path = Path(folder) / INDEX
    if not path.parent.is_dir():
        problem = "expected a folder of saved head outputs, found none"
        raise DatasetError(problem, where=path.parent, remedy="check the path")
    if not path.exists():
        problem = f"expected saved head outputs, found no {INDEX}: was saving them cut short?"
        raise DatasetError(problem, where=path.parent, remedy=SAVE_AGAIN)
    saved = _parse(files.load_json(path), path)
    names = set(os.listdir(path.parent))
    if missing := [image.outputs for image in saved.images if image.outputs not in names]:
        problem = f"{len(missing)} of the {len(saved)} files of its images are missing: {abbreviate(missing)}"
        raise DatasetError(problem, where=path, remedy=SAVE_AGAIN)
    return saved


def write_image(folder: str | Path, name: str, outputs: HeadOutputs, keep_logits: int) -> None:
    """Write the head outputs of an image as an .npz, whole or not at all.

    Args:
        folder: folder to write to; it is made if it is missing.
        name: name of the .npz.
        outputs: head outputs of the image.
        keep_logits: see `round_head_outputs`.

    Raises:
        ValueError: keep_logits is negative, or the outputs are larger than `LIMITS` or MAX_CHANNELS allow.
    """
    arrays = to_arrays(outputs, keep_logits)
    specs = {key: (array.dtype, array.shape) for key, array in arrays.items()}
    check_specs(specs, outputs.semantic.size_hw, len(outputs.semantic.stuff_ids))
    with files.replacing(Path(folder) / name) as neighbour:
        write_arrays(neighbour, arrays)


def write_index(
    folder: str | Path, images: Sequence[SavedImage], categories: CategorySet, space: SemanticSpace
) -> None:
    """Write the index, whole or not at all.

    Args:
        folder: folder to which `write_image` wrote.
        images: the images, in the order of the dataset.
        categories: categories of the dataset.
        space: the semantic channels.

    Raises:
        DatasetError: `load` would refuse the index: image ids or .npz names repeat, names lead out of a folder, or the
            space has other categories.
    """
    path = Path(folder) / INDEX
    content = {
        "format": FORMAT,
        "categories": categories.to_coco(),
        "channel_names": [*space.names],
        "stuff_ids": space.stuff_ids.tolist(),
        "thing_ids": space.thing_ids.tolist(),
        "images": [
            {"id": image.image_id, "file_name": image.file_name, "outputs": image.outputs}
            | dict(zip(("height", "width"), image.size_hw, strict=True))
            for image in images
        ],
    }
    _parse(content, path)
    files.dump_json(path, content)


def round_head_outputs(outputs: HeadOutputs, keep_logits: int) -> HeadOutputs:
    """Round head outputs as writing and reading them does; applying it twice changes nothing.

    mask_probs, logits, heatmap and offsets_yx are clipped to the range of float16 and rounded to it. channels become
    uint8, or uint16 for more than 256 channels. Everything else stays as it is.

    Args:
        outputs: head outputs of an image.
        keep_logits: how many channels keep their logits at each pixel: those with the highest ones, of equal logits the
            first; 0 keeps none, and C or more keep all.

    Returns:
        A rounded copy.

    Raises:
        ValueError: keep_logits is negative.
    """
    semantic = outputs.semantic
    return from_arrays(to_arrays(outputs, keep_logits), semantic.size_hw, semantic.stuff_ids, semantic.thing_ids)


def check_ids(
    outputs: HeadOutputs, categories: CategorySet, stuff_ids: NDArray[np.int64], thing_ids: NDArray[np.int64]
) -> None:
    """Check classes, boxes, scores and probabilities of head outputs.

    Args:
        outputs: head outputs of an image.
        categories: categories of the dataset.
        stuff_ids: (C,) int64, expected stuff class of each semantic channel.
        thing_ids: (C,) int64, expected thing class of each semantic channel.

    Raises:
        ValueError: the semantic channels are others; a class is none of the categories; a box or score is not finite;
            or a mask probability is outside [0, 1].
    """
    semantic = outputs.semantic
    if not np.array_equal(semantic.stuff_ids, stuff_ids) or not np.array_equal(semantic.thing_ids, thing_ids):
        expected = f"({len(stuff_ids)} channels: stuff_ids {abbreviate(stuff_ids.tolist())})"
        got = f"({len(semantic.stuff_ids)} channels: stuff_ids {abbreviate(semantic.stuff_ids.tolist())})"
        raise ValueError(f"the semantic channels must be those of the categories {expected}, got {got}")
    groups = [("instances", outputs.instances, range(len(categories.things)))]
    if outputs.stuff_masks is not None:
        groups.append(("stuff_masks", outputs.stuff_masks, range(THING_CHANNEL + 1, len(categories.stuff) + 1)))
    for name, masks, class_ids in groups:
        if unknown := {*masks.class_ids.tolist()}.difference(class_ids):
            problem = f"must be in {class_ids.start}..{class_ids.stop - 1}, as the categories are, got"
            raise ValueError(f"class_ids of {name} {problem} {abbreviate(sorted(unknown))}")
        if not np.isfinite(masks.boxes_xyxy).all() or not np.isfinite(masks.scores).all():
            raise ValueError(f"boxes_xyxy and scores of {name} must be finite")
        probs = masks.mask_probs
        if probs is not None and probs.size and not (probs.min() >= 0 and probs.max() <= 1):
            raise ValueError(f"mask_probs of {name} must be in [0, 1], got {probs.min()}..{probs.max()}")


def _parse(content: Any, path: Path) -> SavedHeadOutputs:
    if type(content) is not dict:
        problem = f"expected the index of saved head outputs, got a {type(content).__name__}"
        raise DatasetError(problem, where=path, remedy=SAVE_AGAIN)
    if (got := json_fields.get_field(content, "format", json_fields.INTEGER, path)) != FORMAT:
        problem = f"expected saved head outputs of format {FORMAT}, got {got}"
        raise DatasetError(problem, where=path, remedy=f"{SAVE_AGAIN} with this version of segkit")
    categories = coco.read_categories(content, path)
    channels = _read_channels(content, categories, path)
    images: dict[str, SavedImage] = {}  # by name of the .npz
    for image_id, entry in coco.read_images(content, path).items():
        where = Location(path, image_id)
        outputs = json_fields.get_field(entry, "outputs", json_fields.TEXT, where)
        json_fields.check_inside(outputs, "outputs", where)
        if outputs in images or Path(outputs).name != outputs:
            raise DatasetError(f"expected `outputs` to name a file of this image alone, got {outputs!r}", where=where)
        images[outputs] = SavedImage(image_id, entry["file_name"], (entry["height"], entry["width"]), outputs)
    names, stuff_ids, thing_ids = tuple(content["channel_names"]), channels.stuff_ids, channels.thing_ids
    return SavedHeadOutputs(path.parent, categories, names, stuff_ids, thing_ids, tuple(images.values()))


def _read_channels(content: Entry, categories: CategorySet, path: Path) -> SemanticScores:
    """The semantic channels, as scores without a pixel; DatasetError if the channels contradict each other."""
    names, stuff_ids, thing_ids = (json_fields.get_field(content, key, json_fields.LIST, path) for key in CHANNEL_KEYS)
    if not len(names) == len(stuff_ids) == len(thing_ids) or not 1 <= len(names) <= MAX_CHANNELS:
        lengths = f"{len(names)}, {len(stuff_ids)} and {len(thing_ids)}"
        problem = f"expected {', '.join(CHANNEL_KEYS)} of one length in 1..{MAX_CHANNELS}, got {lengths}"
        raise DatasetError(problem, where=path)
    stuff_range, thing_range = range(len(categories.stuff) + 1), range(NO_THING, len(categories.things))
    for channel, (name, stuff_id, thing_id) in enumerate(zip(names, stuff_ids, thing_ids, strict=True)):
        is_valid = type(name) is str and type(stuff_id) is int and type(thing_id) is int
        if not is_valid or stuff_id not in stuff_range or thing_id not in thing_range:
            problem = f"expected a name and contiguous ids of the categories, got {name!r}, {stuff_id!r}, {thing_id!r}"
            raise DatasetError(problem, where=f"{path}, channel {channel}")
    try:
        return SemanticScores(np.zeros((0, 0), dtype=np.uint8), np.array(stuff_ids), np.array(thing_ids))
    except ValueError as error:
        raise DatasetError(f"the channels contradict each other: {error}", where=path) from None
