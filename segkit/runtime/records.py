"""What `segkit predict` has done: a line for each image, and COCO's JSONs made of the lines at the end."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain, count
from pathlib import Path
from typing import Any

from segkit.runtime.prediction import LABELS
from segkit.structures import CategorySet
from segkit.utils.errors import DatasetError
from segkit.utils.files import convert_write_errors, dump_json, load_json, replacing

RUN, RECORDS = "predict.json", "records.jsonl"
SHARD_RECORDS = re.compile(r"records_(\d+)_of_(\d+)\.jsonl")
PANOPTIC_JSON, INSTANCES_JSON, SEMANTIC_JSON = "panoptic.json", "instances.json", "semantic.json"
TABLES = (PANOPTIC_JSON, INSTANCES_JSON, SEMANTIC_JSON)
CLASSES_JSON = "classes.json"  # in the folder of the label maps
# Keys of predict.json beside those of the run.
CATEGORIES, CLASS_NAMES, COUNT = "categories", "class_names", "number_of_images"
NOT_DONE = -1
OTHER = "name another output folder, or give --overwrite"


class PredictionRecords:
    """The images that are done, on disk: a run that was ended goes on where it was. Few bytes per image in memory.

    A record is a line of records.jsonl, written when the files of its image are complete: `image` (COCO's entry) and,
    if the model gives them, `instances` (COCO annotations), `panoptic` (COCO's annotation) and `semantic` (image_id and
    file_name of the label map). Nothing is written before the first record. A shard writes records_I_of_N.jsonl, and
    what any process of an equal run has done, into whatever file, is done for all. The first line of a file is the
    checksum of its run.

    Args:
        folder: the output folder.
        run: what the results depend on; records of an equal run in the folder are kept.
        images: the number of images.
        overwrite: results of another run are replaced.
        shard: (I, N), I in 1..N: the shard that this process predicts; (1, 1): all images.

    Raises:
        DatasetError: the folder has results of another run, or cannot be read.

    Attributes:
        categories: of the model, for predict.json; set before the first record.
        class_names: names of the labels in label maps; set with `categories`.
        errors: position -> message of an image of a shard that cannot be read.
    """

    def __init__(
        self,
        folder: str | Path,
        run: Mapping[str, Any],
        images: int,
        *,
        overwrite: bool = False,
        shard: tuple[int, int] = (1, 1),
    ) -> None:
        self.folder, self.run = Path(folder), {**json.loads(json.dumps(run)), COUNT: images}
        self.path = self.folder / (RECORDS if shard[1] == 1 else f"records_{shard[0]}_of_{shard[1]}.jsonl")
        self.categories: CategorySet | None = None
        self.class_names: list[str] = []
        self.errors: dict[int, str] = {}
        self._header = json.dumps({"run": hashlib.sha256(json.dumps(self.run, sort_keys=True).encode()).hexdigest()})
        self._file: io.FileIO | None = None
        if not overwrite:
            self._check_run()
        self.reload()

    @classmethod
    def load(cls, folder: str | Path) -> PredictionRecords:
        """Load the records of whatever run is in a folder, with its categories.

        Args:
            folder: the output folder.

        Returns:
            The records.

        Raises:
            DatasetError: the folder has no records, or they cannot be read.
        """
        path = Path(folder, RUN)
        content = load_json(path)
        if not isinstance(content, dict) or not content.keys() >= {COUNT, CATEGORIES}:
            raise DatasetError("expected a run with its categories", where=path, remedy="predict the images again")
        categories = CategorySet.from_coco(content.pop(CATEGORIES), path)
        class_names = content.pop(CLASS_NAMES, [])
        records = cls(folder, content, content[COUNT])
        records.categories, records.class_names = categories, class_names
        return records

    def __contains__(self, position: int) -> bool:
        return self._offsets[position] != NOT_DONE

    def __len__(self) -> int:
        return len(self._offsets) - self._offsets.count(NOT_DONE)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The records in the order of the images."""
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) if path.is_file() else None for path in self._paths]
            for offset, source in zip(self._offsets, self._sources, strict=True):
                file = files[source]
                if offset != NOT_DONE and file is not None:
                    file.seek(offset)
                    yield json.loads(file.readline())["record"]

    def reload(self) -> None:
        """Read what all processes of the run have done by now.

        Raises:
            DatasetError: a file cannot be read.
        """
        count = self.run[COUNT]
        self._offsets: array[int] = array("q", [NOT_DONE]) * count
        self._sources: array[int] = array("l", [0]) * count  # rows of `_paths`
        shards = [path for path in self.folder.glob("records*.jsonl") if self._is_records(path)]
        self._paths = [self.path, *sorted({*shards} - {self.path})]
        self._goes_on = False
        for source, path in enumerate(self._paths):
            if path.is_file():
                self._read(source, path)
        self.errors = {position: text for position, text in self.errors.items() if position not in self}

    def list_missing(self) -> list[int]:
        """List the images that are neither done nor known to be unreadable.

        Returns:
            Their positions.
        """
        return [
            position for position in range(len(self._offsets)) if position not in self and position not in self.errors
        ]

    def describe_missing(self) -> str:
        """Describe the images of `list_missing`, with their shards if all have one number of shards.

        Returns:
            A text such as "6 of 9 images are not predicted: shards 1 and 3 of 3 are not complete".
        """
        missing = self.list_missing()
        text = f"{len(missing)} of {len(self._offsets)} images are not predicted"
        matches = [SHARD_RECORDS.fullmatch(path.name) for path in self._paths if path.is_file()]
        counts = {int(match[2]) for match in matches if match}
        if len(counts) != 1:
            return text
        (shards,) = counts
        names = [str(shard + 1) for shard in sorted({position % shards for position in missing})]
        return f"{text}: of {shards} shards, {', '.join(names)} {'is' if len(names) == 1 else 'are'} not complete"

    def add(self, position: int, record: Mapping[str, Any]) -> None:
        """Keep the record of an image, whose other files are written.

        Args:
            position: index of the image.
            record: see the class.

        Raises:
            DatasetError: the file cannot be written.
        """
        offset = self._append({"position": position, "record": record})
        self._offsets[position], self._sources[position] = offset, 0

    def add_error(self, position: int, message: str) -> None:
        """Keep that an image cannot be read, so that its shard can be complete without it.

        Args:
            position: index of the image.
            message: the error.

        Raises:
            DatasetError: the file cannot be written.
        """
        self._append({"position": position, "error": message.encode(errors="backslashreplace").decode()})
        self.errors[position] = message

    def close(self) -> None:
        """Close the file of the records."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def write_tables(self, categories: CategorySet) -> list[Path]:
        """Write panoptic.json, instances.json, semantic.json and labels/classes.json, as far as records have them.

        Args:
            categories: of the model.

        Returns:
            The files.

        Raises:
            DatasetError: a file cannot be written.
        """
        first = next(iter(self), {})
        classes, written = categories.to_coco(), []
        if "panoptic" in first:
            annotations: Iterable[Any] = (record["panoptic"] for record in self)
            _write_json(self.folder / PANOPTIC_JSON, self._list_images(), annotations, classes)
            written.append(self.folder / PANOPTIC_JSON)
        if "instances" in first:
            instances = chain.from_iterable(record["instances"] for record in self)
            numbered = ({"id": number, **entry} for number, entry in zip(count(1), instances, strict=False))
            things = [entry for entry in classes if entry["isthing"]]
            _write_json(self.folder / INSTANCES_JSON, self._list_images(), numbered, things)
            written.append(self.folder / INSTANCES_JSON)
        if "semantic" in first:
            annotations = (record["semantic"] for record in self)
            labels = ({"id": label, "name": name} for label, name in enumerate(self.class_names))
            _write_json(self.folder / SEMANTIC_JSON, self._list_images(), annotations, labels)
            written.append(self.folder / SEMANTIC_JSON)
        if first.get("masks") == LABELS:
            dump_json(self.folder / LABELS / CLASSES_JSON, self.class_names)
        return written

    def _list_images(self) -> Iterator[Any]:
        return (record["image"] for record in self)

    def _check_run(self) -> None:
        path = self.folder / RUN
        if path.is_file():
            content = load_json(path)
            content = content if isinstance(content, dict) else {}
            earlier = {key: content[key] for key in content.keys() - {CATEGORIES, CLASS_NAMES}}
            if earlier != self.run:
                keys = sorted(key for key in {*earlier, *self.run} if earlier.get(key) != self.run.get(key))
                problem = f"the folder has results of another run: other {', '.join(keys)}"
                raise DatasetError(problem, where=self.folder, remedy=OTHER)
            return
        tables = [name for name in TABLES if os.path.lexists(self.folder / name)]
        if tables:
            problem = f"the folder has {' and '.join(tables)}, but no {RUN} that says of which run"
            raise DatasetError(problem, where=self.folder, remedy=OTHER)

    def _read(self, source: int, path: Path) -> None:
        """Read a file of records; other processes may be writing all but the own one."""
        offset, is_own = 0, source == 0 and self._file is None
        with convert_write_errors(path), path.open("r+b" if is_own else "rb") as file:
            for line in file:
                content: Any
                try:
                    content = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    content = None
                if offset == 0 and content != json.loads(self._header):
                    return  # of another run
                position = content.get("position", NOT_DONE) if isinstance(content, dict) else None
                if position is None:  # the process was killed while it wrote this line
                    if is_own:
                        file.truncate(offset)
                    break
                if offset and "record" in content:
                    self._offsets[position], self._sources[position] = offset, source
                elif offset:
                    self.errors[position] = content["error"]
                offset += len(line)
        self._goes_on = self._goes_on or (source == 0 and offset > 0)

    def _append(self, content: Mapping[str, Any]) -> int:
        """Write a line; its offset."""
        with convert_write_errors(self.path):
            return _write_line(self._file or self._open(), json.dumps(content, allow_nan=False))

    def _open(self) -> io.FileIO:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._goes_on:
            for path in (self.path, *(self.folder / name for name in TABLES)):  # of another run
                path.unlink(missing_ok=True)
            classes: dict[str, Any] = {} if self.categories is None else {CATEGORIES: self.categories.to_coco()}
            classes |= {CLASS_NAMES: self.class_names} if self.class_names else {}
            dump_json(self.folder / RUN, {**self.run, **classes})
        file = self.path.open("ab", buffering=0)
        try:
            if not self._goes_on:
                _write_line(file, self._header)
        except OSError:
            file.close()
            raise
        self._file, self._goes_on = file, True
        return file

    @staticmethod
    def _is_records(path: Path) -> bool:
        return path.name == RECORDS or SHARD_RECORDS.fullmatch(path.name) is not None


def merge_shards(folder: str | Path) -> tuple[list[Path], list[str]]:
    """Write the JSONs of a run whose shards are complete, without its model.

    Args:
        folder: the output folder.

    Returns:
        (the JSONs, the errors of images that cannot be read).

    Raises:
        DatasetError: shards are not complete, a file cannot be read or written, or there are no records.
    """
    records = PredictionRecords.load(folder)
    if records.list_missing():
        remedy = "run the same command with --shard I/N of these, then merge again"
        raise DatasetError(records.describe_missing(), where=folder, remedy=remedy)
    assert records.categories is not None  # `load` reads them
    return records.write_tables(records.categories), [*records.errors.values()]


def _write_line(file: io.FileIO, line: str) -> int:
    """Append a line, whole or not at all; its offset."""
    offset, rest = file.tell(), line.encode() + b"\n"
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        file.truncate(offset)
        raise
    return offset


def _write_json(path: Path, images: Iterable[Any], annotations: Iterable[Any], categories: Iterable[Any]) -> None:
    """Write a COCO file entry by entry, whole or not at all."""
    tables = {"images": images, "annotations": annotations, "categories": categories}
    with replacing(path) as neighbour, neighbour.open("w", encoding="utf-8") as file:
        for number, (name, entries) in enumerate(tables.items()):
            file.write(f'{", " if number else "{"}"{name}": [')
            for index, entry in enumerate(entries):
                file.write(", " * bool(index) + json.dumps(entry, allow_nan=False))
            file.write("]")
        file.write("}")
