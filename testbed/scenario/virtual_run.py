"""The course of a run in virtual time: programs join, quanta pass, everything is stored."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from broker import api_client
from broker.batch import Batch
from broker.bus import client
from broker.clock import NS_PER_S, Clock
from broker.errors import Unavailable
from broker.namespace import EquipmentAddress, StreamAddress
from broker.process import tasks
from testbed.processes import program, program_end
from testbed.processes.server import RestartableServer
from testbed.scenario import coordinator
from testbed.scenario.broker_links import BrokerLinks
from testbed.scenario.coordinator import Coordinator, NoAnswer
from testbed.scenario.member_order import ClockMember
from testbed.scenario.plan import RunPlan
from testbed.scenario.resources import ResourceMeter
from testbed.scenario.run_end import PrototypeRefused, RunEnd, RunProgress
from testbed.scenario.run_record import RunRecord
from testbed.scenario.sources import RunSources
from testbed_scenarios.expectations.result import time_text

JOIN_WITHIN_S = 30.0
"""Real time for all prototypes to connect: some load a large library first."""
STORED_WITHIN_S = 30.0
"""Real time at the end until the recorder has stored everything."""
RECONNECTED_WITHIN_S = 30.0
"""Real time for all members to be connected again: a client tries every 3 s at the latest."""
ENDED_WITHIN_S = 15.0
"""Real time for a program to end that has closed its connection: its last batches are stored."""
LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class _OpenedClock:
    """The parts that are opened around a run: its clock, its owner's connection, its server."""

    coordinator: Coordinator
    owner: api_client.Api
    server: RestartableServer


