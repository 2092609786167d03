"""Connects a prototype to the testbed, with its named inputs and outputs."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import structlog
from pydantic import SecretStr

from broker import api_client, profiles
from broker.aggregation import Aggregation
from broker.batch import source_of
from broker.bus import client
from broker.clock import Clock, WallClock
from broker.credential import Credential
from broker.errors import Forbidden, Invalid, Unavailable, Unknown
from broker.history_query import HistoryQuery
from broker.messages import Freshness, Health
from broker.namespace import LIVE, EquipmentKind, StreamAddress
from broker.responses.equipment import StreamResponse
from broker.server_addresses import ServerAddresses
from broker.settings import BusSettings
from broker.streams import FUTURE_LIMIT_S, PAST_LIMIT_S, Signal, StreamSpec, Trigger
from broker.time_expressions import Time
from testbed_sdk import history, spans
from testbed_sdk.former_run import FormerRun
from testbed_sdk.history import History
from testbed_sdk.inputs import Input
from testbed_sdk.outputs import Output
from testbed_sdk.program_time import ClockSetting, ProgramTime, WallTime
from testbed_sdk.run_history import RunHistory
from testbed_sdk.run_member import RunMember, deployment_of
from testbed_sdk.settings import HttpSettings, PrototypeSettings

_Connection = TypeVar("_Connection", BusSettings, HttpSettings)

_NO_HEALTH = Health(state=Freshness.STALE, at_ns=0, valid_until_ns=0)

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
        self.program_time: ProgramTime = WallTime(clock)
        self.member: RunMember | None = None
        """This program's part in a run, where it follows the run's clock."""
        self._settings = settings
        self._bus = bus
        self._api = api
        self._clock = clock
        self._tasks = tasks
        self._stack = stack
        self._run_history = RunHistory(api, settings.space, clock)
        self.outputs: list[Output] = []
        self._output_tasks: list[asyncio.Task[None]] = []

    async def join(self, within_s: float) -> None:
        """Take part in the run of the space, from now on; called by `connect`.

        Raises Unavailable if nobody sets its clock within so many seconds of the machine.
        """
        member = RunMember(
            self._settings.space,
            deployment_of(self._settings.outputs.values()),
            bus=self._bus,
            machine=self._clock,
            published=self._positions,
        )
        self.member = self.program_time = member
        self._clock = member.clock
        self._run_history = RunHistory(self._api, self._settings.space, member.clock)
        self._output_tasks.append(self._tasks.create_task(member.run(), name="clock of the run"))
        await member.join(within_s)

    def now(self) -> datetime:
        """Return the present instant in UTC: of the machine, or of the run that this is part of."""
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=self.now_ns() // 1_000)

    def now_ns(self) -> int:
        """Return the present instant as `now` does, in ns since 1970."""
        return self.program_time.now_ns()

    async def sleep(self, duration_s: float) -> None:
        """Return once so many seconds have passed: of the machine, or of the run."""
        await self.program_time.sleep(duration_s)

    def timeout(self, duration_s: float) -> AbstractAsyncContextManager[asyncio.Timeout]:
        """Limit a block: `async with testbed.timeout(5):` raises TimeoutError after 5 s of the
        machine, or of the run.
        """
        return self.program_time.timeout(duration_s)

    def _positions(self) -> dict[StreamAddress, dict[str, int]]:
        """The last batches of the outputs: stream -> epoch -> seq."""
        positions: dict[StreamAddress, dict[str, int]] = {}
        for output in self.outputs:
            if output.position:
                positions.setdefault(output.spec.address, {}).update(output.position)
        return positions

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
            member=self.member,
            fill=fill,
        )

    async def output(
        self,
        name: str,
        signals: Sequence[Signal],
        *,
        description: str = "",
        past_limit_s: float = PAST_LIMIT_S,
        future_limit_s: float = FUTURE_LIMIT_S,
    ) -> Output:
        """Register an output with its signals, and open it.

        signals: such as `[Signal("score"), Signal("anomaly", Dtype.BOOL)]`.  past_limit_s,
        future_limit_s: how far before and after its arrival a sample may lie in the space `live`,
        30 days and 1 day by default; others are dead letters.  To import history, or to publish a
        forecast, set them further, up to ten years.  A space `run-<id>` has a time of its own, and
        takes any.  Raises Invalid for signals that are none, Forbidden for a stream that the
        credential may not publish.
        """
        for signal in signals:
            if not isinstance(signal, Signal):
                raise Invalid(
                    f"{signal!r} is not a signal of the output {name!r}",
                    hint='give a list of signals, such as [Signal("score")]',
                )
        proposal = StreamSpec(
            self._address(name, "output"),
            tuple(signals),
            trigger=Trigger.TIMESTAMP,
            past_limit_s=past_limit_s,
            future_limit_s=future_limit_s,
            description=description,
        )
        with self.program_time.call("output"):
            return await self._open_output(name, proposal)

    async def _open_output(self, name: str, proposal: StreamSpec) -> Output:
        """Register an output with its equipment, and let its batches go."""
        owner, space = proposal.address.owner, self._settings.space
        kind = EquipmentKind.REAL if space == LIVE else EquipmentKind.SIMULATED
        try:
            await self._api.register_equipment(
                owner, name=owner.equipment, kind=kind, description="a prototype"
            )
            spec = await self._api.register_spec(proposal)
        except Unknown as exc:  # as the API answers for what a machine does not publish
            raise Forbidden(
                f"the credential does not let it publish {proposal.address}",
                hint="`testbed whoami` lists what it may write; TESTBED_OUTPUTS binds the output's"
                " name to one of these streams",
            ) from exc
        former_run = FormerRun(api=self._api, space=space, address=proposal.address)
        newest_before = former_run.newest_before if self.member is None else _nothing_before
        output = Output(
            space,
            spec,
            bus=self._bus,
            clock=self._clock,
            source=source_of(kind, space),
            ring_bytes=self._settings.ring_bytes,
            newest_before=newest_before,
            time=self.program_time,
        )
        await output.publish_spec()
        self.outputs.append(output)
        self._output_tasks.append(self._tasks.create_task(output.run(), name=f"output {name}"))
        return output

    async def history(  # noqa: PLR0913 - the parts of a query, by name
        self,
        name: str,
        *signals: str,
        from_: Time | None = None,
        to: Time | None = None,
        from_ns: int | None = None,
        to_ns: int | None = None,
        points: int | None = None,
        every: str | None = None,
        how: str | None = None,
    ) -> History:
        """Fetch stored samples of an input or output: the last hour and all signals by default.

        from_, to: times such as "-10m", "yesterday", "2026-11-23" or an aware datetime; `from_` is
        included, `to` is not.  from_ns, to_ns: the same ends as ns since 1970 UTC.  points: thin
        each signal to about so many samples, keeping least and greatest values.  every: width of a
        window, such as "1s" or "15min": one value a signal and window, at the time at which the
        window begins.  how: "mean" (the default), "last", "min" or "max" of the window's samples;
        a bool, a text or an array has only a last one, else the API answers Invalid.
        """
        now_ns = self.now_ns()
        start_ns, end_ns = spans.between(now_ns, from_=from_, to=to, from_ns=from_ns, to_ns=to_ns)
        names = self._settings.inputs | self._settings.outputs
        address = bound(names, name, "input or output", is_in_run=self._settings.is_in_run)
        if self.member is not None:  # it may know the sample of now, and nothing after it
            is_open = to is None and to_ns is None
            end_ns = now_ns + 1 if is_open else min(end_ns, now_ns + 1)
        query = HistoryQuery(
            self._settings.space,
            start_ns,
            end_ns,
            signals,
            points,
            aggregation=Aggregation.parse(every, how),
        )
        with self.program_time.call("history"):
            if self.member is not None:
                await self._run_history.wait_stored(address, self.member.newest_ns, self.outputs)
            return await history.fetch(self._api, address, query)

    async def freshness(self, name: str) -> Health:
        """Fetch the freshness of an input or output with its alarms; stale if none is published."""
        names = self._settings.inputs | self._settings.outputs
        address = bound(names, name, "input or output", is_in_run=self._settings.is_in_run)
        with self.program_time.call("freshness"):
            stream = await self._api.get(f"/streams/{address}", StreamResponse)
        stated = stream.freshness.get(self._settings.space)
        return _NO_HEALTH if stated is None else stated.health()

    async def close(self) -> Unavailable | None:
        """Wait for the recorder's last marks, then stop the outputs; called by `connect`.

        Returns the error of batches that were not confirmed within `drain_s`.
        """
        if self.member is not None:
            await self.member.leave()
        for output in self.outputs:
            output.begin_closing()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_s):
                for output in self.outputs:
                    await output.wait_closed()
        for task in self._output_tasks:
            task.cancel()
        unconfirmed = [output.unmarked_sentence for output in self.outputs if output.unmarked]
        if not unconfirmed:
            return None
        error = Unavailable(
            f"the recorder did not confirm in {self._settings.drain_s:g} s:"
            f" {'; '.join(unconfirmed)}",
            hint="they may be lost; the next run states a gap from what is stored to its first"
            " sample. TESTBED_DRAIN_S waits longer",
        )
        log.warning("outputs were left unconfirmed", reason=str(error))
        return error

    def _address(self, name: str, what: str) -> StreamAddress:
        bindings = self._settings.inputs if what == "input" else self._settings.outputs
        return bound(bindings, name, what, is_in_run=self._settings.is_in_run)


async def _nothing_before(_before_ns: int) -> None:
    """The newest sample of a former run of the output: a run's space has no former one."""


