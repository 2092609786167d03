"""Write the page of the SDK from its docstrings.

`python docs/reference/sdk.py` writes sdk.md beside this file; a test holds them equal.
"""

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import testbed_sdk

SECTIONS = {
    "The connection": ("connect", "run", "Testbed", "Input", "Received", "Missed", "Output"),
    "Without asyncio": ("read_history", "connect_sync", "SyncTestbed", "SyncInput", "SyncOutput"),
    "Samples": ("History", "Gap", "Signal", "Dtype", "Health", "Freshness"),
    "Settings": ("PrototypeSettings",),
    "Errors": (
        *("BedError", "Refused", "Invalid", "Unknown", "Forbidden", "Paused", "NotGranted"),
        *("Unavailable", "Corrupt"),
    ),
}
HEAD = """# The SDK

What `testbed_sdk` exports, from its docstrings: `python docs/reference/sdk.py` writes this page,
and a test holds it equal. [Write a prototype](../how-to/write-a-prototype.md) shows how to use it,
and [how to install it](../how-to/write-a-prototype.md#install).

Instants are nanoseconds since 1970 in UTC, as int64. `Times` is an array of them; a `Series` is
`time_ns`, `values` and `quality` (0 good, 1 uncertain, 2 bad) of one signal, three arrays of one
length. A `Time` is a text such as `-10m`, `yesterday`, `2026-11-23` or `2026-11-23T12:00:00Z`, or a
`datetime` with a time zone.
"""
SETTINGS = "Its fields, with the variables that set them: [settings](settings.md#prototype)."
WIDTH = 100
MAGIC = ("__getitem__", "__len__", "__iter__", "__aiter__")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for title, names in SECTIONS.items():
        parts.append(f"## {title}\n")
        for name in names:
            parts += _exported(name, getattr(testbed_sdk, name))
    return "\n".join(parts)


def _exported(name: str, thing: Any) -> Iterator[str]:
    """A heading, a signature and the docstring; for a class, its members too."""
    node = _definition(_module(thing), name)
    yield f"### {name}\n"
    if isinstance(node, ast.ClassDef):
        yield _code(_class_line(node))
        yield _text(node)
        yield from _members(thing, node)
    else:
        yield _code(_signature(node))
        yield _text(node)


def _members(kind: type, node: ast.ClassDef) -> Iterator[str]:
    """Fields in one list, then each public method and property, also those of a base within."""
    if issubclass(kind, testbed_sdk.PrototypeSettings):
        yield SETTINGS + "\n"
        return
    if fields := list(_fields(node)):
        yield "\n".join(fields) + "\n"
    for part in node.body:
        if isinstance(part, Function) and _is_public(part):
            yield _code(_signature(part))
            yield _text(part)
        elif isinstance(part, ast.Assign) and _is_blocking(part.value):
            yield from _blocking(part)
    for base in kind.__bases__:
        if base.__module__.startswith("testbed_sdk.") and base.__name__ not in testbed_sdk.__all__:
            yield from _members(base, _definition(_module(base), base.__name__))


def _fields(node: ast.ClassDef) -> Iterator[str]:
    """The fields of a dataclass and the members of an enumeration, each with its docstring."""
    for part, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(part, ast.AnnAssign):
            default = "" if part.value is None else f" = {ast.unparse(part.value)}"
            line = f"{ast.unparse(part.target)}: {ast.unparse(part.annotation)}{default}"
        elif isinstance(part, ast.Assign) and not _is_blocking(part.value):
            line = ast.unparse(part)
        else:
            continue
        if not line.startswith("_"):
            yield f"- `{line}`{_note(following)}"


def _note(node: ast.stmt | None) -> str:
    """The docstring below a field, if there is one."""
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return ": " + " ".join(text.split())
    return ""


def _blocking(assigned: ast.Assign) -> Iterator[str]:
    """A method of a synchronous class that waits for one of an asynchronous class."""
    match assigned:
        case ast.Assign(
            targets=[ast.Name(id=name)],
            value=ast.Call(args=[ast.Attribute(value=ast.Name(id=owner), attr=method)]),
        ) if name == method:
            thing = getattr(testbed_sdk, owner)
            original = _method(_definition(_module(thing), owner), method)
            yield _code(_signature(original, waits=True))
            yield f"As `{owner}.{method}`, and waits for its result.\n"
        case _:
            raise ValueError(f"{ast.unparse(assigned)} is not called as its method")


def _is_blocking(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func) == "_blocking"


def _is_public(node: Function) -> bool:
    named = not node.name.startswith("_") or node.name in MAGIC
    return named and ast.get_docstring(node) is not None


def _class_line(node: ast.ClassDef) -> str:
    bases = [ast.unparse(base) for base in node.bases if not ast.unparse(base).startswith("_")]
    return f"class {node.name}({', '.join(bases)})" if bases else f"class {node.name}"


def _signature(node: Function, *, waits: bool = False) -> str:
    """The lines of a definition up to its colon; waits: without `async`."""
    kind = ast.FunctionDef if waits else type(node)
    bare = kind(
        name=node.name,
        args=node.args,
        body=[ast.Expr(ast.Constant(...))],
        decorator_list=node.decorator_list,
        returns=node.returns,
        type_comment=None,
        type_params=[],
        lineno=1,
    )
    text = ast.unparse(ast.fix_missing_locations(bare)).rpartition(":")[0]
    return "\n".join(_wrapped(line) for line in text.splitlines())


def _wrapped(line: str) -> str:
    """A line of code in several lines where it is too long for a page."""
    return "\n".join(textwrap.wrap(line, WIDTH, subsequent_indent="    ", break_long_words=False))


def _text(node: ast.ClassDef | Function) -> str:
    return (ast.get_docstring(node) or "") + "\n"


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


def _module(thing: Any) -> ModuleType:
    return sys.modules[thing.__module__]


def _definition(module: ModuleType, name: str) -> Any:
    """The definition of a name at the top of a module."""
    return _method(ast.parse(inspect.getsource(module)), name)


def _method(scope: ast.Module | ast.ClassDef, name: str) -> Any:
    for node in scope.body:
        if isinstance(node, ast.ClassDef | Function) and node.name == name:
            return node
    raise ValueError(f"nothing is called {name} in {ast.dump(scope)[:40]}")


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page())
