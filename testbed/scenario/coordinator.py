"""Sets the clock of a run: a quantum at a time, once every member has worked off the last one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from broker import codec, namespace, run_clock
from broker.batch import Batch
from broker.bus import client
from broker.clock import NS_PER_S, Clock
from broker.errors import Corrupt, Invalid, Unavailable
from broker.namespace import EquipmentAddress, RunTopic, StreamAddress, StreamTopic, Verb
from broker.process import tasks
from broker.run_clock import JOIN, Ready, Tick
from testbed.scenario.clock_statistics import ClockStatistics
from testbed.scenario.member_order import ClockMember, MemberOrder

OUTPUTS_WITHIN_S = 10.0
"""Real time for what a member has published, and the broker has, to arrive here."""
ASK_AGAIN_S = 1.0
"""Real time after which a member that has not answered gets its tick once more: where its
connection broke, the tick or the answer may be lost.
"""

SourceBatches = Sequence[tuple[StreamAddress, Batch]]
Sources = Callable[[int], Awaitable[SourceBatches]]
"""Computes the batches of a quantum, which is counted from 1."""
Output = tuple[StreamAddress, codec.Document]
_Prepared = list[tuple[StreamAddress, str, int, bytes]]
"""Stream, epoch, seq and payload of each batch."""
Observe = Callable[[int, Sequence[Output]], None]
"""Takes what the members published in a quantum, each stream in its order; once a quantum."""
Before = Callable[[int], Awaitable[None]]
"""Called before each quantum, whose sources are computed and not published: everybody waits."""


async def _nothing(_quantum: int) -> None:
    """Do nothing before a quantum."""


log = structlog.get_logger()

ADDRESSES = (
    "it gets its addresses from the environment, as docs/how-to/where-your-program-runs.md has them"
)
"""Hint about a program that ran in order and did not connect."""


class NoAnswer(Unavailable):
    """A member of the run did not do its part in time.

    member: its name.  quantum: JOIN if it did not join, or did not come to its first wait.
    """

    code = "no_answer"

    def __init__(self, message: str, *, member: str, quantum: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.member = member
        self.quantum = quantum


def _open_answer() -> "asyncio.Future[Ready | None]":
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class _Seat:
    """A member's place in the run.

    named: streams with new batches for its next tick.  answer: of the tick that it has, None if it
    is struck off.
    """

    member: ClockMember
    is_off: bool = False
    has_asked: bool = False
    busy: str = ""
    last: dict[StreamAddress, dict[str, int]] = field(default_factory=dict)
    named: dict[StreamAddress, dict[str, int]] = field(default_factory=dict)
    tick: Tick | None = None
    answer: "asyncio.Future[Ready | None]" = field(default_factory=_open_answer)

    def resolve(self, ready: Ready | None) -> None:
        """End the wait for its answer."""
        if not self.answer.done():
            self.answer.set_result(ready)


_Naming = tuple[_Seat, StreamAddress, dict[str, int]]
"""A reader, a stream, and its last batches by epoch."""


class Coordinator:
    """The clock of a run.

    Each quantum it publishes the batches of the sources, sends every member a tick, in the order of
    what they read of each other, and waits for the answers: no wait is longer than the member's
    `answers_within_s`.
    """

    def __init__(  # noqa: PLR0913 - the parts of a run, by name
        self,
        space: str,
        members: Sequence[ClockMember],
        *,
        bus: client.Bus,
        clock: Clock,
        start_ns: int,
        quantum_ns: int,
        sources: Sources,
        outputs: frozenset[StreamAddress],
        observe: Observe,
        before: Before,
        is_ahead: bool,
    ) -> None:
        """Made by `open`."""
        self.statistics = ClockStatistics()
        self.published: dict[StreamAddress, dict[str, int]] = {}
        """The last batch of each source that was published: stream -> epoch -> seq."""
        self._space = space
        self._order = MemberOrder.of(members)
        self._seats = {member.address: _Seat(member) for member in members}
        self._bus = bus
        self._clock = clock
        self._start_ns = start_ns
        self._quantum_ns = quantum_ns
        self._sources = sources
        self._observed = outputs
        self._observe = observe
        self._before = before
        self._is_ahead = is_ahead
        self._connection = 0
        self._joins_within_s = 0.0
        self._outputs: list[Output] = []
        self._arrived: dict[tuple[StreamAddress, str], int] = {}
        self._has_arrived = asyncio.Event()

    def ended(self, address: EquipmentAddress) -> None:
        """Strike a member off, whose process has ended: nobody waits for it any more."""
        seat = self._seats[address]
        seat.is_off = True
        seat.resolve(None)

    @property
    def present(self) -> list[str]:
        """Names of the members that still take part."""
        return [seat.member.name for seat in self._seats.values() if not seat.is_off]

    async def join(self, within_s: float) -> None:
        """Return once every member has joined, and waits for its first batch or instant.

        within_s: real time for all of them.  Raises NoAnswer.
        """
        self._connection = await self._bus.connection()
        began_ns = self._clock.monotonic_ns()
        self._joins_within_s = within_s
        for seat in self._seats.values():
            left_s = within_s - (self._clock.monotonic_ns() - began_ns) / NS_PER_S
            answer = await self._answer(seat, max(left_s, 0.0))
            if answer is not None:
                self._name_later(self._take(seat, answer))
        await self._outputs_arrived()
        self._hand_over(JOIN)

    async def run(self, quanta: int) -> ClockStatistics:
        """Let so many quanta pass, after `join`.

        Raises NoAnswer for a member that does not answer in time, Unavailable if batches do not
        arrive, or the broker is away, and what the sources raise.
        """
        wanted: asyncio.Queue[int] = asyncio.Queue()
        prepared: asyncio.Queue[_Prepared | Exception] = asyncio.Queue()
        async with tasks.background({"sources of the run": self._prepare_all(wanted, prepared)}):
            wanted.put_nowait(1)
            for quantum in range(1, quanta + 1):
                began_ns = self._clock.monotonic_ns()
                batches = await prepared.get()
                if isinstance(batches, Exception):
                    raise batches
                await self._before(quantum)
                sent = await self._publish(batches)
                if self._is_ahead and quantum < quanta:
                    wanted.put_nowait(quantum + 1)
                answers_s = await self._work_off(quantum)
                await self._acknowledged(sent)
                self._hand_over(quantum)
                if not self._is_ahead and quantum < quanta:
                    wanted.put_nowait(quantum + 1)
                wall_ns = self._clock.monotonic_ns() - began_ns
                self.statistics.note(self._quantum_ns, wall_ns, answers_s)
        return self.statistics

    # --- sources --------------------------------------------------------------------------------

    async def _prepare_all(
        self, wanted: asyncio.Queue[int], prepared: asyncio.Queue[_Prepared | Exception]
    ) -> None:
        """Compute the quanta that are wanted, until cancelled; errors are for who takes them."""
        while True:
            quantum = await wanted.get()
            try:
                prepared.put_nowait(await self._prepare(quantum))
            except Exception as exc:  # noqa: BLE001 - raised where it is taken
                prepared.put_nowait(exc)

    async def _prepare(self, quantum: int) -> _Prepared:
        """Compute and encode the batches of a quantum."""
        stamp_ns = self._start_ns + quantum * self._quantum_ns
        prepared: _Prepared = []
        for address, batch in await self._sources(quantum):
            if batch.epoch is None or batch.seq is None:
                raise Invalid(f"a batch of {address} in quantum {quantum} has no epoch and seq")
            payload = codec.stamped(codec.body(batch), stamp_ns)
            prepared.append((address, batch.epoch, batch.seq, payload))
        return prepared

    async def _publish(self, prepared: _Prepared) -> list[asyncio.Future[None]]:
        """Publish the batches, and name them in the ticks of those that read them."""
        sent = []
        for address, epoch, seq, payload in prepared:
            topic = str(StreamTopic(self._space, Verb.DATA, address))
            sent.append(await self._bus.submit(topic, payload))
            self.published.setdefault(address, {})[epoch] = seq
            for seat in self._seats.values():
                if address in seat.member.inputs:
                    seat.named.setdefault(address, {})[epoch] = seq
        return sent

    async def _acknowledged(self, sent: Sequence[asyncio.Future[None]]) -> None:
        if not sent:
            return
        await asyncio.wait(sent, timeout=OUTPUTS_WITHIN_S)
        for future in sent:
            if not future.done():
                raise Unavailable("the broker did not acknowledge the batches of the sources")
            future.result()

    # --- a quantum ------------------------------------------------------------------------------

    async def _work_off(self, quantum: int) -> dict[str, float]:
        """Let every member work off a quantum; returns the real time of each answer in s."""
        until_ns = self._start_ns + quantum * self._quantum_ns
        answers_s: dict[str, float] = {}
        later: list[_Naming] = []
        for level in self._order.levels:
            seats = [seat for member in level if not (seat := self._seats[member.address]).is_off]
            began_ns = self._clock.monotonic_ns()
            for seat in seats:
                await self._send_tick(seat, quantum, until_ns)
            for seat in seats:
                left_s = seat.member.answers_within_s
                left_s -= (self._clock.monotonic_ns() - began_ns) / NS_PER_S
                answer = await self._answer(seat, max(left_s, 0.0))
                if answer is not None:
                    later += self._take(seat, answer)
                    passed_ns = self._clock.monotonic_ns() - began_ns
                    answers_s[seat.member.name] = passed_ns / NS_PER_S
        self._name_later(later)
        await self._outputs_arrived()
        return answers_s

    def _name_later(self, later: Sequence[_Naming]) -> None:
        """Name streams in the next ticks of their readers."""
        for seat, address, epochs in later:
            seat.named.setdefault(address, {}).update(epochs)

    async def _send_tick(self, seat: _Seat, quantum: int, until_ns: int) -> None:
        seat.tick = Tick(
            quantum=quantum,
            until_ns=until_ns,
            within_s=seat.member.answers_within_s,
            last=seat.named,
        )
        seat.named = {}
        seat.busy = ""
        seat.answer = _open_answer()
        await self._submit_tick(seat, seat.tick)

    async def _submit_tick(self, seat: _Seat, tick: Tick) -> None:
        topic = str(RunTopic(self._space, Verb.CLOCK, seat.member.address))
        await self._bus.submit(topic, run_clock.encode_tick(tick))

    async def _answer(self, seat: _Seat, within_s: float) -> Ready | None:
        """Wait for a member's answer; None if it is struck off.  Raises NoAnswer."""
        if seat.is_off and not seat.answer.done():
            return None
        until_ns = self._clock.monotonic_ns() + round(within_s * NS_PER_S)
        while (left_ns := until_ns - self._clock.monotonic_ns()) > 0:
            await asyncio.wait([seat.answer], timeout=min(left_ns / NS_PER_S, ASK_AGAIN_S))
            if seat.answer.done():
                return seat.answer.result()
            if self._bus.connection_number != self._connection:
                break
            if seat.tick is not None:
                await self._submit_tick(seat, seat.tick)
        if self._bus.connection_number != self._connection:
            raise Unavailable(
                "the connection to the broker broke in the run: ticks or answers were lost"
            )
        raise self._no_answer(seat)

    async def reconnect(self, within_s: float) -> None:
        """Return once the broker is reached again, and every member has answered its last tick
        over a new connection of its own; to be called before a quantum, by `before`.

        Raises Unavailable after `within_s` of real time.
        """
        began_ns = self._clock.monotonic_ns()
        try:
            async with asyncio.timeout(within_s):
                self._connection = await self._bus.connection(after=self._connection)
        except TimeoutError as exc:
            raise Unavailable(f"the broker was not reached again within {within_s:g} s") from exc
        seats = [seat for seat in self._seats.values() if not seat.is_off and seat.tick is not None]
        for seat in seats:
            seat.answer = _open_answer()
            if seat.tick is not None:
                await self._submit_tick(seat, seat.tick)
        for seat in seats:
            left_s = within_s - (self._clock.monotonic_ns() - began_ns) / NS_PER_S
            try:
                await self._answer(seat, left_s)
            except NoAnswer as exc:
                raise Unavailable(
                    f"prototype {seat.member.name!r} did not connect to the broker again within"
                    f" {within_s:g} s"
                ) from exc

    def _no_answer(self, seat: _Seat) -> NoAnswer:
        name, within_s = seat.member.name, seat.member.answers_within_s
        if not seat.has_asked:
            return NoAnswer(
                f"prototype {name!r} did not join the run within {self._joins_within_s:g} s",
                member=name,
                quantum=JOIN,
                hint=f"does it connect with `connect` or `connect_sync`? {ADDRESSES}",
            )
        quantum = JOIN if seat.tick is None else seat.tick.quantum
        act = f"answer quantum {quantum}"
        if quantum == JOIN:
            act, within_s = "come to its first batch or sleep", self._joins_within_s
        place = f": {seat.busy}" if seat.busy else ""
        return NoAnswer(
            f"prototype {name!r} did not {act} within {within_s:g} s{place}",
            member=name,
            quantum=quantum,
            hint="it must wait with the SDK alone: testbed.sleep() and testbed.timeout() follow the"
            " run's clock, time.sleep() and asyncio.sleep() do not; or set a longer answers_within",
        )

    def _take(self, seat: _Seat, answer: Ready) -> list[_Naming]:
        """Name what a member published to those who read it, in this quantum or in the next.

        Returns what is for the next one: the reader, the stream, its last batches.
        """
        if answer.is_leaving:
            seat.is_off = True
        for address, missing in answer.missing.items():
            raise Unavailable(
                f"batches of {address} up to {max(missing.values())} did not reach prototype"
                f" {seat.member.name!r} in quantum {answer.quantum}",
                hint="the broker dropped them, or their publisher lost its connection",
            )
        later = []
        for address, epochs in answer.last.items():
            if address.owner != seat.member.address or seat.last.get(address) == epochs:
                continue
            seat.last[address] = dict(epochs)
            for reader in self._seats.values():
                if address not in reader.member.inputs:
                    continue
                if self._order.is_forward(address.owner, reader.member.address):
                    reader.named.setdefault(address, {}).update(epochs)
                else:
                    later.append((reader, address, dict(epochs)))
        return later

    # --- what members send ----------------------------------------------------------------------

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Take the members' messages, until left."""
        async with AsyncExitStack() as stack:
            following = await self._subscribe(stack)
            try:
                async with tasks.background(following):
                    yield
            except ExceptionGroup as group:
                raise tasks.first_failure(group) from group

    async def _subscribe(self, stack: AsyncExitStack) -> dict[str, Coroutine[Any, Any, None]]:
        """Subscribe to the members, until the stack is left; returns what takes their messages."""
        space = self._space
        answers = [str(RunTopic(space, Verb.READY, address)) for address in self._seats]
        data = [str(StreamTopic(space, Verb.DATA, each)) for each in sorted(self._observed)]
        following: dict[str, Coroutine[Any, Any, None]] = {}
        if answers:
            inbox = self._bus.subscribe(answers, capacity=10_000, overflow="drop_oldest")
            of_members = await stack.enter_async_context(inbox)
            following["answers of the run"] = self._follow_answers(of_members)
        if data:
            inbox = self._bus.subscribe(data, capacity=100_000, overflow="drop_oldest")
            of_outputs = await stack.enter_async_context(inbox)
            following["outputs of the run"] = self._follow_outputs(of_outputs)
        return following

    async def _follow_answers(self, inbox: client.Inbox) -> None:
        """Take the members' answers, until cancelled."""
        async for message in inbox:
            inbox.ack(message)
            topic = namespace.parse(message.topic)
            seat = self._seats[topic.member] if isinstance(topic, RunTopic) else None
            try:
                ready = run_clock.decode_ready(message.payload)
            except Corrupt as exc:
                log.warning("answer was not understood", topic=message.topic, reason=str(exc))
                continue
            if seat is not None:
                await self._heard(seat, ready)

    async def _heard(self, seat: _Seat, ready: Ready) -> None:
        if ready.quantum is None:
            if seat.tick is None or seat.tick.quantum == JOIN:
                await self._admit(seat)
            else:
                log.warning("a member of the run asked to join again", member=seat.member.name)
        elif ready.is_leaving:
            seat.is_off = True
            seat.resolve(ready)
        elif seat.tick is not None and ready.quantum == seat.tick.quantum:
            if ready.busy:
                seat.busy = ready.busy
            else:
                seat.resolve(ready)

    async def _admit(self, seat: _Seat) -> None:
        """Tell a member the start of the run."""
        seat.has_asked = True
        seat.tick = Tick(
            quantum=JOIN, until_ns=self._start_ns, within_s=seat.member.answers_within_s
        )
        await self._submit_tick(seat, seat.tick)

    async def _follow_outputs(self, inbox: client.Inbox) -> None:
        """Take the batches that members publish, until cancelled."""
        async for message in inbox:
            inbox.ack(message)
            topic = namespace.parse(message.topic)
            if not isinstance(topic, StreamTopic):
                continue
            try:
                document = codec.parse(message.payload)
            except Corrupt as exc:
                log.warning("output was not understood", topic=message.topic, reason=str(exc))
                continue
            self._outputs.append((topic.address, document))
            if document.epoch is not None and document.seq is not None:
                self._arrived[topic.address, document.epoch] = document.seq
            self._has_arrived.set()

    async def _outputs_arrived(self) -> None:
        """Wait until all that the members have published is here; raises Unavailable."""
        try:
            async with asyncio.timeout(OUTPUTS_WITHIN_S):
                while (away := self._away()) is not None:
                    self._has_arrived.clear()
                    await self._has_arrived.wait()
        except TimeoutError as exc:
            raise Unavailable(
                f"batches of {away} did not reach the coordinator in {OUTPUTS_WITHIN_S:g} s"
            ) from exc

    def _away(self) -> StreamAddress | None:
        """A stream of a member with a batch that is not here yet."""
        for seat in self._seats.values():
            for address in seat.last.keys() & self._observed:
                for epoch, seq in seat.last[address].items():
                    if self._arrived.get((address, epoch), 0) < seq:
                        return address
        return None

    def _hand_over(self, quantum: int) -> None:
        outputs, self._outputs = self._outputs, []
        self._observe(quantum, outputs)