class VirtualRun:
    """A run in virtual time, once its server stands and its streams are registered."""

    def __init__(
        self,
        plan: RunPlan,
        sources: RunSources,
        record: RunRecord,
        started: Mapping[str, program.PrototypeProcess],
        *,
        clock: Clock,
        progress: RunProgress,
    ) -> None:
        """record: gets everything that is published.  started: the programs of all prototypes,
        which ask for the clock until it is open.
        """
        self._plan = plan
        self._sources = sources
        self._record = record
        self._restarts = plan.restarts()
        self._clock = clock
        self._progress = progress
        self._programs = started
        self._incidents: list[str] = []
        self._left_ns: dict[str, int] = {}
        """Instants at which prototypes left the run, or were seen to have ended."""
        self._has_begun = False
        self._parts: _OpenedClock | None = None
        self._meter = ResourceMeter(clock, self._now_ns, self._answers)

    def opened_clock(self, bus: client.Bus) -> AbstractAsyncContextManager[Coordinator]:
        """Open the clock of the run.  bus: of the coordinator, which has published the specs."""
        plan = self._plan
        return coordinator.open(
            plan.space,
            self._members(),
            bus=bus,
            clock=self._clock,
            start_ns=plan.scenario.start_ns,
            quantum_ns=plan.scenario.quantum_ns,
            sources=self._batches,
            outputs=tuple(plan.outputs().values()),
            observe=self._record.observe,
            before=self._before,
            is_ahead=not self._sources.waits,
        )

    def take_clock(
        self, run_clock: Coordinator, owner: api_client.Api, server: RestartableServer
    ) -> None:
        """Take the clock of the run, the connection of its owner, and its server."""
        self._parts = _OpenedClock(run_clock, owner, server)

    @property
    def _opened(self) -> _OpenedClock:
        if self._parts is None:
            raise AssertionError
        return self._parts

    @property
    def record(self) -> RunRecord:
        """Everything that was published in the run so far."""
        return self._record

    @property
    def incidents(self) -> tuple[str, ...]:
        """Sentences about what makes the run fail so far, whatever its expectations say."""
        return (*self._incidents, *self._record.problems)

    @property
    def present(self) -> list[str]:
        """Names of the prototypes that still take part."""
        return self._opened.coordinator.present

    def _members(self) -> list[ClockMember]:
        """The prototypes as members of the run."""
        return [
            ClockMember(
                name=name,
                address=self._plan.deployment(name),
                inputs=frozenset(self._plan.inputs(prototype).values()),
                answers_within_s=prototype.answers_within_ns / NS_PER_S,
            )
            for name, prototype in self._plan.scenario.prototypes.items()
        ]

    async def _batches(self, quantum: int) -> Sequence[tuple[StreamAddress, Batch]]:
        """The batches of a quantum; as the coordinator asks for them."""
        self._note_leavers()
        self._progress.quantum = quantum
        return await self._sources.batches(quantum)

    async def _before(self, quantum: int) -> None:
        """Restart the server where the timeline has it in this quantum, once all is stored.

        Every member waits meanwhile, so the run's time stands, and nothing is on its way.  Raises
        Unavailable if the server or a member is not back in time.
        """
        if quantum not in self._restarts:
            return
        self._progress.phase = "restarting the server"
        await self._record.settle()
        await self._wait_stored()
        await self._opened.server.restart()
        await self._opened.coordinator.reconnect(RECONNECTED_WITHIN_S)
        self._progress.phase = "running"

    async def play(self, began_ns: int) -> RunEnd:
        """Let all quanta pass, and end the programs.

        began_ns: monotonic time at which the run was asked for.
        """
        self._meter.add_all(self._programs)
        watches = {f"end of {name}": self._watch(name) for name in self._programs}
        async with tasks.background({**watches, "resources": self._meter.run()}):
            reached_ns, started_ns = await self._pass_quanta()
            self._meter.measure()
            self._note_leavers()
            await self.wait_ended()
        await self._record.settle()
        self._progress.phase = "storing"
        await self._wait_stored()
        for child in self._programs.values():
            await child.stop()
        return self._end(reached_ns, began_ns, started_ns)

    async def _pass_quanta(self) -> tuple[int, int]:
        """Let the time of the run pass; returns the instant that it came to, and the monotonic time
        at which it began.
        """
        clock = self._opened.coordinator
        try:
            await clock.join(JOIN_WITHIN_S)
        except NoAnswer as exc:
            raise self._absent(exc) from exc
        links = BrokerLinks(self._programs, self._opened.server.mqtt_port)
        self._progress.phase, self._has_begun = "running", True
        self._progress.began_ns = started_ns = self._clock.monotonic_ns()
        try:
            await clock.run(self._plan.quanta)
        except NoAnswer as failure:
            if links.is_lost(failure.member):
                raise _unconnected(failure) from failure
            self._incidents.append(f"{failure.message}; {failure.hint}")
            return self._now_ns(), started_ns
        return self._plan.end_ns, started_ns

    def _note_leavers(self) -> None:
        """Note when prototypes have left the run."""
        present = self._opened.coordinator.present
        for name in self._programs:
            if name not in present:
                self._left_ns.setdefault(name, self._now_ns())

    async def wait_ended(self) -> None:
        """Wait for the programs of prototypes that have left, whose exit codes count."""
        until_ns = self._clock.monotonic_ns() + round(ENDED_WITHIN_S * NS_PER_S)
        while self._clock.monotonic_ns() < until_ns and any(
            self._programs[name].exit_code is None for name in self._left_ns
        ):
            await self._clock.sleep(LOOK_S)
        await self._clock.sleep(2 * LOOK_S)  # until their watches have seen it

    def _absent(self, exc: NoAnswer) -> PrototypeRefused:
        """The error of a prototype that did not come to its first wait."""
        child = self._programs[exc.member]
        return PrototypeRefused(exc.message, name=exc.member, hint=exc.hint, lines=child.last_lines)

    async def _watch(self, name: str) -> None:
        """Strike a prototype off once its program ends; raises PrototypeRefused if that is before
        the first quantum, and with an error.
        """
        child = self._programs[name]
        while child.exit_code is None:
            await self._clock.sleep(LOOK_S)
        code = child.exit_code
        await child.wait_read(program.KILLED_S)
        ending = program_end.ending(code)
        if not self._has_begun:
            raise PrototypeRefused(
                f"prototype {name!r} {ending} before the run began",
                name=name,
                hint="" if code else coordinator.ADDRESSES,
                lines=child.last_lines,
            )
        if code:
            lines = program_end.last_lines(child.last_lines)
            left_ns = self._left_ns.setdefault(name, self._now_ns())
            at = time_text(left_ns, self._plan.scenario.start_ns)
            self._incidents.append(f"prototype {name!r} {ending} after {at} of the run. {lines}")
        self._opened.coordinator.ended(self._plan.deployment(name))

    def _now_ns(self) -> int:
        """The beginning of the present quantum."""
        passed = max(self._progress.quantum - 1, 0) * self._plan.scenario.quantum_ns
        return self._plan.scenario.start_ns + passed

    def _answers(self) -> Mapping[str, list[float]]:
        return self._opened.coordinator.statistics.answers_s

    async def _wait_stored(self) -> None:
        """Return once the recorder has stored everything; raises Unavailable after a time."""
        last = {**self._opened.coordinator.published, **self._record.last_outputs}
        owners = {address.owner for address in last}
        until_ns = self._clock.monotonic_ns() + round(STORED_WITHIN_S * NS_PER_S)
        missing: set[StreamAddress] = set(last)
        while self._clock.monotonic_ns() < until_ns:
            missing = {address for owner in owners for address in await self._unstored(owner, last)}
            if not missing:
                return
            owners = {address.owner for address in missing}
            await self._clock.sleep(LOOK_S)
        raise Unavailable(
            f"the recorder did not store all of {', '.join(sorted(map(str, missing)))} within"
            f" {STORED_WITHIN_S:g} s",
            hint="server.log in the folder that --keep leaves says why",
        )

    async def _unstored(
        self, owner: EquipmentAddress, last: Mapping[StreamAddress, Mapping[str, int]]
    ) -> list[StreamAddress]:
        """The streams of an equipment of which something is not stored yet."""
        held = await self._opened.owner.held(owner, self._plan.space)
        stored = {(each.stream, each.epoch): each.seq for each in held}
        return [
            address
            for address, epochs in last.items()
            if address.owner == owner
            for epoch, seq in list(epochs.items())[-1:]
            if stored.get((str(address), epoch), 0) < seq
        ]

    def _end(self, reached_ns: int, began_ns: int, started_ns: int) -> RunEnd:
        observed = self._record.observed(
            reached_ns, self._sources.truth, self._plan.events(), self._meter.samples()
        )
        return RunEnd(
            plan=self._plan,
            observed=observed,
            statistics=self._opened.coordinator.statistics,
            incidents=self.incidents,
            programs={name: child.outcome for name, child in self._programs.items()},
            started_s=(started_ns - began_ns) / NS_PER_S,
            wall_s=(self._clock.monotonic_ns() - began_ns) / NS_PER_S,
            notes=tuple(self._sources.notes),
        )


def _unconnected(failure: NoAnswer) -> Unavailable:
    """The error of a member that has lost its connection, which is the testbed's fault."""
    return Unavailable(
        f"{failure.message}: it has lost its connection to the broker, and got no new one",
        hint="its log and server.log, in the folder that --keep leaves, may say why",
    )
