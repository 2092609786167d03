"""Circuit breaker per organisation: stops writes of one whose samples the store refuses.

Its batches are acknowledged and not kept here, where they would fill the memory that all share.
They are not lost: a broker's acknowledgement frees no spool, and publishers send every numbered
batch again until it is marked.
"""

from collections.abc import Collection
from dataclasses import dataclass

import structlog

from broker.clock import NS_PER_S

FIRST_S = 1.0
LONGEST_S = 30.0
"""Longest pause before an organisation's samples are tried again; each pause doubles."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Pause:
    reason: str
    until_ns: int
    length_s: float


class CircuitBreaker:
    """The organisations whose samples the store refused at the last try."""

    def __init__(self) -> None:
        self._pauses: dict[str, _Pause] = {}

    def record_refusal(self, organisation: str, reason: str, now_ns: int) -> None:
        """Open the breaker of an organisation, for twice as long as the time before."""
        previous = self._pauses.get(organisation)
        if previous is None:
            log.warning("samples were withheld", organisation=organisation, reason=reason)
        length_s = FIRST_S if previous is None else min(2 * previous.length_s, LONGEST_S)
        until_ns = now_ns + round(length_s * NS_PER_S)
        self._pauses[organisation] = _Pause(reason, until_ns, length_s)

    def reason(self, organisation: str, now_ns: int) -> str | None:
        """The reason why an organisation's samples may not be written now; None if they may."""
        if not self._pauses:  # asked for each message
            return None
        pause = self._pauses.get(organisation)
        return pause.reason if pause is not None and now_ns < pause.until_ns else None

    def record_success(self, organisations: Collection[str]) -> None:
        """Close the breakers of these organisations: the store took their samples."""
        for organisation in self._pauses.keys() & organisations:
            del self._pauses[organisation]
            log.warning("samples were stored again", organisation=organisation)

    def is_open_for_all(self, organisations: Collection[str]) -> bool:
        """Whether the breakers of all these are open, so that the store may still serve others."""
        return bool(organisations) and self._pauses.keys() >= set(organisations)
