"""The end of a machine's access, and the alarm of a stream that no machine may publish any more."""

from broker.clock import DAY_NS
from broker.namespace import EquipmentAddress, StreamAddress
from broker.rights import Entry, Principal, PrincipalKind, Scope
from testbed_api.domain import publishers
from testbed_api.domain.publishers import MachineAccess
from tests.integration.api_bed import RIG, Bed

LIVE_RIG = Entry("live", RIG)


async def access(bed: Bed, name: str = "box") -> tuple[int | None, str | None]:
    """When a machine's access ended, in seconds before now, and by whom."""
    now_ns = bed.clock.now_ns()
    (machine_access,) = [
        each
        for each in await bed.registry.principals.machine_access("factory", now_ns)
        if each.machine.id == name
    ]
    ago = None if machine_access.ended_ns is None else (now_ns - machine_access.ended_ns) // 10**9
    return ago, machine_access.ended_by


async def box(bed: Bed, owner: dict[str, str], **more: object) -> None:
    body = {"principal": "box", "equipment": str(RIG.owner)} | more
    assert (await bed.ask(owner, "POST", "/credentials", json=body)).status_code == 201


async def test_a_machine_is_let_in_until_its_last_token_is_revoked(bed, owner):
    await box(bed, owner)
    await bed.ask(owner, "POST", "/credentials/box/tokens", json={})
    tokens = (await bed.ask(owner, "GET", "/credentials/box/tokens")).json()["items"]
    for token in tokens:
        assert await access(bed) == (None, None)
        await bed.ask(owner, "DELETE", f"/credentials/box/tokens/{token['id']}")
    await bed.clock.advance(7)
    assert await access(bed) == (7, "fay")
    await bed.ask(owner, "POST", "/credentials/box/tokens", json={})
    assert await access(bed) == (None, None)


async def test_a_machine_is_let_in_until_it_is_removed_or_its_time_is_over(bed, owner):
    await box(bed, owner, expires_in_s=60)
    await bed.clock.advance(65)
    ago, by = await access(bed)
    assert (ago in {4, 5}, by) == (True, None)
    await box(bed, owner)
    assert await access(bed) == (None, None)
    await bed.ask(owner, "DELETE", f"/equipment/{RIG.owner}/gateway")
    assert await access(bed) == (0, "fay")


# --- the alarm ------------------------------------------------------------------------------------


def machine(name: str, ended_ns: int | None, by: str | None = "fay", **scope: object):
    principal = Principal(name, "factory", PrincipalKind.MACHINE, scope=Scope(**scope))
    return MachineAccess(machine=principal, ended_ns=ended_ns, ended_by=by)


def test_the_last_of_a_streams_publishers_is_named_while_none_may_publish():
    gateway = machine("gateway", 5, equipment=RIG.owner)
    writer = machine("writer", 9, None, writes=frozenset({LIVE_RIG}))
    other = machine("other", None, equipment=EquipmentAddress("factory", "mill"))
    sentence = publishers.alarm(LIVE_RIG, [gateway, writer, other], 10)
    assert sentence is not None
    assert sentence.startswith(f"writer, the last that published {RIG.owner}, is let in no more")
    assert "its credential expired on 1970-01-01" in sentence
    assert publishers.alarm(LIVE_RIG, [gateway, writer], 9 + 31 * DAY_NS) is None
    assert (
        publishers.alarm(LIVE_RIG, [gateway, machine("new", None, equipment=RIG.owner)], 10) is None
    )


def test_a_gateway_publishes_what_is_live_of_its_equipment_and_nothing_else():
    gateway = machine("gateway", 5, equipment=RIG.owner)
    assert publishers.alarm(LIVE_RIG, [gateway], 10) is not None
    assert publishers.alarm(Entry("run-1", RIG), [gateway], 10) is None
    mill = StreamAddress("factory", "mill", "spindle")
    assert publishers.alarm(Entry("live", mill), [gateway], 10) is None
    assert publishers.alarm(LIVE_RIG, [], 10) is None
