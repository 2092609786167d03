"""The time stamp up to which the recorder lacks no batch of a publisher's life.  Pure.

A publisher that lost its spool states a gap from there.  The stamp is that of the last sample of a
batch, as it came, and never beyond its arrival: one sample from the future does not hide what is
missing.  A stamp that is too early costs nothing, see `lost_gaps`.
"""

from collections.abc import Mapping
from typing import NamedTuple

from broker.messages import Held
from testbed_api.recorder.ledger import StreamEpoch

MOST_BEYOND = 10_000
"""Batches of a life behind a missing one, whose stamps are remembered."""


class LifeEnd(NamedTuple):
    """The end of a life.

    until_ns: None before one is known.  beyond: stamps of batches behind a missing one, by sequence
    number.
    """

    until_ns: int | None = None
    beyond: Mapping[int, int] = {}


class LifeEnds:
    """The ends of the lives that this process has received batches of."""

    def __init__(self) -> None:
        self._ends: dict[StreamEpoch, LifeEnd] = {}

    def load(self, life: StreamEpoch, until_ns: int | None) -> None:
        """Take up a life as the ledger has it."""
        self._ends[life] = LifeEnd(until_ns)

    def after(
        self,
        held: Mapping[StreamEpoch, Held],
        stamps_ns: Mapping[StreamEpoch, Mapping[int, int]],
    ) -> Mapping[StreamEpoch, LifeEnd]:
        """The ends of lives with their new batches, for `apply` once these are in the ledger.

        held: with the new batches.  stamps_ns: of the new batches, by sequence number.
        """
        return {
            life: self._after(life, ranges, stamps_ns.get(life, {}))
            for life, ranges in held.items()
        }

    def _after(self, life: StreamEpoch, held: Held, stamps_ns: Mapping[int, int]) -> LifeEnd:
        until_ns, before = self._ends.get(life, LifeEnd())
        known = {**before, **stamps_ns}
        complete = [seq for seq in known if seq <= held.upto]
        if complete:
            until_ns = known[max(complete)]
        beyond = {seq: end_ns for seq, end_ns in known.items() if seq > held.upto}
        return LifeEnd(until_ns, beyond if len(beyond) <= MOST_BEYOND else {})

    def apply(self, ends: Mapping[StreamEpoch, LifeEnd]) -> None:
        """Take up the ends of lives whose batches are in the ledger."""
        self._ends |= ends

    def forget(self, life: StreamEpoch) -> None:
        """Forget a life; it is loaded again if another batch of it comes."""
        self._ends.pop(life, None)
