"""One process at a time has a role."""

import asyncio
from collections.abc import Sequence

import pytest

from broker.backends.nats.auth_callout import ConnectRequest
from broker.backends.nats.auth_service import OpenConnection
from broker.clock import WallClock
from broker.errors import Unavailable
from broker.namespace import EquipmentAddress
from broker.process_identity import ProcessIdentity, gateway_role
from testbed_api.broker_auth import process_admission
from testbed_api.broker_auth.process_admission import ProcessAdmission

ROLE = gateway_role("ada", EquipmentAddress("factory", "press"), "live")
FIRST = ProcessIdentity(host="first", place="1" * 12, started_ms=1_000)
SECOND = ProcessIdentity(host="second", place="2" * 12, started_ms=500)
OVER = ProcessIdentity(host="second", place="2" * 12, started_ms=500, takes_over=True)
THIRD = ProcessIdentity(host="third", place="3" * 12, started_ms=9_000, takes_over=True)


class Broker:
    """A broker's connections: who was admitted is listed once `catch_up` is called."""

    def __init__(self) -> None:
        self.listed: list[OpenConnection] = []
        self.late: list[OpenConnection] = []
        self.ended: list[str] = []
        self.is_away = False
        self.ends = asyncio.Event()
        self.ends.set()
        self.admission = ProcessAdmission(self.of, self.end, WallClock())

    async def of(self, principal: str) -> Sequence[OpenConnection]:
        assert principal == "ada"
        if self.is_away:
            raise Unavailable("the broker did not answer")
        return list(self.listed)

    async def end(self, connection: str) -> None:
        await self.ends.wait()
        self.ended.append(connection)
        self.listed = [each for each in self.listed if each.name != connection]

    def catch_up(self) -> None:
        self.listed += self.late
        self.late = []

    async def connect(
        self, identity: ProcessIdentity, name: str, address: str = "10.0.0.7", *, role: str = ROLE
    ) -> str | None:
        """The host of the process that keeps this one out; None if it comes in."""
        client_id = identity.client_id(role)
        verdict = await self.admission.admit(
            ConnectRequest(
                principal="ada", secret="s", client_id=client_id, connection=name, host=address
            )
        )
        if verdict.excluded_by is not None:
            return verdict.excluded_by.identity.host
        connection = OpenConnection(name=name, client_id=client_id, address=address, since_ns=1)
        self.late.append(connection)
        return None


async def test_the_second_is_refused_while_the_first_is_connected() -> None:
    broker = Broker()
    assert await broker.connect(FIRST, "S/1") is None
    assert await broker.connect(SECOND, "S/2") == "first"  # it is not listed yet
    broker.catch_up()
    assert await broker.connect(SECOND, "S/3") == "first"
    assert broker.ended == []
    await broker.end("S/1")
    broker.admission.ended("S/1", "Client Closed")
    assert await broker.connect(SECOND, "S/4") is None


async def test_a_process_that_was_started_again_replaces_what_it_left_behind() -> None:
    broker = Broker()
    assert await broker.connect(FIRST, "S/1") is None
    broker.catch_up()
    again = ProcessIdentity(host="first", place=FIRST.place, started_ms=2_000)
    assert await broker.connect(again, "S/2") is None
    assert broker.ended == ["S/1"]
    broker.catch_up()
    assert await broker.connect(again, "S/3") is None  # its own connection is half dead
    assert broker.ended == ["S/1", "S/2"]


async def test_a_copy_of_the_whole_machine_is_refused_by_its_address() -> None:
    broker = Broker()
    assert await broker.connect(FIRST, "S/1") is None
    broker.catch_up()
    clone = ProcessIdentity(host="first", place=FIRST.place, started_ms=2_000)
    assert await broker.connect(clone, "S/2", "10.0.0.8") == "first"


async def test_who_takes_over_replaces_the_first_which_does_not_come_back() -> None:
    broker = Broker()
    assert await broker.connect(FIRST, "S/1") is None
    broker.catch_up()
    assert await broker.connect(OVER, "S/2") is None
    assert broker.ended == ["S/1"]
    assert await broker.connect(FIRST, "S/3") == "second"
    broker.catch_up()
    assert await broker.connect(THIRD, "S/4") is None
    broker.catch_up()
    assert await broker.connect(OVER, "S/5") == "third"  # it took over once


async def test_a_client_id_without_a_process_is_not_looked_at() -> None:
    broker = Broker()
    broker.is_away = True
    request = ConnectRequest(principal="ada", secret="s", client_id="ada--tap")
    assert (await broker.admission.admit(request)).excluded_by is None


async def test_while_the_broker_says_nothing_every_process_comes_in() -> None:
    broker = Broker()
    assert await broker.connect(FIRST, "S/1") is None
    broker.is_away = True
    assert await broker.connect(SECOND, "S/2") is None


async def test_nobody_comes_in_while_the_first_is_being_ended_by_who_takes_over() -> None:
    broker = Broker()
    assert await broker.connect(FIRST, "S/1") is None
    broker.catch_up()
    broker.ends.clear()
    async with asyncio.TaskGroup() as tasks:
        over = tasks.create_task(broker.connect(OVER, "S/2"), name="over")
        await WallClock().sleep(0)
        broker.listed = []  # it is gone, and the broker has not said so yet
        late = ProcessIdentity(host="late", place="4" * 12, started_ms=9_000)
        assert await broker.connect(late, "S/3") == "second"
        broker.ends.set()
    assert over.result() is None


async def test_only_so_many_roles_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_admission, "MOST_ROLES", 2)
    broker = Broker()
    roles = [f"{ROLE}--run-{number}" for number in range(3)]
    for role in roles:
        for identity in (OVER, THIRD):
            assert await broker.connect(identity, f"S/{role}/{identity.host}", role=role) is None
            broker.catch_up()
    assert await broker.connect(OVER, "S/7", role=roles[2]) == "third"
    assert await broker.connect(OVER, "S/8", role=roles[0]) is None
