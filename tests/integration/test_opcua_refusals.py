"""What an OPC UA server refuses costs that thing alone, and is asked for again."""

import asyncio
import dataclasses
from collections.abc import Callable

import pytest
from asyncua import ua

from broker.clock import NS_PER_S, WallClock
from gateway.links.opcua import acquisition
from gateway.links.opcua.call_sizes import Service
from gateway.mapping.model import Mapping
from tests import services
from tests.integration.machines import URI, Machine, linked, machine, mapped, second
from tests.integration.refusals import Codes, Refusals

CLOCK = WallClock()

pytestmark = pytest.mark.timeout(120)  # asyncua takes seconds to build a server


async def until(is_so: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Wait for the server's side."""
    async with asyncio.timeout(within_s):
        while not is_so():
            await CLOCK.sleep(0.02)


async def play(server: Machine, names: list[str], numbers: range) -> None:
    """Write rows, one each 50 ms."""
    for number in numbers:
        await server.write(CLOCK.now_ns(), **dict.fromkeys(names, float(number)))
        await CLOCK.sleep(0.05)


async def test_an_item_that_is_refused_for_a_while_is_a_gap_until_it_is_taken(
    refusals: Refusals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acquisition, "LONGEST_RETRY_S", 1.0)
    names = ["a", "b", "c"]
    async with machine(names) as server:
        node = server.nodes["b"].nodeid
        refusals.items[node] = refusals.reads[node] = Codes.BadNotConnected
        began_ns = CLOCK.now_ns()
        async with linked(mapped(server.url, names)) as (link, sink):
            await sink.until(lambda: "0/b" in sink.alarms)
            assert "cannot be monitored: BadNotConnected" in sink.alarms["0/b"]
            await play(server, names, range(20))
            assert sink.values_of("b") == []
            assert len(sink.values_of("a")) >= 18
            refusals.items.clear()
            refusals.reads.clear()
            await sink.until(lambda: bool(sink.values_of("b")))
            await sink.until(lambda: "0/b" not in sink.alarms)
            first_ns = next(time_ns for name, time_ns, *_ in sink.samples if name == "b")
            await until(
                lambda: len(server.subscriptions[0].monitored_item_srv._monitored_items) == 3
            )
            await play(server, names, range(20, 25))
            await sink.until(lambda: 24.0 in sink.values_of("b"))
            assert link.counts.connects == 1
        gaps = [gap for gap in sink.gaps if gap.signals == ("b",)]
        assert {gap.cause for gap in gaps} == {"node-unreadable"}
        assert min(gap.from_ns for gap in gaps) <= began_ns + NS_PER_S
        assert max(gap.to_ns for gap in gaps) == first_ns - 1
        assert not [gap for gap in sink.gaps if gap.signals != ("b",)]


@pytest.mark.parametrize("service", ["create_subscription", "create_monitored_items"])
async def test_a_server_without_subscriptions_is_polled_in_one_session(
    refusals: Refusals, service: str
) -> None:
    refusals.services[service] = Codes.BadServiceUnsupported
    async with (
        machine(["a", "b"]) as server,
        linked(mapped(server.url, ["a", "b"], period_s=0.05)) as (link, sink),
    ):
        for number in range(10):
            await server.write(second(number), a=float(number))
            await sink.until(lambda: float(number) in sink.values_of("a"))  # noqa: B023
        await CLOCK.sleep(0.3)
        assert sink.values_of("a") == [float(number) for number in range(10)]
        assert sink.values_of("b") == []
        await server.write(second(0), b=1.0)
        await sink.until(lambda: sink.values_of("b") == [1.0])
        assert link.counts.connects == 1
        assert {"0/a", "0/b", "server"}.isdisjoint(sink.alarms)


async def test_a_server_that_publishes_nothing_is_polled_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from asyncua.common.utils import ServiceError  # noqa: PLC0415
    from asyncua.server.internal_session import InternalSession  # noqa: PLC0415

    def publish(_self, _acks=None):
        raise ServiceError(Codes.BadServiceUnsupported)

    monkeypatch.setattr(InternalSession, "publish", publish)
    async with machine(["a"]) as server:
        await server.write(second(0), a=1.0)
        async with linked(mapped(server.url, ["a"])) as (link, sink):
            await sink.until(lambda: sink.values_of("a") == [1.0])
            assert link.counts.connects == 2


async def test_requests_that_are_too_large_are_halved_once_and_for_all(refusals: Refusals) -> None:
    names = [f"n{number}" for number in range(35)]
    refusals.most_operations = 10
    async with machine(names) as server:
        await server.write(second(0), **dict.fromkeys(names, 1.0))
        async with linked(mapped(server.url, names)) as (link, sink):
            await sink.until(lambda: len(sink.samples) == len(names))
            assert link.counts.connects == 1
            assert link.limits.size(Service.READ) <= 10
            assert link.limits.size(Service.MONITOR) <= 10
            refused = refusals.calls["read!"], refusals.calls["create_monitored_items!"]
            (subscription,) = server.subscriptions
            service = server.server.iserver.subscription_service
            await service.delete_subscriptions([subscription.data.SubscriptionId])
            await until(lambda: link.counts.connects == 2 and link.is_reading)
            await sink.until(lambda: "server" not in sink.alarms)
        assert (refusals.calls["read!"], refusals.calls["create_monitored_items!"]) == refused


async def test_items_that_a_full_subscription_refuses_go_into_another(refusals: Refusals) -> None:
    names = [f"n{number}" for number in range(12)]
    refusals.most_items = 5
    async with machine(names) as server:
        await server.write(second(0), **dict.fromkeys(names, 1.0))
        async with linked(mapped(server.url, names)) as (link, sink):
            await sink.until(lambda: len(sink.samples) == len(names))
            sizes = [len(each.monitored_item_srv._monitored_items) for each in server.subscriptions]
            assert sizes == [5, 5, 2]
            assert link.counts.connects == 1
            assert sink.alarms == {}


async def test_items_that_a_full_server_refuses_are_polled(refusals: Refusals) -> None:
    names = [f"n{number}" for number in range(8)]
    refusals.most_items, refusals.on_server = 5, True
    async with machine(names) as server:
        await server.write(second(0), **dict.fromkeys(names, 1.0))
        async with linked(mapped(server.url, names)) as (link, sink):
            await sink.until(lambda: len(sink.samples) == len(names))
            for number in range(2, 6):
                await server.write(second(number), **dict.fromkeys(names, float(number)))
                await sink.until(lambda: sink.values_of("n7")[-1] == float(number))  # noqa: B023
            assert len(server.subscriptions) == 1
            polled = [handle for _, handle, _ in link.acquisition.polled()]
            assert len(polled) == 3
            refusals.most_items = 100
            await until(lambda: not list(link.acquisition.polled()), within_s=15)
            await server.write(second(9), **dict.fromkeys(names, 9.0))
            await sink.until(lambda: all(sink.values_of(name)[-1] == 9.0 for name in names))
            samples = {(name, time_ns, value) for name, time_ns, value, _ in sink.samples}
            assert len(samples) == 6 * len(names)  # a new subscription repeats the last one
            assert link.counts.connects == 1
            assert sink.gaps == []


def at_two_intervals(url: str) -> Mapping:
    """Two streams that want a subscription each."""
    read = mapped(url, ["a", "b"])
    (stream,) = read.streams
    slower = dataclasses.replace(stream, publishing_interval_s=0.1)
    return dataclasses.replace(read, streams=(stream, slower))


async def test_a_second_subscription_that_is_refused_joins_the_first(refusals: Refusals) -> None:
    refusals.most_subscriptions = 1
    async with machine(["a", "b"]) as server:
        await server.write(second(0), a=0.0, b=0.0)
        async with linked(at_two_intervals(server.url)) as (link, sink):
            await sink.until(lambda: len(sink.samples) == 4)
            await server.write(second(1), a=1.0, b=1.0)
            await sink.until(lambda: len(sink.samples) == 8)
            assert link.counts.connects == 1
            assert list(link.acquisition.polled()) == []


@pytest.mark.parametrize("trigger", ["value", "timestamp"])
async def test_a_filter_that_is_refused_costs_the_filter_alone(
    refusals: Refusals, trigger: str
) -> None:
    refusals.filters = False
    async with machine(["a"]) as server:
        await server.write(second(0), a=5.0)
        async with linked(mapped(server.url, ["a"], trigger=trigger)) as (link, sink):
            await sink.until(lambda: sink.values_of("a") == [5.0])
            await server.write(second(1), a=6.0)
            await sink.until(lambda: sink.values_of("a") == [5.0, 6.0])
            is_polled = bool(list(link.acquisition.polled()))
            assert is_polled is (trigger == "timestamp")  # repeated values would not come else
            assert "0/a" not in sink.alarms


async def test_a_server_state_that_may_not_be_read_is_a_sign_of_life(refusals: Refusals) -> None:
    state = ua.NodeId(ua.ObjectIds.Server_ServerStatus_State)
    refusals.reads[state] = Codes.BadUserAccessDenied
    async with machine(["a"]) as server, linked(mapped(server.url, ["a"])) as (link, sink):
        await server.write(second(0), a=0.0)
        await sink.until(lambda: sink.values_of("a") == [0.0])
        await CLOCK.sleep(3.0)  # longer than from one heartbeat to the next
        assert link.counts.connects == 1
        assert "server" not in sink.alarms


async def test_namespaces_that_are_null_or_missing_cost_their_signals_alone() -> None:
    async with machine(["a"]) as server:
        await server.write(second(0), a=1.0)
        array = server.server.get_node(ua.NodeId(ua.ObjectIds.Server_NamespaceArray))
        uris = await array.read_value()
        await array.write_value(ua.Variant([*uris, None, None], ua.VariantType.String))
        text = mapped(server.url, ["a", "b"])
        (stream,) = text.streams
        other = dataclasses.replace(
            stream.items[1], source=dataclasses.replace(stream.items[1].source, uri="urn:not:there")
        )
        missing = dataclasses.replace(stream, items=(stream.items[0], other))
        async with linked(dataclasses.replace(text, streams=(missing,))) as (_, sink):
            await sink.until(lambda: sink.values_of("a") == [1.0])
            assert "the server has no namespace urn:not:there; it has http" in sink.alarms["0/b"]
            assert URI in sink.alarms["0/b"]


async def test_namespaces_that_may_not_be_read_cost_no_connection(refusals: Refusals) -> None:
    refusals.reads[ua.NodeId(ua.ObjectIds.Server_NamespaceArray)] = Codes.BadUserAccessDenied
    async with machine(["a"]) as server, linked(mapped(server.url, ["a"])) as (link, sink):
        await sink.until(lambda: "0/a" in sink.alarms)
        assert "the server has no namespace" in sink.alarms["0/a"]
        assert link.counts.connects == 1
        refusals.reads.clear()
        await server.write(second(0), a=1.0)
        await sink.until(lambda: sink.values_of("a") == [1.0])
        assert link.counts.connects == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_node_that_turns_up_is_read_in_the_same_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acquisition, "LONGEST_RETRY_S", 1.0)
    async with machine(["a", "c"]) as server:
        async with linked(mapped(server.url, ["a", "b"])) as (link, sink):
            await sink.until(lambda: "0/b" in sink.alarms)
            index = server.nodes["a"].nodeid.NamespaceIndex
            for name in ("b", "a"):
                if name == "a":
                    await server.write(second(0), a=0.0)
                    await sink.until(lambda: sink.values_of("a") == [0.0])
                    await server.server.delete_nodes([server.nodes["a"]])
                    await sink.until(lambda: "is gone" in sink.alarms.get("0/a", ""), within_s=15)
                place = ua.NodeId(name, index), ua.QualifiedName(name, index)
                objects = server.server.nodes.objects
                server.nodes[name] = await objects.add_variable(*place, 7.0)
                await sink.until(lambda: 7.0 in sink.values_of(name))  # noqa: B023
            assert {"0/a", "0/b"}.isdisjoint(sink.alarms)
            assert link.counts.connects == 1
        assert {gap.cause for gap in sink.gaps} == {"node-unreadable"}


