"""The messages that the tables of the guides quote are those that the programs print."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("broker", "gateway", "testbed", "testbed_api")
HEADERS = ("the log says", "message", "message in the reconciler's log")
"""Headers of the column that quotes."""
ANYTHING = "…"


def code_texts() -> list[str]:
    """Every text of the code, with … for what is put in."""
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    return [text for file in files for text in texts_of(ast.parse(file.read_text()))]


def texts_of(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else ANYTHING
                for part in node.values
            )


def quoted() -> Iterator[tuple[str, str]]:
    """Each quoted message with its page."""
    for page in sorted((ROOT / "docs" / "how-to").rglob("*.md")):
        is_quoting = False
        for line in page.read_text().splitlines():
            first = line.split("|")[1].strip() if line.startswith("|") else ""
            if not first:
                is_quoting = False
            elif first in HEADERS:
                is_quoting = True
            elif is_quoting and not set(first) <= set("-: "):
                yield page.name, first


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return code_texts()


@pytest.mark.parametrize(("page", "message"), sorted(set(quoted())))
def test_a_quoted_message_is_printed_by_the_code(texts, page, message):
    pieces = [piece.strip(" `,:") for piece in re.split(r"…|, ", message.replace("`", ""))]
    for piece in filter(None, pieces):
        assert any(piece in text for text in texts), f"{page}: nothing prints {piece!r}"
