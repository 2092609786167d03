"""The files of this project, for the tests that read them."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = (
    *("broker", "gateway", "simulators"),
    *("testbed", "testbed_api", "testbed_runner", "testbed_scenarios", "testbed_sdk"),
)
FOLDERS = (*PACKAGES, ".ci", "benchmarks", "docs", "examples", "tests")


def named(path: Path) -> str:
    """A file by its path in the project, as a test's id shows it."""
    return path.relative_to(ROOT).as_posix()


def modules() -> list[Path]:
    """Every Python module of the product itself."""
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def supporting_modules() -> list[Path]:
    """Every Python module of the tests and the benchmarks."""
    return sorted(path for name in ("benchmarks", "tests") for path in (ROOT / name).rglob("*.py"))


def documents() -> list[Path]:
    """Every Markdown document."""
    return [path for path in texts() if path.suffix == ".md"]


def texts() -> list[Path]:
    """Every file that people wrote, whatever its kind."""
    return sorted(path for path in _files() if "__pycache__" not in path.parts)


def _files() -> Iterator[Path]:
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.name != ".git")
    for folder in FOLDERS:
        yield from (path for path in (ROOT / folder).rglob("*") if path.is_file())
