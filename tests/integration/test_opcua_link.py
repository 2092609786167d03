"""The OPC UA link where something breaks: nothing is lost without a gap, nothing hangs."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest
from asyncua import ua
from asyncua.server import subscription_service
from asyncua.server.internal_subscription import InternalSubscription
from asyncua.server.monitored_item_service import MonitoredItemService

from broker.batch import BAD, Gap
from broker.clock import NS_PER_S, WallClock
from gateway.links.opcua import session
from gateway.links.opcua.publish_requests import LEAST_IN_FLIGHT
from tests import services
from tests.integration.machines import (
    Machine,
    RecordingSink,
    linked,
    machine,
    mapped,
    second,
)

CLOCK = WallClock()

pytestmark = pytest.mark.timeout(120)  # asyncua takes seconds to build a server


@contextlib.asynccontextmanager
async def a_and_b(**how) -> AsyncIterator[tuple[Machine, RecordingSink]]:
    """A machine with `a` and `b`, read by a link, that has brought the first value of each."""
    async with (
        machine(["a", "b"]) as server,
        linked(mapped(server.url, ["a", "b"], **how)) as (
            _,
            sink,
        ),
    ):
        while not (server.subscriptions and server.subscriptions[0].data.RevisedLifetimeCount):
            await CLOCK.sleep(0.02)
        while len(server.subscriptions[0].monitored_item_srv._monitored_items) < 2:
            await CLOCK.sleep(0.02)
        await server.write(second(0), a=0.0, b=0.0)
        await sink.until(lambda: len(sink.samples) == 2)
        yield server, sink


def lose_a_publish(server: Machine) -> None:
    """The server takes what it has for published, and nobody gets it."""
    server.subscriptions[0]._pop_publish_result()


async def test_a_lost_publish_is_sent_again() -> None:
    async with a_and_b() as (server, sink):
        await server.write(second(1), a=1.0)
        lose_a_publish(server)
        await server.write(second(2), a=2.0)
        await sink.until(lambda: len(sink.values_of("a")) == 3)
        assert sink.values_of("a") == [0.0, 1.0, 2.0]
        assert sink.gaps == []


async def test_a_publish_that_is_lost_for_good_is_a_gap_of_each_item() -> None:
    async with a_and_b() as (server, sink):
        await server.write(second(1), a=1.0, b=1.0)
        lose_a_publish(server)
        server.subscriptions[0]._not_acknowledged_results.clear()
        await server.write(second(2), a=2.0)
        await server.write(second(3), b=3.0)
        await sink.until(lambda: len(sink.samples) == 4)
        cause = "lost-notification"
        assert sink.gaps == [
            Gap(("a",), second(0) + 1, second(2) - 1, cause),
            Gap(("b",), second(0) + 1, second(3) - 1, cause),
        ]


async def test_a_keep_alive_tells_that_the_last_publish_was_lost() -> None:
    async with a_and_b() as (server, sink):
        await server.write(second(1), a=1.0)
        lose_a_publish(server)
        await sink.until(lambda: sink.values_of("a") == [0.0, 1.0])


async def test_a_restart_with_other_namespace_indexes_is_a_gap_and_no_more() -> None:
    names, port = ["a", "b"], services.free_port()
    async with contextlib.AsyncExitStack() as stack:
        async with machine(names, port=port) as server:
            _, sink = await stack.enter_async_context(linked(mapped(server.url, names)))
            while not server.subscriptions:
                await CLOCK.sleep(0.02)
            await server.write(second(0), a=0.0, b=0.0)
            await sink.until(lambda: len(sink.samples) == 2)
        await sink.until(lambda: "server" in sink.alarms)
        async with machine(names, port=port, namespaces_before=3) as server:
            await sink.until(lambda: "server" not in sink.alarms)
            while not server.subscriptions:
                await CLOCK.sleep(0.02)
            await server.write(second(9), a=9.0, b=9.0)
            await sink.until(lambda: len(sink.samples) == 4)
            await stack.aclose()
    cause = "source-unreachable"
    assert sink.gaps == [Gap((name,), second(0) + 1, second(9) - 1, cause) for name in names]


def covered(gaps: list[Gap], from_ns: int, to_ns: int) -> bool:
    """Whether gaps cover a span without a hole."""
    until_ns = from_ns - 1
    for gap in sorted(gaps, key=lambda gap: gap.from_ns):
        if gap.from_ns <= until_ns + 1:
            until_ns = max(until_ns, gap.to_ns)
    return until_ns >= to_ns


async def test_a_signal_without_a_node_is_a_gap_from_the_start_to_its_first_sample(
    tmp_path,
) -> None:
    file, port, gaps = tmp_path / "unread.json", services.free_port(), []
    from_ns = CLOCK.now_ns()
    async with machine(["a"], port=port) as server:
        wrong = mapped(server.url, ["a", "b"])
        async with linked(wrong, unread_file=file) as (_, sink):
            await sink.until(lambda: bool(sink.gaps))
            until_ns = CLOCK.now_ns() + NS_PER_S
            await CLOCK.sleep(1.2)
        gaps += sink.gaps
        assert {gap.cause for gap in gaps} == {"node-unreadable"}
        assert {gap.signals for gap in gaps} == {("b",)}
        assert covered(gaps, min(gap.from_ns for gap in gaps), until_ns)
        assert min(gap.from_ns for gap in gaps) - from_ns < 20 * NS_PER_S
    async with machine(["a", "b"], port=port) as server:
        async with linked(mapped(server.url, ["a", "b"]), unread_file=file) as (_, sink):
            while not server.subscriptions:
                await CLOCK.sleep(0.02)
            sample_ns = CLOCK.now_ns() // 1000 * 1000
            await server.write(sample_ns, a=1.0, b=1.0)
            await sink.until(lambda: sink.values_of("b") == [1.0])
        assert [gap.cause for gap in sink.gaps] == ["gateway-down"]
        gaps += sink.gaps
        assert covered(gaps, min(gap.from_ns for gap in gaps), sample_ns - 1)
        async with linked(mapped(server.url, ["a", "b"]), unread_file=file) as (_, sink):
            await sink.until(lambda: sink.values_of("b") == [1.0])
        assert sink.gaps == []


async def test_a_signal_that_the_server_refuses_is_a_gap(monkeypatch) -> None:
    real = MonitoredItemService.create_monitored_items

    async def refused(self, params):
        answers = await real(self, params)
        refused = ua.StatusCode(ua.StatusCodes.BadMonitoredItemFilterUnsupported)
        answers[-1].StatusCode = refused  # of `b`, which is asked for again alone
        return answers

    monkeypatch.setattr(MonitoredItemService, "create_monitored_items", refused)
    async with machine(["a", "b"]) as server:
        async with linked(mapped(server.url, ["a", "b"])) as (_, sink):
            await sink.until(lambda: bool(sink.gaps))
            until_ns = CLOCK.now_ns() + NS_PER_S // 2
            await CLOCK.sleep(0.6)
        assert "cannot be monitored" in sink.alarms["0/b"]
        assert {(gap.signals, gap.cause) for gap in sink.gaps} == {(("b",), "node-unreadable")}
        assert covered(sink.gaps, sink.gaps[0].from_ns, until_ns)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_node_that_vanishes_is_an_alarm_and_the_others_go_on() -> None:
    async with a_and_b() as (server, sink):
        await server.server.delete_nodes([server.nodes["a"]])
        await sink.until(lambda: "0/a" in sink.alarms, within_s=15)
        await sink.until(lambda: "server" not in sink.alarms)
        assert "is gone" in sink.alarms["0/a"]
        assert sink.samples[-1][0::3] == ("a", BAD)
        await server.write(second(5), b=5.0)
        await sink.until(lambda: sink.values_of("b") == [0.0, 5.0])


async def test_a_node_of_which_the_server_says_that_it_is_gone_is_bad_and_an_alarm() -> None:
    async with a_and_b() as (server, sink):
        unknown = ua.StatusCode(ua.StatusCodes.BadNodeIdUnknown)
        node = server.nodes["a"].nodeid
        await server.server.write_attribute_value(node, ua.DataValue(StatusCode=unknown))
        await sink.until(lambda: "0/a" in sink.alarms)
        assert "is gone" in sink.alarms["0/a"]
        assert sink.samples[-1][3] == BAD
        await server.write(second(2), a=2.0)
        await sink.until(lambda: "0/a" not in sink.alarms)


async def test_a_subscription_that_the_server_forgets_is_made_anew() -> None:
    async with a_and_b() as (server, sink):
        subscription = server.subscriptions[0]
        await server.server.iserver.subscription_service.delete_subscriptions(
            [subscription.data.SubscriptionId]
        )
        await sink.until(lambda: "server" in sink.alarms)
        await sink.until(lambda: "server" not in sink.alarms)
        while not any(sub.monitored_item_srv._monitored_items for sub in server.subscriptions):
            await CLOCK.sleep(0.02)
        await server.write(second(3), a=3.0)
        await sink.until(lambda: sink.values_of("a")[-1] == 3.0)


async def test_what_a_broken_connection_leaves_on_the_server_ends_soon(monkeypatch) -> None:
    monkeypatch.setattr(session, "SESSION_S", 5.0)  # asyncua's server grants no less
    async with a_and_b(opcua="security: none, timeout_s: 1") as (server, sink):
        sessions = server.server.iserver._external_sessions
        (left,) = sessions
        server.server.bserver.clients[0].transport.abort()
        await sink.until(lambda: "server" in sink.alarms)
        await sink.until(lambda: "server" not in sink.alarms)
        assert left in sessions
        async with asyncio.timeout(3 * session.SESSION_S):
            while left in sessions:
                await CLOCK.sleep(0.1)
        assert len(sessions) == 1
        assert len(server.server.iserver.subscription_service.subscriptions) == 1
        await CLOCK.sleep(2 * session.SESSION_S)  # and that of a link that goes on does not
        assert len(sessions) == 1
        assert "server" not in sink.alarms


async def test_a_full_sink_holds_the_server_back_and_is_not_its_silence() -> None:
    async with a_and_b() as (server, sink):
        sink.room.clear()
        for number in range(1, 71):
            await server.write(second(number), a=float(number))
            await CLOCK.sleep(0.1)  # longer than keep-alives may be missing
        sink.room.set()
        await sink.until(lambda: len(sink.values_of("a")) == 71)
        assert sink.values_of("a") == [float(number) for number in range(71)]
        assert sink.gaps == []
        assert not any("not read" in text for text in sink.said)


async def held_up(server: Machine, sink: RecordingSink, rows: int) -> None:
    """Let nothing leave the link while so many rows are written, one a second."""
    sink.room.clear()
    for number in range(1, rows + 1):
        await server.write(second(number), a=float(number), b=float(number))
        if number < 9:  # the requests that wait at the server are answered first
            await CLOCK.sleep(0.1)
    sink.room.set()
    await sink.until(lambda: float(rows) in sink.values_of("b"))


def missing(sink: RecordingSink, name: str, rows: int) -> list[float]:
    """The values of rows that came not, each of which must lie in a gap."""
    absent = sorted({float(number) for number in range(rows)} - set(sink.values_of(name)))
    for number in absent:
        assert any(
            gap.from_ns <= second(number) <= gap.to_ns and gap.cause == "server-overflow"
            for gap in sink.gaps
            if gap.signals == (name,)
        ), (number, sink.gaps)
    return absent


@pytest.mark.parametrize("size", [100, 1])
async def test_what_a_server_drops_unseen_while_we_are_held_up_is_a_gap(monkeypatch, size) -> None:
    monkeypatch.setattr(MonitoredItemService, "_revise_queue_size", lambda *_: size)
    async with a_and_b(period_s=1.0) as (server, sink):
        await held_up(server, sink, 150)
        for name in ("a", "b"):
            absent = missing(sink, name, 150)
            assert len(absent) >= 150 - size - 20
            assert absent == [float(at) for at in range(int(absent[0]), int(absent[-1]) + 1)]
            (gap,) = (gap for gap in sink.gaps if gap.signals == (name,))
            assert (gap.from_ns, gap.to_ns) == (
                second(absent[0] - 1) + 1,
                second(absent[-1] + 1) - 1,
            )


async def test_a_queue_that_was_just_filled_lost_nothing_and_is_no_gap(monkeypatch) -> None:
    monkeypatch.setattr(MonitoredItemService, "_revise_queue_size", lambda *_: 30)
    async with a_and_b(period_s=1.0, interval_s=0.2) as (server, sink):
        for number in range(1, 31):
            await server.write(second(number), a=float(number))
        await sink.until(lambda: 30.0 in sink.values_of("a"))
        assert sink.values_of("a") == [float(number) for number in range(31)]
        assert sink.gaps == []


async def test_a_queue_of_one_without_a_period_is_an_alarm(monkeypatch) -> None:
    monkeypatch.setattr(MonitoredItemService, "_revise_queue_size", lambda *_: 1)
    async with a_and_b(period_s=0.0) as (_, sink):
        assert "keeps one value of 'a' between publishes" in sink.alarms["queues"]


class Capped(InternalSubscription):
    """A server that puts at most so many notifications into a publish, and says there are more."""

    MOST = 50

    async def publish_results(self, requestdata=None):
        sent = await super().publish_results(requestdata)
        going_on = sent
        while going_on and self._triggered_datachanges:
            going_on = await super().publish_results()
        return sent

    def _pop_triggered_datachanges(self, result):
        rows = [(mid, item) for mid, some in self._triggered_datachanges.items() for item in some]
        self._triggered_datachanges = {}
        for mid, item in rows[self.MOST :]:
            self._triggered_datachanges.setdefault(mid, []).append(item)
        if rows:
            notification = ua.DataChangeNotification()
            notification.MonitoredItems = [item for _, item in rows[: self.MOST]]
            result.NotificationMessage.NotificationData.append(notification)
        result.MoreNotifications = len(rows) > self.MOST


async def test_everything_comes_from_a_server_that_caps_its_publishes(monkeypatch) -> None:
    monkeypatch.setattr(subscription_service, "InternalSubscription", Capped)
    names = [f"n{number}" for number in range(200)]
    async with machine(names) as server, linked(mapped(server.url, names)) as (_, sink):
        while not (
            server.subscriptions
            and len(server.subscriptions[0].monitored_item_srv._monitored_items) == len(names)
        ):
            await CLOCK.sleep(0.02)
        for number in range(20):
            await server.write(second(number), **dict.fromkeys(names, float(number)))
        await sink.until(lambda: len(sink.samples) == 20 * len(names))
        for name in names:
            assert sink.values_of(name) == [float(number) for number in range(20)]
        assert sink.gaps == []


async def test_several_publish_requests_wait_at_the_server() -> None:
    async with a_and_b() as (server, sink):
        (protocol,) = server.server.bserver.clients
        for number in range(3):
            async with asyncio.timeout(10):
                while len(protocol.processor._publish_requests) < LEAST_IN_FLIGHT:
                    await CLOCK.sleep(0.02)
            await server.write(second(number + 1), a=float(number))
            await sink.until(lambda: len(sink.values_of("a")) == number + 2)  # noqa: B023


CHILD = """
import asyncio, sys
from tests.integration.machines import machine, second

