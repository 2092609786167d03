"""Prometheus metrics of a gateway."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker.errors import Taken, Unavailable
from gateway.monitoring import prometheus
from gateway.monitoring.stats import GatewayStats, StreamStats
from tests.services import accepts, free_port

STATS = GatewayStats(
    spool_batches=3,
    spool_bytes=4_000,
    spool_limit_bytes=5_000,
    mark_lag_s=1.23456,
    dropped_batches=2,
    disk_free_bytes=10**9,
    commits=10,
    commit_s=0.5,
    sent_batches=12,
    resent_batches=2,
    put_off_batches=1,
    marks=7,
    bus_connected=True,
    bus_connects=2,
    source_connects=1,
    republished=0,
    unfit_samples=0,
    offered_samples=100,
    dead_banded_samples=0,
    doubtful_samples=3,
    far_samples=2,
    moved_samples=0,
    repeated_samples=0,
    alarms=1,
    gaps={"server-overflow": 5},
    streams=(
        StreamStats(stream="o/e/s", fresh=True, silent_s=0.5),
        StreamStats(stream="o/e/t", fresh=False, silent_s=None),
    ),
)


async def collected() -> GatewayStats:
    return STATS


@asynccontextmanager
async def serving(collect: Callable[[], Awaitable[GatewayStats]] = collected) -> AsyncIterator[str]:
    port = free_port()
    async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(prometheus.serve(port, collect), name="metrics")
        while not accepts(port):  # noqa: ASYNC110 - a real server needs a moment
            await asyncio.sleep(0.01)  # noqa: TID251
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            running.cancel()


async def test_every_figure_is_a_metric() -> None:
    async with serving() as url, httpx.AsyncClient(base_url=url) as door:
        answer = await door.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        samples = {
            (sample.name.removeprefix("testbed_gateway_"), *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }
        assert samples["spool_batches",] == 3
        assert samples["mark_lag_seconds",] == 1.23456
        assert samples["resent_batches_total",] == 2
        assert samples["gaps_total", "server-overflow"] == 5
        assert (samples["stream_fresh", "o/e/s"], samples["stream_fresh", "o/e/t"]) == (1, 0)
        assert samples["stream_silent_seconds", "o/e/s"] == 0.5
        assert ("stream_silent_seconds", "o/e/t") not in samples
        assert samples["commit_seconds_sum",] / samples["commit_seconds_count",] == 0.05
        assert len(samples) == 7 + 15 + 2 + 1 + 2 + 1
        assert (await door.get("/")).status_code == 404
        assert (await door.post("/metrics")).status_code == 405


async def test_who_says_nothing_or_too_much_keeps_nobody_waiting() -> None:
    async with serving() as url, httpx.AsyncClient(base_url=url) as door:
        port = int(url.rpartition(":")[2])
        _, silent = await asyncio.open_connection("127.0.0.1", port)
        reader, loud = await asyncio.open_connection("127.0.0.1", port)
        loud.write(b"x" * 100_000)
        assert (await door.get("/metrics")).status_code == 200
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        loud.close()
    silent.close()  # the server ended although this one never asked


async def test_a_spool_that_does_not_answer_is_said() -> None:
    async def away() -> GatewayStats:
        raise Unavailable("the spool did not take it")

    async with serving(away) as url, httpx.AsyncClient(base_url=url) as door:
        assert (await door.get("/metrics")).status_code == 503


async def test_a_port_in_use_is_refused_with_its_number() -> None:
    async with serving() as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(Taken, match=str(port)):
            await prometheus.serve(port, collected)


def test_the_line_says_the_same_with_units() -> None:
    line = STATS.line()
    assert (line["spool_batches"], line["mark_lag_s"], line["gaps"]) == (
        3,
        1.235,
        {"server-overflow": 5},
    )
    assert (line["streams"], line["stale_streams"]) == (2, 1)
