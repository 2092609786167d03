"""Organisations of which the store takes nothing for now, while it takes the others'.

What they send in the meantime is not kept here: it would fill up what all share.  A broker's
acknowledgement frees no spool, so what is numbered comes again until it is marked.
"""

from collections.abc import Collection
from dataclasses import dataclass

import structlog

from broker.clock import NS_PER_S

FIRST_S = 1.0
LONGEST_S = 30.0
"""Of the pause before an organisation's samples are offered again; it doubles."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Pause:
    reason: str
    until_ns: int
    length_s: float


class Withheld:
    """Whose samples the store did not take the last time that they were offered."""

    def __init__(self) -> None:
        self._pauses: dict[str, _Pause] = {}

    def refused(self, organisation: str, reason: str, now_ns: int) -> None:
        """It took nothing of an organisation: offer it nothing for a while, longer each time."""
        before = self._pauses.get(organisation)
        if before is None:
            log.warning("samples were withheld", organisation=organisation, reason=reason)
        length_s = FIRST_S if before is None else min(2 * before.length_s, LONGEST_S)
        until_ns = now_ns + round(length_s * NS_PER_S)
        self._pauses[organisation] = _Pause(reason, until_ns, length_s)

    def reason(self, organisation: str, now_ns: int) -> str | None:
        """Why it is not offered now, None if it may be."""
        if not self._pauses:  # asked for each message
            return None
        pause = self._pauses.get(organisation)
        return pause.reason if pause is not None and now_ns < pause.until_ns else None

    def stored(self, organisations: Collection[str]) -> None:
        """It took theirs."""
        for organisation in self._pauses.keys() & organisations:
            del self._pauses[organisation]
            log.warning("samples were stored again", organisation=organisation)

    def holds_all(self, organisations: Collection[str]) -> bool:
        """Whether all of these were refused before: then the store may well be there for others."""
        return bool(organisations) and self._pauses.keys() >= set(organisations)
