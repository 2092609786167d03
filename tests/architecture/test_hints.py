"""Hints of the API name the command; a route stands beside it, in parentheses, at most."""

import re
from pathlib import Path

import pytest

API = Path(__file__).parents[2] / "testbed_api"
ROUTE_ALONE = re.compile(r'hint=[^\n]*"(?:[^"(`]*\s)?(?:GET|POST|PUT|DELETE) /')


@pytest.mark.parametrize("text", ['hint="GET /me says it"', 'hint=left or "see POST /grants"'])
def test_a_route_alone_is_seen(text: str):
    assert ROUTE_ALONE.search(text)


@pytest.mark.parametrize("module", sorted(API.rglob("*.py")), ids=lambda each: each.name)
def test_no_hint_speaks_http_alone(module: Path):
    assert not ROUTE_ALONE.findall(module.read_text(encoding="utf-8"))
