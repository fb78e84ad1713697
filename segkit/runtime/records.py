"""What `segkit predict` has done: a line for each image, and COCO's JSONs made of the lines at the end."""

from __future__ import annotations

import io
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

from segkit.structures import CategorySet
from segkit.utils.errors import DatasetError
from segkit.utils.files import convert_write_errors, dump_json, load_json, replacing

RUN, RECORDS = "predict.json", "records.jsonl"
PANOPTIC_JSON, INSTANCES_JSON = "panoptic.json", "instances.json"
NOT_DONE = -1
OTHER = "name another output folder, or give --overwrite"


class PredictionRecords:
    """The images that are done, on disk: a run that was ended goes on where it was. One number per image in memory.

    A record is a line of records.jsonl, written when the files of its image are complete: `image` (COCO's entry) and,
    if the model gives them, `instances` (COCO annotations) and `panoptic` (COCO's annotation). Nothing is written
    before the first record.

    Args:
        folder: the output folder.
        run: what the results depend on; records of an equal run in the folder are kept.
        images: the number of images.
        overwrite: results of another run are replaced.

    Raises:
        DatasetError: the folder has results of another run, or cannot be read.
    """

    def __init__(self, folder: str | Path, run: Mapping[str, Any], images: int, *, overwrite: bool = False) -> None:
        self.folder, self.run = Path(folder), json.loads(json.dumps(run))
        self._offsets = array("q", [NOT_DONE]) * images
        self._file: io.FileIO | None = None
        self._goes_on = False
        if not overwrite:
            self._check_run()
        if (self.folder / RUN).is_file() and load_json(self.folder / RUN) == self.run:
            self._goes_on = True
            self._read_offsets()

    def __contains__(self, position: int) -> bool:
        return self._offsets[position] != NOT_DONE

    def __len__(self) -> int:
        return len(self._offsets) - self._offsets.count(NOT_DONE)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The records in the order of the images."""
        with (self.folder / RECORDS).open("rb") as file:
            for offset in self._offsets:
                if offset != NOT_DONE:
                    file.seek(offset)
                    yield json.loads(file.readline())["record"]

    def add(self, position: int, record: Mapping[str, Any]) -> None:
        """Keep the record of an image, whose other files are written.

        Args:
            position: index of the image.
            record: see the class.

        Raises:
            DatasetError: the file cannot be written.
        """
        line = json.dumps({"position": position, "record": record}, allow_nan=False)
        with convert_write_errors(self.folder / RECORDS):
            file = self._file or self._open()
            offset, rest = file.tell(), line.encode() + b"\n"
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(offset)
                raise
            self._offsets[position] = offset

    def close(self) -> None:
        """Close the file of the records."""
        if self._file is not None:
            self._file.close()

    def write_tables(self, categories: CategorySet) -> list[Path]:
        """Write panoptic.json and instances.json, as far as records have their entries.

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
        return written

    def _list_images(self) -> Iterator[Any]:
        return (record["image"] for record in self)

    def _check_run(self) -> None:
        path = self.folder / RUN
        if path.is_file():
            content = load_json(path)
            earlier = content if isinstance(content, dict) else {}
            if earlier != self.run:
                keys = sorted(key for key in {*earlier, *self.run} if earlier.get(key) != self.run.get(key))
                problem = f"the folder has results of another run: other {', '.join(keys)}"
                raise DatasetError(problem, where=self.folder, remedy=OTHER)
            return
        found = [name for name in (PANOPTIC_JSON, INSTANCES_JSON) if os.path.lexists(self.folder / name)]
        if found:
            problem = f"the folder has {' and '.join(found)}, but no {RUN} that says of which run"
            raise DatasetError(problem, where=self.folder, remedy=OTHER)

    def _read_offsets(self) -> None:
        path = self.folder / RECORDS
        if not path.is_file():
            return
        offset = 0
        with convert_write_errors(path), path.open("r+b") as file:
            for line in file:
                try:
                    position = json.loads(line)["position"] if line.endswith(b"\n") else None
                except ValueError:
                    position = None
                if not isinstance(position, int):  # the process was killed while it wrote this line
                    file.truncate(offset)
                    break
                self._offsets[position] = offset
                offset += len(line)

    def _open(self) -> io.FileIO:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._goes_on:
            (self.folder / RECORDS).unlink(missing_ok=True)
            dump_json(self.folder / RUN, self.run)
        self._file = (self.folder / RECORDS).open("ab", buffering=0)
        return self._file


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
