"""A small weight file cannot cost hours, all memory or a crash."""

import pickle
import time
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from segkit.engine.checkpoints.limits import check_tree
from segkit.engine.checkpoints.safe_load import load_pickle, load_torch
from segkit.engine.checkpoints.zoo_pickle import UnsafeDataError
from segkit.utils.errors import CheckpointError

SECONDS = 20


def nested_twice(levels: int) -> bytes:
    """A dict whose key is a tuple that holds the tuple before it twice, and so on."""
    return b"\x80\x02}K\x01" + b"2\x86" * levels + b"K\x01s."


def nested_once(levels: int) -> bytes:
    """A dict whose key is a tuple in a tuple in a tuple ..."""
    return b"\x80\x02}K\x01" + b"\x85" * levels + b"K\x01s."


def in_a_zip(path, pickled: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3")


def test_the_attack_would_work():
    """Of 16 levels, whose hash has 2^16 steps."""
    assert len(pickle.loads(nested_twice(16))) == 1


@pytest.mark.parametrize("attack", [nested_twice(60), nested_once(1_000_000)], ids=["exponential", "deep"])
@pytest.mark.parametrize("kind", ["pkl", "zip", "legacy"])
def test_nested_tuples_are_refused_at_once(tmp_path, attack, kind):
    path = tmp_path / ("a.pkl" if kind == "pkl" else "a.pth")
    if kind == "zip":
        in_a_zip(path, attack)
    elif kind == "legacy":
        path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + attack)
    else:
        path.write_bytes(attack)
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=rf"{path.name}: has tuples of \d+ items, nested \d+ times"):
        (load_pickle if kind == "pkl" else load_torch)(path)
    assert time.monotonic() - started < SECONDS


@pytest.mark.parametrize("load", [load_pickle, load_torch])
def test_lists_in_lists_are_refused(tmp_path, load):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x02}K\x01" + b"]" * 200_000 + b"a" * 199_999 + b"s.")
    if load is load_torch:
        in_a_zip(path, path.read_bytes())
    with pytest.raises(CheckpointError, match=r"a\.pkl: "):
        load(path)


def test_shared_lists_that_expand_to_too_many_items_are_refused():
    tree: list = [0] * 10
    for _ in range(90):
        tree = [tree, tree]
    with pytest.raises(UnsafeDataError, match="more than 10000000 items"):
        check_tree({"model": tree})


def test_compressed_archives_are_refused(tmp_path):
    in_a_zip(tmp_path / "a.pth", pickle.dumps({"x": b"\0" * 10_000_000}, 2), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "a.pth").stat().st_size < 20_000
    with pytest.raises(CheckpointError, match=r"a\.pth: has compressed parts, such as 'archive/data\.pkl'"):
        load_torch(tmp_path / "a.pth")


def test_parts_that_share_their_bytes_are_refused(tmp_path):
    in_a_zip(tmp_path / "a.pth", pickle.dumps({"x": bytes(5000)}, 2))
    content = (tmp_path / "a.pth").read_bytes()
    end = content.rindex(b"PK\x05\x06")
    start = content.index(b"PK\x01\x02")
    directory, count = content[start:end], 200  # the same two parts, listed again and again
    tail = bytearray(content[end:])
    tail[8:10] = tail[10:12] = (2 * count).to_bytes(2, "little")
    tail[12:16] = (len(directory) * count).to_bytes(4, "little")
    (tmp_path / "a.pth").write_bytes(content[:start] + directory * count + bytes(tail))
    with pytest.raises(CheckpointError, match=r"a\.pth: claims to hold \d+ bytes, in a file of \d+"):
        load_torch(tmp_path / "a.pth")


def test_arrays_that_share_their_bytes_are_refused(tmp_path):
    array = np.zeros(10_000, dtype=np.uint8)
    data = array.tobytes()

    class Shared:
        def __reduce__(self):
            rebuild, arguments, state = array.__reduce__()
            return rebuild, arguments, (*state[:-1], data)

    (tmp_path / "a.pkl").write_bytes(pickle.dumps({str(i): Shared() for i in range(50)}, 3))
    with pytest.raises(CheckpointError, match=r"a\.pkl: has arrays of more than 4 times the size of the file"):
        load_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize("is_zip", [True, False])
def test_usual_files_pass(tmp_path, is_zip):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.zeros(1, 3, 9, 9)).sum().backward()
    optimizer.step()
    state = {"model": module.state_dict(), "optimizer": optimizer.state_dict(), "more": OrderedDict(a=(1, (2.5, None)))}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    assert load_torch(tmp_path / "a.pth")["model"].keys() == state["model"].keys()
