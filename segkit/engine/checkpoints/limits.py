"""What a weight file may claim: checked before it is read, since a few bytes can ask for hours, or for all memory.

A pickle can nest tuples in tuples, each twice in the next. As a key of a dict, such a
tuple is walked through: 30 levels take minutes, and 100,000 levels overflow the stack, which kills the process.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

from segkit.engine.checkpoints.footer import NOT_COMPUTED
from segkit.engine.checkpoints.zoo_pickle import UnsafeDataError

MAX_DEPTH = 100  # nested containers; state dicts of optimizers have about 6
MAX_ITEMS = 10_000_000  # of all containers, an item that is used twice counting twice
MAX_FLAT_TUPLE, MAX_NESTED_TUPLE = 20_000, 1_000  # items, those of inner tuples included
# A file of torch before 1.6 begins with a pickled number, and has four more pickles: version, system, the object, keys.
LEGACY_MAGIC, LEGACY_PICKLES = 0x1950A86A20F9469CFC6C, 4


def check_archive(path: Path) -> None:
    """Check a zip that `torch.save` wrote: its parts are stored as they are, so the file is as large as its content.

    Args:
        path: the file.

    Raises:
        UnsafeDataError: a part is compressed, the parts claim more bytes than the file has, or the pickle is refused by
            `check_pickle`.
        zipfile.BadZipFile: the file is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if compressed := [part.filename for part in parts if part.compress_type != zipfile.ZIP_STORED]:
            raise UnsafeDataError(f"has compressed parts, such as {compressed[0][:80]!r}, which torch does not write")
        total, file_size = sum(part.file_size for part in parts), path.stat().st_size
        if total > file_size:
            raise UnsafeDataError(f"claims to hold {total} bytes, in a file of {file_size}")
        for part in parts:
            if part.filename.endswith(".pkl"):
                if part.CRC == NOT_COMPUTED:
                    part.CRC = None  # type: ignore[assignment]  # zipfile then compares none
                with archive.open(part) as file:
                    check_pickle(file)


def check_pickle(file: IO[bytes]) -> None:
    """Run the instructions of a pickle without making its objects, and check how large the tuples get.

    The pickles of a file that an old `torch.save` wrote are all checked.

    Args:
        file: binary file, at the start of the pickle.

    Raises:
        UnsafeDataError: a tuple has too many items, or is nested deeper than `MAX_DEPTH`.
        Exception: the pickle is damaged; pickle has a dozen kinds.
    """
    if _Scanner(file, encoding="bytes").load() == LEGACY_MAGIC:
        for _ in range(LEGACY_PICKLES):
            _Scanner(file, encoding="bytes").load()


def check_tree(value: Any) -> None:
    """Check a tree of containers before it is walked through.

    Args:
        value: dicts, lists and tuples of anything. One that is used in two places counts twice.

    Raises:
        UnsafeDataError: it is nested deeper than `MAX_DEPTH`, or has more than `MAX_ITEMS` items.
    """
    sizes: dict[int, int] = {}

    def count(node: Any, depth: int) -> int:
        if not isinstance(node, dict | list | tuple):
            return 1
        if depth > MAX_DEPTH:
            raise UnsafeDataError(f"has containers nested deeper than {MAX_DEPTH}")
        if id(node) not in sizes:
            sizes[id(node)] = 0  # a container that holds itself is refused later
            children = dict.values(node) if isinstance(node, dict) else node
            sizes[id(node)] = 1 + sum(count(child, depth + 1) for child in children)
        if sizes[id(node)] > MAX_ITEMS:
            raise UnsafeDataError(f"has a container of more than {MAX_ITEMS} items")
        return sizes[id(node)]

    count(value, 0)


_STAND_IN = None  # for any object but tuples, numbers and texts


class _Tuple(NamedTuple):
    """Stands for a tuple."""

    depth: int
    items: int


def _combine(parts: list[Any]) -> _Tuple:
    inner = [part for part in parts if isinstance(part, _Tuple)]
    depth = 1 + max((part.depth for part in inner), default=0)
    items = 1 + len(parts) + sum(part.items for part in inner)
    if depth > MAX_DEPTH or items > (MAX_FLAT_TUPLE if depth == 1 else MAX_NESTED_TUPLE):
        raise UnsafeDataError(f"has tuples of {items} items, nested {depth} times")
    return _Tuple(depth, items)


class _Scanner(pickle._Unpickler):
    """Python's own unpickler, with stand-ins for all objects but numbers and texts: none is made, called or hashed."""

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    readline: Callable[[], bytes]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        return _STAND_IN

    def persistent_load(self, pid: Any) -> Any:
        return _STAND_IN

    def get_extension(self, code: int) -> None:
        self.append(_STAND_IN)

    def _make_tuple(self) -> None:
        parts = self.pop_mark()
        self.append(_combine(parts))

    def _make_small_tuple(self, count: int) -> None:
        self.stack[-count:] = [_combine(self.stack[-count:])]

    def _make_object(self) -> None:
        self.pop_mark()
        self.append(_STAND_IN)

    def _make_instance(self) -> None:
        self.readline(), self.readline()  # module and name
        self._make_object()

    def _make_empty(self) -> None:
        self.append(_STAND_IN)

    def _combine_objects(self, count: int) -> None:
        del self.stack[-count:]
        self.append(_STAND_IN)

    dispatch[pickle.TUPLE[0]] = _make_tuple
    for _code, _count in ((pickle.TUPLE1, 1), (pickle.TUPLE2, 2), (pickle.TUPLE3, 3)):
        dispatch[_code[0]] = partial(_make_small_tuple, count=_count)
    dispatch[pickle.INST[0]] = _make_instance
    for _code in (pickle.LIST, pickle.DICT, pickle.FROZENSET, pickle.OBJ):
        dispatch[_code[0]] = _make_object
    for _code in (pickle.APPENDS, pickle.SETITEMS, pickle.ADDITEMS):  # the container stays on the stack
        dispatch[_code[0]] = pickle._Unpickler.pop_mark  # type: ignore[attr-defined]
    for _code in (pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET):
        dispatch[_code[0]] = _make_empty
    # Of a container or a constructor, and what it takes.
    for _code in (pickle.APPEND, pickle.BUILD, pickle.REDUCE, pickle.NEWOBJ):
        dispatch[_code[0]] = partial(_combine_objects, count=2)
    for _code in (pickle.SETITEM, pickle.NEWOBJ_EX):
        dispatch[_code[0]] = partial(_combine_objects, count=3)
