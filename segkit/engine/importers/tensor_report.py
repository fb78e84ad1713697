"""What became of each tensor of a file: loaded, missing, unexpected, of another shape, left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from segkit.engine.checkpoints.architecture import NOT_WEIGHTS
from segkit.engine.importers.base import BOTTOM_UP, ConvertedWeights, Shapes

LOADED, MISSING, UNEXPECTED, OTHER_SHAPE, LEFT_OUT = "loaded", "missing", "unexpected", "shape", "left out"
STATUSES = (LOADED, MISSING, UNEXPECTED, OTHER_SHAPE, LEFT_OUT)


class TensorRow(NamedTuple):
    """A tensor of the file or of the model.

    Attributes:
        name: in our model; in the file if our model lacks it.
        status: one of `STATUSES`.
        source_name: in the file; "" if it is missing there.
        file_shape: shape in the file, converted; None if it is missing there.
        model_shape: shape in our model; None if our model lacks it.
        reason: why it is left out.
    """

    name: str
    status: str
    source_name: str = ""
    file_shape: tuple[int, ...] | None = None
    model_shape: tuple[int, ...] | None = None
    reason: str = ""


@dataclass
class ImportReport:
    """What an import has done.

    Attributes:
        source: name of the source.
        rows: the tensors, those of the model first.
        is_backbone: the file has a backbone alone, from which a training starts.
        classes: names of the classes that were saved.
        notes: differences that remain, and assumptions.
        config: the config that was written, None without one.
    """

    source: str
    rows: list[TensorRow]
    is_backbone: bool = False
    classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    config: Path | None = None

    @property
    def loaded(self) -> list[str]:
        """The names of the tensors that fill the model."""
        return self.list_names(LOADED)

    def list_names(self, status: str) -> list[str]:
        """List tensors.

        Args:
            status: one of `STATUSES`.

        Returns:
            Their names.
        """
        return [row.name for row in self.rows if row.status == status]

    def format_lines(self) -> list[str]:
        """The report as a table.

        Returns:
            Lines: a row for each part of the model with its counts, a row for each tensor that is not loaded, notes.
        """
        counts: dict[str, Counter[str]] = {"all": Counter(row.status for row in self.rows)}
        for row in self.rows:
            counts.setdefault(".".join(row.name.split(".")[:2]), Counter())[row.status] += 1
        width = max(map(len, counts))
        lines = [f"{self.source}: {len(self.rows)} tensors", " ".join([" " * width, *(f"{s:>10}" for s in STATUSES)])]
        lines += [
            " ".join([f"{part:<{width}}", *(f"{count[s]:>10}" for s in STATUSES)]) for part, count in counts.items()
        ]
        lines += [_format_row(row) for row in self.rows if row.status != LOADED and not self._is_expected(row)]
        if self.classes:
            lines.append(
                f"classes: {len(self.classes)}: {', '.join(self.classes[:5])}{' ...' * (len(self.classes) > 5)}"
            )
        return lines + [f"note: {note}" for note in self.notes]

    def to_json(self) -> dict[str, Any]:
        """The report as data.

        Returns:
            source, counts, tensors (the fields of `TensorRow`), classes, notes, config.
        """
        counts = Counter(row.status for row in self.rows)
        return {
            "source": self.source,
            "counts": {status: counts[status] for status in STATUSES},
            "tensors": [row._asdict() for row in self.rows],
            "classes": self.classes,
            "notes": self.notes,
            "config": str(self.config) if self.config else None,
        }

    def _is_expected(self, row: TensorRow) -> bool:
        """The heads are missing from every file of a backbone: too many lines."""
        return self.is_backbone and row.status == MISSING


def compare_tensors(converted: ConvertedWeights, model_shapes: Shapes, source: str) -> ImportReport:
    """Compare weights with a model.

    Args:
        converted: the weights under our names.
        model_shapes: name -> shape of the model's tensors.
        source: name of the source.

    Returns:
        The report, without classes and notes. Counters and constants that the file need not have are not missing.
    """
    rows = []
    for name, shape in model_shapes.items():
        weight, source_name = converted.weights.get(name), converted.source_names.get(name, name)
        if weight is not None:
            status = LOADED if tuple(weight.shape) == shape else OTHER_SHAPE
            rows.append(TensorRow(name, status, source_name, tuple(weight.shape), shape))
        elif not name.endswith(NOT_WEIGHTS):
            rows.append(TensorRow(name, MISSING, model_shape=shape))
    for name, weight in converted.weights.items():
        if name not in model_shapes:
            status, reason = (LEFT_OUT, "a counter") if name.endswith(NOT_WEIGHTS) else (UNEXPECTED, "")
            row = TensorRow(name, status, converted.source_names.get(name, name), tuple(weight.shape), None, reason)
            rows.append(row)
    rows += [TensorRow(name, LEFT_OUT, name, reason=reason) for name, reason in converted.dropped.items()]
    is_backbone = all(name.startswith(BOTTOM_UP) for name in converted.weights)
    return ImportReport(source, rows, is_backbone)


def _format_row(row: TensorRow) -> str:
    shapes = f" (file {row.file_shape}, model {row.model_shape})" if row.status == OTHER_SHAPE else ""
    renamed = f" <- {row.source_name}" if row.source_name not in ("", row.name) else ""
    return f"{row.status}: {row.name}{renamed}{shapes}{f' ({row.reason})' if row.reason else ''}"
