"""Options of fusion methods as users write them: `option=value`, grids of a sweep, class names instead of ids."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from segkit.fusion import FusionMethod, build_fusion
from segkit.fusion.class_keys import PER_CLASS_OPTIONS, resolve_class_keys
from segkit.structures import CategorySet
from segkit.utils.errors import ConfigError
from segkit.utils.yaml_text import parse_yaml

# Values that a sweep tries by default: the common ones of the literature and of Detectron2.
GRIDS: Mapping[str, tuple[Any, ...]] = {
    "instance_score_threshold": (0.3, 0.4, 0.5, 0.6, 0.7),
    "object_mask_threshold": (0.5, 0.6, 0.7, 0.8, 0.9),
    "overlap_threshold": (0.3, 0.5, 0.6, 0.7, 0.8),
    "stuff_area_limit_px": (256, 1024, 2048, 4096),
    "nms": ("none", "mask"),
}
EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # YAML 1.1 reads 1e-3 as text


@dataclass(frozen=True)
class Setting:
    """A fusion method with its options.

    Attributes:
        name: key of FUSION_METHODS.
        fusion: the method, ready to be called.
    """

    name: str
    fusion: FusionMethod

    def options(self) -> dict[str, Any]:
        """List all options, in the order in which the method declares them.

        Returns:
            Option -> value; classes are thing contiguous ids.
        """
        return {field.name: getattr(self.fusion, field.name) for field in fields(self.fusion)}  # type: ignore[arg-type]

    def changed(self) -> dict[str, Any]:
        """List the options that differ from the defaults of the method.

        Returns:
            Option -> value.
        """
        defaults = get_defaults(self.name)
        return {option: value for option, value in self.options().items() if value != defaults[option]}


def get_defaults(name: str) -> dict[str, Any]:
    """List the options of a method at their defaults.

    Args:
        name: key of FUSION_METHODS.

    Returns:
        Option -> default.

    Raises:
        ConfigError: the method is unknown.
    """
    return Setting(name, build_fusion(name)).options()


def build_setting(name: str, assignments: Sequence[str], categories: CategorySet) -> Setting:
    """Build a method with options from texts.

    Args:
        name: key of FUSION_METHODS.
        assignments: `option=value` or `method.option=value`; values are YAML, classes are names or thing contiguous
            ids.
        categories: categories of the dataset.

    Returns:
        The setting.

    Raises:
        ConfigError: a method, option or class is unknown, a value is wrong, a text has another form, an option is given
            twice or for another method.
    """
    options: dict[str, Any] = {}
    for text in assignments:
        method, option, value = _parts(text)
        if method not in ("", name):
            raise ConfigError(f"{text!r} is for the method {method!r}, this is {name!r}", remedy="leave it out")
        if option in options:
            raise ConfigError(f"expected option {option!r} once, got it twice")
        options[option] = _number(_yaml(value, text))
    return _setting(name, options, get_thing_names(categories))


def build_grid(
    names: Sequence[str], assignments: Sequence[str], categories: CategorySet, base: Sequence[str] = ()
) -> dict[str, list[Setting]]:
    """Build all settings of a sweep.

    Args:
        names: methods, each once.
        assignments: `option=v1,v2,...` for every method that has the option, or `method.option=v1,...`; they replace
            the values of GRIDS.
        categories: categories of the dataset.
        base: `option=value` of the default setting. An option that is not searched has this value in all settings.
            Without it the default has the only value of the option in the sweep, or the default of the method.

    Returns:
        Method -> its settings, the default first.

    Raises:
        ConfigError: as `build_setting`; or no method has an option, or a method is named twice.
    """
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ConfigError(f"expected each method once, got {twice} more than once")
    defaults = {name: get_defaults(name) for name in names}
    base_values = _assign(defaults, base)
    if several := [text for text in base if len(_values(_parts(text)[2], text)) > 1]:
        raise ConfigError(f"expected one value of a base option, got {several[0]!r}")
    searched = _assign(defaults, assignments)
    things, settings = get_thing_names(categories), {}
    for name, options in defaults.items():
        grids = {option: GRIDS[option] for option in options if option in GRIDS}
        values = base_values[name] | grids | searched[name]
        fixed = {option: choices[0] for option, choices in values.items() if len(choices) == 1}
        default = {option: choices[0] for option, choices in base_values[name].items()}
        combinations = [dict(zip(values, choices, strict=True)) for choices in itertools.product(*values.values())]
        of_method: dict[str, Setting] = {}
        for chosen in [{**fixed, **default}, *combinations]:
            setting = _setting(name, chosen, things)
            of_method.setdefault(repr(setting.options()), setting)
        settings[name] = [*of_method.values()]
    return settings


def _assign(
    defaults: Mapping[str, Mapping[str, Any]], assignments: Sequence[str]
) -> dict[str, dict[str, tuple[Any, ...]]]:
    """Method -> option -> values, from `option=v1,v2` and `method.option=v1`; the latter take precedence."""
    given: dict[tuple[str, str], tuple[Any, ...]] = {}
    for text in assignments:
        method, option, value = _parts(text)
        if not any(option in options and method in ("", name) for name, options in defaults.items()):
            remedy = "; ".join(f"{name} has {sorted(options)}" for name, options in defaults.items())
            raise ConfigError(f"{text!r}: none of the methods {[*defaults]} has this option", remedy=remedy)
        if (method, option) in given:
            raise ConfigError(f"expected option {option!r} once, got it twice")
        given[method, option] = _values(value, text)
    assigned: dict[str, dict[str, tuple[Any, ...]]] = {name: {} for name in defaults}
    for (method, option), values in sorted(given.items(), key=lambda item: item[0][0] != ""):
        for name, options in defaults.items():
            if option in options and method in ("", name):
                assigned[name][option] = values
    return assigned


def get_thing_names(categories: CategorySet) -> dict[int, str]:
    """List the names of things.

    Args:
        categories: categories of the dataset.

    Returns:
        Thing contiguous id -> name.
    """
    return {i: thing.name for i, thing in enumerate(categories.things)}


def to_plain_options(options: Mapping[str, Any], categories: CategorySet) -> dict[str, Any]:
    """Write options for JSON and YAML.

    Args:
        options: option -> value, classes as thing contiguous ids.
        categories: categories of the dataset.

    Returns:
        Option -> value; classes are names, or contiguous ids as text if two things share the name.
    """
    things = get_thing_names(categories)
    times = Counter(things.values())
    plain = {}
    for option, value in options.items():
        if option in PER_CLASS_OPTIONS:
            plain[option] = {things[i] if times[things[i]] == 1 else str(i): v for i, v in sorted(value.items())}
        else:
            plain[option] = {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else value
    return plain


def _setting(name: str, options: Mapping[str, Any], things: Mapping[int, str]) -> Setting:
    fusion = build_fusion(name, **resolve_class_keys(options, things))
    fusion.check_thing_names([*things.values()])
    return Setting(name, fusion)


def _parts(text: str) -> tuple[str, str, str]:
    """Method ("" for any), option, value."""
    key, equals, value = text.partition("=")
    method, _, option = key.strip().rpartition(".")
    if not equals or not option:
        raise ConfigError(f"expected option=value, got {text!r}")
    return method, option, value


def _values(value: str, text: str) -> tuple[Any, ...]:
    values = tuple(_number(item) for item in _yaml(f"[{value}]", text))
    if not values:
        raise ConfigError(f"expected option=value,..., got no value in {text!r}")
    return values


def _yaml(value: str, text: str) -> Any:
    try:
        return parse_yaml(value)
    except ConfigError:
        raise ConfigError(f"expected a number, text or {{class: number}} after '=', got {text!r}") from None


def _number(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _number(item) for key, item in value.items()}
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value
