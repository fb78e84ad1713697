"""HeadOutputs as named arrays in an .npz. Headers are checked before arrays are unpacked; nothing is executed.

`ARRAY_SPECS` lists the arrays.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from segkit.structures import CenterOffsets, HeadOutputs, InstanceMasks, QueryLogits, SemanticScores
from segkit.utils.compiled import COMPILED, compiled
from segkit.utils.text import abbreviate

Arrays = Mapping[str, NDArray[Any]]
ArraySpecs = dict[str, tuple[str, tuple[str, ...]]]

LEVEL = 1  # of deflate: files are a little larger than at level 6, in a third of the time
MAX_CHANNELS = 2**16
HALF_MAX = 65504.0  # the largest finite float16
# Longest axes, far longer than those of networks: a file that claims more is refused before it is unpacked.
LIMITS = {"letters": 2**10, "N": 2**16, "m": 2**12, "m'": 2**12, "h": 2**13, "w": 2**13}


def _mask_specs(group: str) -> ArraySpecs:
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


# Name of each array -> dtype and shape. "channel" is uint8, or uint16 for more than 256 channels. Axes with the same
# name have the same length in a file.
ARRAY_SPECS: ArraySpecs = {
    # The names of the other arrays in the order of the file, joined by spaces: all of them must be present.
    "names": ("|u1", ("letters",)),
    "channels": ("channel", ("H", "W")),
    **_mask_specs("instances"),
    **_mask_specs("stuff"),
    "logits": ("<f2", ("K", "H", "W")),
    "logits_channels": ("channel", ("K", "H", "W")),  # if absent, K is the number of channels, and row k is channel k
    "centers_heatmap": ("<f2", ("H", "W")),
    "centers_offsets_yx": ("<f2", ("2", "H", "W")),
    "queries_logits": ("<f2", ("queries N", "h", "w")),
    "queries_geometry": ("<i8", ("3",)),  # height and width of the network's image, pixels of it per logit
}
OPTIONAL = {
    "instances_mask_probs",
    "stuff_mask_probs",
    "logits_channels",
}  # the other arrays of their group may be present without them


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays as an .npz.

    Args:
        path: file to write.
        arrays: name -> array, in the order of the file.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            # Floats hardly get smaller, and are read several times faster if they are stored as they are.
            kind = zipfile.ZIP_STORED if array.dtype.kind == "f" else zipfile.ZIP_DEFLATED
            # No getbuffer(): Python 3.12.1 crashes if a failed write leaves a view of a BytesIO in the traceback.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), kind, LEVEL)


def to_arrays(outputs: HeadOutputs, keep_logits: int) -> dict[str, NDArray[Any]]:
    """Turn head outputs into arrays.

    Args:
        outputs: head outputs of an image.
        keep_logits: see `folder.round_head_outputs`.

    Returns:
        Name -> C-contiguous array, as `ARRAY_SPECS` says.

    Raises:
        ValueError: keep_logits is negative, or there are too many channels.
    """
    if keep_logits < 0:
        raise ValueError(f"keep_logits must be 0 or more, got {keep_logits}")
    semantic, centers, queries = outputs.semantic, outputs.centers, outputs.queries
    channel_count = len(semantic.stuff_ids)
    logits, logits_channels = _select_highest(semantic.logits, semantic.logit_channels, channel_count, keep_logits)
    values = {
        "channels": semantic.channels,
        **_masks_to_arrays(outputs.instances, "instances"),
        **_masks_to_arrays(outputs.stuff_masks, "stuff"),
        "logits": logits,
        "logits_channels": logits_channels,
        "centers_heatmap": centers.heatmap if centers else None,
        "centers_offsets_yx": centers.offsets_yx if centers else None,
        "queries_logits": queries.logits if queries else None,
        "queries_geometry": np.array([*queries.image_size, queries.scale]) if queries else None,
    }
    arrays = {}
    for name in ARRAY_SPECS:
        if (array := values.get(name)) is not None:
            dtype = _get_dtype(name, channel_count)
            is_half = dtype == np.float16
            arrays[name] = np.ascontiguousarray(np.clip(array, -HALF_MAX, HALF_MAX) if is_half else array, dtype)
    return {"names": np.frombuffer(" ".join(arrays).encode(), dtype=np.uint8), **arrays}


def _masks_to_arrays(masks: InstanceMasks | None, group: str) -> dict[str, Any]:
    if masks is None:
        return {}
    pixels = np.concatenate([np.zeros(0, dtype=np.bool_), *(crop.ravel() for crop in masks.crops)])
    sizes_hw = np.array([crop.shape for crop in masks.crops]).reshape(-1, 2)
    values = {**vars(masks), "sizes_hw": sizes_hw, "crops": np.packbits(pixels)}
    return {f"{group}_{name}": value for name, value in values.items()}


def from_arrays(
    arrays: Arrays, size_hw: tuple[int, int], stuff_ids: NDArray[np.int64], thing_ids: NDArray[np.int64]
) -> HeadOutputs:
    """Turn arrays into head outputs. Everything is copied, since arrays of a file cannot be written to.

    Args:
        arrays: name -> array, with the dtypes and shapes of `ARRAY_SPECS`.
        size_hw: (height, width) of the image in pixels.
        stuff_ids: (C,) int64, stuff class of each semantic channel, see SemanticScores.
        thing_ids: (C,) int64, thing class of each semantic channel, see SemanticScores.

    Returns:
        The head outputs.

    Raises:
        ValueError: the arrays contradict each other.
    """
    values = {
        name: array.astype(np.float32 if array.dtype.kind == "f" else array.dtype.newbyteorder("="))
        for name, array in arrays.items()
    }
    logits, logits_channels = values.get("logits"), values.get("logits_channels")
    semantic = SemanticScores(values["channels"], stuff_ids, thing_ids, logits, logits_channels)
    instances = _masks_from_arrays(values, "instances", size_hw)
    stuff_masks = _masks_from_arrays(values, "stuff", size_hw) if "stuff_class_ids" in values else None
    has_centers = "centers_heatmap" in values
    centers = CenterOffsets(values["centers_heatmap"], values["centers_offsets_yx"]) if has_centers else None
    queries = None
    if "queries_logits" in values:
        height, width, scale = values["queries_geometry"].tolist()
        queries = QueryLogits(values["queries_logits"], (height, width), scale)
    return HeadOutputs(instances, semantic, stuff_masks, centers, queries)


def _masks_from_arrays(arrays: Arrays, group: str, size_hw: tuple[int, int]) -> InstanceMasks:
    values: dict[str, Any] = {n.removeprefix(f"{group}_"): a for n, a in arrays.items() if _get_group(n) == group}
    sizes_hw, packed = values.pop("sizes_hw").tolist(), values.pop("crops")
    if any(not (0 <= h <= size_hw[0] and 0 <= w <= size_hw[1]) for h, w in sizes_hw):
        raise ValueError(f"{group}_sizes_hw must be of crops inside the {size_hw[0]} x {size_hw[1]} image")
    ends = np.cumsum([0, *(h * w for h, w in sizes_hw)]).tolist()
    if len(packed) != -(-ends[-1] // 8):
        raise ValueError(f"{group}_crops must hold {ends[-1]} pixels, got {len(packed)} bytes")
    pixels = np.unpackbits(packed, count=ends[-1]).view(np.bool_)
    crops = tuple(pixels[start:end].reshape(hw) for start, end, hw in zip(ends, ends[1:], sizes_hw, strict=False))
    return InstanceMasks(size_hw=size_hw, crops=crops, **values)


def read_arrays(archive: zipfile.ZipFile, size_hw: tuple[int, int], channel_count: int) -> dict[str, NDArray[Any]]:
    """Read the arrays of an .npz. No array is unpacked before the headers of all have been checked.

    Args:
        archive: the .npz.
        size_hw: (height, width) of the image in pixels.
        channel_count: number of semantic channels.

    Returns:
        Name -> read-only array.

    Raises:
        ValueError: names, dtypes or shapes are not those of `ARRAY_SPECS`.
    """
    infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if len(infos) != len(archive.infolist()):
        raise ValueError("expected each array once, got one twice")
    if unexpected := sorted(infos.keys() - ARRAY_SPECS.keys()):
        raise ValueError(f"head outputs have no arrays named {abbreviate(unexpected)}")
    members = {name: _open(archive, info) for name, info in infos.items()}
    check_specs({name: (dtype, shape) for name, (_, dtype, shape) in members.items()}, size_hw, channel_count)
    arrays: dict[str, NDArray[Any]] = {}
    for name, (stream, dtype, shape) in members.items():
        with stream:
            content = stream.read(math.prod(shape) * dtype.itemsize)  # no more, whatever is packed
        arrays[name] = np.ndarray(shape, dtype, content)
    if arrays["names"].tobytes().split() != [name.encode() for name in arrays if name != "names"]:
        raise ValueError(f"expected the arrays {arrays['names'].tobytes().decode()!r}, got {[*arrays]}")
    return arrays


def _open(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[IO[bytes], np.dtype[Any], tuple[int, ...]]:
    """Stream, dtype and shape of an array, of which only the header has been read."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # other methods unpack without a limit
        raise ValueError(f"{info.filename} must be stored or deflated")
    stream = archive.open(info)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"{info.filename} must be of npy version 1.0")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if is_fortran or info.file_size != stream.tell() + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{info.filename} must be row by row and as large as {shape} {dtype} is")
    return stream, dtype, shape


