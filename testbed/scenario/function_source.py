"""Looks a prototype's function up in the source of its module, without running it."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from broker.field_findings import unknown

_Defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
DYNAMIC = frozenset({"__getattr__", "globals", "exec", "setattr"})
"""Names with which a module may have functions that its source does not show."""


def problem(base: Path, reference: str) -> str:
    """A sentence about a function that cannot be there, empty where it is or may be.

    base: folder of the scenario file, in which modules are looked for first.  reference:
    `package.module:function`.  A module that is installed is not read.
    """
    module, _, name = reference.partition(":")
    steps = module.split(".")
    package = base / steps[0]
    is_beside = package.with_suffix(".py").is_file() or (package / "__init__.py").is_file()
    if not is_beside and _is_installed(steps[0]):
        return ""
    path = base.joinpath(*steps)
    places = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    file = next((place for place in places if place.is_file()), None)
    if file is not None:
        return _in_file(file, name)
    if any(path.parent.glob(f"{path.name}.*")):  # compiled, so it cannot be read
        return ""
    return f"there is no file {places[1]}, and no module {steps[0]!r} is installed"


def _is_installed(name: str) -> bool:
    """Whether a module is found that is more than a folder."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # of one that is loaded and does not say where from
        return True
    return spec is not None and spec.origin is not None


def _in_file(file: Path, name: str) -> str:
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError as exc:
        return f"{file}:{exc.lineno}: this is not Python: {exc.msg}"
    except (ValueError, OSError) as exc:
        return f"{file} cannot be read as Python: {exc}"
    defined = set(_defined(tree))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if name in defined or "*" in defined or DYNAMIC & (defined | used):
        return ""
    functions = {node.name for node in tree.body if isinstance(node, _Defined)}
    return unknown(f"{file} defines no {name!r}", name, functions or defined)


def _defined(tree: ast.AST) -> Iterator[str]:
    """Names that statements of a module give to something; `*` where it imports all of another."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _Defined):
            yield node.name
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        yield from _defined(node)
