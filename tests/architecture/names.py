"""Checks of names and first sentences that no linter has; `make lint` runs it.

Variables are checked in tests and benchmarks too, the rest in the product alone.

Prints one line per finding (`file:line: sentence`) and exits with 1 if there is any.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests import sources

EMPTY_VARIABLES = frozenset({"one", "found", "told", "kept", "made", "shown", "asked"})
RIDDLE = re.compile(r"(?:What|Who|Whom|Whose|Whatever|Whoever|Whichever)\b")
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def main() -> int:
    """Check every module; 0 if nothing is wrong."""
    trees = parsed(sources.modules())
    findings = [line for path, tree in trees.items() for line in of_module(path, tree)]
    findings += twice(trees)
    supporting = parsed(sources.supporting_modules())
    findings += [line for path, tree in supporting.items() for line in of_variables(path, tree)]
    for line in findings:
        print(line)  # noqa: T201 - the answer of a command
    return 1 if findings else 0


def parsed(paths: Iterable[Path]) -> dict[Path, ast.Module]:
    """The syntax tree of each module."""
    return {path: ast.parse(path.read_text()) for path in paths}


def of_module(path: Path, tree: ast.Module) -> Iterator[str]:
    """Findings inside one module: empty variable names, and docstrings that are riddles."""
    yield from of_variables(path, tree)
    where = sources.named(path)
    for node in ast.walk(tree):
        if isinstance(node, Documented) and RIDDLE.match(ast.get_docstring(node) or ""):
            first = (ast.get_docstring(node) or "").splitlines()[0]
            line = getattr(node, "lineno", 1)
            yield f"{where}:{line}: a docstring begins with its verb or noun, not with {first!r}"


def of_variables(path: Path, tree: ast.Module) -> Iterator[str]:
    """Findings about the variables of one module: names that do not say what they hold."""
    where = sources.named(path)
    for name, line in sorted(set(bound_names(tree)), key=lambda pair: (pair[1], pair[0])):
        if name.strip("_") in EMPTY_VARIABLES:
            yield f"{where}:{line}: the variable {name!r} does not say what it holds"


def bound_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Names of variables and parameters, with the line that binds them."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name, node.lineno


def twice(trees: Mapping[Path, ast.Module]) -> list[str]:
    """Findings for class names that stand in the tree more than once."""
    places = defaultdict(list)
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{sources.named(path)}:{node.lineno}")
    return [
        f"{also}: the class name {name!r} stands at {first} as well"
        for name, (first, *others) in sorted(places.items())
        for also in others
    ]


if __name__ == "__main__":
    sys.exit(main())