def bound(
    bindings: dict[str, StreamAddress], name: str, what: str, *, is_in_run: bool = False
) -> StreamAddress:
    """The stream that a name is bound to; an address, organisation/equipment/stream, is its own.

    is_in_run: whether a scenario binds the names.  Raises Unknown, which lists the bound names.
    """
    if name in bindings:
        return bindings[name]
    if "/" in name:
        return StreamAddress.parse(name)
    known = ", ".join(sorted(bindings)) or "none"
    field = f"{what.split(maxsplit=1)[0]}s"
    hint = (
        f"set TESTBED_{field.upper()}={name}=organisation/…/stream, or write the address instead of"
        " a name"
    )
    if is_in_run:
        hint = f"`{field}:` of the prototype in the scenario has {known}: change one of them"
    raise Unknown(f"no {what} is called {name!r}; bound are: {known}", hint=hint)


def from_environment(
    kind: type[_Connection],
    settings: PrototypeSettings | None = None,
    clock: Clock | None = None,
) -> tuple[PrototypeSettings, _Connection]:
    """Read the settings from TESTBED_…, and without a credential there from the stored sign-in.

    kind: BusSettings, or HttpSettings for a program that needs no broker.  settings: those that are
    given already; their API, if it is set, says which sign-in is used.  Raises Invalid with every
    field that is wrong, Forbidden if the sign-in has ended.
    """
    environment = dict(os.environ)
    if settings is not None and "api" in settings.model_fields_set:
        environment["TESTBED_API"] = settings.api
    signed_in = _signed_in(environment, clock)
    own = settings or PrototypeSettings()
    if signed_in is None:
        return own, kind()
    used, credential = signed_in
    known: dict[str, Any] = {"broker": used.broker, "broker_name": used.broker_name}
    known |= {"ca": used.ca, "credential": credential}
    connection = kind(**{name: known[name] for name in known if name in kind.model_fields})
    return own.model_copy(update={"api": used.api}), connection


