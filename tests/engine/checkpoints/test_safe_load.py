"""Valid weight files are loaded, hostile files are rejected; a canary file shows that none of their code ran."""

import copyreg
import gzip
import io
import os
import pickle
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.engine.checkpoints.safe_load import load_pickle, load_torch, to_plain_data
from segkit.utils.errors import CheckpointError

ARRAYS = {
    "contiguous": np.arange(12, dtype=np.float32).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(12, dtype=np.float64).reshape(3, 4)),
    "strided": np.arange(24, dtype=np.int16).reshape(4, 6)[::2, ::3],
    "big_endian": np.arange(5, dtype=">i4"),
    "half": np.ones((2, 1, 1, 2), np.float16),
    "bool": np.array([True, False]),
    "bytes_like": np.arange(256, dtype=np.uint8),
    "zero_d": np.array(7.5, np.float32),
    "empty": np.zeros((0, 3), np.float32),
}
# What Python 2.7 with numpy 1.x writes for {"conv1_w": np.array([1, -2], "f4")}, protocol 2: byte strings throughout.
PYTHON_2 = (
    b"\x80\x02}q\x00U\x07conv1_wq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b"
    b"\x87Rq\x04(K\x01K\x02\x85cnumpy\ndtype\nq\x05U\x02f4K\x00K\x01\x87Rq\x06(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff"
    b"\xff\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00\xc0tbs."
)