def check_specs(
    specs: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], size_hw: tuple[int, int], channel_count: int
) -> None:
    """Check dtypes and shapes against `ARRAY_SPECS`.

    Args:
        specs: name -> dtype and shape.
        size_hw: (height, width) of the image in pixels.
        channel_count: number of semantic channels.

    Raises:
        ValueError: an array is missing, or has another dtype or shape.
    """
    groups = {"names", "channels", "instances", *map(_get_group, specs)}
    if missing := [n for n in ARRAY_SPECS if _get_group(n) in groups and n not in OPTIONAL and n not in specs]:
        raise ValueError(f"the arrays {abbreviate(missing)} are missing")
    lengths = {"H": size_hw[0], "W": size_hw[1], "2": 2, "3": 3, "4": 4}
    if "logits_channels" not in specs:
        lengths["K"] = channel_count
    for name in (name for name in ARRAY_SPECS if name in specs):  # the number of masks is known before their crops
        axes, (dtype, shape), expected = ARRAY_SPECS[name][1], specs[name], _get_dtype(name, channel_count)
        crops_bytes = -(-lengths.get(f"{_get_group(name)} N", 0) * size_hw[0] * size_hw[1] // 8)
        limits = {**LIMITS, "K": channel_count, "bytes": crops_bytes}
        expected_shape = tuple(
            lengths.setdefault(axis, max(0, min(got, limits.get(axis.split()[-1], got))))
            for axis, got in zip(axes, (*shape, *[0] * len(axes)), strict=False)
        )
        if dtype != expected or shape != expected_shape:
            raise ValueError(f"{name} must be {expected} of shape {expected_shape}, got {dtype} {shape}")


def _get_group(name: str) -> str:
    return name.partition("_")[0]


def _get_dtype(name: str, channel_count: int) -> np.dtype[Any]:
    if channel_count > MAX_CHANNELS:
        raise ValueError(f"semantic channels must be at most {MAX_CHANNELS}, got {channel_count}")
    channel = "|u1" if channel_count <= 2**8 else "<u2"
    return np.dtype(ARRAY_SPECS[name][0].replace("channel", channel))


def _select_highest(
    logits: NDArray[np.float32] | None, channels: NDArray[np.integer] | None, channel_count: int, keep: int
) -> tuple[NDArray[np.float32] | None, NDArray[np.integer] | None]:
    """The `keep` highest logits of each pixel and their channels (None for all channels, in their order)."""
    if logits is None or keep == 0:
        return None, None
    if channels is not None:
        return logits[:keep], channels[:keep]
    if keep >= channel_count:
        return logits, None
    highest = np.empty((keep, *logits.shape[1:]), dtype=np.float32)
    highest_channels = np.empty(highest.shape, dtype=_get_dtype("logits_channels", channel_count))
    if COMPILED:
        _insert_highest(np.ascontiguousarray(logits, dtype=np.float32), highest, highest_channels)
        return highest, highest_channels
    for row in range(logits.shape[1]):  # row by row: the order of all rows would take gigabytes
        order = np.argsort(-logits[:, row], axis=0, kind="stable")[:keep]
        highest[:, row] = np.take_along_axis(logits[:, row], order, axis=0)
        highest_channels[:, row] = order
    return highest, highest_channels


@compiled
def _insert_highest(logits: NDArray[np.float32], highest: NDArray[np.float32], channels: NDArray[np.integer]) -> None:
    """Insert the channels one by one into each pixel's sorted list; of equal logits the first channel leads."""
    keep, height, width = highest.shape
    for row in range(height):
        for channel in range(logits.shape[0]):
            filled = min(channel, keep)
            for column in range(width):
                logit = logits[channel, row, column]
                if filled == keep and logit <= highest[keep - 1, row, column]:
                    continue
                rank = min(filled, keep - 1)
                while rank > 0 and logit > highest[rank - 1, row, column]:
                    highest[rank, row, column] = highest[rank - 1, row, column]
                    channels[rank, row, column] = channels[rank - 1, row, column]
                    rank -= 1
                highest[rank, row, column] = logit
                channels[rank, row, column] = channel
