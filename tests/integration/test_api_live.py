"""The API of a whole server over real sockets: what streams, and what ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from broker import codec, messages
from broker.batch import Batch, Source, Wide
from broker.bus import client
from broker.clock import NS_PER_S, WallClock
from broker.messages import Freshness, Health
from broker.namespace import StreamAddress
from broker.settings import BusSettings
from testbed_api import service
from testbed_api.settings import ServerSettings
from tests.owners import founded

RIG = StreamAddress("factory", "pump-rig", "rig")
STREAM = f"/streams/{RIG}"
DATA = f"tb1/live/data/{RIG}"
MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Running:
    http: httpx.AsyncClient
    broker: str

    async def made(self, principal: str, **content: object) -> str:
        answer = await self.http.post("/credentials", json={"principal": principal, **content})
        return answer.json()["credential"]


@pytest.fixture
async def server(tmp_path) -> AsyncIterator[Running]:
    settings = ServerSettings(folder=tmp_path / "data", api_port=0, mqtt_port=0)
    async with service.serve(settings, WallClock()) as running:
        async with founded(f"http://{running.api}", running.administrator) as owners:
            secret = owners.secret
        headers = {"Authorization": f"Bearer {secret}"}
        url = f"http://{running.api}/api/v1"
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=10) as http:
            body = {"name": "Rig", "kind": "simulated"}
            await http.put(f"/equipment/{RIG.owner}", json=body)
            await http.post(f"{STREAM}/specs", json={"signals": [{"name": "p"}]})
            yield Running(http, f"mqtt://{running.broker}")


@pytest.fixture
async def publisher(server) -> AsyncIterator[client.Bus]:
    entry = {"space": "live", "stream": str(RIG)}
    text = await server.made("gateway", writes=[entry])
    settings = BusSettings(broker=server.broker, credential=SecretStr(text))
    async with client.open(settings, WallClock(), client_id="gateway") as bus:
        await bus.ready()
        yield bus


def batch(number: int) -> bytes:
    times = np.array([WallClock().now_ns()], np.int64)
    frame = Wide(times, {"p": np.array([float(number)])})
    return codec.encode(Batch(1, (frame,), Source.SIMULATED, pub_ns=int(times[0])))


async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, str]]:
    """(kind, data) of each event; a comment's kind is empty."""
    kind, data = "", []
    async for line in answer.aiter_lines():
        if line.startswith(":"):
            yield "", line[2:]
        elif line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data.append(line.removeprefix("data: "))
        elif not line and kind:
            yield kind, "\n".join(data)
            kind, data = "", []


