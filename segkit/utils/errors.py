"""Errors that data, config or weights of a user can cause."""

from __future__ import annotations


class SegkitError(Exception):
    """An error with one line, `where: problem; remedy`, or a line for each of several errors.

    Everything is in the message, so that the error survives pickling between processes.

    Args:
        problem: what was expected and what came.
        where: the file, entry or option; "" for none.
        remedy: what to do; "" for nothing.
        code: issue of a dataset, key of `segkit.curation.issues.RULES`; "" for none.
    """

    def __init__(self, problem: str, *, where: object = "", remedy: str = "", code: str = "") -> None:
        self.where, self.problem, self.remedy, self.code = str(where), problem, remedy, code
        text = f"{where}: {problem}" if where != "" else problem
        super().__init__(f"{text}; {remedy}" if remedy else text)


class DatasetError(SegkitError):
    """Images, annotations or prediction files that are missing, unreadable or contradict each other."""


class OutputError(DatasetError):
    """A file or folder that cannot be written. It says nothing about the data: further images would not help."""


class ConfigError(SegkitError):
    """A config key or value that does not exist or contradicts another or the dataset."""


class CheckpointError(SegkitError):
    """Weights that are missing, unsafe to read, or of another architecture."""


class JobError(SegkitError):
    """A process of a job that did not start, is stopped, or does not answer the other processes."""


class TrainingError(SegkitError):
    """A training that cannot go on: its losses, processes or worker processes fail."""
