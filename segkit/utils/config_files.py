"""Config files: segkit's recipes by name, and YAML files that extend others by `_BASE_`."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from urllib.request import urlopen

from segkit.utils.bundles import CONFIG, is_bundle, read_part
from segkit.utils.errors import ConfigError
from segkit.utils.files import read_bytes, replacing
from segkit.utils.yaml_text import parse_yaml

PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel the folder configs/ of the repository is the package segkit.configs.
IN_WHEEL = PACKAGE / "configs"
RECIPES = IN_WHEEL if IN_WHEEL.is_dir() else PACKAGE.parent / "configs"
SUFFIXES = (".yaml", ".yml")
BASE_KEY = "_BASE_"  # path, recipe or address of the config that a file extends, or a list of them
RUN_CONFIG = "config.yaml"  # of a run, in its output folder; Detectron2's name
BASE_PREFIX = "Base-"  # recipes with this name are only there to be extended
BASE_LINE = re.compile(rf"""^({BASE_KEY}:\s*)["']?([^"'\s]+)["']?""", re.MULTILINE)
FETCH = "SEGKIT_FETCH_CONFIGS"
ADDRESS = ("http://", "https://")
TIMEOUT = 30  # seconds
MAX_BYTES = 10_000_000  # of a config
MAX_FILES = 100  # that one config may extend
LIST_COMMAND = "`segkit configs` lists the recipes"


def list_recipes() -> dict[str, str]:
    """List the recipes.

    Returns:
        name, such as coco/panoptic_rcnn_R50_FPN_3x -> summary, the comment in the first line of the file.
    """
    return {name: _read_summary(path) for name, path in _find_recipes().items() if BASE_PREFIX not in name}


def find_config_file(name: str | Path) -> Path:
    """Find a config file.

    Args:
        name: path of a file, or name of a recipe; `.yaml` may be left out.

    Returns:
        The path of the file.

    Raises:
        ConfigError: neither a file nor a recipe has this name; the message has the nearest one.
    """
    path = _find(str(name), "")
    if path is None:
        raise ConfigError("no such config file or recipe", where=name, remedy=_suggest(str(name), ""))
    return Path(path)


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a YAML file and the files that it extends.

    A `_BASE_` is a path relative to the file, or the name of a recipe. An address is only fetched if the environment
    variable SEGKIT_FETCH_CONFIGS is 1.

    Args:
        path: the file, or a bundle of `segkit export bundle`, whose config extends nothing.

    Returns:
        The keys and values; those of a file replace those of its `_BASE_`.

    Raises:
        ConfigError: a file is missing, no YAML of plain values or no mapping, or extends itself.
    """
    if not is_bundle(path) and path.suffix not in SUFFIXES:
        raise ConfigError("expected a YAML config", where=path, remedy="Python configs would run code and are not read")
    return _read_with_bases(str(path), (), [])


def copy_recipe(name: str, path: Path) -> None:
    """Write a copy of a recipe that can be edited: its `_BASE_` is the name of a recipe, not a path.

    Args:
        name: a recipe.
        path: the file to write.

    Raises:
        ConfigError: there is no such recipe.
        DatasetError: the file cannot be written.
    """
    recipes = _find_recipes()
    key = _get_recipe_name(name)
    if key not in recipes:
        raise ConfigError(f"there is no recipe {name!r}", remedy=_suggest(name, ""))

    def name_base(match: re.Match[str]) -> str:
        base = (recipes[key].parent / match[2]).resolve().relative_to(RECIPES.resolve())
        return match[1] + base.with_suffix("").as_posix()

    text = BASE_LINE.sub(name_base, recipes[key].read_text(encoding="utf-8"))
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _find_recipes() -> dict[str, Path]:
    paths = sorted(RECIPES.glob(f"*/*{SUFFIXES[0]}"))
    return {path.relative_to(RECIPES).with_suffix("").as_posix(): path for path in paths}


def _get_recipe_name(name: str) -> str:
    """The name without what is not part of it: `configs/coco/x.yaml` is the recipe `coco/x`."""
    return name.removesuffix(SUFFIXES[0]).removeprefix("configs/")


def _read_summary(path: Path) -> str:
    first_line = path.read_text(encoding="utf-8").partition("\n")[0]
    return first_line.removeprefix("#").strip() if first_line.startswith("#") else ""


