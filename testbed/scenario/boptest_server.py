"""Serves a scenario over HTTP as BOPTEST does, on loopback, for controllers that were written so.

Every answer is `{"status": …, "message": …, "payload": …}`, but for those of BOPTEST's own service:
the list of test cases, the id of a new test, a test's state and its end.  A call with an id is
about that test; one without an id is about a test that is there from the beginning, as in the
versions of BOPTEST with one test alone.
"""

import asyncio
import math
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import orjson
import structlog
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from broker.clock import Clock
from broker.errors import BedError, Invalid, Refused, Taken, Unknown
from testbed.scenario import result
from testbed.scenario.boptest_case import BoptestCase
from testbed.scenario.stepped_scenario import SteppableScenario

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

LOOPBACK = "127.0.0.1"
MOST_TESTS = 16
"""Tests at once: each holds the samples of its scenario, and perhaps a process of an FMU."""
MOST_BODY = 64 * 1024
DEFAULT = "default"
"""The id of the test that calls without an id are about."""

log = structlog.get_logger()


@dataclass(slots=True)
class _HeldTest:
    """A test, whose calls come one after the other."""

    case: BoptestCase
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class TooManyTests(Refused):
    """As many tests are open as there may be."""

    code = "too_many_tests"


class BoptestTests:
    """The tests of one scenario, by id."""

    def __init__(self, scenario: SteppableScenario, seed: int | None) -> None:
        """seed: that of the file if None.  Raises Invalid for a scenario that cannot be stepped."""
        self._scenario = scenario
        self._seed = seed
        self._tests: dict[str, _HeldTest] = {DEFAULT: _HeldTest(BoptestCase(scenario, seed))}
        self._opening = asyncio.Lock()

    @property
    def name(self) -> str:
        """The name of the one test case: the scenario's."""
        return self._scenario.loaded.scenario.name

    async def open(self, test_id: str | None = None) -> str:
        """Open a test; returns its id.  Raises TooManyTests."""
        async with self._opening:
            if len(self._tests) >= MOST_TESTS:
                raise TooManyTests(
                    f"{MOST_TESTS} tests are open, which are the most",
                    hint="end one: PUT /stop/TESTID",
                )
            test_id = test_id or secrets.token_hex(16)
            case = await asyncio.to_thread(BoptestCase, self._scenario, self._seed)
            self._tests[test_id] = _HeldTest(case)
            return test_id

    async def stop(self, test_id: str) -> None:
        """End a test; raises Unknown."""
        held = self._held(test_id)
        async with held.lock:
            self._tests.pop(test_id, None)
            await asyncio.to_thread(held.case.close)

    async def call(self, test_id: str, function: Callable[[BoptestCase], Any]) -> Any:
        """Call a function with a test, in a thread, after its calls before; raises Unknown."""
        held = self._held(test_id)
        async with held.lock:
            return await asyncio.to_thread(function, held.case)

    def has(self, test_id: str) -> bool:
        """Whether a test is open."""
        return test_id in self._tests

    def _held(self, test_id: str) -> _HeldTest:
        if test_id not in self._tests:
            sentence = f"there is no test {test_id[:80]!r}"
            if test_id == DEFAULT:
                sentence = "the test without an id was stopped"
            hint = f"PUT /initialize begins it again; POST /testcases/{self.name}/select opens one"
            raise Unknown(sentence, hint=hint)
        return self._tests[test_id]

    async def close(self) -> None:
        """End all tests."""
        for test_id in list(self._tests):
            await self.stop(test_id)


# --- the calls ------------------------------------------------------------------------------------

Answer = tuple[str, Any]
"""The message and the payload of an answer."""


def _initialize(case: BoptestCase, fields: Mapping[str, Any]) -> Answer:
    _check_names(fields, "start_time", "warmup_period")
    start_s = _number(fields, "start_time")
    warmup_s = _number(fields, "warmup_period", 0.0)
    return f"the test begins at {start_s:g} s", case.initialize(start_s, warmup_s)


