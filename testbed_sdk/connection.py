"""Connects a prototype to the testbed, with its named inputs and outputs."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from pydantic import ValidationError

from broker import api_client, pydantic_checks
from broker.aggregation import Aggregation
from broker.batch import EquipmentKind, source_of
from broker.bus import client
from broker.clock import HOUR_S, NS_PER_S, Clock, WallClock
from broker.credential import Credential
from broker.errors import Invalid, Unknown
from broker.messages import Freshness, Health
from broker.namespace import LIVE, StreamAddress
from broker.responses.equipment import StreamResponse
from broker.settings import BusSettings
from broker.streams import Signal, StreamSpec, Trigger
from testbed_sdk import history
from testbed_sdk.history import History
from testbed_sdk.inputs import Input
from testbed_sdk.outputs import Output
from testbed_sdk.settings import PrototypeSettings

_NO_HEALTH = Health(Freshness.STALE, valid_until_ns=0)

log = structlog.get_logger()


class Testbed:
    """A prototype's connection: its inputs, its outputs, and history."""

    __test__ = False  # pytest would collect it for its name

    def __init__(
        self,
        settings: PrototypeSettings,
        *,
        bus: client.Bus,
        api: api_client.Api,
        clock: Clock,
        tasks: asyncio.TaskGroup,
        stack: AsyncExitStack,
    ) -> None:
        """Made by `connect`."""
        self._settings = settings
        self._bus = bus
        self._api = api
        self._clock = clock
        self._tasks = tasks
        self._stack = stack
        self.outputs: list[Output] = []
        self._output_tasks: list[asyncio.Task[None]] = []

    def input(self, name: str, *, fill: bool = False) -> Input:
        """Return an input by name: `async for batch in testbed.input("rig")`.

        fill: after a break, yield the missed samples from history first.
        """
        return Input(
            self._settings.space,
            self._address(name, "input"),
            bus=self._bus,
            api=self._api,
            clock=self._clock,
            stack=self._stack,
            capacity=self._settings.input_batches,
            fill=fill,
        )

    async def output(
        self, name: str, signals: Sequence[Signal], *, description: str = ""
    ) -> Output:
        """Register an output with its signals, and open it."""
        address = self._address(name, "output")
        kind = EquipmentKind.REAL if self._settings.space == LIVE else EquipmentKind.SIMULATED
        await self._api.register_equipment(
            address.owner, name=address.equipment, kind=kind, description="a prototype"
        )
        spec = await self._api.register_spec(
            StreamSpec(address, tuple(signals), trigger=Trigger.TIMESTAMP, description=description)
        )
        output = Output(
            self._settings.space,
            spec,
            bus=self._bus,
            clock=self._clock,
            source=source_of(kind, self._settings.space),
            ring_bytes=self._settings.ring_bytes,
        )
        await output.publish_spec()
        self.outputs.append(output)
        self._output_tasks.append(self._tasks.create_task(output.run(), name=f"output {name}"))
        return output

    async def history(
        self,
        name: str,
        *signals: str,
        from_ns: int | None = None,
        to_ns: int | None = None,
        points: int | None = None,
        every: str | None = None,
        how: str | None = None,
    ) -> History:
        """Fetch stored samples of an input or output: the last hour and all signals by default.

        points: thin each signal to about so many samples, keeping least and greatest values.
        every: width of a window, such as "1s" or "15min": one value a signal and window, at the
        time at which the window begins.  how: "mean" (the default), "last", "min" or "max" of the
        window's samples; a bool or a text has only a last one, for others the API answers Invalid.
        """
        end_ns = self._clock.now_ns() if to_ns is None else to_ns
        start_ns = end_ns - HOUR_S * NS_PER_S if from_ns is None else from_ns
        query = history.HistoryQuery(
            self._settings.space,
            start_ns,
            end_ns,
            signals,
            points,
            aggregation=Aggregation.parse(every, how),
        )
        bound = self._settings.inputs | self._settings.outputs
        return await history.fetch(self._api, _bound(bound, name, "input or output"), query)

    async def freshness(self, name: str) -> Health:
        """Fetch the freshness of an input or output with its alarms; stale if none is published."""
        address = _bound(self._settings.inputs | self._settings.outputs, name, "input or output")
        stream = await self._api.get(f"/streams/{address}", StreamResponse)
        stated = stream.freshness.get(self._settings.space)
        return _NO_HEALTH if stated is None else stated.health()

    async def close(self) -> None:
        """Wait for the recorder's last marks, then stop the outputs; called by `connect`."""
        try:
            async with asyncio.timeout(self._settings.drain_s):
                for output in self.outputs:
                    await output.wait_drained()
        except TimeoutError:
            unconfirmed = {str(output.spec.address): output.unmarked for output in self.outputs}
            log.warning("outputs were left unconfirmed", batches=unconfirmed)
        for task in self._output_tasks:
            task.cancel()

    def _address(self, name: str, what: str) -> StreamAddress:
        return _bound(
            self._settings.inputs if what == "input" else self._settings.outputs, name, what
        )


def _bound(bindings: dict[str, StreamAddress], name: str, what: str) -> StreamAddress:
    if name not in bindings:
        known = ", ".join(sorted(bindings)) or "none"
        raise Unknown(
            f"no {what} is called {name!r}; bound are: {known}",
            hint=f"set TESTBED_{what.split(maxsplit=1)[0].upper()}S={name}=organisation/…/stream",
        )
    return bindings[name]


def from_environment() -> tuple[PrototypeSettings, BusSettings]:
    """Read the settings from TESTBED_…; raises Invalid with every field that is wrong."""
    try:
        return PrototypeSettings(), BusSettings()
    except ValidationError as exc:
        wrong = pydantic_checks.sentence(exc, prefix="TESTBED_")
        raise Invalid(
            f"the environment is not right: {wrong}", hint="see docs/how-to/write-a-prototype.md"
        ) from exc


@asynccontextmanager
async def connect(
    settings: PrototypeSettings | None = None,
    bus_settings: BusSettings | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Testbed]:
    """Connect a prototype to the testbed until left.

    Settings are read from the environment unless given.  On leaving, outputs wait up to `drain_s`
    for the recorder.  Raises Invalid, Forbidden if the credential is wrong, Unavailable if broker
    or API do not answer.
    """
    if settings is None or bus_settings is None:
        default, default_bus = from_environment()
        settings, bus_settings = settings or default, bus_settings or default_bus
    clock = clock or WallClock()
    text = bus_settings.credential.get_secret_value()
    client_id = f"{Credential.parse(text).principal}--{secrets.token_hex(4)}"
    failure: Exception | None = None
    async with (
        api_client.connect(settings.api, text, ca=bus_settings.ca) as api,
        client.open(bus_settings, clock, client_id=client_id) as bus,
    ):
        await bus.ready()
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            testbed = Testbed(settings, bus=bus, api=api, clock=clock, tasks=tasks, stack=stack)
            try:
                yield testbed
            except Exception as exc:  # noqa: BLE001 - the prototype's own, given back as it was
                failure = exc
            await testbed.close()
    if failure is not None:
        raise failure
