"""The alarm that a server is not read: it stands until samples flow, and its log backs off."""

import structlog

from broker.clock import NS_PER_S, Clock
from gateway.links.port import Sink

FIRST_QUIET_S, LONGEST_QUIET_S = 1.0, 60.0
"""While the alarm stands, its sentence changes, and connects are logged, no more often than this;
the time doubles from one change to the next."""
FIRST_HOLD_S, LONGEST_HOLD_S = 5.0, 60.0
"""Samples must flow for so long before the alarm is cleared, where they stopped soon after it was
cleared last; the time doubles from one such break to the next."""
STEADY_S = 60.0
"""Samples that flowed for so long make the next break the first one again."""

log = structlog.get_logger()


class ServerAlarm:
    """The alarm of one server over all its connections."""

    def __init__(self, sink: Sink, url: str, clock: Clock) -> None:
        self.stands = False
        self._sink = sink
        self._url = url
        self._clock = clock
        self._sentence = ""
        self._quiet_s = 0.0
        self._quiet_until_ns = 0
        self._log_pause_s = 0.0
        self._logged_until_ns = 0
        self._hold_s = 0.0
        self._flows_since_ns: int | None = None
        self._cleared_ns: int | None = None

    def connected(self, connects: int) -> None:
        """Note a session, which clears nothing.  connects: sessions until now."""
        self._flows_since_ns = None
        now_ns = self._clock.monotonic_ns()
        if not self.stands or now_ns >= self._logged_until_ns:
            self._log_pause_s = min(max(2 * self._log_pause_s, FIRST_QUIET_S), LONGEST_QUIET_S)
            self._logged_until_ns = now_ns + round(self._log_pause_s * NS_PER_S)
            log.info("server was connected", url=self._url, connects=connects)

    def broke(self, reason: str) -> None:
        """Raise the alarm: the connection ended, or there was none."""
        now_ns = self._clock.monotonic_ns()
        if not self.stands:
            self._lengthen_hold(now_ns)
        self._flows_since_ns = None
        sentence = f"{self._url} is not read: {reason}"
        if self.stands and (sentence == self._sentence or now_ns < self._quiet_until_ns):
            return
        self._quiet_s = min(max(2 * self._quiet_s, FIRST_QUIET_S), LONGEST_QUIET_S)
        self._quiet_until_ns = now_ns + round(self._quiet_s * NS_PER_S)
        self.stands, self._sentence = True, sentence
        self._sink.alarm("server", sentence)

    def note_data(self) -> None:
        """Note that data changes came while the alarm stands; clears it when they have flowed."""
        now_ns = self._clock.monotonic_ns()
        if self._flows_since_ns is None:
            self._flows_since_ns = now_ns
        if now_ns - self._flows_since_ns < self._hold_s * NS_PER_S:
            return
        self.stands, self._cleared_ns = False, now_ns
        self._quiet_s = self._log_pause_s = 0.0
        self._sink.alarm("server", None)

    def _lengthen_hold(self, now_ns: int) -> None:
        """Let samples flow longer before the alarm is cleared, if they did not flow for long."""
        flowed_ns = None if self._cleared_ns is None else now_ns - self._cleared_ns
        if flowed_ns is None or flowed_ns > STEADY_S * NS_PER_S:
            self._hold_s = 0.0
        else:
            self._hold_s = min(max(2 * self._hold_s, FIRST_HOLD_S), LONGEST_HOLD_S)
