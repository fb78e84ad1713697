"""Saved head outputs: what the heads of a network said of each image, in a folder, to be fused again without it.

The folder holds `index.json` and one .npz for each image. The index is written last, so that a run that was cut short
is noticed: {"format", "categories": COCO's list, "channel_names", "stuff_ids", "thing_ids": of the semantic channels,
"images": COCO's table, each entry with "outputs", the name of its .npz}. `LAYOUT` says what an .npz holds.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.formats import coco_tables as coco
from segkit.formats import files
from segkit.formats.coco_tables import Entry, ImageId, Place
from segkit.structures import (
    NO_THING,
    THING_CHANNEL,
    CategorySet,
    CenterOffsets,
    DatasetError,
    HeadOutputs,
    InstanceMasks,
    SemanticScores,
    SemanticSpace,
)
from segkit.structures.compiled import COMPILED, compiled

Arrays = Mapping[str, NDArray[Any]]
Layout = dict[str, tuple[str, tuple[str, ...]]]

INDEX = "index.json"
FORMAT = 1  # of the folder
SAVE_AGAIN = "save the predictions again"
LEVEL = 1  # of deflate: what it packs gets a little larger than at 6, in a third of the time
MAX_CHANNELS = 2**16
HALF_MAX = 65504.0  # the largest finite float16
CHANNEL_KEYS = ("channel_names", "stuff_ids", "thing_ids")
# Of an axis, far more than a network makes: a file that claims more is refused before it is unpacked.
LIMITS = {"letters": 2**10, "N": 2**16, "m": 2**12, "m'": 2**12}


def _masks_layout(group: str) -> Layout:
    return {
        f"{group}_class_ids": ("<i8", (f"{group} N",)),
        f"{group}_scores": ("<f4", (f"{group} N",)),
        f"{group}_boxes_xyxy": ("<f4", (f"{group} N", "4")),
        f"{group}_corners_xy": ("<i8", (f"{group} N", "2")),
        f"{group}_sizes_hw": ("<i8", (f"{group} N", "2")),  # of the crops
        # The pixels of all crops in reading order, one crop after the other, as bits.
        f"{group}_crops": ("|u1", (f"{group} bytes",)),
        f"{group}_mask_probs": ("<f2", (f"{group} N", f"{group} m", f"{group} m'")),
    }


# Name of each array -> dtype and shape; "channel" is uint8, uint16 where there are more than 256 channels. Axes of one
# name have one length in a file.
LAYOUT: Layout = {
    # The names of the other arrays in the order of the file, a space between two: all of them must be there.
    "names": ("|u1", ("letters",)),
    "channels": ("channel", ("H", "W")),
    **_masks_layout("instances"),
    **_masks_layout("stuff"),
    "logits": ("<f2", ("K", "H", "W")),
    "logits_channels": ("channel", ("K", "H", "W")),  # without it K is the number of channels, row k is channel k
    "centers_heatmap": ("<f2", ("H", "W")),
    "centers_offsets_yx": ("<f2", ("2", "H", "W")),
}
OPTIONAL = {"instances_mask_probs", "stuff_mask_probs", "logits_channels"}  # where the others of their group are there


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

    def read(self, image: SavedImage) -> HeadOutputs:
        """What `write_image` wrote, which is `rounded` of what it was given.

        Raises DatasetError where the file is missing, damaged, cut short, of another size than the index says,
        contradicts itself or the categories, or claims to be larger than it can be. Nothing in it is executed.
        """
        path = self.folder / image.outputs
        where = Place(path, image.image_id)
        try:
            with path.open("rb") as file, zipfile.ZipFile(file) as archive:
                arrays = _read_arrays(archive, image.size_hw, len(self.stuff_ids))
            outputs = _from_arrays(arrays, image.size_hw, self.stuff_ids, self.thing_ids)
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
        problem = f"{len(missing)} of the {len(saved)} files of its images are missing: {coco.listed(missing)}"
        raise DatasetError(problem, where=path, remedy=SAVE_AGAIN)
    return saved


def write_image(folder: str | Path, name: str, outputs: HeadOutputs, keep_logits: int) -> None:
    """Writes folder/name, an .npz, whole or not at all; makes the folder.

    keep_logits: see `rounded`. ValueError for a negative keep_logits, and outputs beyond `LIMITS` and MAX_CHANNELS.
    """
    arrays = _to_arrays(outputs, keep_logits)
    layout = {key: (array.dtype, array.shape) for key, array in arrays.items()}
    _check_layout(layout, outputs.semantic.size_hw, len(outputs.semantic.stuff_ids))
    with files.replacing(Path(folder) / name) as neighbour, zipfile.ZipFile(neighbour, "w") as archive:
        for array_name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            # Floats hardly get smaller, and are read several times as fast as they are.
            kind = zipfile.ZIP_STORED if array.dtype.kind == "f" else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(f"{array_name}.npy"), content.getbuffer(), kind, LEVEL)


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


def rounded(outputs: HeadOutputs, keep_logits: int) -> HeadOutputs:
    """What is read back after `write_image` of these outputs; of what comes out it makes an equal copy.

    mask_probs, logits, heatmap and offsets_yx are rounded to float16, after clipping to its range; all else stays as it
    is. keep_logits: of C channels, those of the highest logits at each pixel that are kept, of equal ones the first;
    all where it is C or more, none where it is 0. channels become uint8, uint16 where C is above 256.
    ValueError for a negative keep_logits.
    """
    semantic = outputs.semantic
    return _from_arrays(_to_arrays(outputs, keep_logits), semantic.size_hw, semantic.stuff_ids, semantic.thing_ids)


def check_ids(
    outputs: HeadOutputs, categories: CategorySet, stuff_ids: NDArray[np.int64], thing_ids: NDArray[np.int64]
) -> None:
    """ValueError where the outputs' semantic channels are not these, a class is none of the categories, or a box or
    score is not finite."""
    semantic = outputs.semantic
    if not np.array_equal(semantic.stuff_ids, stuff_ids) or not np.array_equal(semantic.thing_ids, thing_ids):
        expected = f"({len(stuff_ids)} channels: stuff_ids {coco.listed(stuff_ids.tolist())})"
        got = f"({len(semantic.stuff_ids)} channels: stuff_ids {coco.listed(semantic.stuff_ids.tolist())})"
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
            raise ValueError(f"class_ids of {name} {problem} {coco.listed(sorted(strange))}")
        if not np.isfinite(masks.boxes_xyxy).all() or not np.isfinite(masks.scores).all():
            raise ValueError(f"boxes_xyxy and scores of {name} must be finite")


def _entry(image: SavedImage) -> Entry:
    height, width = image.size_hw
    named = {"id": image.image_id, "file_name": image.file_name}
    return {**named, "height": height, "width": width, "outputs": image.outputs}


def _parse(content: Any, path: Path) -> SavedHeadOutputs:
    if type(content) is not dict:
        problem = f"expected the index of saved head outputs, got a {type(content).__name__}"
        raise DatasetError(problem, where=path, remedy=SAVE_AGAIN)
    if (got := coco.field(content, "format", coco.INTEGER, path)) != FORMAT:
        problem = f"expected saved head outputs of format {FORMAT}, got {got}"
        raise DatasetError(problem, where=path, remedy=f"{SAVE_AGAIN} with this version of segkit")
    categories = coco.categories_of(content, path)
    names, stuff_ids, thing_ids = _channels(content, categories, path)
    images = []
    taken: set[str] = set()
    for image_id, entry in coco.images_by_id(content, path).items():
        where = Place(path, image_id)
        outputs = coco.field(entry, "outputs", coco.TEXT, where)
        coco.check_inside(outputs, "outputs", where)
        if outputs in taken or Path(outputs).name != outputs:
            raise DatasetError(f"expected `outputs` to name a file of this image alone, got {outputs!r}", where=where)
        taken.add(outputs)
        images.append(SavedImage(image_id, entry["file_name"], (entry["height"], entry["width"]), outputs))
    return SavedHeadOutputs(path.parent, categories, names, stuff_ids, thing_ids, tuple(images))


def _channels(
    content: Entry, categories: CategorySet, path: Path
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    names, stuff_ids, thing_ids = (coco.field(content, key, coco.LIST, path) for key in CHANNEL_KEYS)
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


def _to_arrays(outputs: HeadOutputs, keep_logits: int) -> dict[str, NDArray[Any]]:
    """The arrays of `LAYOUT`, C-contiguous."""
    if keep_logits < 0:
        raise ValueError(f"keep_logits must be 0 or more, got {keep_logits}")
    semantic, channel = outputs.semantic, _channel_dtype(len(outputs.semantic.stuff_ids))
    arrays = {"channels": semantic.channels.astype(channel)}
    arrays |= _arrays_of_masks(outputs.instances, "instances")
    if outputs.stuff_masks is not None:
        arrays |= _arrays_of_masks(outputs.stuff_masks, "stuff")
    if semantic.logits is not None and keep_logits:
        logits, channels = _highest(semantic.logits, semantic.logit_channels, len(semantic.stuff_ids), keep_logits)
        arrays["logits"] = _half(logits)
        if channels is not None:
            arrays["logits_channels"] = channels.astype(channel)
    if outputs.centers is not None:
        arrays |= {
            "centers_heatmap": _half(outputs.centers.heatmap),
            "centers_offsets_yx": _half(outputs.centers.offsets_yx),
        }
    names = np.frombuffer(" ".join(arrays).encode(), dtype=np.uint8)
    return {"names": names} | {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _arrays_of_masks(masks: InstanceMasks, prefix: str) -> dict[str, NDArray[Any]]:
    pixels = np.concatenate([np.zeros(0, dtype=np.bool_), *(crop.ravel() for crop in masks.crops)])
    arrays = {
        "class_ids": masks.class_ids.astype("<i8"),
        "scores": masks.scores.astype("<f4"),
        "boxes_xyxy": masks.boxes_xyxy.astype("<f4"),
        "corners_xy": masks.corners_xy.astype("<i8"),
        "sizes_hw": np.array([crop.shape for crop in masks.crops], dtype="<i8").reshape(-1, 2),
        "crops": np.packbits(pixels),
    }
    if masks.mask_probs is not None:
        arrays["mask_probs"] = _half(masks.mask_probs)
    return {f"{prefix}_{name}": array for name, array in arrays.items()}


def _from_arrays(
    arrays: Arrays, size_hw: tuple[int, int], stuff_ids: NDArray[np.int64], thing_ids: NDArray[np.int64]
) -> HeadOutputs:
    """Everything is copied: what comes from a file cannot be written to."""
    logits = arrays["logits"].astype(np.float32) if "logits" in arrays else None
    logit_channels = np.array(arrays["logits_channels"]) if "logits_channels" in arrays else None
    semantic = SemanticScores(np.array(arrays["channels"]), stuff_ids, thing_ids, logits, logit_channels)
    instances = _masks_of_arrays(arrays, "instances", size_hw)
    stuff_masks = _masks_of_arrays(arrays, "stuff", size_hw) if "stuff_class_ids" in arrays else None
    centers = None
    if "centers_heatmap" in arrays:
        centers = CenterOffsets(
            arrays["centers_heatmap"].astype(np.float32), arrays["centers_offsets_yx"].astype(np.float32)
        )
    return HeadOutputs(instances, semantic, stuff_masks, centers)


def _masks_of_arrays(arrays: Arrays, prefix: str, size_hw: tuple[int, int]) -> InstanceMasks:
    sizes_hw = arrays[f"{prefix}_sizes_hw"].tolist()
    if any(not (0 <= h <= size_hw[0] and 0 <= w <= size_hw[1]) for h, w in sizes_hw):
        raise ValueError(f"{prefix}_sizes_hw must be of crops inside the {size_hw[0]} x {size_hw[1]} image")
    ends = np.cumsum([0, *(h * w for h, w in sizes_hw)]).tolist()
    packed = arrays[f"{prefix}_crops"]
    if len(packed) != -(-ends[-1] // 8):
        raise ValueError(f"{prefix}_crops must hold {ends[-1]} pixels, got {len(packed)} bytes")
    pixels = np.unpackbits(packed, count=ends[-1]).view(np.bool_)
    probs = arrays.get(f"{prefix}_mask_probs")
    return InstanceMasks(
        size_hw,
        arrays[f"{prefix}_boxes_xyxy"].astype(np.float32),
        arrays[f"{prefix}_scores"].astype(np.float32),
        arrays[f"{prefix}_class_ids"].astype(np.int64),
        arrays[f"{prefix}_corners_xy"].astype(np.int64),
        tuple(pixels[start:end].reshape(hw) for start, end, hw in zip(ends, ends[1:], sizes_hw, strict=False)),
        None if probs is None else probs.astype(np.float32),
    )


class _Member(NamedTuple):
    """An array in an archive of which the header has been read, and the pixels not."""

    stream: IO[bytes]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def _read_arrays(archive: zipfile.ZipFile, size_hw: tuple[int, int], channel_count: int) -> dict[str, NDArray[Any]]:
    infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if len(infos) != len(archive.infolist()):
        raise ValueError("an array is there twice")
    if strange := sorted(infos.keys() - LAYOUT.keys()):
        raise ValueError(f"there are other arrays than head outputs have: {coco.listed(strange)}")
    members = {name: _open(archive, info) for name, info in infos.items()}
    _check_layout({name: (m.dtype, m.shape) for name, m in members.items()}, size_hw, channel_count)
    arrays = {}
    for name, member in members.items():
        with member.stream as stream:
            content = stream.read(math.prod(member.shape) * member.dtype.itemsize)  # and no more, whatever is packed
        arrays[name] = np.ndarray(member.shape, member.dtype, content)
    if arrays["names"].tobytes().split() != [name.encode() for name in arrays if name != "names"]:
        raise ValueError(f"expected the arrays {arrays['names'].tobytes().decode()!r}, got {[*arrays]}")
    return arrays


def _open(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a limit
        raise ValueError(f"{info.filename} must be stored or deflated")
    stream = archive.open(info)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"{info.filename} must be of npy version 1.0")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if is_fortran or info.file_size != stream.tell() + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{info.filename} must be row by row and as large as {shape} {dtype} is")
    return _Member(stream, dtype, shape)


def _check_layout(
    found: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], size_hw: tuple[int, int], channel_count: int
) -> None:
    """ValueError where these dtypes and shapes are not those of an image of size_hw with so many channels."""
    groups = {"names", "channels", "instances", *map(_group, found)}
    if missing := [n for n in LAYOUT if _group(n) in groups and n not in OPTIONAL and n not in found]:
        raise ValueError(f"the arrays {coco.listed(missing)} are missing")
    lengths = {"H": size_hw[0], "W": size_hw[1], "2": 2, "4": 4}
    if "logits_channels" not in found:
        lengths["K"] = channel_count
    for name in (name for name in LAYOUT if name in found):  # the number of masks is known before their crops
        (kind, axes), (dtype, shape) = LAYOUT[name], found[name]
        crops_bytes = -(-lengths.get(f"{_group(name)} N", 0) * size_hw[0] * size_hw[1] // 8)
        limits = {**LIMITS, "K": channel_count, "bytes": crops_bytes}
        expected = _channel_dtype(channel_count) if kind == "channel" else np.dtype(kind)
        wanted = tuple(
            lengths.setdefault(axis, max(0, min(got, limits.get(axis.split()[-1], got))))
            for axis, got in zip(axes, (*shape, *[0] * len(axes)), strict=False)
        )
        if dtype != expected or shape != wanted:
            raise ValueError(f"{name} must be {expected} of shape {wanted}, got {dtype} {shape}")


def _group(name: str) -> str:
    return name.partition("_")[0]


def _channel_dtype(channel_count: int) -> np.dtype[Any]:
    if channel_count > MAX_CHANNELS:
        raise ValueError(f"semantic channels must be at most {MAX_CHANNELS}, got {channel_count}")
    return np.dtype("|u1" if channel_count <= 2**8 else "<u2")


def _half(values: NDArray[np.floating]) -> NDArray[np.float16]:
    half: NDArray[np.float16] = np.clip(values, -HALF_MAX, HALF_MAX).astype("<f2")
    return half


def _highest(
    logits: NDArray[np.float32], channels: NDArray[np.integer] | None, channel_count: int, keep: int
) -> tuple[NDArray[np.float32], NDArray[np.integer] | None]:
    """The `keep` highest logits of each pixel and their channels; of all channels the logits as they are."""
    if channels is not None:
        kept = min(keep, channel_count)
        return logits[:kept], channels[:kept]
    if keep >= channel_count:
        return logits, None
    highest = np.empty((keep, *logits.shape[1:]), dtype=np.float32)
    found = np.empty(highest.shape, dtype=_channel_dtype(channel_count))
    if COMPILED:
        _insert_highest(np.ascontiguousarray(logits, dtype=np.float32), highest, found)
        return highest, found
    for row in range(logits.shape[1]):  # of all rows at once the order would take gigabytes
        order = np.argsort(-logits[:, row], axis=0, kind="stable")[:keep]
        highest[:, row] = np.take_along_axis(logits[:, row], order, axis=0)
        found[:, row] = order
    return highest, found


@compiled
def _insert_highest(logits: NDArray[np.float32], highest: NDArray[np.float32], found: NDArray[np.integer]) -> None:
    keep, height, width = highest.shape
    for row in range(height):
        for channel in range(logits.shape[0]):
            filled = min(channel, keep)
            for column in range(width):
                logit = logits[channel, row, column]
                if filled == keep and logit <= highest[keep - 1, row, column]:
                    continue
                place = min(filled, keep - 1)
                while place > 0 and logit > highest[place - 1, row, column]:
                    highest[place, row, column] = highest[place - 1, row, column]
                    found[place, row, column] = found[place - 1, row, column]
                    place -= 1
                highest[place, row, column] = logit
                found[place, row, column] = channel
