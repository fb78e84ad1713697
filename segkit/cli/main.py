"""The console command `segkit`: finds the verb, imports it alone, and turns errors of users into one line."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import sys
import traceback
import warnings

from segkit import __version__

# verb -> (module with add_arguments(parser) and run(args) -> exit code, what it does)
VERBS = {
    "train": ("segkit.cli.train", "train and evaluate a model"),
    "evaluate": ("segkit.cli.evaluate", "score saved predictions, without a model"),
    "compare": ("segkit.cli.compare", "say by how much one set of predictions is better than another"),
    "predict": ("segkit.cli.predict", "segment images with a trained model"),
    "fuse": ("segkit.cli.fuse", "fuse saved predictions again: other methods and thresholds, the best, the reasons"),
    "data": ("segkit.cli.data", "make, check and convert data"),
    "demo": ("segkit.cli.demo", "generate toy scenes, train on them, evaluate and draw, in one go"),
    "doctor": ("segkit.cli.doctor", "check the installation and say how to mend it"),
}
DEBUG = "SEGKIT_DEBUG"
USAGE_ERROR, INTERRUPTED, BROKEN_PIPE = 2, 130, 141  # argparse's, 128 + SIGINT, 128 + SIGPIPE
# How a SegkitError ends a traceback that another process sent as text.
REMOTE_ERROR = re.compile(r"^segkit\.[\w.]+Error: (.+)$", re.MULTILINE)


def main(argv: list[str] | None = None) -> int:
    """Run `segkit <verb> ...` and return the exit code.

    0 success, 1 an error that the verb told or a failed check, 2 wrong usage, 130 interrupted. A SegkitError is one
    line on stderr, also where it was raised in a data loader's worker or in another training process; the environment
    variable SEGKIT_DEBUG=1 adds the traceback. Errors that are nobody's but ours keep their traceback.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(f"segkit {__version__}")
        return 0
    if arguments[0] not in VERBS:
        print(_unknown(arguments[0]), file=sys.stderr)
        return USAGE_ERROR
    return _guarded(arguments[0], arguments[1:])


def usage() -> str:
    """The help of the command: its verbs, a line each."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {does}" for verb, (_module, does) in VERBS.items())
    return (
        "usage: segkit VERB ...\n\nInstance and panoptic segmentation on Detectron2.\n\n"
        f"{verbs}\n\n`segkit VERB --help` explains a verb; `segkit --version` tells the version; "
        f"{DEBUG}=1 shows where an error comes from."
    )


def _unknown(verb: str) -> str:
    close = difflib.get_close_matches(verb.lower(), VERBS, n=1)
    meant = f"; did you mean `segkit {close[0]}`?" if close else ""
    return f"segkit: there is no verb {verb!r}{meant} (`segkit --help` lists them)"


def _guarded(verb: str, arguments: list[str]) -> int:
    try:
        code = _run(verb, arguments)
        sys.stdout.flush()  # here, so that a reader who has left is noticed here
        return code
    except KeyboardInterrupt:
        return _told(verb, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return BROKEN_PIPE
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        if _debugging():
            traceback.print_exc()
        return _told(verb, message, 1)


def _run(verb: str, arguments: list[str]) -> int:
    if not _debugging():
        _quieten_libraries()
    module_name, does = VERBS[verb]
    module = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(
        prog=f"segkit {verb}", description=f"{does[0].upper()}{does[1:]}.", allow_abbrev=False
    )
    module.add_arguments(parser)
    try:
        args = parser.parse_args(arguments)
    except SystemExit as error:  # argparse has printed its help or what is wrong
        return int(error.code or 0)
    return int(module.run(args) or 0)


def _message(error: Exception) -> str | None:
    """What a user needs to know of `error`; None where it is a fault of the program."""
    remote = REMOTE_ERROR.findall(str(error))
    if remote:
        return str(remote[-1])
    errors = sys.modules.get("segkit.utils.errors")  # not imported above: it needs numpy, `doctor` must not
    if errors and isinstance(error, errors.SegkitError):
        return str(error)
    if isinstance(error, ImportError) and not (error.name or "").startswith("segkit"):
        package = (error.name or "").partition(".")[0]
        missing = isinstance(error, ModuleNotFoundError) and package
        return f"{f'{package} is not installed' if missing else error}; `segkit doctor` says how to mend it"
    return None


def _debugging() -> bool:
    return os.environ.get(DEBUG, "") not in ("", "0")


def _quieten_libraries() -> None:
    """Leave out what Detectron2's import makes torch and setuptools warn of: a user cannot act on it."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
    warnings.filterwarnings("ignore", message=".*pkg_resources", category=UserWarning)


def _told(verb: str, message: str, code: int) -> int:
    print(f"segkit {verb}: {' '.join(message.split())}", file=sys.stderr)
    return code