def _find(name: str, folder: str) -> str | None:
    """A file relative to the folder, otherwise a recipe; None without both."""
    local = os.path.join(folder, os.path.expanduser(name))
    recipe = _find_recipes().get(_get_recipe_name(name))
    paths = [local, local + SUFFIXES[0], *([str(recipe)] if recipe else [])]
    return next((path for path in paths if os.path.isfile(path)), None)


def _suggest(name: str, folder: str) -> str:
    recipe, recipes = _get_recipe_name(name), _find_recipes()
    neighbours = [path for path in Path(folder, name).parent.glob("*") if path.suffix in SUFFIXES]
    candidates = {str(Path(name).parent / path.stem): str(Path(name).parent / path.name) for path in neighbours}
    candidates |= {key: key for key in recipes}
    names = [key for key in recipes if key.endswith(f"/{recipe}")]
    names = names or difflib.get_close_matches(recipe, candidates, n=1, cutoff=0.7)
    return f"did you mean {' or '.join(candidates[key] for key in names)}? {LIST_COMMAND}" if names else LIST_COMMAND


def _read_with_bases(location: str, extended_by: tuple[str, ...], read: list[str]) -> dict[str, Any]:
    """Read a file or address and its bases; `extended_by`: the files that lead to it; `read`: all files so far."""
    chain = (*extended_by, location)
    if os.path.realpath(location) in map(os.path.realpath, extended_by):
        raise ConfigError(f"the {BASE_KEY} of a config leads back to it: {' -> '.join(chain)}", where=chain[0])
    read.append(location)
    if len(read) > MAX_FILES:
        raise ConfigError(f"expected at most {MAX_FILES} files that a config extends, got more", where=chain[0])
    content = parse_yaml(_read_bytes(location), location)
    if not isinstance(content, dict):
        problem = f"expected YAML of plain values, one mapping, got {type(content).__name__}"
        raise ConfigError(problem, where=location)
    bases = content.pop(BASE_KEY, [])
    if bases and is_bundle(location):
        raise ConfigError(f"expected a config without {BASE_KEY} in a bundle", where=location)
    merged: dict[str, Any] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        _merge(_read_with_bases(_find_base(base, location), chain, read), merged, location)
    _merge(content, merged, location)
    return merged


def _find_base(base: Any, location: str) -> str:
    """The path or address of a base; ConfigError if there is none, or if it must not be fetched."""
    if not isinstance(base, str):
        raise ConfigError(f"expected {BASE_KEY} to be a path or the name of a recipe, got {base!r}", where=location)
    if location.startswith(ADDRESS):
        return urljoin(location, base)
    if base.startswith(ADDRESS):
        if os.environ.get(FETCH, "") not in ("", "0"):
            return base
        remedy = f"set {FETCH}=1 to fetch it, or save it and name the file"
        raise ConfigError(f"the {BASE_KEY} {base} is in the network and is not fetched", where=location, remedy=remedy)
    path = _find(base, os.path.dirname(location))
    if path is None:
        problem = f"the {BASE_KEY} {base} is neither a file beside it nor a recipe"
        raise ConfigError(problem, where=location, remedy=_suggest(base, os.path.dirname(location)))
    return path


def _read_bytes(location: str) -> bytes:
    if location.startswith(ADDRESS):
        try:
            with urlopen(location, timeout=TIMEOUT) as response:
                content = bytes(response.read(MAX_BYTES + 1))
        except (OSError, ValueError) as error:
            remedy = "save it and name the file"
            raise ConfigError(f"cannot be fetched: {error}", where=location, remedy=remedy) from None
    elif is_bundle(location):
        content = read_part(location, CONFIG)
    else:
        content = read_bytes(Path(location), MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConfigError(f"expected a config of at most {MAX_BYTES} bytes, got more", where=location)
    return content


def _merge(content: dict[str, Any], merged: dict[str, Any], location: str) -> None:
    """Merge a config into another, in place, as Detectron2 does; mappings are copied."""
    for key, value in content.items():
        if not isinstance(value, dict):
            merged[key] = value
        elif isinstance(merged.setdefault(key, {}), dict):
            _merge(value, merged[key], location)
        else:
            raise ConfigError(f"{key} is a mapping here and a value in the {BASE_KEY}", where=location)
