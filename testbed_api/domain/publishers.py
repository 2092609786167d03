"""The machines that publish a stream, and the alarm of a stream that none may publish any more."""

from collections.abc import Iterable
from dataclasses import dataclass

from broker.clock import DAY_NS
from broker.namespace import LIVE
from broker.rights import Entry, Principal
from testbed_api.domain.grants import moment

ALARM_NS = 30 * DAY_NS
"""The alarm stands so long after the last publisher ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineAccess:
    """A machine, and the end of its access to the testbed.

    ended_ns: of the machine or of its last token; None while it is let in.  ended_by: who ended it,
    None if its time was over.
    """

    machine: Principal
    ended_ns: int | None
    ended_by: str | None

    def publishes(self, entry: Entry) -> bool:
        """Whether a stream is in the scope of the machine."""
        scope = self.machine.scope
        of_its_equipment = entry.space == LIVE and entry.address.owner == scope.equipment
        return of_its_equipment or entry in scope.writes


def alarm(entry: Entry, machines: Iterable[MachineAccess], now_ns: int) -> str | None:
    """The sentence about a stream whose publishers are let in no more.

    machines: of the stream's organisation.  None while one may publish it, if none ever could, and
    a month after the last one ended.
    """
    ends: list[tuple[int, MachineAccess]] = []
    for each in machines:
        if each.publishes(entry):
            if each.ended_ns is None:
                return None
            ends.append((each.ended_ns, each))
    if not ends:
        return None
    ended_ns, last = max(ends, key=lambda end: end[0])
    if now_ns - ended_ns > ALARM_NS:
        return None
    by = f"was revoked by {last.ended_by}" if last.ended_by else "expired"
    equipment = entry.address.owner
    return (
        f"{last.machine.id}, the last that published {equipment}, is let in no more: its credential"
        f" {by} on {moment(ended_ns)}; `testbed gateway code {equipment}` lets a gateway in"
    )