def _advance(case: BoptestCase, fields: Mapping[str, Any]) -> Answer:
    payload = case.advance(fields)
    if not payload:
        return "the scenario is over; PUT /initialize begins it anew", payload
    return f"advanced to {payload['time']:g} s", payload


def _set_step(case: BoptestCase, fields: Mapping[str, Any]) -> Answer:
    _check_names(fields, "step")
    return "the step was set", {"step": case.set_step(_number(fields, "step"))}


def _forecast(case: BoptestCase, fields: Mapping[str, Any]) -> Answer:
    _check_names(fields, "point_names", "horizon", "interval")
    names = fields.get("point_names")
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise Invalid("point_names is no list of names", hint="GET /forecast_points lists them")
    horizon_s, interval_s = _number(fields, "horizon"), _number(fields, "interval")
    return "forecast as the scenario has it", case.forecast(names, horizon_s, interval_s)


CALLS: Mapping[tuple[str, str], Callable[[BoptestCase, Mapping[str, Any]], Answer]] = {
    ("PUT", "initialize"): _initialize,
    ("POST", "advance"): _advance,
    ("GET", "measurements"): lambda case, _: ("measurements by name", case.measurements()),
    ("GET", "inputs"): lambda case, _: ("points of the inputs by name", case.inputs()),
    ("GET", "forecast_points"): lambda case, _: (
        "what is known in advance",
        case.forecast_points(),
    ),
    ("PUT", "forecast"): _forecast,
    ("GET", "step"): lambda case, _: ("the step in seconds", case.step_s),
    ("PUT", "step"): _set_step,
    ("GET", "kpi"): lambda case, _: ("what the expectations observed until now", case.kpi()),
    ("GET", "name"): lambda case, _: ("the scenario's name", {"name": case.name}),
}
"""Method and first part of the path of each call about a test."""


def _check_names(fields: Mapping[str, Any], *known: str) -> None:
    for name in fields:
        if name not in known:
            raise Invalid(f"there is no field {name[:80]!r}", hint=f"there are {', '.join(known)}")