def _signed_in(
    environment: Mapping[str, str], clock: Clock | None
) -> tuple[ServerAddresses, SecretStr] | None:
    """Addresses and credential of the stored sign-in, None where the environment has its own."""
    profile = profiles.selected(environment)
    if profile is None:
        return None
    profile.check_expiry((clock or WallClock()).now_ns())
    used = ServerAddresses.from_environment(environment, profile.addresses)
    return used, SecretStr(profile.credential.text)


@asynccontextmanager
async def connect(
    settings: PrototypeSettings | None = None,
    bus_settings: BusSettings | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Testbed]:
    """Connect a prototype to the testbed until left.

    Settings are read from the environment unless given; the credential and the addresses are those
    of the last `testbed sign-in` where the environment has no credential.  On leaving, outputs wait
    up to `drain_s` for the recorder, and Unavailable is raised for samples that it did not confirm.
    Raises Invalid, Forbidden if the credential is wrong or has ended, Unavailable if broker or API
    do not answer.
    """
    clock = clock or WallClock()
    if bus_settings is None:
        settings, bus_settings = from_environment(BusSettings, settings, clock)
    elif settings is None:
        settings = PrototypeSettings()
    text = bus_settings.credential.get_secret_value()
    if not text:
        raise profiles.no_credential(os.environ)
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
                if settings.clock is ClockSetting.RUN:
                    await testbed.join(bus_settings.timeout_s)
                yield testbed
            except Exception as exc:  # noqa: BLE001 - the prototype's own, given back as it was
                failure = exc
            unconfirmed = await testbed.close()
    if (error := failure or unconfirmed) is not None:
        raise error
