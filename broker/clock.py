"""Clocks, which are passed as arguments, and instants in nanoseconds since 1970 UTC.

Only this module may read the machine's clock or sleep on it; lint keeps it so.  A machine's wall
time may be set at any moment, by an hour or by a century.  So an instant that is written down or
compared with a written one is wall time, and whatever measures how long something lasts is
monotonic time.  Time-outs of a transport are real time and use `asyncio.timeout`.
"""

import asyncio
import heapq
import random
import re
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol

from broker.errors import Invalid

NS_PER_S = 1_000_000_000
HOUR_S = 3_600
DAY_S = 86_400
DAY_NS = DAY_S * NS_PER_S
MOST_JUMP_NS = 366 * DAY_NS
"""A clock that is set further ahead than this is taken for a mistake."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)


class Clock(Protocol):
    """Source of the time of a process."""

    def now_ns(self) -> int:
        """Return the present instant, ns since 1970 UTC; it jumps when the wall time is set."""

    def monotonic_ns(self) -> int:
        """Return the ns since an unnamed moment: it only grows, whatever the wall time does."""

    async def sleep(self, duration_s: float) -> None:
        """Return once `duration_s` of monotonic time has passed; 0 or less yields once."""


class WallClock:
    """The machine's own time."""

    def now_ns(self) -> int:
        """Return the system's UTC in ns; it may jump when the system's clock is set."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Return the system's monotonic time in ns, the one that asyncio follows too."""
        return time.monotonic_ns()

    async def sleep(self, duration_s: float) -> None:
        """Sleep in real time."""
        await asyncio.sleep(max(duration_s, 0.0))


class SteppedClock:
    """A clock that stands still until it is advanced, for tests and virtual time.

    Its monotonic time begins at 0, so that it is not mistaken for an instant.
    """

    def __init__(self, start_ns: int = 0) -> None:
        """start_ns: the first instant, ns since 1970 UTC."""
        self._start_ns = start_ns
        self._passed_ns = 0
        self._order = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_ns(self) -> int:
        """Return the instant that the clock was last advanced or set to."""
        return self._start_ns + self._passed_ns

    def monotonic_ns(self) -> int:
        """Return by how much the clock was advanced in all."""
        return self._passed_ns

    def set_wall(self, duration_s: float) -> None:
        """Set the wall time ahead, or back if the duration is negative; no time passes."""
        self._start_ns += round(duration_s * NS_PER_S)

    async def sleep(self, duration_s: float) -> None:
        """Wait until the clock was advanced past the end of the duration."""
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        self._order += 1
        due_ns = self._passed_ns + round(duration_s * NS_PER_S)
        heapq.heappush(self._sleepers, (due_ns, self._order, woken))
        await woken

    async def advance(self, duration_s: float) -> None:
        """Let time pass; each sleeper wakes at its moment and runs before the next."""
        end_ns = self._passed_ns + round(duration_s * NS_PER_S)
        await _let_others_run()
        while self._sleepers and self._sleepers[0][0] <= end_ns:
            due_ns, _, woken = heapq.heappop(self._sleepers)
            self._passed_ns = due_ns
            if not woken.done():
                woken.set_result(None)
            await _let_others_run()
        self._passed_ns = end_ns