class Call:
    """An object whose unpickling calls `function(*arguments)`."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


class ForeignArray(np.ndarray):
    pass


def written(path, data):
    path.write_bytes(data)
    return path


def script(canary):
    return f"__import__('pathlib').Path({str(canary)!r}).touch()"


def short(text):
    """The instruction that pushes `text`, up to 255 bytes."""
    raw = text.encode()
    return pickle.SHORT_BINUNICODE + bytes([len(raw)]) + raw


# name -> (what the message must name, canary -> file content)
HOSTILE = {
    "system": ("posix.system|nt.system", lambda c: pickle.dumps({"model": Call(os.system, f"touch '{c}'")})),
    "eval": ("builtins.eval", lambda c: pickle.dumps({"model": Call(eval, script(c))})),
    "exec_protocol_0": ("__builtin__.exec", lambda c: pickle.dumps({"w": Call(exec, script(c))}, 0)),
    "getattr": ("builtins.getattr", lambda c: pickle.dumps(Call(getattr, "x", "upper"))),
    "popen": ("subprocess.Popen", lambda c: pickle.dumps([Call(subprocess.Popen, ["touch", str(c)])])),
    "late": ("builtins.eval", lambda c: pickle.dumps({**ARRAYS, "z": Call(eval, script(c))})),
    "dotted": (
        "numpy.core.os.system",
        lambda c: b"\x80\x04" + short("numpy") + short("core.os.system") + b"\x93" + short(f"touch '{c}'") + b"\x85R.",
    ),
    "dotted_in_a_good_name": (
        "numpy.ndarray.__class__",
        lambda c: b"\x80\x04" + short("numpy") + short("ndarray.__class__") + b"\x93)R.",
    ),
    "inst": ("INST", lambda c: b"(S" + repr(script(c)).encode() + b"\ni__builtin__\neval\n."),
    "obj": ("builtins.eval", lambda c: b"\x80\x02(cbuiltins\neval\n" + b"X" + len(script(c)).to_bytes(4, "little")
            + script(c).encode() + b"o."),
    "newobj": ("NEWOBJ", lambda c: b"\x80\x02ccollections\nOrderedDict\n)\x81."),
    "persistent_id": ("BINPERSID", lambda c: b"\x80\x02" + b"X\x01\x00\x00\x00aQ."),
    "persistent_id_text": ("PERSID", lambda c: b"Pstorage\n."),
    "nested": ("torch.storage._load_from_bytes", lambda c: pickle.dumps(
        {"w": Call(torch.storage._load_from_bytes, pickle.dumps(Call(eval, script(c))))})),
    "nested_numpy_load": ("_load|load", lambda c: pickle.dumps({"w": Call(np.load, str(c), None, True)})),
    "subtype": ("a foreign type|ForeignArray", lambda c: pickle.dumps({"w": np.zeros(2).view(ForeignArray)})),
    "subtype_dict": ("a foreign type", lambda c: pickle.dumps({"w": np.zeros(2)}, 2).replace(
        b"cnumpy\nndarray\n", b"ccollections\nOrderedDict\n")),
    "objects": ("an array of objects", lambda c: pickle.dumps({"w": np.array([{"a": 1}], dtype=object)})),
    "objects_call": ("builtins.eval", lambda c: pickle.dumps({"w": np.array([Call(eval, script(c))], dtype=object)})),
    "records": ("dtype 'V8'", lambda c: pickle.dumps({"w": np.zeros(2, [("a", "f4"), ("b", "f4")])})),
    "codec": ("codec 'rot13'", lambda c: b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R."),
    "build_function": ("state of a function", lambda c:
        b"\x80\x02c_codecs\nencode\n}X\x0c\x00\x00\x00__defaults__K\x01sb."),
    "build_class": ("state of a type", lambda c: b"\x80\x02cnumpy\nndarray\n}X\x05\x00\x00\x00stateK\x01sb."),
    "call_a_class": ("not a constructor", lambda c: b"\x80\x02cnumpy\nndarray\n)R."),
    "call_text": ("not a constructor", lambda c: b"\x80\x02X\x01\x00\x00\x00a)R."),
    "copyreg": ("copyreg._reconstructor|copy_reg._reconstructor", lambda c: pickle.dumps(Plain(), 1)),
    "instance": ("test_safe_load.Plain", lambda c: pickle.dumps({"w": Plain()})),
    "set": ("EMPTY_SET", lambda c: pickle.dumps({"w": {1}})),
    "cycle": ("holds itself", lambda c: b"\x80\x02]q\x00h\x00a."),
    "lying_size": ("in 8 bytes", lambda c: PYTHON_2.replace(b"K\x01K\x02\x85", b"K\x01K\x7f\x85")),
    "negative_size": ("shape \\(-2,\\)", lambda c: PYTHON_2.replace(b"K\x01K\x02\x85", b"K\x01J\xfe\xff\xff\xff\x85")),
    "not_a_dict": ("expected a dict", lambda c: pickle.dumps([1.0])),
}  # fmt: skip


class Plain:
    pass


@pytest.mark.parametrize("protocol", range(6))
def test_zoo_pickles_of_every_protocol_load(tmp_path, protocol):
    tree = {
        "blobs": ARRAYS,
        "ordered": OrderedDict(a=[1, 2.5, None], b=(True, b"\x00\xff", "é")),
        "lr": np.float32(0.5),
    }
    loaded = load_pickle(written(tmp_path / "w.pkl", pickle.dumps(tree, protocol)))
    assert loaded["ordered"] == {"a": [1, 2.5, None], "b": (True, b"\x00\xff", "é")}
    assert loaded["lr"] == 0.5
    assert type(loaded["lr"]) is float
    assert list(loaded["blobs"]) == list(ARRAYS)
    for name, array in loaded["blobs"].items():
        np.testing.assert_array_equal(array, ARRAYS[name], strict=name != "big_endian")
        assert array.flags.writeable
        torch.from_numpy(array)  # rejects foreign byte orders and negative strides


def test_a_pickle_of_python_2_loads(tmp_path):
    loaded = load_pickle(written(tmp_path / "w.pkl", PYTHON_2))
    np.testing.assert_array_equal(loaded["conv1_w"], np.array([1, -2], np.float32), strict=True)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
                    lambda leaf: st.lists(leaf) | st.tuples(leaf, leaf) | st.dictionaries(st.text(), leaf)),
       st.integers(0, 5))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_tree_of_plain_data_comes_back_equal(tmp_path_factory, tree, protocol):
    path = written(tmp_path_factory.getbasetemp() / "tree.pkl", pickle.dumps({"tree": tree}, protocol))
    assert load_pickle(path) == {"tree": tree}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(("load", "suffix"), [(load_pickle, "pkl"), (load_torch, "pth")])
def test_hostile_pickles_are_rejected_and_run_no_code(tmp_path, name, load, suffix):
    named, content = HOSTILE[name]
    canary = tmp_path / "canary"
    path = written(tmp_path / f"w.{suffix}", content(canary))
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert not canary.exists()
    if suffix == "pkl":
        assert any(part.replace("\\", "") in str(caught.value) for part in named.split("|")), str(caught.value)
        assert "no code of it was run" in str(caught.value)


def test_the_payloads_run_under_plain_pickle(tmp_path):
    for name in ("system", "eval", "exec_protocol_0", "late", "inst", "obj"):
        canary = tmp_path / name
        pickle.loads(HOSTILE[name][1](canary))
        assert canary.exists(), name


def test_a_cached_extension_code_is_rejected(tmp_path):
    """The unpickler in C resolves such a code from its cache, without `find_class`."""
    canary = tmp_path / "canary"
    copyreg.add_extension("builtins", "eval", 0x77)
    try:
        pickle.loads(b"\x80\x02\x82\x77.")
        call = b"X" + len(script(canary)).to_bytes(4, "little") + script(canary).encode() + b"\x85R."
        for number, code in enumerate((b"\x82\x77", b"\x83\x77\x00", b"\x84\x77\x00\x00\x00")):
            path = written(tmp_path / "w.pkl", b"\x80\x02" + code + call)
            with pytest.raises(CheckpointError, match=f"pickle instruction EXT{2**number}"):
                load_pickle(path)
        assert not canary.exists()
    finally:
        copyreg.remove_extension("builtins", "eval", 0x77)
        copyreg.clear_extension_cache()


def test_shared_branches_are_copied_once(tmp_path):
    """20 levels of [below, below] have 2^20 leaves; the limit is in test_limits.py."""
    below = [7]
    for _ in range(20):
        below = [below, below]
    loaded = load_pickle(written(tmp_path / "w.pkl", pickle.dumps({"a": below})))["a"]
    for _ in range(20):
        loaded = loaded[1]
    assert loaded == [7]


def test_deep_nesting_is_an_error_not_a_crash(tmp_path):
    path = written(tmp_path / "w.pkl", b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    with pytest.raises(CheckpointError, match="containers nested deeper than 100"):
        load_pickle(path)


@pytest.mark.parametrize("load", [load_pickle, load_torch])
def test_missing_empty_and_garbage_files(tmp_path, load):
    with pytest.raises(CheckpointError, match="no such file"):
        load(tmp_path / "absent.pkl")
    with pytest.raises(CheckpointError, match="not a file"):
        load(tmp_path)
    for content in (
        b"",
        b"\x00" * 600,
        b"<html>404</html>",
        b"\xff\xfe",
        gzip.compress(pickle.dumps({}), mtime=0),  # without the time: parameters are those of each process
        b"PK\x03\x04",
    ):
        with pytest.raises(CheckpointError):
            load(written(tmp_path / "w.pkl", content))


def test_every_truncation_is_rejected(tmp_path):
    whole = pickle.dumps({"a": np.arange(6.0), "b": OrderedDict(c=1)}, 2)
    for length in range(len(whole)):
        with pytest.raises(CheckpointError, match=r"w\.pkl: "):
            load_pickle(written(tmp_path / "w.pkl", whole[:length]))
    buffer = io.BytesIO()
    torch.save({"model": {"a": torch.ones(50)}}, buffer)
    for length in range(0, len(buffer.getvalue()) - 1, 37):
        with pytest.raises(CheckpointError, match=r"w\.pth: "):
            load_torch(written(tmp_path / "w.pth", buffer.getvalue()[:length]))


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_of_both_formats_load(tmp_path, zipped):
    model = torch.nn.BatchNorm2d(3)
    tree = {"model": model.state_dict(), "milestones": Counter([3, 3]), "size": torch.Size([1, 2]), "iteration": 7}
    torch.save(tree, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    loaded = load_torch(tmp_path / "w.pth")
    assert {**loaded, "model": None} == {"model": None, "milestones": {3: 2}, "size": (1, 2), "iteration": 7}
    assert loaded["model"]._metadata == model.state_dict()._metadata
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded["model"][name], tensor)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("force", ["", "1"])
def test_torch_files_with_code_are_rejected(tmp_path, monkeypatch, zipped, force):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", force)
    canary = tmp_path / "canary"
    payload = {"model": {"w": torch.ones(2)}, "x": Call(eval, script(canary))}
    torch.save(payload, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"w\.pth: refused the global .*eval; no code of it was run"):
        load_torch(tmp_path / "w.pth")
    assert not canary.exists()


def test_whole_models_tar_files_and_torchscript_are_rejected(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"refused the global torch\.nn\.modules\.linear\.Linear"):
        load_torch(tmp_path / "model.pth")
    with tarfile.open(tmp_path / "tar.pth", "w") as tar:
        tar.add(tmp_path / "model.pth", "storages")
    with pytest.raises(CheckpointError, match="TorchScript or tar"):
        load_torch(tmp_path / "tar.pth")
    with zipfile.ZipFile(tmp_path / "script.pth", "w") as archive:
        for name in ("archive/data.pkl", "archive/constants.pkl", "archive/version"):
            archive.writestr(name, b"3" if name.endswith("version") else pickle.dumps({}, 2))
    with pytest.raises(CheckpointError, match="TorchScript or tar"):
        load_torch(tmp_path / "script.pth")


def test_tensors_that_are_not_dense_numbers_are_rejected(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = {"sparse": torch.eye(2).to_sparse(), "meta": torch.ones(1, device="meta")}
        for name, tensor in tensors.items():
            torch.save({"w": tensor}, tmp_path / f"{name}.pth")
            with pytest.raises(CheckpointError, match=r"torch\.Tensor at 'w'"):
                load_torch(tmp_path / f"{name}.pth")


def test_plain_data_keeps_storages_and_rejects_other_objects():
    weight = torch.nn.Parameter(torch.ones(3))
    tree = to_plain_data({"a": weight, "b": [weight.data[1:]], "n": np.int64(3)})
    assert type(tree["a"]) is torch.Tensor
    assert tree["a"].data_ptr() == weight.data_ptr()
    assert tree["b"][0].data_ptr() == weight.data_ptr() + 4
    assert type(tree["n"]) is int
    with pytest.raises(ValueError, match=r"builtins\.set at 'hooks\.Mine\[1\]'"):
        to_plain_data({"hooks": {"Mine": [1, {2}]}})


def test_reading_imports_nothing(tmp_path):
    """The module of a rejected global is not imported, since the import could run code."""
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    path = written(tmp_path / "w.pkl", b"\x80\x02ctrap\nx\n)R.")
    code = f"from segkit.engine.checkpoints.safe_load import load_pickle as l; l({str(path)!r})"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "refused the global trap.x" in ran.stderr
