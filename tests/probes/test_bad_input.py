"""What is no id, too large, too deep or unknown is refused in one problem that tells nothing."""

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest

from testbed_api.http.middleware.body_limit import MOST_BODY
from tests import services
from tests.probes import routes
from tests.probes.backends import Processes
from tests.probes.cast import RIG, Cast
from tests.probes.results import Found
from tests.probes.routes import ROUTES, Route

pytestmark = pytest.mark.parametrize("backend", ["nats"], indirect=True)
"""Input that the API refuses; it never reaches a broker."""

PROBLEM = "application/problem+json"
NOT_IDS = (
    *("..", ".", "%2e%2e", "a/b", "pump-rig\0", "pump-rig\r\nX-Injected: yes", "+", "#", "*", "%"),
    *("Pump-Rig", "-pump", "pump-", "p" * 41, "pümp", "pump rig", "' OR 1=1 --", "$SYS", "😀", "_"),
    *("\x1b[2J", "\u202e", "a\tb", "{}", '"', "null\\u0000", "<script>", "-" * 3, "9" * 300),
)
BODIES: dict[str, bytes] = {
    "not JSON": b"{",
    "bad UTF-8": b'{"name": "\xff\xfe"}',
    "half a character": b'{"name": "\\ud800"}',
    "too deep": b"[" * 100_000,
    "an object as deep": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "too large": b'"' + b"x" * MOST_BODY + b'"',
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a number": b"1e999",
    "a huge number": b"9" * 5_000,
    "a NUL": b'{"name": "\\u0000"}',
    "the same twice": b'{"name": 1, "name": 2}',
}
IDS_IN_BODIES = ("id", "owner", "person", "principal", "company")
INJECTED = "x\r\nSet-Cookie: a=b"


def _refused(findings: Found, probe: str, answer: httpx.Response, given: str = "") -> None:
    """One clear problem, and nothing of it in a header or a line of its own."""
    findings.probes += 1
    if not 400 <= answer.status_code < 500:
        findings.fault(probe, f"answered {answer.status_code}: {answer.text[:200]}")
        return
    if answer.headers.get("content-type") != PROBLEM:
        findings.fault(probe, f"answered {answer.headers.get('content-type')}")
        return
    problem = answer.json()
    if not problem["detail"] or problem["status"] != answer.status_code:
        findings.fault(probe, f"says {problem}")
    if "canary" in answer.text:
        findings.fault(probe, f"tells of what there is: {answer.text[:200]}")
    if "x-injected" in answer.headers or "set-cookie" in answer.headers:
        findings.fault(probe, "sets a header")
    if len(answer.content) > 4_000:
        findings.fault(probe, f"answers {len(answer.content)} bytes to {given[:40]!r}")


def _paths(route: Route) -> Iterator[tuple[str, str]]:
    """Its path with one parameter after the other wrong."""
    good = routes.filled(route, RIG)
    for name in route.parameters:
        for wrong in NOT_IDS:
            if name == "name" and wrong.isidentifier():  # a secret is named as a variable
                continue
            whole = quote(wrong, safe="%").replace(".", "%2E")  # a client would walk up itself
            placed = routes.filled(route, RIG, **{name: whole})
            if placed != good:
                yield wrong, placed


@pytest.mark.parametrize("who", ["factory-owner", "institute-owner", "company-reader"])
async def test_what_is_no_id_is_refused_on_every_route(
    probed: Processes, cast, findings, share, who
):
    async with _door(probed, cast, who) as http:
        for number, route in enumerate(ROUTES):
            for at, (wrong, path) in enumerate(_paths(route)):
                if (number + at) % share:
                    continue
                body = {} if route.body is None else {"json": route.body}
                answer = await http.request(route.method, path, **body)
                _refused(findings, f"{route.name} with {wrong!r:.50}", answer, wrong)
    findings.judge()