async def test_batches_come_as_they_are_published(server, publisher):
    async with (
        server.http.stream("GET", f"{STREAM}/live") as answer,
        aclosing(events(answer)) as received,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert await anext(received) == ("", "following")
        for number in range(3):
            sent = batch(number)
            await publisher.publish(DATA, sent)
            assert await anext(received) == ("batch", sent.decode())


async def test_a_line_break_in_a_batch_makes_no_event_of_its_own(server, publisher):
    forged = b'{"v":1,\n\nevent: missed\ndata: 100\n\n"x":1}'
    async with (
        server.http.stream("GET", f"{STREAM}/live") as answer,
        aclosing(events(answer)) as received,
    ):
        assert await anext(received) == ("", "following")
        await publisher.publish(DATA, forged)
        assert await anext(received) == ("batch", forged.decode())


async def test_a_revoked_reader_gets_no_more_after_a_second(server, publisher):
    text = await server.made("guest", reads=[{"stream": str(RIG)}])
    headers = {"Authorization": f"Bearer {text}"}
    async with (
        server.http.stream("GET", f"{STREAM}/live", headers=headers) as answer,
        aclosing(events(answer)) as received,
    ):
        assert await anext(received) == ("", "following")
        gone = await server.http.delete("/credentials/guest")
        assert gone.status_code == 204
        async with asyncio.timeout(1.0):
            assert [kind async for kind, _ in received] == ["ended"]
    again = await server.http.get(f"{STREAM}", headers=headers)
    assert again.status_code == 401
    await publisher.publish(DATA, batch(1))


async def test_a_reader_whose_credential_expires_gets_no_more(server):
    text = await server.made("guest", reads=[{"stream": str(RIG)}], expires_in_s=1)
    headers = {"Authorization": f"Bearer {text}"}
    async with (
        server.http.stream("GET", f"{STREAM}/live", headers=headers) as answer,
        asyncio.timeout(2.5),
    ):
        assert [kind async for kind, _ in events(answer)] == ["", "ended"]


async def followed(server, stack, count, headers=None):
    """So many readers of the stream, each following by now."""
    readers = []
    for _ in range(count):
        answer = await stack.enter_async_context(
            server.http.stream("GET", f"{STREAM}/live", headers=headers)
        )
        received = await stack.enter_async_context(aclosing(events(answer)))
        assert await anext(received) == ("", "following")
        readers.append(received)
    return readers


async def test_all_readers_of_a_stream_share_one_subscription(server, publisher, monkeypatch):
    subscribed = []
    subscribe = client.Bus.subscribe

    def noted(bus, filters, **bounds):
        subscribed.extend(filters)
        return subscribe(bus, filters, **bounds)

    monkeypatch.setattr(client.Bus, "subscribe", noted)
    async with AsyncExitStack() as stack:
        readers = await followed(server, stack, 5)
        assert subscribed == [DATA]
        sent = batch(1)
        await publisher.publish(DATA, sent)
        for received in readers:
            assert await anext(received) == ("batch", sent.decode())
    async with AsyncExitStack() as stack:  # the next reader begins anew
        (received,) = await followed(server, stack, 1)
        assert subscribed == [DATA, DATA]
        await publisher.publish(DATA, sent)
        assert await anext(received) == ("batch", sent.decode())


async def test_a_slow_reader_is_told_what_it_missed_and_the_others_miss_nothing(
    server, publisher, monkeypatch
):
    monkeypatch.setattr("testbed_api.http.live_feeds.FEED_BYTES", 4 * MIB)
    large = b'{"v":1,"x":"' + b"x" * (MIB // 2) + b'"}'
    count = 60
    async with AsyncExitStack() as stack:
        slow, quick = await followed(server, stack, 2)
        for number in range(count):
            await publisher.publish(DATA, large)
            kind, data = await anext(quick)
            assert (kind, len(data)) == ("batch", len(large)), number
        missed = batches = 0
        async with asyncio.timeout(10):
            while missed + batches < count:
                kind, data = await anext(slow)
                missed += int(data) if kind == "missed" else 0
                batches += kind == "batch"
        assert missed > 0
        assert missed + batches == count


async def test_all_who_are_revoked_hear_no_more_after_a_second_and_others_go_on(server, publisher):
    text = await server.made("guest", reads=[{"stream": str(RIG)}])
    async with AsyncExitStack() as stack:
        guests = await followed(server, stack, 20, {"Authorization": f"Bearer {text}"})
        (owner,) = await followed(server, stack, 1)
        await server.http.delete("/credentials/guest")
        async with asyncio.timeout(1.0):
            for received in guests:
                assert [kind async for kind, _ in received] == ["ended"]
        sent = batch(1)
        await publisher.publish(DATA, sent)
        assert await anext(owner) == ("batch", sent.decode())


async def test_freshness_follows_the_publisher_until_its_word_runs_out(server, publisher):
    now_ns = WallClock().now_ns()
    for valid_ns, state in ((60 * NS_PER_S, "fresh"), (0, "stale")):
        health = Health(
            state=Freshness.FRESH, at_ns=now_ns, valid_until_ns=now_ns + valid_ns, last_ns=now_ns
        )
        payload = messages.encode_health(health)
        await publisher.publish(f"tb1/live/health/{RIG}", payload, retain=True)
        async with asyncio.timeout(5):
            while True:
                freshness = (await server.http.get(STREAM)).json()["freshness"].get("live", {})
                if freshness.get("state") == state:
                    break


async def test_a_server_with_all_its_parts_is_ready(server):
    assert (await server.http.get("/ready")).json() == {"state": "ready"}


async def _silent(server) -> list[tuple[str, str]]:
    """The silent gateways of the status, and their spaces."""
    status = (await server.http.get("/status")).json()
    return [(each["equipment"], each["space"]) for each in status["silent"]]


async def test_a_gateway_that_says_nothing_any_more_is_silent_in_the_status(server, publisher):
    for valid_s, expected in ((0.1, [(str(RIG.owner), "live")]), (30, [])):
        now_ns = WallClock().now_ns()
        health = Health(
            state=Freshness.FRESH,
            at_ns=now_ns,
            valid_until_ns=now_ns + round(valid_s * NS_PER_S),
            last_ns=now_ns,
        )
        topic = f"tb1/live/health/{RIG}"
        await publisher.publish(topic, messages.encode_health(health), retain=True)
        async with asyncio.timeout(5):
            while await _silent(server) != expected:
                pass
    for space, streams in (("live", [str(RIG)]), ("run-demo", [])):
        status = (await server.http.get("/status", params={"space": space})).json()
        assert [each["stream"] for each in status["streams"]] == streams
