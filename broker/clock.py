"""Clocks, which are passed as arguments, and instants in nanoseconds since 1970 UTC.

Only this module may read the machine's clock or sleep on it; lint keeps it so.  Samples, batching,
leases, deadlines and staleness follow a `Clock`; time-outs of a transport are real time and use
`asyncio.timeout`.
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

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)


class Clock(Protocol):
    """Source of the time of a process."""

    def now_ns(self) -> int:
        """Return the present instant, ns since 1970 UTC; a SteppedClock never goes back."""

    async def sleep(self, duration_s: float) -> None:
        """Return once `duration_s` of this clock's time has passed; 0 or less yields once."""


class WallClock:
    """The machine's own time."""

    def now_ns(self) -> int:
        """Return the system's UTC in ns; it may jump when the system's clock is set."""
        return time.time_ns()

    async def sleep(self, duration_s: float) -> None:
        """Sleep in real time."""
        await asyncio.sleep(max(duration_s, 0.0))


class SteppedClock:
    """A clock that stands still until it is advanced, for tests and virtual time."""

    def __init__(self, start_ns: int = 0) -> None:
        """start_ns: the first instant, ns since 1970 UTC."""
        self._now_ns = start_ns
        self._order = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_ns(self) -> int:
        """Return the instant that the clock was last advanced to."""
        return self._now_ns

    async def sleep(self, duration_s: float) -> None:
        """Wait until the clock was advanced past the end of the duration."""
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        self._order += 1
        due_ns = self._now_ns + round(duration_s * NS_PER_S)
        heapq.heappush(self._sleepers, (due_ns, self._order, woken))
        await woken

    async def advance(self, duration_s: float) -> None:
        """Move the clock forward; each sleeper wakes at its instant and runs before the next."""
        end_ns = self._now_ns + round(duration_s * NS_PER_S)
        await _let_others_run()
        while self._sleepers and self._sleepers[0][0] <= end_ns:
            due_ns, _, woken = heapq.heappop(self._sleepers)
            self._now_ns = due_ns
            if not woken.done():
                woken.set_result(None)
            await _let_others_run()
        self._now_ns = end_ns


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
