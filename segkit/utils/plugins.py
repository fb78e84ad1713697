"""Modules of the user that are imported before a config is read: they register datasets, heads and formats.

Only the user names plugins: by `--plugin`, by the environment variable SEGKIT_PLUGINS or by a call. Configs and
checkpoints record the names of the plugins that they need, see `require_plugins`, and import nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from segkit.utils.errors import ConfigError, SegkitError

ENVIRONMENT = "SEGKIT_PLUGINS"  # plugins, separated by commas or by os.pathsep
CONFIG_HOOK = "add_config"  # function of a plugin that adds its keys to a config
PYTHON_SUFFIX = ".py"

_plugins: dict[str, tuple[str, ModuleType]] = {}  # module's name -> (what it is imported by, the module)


def load_plugins(sources: Iterable[str]) -> None:
    """Import plugins; one that is imported already is left alone.

    The working directory and the folders of files are appended to sys.path, so that plugins find their neighbours.

    Args:
        sources: names of modules, or paths of .py files.

    Raises:
        ConfigError: a plugin is not found or fails; the message has the file and the line.
    """
    for source in sources:
        is_file = source.endswith(PYTHON_SUFFIX) or os.sep in source
        name = Path(source).stem if is_file else source
        if name in _plugins and not is_file:
            continue
        _add_to_path(Path.cwd())
        module = run_user_code(f"the plugin {name!r}", _import_file if is_file else _import_module, source)
        _plugins[name] = (os.path.abspath(source) if is_file else source, module)


def get_environment_plugins() -> list[str]:
    """Read SEGKIT_PLUGINS.

    Returns:
        Names of modules and paths of .py files, as in the variable.
    """
    text = os.environ.get(ENVIRONMENT, "")
    return [source.strip() for source in re.split(f"[,{re.escape(os.pathsep)}]", text) if source.strip()]


def get_plugin_names() -> list[str]:
    """List the imported plugins.

    Returns:
        Names of modules; of a file its stem.
    """
    return [*_plugins]


def get_plugin_sources() -> list[str]:
    """List the imported plugins in the form that another process can import.

    Returns:
        Names of modules, and absolute paths of .py files.
    """
    return [source for source, _ in _plugins.values()]


def get_plugin_files() -> dict[str, Path]:
    """List where the imported plugins come from.

    Returns:
        Name of the module -> its file, or the folder of a package. Built-in modules are left out.
    """
    files = {name: getattr(module, "__file__", None) for name, (_, module) in _plugins.items()}
    paths = {name: Path(file) for name, file in files.items() if file}
    return {name: path.parent if path.name == "__init__.py" else path for name, path in paths.items()}


def add_plugin_keys(cfg: Any) -> None:
    """Call `add_config(cfg)` of every imported plugin that has this function.

    Args:
        cfg: the config, before files are merged into it.

    Raises:
        ConfigError: a function fails.
    """
    for name, (_, module) in _plugins.items():
        add_config = getattr(module, CONFIG_HOOK, None)
        if callable(add_config):
            run_user_code(f"the plugin {name!r}", add_config, cfg)


def require_plugins(names: Any, where: object) -> None:
    """Check that the plugins of a run were given.

    Args:
        names: names that a config or checkpoint records.
        where: the config or checkpoint, for messages.

    Raises:
        ConfigError: a plugin was not given, or `names` is no list of names.
    """
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"expected PLUGINS to be a list of names of modules, got {names!r}", where=where)
    missing = [name for name in names if name not in _plugins]
    if missing:
        flags = " ".join(f"--plugin {name}" for name in missing)
        problem = f"needs the plugin {' and '.join(missing)}, which was not given"
        remedy = f"add {flags} (a module or the path of its file), or set {ENVIRONMENT}={','.join(missing)}"
        raise ConfigError(problem, where=where, remedy=remedy)


def run_user_code(what: str, call: Callable[[Any], Any], argument: Any) -> Any:
    """Call code of the user; whatever it raises becomes an error of one line.

    Args:
        what: text for what the code is.
        call: the function.
        argument: its argument.

    Returns:
        The result of the function.

    Raises:
        ConfigError: the code fails; the message has its file and line.
    """
    try:
        return call(argument)
    except SegkitError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{what} fails: {text}{place}", remedy="repair it") from error


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the plugin is found, and imports what is missing
        remedy = "name a module of the working directory or of an installed package, or the path of a .py file"
        raise ConfigError(f"there is no plugin {name!r}", remedy=remedy) from None


def _import_file(source: str) -> ModuleType:
    """Import a file under its stem, so that processes that unpickle its classes find them."""
    path = Path(os.path.abspath(source))
    if not path.is_file() or path.suffix != PYTHON_SUFFIX:
        problem = "expected a plugin in a .py file, got " + ("another file" if path.exists() else "no such file")
        raise ConfigError(problem, where=source, remedy="name a package by its module's name, not by its folder")
    if "." in path.stem:
        raise ConfigError("expected a file name that is a module's name", where=source, remedy="rename the file")
    present = sys.modules.get(path.stem)
    origin = getattr(present, "__file__", None) if present else _find_origin(path.stem)
    if present is not None or origin is not None:
        if origin is None or os.path.realpath(origin) != os.path.realpath(path):
            problem = f"the name {path.stem!r} is taken by another module ({origin or 'built into Python'})"
            raise ConfigError(problem, where=source, remedy="rename the file")
        return present or importlib.import_module(path.stem)
    _add_to_path(path.parent)
    return importlib.import_module(path.stem)


def _find_origin(name: str) -> str | None:
    spec = importlib.util.find_spec(name)
    return None if spec is None else spec.origin


def _add_to_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last: files of the folder never replace installed modules
        importlib.invalidate_caches()
