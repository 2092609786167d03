"""The API's HTTP server without a proxy before it: headers, and the client's address."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest
import uvicorn

from broker.clock import WallClock
from testbed_api import service
from testbed_api.http import request_deadline
from testbed_api.http.app import create_app
from testbed_api.http.listener import listening
from testbed_api.http.middleware.content_policy import CONTENT_SECURITY_POLICY, HEADER
from testbed_api.http.server import HEADERS, _Uvicorn
from testbed_api.settings import ServerSettings

MARK = "evil"
WHOLE_S = 1.0
HOSTILE = f"{MARK}%0d%0ax-{MARK}:%201%00%1b%5b2J"


@pytest.fixture
async def http(tmp_path) -> AsyncIterator[httpx.AsyncClient]:
    settings = ServerSettings(folder=tmp_path / "data", api_port=0, mqtt_port=0, request_s=WHOLE_S)
    async with service.serve(settings, WallClock()) as running:
        who = {"Authorization": f"Bearer {running.administrator}"}
        url = f"http://{running.api}"
        async with httpx.AsyncClient(base_url=url, headers=who, timeout=10) as http:
            yield http


def routes() -> list[tuple[str, str]]:
    """Method and path of each, everything in it that a caller chooses being hostile."""
    paths = create_app(None).openapi()["paths"].items()
    parts = [(method, path.split("/")) for path, methods in paths for method in methods]
    return [
        (method, "/".join(HOSTILE if each.startswith("{") else each for each in path))
        for method, path in parts
    ]


async def test_no_header_of_an_answer_repeats_what_was_asked(http):
    more = {"Host": f"{MARK}.example", "X-Forwarded-Host": MARK, "X-Request-Id": MARK}
    requests = [*routes(), ("get", f"/{HOSTILE}"), ("get", f"/api/v1/docs/viewer/{HOSTILE}")]
    requests += [(method, f"{path}/") for method, path in requests]
    requests += [("get", "/api/v1/docs/viewer"), ("brew", "/api/v1/me")]
    assert len(requests) > 60
    for method, path in requests:
        answer = await http.request(method, path, headers=more, params={MARK: HOSTILE})
        for name, text in answer.headers.items():
            assert MARK not in name + text.lower(), (method, path)


async def test_every_answer_tells_browsers_to_guess_nothing_and_frame_nothing(http):
    for path in ("/", "/api/v1/docs", "/api/v1/me", "/api/v1/health", "/nowhere"):
        headers = (await http.get(path)).headers
        assert {name: headers[name] for name, _ in HEADERS} == dict(HEADERS)
        assert headers[HEADER] == CONTENT_SECURITY_POLICY
        assert "server" not in headers


async def test_who_guesses_is_stopped_whatever_address_its_headers_claim(http):
    statuses = []
    for number in range(11):
        claimed = {"X-Forwarded-For": f"10.0.0.{number}", "Forwarded": f"for=10.0.0.{number}"}
        body = {"person": f"nobody-{number}", "password": "a guess at a password"}
        answer = await http.post("/api/v1/sign-in", headers=claimed, json=body)
        statuses.append(answer.status_code)
    assert statuses == [401] * 10 + [429]


HEAD = "HTTP/1.1\r\nHost: api\r\nAuthorization: CREDENTIAL\r\n"


def test_an_answer_in_two_parts_leaves_without_waiting():
    with listening("127.0.0.1", 0) as door, socket.create_connection(door.getsockname()):
        accepted, _ = door.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    "begun",
    [
        "",
        f"GET /api/v1/me {HEAD}",
        f"GET /api/v1/health {HEAD}\r\nGET /api/v1/me HTTP/1.1\r\n",
        f"POST /api/v1/tokens {HEAD}Content-Length: 9\r\n\r\n{{",
        f"POST /api/v1/tokens {HEAD}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n",
    ],
    ids=["nothing", "half a head", "half of the next", "half a body", "one chunk"],
)
async def test_who_is_slow_to_ask_is_cut_off(http, begun):
    reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    writer.write(begun.replace("CREDENTIAL", http.headers["authorization"]).encode())
    began_s = asyncio.get_running_loop().time()
    async with asyncio.timeout(10):
        with suppress(ConnectionResetError):
            while await reader.read(1000):
                writer.write(b"x")  # a byte now and then helps nobody
    assert WHOLE_S * 0.9 < asyncio.get_running_loop().time() - began_s < 8
    writer.close()
    with suppress(ConnectionResetError):
        await writer.wait_closed()


async def test_who_is_slow_to_be_answered_is_not_cut_off():
    async def slow(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            await WallClock().sleep(0.2)
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body"})

    with listening("127.0.0.1", 0) as door:
        impatient = request_deadline.within(0.2)
        server = _Uvicorn(uvicorn.Config(slow, http=impatient, lifespan="off", log_config=None))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[door]), name="api")
            async with httpx.AsyncClient() as http:
                port = door.getsockname()[1]
                assert (await http.get(f"http://127.0.0.1:{port}/")).text == "xxx"
            server.should_exit = True


MIB = bytes(1024**2)
IMAGES = "/api/v1/organisations/testbed/images"


async def pushing(http, pieces: int, pause_s: float):
    async def content() -> AsyncIterator[bytes]:
        for _ in range(pieces):
            yield MIB
            await WallClock().sleep(pause_s)

    return await http.post(IMAGES, params={"name": "watch"}, content=content())


async def test_an_archive_may_come_longer_than_a_request_as_long_as_it_comes(http, tmp_path):
    answer = await pushing(http, 4, WHOLE_S / 2)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    with pytest.raises(httpx.TransportError):
        await pushing(http, 2, 3 * WHOLE_S)
    await WallClock().sleep(0.2)
    assert list((tmp_path / "data" / "images").iterdir()) == []