class ForwardClock:
    """A clock whose instants never go back: what has ended by it stays ended.

    While its instants are ahead of the machine's, as after those were set back, they go on at half
    speed until the machine's have caught up.  So they are never behind the machine's, but for one
    case: a jump of more than a year ahead is taken for a mistake, and not followed.
    """

    def __init__(self, machine: Clock, floor_ns: int = 0) -> None:
        """machine: the clock to follow.  floor_ns: the newest instant of an earlier life."""
        self.machine = machine
        self._passed_ns = machine.monotonic_ns()
        self._now_ns = max(machine.now_ns(), floor_ns)

    def now_ns(self) -> int:
        """Return the machine's instant, or a later one if that was returned before."""
        passed_ns = self.machine.monotonic_ns() - self._passed_ns
        self._passed_ns += passed_ns
        machine_ns = self.machine.now_ns()
        if machine_ns - self._now_ns > passed_ns + MOST_JUMP_NS:
            self._now_ns += passed_ns
        else:
            self._now_ns = max(machine_ns, self._now_ns + passed_ns // 2)
        return self._now_ns

    def monotonic_ns(self) -> int:
        """Return the machine's monotonic time."""
        return self.machine.monotonic_ns()

    async def sleep(self, duration_s: float) -> None:
        """Sleep as the machine's clock does."""
        await self.machine.sleep(duration_s)

    def ahead_ns(self) -> int:
        """Return by how much its instants are ahead of the machine's; negative if they follow."""
        return self.now_ns() - self.machine.now_ns()


class SteadyTime:
    """Instants that do not jump: the wall time of one moment, and what has passed since then.

    For durations between instants that are stored, which must not change with the wall time.
    """

    def __init__(self, clock: Clock) -> None:
        """clock: read now, and its monotonic time later."""
        self._clock = clock
        self._began_ns = clock.now_ns() - clock.monotonic_ns()

    def now_ns(self) -> int:
        """Return the present instant, as it is if the wall time was not set meanwhile."""
        return self._began_ns + self._clock.monotonic_ns()


class StepDetector:
    """Finds out that the wall time was set: it moved otherwise than the monotonic time."""

    def __init__(self, clock: Clock, *, least_s: float = 2.0) -> None:
        """least_s: a smaller difference between two looks is the slewing of a time service."""
        self._clock = clock
        self._least_ns = round(least_s * NS_PER_S)
        self._offset_ns = self._offset()

    def look(self) -> int:
        """Return by how much the wall time was set since the last look, in ns; 0 if it was not."""
        before_ns, self._offset_ns = self._offset_ns, self._offset()
        step_ns = self._offset_ns - before_ns
        return step_ns if abs(step_ns) >= self._least_ns else 0

    def _offset(self) -> int:
        return self._clock.now_ns() - self._clock.monotonic_ns()


class Backoff:
    """Pauses between attempts: each below a limit that doubles from `first_s` to `longest_s`.

    With full jitter a pause is anything between 0 and the limit, so that many clients of a server
    that comes back do not all arrive at once; without, it is the limit itself.
    """

    def __init__(
        self, clock: Clock, *, first_s: float, longest_s: float, jitter: bool = True
    ) -> None:
        """clock: sleeps."""
        self._clock = clock
        self._first_s = first_s
        self._longest_s = longest_s
        self._jitter = jitter
        self._limit_s = first_s

    def next_s(self) -> float:
        """Return the length of the next pause, and double the limit."""
        limit_s = self._limit_s
        self._limit_s = min(2 * limit_s, self._longest_s)
        return random.uniform(0, limit_s) if self._jitter else limit_s  # noqa: S311 - no secret

    def reset(self) -> None:
        """Begin again at `first_s`: an attempt succeeded."""
        self._limit_s = self._first_s

    async def pause(self) -> None:
        """Sleep for the next pause."""
        await self._clock.sleep(self.next_s())


async def _let_others_run() -> None:
    for _ in range(10):  # a wake-up may pass through a few tasks before all of them wait again
        await asyncio.sleep(0)


def text_of(time_ns: int) -> str:
    """Return an instant as RFC 3339 UTC text with nine digits, `2026-11-23T12:00:00.131000000Z`.

    Raises Invalid outside the years 1 to 9999.
    """
    seconds, nanos = divmod(time_ns, NS_PER_S)
    try:
        return f"{_second(seconds)}.{nanos:09d}Z"
    except OverflowError as exc:
        raise Invalid(f"{time_ns} ns is not an instant between the years 1 and 9999") from exc


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """Return the text of a whole second, cached: most instants written together share it."""
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S}"  # strftime does not pad the year


def ns_of(text: str) -> int:
    """Parse an RFC 3339 instant with `Z` or an offset and up to nine digits; raises Invalid."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise Invalid(
            f"{text[:40]!r} is not an instant",
            hint="write it as 2026-11-23T12:00:00Z, with up to nine digits of a second",
        )
    try:
        moment = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
        since = moment - _EPOCH
    except (ValueError, OverflowError) as exc:
        raise Invalid(f"{text!r} is not an instant: {exc}") from exc
    return (since.days * DAY_S + since.seconds) * NS_PER_S + int((match[2] or "").ljust(9, "0"))
