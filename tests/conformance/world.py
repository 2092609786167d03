"""A factory with a rig, and companies in every relation to it, over either broker."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

from broker.batch import EquipmentKind
from broker.bus import client
from broker.bus.client import Bus
from broker.namespace import LIVE, StreamAddress, StreamTopic, Verb
from broker.rights import Entry, Party, Role, Scope, Span
from broker.streams import Signal, StreamSpec
from testbed_api.domain import organisations, tokens
from testbed_api.domain.equipment import Equipment
from testbed_api.domain.grants import GrantRequest
from testbed_api.domain.organisations import Organisation
from tests.conformance import beds
from tests.conformance.beds import CLOCK, Bed

if TYPE_CHECKING:
    from broker.credential import Credential

RIG = StreamAddress("factory", "rig", "s")
MILL = StreamAddress("factory", "mill", "s")
ENTRIES = {each: Entry(LIVE, each) for each in (RIG, MILL)}
COMPANIES = ("granted", "expired", "revoked", "paused", "foreign")


def topic(verb: Verb, address: StreamAddress = RIG) -> str:
    return str(StreamTopic(LIVE, verb, address))


class World:
    """A factory with a rig, and companies in every relation to it."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.registry = bed.registry
        self.shown: dict[str, Credential] = {}

    async def found(self) -> None:
        await self.registry.organisations.add(Organisation("factory", "F", Party.PARTNER))
        await self.registry.organisations.add(Organisation("testbed", "T", Party.INTERMEDIARY))
        for organisation in COMPANIES:
            await self.registry.organisations.add(
                Organisation(organisation, organisation, Party.COMPANY)
            )
        await self.machine("gateway", "factory", equipment=RIG.owner)
        await self.person("owner", "factory", Role.OWNER)
        await self.person("factory-auditor", "factory", Role.AUDITOR)
        await self.person("administrator", "testbed", Role.OWNER)
        for stream in (RIG, MILL):
            await self.registry.equipment.put(Equipment(stream.owner, "E", EquipmentKind.SIMULATED))
            await self.registry.streams.add(StreamSpec(stream, (Signal("p"),)))

    async def machine(self, name: str, organisation: str, **scope: object) -> None:
        span = Span(CLOCK.now_ns())
        principal = organisations.machine(name, organisation, Scope(**scope), span)
        await self.registry.principals.add(principal)
        await self.token(name)

    async def person(self, name: str, organisation: str, *roles: Role) -> None:
        principal = organisations.person(name, organisation, roles, CLOCK.now_ns())
        await self.registry.principals.add(principal)
        await self.token(name)

    async def token(self, name: str, until_ns: int | None = None, *roles: Role) -> int:
        credential, token = tokens.issued(name, Span(CLOCK.now_ns(), until_ns))
        self.shown[name] = credential
        narrowed = replace(token, roles=frozenset(roles) or None)
        return (await self.registry.tokens.add(narrowed)).id

    async def grant(
        self, company: str, stream: StreamAddress = RIG, until_ns: int | None = None
    ) -> GrantRequest:
        now_ns = CLOCK.now_ns()
        request = await self.registry.grants.add(GrantRequest(company, ENTRIES[stream], "", now_ns))
        given = request.granted(Span(now_ns, until_ns), "owner", now_ns)
        await self.registry.grants.update(given, request)
        return given

    async def revoke(self, given: GrantRequest) -> None:
        await self.registry.grants.update(given.revoked("owner", CLOCK.now_ns()), given)

    async def reader(self, name: str = "granted", *streams: StreamAddress) -> GrantRequest:
        """A company's machine that reads the rig under a grant, or these streams, and whose first
        grant this is.
        """
        wanted = streams or (RIG,)
        reads = frozenset(ENTRIES[each] for each in wanted)
        await self.machine(name, "granted", reads=reads)
        first, *_ = [await self.grant("granted", each) for each in wanted]
        return first

    def opened(
        self, name: str, *, client_id: str = "", durable: bool = False
    ) -> contextlib.AbstractAsyncContextManager[Bus]:
        bus_settings = beds.way(self.bed.broker.mqtt, self.shown[name])
        return client.open(bus_settings, CLOCK, client_id=client_id or name, durable=durable)

    @contextlib.asynccontextmanager
    async def on_the_bus(self, name: str) -> AsyncIterator[Bus]:
        async with self.opened(name) as bus:
            await bus.ready()
            yield bus
