"""Watches the wall time of the server's machine: each step is an alarm and an audit event."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog

from broker.clock import DAY_NS, NS_PER_S, ForwardClock, StepDetector, text_of
from testbed_api.audit.journal import Journal
from testbed_api.domain import audit
from testbed_api.domain.audit import AuditOutcome, Event, OtherAction

TARGET = "the server's clock"
LOOK_EVERY_S = 1.0
LEAST_S = 2.0
"""A smaller difference from the monotonic time is the slewing of a time service."""
ALARM_NS = DAY_NS
"""An alarm stands for so long after the step."""

NOT_FOLLOWED = (
    "the server does not follow a jump of more than a year; if that time is right, restart it"
)

log = structlog.get_logger()


class ClockStep(NamedTuple):
    """A step of the machine's wall time.

    by_ns: negative if it was set back.  from_ns, to_ns: the server's time before and after; it does
    not go back with the machine's.
    """

    by_ns: int
    from_ns: int
    to_ns: int

    @property
    def sentence(self) -> str:
        """The step in words."""
        direction = "ahead" if self.by_ns > 0 else "back"
        length_s = abs(self.by_ns) / NS_PER_S
        return f"the clock of the server was set {direction} by {length_s:,.1f} s"


class ClockWatch:
    """Finds steps of the machine's wall time, and tells the audit of each.

    steps: since the start.
    """

    def __init__(self, clock: ForwardClock, journal: Journal) -> None:
        """clock: the server's.  Where it begins ahead of the machine's, that is the first step."""
        self.steps = 0
        self._clock = clock
        self._journal = journal
        self._detector = StepDetector(clock.machine, least_s=LEAST_S)
        self._seen_ns = clock.now_ns()
        self._began_ahead_ns = clock.ahead_ns()
        self._alarm: tuple[str, int] | None = None

    @property
    def ahead_s(self) -> float:
        """Seconds that the server's time is ahead of the machine's, 0 but after a step.

        Negative after a jump of more than a year ahead, which it does not follow.
        """
        return round(self._clock.ahead_ns() / NS_PER_S, 3)

    def alarms(self) -> list[str]:
        """The sentence about the last step, if it is no older than a day."""
        if self._alarm is None:
            return []
        sentence, raised_ns = self._alarm
        return [sentence] if self._clock.monotonic_ns() - raised_ns < ALARM_NS else []

    async def run(self, follow: Callable[[ClockStep], Awaitable[None]]) -> None:
        """Look every second until cancelled.  follow: is called after each step was told."""
        if self._began_ahead_ns >= LEAST_S * NS_PER_S:
            await self._take(-self._began_ahead_ns, follow)
        while True:
            if by_ns := self._detector.look():
                await self._take(by_ns, follow)
            self._seen_ns = self._clock.now_ns()
            await self._clock.sleep(LOOK_EVERY_S)

    async def _take(self, by_ns: int, follow: Callable[[ClockStep], Awaitable[None]]) -> None:
        step = ClockStep(by_ns, self._seen_ns, self._clock.now_ns())
        machine = text_of(self._clock.machine.now_ns())
        self.steps += 1
        sentence = f"{step.sentence}, to {machine}"
        if self._clock.ahead_ns() < -LEAST_S * NS_PER_S:
            sentence += f": {NOT_FOLLOWED}"
        self._alarm = (sentence, self._clock.monotonic_ns())
        log.error("clock was set", by_s=by_ns / NS_PER_S, to=machine, ahead_s=self.ahead_s)
        facts = {"by_s": by_ns / NS_PER_S, "to": machine, "ahead_s": self.ahead_s}
        event = Event(
            step.to_ns,
            OtherAction.CLOCK,
            TARGET,
            AuditOutcome.FAILED,
            reason=step.sentence,
            details=audit.details(facts),
        )
        await self._journal.record(event)
        await follow(step)
