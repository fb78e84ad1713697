"""Options of fusion methods as people write them: `option=value`, the grid of a sweep, names in place of class ids."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import yaml

from segkit.fusion import FUSION_METHODS, FusionMethod, build_fusion
from segkit.fusion.class_keys import PER_CLASS_OPTIONS, resolve_class_keys
from segkit.structures import CategorySet
from segkit.utils.errors import ConfigError

# What a sweep tries of the options that a method has; the common values of the literature and of Detectron2.
GRIDS: Mapping[str, tuple[Any, ...]] = {
    "instance_score_threshold": (0.3, 0.4, 0.5, 0.6, 0.7),
    "object_mask_threshold": (0.5, 0.6, 0.7, 0.8, 0.9),
    "overlap_threshold": (0.3, 0.5, 0.6, 0.7, 0.8),
    "stuff_area_limit_px": (256, 1024, 2048, 4096),
    "nms": ("none", "mask"),
}
EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # YAML 1.1 takes 1e-3 for text


@dataclass(frozen=True)
class Setting:
    """A method of FUSION_METHODS by its `name`, with its options; `fusion` is ready to be called."""

    name: str
    fusion: FusionMethod

    def options(self) -> dict[str, Any]:
        """All options, in the order in which the method declares them; classes are thing contiguous ids."""
        return get_fusion_options(self.fusion)

    def changed(self) -> dict[str, Any]:
        """Those that differ from the method's defaults."""
        usual = get_defaults(self.name)
        return {option: value for option, value in self.options().items() if value != usual[option]}


def get_fusion_options(fusion: FusionMethod) -> dict[str, Any]:
    """The options of a method: option -> value."""
    return {field.name: getattr(fusion, field.name) for field in fields(fusion)}  # type: ignore[arg-type]


def get_defaults(name: str) -> dict[str, Any]:
    """The options of a method by name, at their defaults. ConfigError for an unknown method."""
    if name not in FUSION_METHODS:
        build_fusion(name)
    found = {}
    for field in fields(FUSION_METHODS[name]):  # type: ignore[arg-type]
        found[field.name] = field.default_factory() if callable(field.default_factory) else field.default
    return found


def build_setting(name: str, assignments: Sequence[str], categories: CategorySet) -> Setting:
    """One method with options from `option=value` texts; values are YAML.

    Classes are names or thing contiguous ids. ConfigError for an unknown method, option or class, a wrong value, a text
    of another form, an option twice, and one of another method (`method.option=value`).
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
    """method -> all its settings of a sweep, the first being its default.

    names: methods. assignments: `option=v1,v2,...`, of every method that has the option, or `method.option=v1,...`;
    they take the place of GRIDS. base: `option=value` of the default, what is used today; an option that is not
    searched has it in all settings. Else the default has the method's own value, and of an option with a single value
    that. ConfigError as `build_setting`, for an option that no method has, and for a method named twice.
    """
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ConfigError(f"expected each method once, got {twice} more than once")
    usual = {name: get_defaults(name) for name in names}
    today = _assigned(usual, base)
    if several := [text for text in base if len(_values(_parts(text)[2], text)) > 1]:
        raise ConfigError(f"expected one value of today's, got {several[0]!r}")
    searched = _assigned(usual, assignments)
    made = {}
    for name, options in usual.items():
        grids = {option: GRIDS[option] for option in options if option in GRIDS}
        default = {option: values[0] for option, values in today[name].items()}
        made[name] = _settings(name, today[name] | grids | searched[name], default, get_thing_names(categories))
    return made


def _assigned(
    usual: Mapping[str, Mapping[str, Any]], assignments: Sequence[str]
) -> dict[str, dict[str, tuple[Any, ...]]]:
    """method -> option -> values, of texts `option=v1,v2` and `method.option=v1`; those for one method come first."""
    given: dict[tuple[str, str], tuple[Any, ...]] = {}
    for text in assignments:
        method, option, value = _parts(text)
        if not any(option in options and method in ("", name) for name, options in usual.items()):
            raise ConfigError(f"{text!r}: none of the methods {[*usual]} has this option", remedy=_known(usual))
        if (method, option) in given:
            raise ConfigError(f"expected option {option!r} once, got it twice")
        given[method, option] = _values(value, text)
    found: dict[str, dict[str, tuple[Any, ...]]] = {name: {} for name in usual}
    for (method, option), values in sorted(given.items(), key=lambda item: item[0][0] != ""):
        for name, options in usual.items():
            if option in options and method in ("", name):
                found[name][option] = values
    return found


def get_thing_names(categories: CategorySet) -> dict[int, str]:
    """thing contiguous id -> name."""
    return {i: thing.name for i, thing in enumerate(categories.things)}


def to_plain_options(options: Mapping[str, Any], categories: CategorySet) -> dict[str, Any]:
    """Options for JSON and YAML: classes by name, or by contiguous id as text where two things have the name."""
    things = get_thing_names(categories)
    times = Counter(things.values())
    plain = {}
    for option, value in options.items():
        if option in PER_CLASS_OPTIONS:
            plain[option] = {things[i] if times[things[i]] == 1 else str(i): one for i, one in sorted(value.items())}
        else:
            plain[option] = {str(k): one for k, one in value.items()} if isinstance(value, Mapping) else value
    return plain


def _settings(
    name: str, values_of: Mapping[str, Sequence[Any]], default: Mapping[str, Any], things: Mapping[int, str]
) -> list[Setting]:
    fixed = {option: values[0] for option, values in values_of.items() if len(values) == 1}
    chosen = [dict(zip(values_of, values, strict=True)) for values in itertools.product(*values_of.values())]
    made: dict[str, Setting] = {}
    for options in [{**fixed, **default}, *chosen]:
        setting = _setting(name, options, things)
        made.setdefault(repr(setting.options()), setting)
    return [*made.values()]


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
    values = tuple(_number(one) for one in _yaml(f"[{value}]", text))
    if not values:
        raise ConfigError(f"expected option=value,..., got no value in {text!r}")
    return values


def _yaml(value: str, text: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"expected a number, text or {{class: number}} after '=', got {text!r}") from None


def _number(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _number(one) for key, one in value.items()}
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


def _known(usual: Mapping[str, Mapping[str, Any]]) -> str:
    return "; ".join(f"{name} has {sorted(options)}" for name, options in usual.items())
