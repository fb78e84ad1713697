"""Public functions and classes document their parameters and results: `Args` and `Returns` name every parameter.

Public is what another package of segkit imports, and the methods of such classes. Methods that override one of a base
class may say "See base class." and no more.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INHERITED = "See base class."
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, ast.Module]:
    """Dotted name -> syntax tree of every module of the package."""
    trees = {}
    for path in sorted((ROOT / "segkit").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        trees[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return trees


def package(module: str) -> str:
    """segkit.formats.coco.panoptic -> segkit.formats; a module right below segkit is a package by itself."""
    return ".".join(module.split(".")[:2])


def imported_names(module: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(module, name) of everything that a module takes from other modules of segkit, by import or by attribute."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "segkit":
            for name in node.names:
                if f"{node.module}.{name.name}" in modules():
                    aliases[name.asname or name.name] = f"{node.module}.{name.name}"
                else:
                    yield str(node.module), name.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            yield aliases[node.value.id], node.attr


def definition(module: str, name: str) -> tuple[str, str] | None:
    """Where a name is defined: imports in package __init__s are followed."""
    tree = modules().get(module)
    for node in tree.body if tree else ():
        if isinstance(node, Function | ast.ClassDef) and node.name == name:
            return module, name
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return definition(str(node.module), alias.name)
    return None


@cache
def public_names() -> dict[str, frozenset[str]]:
    """Module -> names defined in it that another package uses."""
    names_by_module: dict[str, set[str]] = {}
    for module, tree in modules().items():
        for source, name in imported_names(module, tree):
            where = definition(source, name)
            if where is not None and package(where[0]) != package(module) and not name.startswith("_"):
                names_by_module.setdefault(where[0], set()).add(where[1])
    return {module: frozenset(names) for module, names in names_by_module.items()}


def parameters(function: Function, is_method: bool) -> list[str]:
    """The parameters that a docstring has to describe."""
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    names += [a.arg for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return [name for name in names[is_method and not is_static(function) :] if not name.startswith("_")]


def is_static(function: Function) -> bool:
    return "staticmethod" in decorators(function)


def decorators(node: Function | ast.ClassDef) -> set[str]:
    names = [ast.unparse(decorator).split("(")[0] for decorator in node.decorator_list]
    return {name.rsplit(".", 1)[-1] for name in names}


def section(docstring: str, *titles: str) -> str:
    """The text of the first of these sections that the docstring has, "" for none."""
    match = re.search(rf"^(?:{'|'.join(titles)}):\n((?:[ \t]+\S.*\n?|\n)+)", docstring + "\n", flags=re.MULTILINE)
    return match[1] if match else ""


def undescribed(names: list[str], docstring: str, *titles: str) -> list[str]:
    """The names that have no entry in the section; `a, b:` describes both."""
    entries = re.findall(r"^ +(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?:", section(docstring, *titles), re.MULTILINE)
    described = {name.lstrip("*") for entry in entries for name in entry.split(", ")}
    return [name for name in names if name not in described]


def find_function_problems(function: Function, where: str, is_method: bool = False) -> list[str]:
    """What the docstring of a function lacks."""
    docstring = ast.get_docstring(function) or ""
    if not docstring:
        return [f"{where}: no docstring"]
    if is_method and docstring.startswith(INHERITED):
        return []
    if decorators(function) & {"property", "cached_property", "setter", "abstractproperty", "overload"}:
        return []
    missing = undescribed(parameters(function, is_method), docstring, "Args")
    problems = [f"{where}: Args lacks {', '.join(missing)}"] if missing else []
    returns = ast.unparse(function.returns) if function.returns else "None"
    if returns not in ("None", "NoReturn", "Never") and not section(docstring, "Returns", "Yields"):
        problems.append(f"{where}: no Returns, though it returns {returns}")
    return problems


def fields(node: ast.ClassDef) -> list[str]:
    """What the constructor takes: the parameters of __init__, or the public fields of a dataclass or named tuple."""
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return parameters(statement, is_method=True)
    is_record = "dataclass" in decorators(node) or any(ast.unparse(b).endswith("NamedTuple") for b in node.bases)
    if not is_record:
        return []
    annotated = [s for s in node.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
    names = [s.target.id for s in annotated if not ast.unparse(s.annotation).startswith("ClassVar")]  # type: ignore[union-attr]
    return [name for name in names if not name.startswith("_")]


def find_class_problems(node: ast.ClassDef, where: str) -> list[str]:
    """What the docstrings of a class, its constructor and its public methods lack."""
    docstring = ast.get_docstring(node) or ""
    if not docstring:
        return [f"{where}: no docstring"]
    init = next((s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"), None)
    init_docstring = (ast.get_docstring(init) or "") if init else ""
    missing = undescribed(fields(node), docstring, "Args", "Attributes")
    missing = [name for name in missing if name in undescribed(missing, init_docstring, "Args")]
    problems = [f"{where}: Args or Attributes lack {', '.join(missing)}"] if missing else []
    for statement in node.body:
        if isinstance(statement, Function) and not statement.name.startswith("_"):
            problems += find_function_problems(statement, f"{where}.{statement.name}", is_method=True)
    return problems


@pytest.mark.parametrize("module", sorted(public_names()))
def test_public_names_describe_their_parameters(module: str) -> None:
    problems: list[str] = []
    for node in modules()[module].body:
        if isinstance(node, Function | ast.ClassDef) and node.name in public_names()[module]:
            check = find_class_problems if isinstance(node, ast.ClassDef) else find_function_problems
            problems += check(node, node.name)
    assert not problems, "\n".join(problems)


def test_a_missing_parameter_is_reported() -> None:
    function = ast.parse('def f(a, b) -> int:\n    """Add.\n\n    Args:\n        a: One.\n    """').body[0]
    assert isinstance(function, ast.FunctionDef)
    assert find_function_problems(function, "f") == ["f: Args lacks b", "f: no Returns, though it returns int"]
