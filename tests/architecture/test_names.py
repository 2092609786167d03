"""The check of names, which `make lint` runs over the product, finds what it is there for."""

from pathlib import Path

import pytest

from tests import sources
from tests.architecture import names


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a module and give its path."""
    monkeypatch.setattr(sources, "ROOT", tmp_path)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def findings(path: Path) -> list[str]:
    return [line for module in names.parsed([path]).items() for line in names.of_module(*module)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one = 1\n", 1),
        ("rows = [found for found in ()]\n", 1),
        ("def f(told): ...\n", 1),
        ('def f():\n    """What it is."""\n', 1),
        ('class A:\n    """Whoever asks."""\n', 1),
        ("try:\n    pass\nexcept OSError as kept:\n    pass\n", 3),
    ],
)
def test_an_empty_name_and_a_riddle_are_findings(written, text, line):
    (finding,) = findings(written("a.py", text))
    assert finding.startswith(f"a.py:{line}: ")


def test_a_plain_module_has_no_finding(written):
    text = '"""Stores rows."""\n\nones = 1\n\n\ndef of(grant):\n    """Whether it ended."""\n'
    assert findings(written("a.py", text)) == []


def test_a_class_name_that_stands_twice_is_a_finding(written):
    paths = [written("a.py", "class Span: ...\n"), written("b.py", "\n\nclass Span: ...\n")]
    trees = names.parsed(paths)
    assert names.twice(trees) == ["b.py:3: the class name 'Span' stands at a.py:1 as well"]
    assert names.twice(names.parsed(paths[:1])) == []