async def test_a_server_without_room_for_a_session_says_so_and_is_not_pressed(
    refusals: Refusals,
) -> None:
    refusals.services["create_session"] = Codes.BadTooManySessions
    port = services.free_port()
    async with (
        machine(["a"], port=port) as server,
        linked(mapped(server.url, ["a"], opcua="security: none, timeout_s: 1")) as (link, sink),
    ):
        await sink.until(lambda: "server" in sink.alarms)
        assert "takes no further session (BadTooManySessions)" in sink.alarms["server"]
        assert "is the server running" not in sink.alarms["server"]
        await CLOCK.sleep(4.0)
        assert refusals.calls["create_session"] <= 4  # after 0, 1 and 3 s
        assert len(sink.said) == 1
        refusals.services.clear()
        await server.write(second(0), a=1.0)
        await sink.until(lambda: sink.values_of("a") == [1.0])
        assert sink.alarms == {}
        assert link.counts.connects == 1


async def test_an_alarm_stands_while_sessions_break_before_data_comes(
    refusals: Refusals,
) -> None:
    refusals.services["create_subscription"] = Codes.BadSessionClosed
    async with (
        machine(["a"]) as server,
        linked(mapped(server.url, ["a"])) as (link, sink),
    ):
        await sink.until(lambda: "server" in sink.alarms)
        began = link.counts.connects
        for _ in range(40):
            assert "server" in sink.alarms
            await CLOCK.sleep(0.1)
        assert link.counts.connects - began <= 3
        refusals.services.clear()
        await server.write(second(0), a=1.0)
        await sink.until(lambda: "server" not in sink.alarms)
        assert sink.values_of("a") == [1.0]