def _number(fields: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = fields.get(name, default)
    if value is None:
        raise Invalid(f"{name} is missing", hint="a number of seconds")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Invalid(f"{name} is {value!r:.100}", hint="a number of seconds")
    return float(value)


async def _fields_of(request: Request) -> Mapping[str, Any]:
    """The fields of a body: a JSON object, or a form, as older controllers send."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BODY:
            raise Invalid(f"the body has more than {MOST_BODY:,} bytes")
    if not body.strip():
        return {}
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        form = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
        return {name: _of_form(values) for name, values in form.items()}
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise Invalid(f"the body is no JSON: {exc}") from exc
    if not isinstance(fields, dict):
        raise Invalid("the body is no JSON object", hint='such as {"step": 60}')
    return fields


def _of_form(values: list[str]) -> Any:
    """The values of a field of a form: one is a number where it reads as one."""
    if len(values) > 1:
        return values
    try:
        return float(values[0])
    except ValueError:
        return values[0]


# --- HTTP -----------------------------------------------------------------------------------------


def create_app(tests: BoptestTests) -> FastAPI:
    """Make the application.

    It refuses what a page in a browser sends: whatever somebody reads there has no part in a test.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"])
    app.middleware("http")(_without_browsers)
    app.add_exception_handler(BedError, _refused)
    app.add_exception_handler(HTTPException, _no_such_call)
    for method, verb in CALLS:
        answer = partial(_answered, tests)
        app.add_route(f"/{verb}", answer, methods=[method])
        app.add_route(f"/{verb}/{{test_id}}", answer, methods=[method])
    app.add_route("/version", _version, methods=["GET"])
    app.add_route("/testcases", partial(_test_cases, tests), methods=["GET"])
    app.add_route("/testcases/{name}/select", partial(_select, tests), methods=["POST"])
    for path in ("/status", "/status/{test_id}"):
        app.add_route(path, partial(_status, tests), methods=["GET"])
    for path in ("/stop", "/stop/{test_id}"):
        app.add_route(path, partial(_stop, tests), methods=["PUT"])
    return app


async def _without_browsers(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    if "origin" in request.headers:
        return _problem(403, "a page in a browser may not call this")
    return await call_next(request)


def _test_id(request: Request) -> str:
    return str(request.path_params.get("test_id", DEFAULT))


async def _answered(tests: BoptestTests, request: Request) -> Response:
    verb = request.url.path.split("/")[1]
    fields = await _fields_of(request)
    if verb == "initialize" and _test_id(request) == DEFAULT and not tests.has(DEFAULT):
        await tests.open(DEFAULT)
    act = CALLS[request.method, verb]
    message, payload = await tests.call(_test_id(request), lambda case: act(case, fields))
    log.debug("call answered", verb=verb, test=_test_id(request))
    return JSONResponse({"status": 200, "message": message, "payload": payload})


async def _version(_request: Request) -> Response:
    payload = {"version": result.versions()["testbed"]}
    return JSONResponse({"status": 200, "message": "the testbed's version", "payload": payload})


async def _test_cases(tests: BoptestTests, _request: Request) -> Response:
    return JSONResponse([{"testcaseid": tests.name}])


async def _select(tests: BoptestTests, request: Request) -> Response:
    if request.path_params["name"] != tests.name:
        raise Unknown("there is no such test case", hint=f"there is {tests.name}")
    return JSONResponse({"testid": await tests.open()})


async def _status(tests: BoptestTests, request: Request) -> Response:
    await tests.call(_test_id(request), lambda case: case.name)
    return PlainTextResponse("Running")


async def _stop(tests: BoptestTests, request: Request) -> Response:
    await tests.stop(_test_id(request))
    return PlainTextResponse("OK")


async def _refused(_request: Request, exc: Exception) -> Response:
    match exc:
        case Unknown():
            return _problem(404, str(exc))
        case TooManyTests():
            return _problem(429, str(exc))
        case _:
            return _problem(400 if isinstance(exc, Refused) else 503, str(exc))


async def _no_such_call(request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    return _problem(status, f"there is no {request.method} {request.url.path[:200]}")


def _problem(status: int, sentence: str) -> Response:
    content = {"status": status, "message": sentence, "payload": None}
    return JSONResponse(content, status_code=status)


class _LoopbackServer(uvicorn.Server):
    """A Uvicorn server that leaves signals to the command that runs it."""

    @contextmanager
    def capture_signals(self) -> "Iterator[None]":
        yield


@asynccontextmanager
async def serving(tests: BoptestTests, port: int, clock: Clock) -> "AsyncIterator[str]":
    """Serve the tests on loopback until left; yields the URL.  port: 0 takes a free one.

    Raises Taken where another program listens at the port.
    """
    try:
        listener = socket.create_server((LOOPBACK, port))
    except OSError as exc:
        raise Taken(
            f"port {port} of {LOOPBACK} cannot be listened at: {os.strerror(exc.errno or 0)}",
            hint="choose another with --port, or 0 for a free one",
        ) from exc
    config = uvicorn.Config(
        create_app(tests),
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    server = _LoopbackServer(config)
    with listener:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listener]), name="boptest")
            while not server.started:
                await clock.sleep(0.01)
            try:
                yield f"http://{LOOPBACK}:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True
                await tests.close()


async def serve(
    scenario: SteppableScenario,
    clock: Clock,
    *,
    seed: int | None,
    port: int,
    on_ready: Callable[[str], None],
) -> None:
    """Serve a scenario until cancelled; on_ready: called with the URL."""
    tests = BoptestTests(scenario, seed)
    try:
        async with serving(tests, port, clock) as url:
            on_ready(url)
            await asyncio.get_running_loop().create_future()
    finally:
        await tests.close()
