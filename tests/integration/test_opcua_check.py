"""`gateway check` finds what would end or starve `gateway run`, and says which line cures it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from asyncua import ua

from broker.clock import NS_PER_S, WallClock
from gateway.commissioning.check import CheckReport, check
from gateway.commissioning.findings import Severity
from gateway.mapping.model import Mapping
from tests.integration.machines import Machine, linked, machine, mapped
from tests.integration.refusals import Codes, Refusals

CLOCK = WallClock()
EACH_S = 0.05

pytestmark = pytest.mark.timeout(120)  # asyncua takes seconds to build a server


@contextlib.asynccontextmanager
async def playing(
    names: list[str], *, silent: tuple[str, ...] = (), offset_s: float = 0.0
) -> AsyncIterator[Machine]:
    """A machine with these variables; all but the silent ones have a new value each 50 ms.

    offset_s: of its clock.
    """
    async with machine(names) as server, asyncio.TaskGroup() as tasks:

        async def play() -> None:
            number = 0.0
            while True:
                number += 1
                time_ns = CLOCK.now_ns() + round(offset_s * NS_PER_S)
                await server.write(time_ns, **{n: number for n in names if n not in silent})
                await CLOCK.sleep(EACH_S)

        task = tasks.create_task(play(), name="values")
        yield server
        task.cancel()


async def checked(mapping: Mapping, listen_s: float = 1.0) -> tuple[CheckReport, list[str]]:
    """The report of a check, and its findings as text."""
    report = await check(mapping, listen_s=listen_s)
    return report, [str(finding) for finding in report.findings]


async def test_a_mapping_that_is_right_has_values_rates_and_no_finding() -> None:
    async with playing(["a", "b"]) as server:
        report, findings = await checked(mapped(server.url, ["a", "b"], period_s=EACH_S))
        assert findings == []
        for signal in report.signals:
            assert (signal.way, signal.conversion) == ("subscribed", "")
            assert signal.value > 0
            assert signal.per_s == pytest.approx(1 / EACH_S, rel=0.4)
            assert abs(signal.behind_s) < 1
        assert [signal.name for signal in report.signals] == ["s.a", "s.b"]


async def test_a_server_without_subscriptions_is_polled_and_said_so(refusals: Refusals) -> None:
    refusals.services["create_subscription"] = Codes.BadServiceUnsupported
    async with playing(["a"]) as server:
        report, (finding,) = await checked(mapped(server.url, ["a"], period_s=EACH_S))
        assert finding.startswith("note: the server publishes 0 signals and refuses s.a (BadServ")
        assert "polled every 0.05 s" in finding
        assert "write sampling_interval_s" in finding
        assert report.signals[0].way == "polled every 0.05 s"


async def test_limits_that_no_server_states_are_found(refusals: Refusals) -> None:
    names = [f"n{number}" for number in range(30)]
    refusals.most_operations, refusals.most_items, refusals.on_server = 10, 25, True
    async with playing(names) as server:
        _, findings = await checked(mapped(server.url, names, period_s=EACH_S))
        limits, polled = findings
        assert limits.startswith("warning: the server refuses 500 nodes in a request, and takes ")
        assert limits.endswith("write items_per_call: 7")
        assert "the server publishes 25 signals and refuses s.n25, s.n26" in polled
        assert "BadTooManyMonitoredItems" in polled


async def test_a_server_with_one_session_is_told_from_one_that_is_away(refusals: Refusals) -> None:
    async with playing(["a"]) as server:
        mapping = mapped(server.url, ["a"], period_s=EACH_S)
        async with linked(mapping) as (_, sink):
            await sink.until(lambda: bool(sink.samples))
            refusals.services["create_session"] = Codes.BadTooManySessions
            _, (finding,) = await checked(mapping)
        assert "takes no further session (BadTooManySessions)" in finding
        assert "end another client of the server, such as the gateway itself" in finding


async def test_signals_without_rights_or_values_or_beyond_their_type_are_found() -> None:
    names = ["a", "secret", "empty"]
    async with playing(names, silent=("secret", "empty")) as server:
        secret = server.nodes["secret"].nodeid
        denied = ua.DataValue(StatusCode=ua.StatusCode(ua.StatusCodes.BadUserAccessDenied))
        await server.server.write_attribute_value(secret, denied)
        index = secret.NamespaceIndex
        place = ua.NodeId("huge", index), ua.QualifiedName("huge", index)
        objects = server.server.nodes.objects
        await objects.add_variable(*place, 2**63 + 1, ua.VariantType.UInt64)
        _, findings = await checked(mapped(server.url, names, period_s=EACH_S))
        _, (huge,) = await checked(mapped(server.url, ["huge"], dtype="int64"))
        report, (bad,) = await checked(mapped(server.url, ["a"], dtype="bool"))
    by_signal = {finding.split(": ")[1]: finding for finding in findings}
    assert by_signal.keys() == {"s.secret", "s.empty"}
    assert by_signal["s.secret"].startswith("error: ")
    assert "to read it the server says BadUserAccessDenied" in by_signal["s.secret"]
    assert "it has no value now" in by_signal["s.empty"]
    assert huge.startswith("error: ")
    assert "it is beyond int64; write dtype: float64" in huge
    assert "it is Double on the server and bool in the mapping: write dtype: float64" in bad
    assert report.signals[0].conversion == "Double as bool"


@pytest.mark.parametrize(
    ("offset_s", "severity", "said"),
    [
        (-7_200.0, Severity.WARNING, "s: its source times are 2.0 h behind this computer's clock"),
        (-100 * 86_400.0, Severity.ERROR, "is not stored: set the server's clock, or write past_l"),
        (3 * 86_400.0, Severity.ERROR, "write future_limit_s: 518"),
    ],
)
async def test_a_clock_that_is_wrong_is_found(
    offset_s: float, severity: Severity, said: str
) -> None:
    async with playing(["a"], offset_s=offset_s) as server:
        report, (finding,) = await checked(mapped(server.url, ["a"], period_s=EACH_S))
    assert said in finding
    assert report.findings[0].severity is severity


async def test_a_period_that_is_not_kept_is_found() -> None:
    async with playing(["a"]) as server:
        _, (finding,) = await checked(mapped(server.url, ["a"], period_s=0.01))
    assert "and period_s: 0.01 says" in finding


async def test_nulls_among_the_namespaces_are_no_traceback() -> None:
    async with playing(["a"]) as server:
        array = server.server.get_node(ua.NodeId(ua.ObjectIds.Server_NamespaceArray))
        uris = await array.read_value()
        await array.write_value(ua.Variant([*uris, None], ua.VariantType.String))
        _, (finding,) = await checked(mapped(server.url, ["a", "gone"], period_s=EACH_S))
    assert finding.startswith("error: s.gone: the server has no such node")