async def main():
    async with machine(["a"], port=int(sys.argv[1])) as server:
        number = 0
        while True:
            await server.write(second(number / 10), a=float(number))
            number += 1
            await asyncio.sleep(0.1)

asyncio.run(main())
"""


async def test_a_server_that_hangs_is_noticed_and_taken_up_again() -> None:
    port = services.free_port()
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, str(port))
    try:
        async with linked(mapped(f"opc.tcp://{services.LOOPBACK}:{port}", ["a"])) as (_, sink):
            await sink.until(lambda: len(sink.samples) > 3, within_s=20)
            child.send_signal(signal.SIGSTOP)
            await sink.until(lambda: "server" in sink.alarms, within_s=10)
            child.send_signal(signal.SIGCONT)
            await sink.until(lambda: bool(sink.gaps), within_s=20)  # old samples may come before
            seen = len(sink.samples)
            await sink.until(lambda: len(sink.samples) > seen + 3, within_s=20)
            assert {gap.cause for gap in sink.gaps} == {"source-unreachable"}
            (reading,) = (task for task in asyncio.all_tasks() if task.get_name() == "link")
            assert reading.cancelling() == 0  # else a time-out may end it, before Python 3.11.4
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGCONT)
            child.kill()
        await child.wait()


async def test_a_server_that_grants_too_short_a_queue_is_an_alarm(monkeypatch) -> None:
    monkeypatch.setattr(MonitoredItemService, "_revise_queue_size", lambda *_: 3)
    async with a_and_b(interval_s=1.0) as (_, sink):
        assert "keeps 3 samples of 'a'" in sink.alarms["queues"]


async def test_a_subscription_that_dies_beside_a_lively_one_is_noticed() -> None:
    names = ["a", "b"]
    async with machine(names) as server:
        read = mapped(server.url, names)
        (stream,) = read.streams
        slower = dataclasses.replace(stream, publishing_interval_s=0.1)
        both = dataclasses.replace(read, streams=(stream, slower))
        async with linked(both) as (_, sink):
            while len(server.subscriptions) < len(both.streams):
                await CLOCK.sleep(0.02)
            await server.write(second(0), a=0.0, b=0.0)
            await sink.until(lambda: len(sink.samples) == 4)
            service = server.server.iserver.subscription_service
            await service.delete_subscriptions([server.subscriptions[0].data.SubscriptionId])
            number = 0
            async with asyncio.timeout(20):
                while not any("says nothing" in text for text in sink.said):  # it is soon over
                    number += 1
                    await server.write(second(number), a=float(number))
                    await CLOCK.sleep(0.1)
