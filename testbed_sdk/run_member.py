"""A prototype as a member of a run: its time is the run's, and stands while the program works."""

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from broker import run_clock
from broker.bus import client
from broker.clock import NS_PER_S, Clock
from broker.errors import Corrupt, Forbidden, Invalid, Unavailable
from broker.namespace import EquipmentAddress, RunTopic, StreamAddress, Verb
from broker.run_clock import JOIN, Positions, Ready, Tick
from testbed_sdk import workers
from testbed_sdk.feed import ArrivedBatch, Feed, Waiter
from testbed_sdk.workers import Worker

ASK_AGAIN_S = 0.1
"""Real time after which a member that joins asks for the clock again."""
ARRIVALS_WITHIN = 0.5
"""Part of the time for an answer in which the named batches must have arrived."""
REPORT_AFTER = 0.5
"""Part of that time after which the coordinator hears where the program works still."""
LOOK_AGAIN_S = 0.005
"""Real time after which a program at work is looked at again: not every end of work is noticed."""
MOST_LOOKS = 20
"""Looks at a task that goes on and on without the SDK, before the processor is left to others."""
QUIET_TURNS = 3
"""Turns of the event loop in which nothing happens before the program is taken to wait."""

log = structlog.get_logger()


@dataclass(order=True, slots=True)
class _Due:
    """Something that happens at an instant of the run; order: of those at one instant."""

    time_ns: int
    order: int
    happen: Callable[[], None] = field(compare=False)
    is_over: bool = field(default=False, compare=False)


class RunInstants:
    """The clock of a member's connection: instants of the run, and durations of the machine.

    What a connection waits for, such as a mark, takes real time; what it writes down does not.
    """

    def __init__(self, now_ns: Callable[[], int], machine: Clock) -> None:
        """now_ns: the run's present instant."""
        self._now_ns = now_ns
        self._machine = machine

    def now_ns(self) -> int:
        """Return the run's present instant."""
        return self._now_ns()

    def monotonic_ns(self) -> int:
        """Return the machine's monotonic time."""
        return self._machine.monotonic_ns()

    async def sleep(self, duration_s: float) -> None:
        """Sleep on the machine's clock."""
        await self._machine.sleep(duration_s)


