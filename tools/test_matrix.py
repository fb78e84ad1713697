#!/usr/bin/env python3
"""Run `make test` with every supported Python that is found, and with the oldest supported torch.

python tools/test_matrix.py                          # all; each has an environment of its own, about 5 GB
python tools/test_matrix.py 3.12 oldest-torch        # only these
python tools/test_matrix.py --remove                 # remove each environment after its tests

A failure does not stop the others. The last lines are a table; the output of each run is in output/test-matrix/.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = json.loads((ROOT / "segkit/requirements.json").read_text(encoding="utf-8"))
LOGS = Path("output/test-matrix")
OLDEST = "oldest-torch"
PASSED, FAILED, NOT_FOUND = "passed", "failed", "not found"


def main(arguments: list[str] | None = None) -> int:
    """Run what `arguments` name; the exit code."""
    first, last = map(int, re.findall(r"3\.(\d+)", REQUIREMENTS["python"]))  # ">=3.10,<3.14"
    versions = [f"3.{minor}" for minor in range(first, last)]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"of {', '.join(versions)}, {OLDEST} (default: all)")
    parser.add_argument("--remove", action="store_true", help="remove each environment after its tests")
    args = parser.parse_args(arguments)
    if unknown := {*args.runs} - {*versions, OLDEST}:
        parser.error(f"expected runs of {[*versions, OLDEST]}, got {sorted(unknown)}")
    pythons = {version: find_python(version) for version in versions}
    pythons[OLDEST] = next(
        filter(None, pythons.values()), None
    )  # the oldest Python: torch that is old knows no recent one
    results = [run_tests(run, pythons[run], args.remove) for run in args.runs or pythons]
    print(*("{:<14}{:<11}{:>8}  {}".format(*result) for result in results), sep="\n")
    outcomes = {outcome for _, outcome, _, _ in results}
    return 0 if PASSED in outcomes and FAILED not in outcomes else 1


def find_python(version: str) -> str | None:
    """The path of an interpreter of this version, from PATH or pyenv; None without one."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    installed = sorted(pyenv.glob(f"{version}.*/bin/python"), key=lambda path: int(path.parts[-3].split(".")[2]))
    for python in [shutil.which(f"python{version}"), *reversed(installed)]:
        command = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if (
            python and subprocess.run(command, capture_output=True, text=True).stdout == f"{version}\n"
        ):  # pyenv's shims fail
            return str(python)
    return None


def run_tests(run: str, python: str | None, remove: bool) -> tuple[str, str, str, str]:
    """Run `make test` in its own environment; the name of the run, the outcome, the minutes and where to look."""
    if python is None:
        return run, NOT_FOUND, "", "neither on PATH nor in pyenv"
    (ROOT / LOGS).mkdir(parents=True, exist_ok=True)
    venv, log = f".venv-{run}", LOGS / f"{run}.log"
    command = ["make", "test", f"PYTHON={python}", f"VENV={venv}"]
    if run == OLDEST:
        command.append(f"CONSTRAINTS={write_constraints()}")
    print(f"{run}: {' '.join(command)} > {log}", flush=True)
    start = time.monotonic()
    with (ROOT / log).open("w", encoding="utf-8") as output:
        code = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT).returncode
    minutes = f"{(time.monotonic() - start) / 60:.1f} min"
    if remove:
        for folder in (venv, f"{venv}-light"):
            shutil.rmtree(ROOT / folder, ignore_errors=True)
    return run, FAILED if code else PASSED, minutes, f"{summarize((ROOT / log).read_text(encoding='utf-8'))} ({log})"


def write_constraints() -> Path:
    """Write constraints.txt with the oldest torch and torchvision that the requirements admit; the file's path."""
    oldest = [
        line.replace(">=", "==") for line in REQUIREMENTS["extras"]["train"] if re.match("torch(vision)?>=", line)
    ]
    tested = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    text = "\n".join([*(line for line in tested if not re.match("(torch|torchvision|triton)==", line)), *oldest, ""])
    path = LOGS / "constraints.txt"
    if not (ROOT / path).exists() or (ROOT / path).read_text(encoding="utf-8") != text:  # make compares the times
        (ROOT / path).write_text(text, encoding="utf-8")
    return path


def summarize(log: str) -> str:
    """The last lines of pytest's runs, or the first step of make that failed."""
    counts = re.findall(r"^=+ (.*(?:passed|failed|error).*) in .*=+$", log, re.MULTILINE)
    return "; ".join(counts) or "; ".join(re.findall(r"^make.*\*\*\* .*$", log, re.MULTILINE)[:1])


if __name__ == "__main__":
    sys.exit(main())
