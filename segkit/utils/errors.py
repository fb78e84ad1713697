"""The errors that a user's data, config or weights can cause: typed, one clear line each."""

from __future__ import annotations


class SegkitError(Exception):
    """What was expected and what came, where, and the remedy, as one line: `where: problem; remedy`.

    Everything is folded into the message, so that the error survives pickling between processes.
    where, problem: those two parts by themselves, "" for no place. code: of the
    issue of a dataset, a key of `segkit.curation.issues.RULES`, "" for none.
    """

    def __init__(self, problem: str, *, where: object = "", remedy: str = "", code: str = "") -> None:
        self.where, self.problem, self.code = str(where), problem, code
        text = f"{where}: {problem}" if where != "" else problem
        super().__init__(f"{text}; {remedy}" if remedy else text)


class DatasetError(SegkitError):
    """Images, annotations or prediction files that are missing, unreadable or contradict each other."""


class ConfigError(SegkitError):
    """A config key or value that does not exist or contradicts another or the dataset."""


class CheckpointError(SegkitError):
    """Weights that are missing, unsafe to read, or of another architecture."""
