"""Many streams registered at once: how long until samples of all are stored, and how long storing
pauses meanwhile.

Machines of an organisation of their own register, announce and send in this process, as cheaply as
can be: what is measured is the server.  Another one, the pulse, has sent a batch every tenth of a
second since before; the time between two of its marks is how long storing paused.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import SecretStr

from broker import api_client, codec, messages
from broker.batch import Batch, Source, Wide
from broker.bus import client
from broker.bus.client import Bus, Inbox
from broker.clock import NS_PER_S, Clock
from broker.messages import Held
from broker.namespace import (
    LIVE,
    EquipmentAddress,
    EquipmentKind,
    MarkTopic,
    StreamAddress,
    StreamTopic,
    Verb,
)
from broker.settings import BusSettings
from broker.streams import Signal, StreamSpec

ORGANISATION = "registrations"
MOST_STREAMS = 1_000
"""Of one machine: a credential names no more."""
PULSE_EVERY_S = 0.1
SIGNALS = tuple(Signal(name, unit="bar") for name in ("a", "b", "c", "d", "e"))
EPOCH = "registrations"
AGAIN_S = 20.0
"""Time without a mark after which a batch is sent again."""
PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class RegistrationTarget:
    """Where a server is reached.  administrator: the credential that makes organisations."""

    api: str
    broker: str
    administrator: str


@dataclass(slots=True)
class Machine:
    """A machine with its streams, all of which have been marked up to `held`."""

    equipment: EquipmentAddress
    specs: list[StreamSpec]
    credential: str = ""
    held: dict[str, Held] = field(default_factory=dict)

    def lacks(self) -> int:
        """Streams of which nothing is marked yet."""
        return sum(spec.address.stream not in self.held for spec in self.specs)


async def run(target: RegistrationTarget, streams: int, clock: Clock) -> dict[str, Any]:
    """{"streams", "s", "longest_pause_s"}; raises TimeoutError after five minutes."""
    names = [f"s{at:04d}" for at in range(streams)]
    portions = [names[at : at + MOST_STREAMS] for at in range(0, streams, MOST_STREAMS)]
    machines = [_machine(f"machine-{at}", each) for at, each in enumerate(portions)]
    pulse = _machine("pulse", ["beat"])
    async with asyncio.timeout(PATIENCE_S):
        await _given_credentials(target, [*machines, pulse])
        pauses: list[float] = []
        async with _sending(target, pulse, clock) as bus, asyncio.TaskGroup() as tasks:
            beating = tasks.create_task(_beat(bus, pulse, clock, pauses), name="pulse")
            while len(pauses) < 10:
                await clock.sleep(PULSE_EVERY_S)
            pauses.clear()
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            async with asyncio.TaskGroup() as registering:
                for machine in machines:
                    registering.create_task(
                        _flow(target, machine, clock), name=machine.equipment.equipment
                    )
            took_s = loop.time() - began_s
            await clock.sleep(2.0)  # a pause that goes on is one, too
            beating.cancel()
    longest_s = max(pauses)
    return {"streams": streams, "s": round(took_s, 2), "longest_pause_s": round(longest_s, 2)}


def _machine(name: str, streams: Sequence[str]) -> Machine:
    equipment = EquipmentAddress(ORGANISATION, name)
    addresses = [StreamAddress(ORGANISATION, name, stream) for stream in streams]
    return Machine(equipment, [StreamSpec(address, SIGNALS) for address in addresses])


async def _given_credentials(target: RegistrationTarget, machines: Sequence[Machine]) -> None:
    """Make the organisation, and a credential for each machine."""
    async with api_client.connect(target.api, target.administrator) as api:
        owner = await api.create_organisation(
            ORGANISATION, owner="registrations-owner", kind="partner"
        )
    async with api_client.connect(target.api, owner) as api:
        for machine in machines:
            writes = [{"space": LIVE, "stream": str(spec.address)} for spec in machine.specs]
            body = {"principal": machine.equipment.equipment, "writes": writes}
            created = await api.request("POST", "/credentials", json=body)
            machine.credential = str(created["credential"])


@asynccontextmanager
async def _sending(
    target: RegistrationTarget, machine: Machine, clock: Clock
) -> AsyncIterator[Bus]:
    """Register a machine and its streams, announce them, and take its marks while open."""
    async with api_client.connect(target.api, machine.credential, timeout_s=PATIENCE_S) as api:
        equipment, kind = machine.equipment, EquipmentKind.SIMULATED
        await api.register_equipment(equipment, name=equipment.equipment, kind=kind)
        machine.specs = await api.register_specs(machine.specs)
    settings = BusSettings(
        broker=target.broker, credential=SecretStr(machine.credential), window=1_000
    )
    async with (
        client.open(settings, clock, client_id=f"{machine.equipment.equipment}--bench") as bus,
        asyncio.TaskGroup() as tasks,
    ):
        await bus.ready()
        topic = str(MarkTopic(LIVE, machine.equipment))
        async with bus.subscribe([topic], capacity=1_000, overflow="drop_oldest") as inbox:
            marking = tasks.create_task(_take_marks(inbox, machine), name="marks")
            for spec in machine.specs:
                topic = str(StreamTopic(LIVE, Verb.SPEC, spec.address))
                await bus.publish(topic, messages.encode_spec(spec), retain=True)
            yield bus
            marking.cancel()


async def _flow(target: RegistrationTarget, machine: Machine, clock: Clock) -> None:
    """Register a machine's streams, send a batch of each, and return once all are marked.

    What is not marked in time is sent again, as a gateway does.
    """
    async with _sending(target, machine, clock) as bus:
        while machine.lacks():
            for spec in machine.specs:
                if spec.address.stream not in machine.held:
                    await _send(bus, spec, 1, clock)
            again_ns = clock.monotonic_ns() + round(AGAIN_S * NS_PER_S)
            while machine.lacks() and clock.monotonic_ns() < again_ns:
                await clock.sleep(0.05)


async def _beat(bus: Bus, pulse: Machine, clock: Clock, pauses: list[float]) -> None:
    """Send a batch every tenth of a second, and note the times between its marks."""
    loop = asyncio.get_running_loop()
    (spec,) = pulse.specs
    seq, held, marked_s = 0, Held(0), loop.time()
    while True:
        seq += 1
        await _send(bus, spec, seq, clock)
        await clock.sleep(PULSE_EVERY_S)
        if (now := pulse.held.get(spec.address.stream, held)) != held:
            pauses.append(loop.time() - marked_s)
            held, marked_s = now, loop.time()


async def _send(bus: Bus, spec: StreamSpec, seq: int, clock: Clock) -> None:
    now_ns = clock.now_ns()
    values = {signal.name: np.array([float(seq)]) for signal in spec.signals}
    frame = Wide(np.array([now_ns], np.int64), values)
    batch = Batch(spec.version, (frame,), Source.SIMULATED, now_ns, EPOCH, seq)
    await bus.submit(str(StreamTopic(LIVE, Verb.DATA, spec.address)), codec.encode(batch))


async def _take_marks(inbox: Inbox, machine: Machine) -> None:
    async for message in inbox:
        inbox.ack(message)
        for stream, epochs in messages.decode_mark(message.payload).streams.items():
            machine.held[stream] = epochs.get(EPOCH, Held(0))