class RunMember:
    """The program's time in a run, as `ProgramTime` has it.

    Each tick of the coordinator lets it pass by a quantum.  The batches of the quantum and the
    sleepers that are due in it happen one after the other, in the order of time; each once the
    program waits again.  The tick is answered when the program waits after the last one.
    """

    def __init__(
        self,
        space: str,
        address: EquipmentAddress,
        *,
        bus: client.Bus,
        machine: Clock,
        published: Callable[[], Positions],
    ) -> None:
        """address: of the deployment.  machine: the clock for what takes real time.  published:
        returns the last batches of its outputs.
        """
        self.clock = RunInstants(self.now_ns, machine)
        self.newest_ns: dict[StreamAddress, int] = {}
        """The newest time stamp of the batches up to this quantum, by stream of an input."""
        self._address = address
        self._space = space
        self._bus = bus
        self._machine = machine
        self._published = published
        self._now_ns = 0
        self._due: list[_Due] = []
        self._order = itertools.count()
        self._feeds: list[Feed] = []
        self._tasks = asyncio.TaskGroup()
        self._calls: Counter[str] = Counter()
        self._waiting: set[Worker] = set()
        self._working: set[Worker] = set()
        self._followed: set[asyncio.Task[Any]] = set()
        """Tasks whose end is noticed."""
        self._activity = 0
        self._changed = asyncio.Event()
        self._joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._has_waited = asyncio.Event()
        self._tick: Tick | None = None
        self._answer_sent = Ready(quantum=JOIN)
        """The last answer, which the coordinator asks for again where it did not get it."""
        self._began_ns = 0
        """Monotonic time at which the tick arrived."""
        self._is_reported = False

    # --- time as the program sees it ------------------------------------------------------------

    def now_ns(self) -> int:
        """Return the run's present instant."""
        return self._now_ns

    def passed_ns(self) -> int:
        """Return the run's present instant, which never goes back."""
        return self._now_ns

    async def sleep(self, duration_s: float) -> None:
        """Return once so much of the run's time has passed."""
        if duration_s <= 0:
            await self._machine.sleep(0)
            return
        with self._waits() as waiter:
            due = self._at(duration_s, lambda: self._wake(waiter))
            try:
                await waiter.woken
            finally:
                due.is_over = True

    @asynccontextmanager
    async def timeout(self, duration_s: float) -> AsyncIterator[asyncio.Timeout]:
        """Cancel the block after so much of the run's time, and raise TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None if duration_s > 0 else 0) as limit:
            due = self._at(duration_s, lambda: limit.reschedule(loop.time()))
            try:
                yield limit
            finally:
                due.is_over = True

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Hold the answer to the tick while a call of the program is in flight."""
        self._calls[name] += 1
        self._note()
        try:
            yield
        finally:
            self._calls[name] -= 1
            self._works(workers.current())

    # --- inputs ---------------------------------------------------------------------------------

    def feed(self, address: StreamAddress, capacity: int) -> Feed:
        """A feed of an input, whose batches are released as the time passes."""
        feed = Feed(address, capacity, since=0 if self._tick is None else self._tick.quantum)
        self._feeds.append(feed)
        return feed

    def start(self, pump: Coroutine[None, None, None], name: str) -> None:
        """Run what fills a feed, until the connection ends."""
        self._tasks.create_task(pump, name=name)

    def arrive(self, feed: Feed, arrival: ArrivedBatch) -> None:
        """Add a batch that arrived to a feed."""
        feed.arrive(arrival)
        self._changed.set()

    def fail(self, feed: Feed, failure: Exception) -> None:
        """End a feed with an error, which its reader gets."""
        self._wake(feed.fail(failure))

    async def read(self, feed: Feed) -> ArrivedBatch:
        """The next batch of a feed, once the time has reached it; raises the feed's error."""
        while (arrival := feed.take()) is None:
            with self._waits() as waiter:
                feed.waiters.append(waiter)
                await waiter.woken
        return arrival

    # --- the clock ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the coordinator's ticks, until cancelled."""
        topic = str(RunTopic(self._space, Verb.CLOCK, self._address))
        async with (
            self._tasks,
            self._bus.subscribe([topic], capacity=100, overflow="drop_oldest") as inbox,
        ):
            self._tasks.create_task(self._ask(), name="clock of the run is asked for")
            try:
                await self._follow(inbox)
            except Forbidden as exc:
                if self._joined.done():
                    raise
                self._joined.set_exception(exc)

    async def _follow(self, inbox: client.Inbox) -> None:
        async for message in inbox:
            try:
                tick = run_clock.decode_tick(message.payload)
            except Corrupt as exc:
                log.warning("tick was not understood", reason=str(exc))
                continue
            if self._tick is None or tick.quantum > self._tick.quantum:
                self._begin(tick)
                await self._work_off(tick)
            elif tick.quantum == self._tick.quantum:
                await self._bus.connection()  # with all its subscriptions, after a new one
                await self._publish(self._answer_sent)

    async def join(self, within_s: float) -> None:
        """Return once the coordinator has told the start.

        Raises Unavailable after `within_s`, Forbidden if the credential is of no member.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await asyncio.shield(self._joined)
                return
        raise Unavailable(
            f"no coordinator set the clock of {self._space} for {self._address}"
            f" within {within_s:g} s",
            hint="TESTBED_CLOCK=run is for programs that a scenario starts; leave it out to"
            " follow the machine's clock",
        )

    async def leave(self) -> None:
        """Tell the coordinator that the program takes no further tick."""
        if self._tick is not None:
            await self._answer(is_leaving=True)

    async def _ask(self) -> None:
        while not self._joined.done():
            await self._publish(Ready(quantum=None))
            await self._machine.sleep(ASK_AGAIN_S)

    def _begin(self, tick: Tick) -> None:
        self._tick = tick
        self._began_ns = self._machine.monotonic_ns()
        self._is_reported = False

    async def _work_off(self, tick: Tick) -> None:
        """Let the time pass up to the end of the quantum, and answer."""
        if tick.quantum == JOIN:
            self._now_ns = tick.until_ns
            self._joined.set_result(None)
            await self._has_waited.wait()
            await self._settle()
            await self._answer()
            return
        missing = await self._gather(tick)
        for feed in self._feeds:
            self._schedule(feed, tick.until_ns)
        while self._due and self._due[0].time_ns < tick.until_ns:
            due = heapq.heappop(self._due)
            if not due.is_over:
                self._now_ns = max(self._now_ns, due.time_ns)
                due.happen()
                await self._settle()
        self._now_ns = tick.until_ns
        await self._answer(missing)

    async def _gather(self, tick: Tick) -> Positions:
        """Wait for the batches that a tick names; returns those that did not arrive in time."""
        named = [
            feed
            for feed in self._feeds
            if feed.name(tick.last) and (feed.since == JOIN or feed.since < tick.quantum - 1)
        ]
        with suppress(TimeoutError):
            async with asyncio.timeout(tick.within_s * ARRIVALS_WITHIN):
                while any(feed.awaited() for feed in named):
                    self._changed.clear()
                    await self._changed.wait()
        return {feed.address: missing for feed in named if (missing := feed.missing())}

    def _schedule(self, feed: Feed, until_ns: int) -> None:
        """Put the due batches of a feed among what happens in this quantum."""
        time_ns = self._now_ns
        for arrival in feed.due():
            newest_ns = time_ns if arrival.newest_ns is None else arrival.newest_ns
            time_ns = min(max(time_ns, newest_ns), until_ns - 1)
            if arrival.newest_ns is not None:
                before_ns = self.newest_ns.get(feed.address, newest_ns)
                self.newest_ns[feed.address] = max(before_ns, newest_ns)
            self._put(time_ns, self._releasing(feed, arrival), is_batch=True)

    def _releasing(self, feed: Feed, arrival: ArrivedBatch) -> Callable[[], None]:
        return lambda: self._wake(feed.release(arrival))

    def _at(self, duration_s: float, happen: Callable[[], None]) -> _Due:
        return self._put(self._now_ns + max(round(duration_s * NS_PER_S), 1), happen)

    def _put(self, time_ns: int, happen: Callable[[], None], *, is_batch: bool = False) -> _Due:
        """Schedule something; of one instant, batches come before sleepers."""
        order = next(self._order)
        due = _Due(time_ns, order - 2**60 if is_batch else order, happen)
        heapq.heappush(self._due, due)
        return due

    # --- the program's work ---------------------------------------------------------------------

    @contextmanager
    def _waits(self) -> Iterator[Waiter]:
        """Count who calls as waiting, until it is woken or goes on for another reason."""
        waiter = Waiter(workers.current(), asyncio.get_running_loop().create_future())
        if waiter.worker is not None:
            self._working.discard(waiter.worker)
            self._waiting.add(waiter.worker)
        self._has_waited.set()
        self._note()
        try:
            yield waiter
        finally:
            self._works(waiter.worker)

    def _wake(self, waiter: Waiter | None) -> None:
        if waiter is not None and not waiter.woken.done():
            waiter.woken.set_result(None)
            self._works(waiter.worker)

    def _works(self, worker: Worker | None) -> None:
        if worker is not None:
            self._waiting.discard(worker)
            self._working.add(worker)
            if isinstance(worker, asyncio.Task) and worker not in self._followed:
                self._followed.add(worker)
                worker.add_done_callback(self._ended)
        self._note()

    def _ended(self, worker: asyncio.Task[Any]) -> None:
        self._working.discard(worker)
        self._followed.discard(worker)
        self._note()

    def _note(self) -> None:
        self._activity += 1
        self._changed.set()

    async def _settle(self) -> None:
        """Return once the program waits: nothing of it works, or is about to."""
        looks = 0
        while True:
            before = self._activity
            for _ in range(QUIET_TURNS):
                self._changed.clear()
                await self._machine.sleep(0)
            if self._activity != before:
                looks = 0
                continue
            place = self._at_work()
            if not place:
                runnable = workers.runnable_beside()
                if runnable is None:
                    return
                looks += 1
                if looks <= MOST_LOOKS:
                    continue
                place = workers.place_of(runnable)
            await self._pause(place)

    async def _pause(self, place: str) -> None:
        """Wait for a change of the program's work, and report the place of it if it takes long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AGAIN_S):
                await self._changed.wait()
        passed_ns = self._machine.monotonic_ns() - self._began_ns
        if self._tick is None or self._is_reported:
            return
        if passed_ns > self._tick.within_s * REPORT_AFTER * NS_PER_S:
            self._is_reported = True
            await self._publish(replace(self._ready(), busy=place))

    def _at_work(self) -> str:
        """The place where the program works, empty if it waits."""
        for name, count in self._calls.items():
            if count:
                return f"a call of {name}() is in flight"
        for worker in self._working:
            if workers.has_work(worker, self._waiting):
                return workers.place_of(worker)
        return ""

    # --- answers --------------------------------------------------------------------------------

    def _ready(self) -> Ready:
        return Ready(quantum=None if self._tick is None else self._tick.quantum)

    async def _answer(self, missing: Positions | None = None, *, is_leaving: bool = False) -> None:
        answer = replace(
            self._ready(), last=self._published(), missing=missing or {}, is_leaving=is_leaving
        )
        self._answer_sent = answer
        await self._publish(answer)

    async def _publish(self, ready: Ready) -> None:
        """Send it; where the broker is away it is lost, and the coordinator asks again."""
        topic = str(RunTopic(self._space, Verb.READY, self._address))
        with suppress(Unavailable):
            await self._bus.submit(topic, run_clock.encode_ready(ready))


def deployment_of(outputs: Iterable[StreamAddress]) -> EquipmentAddress:
    """The deployment that all these outputs belong to; raises Invalid if it is not one."""
    owners = {address.owner for address in outputs}
    if len(owners) != 1:
        belong = ", ".join(sorted(map(str, owners))) or "nothing"
        raise Invalid(
            f"TESTBED_CLOCK=run needs the outputs of one deployment, and these are of {belong}",
            hint="set TESTBED_OUTPUTS=name=organisation/deployment/stream,…",
        )
    return owners.pop()