async def test_a_body_that_is_none_is_refused_on_every_route(
    probed: Processes, cast: Cast, findings
):
    headers = {"Content-Type": "application/json"}
    async with _door(probed, cast, "factory-owner") as http:
        for route in (each for each in ROUTES if each.body is not None):
            path = routes.filled(route, RIG)
            bodies = BODIES | {
                "an unknown field": orjson.dumps(route.body | {"admin": True}),
                "a field of a kind that it is not": orjson.dumps(
                    {each: [[]] for each in route.body}
                ),
            }
            for what, raw in bodies.items():
                answer = await http.request(route.method, path, content=raw, headers=headers)
                if not _allows(route, what):
                    _refused(findings, f"{route.name} with {what}", answer)
            for field, wrong in _wrong_ids(route):
                answer = await http.request(route.method, path, json=route.body | {field: wrong})
                _refused(findings, f"{route.name} with {field} = {wrong!r:.40}", answer)
    findings.judge()


def _allows(route: Route, what: str) -> bool:
    """A body that needs no field may be left out of nothing but itself."""
    return not route.body and what == "a field of a kind that it is not"


def _wrong_ids(route: Route) -> Iterator[tuple[str, Any]]:
    for field in IDS_IN_BODIES:
        if field in route.body:
            yield from ((field, wrong) for wrong in (*NOT_IDS, INJECTED, "", 1, None))
    if "streams" in route.body:
        for wrong in ("a/b", "a/b/c/d", "factory/+/rig", "factory/pump-rig/#", "../x/y", "A/b/c"):
            yield "streams", [{"stream": wrong}]
        yield "streams", [{"stream": str(RIG), "space": "run-"}]
        yield "streams", []


async def test_a_query_that_is_none_is_refused(probed: Processes, cast: Cast, findings: Found):
    wrong = {
        "space": ("run-../live", "LIVE", "live\0", "+", "#", "run-*"),
        "from": ("monday", "9" * 41, "2026-13-01T00:00:00Z", "1' OR '1'='1"),
        "limit": ("0", "-1", "1e9", "x", "9" * 100),
        "cursor": ("\0", "x" * 201, "..", "' --"),
        "points": ("1", "-5", "1000000000"),
        "every": ("0s", "1M", "-1s", "1s) fill(0) --", "9" * 21),
        "how": ("mean", "median", "mean\0", "last(x)"),
        "format": ("xml", "csv\r\nX-Injected: yes"),
        "unknown": ("1",),
    }
    async with _door(probed, cast, "factory-owner") as http:
        for path in ("/history", "/gaps", "/dead-letters", "/deletions"):
            for name, values in wrong.items():
                for value in values:
                    whole = f"{routes.ROOT}/streams/{RIG}{path}"
                    answer = await http.get(whole, params={name: value})
                    _refused(findings, f"GET {path}?{name}={value!r:.40}", answer)
    findings.judge()


async def test_headers_that_are_none_are_refused_and_no_line_of_the_log_is_theirs(
    probed: Processes, findings: Found
):
    head = f"GET {routes.ROOT}/me HTTP/1.1\r\nHost: x\r\n"
    forged = "\\n2026-01-01 [info ] forged=yes"
    for what, line in {
        "no scheme": "Authorization: x",
        "another scheme": "Authorization: Basic eDp4",
        "nothing behind it": "Authorization: Bearer ",
        "two of them": "Authorization: Bearer a.b\r\nAuthorization: Bearer c.d",
        "much of it": f"Authorization: Bearer {'a' * 20_000}",
        "a NUL": "Authorization: Bearer a\0.b",
        "not ASCII": "Authorization: Bearer \xe9.\xff",
        "a negative length": "Authorization: x\r\nContent-Length: -1",
        "a long length": f"Authorization: x\r\nContent-Length: {'9' * 30}",
        "a line of its own": f"Authorization: Bearer {forged}",
    }.items():
        sent = f"{head}{line}\r\nConnection: close\r\n\r\n".encode("latin-1")
        said = await services.answer_to(httpx.URL(probed.url).port, sent)
        findings.probes += 1
        status = said.split(b" ", 2)[1:2]
        if status not in ([b"400"], [b"401"], [b"413"], [b"422"], [b"431"]):
            findings.fault(what, f"answered {said[:100]!r}")
    findings.judge()
    for log in probed.logs:
        assert b"forged=yes" not in await asyncio.to_thread(log.read_bytes)


def _door(probed: Processes, cast: Cast, who: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {cast.credentials[who]}"}
    return httpx.AsyncClient(base_url=probed.url, headers=headers, timeout=30)