@asynccontextmanager
async def open(  # noqa: A001, PLR0913 - `coordinator.open` says what it does; the parts by name
    space: str,
    members: Sequence[ClockMember],
    *,
    bus: client.Bus,
    clock: Clock,
    start_ns: int,
    quantum_ns: int,
    sources: Sources,
    outputs: Sequence[StreamAddress] = (),
    observe: Observe = lambda _quantum, _outputs: None,
    before: Before = _nothing,
    is_ahead: bool = True,
) -> AsyncIterator[Coordinator]:
    """Open the clock of a run, before its members are started.

    bus: with the credential of a machine that writes `run_clock.clock_stream`, reads a stream of
    every member and writes the sources.  start_ns, quantum_ns: of virtual time.  sources: computes
    the batches of a quantum, with epoch and seq.  outputs: streams of members that `observe` takes.
    before: is called before each quantum, and may have the broker restarted: see `reconnect`.
    is_ahead: whether a quantum's sources may be computed while members work off the one before;
    False where a source depends on what members published.
    """
    coordinator = Coordinator(
        space,
        members,
        bus=bus,
        clock=clock,
        start_ns=start_ns,
        quantum_ns=quantum_ns,
        sources=sources,
        outputs=frozenset(outputs),
        observe=observe,
        before=before,
        is_ahead=is_ahead,
    )
    async with coordinator.following():
        yield coordinator
