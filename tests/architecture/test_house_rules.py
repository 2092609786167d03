"""Rules of the house that a linter cannot hold, or that a `noqa` must not get round."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import sources

CLOCK = sources.ROOT / "broker" / "clock.py"
CLOCK_READS = {
    "asyncio.sleep",
    "date.today",
    "datetime.now",
    "datetime.today",
    "datetime.utcnow",
    "time.sleep",
    "time.time",
    "time.time_ns",
}
EMPTY_WORDS = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
MODULE_LINES = 600
FUNCTION_LINES = 40
SOMEBODYS_PATH = re.compile(r"(?<![\w.$}])/(?:home|root|work|Users)/\w+")
SOMEBODYS_REGISTRY = re.compile(
    r"pypi\.org|pythonhosted\.org|proxy\.golang\.org|index\.crates\.io|static\.crates\.io"
    r"|deb\.debian\.org|--(?:extra-)?index-url|--find[-]links|GOPROXY[=]"
)

each_module = pytest.mark.parametrize("module", sources.modules(), ids=sources.named)
each_text = pytest.mark.parametrize("path", sources.texts(), ids=sources.named)


@each_module
def test_only_the_clock_reads_the_time_or_sleeps(module: Path):
    if module != CLOCK:
        assert not CLOCK_READS & set(used_names(ast.parse(module.read_text())))


@each_module
def test_a_modules_name_says_what_is_in_it(module: Path):
    words = {word for part in module.relative_to(sources.ROOT).parts for word in split(part)}
    assert not words & EMPTY_WORDS


@each_module
def test_a_module_can_be_read_in_one_sitting(module: Path):
    assert len(module.read_text().splitlines()) <= MODULE_LINES


@each_module
def test_a_function_fits_on_a_screen(module: Path):
    functions = [
        each
        for each in ast.walk(ast.parse(module.read_text()))
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lines = {each.name: each.end_lineno - each.lineno + 1 for each in functions}
    assert not {name: count for name, count in lines.items() if count > FUNCTION_LINES}


def test_a_route_changes_the_registry_through_an_action_alone():
    routes = (sources.ROOT / "testbed_api" / "http" / "routes").glob("*.py")
    calls = {
        node.func.attr
        for module in routes
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert "must" in calls
    assert not calls & {"change", "unaudited_change", "disconnect", "announce"}


@each_text
def test_no_file_knows_somebodys_machine_or_package_registry(path: Path):
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return  # a picture
    assert not SOMEBODYS_PATH.findall(text)
    assert not SOMEBODYS_REGISTRY.findall(text)


@pytest.mark.parametrize(
    "name",
    [
        "requirements.lock",
        "requirements-dev.lock",
        "requirements-bench.lock",
        "requirements-build.lock",
        "requirements-site.lock",
    ],
)
def test_a_lock_file_names_versions_and_hashes_but_no_address(name: str):
    text = (sources.ROOT / name).read_text()
    assert "--hash=sha256:" in text
    assert "://" not in text


def test_the_core_installation_brings_only_what_the_product_imports():
    project = tomllib.loads((sources.ROOT / "pyproject.toml").read_text())["project"]
    brought = {re.match(r"[\w-]+", each)[0].replace("-", "_") for each in project["dependencies"]}
    imported = {
        name.partition(".")[0]
        for module in sources.modules()
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [each.name for each in node.names] if isinstance(node, ast.Import) else [node.module]
        )
    }
    assert brought <= imported


def used_names(tree: ast.Module) -> Iterator[str]:
    """Dotted names as far as a module writes them: `time.time`, whether called or imported."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner) | ast.Attribute(attr=owner), attr=name):
                yield f"{owner}.{name}"
            case ast.ImportFrom(module=str(owner), names=names):
                yield from (f"{owner}.{alias.name}" for alias in names)


def split(part: str) -> list[str]:
    return re.split(r"[_.-]", part)
